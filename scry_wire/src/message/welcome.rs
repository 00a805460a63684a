//! The answer to a hello: the version, and how far the shadow is.

use super::Message;
use crate::codec::{Reader, Writer};
use crate::frame::Tag;
use crate::{Error, Lsn, version};

/// How far the copy of the hello's generation is on the shadow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CopyState {
    /// The shadow knows nothing of this generation.
    None = b'n',
    /// A copy of this generation has begun.
    Copying = b'c',
    /// The copy of this generation is complete; changes are applied.
    Copied = b'd',
}

/// The platform takes the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The version both sides speak from here on; a reader that does not speak
    /// it gets [`Error::Version`].
    pub version: u16,
    /// End of the last transaction on the shadow; invalid before the first.
    pub applied_lsn: Lsn,
    /// Where the stream goes on: everything up to here is safe on the
    /// platform's side, on the shadow or in a journal on its way there.
    pub flushed_lsn: Lsn,
    /// How far the copy of this generation is.
    pub copy_state: CopyState,
    /// The generation the shadow holds; 0 for none.
    pub generation: u64,
    /// The source's timeline that `applied_lsn` belongs to; 0 where nothing is known.
    pub timeline: u32,
    /// The snapshot that is or was copied last; 0 before the first. A source
    /// that has not come so far was restored from an older state.
    pub copy_id: u64,
    /// Whether chunks of this connection may be of format [`Format::Stored`](super::Format::Stored).
    pub takes_stored: bool,
    /// Name of the shadow's database, for people.
    pub shadow: String,
    /// Program and version, for logs.
    pub software: String,
}

impl Message for Welcome {
    const TAG: Tag = Tag::Welcome;
    const NAME: &'static str = "welcome";

    fn write(&self, w: &mut Writer<'_>) {
        w.u16(self.version);
        w.lsn(self.applied_lsn);
        w.lsn(self.flushed_lsn);
        w.u8(self.copy_state as u8);
        w.u64(self.generation);
        w.u32(self.timeline);
        w.u64(self.copy_id);
        w.bool(self.takes_stored);
        w.name(&self.shadow);
        w.name(&self.software);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Error> {
        let chosen = r.u16("version")?;
        version::negotiate(chosen, chosen)?;
        Ok(Welcome {
            version: chosen,
            applied_lsn: r.lsn("applied_lsn")?,
            flushed_lsn: r.lsn("flushed_lsn")?,
            copy_state: match r.u8("copy_state")? {
                b'n' => CopyState::None,
                b'c' => CopyState::Copying,
                b'd' => CopyState::Copied,
                got => return Err(Error::Undefined { what: "copy_state", got: got.into() }),
            },
            generation: r.u64("generation")?,
            timeline: r.u32("timeline")?,
            copy_id: r.u64("copy_id")?,
            takes_stored: r.bool("takes_stored")?,
            shadow: r.name("shadow")?,
            software: r.name("software")?,
        })
    }
}
