//! The connection is refused or ended, with the reason in words.

use super::Message;
use crate::Error;
use crate::codec::{Reader, Writer};
use crate::frame::Tag;
use crate::limits::TEXT_BYTES_MAX;

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RefuseKind {
    /// Token or certificate.
    Auth = b'a',
    /// No common version.
    Version = b'v',
    /// The shadow belongs to another source, job or history.
    Identity = b'i',
    /// The bytes were not what the format says.
    Protocol = b'p',
    /// Another connection holds this role.
    Busy = b'b',
    /// The endpoint cannot be reached, or not in time.
    Unreachable = b'u',
    /// The shadow cannot be reached or refuses what it was given.
    Shadow = b's',
    /// The program is stopping.
    Stopping = b'q',
}

/// Ends a connection. The receiver shows `message`, `detail` and `hint` as
/// PostgreSQL shows an error, and tries again when `retry` says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refuse {
    /// Whose fault it is.
    pub kind: RefuseKind,
    /// Whether the same attempt can succeed later.
    pub retry: bool,
    /// What happened.
    pub message: String,
    /// More about it; may be empty.
    pub detail: String,
    /// What to do; may be empty.
    pub hint: String,
}

impl Message for Refuse {
    const TAG: Tag = Tag::Refuse;
    const NAME: &'static str = "refusal";

    fn write(&self, w: &mut Writer<'_>) {
        w.u8(self.kind as u8);
        w.bool(self.retry);
        w.text(&self.message, TEXT_BYTES_MAX);
        w.text(&self.detail, TEXT_BYTES_MAX);
        w.text(&self.hint, TEXT_BYTES_MAX);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Refuse {
            kind: match r.u8("refusal kind")? {
                b'a' => RefuseKind::Auth,
                b'v' => RefuseKind::Version,
                b'i' => RefuseKind::Identity,
                b'p' => RefuseKind::Protocol,
                b'b' => RefuseKind::Busy,
                b'u' => RefuseKind::Unreachable,
                b's' => RefuseKind::Shadow,
                b'q' => RefuseKind::Stopping,
                got => return Err(Error::Undefined { what: "refusal kind", got: got.into() }),
            },
            retry: r.bool("retry")?,
            message: r.text(TEXT_BYTES_MAX, "message")?,
            detail: r.text(TEXT_BYTES_MAX, "detail")?,
            hint: r.text(TEXT_BYTES_MAX, "hint")?,
        })
    }
}
