//! The envelope: length, tag, flags, row count, checksum.
//!
//! ```text
//!  0       4     5       6         8      12         16
//!  ┌───────┬─────┬───────┬─────────┬──────┬──────────┬─────────┐
//!  │ len   │ tag │ flags │ 0       │ rows │ crc32c   │ payload │
//!  └───────┴─────┴───────┴─────────┴──────┴──────────┴─────────┘
//! ```
//!
//! The checksum covers header bytes 0 to 11 and the payload. `rows` counts the
//! row changes or rows that begin in this frame, so that a program on the way
//! can limit rates without looking inside. Programs that only pass frames on
//! read the header, check the checksum, and keep the bytes as they are.

use bytes::{Buf, Bytes, BytesMut};

use crate::limits::{FRAME_HEADER_LEN, FRAME_PAYLOAD_MAX};
use crate::{Error, codec::Reader};

/// The last message of this frame goes on in the next frame of the same tag.
pub const FLAG_CONTINUED: u8 = 0x01;
const FLAGS_DEFINED: u8 = FLAG_CONTINUED;

/// The content type of a stream of frames, both ways.
pub const CONTENT_TYPE: &str = "application/vnd.scry.frames";

/// What a frame carries; the byte on the wire is readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Tag {
    /// First frame of a connection, from the worker ([`crate::message::Hello`]).
    Hello = b'H',
    /// Its answer ([`crate::message::Welcome`]).
    Welcome = b'W',
    /// The connection is refused or ended ([`crate::message::Refuse`]).
    Refuse = b'X',
    /// Something to tell, nothing to do ([`crate::message::Notice`]).
    Notice = b'N',
    /// A piece of the catalog document (JSON), by the snapshot leader.
    Catalog = b'C',
    /// The shadow has the schema ([`crate::message::CatalogApplied`]).
    CatalogApplied = b'c',
    /// A chunk begins ([`crate::message::ChunkStart`]).
    ChunkStart = b'S',
    /// Rows of the open chunk: tuples, one after another.
    Rows = b'D',
    /// The chunk is complete ([`crate::message::ChunkEnd`]).
    ChunkEnd = b'E',
    /// The chunk is on the shadow ([`crate::message::ChunkDone`]).
    ChunkDone = b'd',
    /// All tables are sent ([`crate::message::CopyFinish`]).
    CopyFinish = b'F',
    /// What the shadow does after the data ([`crate::message::CopyProgress`]).
    CopyProgress = b'p',
    /// The shadow is complete ([`crate::message::CopyFinished`]).
    CopyFinished = b'f',
    /// Tables on hold are copied while the stream goes on ([`crate::message::LateCopy`]).
    LateCopy = b'L',
    /// Changes, one after another ([`crate::message::change`]).
    Batch = b'B',
    /// Changes of transactions in progress ([`crate::message::piece`]).
    Piece = b'P',
    /// How far the shadow is ([`crate::message::Confirm`]).
    Confirm = b'A',
    /// What a verifying session wants next ([`crate::message::Ask`]).
    Ask = b'V',
    /// What the shadow holds ([`crate::message::Tell`]).
    Tell = b'v',
    /// Tables with changes in quarantine ([`crate::message::TableMarks`]).
    TableMarks = b'Q',
}

impl Tag {
    /// The tag of a byte.
    pub fn from_byte(byte: u8) -> Result<Self, Error> {
        Ok(match byte {
            b'H' => Tag::Hello,
            b'W' => Tag::Welcome,
            b'X' => Tag::Refuse,
            b'N' => Tag::Notice,
            b'C' => Tag::Catalog,
            b'c' => Tag::CatalogApplied,
            b'S' => Tag::ChunkStart,
            b'D' => Tag::Rows,
            b'E' => Tag::ChunkEnd,
            b'd' => Tag::ChunkDone,
            b'F' => Tag::CopyFinish,
            b'p' => Tag::CopyProgress,
            b'f' => Tag::CopyFinished,
            b'L' => Tag::LateCopy,
            b'B' => Tag::Batch,
            b'P' => Tag::Piece,
            b'A' => Tag::Confirm,
            b'V' => Tag::Ask,
            b'v' => Tag::Tell,
            b'Q' => Tag::TableMarks,
            _ => return Err(Error::Undefined { what: "frame tag", got: byte.into() }),
        })
    }

    /// The tag as a character, for messages.
    #[must_use]
    pub fn as_char(self) -> char {
        char::from(self as u8)
    }
}

/// The fields of a frame's header, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of payload.
    pub len: usize,
    /// What the frame carries.
    pub tag: Tag,
    /// The last message goes on in the next frame.
    pub continued: bool,
    /// Rows that begin in this frame.
    pub rows: u32,
    crc: u32,
}

impl Header {
    /// Reads and checks a header; the payload need not be there yet.
    pub fn decode(bytes: &[u8; FRAME_HEADER_LEN]) -> Result<Self, Error> {
        let mut r = Reader::new(bytes);
        let len = r.count(FRAME_PAYLOAD_MAX, "frame length")?;
        let tag = Tag::from_byte(r.u8("frame tag")?)?;
        let flags = r.u8("frame flags")?;
        if flags & !FLAGS_DEFINED != 0 {
            return Err(Error::Undefined { what: "frame flags", got: flags.into() });
        }
        let reserved = r.u16("frame reserved bytes")?;
        if reserved != 0 {
            return Err(Error::Undefined { what: "frame reserved bytes", got: reserved.into() });
        }
        let rows = r.u32("frame rows")?;
        let crc = r.u32("frame checksum")?;
        Ok(Header { len, tag, continued: flags & FLAG_CONTINUED != 0, rows, crc })
    }

