//! How far shadow and journal are: the way back.

use super::Message;
use crate::codec::{Reader, Writer};
use crate::frame::Tag;
use crate::{Error, Lsn};

/// How far the platform's side is. Neither position goes back within a
/// connection, and neither lies beyond what the worker sent: a worker refuses
/// a confirmation that does. Either may be ahead of the other: a platform with
/// a journal keeps changes safe before the shadow shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirm {
    /// Everything up to here can be seen on the shadow.
    pub applied_lsn: Lsn,
    /// Everything up to here survives a crash, on the shadow or in the
    /// platform's journal. Only this may move the slot.
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
        Ok(Confirm { applied_lsn: r.lsn("applied_lsn")?, flushed_lsn: r.lsn("flushed_lsn")? })
    }
}
