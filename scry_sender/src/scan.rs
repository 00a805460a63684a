//! Checks the frames that pass by, without holding them.
//!
//! Role: a cursor over a peer's bytes. It is fed the pieces in which they
//! were read and checks each header as soon as it is complete (length, tag,
//! flags, direction) and each checksum at the frame's last byte.
//! Flow: `intake::reader` (and `confirm`, for large frames) feeds a piece, and
//! only a piece that passed goes on.
//! Invariants: the last byte of a frame with a bad checksum is never passed on,
//! so nobody can complete it; memory is one header, whatever a frame's length is.
//! What it does not do: it does not look into payloads.

use std::ops::AddAssign;

use scry_wire::Error;
use scry_wire::frame::{Header, Tag};
use scry_wire::limits::FRAME_HEADER_LEN;

/// Bytes of the header that the checksum covers; the rest is the checksum.
const CHECKED_LEN: usize = FRAME_HEADER_LEN - 4;

/// What a piece held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Frames that began in it.
    pub frames: u64,
    /// Rows of these frames.
    pub rows: u64,
    /// Where the first of them begins.
    pub begins: Option<usize>,
}

impl AddAssign for Scanned {
    /// What two pieces held, one after the other. Where a frame begins is the first one's.
    fn add_assign(&mut self, next: Scanned) {
        self.frames += next.frames;
        self.rows += next.rows;
    }
}

/// Where in the run of frames the next byte stands.
#[derive(Debug)]
pub struct Scanner {
    require: fn(Tag) -> Result<(), Error>,
    head: [u8; FRAME_HEADER_LEN],
    head_len: usize,
    left: usize,
    crc: u32,
}

impl Scanner {
    /// For frames that `require` accepts, as [`require_from_worker`].
    #[must_use]
    pub fn new(require: fn(Tag) -> Result<(), Error>) -> Self {
        Scanner { require, head: [0; FRAME_HEADER_LEN], head_len: 0, left: 0, crc: 0 }
    }

    /// Checks the next piece.
    pub fn feed(&mut self, mut piece: &[u8]) -> Result<Scanned, Error> {
        let mut scanned = Scanned::default();
        let whole = piece.len();
        while !piece.is_empty() {
            if self.head_len == 0 && scanned.begins.is_none() {
                scanned.begins = Some(whole - piece.len());
            }
            piece = if self.head_len < FRAME_HEADER_LEN {
                self.feed_header(piece, &mut scanned)?
            } else {
                self.feed_payload(piece)?
            };
        }
        Ok(scanned)
    }

    /// Whether the next byte begins a frame.
    #[must_use]
    pub fn at_border(&self) -> bool {
        self.head_len == 0
    }

    /// How many bytes the frame that was begun still has; the header apart.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left
    }

    fn feed_header<'a>(&mut self, piece: &'a [u8], scanned: &mut Scanned) -> Result<&'a [u8], Error> {
        let room = self.head.get_mut(self.head_len..).unwrap_or_default();
        let (taken, rest) = piece.split_at(room.len().min(piece.len()));
        for (to, from) in room.iter_mut().zip(taken) {
            *to = *from;
        }
        self.head_len += taken.len();
        if self.head_len == FRAME_HEADER_LEN {
            let header = Header::decode(&self.head)?;
            (self.require)(header.tag)?;
            scanned.frames += 1;
            // A row has at least a byte; a larger count would stall the throttle.
            scanned.rows += u64::from(header.rows).min(header.len as u64);
            self.left = header.len;
            let (checked, _) = self.head.split_at(CHECKED_LEN);
            self.crc = crc32c::crc32c(checked);
            self.end_frame()?;
        }
        Ok(rest)
    }

    fn feed_payload<'a>(&mut self, piece: &'a [u8]) -> Result<&'a [u8], Error> {
        let (taken, rest) = piece.split_at(self.left.min(piece.len()));
        self.crc = crc32c::crc32c_append(self.crc, taken);
        self.left -= taken.len();
        self.end_frame()?;
        Ok(rest)
    }

    fn end_frame(&mut self) -> Result<(), Error> {
        if self.left > 0 {
            return Ok(());
        }
        self.head_len = 0;
        let sent = self.head.last_chunk::<4>().map_or(0, |crc| u32::from_be_bytes(*crc));
        if sent == self.crc {
            return Ok(());
        }
        Err(Error::Checksum { sent, computed: self.crc })
    }
}

