//! Packs: the way up to the platform, where it is compressed.
//!
//! ```text
//! frames │ pack pack pack … end │ frames │ pack …      between sender and platform only
//!        └─ at a frame's border ┘
//! ```
//!
//! Role: the header of a pack, and what it may say. A pack holds a bounded run
//! of the frames' bytes, cut anywhere, as they are or compressed; the frames
//! inside, with their checksums, are what they would be without packs.
//! Flow: the platform says in its answer that it takes packs ([`HEADER`]); the
//! sender begins and ends a run of packs where it likes, at a frame's border.
//! Invariants: the first byte tells a pack from a frame; both lengths are
//! bounded, and so is their ratio, before memory is taken for either.
//! What it does not do: it compresses nothing. The extension links this crate
//! into the server, and no compressor belongs there.

use crate::Error;
use crate::codec::Reader;
use crate::limits::{FRAME_PAYLOAD_MAX, PACK_BYTES_MAX, PACK_HEADER_LEN, PACK_RATIO_MAX};

/// Header of the answer by which a platform says which packs it takes.
pub const HEADER: &str = "scry-packs";
/// The one kind of compression so far.
pub const ZSTD: &str = "zstd";

const _: () = assert!(FRAME_PAYLOAD_MAX < 1 << 24, "a frame's first byte is 0, and no pack's is");

/// What a pack holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Bytes of frames, as they are.
    Plain = b'p',
    /// Bytes of frames, as one Zstandard frame (RFC 8878) without a dictionary.
    Zstd = b'z',
    /// Nothing: frames follow, not packs.
    End = b'e',
}

impl Kind {
    fn from_byte(byte: u8) -> Result<Self, Error> {
        match byte {
            b'p' => Ok(Kind::Plain),
            b'z' => Ok(Kind::Zstd),
            b'e' => Ok(Kind::End),
            _ => Err(Error::Undefined { what: "pack kind", got: byte.into() }),
        }
    }
}

/// Whether this byte, at a frame's border, begins packs and not a frame.
#[must_use]
pub fn begins(byte: u8) -> bool {
    matches!(Kind::from_byte(byte), Ok(Kind::Plain | Kind::Zstd))
}

/// The least that `raw` bytes may be compressed to.
#[must_use]
pub fn coded_min(raw: usize) -> usize {
    raw.div_ceil(PACK_RATIO_MAX)
}

/// The fields of a pack's header, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the pack holds.
    pub kind: Kind,
    /// Bytes of frames in it.
    pub raw: usize,
    /// Bytes that follow the header.
    pub coded: usize,
}

impl Header {
    /// Reads and checks a header; what follows it need not be there yet.
    pub fn decode(bytes: &[u8; PACK_HEADER_LEN]) -> Result<Self, Error> {
        let mut r = Reader::new(bytes);
        let kind = Kind::from_byte(r.u8("pack kind")?)?;
        for _ in 0..3 {
            let reserved = r.u8("pack reserved bytes")?;
            if reserved != 0 {
                return Err(Error::Undefined { what: "pack reserved bytes", got: reserved.into() });
            }
        }
        let raw = r.count(PACK_BYTES_MAX, "pack length")?;
        let coded = r.count(PACK_BYTES_MAX, "pack compressed length")?;
        Header { kind, raw, coded }.checked()
    }

    fn checked(self) -> Result<Self, Error> {
        let (raw, coded) = (self.raw, self.coded);
        let fits = match self.kind {
            Kind::End => raw == 0 && coded == 0,
            Kind::Plain => raw > 0 && coded == raw,
            Kind::Zstd => coded > 0 && coded < raw,
        };
        if !fits {
            return Err(Error::Undefined { what: "pack lengths", got: coded as u64 });
        }
        if coded < coded_min(raw) {
            let max = (coded * PACK_RATIO_MAX) as u64;
            return Err(Error::TooLarge { what: "pack length by its ratio", got: raw as u64, max });
        }
        Ok(self)
    }

    /// The header as it stands on the wire.
    #[must_use]
    pub fn encode(&self) -> [u8; PACK_HEADER_LEN] {
        let number = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes();
        let mut out = [0; PACK_HEADER_LEN];
        let fields = [[self.kind as u8, 0, 0, 0], number(self.raw), number(self.coded)];
        for (to, from) in out.iter_mut().zip(fields.as_flattened()) {
            *to = *from;
        }
        out
    }
}
