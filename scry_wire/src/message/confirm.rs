//! How far the shadow is: the way back.

use super::Message;
use crate::codec::{Reader, Writer};
use crate::frame::Tag;
use crate::{Error, Lsn};

/// Positions of the shadow. Neither goes back within a connection, and neither
/// lies beyond what the worker sent: a worker refuses a confirmation that does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirm {
    /// Everything up to here can be seen on the shadow.
    pub applied_lsn: Lsn,
    /// Everything up to here survives a crash of the shadow. Only this may
    /// move the slot.
    pub flushed_lsn: Lsn,
}

impl Message for Confirm {
    const TAG: Tag = Tag::Confirm;
    const NAME: &'static str = "confirmation";

    fn write(&self, w: &mut Writer<'_>) {
        w.lsn(self.applied_lsn);
        w.lsn(self.flushed_lsn);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Error> {
        let confirm = Confirm { applied_lsn: r.lsn("applied_lsn")?, flushed_lsn: r.lsn("flushed_lsn")? };
        if confirm.flushed_lsn > confirm.applied_lsn {
            return Err(Error::Undefined {
                what: "flushed_lsn beyond applied_lsn",
                got: confirm.flushed_lsn.0,
            });
        }
        Ok(confirm)
    }
}
