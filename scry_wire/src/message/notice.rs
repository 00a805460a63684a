//! Something the receiver should show; nothing it has to do.

use super::Message;
use crate::Error;
use crate::codec::{Reader, Writer};
use crate::frame::Tag;
use crate::limits::TEXT_BYTES_MAX;

/// How grave a notice is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Level {
    /// For the record.
    Info = b'i',
    /// Something waits or is left out.
    Warning = b'w',
    /// Something is wrong and is being tried again.
    Error = b'e',
}

/// A line for the job's status and events. An empty message clears what the
/// last notice said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// How grave it is.
    pub level: Level,
    /// What happened.
    pub message: String,
    /// What to do; may be empty.
    pub hint: String,
}

impl Message for Notice {
    const TAG: Tag = Tag::Notice;
    const NAME: &'static str = "notice";

    fn write(&self, w: &mut Writer<'_>) {
        w.u8(self.level as u8);
        w.text(&self.message, TEXT_BYTES_MAX);
        w.text(&self.hint, TEXT_BYTES_MAX);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Notice {
            level: match r.u8("level")? {
                b'i' => Level::Info,
                b'w' => Level::Warning,
                b'e' => Level::Error,
                got => return Err(Error::Undefined { what: "level", got: got.into() }),
            },
            message: r.text(TEXT_BYTES_MAX, "message")?,
            hint: r.text(TEXT_BYTES_MAX, "hint")?,
        })
    }
}
