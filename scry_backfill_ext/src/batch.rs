//! Changes, collected until they are worth a system call.
//!
//! One buffer, reused: [`scry_wire::message::change`] writes into it behind
//! room for a frame's header; [`Batch::frames`] cuts it into frames. A batch
//! is closed when it is large enough, or when the stream is idle.

use scry_wire::frame::{self, Tag};
use scry_wire::limits::{FRAME_HEADER_LEN, FRAME_PAYLOAD_MAX};

/// Bytes after which a batch is handed on: large enough that system calls and
/// checksums do not count, small enough to stay in the processor's cache.
pub const BATCH_BYTES: usize = 128 << 10;

/// Room that is kept for the next batch; a larger one is given back.
const KEEP_BYTES: usize = 4 << 20;

/// A value that was not copied into the batch.
#[derive(Debug, Clone, Copy)]
pub struct LargeValue<'a> {
    /// Where in the batch's buffer it belongs.
    pub at: usize,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// A run of changes.
pub struct Batch {
    buf: Vec<u8>,
    rows: u32,
    rows_max: u32,
    tag: Tag,
}

impl Batch {
    /// An empty batch of frames with this tag.
    pub fn new(tag: Tag) -> Self {
        let mut buf = Vec::with_capacity(2 * BATCH_BYTES);
        buf.resize(FRAME_HEADER_LEN, 0);
        Batch { buf, rows: 0, rows_max: u32::MAX, tag }
    }

    /// Where changes are appended.
    pub fn buf(&mut self) -> &mut Vec<u8> {
        &mut self.buf
    }

    /// Counts a row.
    pub fn count_row(&mut self) {
        self.rows += 1;
    }

    /// Frames of what follows have this tag. Only an empty batch changes it.
    pub fn set_tag(&mut self, tag: Tag) {
        debug_assert!(self.is_empty(), "a frame has one tag");
        self.tag = tag;
    }

    /// Takes back what was appended behind the first `len` bytes of payload.
    pub fn cut_to(&mut self, len: usize) {
        self.buf.truncate(FRAME_HEADER_LEN + len);
    }

    /// Bytes of payload.
    pub fn len(&self) -> usize {
        self.buf.len() - FRAME_HEADER_LEN
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is time to hand it on.
    pub fn is_full(&self) -> bool {
        self.len() >= BATCH_BYTES || self.rows >= self.rows_max
    }

    /// Closes batches at so many rows (`scry_backfill.batch_size`).
    pub fn limit_rows(&mut self, rows_max: u32) {
        self.rows_max = rows_max;
    }

    /// Rows counted since it was last emptied.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Hands each frame of the batch to `send` and empties it. `open`: the
    /// last message is not complete and goes on in the next frame.
    pub fn drain(&mut self, open: bool, mut send: impl FnMut(&[u8])) {
        if self.is_empty() {
            return;
        }
        if self.len() <= FRAME_PAYLOAD_MAX {
            frame::seal(&mut self.buf, self.tag, open, self.rows);
            send(&self.buf);
        } else {
            let payload = self.buf.get(FRAME_HEADER_LEN..).unwrap_or_default();
            self.cut(&[payload], open, &mut send);
        }
        self.empty();
    }

    /// As [`drain`](Self::drain), with values that were left where they are put
    /// in their places: a large value is never held twice.
    pub fn drain_with(&mut self, large: &[LargeValue<'_>], mut send: impl FnMut(&[u8])) {
        let mut parts = Vec::with_capacity(2 * large.len() + 1);
        let mut from = FRAME_HEADER_LEN;
        for value in large {
            parts.push(self.buf.get(from..value.at).unwrap_or_default());
            parts.push(value.bytes);
            from = value.at;
        }
        parts.push(self.buf.get(from..).unwrap_or_default());
        self.cut(&parts, false, &mut send);
        self.empty();
    }

    fn empty(&mut self) {
        self.rows = 0;
        if self.buf.capacity() > KEEP_BYTES {
            self.buf = Vec::with_capacity(2 * BATCH_BYTES);
            self.buf.resize(FRAME_HEADER_LEN, 0);
        }
        self.buf.truncate(FRAME_HEADER_LEN);
    }

    /// Cuts the payload that `parts` make one after another into frames.
    fn cut(&self, parts: &[&[u8]], open: bool, send: &mut impl FnMut(&[u8])) {
        let mut left: usize = parts.iter().map(|part| part.len()).sum();
        let mut rows = self.rows;
        let mut piece = Vec::with_capacity(FRAME_HEADER_LEN + FRAME_PAYLOAD_MAX);
        piece.resize(FRAME_HEADER_LEN, 0);
        for part in parts {
            let mut part = *part;
            while !part.is_empty() {
                let room = FRAME_HEADER_LEN + FRAME_PAYLOAD_MAX - piece.len();
                let (now, later) = part.split_at(room.min(part.len()));
                piece.extend_from_slice(now);
                (part, left) = (later, left - now.len());
                if left == 0 || piece.len() == FRAME_HEADER_LEN + FRAME_PAYLOAD_MAX {
                    frame::seal(&mut piece, self.tag, open || left > 0, std::mem::take(&mut rows));
                    send(&piece);
                    piece.truncate(FRAME_HEADER_LEN);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn puts_large_values_in_their_places() {
        let mut batch = Batch::new(Tag::Batch);
        batch.buf().extend_from_slice(b"abcd");
        let (one, two) = (vec![1; FRAME_PAYLOAD_MAX + 3], vec![2; 5]);
        let at = FRAME_HEADER_LEN + 2;
        let large = [LargeValue { at, bytes: &one }, LargeValue { at: at + 1, bytes: &two }];
        let mut payload = Vec::new();
        batch.drain_with(&large, |frame| payload.extend_from_slice(&frame[FRAME_HEADER_LEN..]));
        let want = [&b"ab"[..], &one, b"c", &two, b"d"].concat();
        assert!(payload == want);
        assert!(batch.is_empty());
    }

    #[test]
    fn cuts_a_large_batch_into_continued_frames() {
        let mut batch = Batch::new(Tag::Rows);
        batch.buf().extend(std::iter::repeat_n(7, FRAME_PAYLOAD_MAX * 2 + 5));
        batch.count_row();
        let mut frames = Vec::new();
        batch.drain(false, |frame| frames.push(frame.to_vec()));
        assert_eq!(frames.len(), 3);
        assert!(batch.is_empty());
        assert_eq!(frames.iter().map(|f| f[5]).collect::<Vec<_>>(), [1, 1, 0]);
    }
}