/// Frames that a worker may send after its hello.
pub fn require_from_worker(tag: Tag) -> Result<(), Error> {
    match tag {
        Tag::Batch
        | Tag::Piece
        | Tag::Rows
        | Tag::ChunkStart
        | Tag::ChunkEnd
        | Tag::Catalog
        | Tag::CopyFinish
        | Tag::LateCopy
        | Tag::Ask => Ok(()),
        _ => Err(Error::Unexpected { tag: tag.as_char(), expected: "a frame that a worker sends" }),
    }
}

/// Frames that a platform may send.
pub fn require_from_platform(tag: Tag) -> Result<(), Error> {
    match tag {
        Tag::Welcome
        | Tag::Refuse
        | Tag::Notice
        | Tag::CatalogApplied
        | Tag::ChunkDone
        | Tag::CopyProgress
        | Tag::CopyFinished
        | Tag::TableMarks
        | Tag::Confirm
        | Tag::Tell => Ok(()),
        _ => Err(Error::Unexpected { tag: tag.as_char(), expected: "a frame that a platform sends" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scry_wire::frame::seal;

    fn frame(tag: Tag, payload: &[u8], rows: u32) -> Vec<u8> {
        let mut buf = vec![0; FRAME_HEADER_LEN];
        buf.extend_from_slice(payload);
        seal(&mut buf, tag, false, rows);
        buf
    }

    #[test]
    fn reads_frames_cut_at_every_byte() {
        let mut run = frame(Tag::Batch, b"hello", 2);
        run.extend(frame(Tag::CopyFinish, b"", 0));
        run.extend(frame(Tag::Rows, &[7; 300], 40));
        for size in 1..run.len() {
            let (mut scanner, mut rows, mut frames) = (Scanner::new(require_from_worker), 0, 0);
            for piece in run.chunks(size) {
                let scanned = scanner.feed(piece).unwrap();
                rows += scanned.rows;
                frames += scanned.frames;
            }
            assert!(scanner.at_border());
            assert_eq!((rows, frames), (42, 3));
        }
    }

    #[test]
    fn rejects_every_flipped_bit_at_the_last_byte_at_the_latest() {
        let run = frame(Tag::Batch, b"hello", 2);
        for i in 0..run.len() * 8 {
            let mut bad = run.clone();
            bad[i / 8] ^= 1 << (i % 8);
            let mut scanner = Scanner::new(require_from_worker);
            let got = scanner.feed(&bad);
            // A larger length makes the scanner wait: not complete is right too.
            assert!(got.is_err() || !scanner.at_border(), "bit {i} went through");
        }
    }

    #[test]
    fn rejects_frames_of_the_other_direction() {
        for tag in [Tag::Confirm, Tag::Welcome, Tag::Hello, Tag::Refuse] {
            let err = Scanner::new(require_from_worker).feed(&frame(tag, b"", 0)).unwrap_err();
            assert!(matches!(err, Error::Unexpected { .. }));
        }
        assert!(require_from_platform(Tag::Batch).is_err());
        assert!(require_from_platform(Tag::Confirm).is_ok());
    }

    #[test]
    fn tells_where_a_piece_has_its_first_border() {
        let run =
            [frame(Tag::Batch, b"hello", 2), frame(Tag::Rows, b"", 0), frame(Tag::Rows, b"x", 1)].concat();
        let mut scanner = Scanner::new(require_from_worker);
        let pieces = [(0..10, Some(0)), (10..20, None), (20..40, Some(1)), (40..54, None)];
        for (piece, begins) in pieces {
            assert_eq!(scanner.feed(&run[piece.clone()]).unwrap().begins, begins, "{piece:?}");
        }
    }

    #[test]
    fn rows_are_bounded_by_bytes() {
        let scanned = Scanner::new(require_from_worker).feed(&frame(Tag::Rows, &[0; 10], u32::MAX)).unwrap();
        assert_eq!(scanned.rows, 10);
    }
}