    /// Bytes of the whole frame.
    #[must_use]
    pub fn frame_len(&self) -> usize {
        FRAME_HEADER_LEN + self.len
    }
}

/// A whole frame, as it stands on the wire.
#[derive(Debug, Clone)]
pub struct Frame {
    header: Header,
    bytes: Bytes,
}

impl Frame {
    /// Takes one frame off the front of `buf`, if all of it is there.
    ///
    /// `Ok(None)` means that more bytes are needed; the header is checked as
    /// soon as it is there, so a hostile length never makes the caller wait or
    /// allocate for it.
    pub fn take(buf: &mut BytesMut) -> Result<Option<Frame>, Error> {
        let Some(head) = buf.first_chunk::<FRAME_HEADER_LEN>() else { return Ok(None) };
        let header = Header::decode(head)?;
        if buf.len() < header.frame_len() {
            buf.reserve(header.frame_len() - buf.len());
            return Ok(None);
        }
        let bytes = buf.split_to(header.frame_len()).freeze();
        let frame = Frame { header, bytes };
        frame.check()?;
        Ok(Some(frame))
    }

    fn check(&self) -> Result<(), Error> {
        let (head, tail) = self.bytes.split_at_checked(12).unwrap_or_default();
        let payload = tail.get(4..).unwrap_or_default();
        let computed = crc32c::crc32c_append(crc32c::crc32c(head), payload);
        if computed == self.header.crc {
            return Ok(());
        }
        Err(Error::Checksum { sent: self.header.crc, computed })
    }

    /// What the frame carries.
    #[must_use]
    pub fn tag(&self) -> Tag {
        self.header.tag
    }

    /// Rows that begin in this frame.
    #[must_use]
    pub fn rows(&self) -> u32 {
        self.header.rows
    }

    /// Whether the last message goes on in the next frame.
    #[must_use]
    pub fn continued(&self) -> bool {
        self.header.continued
    }

    /// The whole frame, to pass on as it is.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> Bytes {
        let mut bytes = self.bytes.clone();
        bytes.advance(FRAME_HEADER_LEN.min(bytes.len()));
        bytes
    }
}

/// Makes the frame of one small message: `write` appends the payload.
///
/// Only for messages whose size is bounded by their fields; batches and rows
/// are cut into frames by their own writers ([`seal`]).
#[must_use]
pub fn frame(tag: Tag, write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut buf = vec![0; FRAME_HEADER_LEN];
    write(&mut buf);
    seal(&mut buf, tag, false, 0);
    buf
}

/// Completes a frame whose payload stands in `buf` behind
/// [`FRAME_HEADER_LEN`] spare bytes: writes header and checksum.
///
/// # Panics
/// When `buf` is shorter than a header or its payload is above
/// [`FRAME_PAYLOAD_MAX`]: writers cut their output, so that would be a bug here.
pub fn seal(buf: &mut [u8], tag: Tag, continued: bool, rows: u32) {
    let Some((head, payload)) = buf.split_first_chunk_mut::<FRAME_HEADER_LEN>() else {
        unreachable!("a frame's buffer begins with room for its header")
    };
    assert!(payload.len() <= FRAME_PAYLOAD_MAX, "payload of {} bytes is above the bound", payload.len());
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let flags = if continued { FLAG_CONTINUED } else { 0 };
    let mut fields = [0; 12];
    {
        let (a, rest) = fields.split_at_mut(4);
        a.copy_from_slice(&len.to_be_bytes());
        let (b, c) = rest.split_at_mut(4);
        b.copy_from_slice(&[tag as u8, flags, 0, 0]);
        c.copy_from_slice(&rows.to_be_bytes());
    }
    let crc = crc32c::crc32c_append(crc32c::crc32c(&fields), payload);
    let (front, back) = head.split_at_mut(12);
    front.copy_from_slice(&fields);
    back.copy_from_slice(&crc.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        frame(Tag::Notice, |b| b.extend_from_slice(b"abc"))
    }

    #[test]
    fn reads_what_it_writes() {
        let mut buf = BytesMut::from(&sample()[..]);
        let got = Frame::take(&mut buf).unwrap().unwrap();
        assert_eq!((got.tag(), &got.payload()[..], got.continued()), (Tag::Notice, &b"abc"[..], false));
        assert!(buf.is_empty());
    }

    #[test]
    fn waits_for_more_at_every_cut() {
        let whole = sample();
        for cut in 0..whole.len() {
            let mut buf = BytesMut::from(&whole[..cut]);
            assert!(Frame::take(&mut buf).unwrap().is_none());
            assert_eq!(buf.len(), cut);
        }
    }

    #[test]
    fn rejects_every_flipped_bit() {
        let whole = sample();
        for i in 0..whole.len() * 8 {
            let mut bad = whole.clone();
            bad[i / 8] ^= 1 << (i % 8);
            let mut buf = BytesMut::from(&bad[..]);
            // A flipped length may only make the reader wait for more.
            let got = Frame::take(&mut buf);
            assert!(!matches!(got, Ok(Some(_))), "bit {i} went through");
        }
    }

    #[test]
    fn rejects_a_length_above_the_bound_at_once() {
        let mut buf = BytesMut::from(&[0xff; FRAME_HEADER_LEN][..]);
        assert!(matches!(Frame::take(&mut buf), Err(Error::TooLarge { .. })));
    }
}
