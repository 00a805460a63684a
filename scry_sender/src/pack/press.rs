//! From pieces to a pack.
//!
//! Role: the one place that compresses. Flow: pieces → one run of bytes →
//! Zstandard → header and bytes; what is short or does not shrink goes plain.
//! Invariants: a pack holds at most [`PACK_BYTES_MAX`]; it is never longer than
//! its pieces and a header; as many presses exist as threads have pressed at
//! the same time, whatever the number of connections.
//! What it does not do: it does not decide whether to pack.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use scry_wire::limits::{PACK_BYTES_MAX, PACK_HEADER_LEN};
use scry_wire::pack::{Header, Kind, coded_min};
use zstd::bulk::Compressor;

use crate::queue::PIECE_BYTES;

/// The fastest of Zstandard's regular levels: the processor belongs to the
/// database beside it, and a level above this gains a link less than it costs.
const LEVEL: i32 = 1;
/// Less is not worth a press: the small frames of a stream that idles, which
/// somebody may be waiting for.
const WORTH_BYTES: usize = 1 << 10;
/// Begins a frame that readers of Zstandard pass over (RFC 8878, 3.1.2).
const SKIPPABLE: [u8; 4] = 0x184D_2A50_u32.to_le_bytes();

const _: () = assert!(PIECE_BYTES <= PACK_BYTES_MAX, "every piece fits a pack");

/// A pack that is ready to go up.
#[derive(Debug)]
pub struct Packed {
    /// Bytes of frames in it.
    pub raw: usize,
    /// What goes up, one after another. The pieces' room is held with them.
    pub parts: [Bytes; 2],
}

impl Packed {
    /// Bytes that go up.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }

    /// Never: it has a header.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The pack that ends packs.
#[must_use]
pub fn end() -> Bytes {
    Bytes::copy_from_slice(&Header { kind: Kind::End, raw: 0, coded: 0 }.encode())
}

/// The presses of the program, shared by its connections.
#[derive(Debug, Default)]
pub struct Presses(Mutex<Vec<Press>>);

/// A compressor with its tables, and two buffers of a pack: below a megabyte.
struct Press {
    compressor: Compressor<'static>,
    raw: Vec<u8>,
    coded: Vec<u8>,
}

impl Presses {
    /// Packs these pieces, of at most [`PACK_BYTES_MAX`] together.
    #[must_use]
    pub fn pack(&self, pieces: Vec<Bytes>) -> Packed {
        let raw = pieces.iter().map(Bytes::len).sum();
        if raw < WORTH_BYTES {
            return plain(pieces, raw);
        }
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Some(mut press) = kept.or_else(Press::new) else { return plain(pieces, raw) };
        let pressed = press.press(&pieces);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(press);
        match pressed {
            Some(bytes) => {
                Packed { raw, parts: [Bytes::from_owner(Held { bytes, _pieces: pieces }), Bytes::new()] }
            }
            None => plain(pieces, raw),
        }
    }
}

fn plain(mut pieces: Vec<Bytes>, raw: usize) -> Packed {
    let head = Header { kind: Kind::Plain, raw, coded: raw }.encode();
    if pieces.len() == 1
        && raw >= WORTH_BYTES
        && let Some(piece) = pieces.pop()
    {
        return Packed { raw, parts: [Bytes::copy_from_slice(&head), piece] };
    }
    let mut bytes = Vec::with_capacity(PACK_HEADER_LEN + raw);
    bytes.extend_from_slice(&head);
    pieces.iter().for_each(|piece| bytes.extend_from_slice(piece));
    Packed { raw, parts: [Bytes::from_owner(Held { bytes, _pieces: pieces }), Bytes::new()] }
}

/// A pack's bytes, and the room that its pieces hold.
struct Held {
    bytes: Vec<u8>,
    _pieces: Vec<Bytes>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Press {
    /// None when there is no memory for one: then packs are plain.
    fn new() -> Option<Self> {
        let compressor = Compressor::new(LEVEL)
            .inspect_err(|error| tracing::warn!(%error, "could not make a compressor"))
            .ok()?;
        Some(Press { compressor, raw: Vec::new(), coded: Vec::new() })
    }

    /// The pieces as a compressed pack, if that is shorter than they are.
    fn press(&mut self, pieces: &[Bytes]) -> Option<Vec<u8>> {
        let Press { compressor, raw: gathered, coded } = self;
        let raw: &[u8] = match pieces {
            [piece] => piece,
            _ => {
                gathered.clear();
                pieces.iter().for_each(|piece| gathered.extend_from_slice(piece));
                gathered
            }
        };
        coded.resize(raw.len(), 0);
        // An error means that it does not fit: it would not have shrunk.
        let len = compressor.compress_to_buffer(raw, coded.as_mut_slice()).ok()?;
        let fill = filling(coded_min(raw.len()).saturating_sub(len));
        let header = Header { kind: Kind::Zstd, raw: raw.len(), coded: len + fill.len() };
        if header.coded >= raw.len() {
            return None;
        }
        let mut bytes = Vec::with_capacity(PACK_HEADER_LEN + header.coded);
        bytes.extend_from_slice(&header.encode());
        bytes.extend_from_slice(coded.get(..len)?);
        bytes.extend_from_slice(&fill);
        Some(bytes)
    }
}

/// At least `bytes` bytes that mean nothing: what shrinks to less than the
/// format's ratio allows is filled up.
fn filling(bytes: usize) -> Vec<u8> {
    if bytes == 0 {
        return Vec::new();
    }
    let zeros = bytes.saturating_sub(8);
    let mut fill = SKIPPABLE.to_vec();
    fill.extend_from_slice(&u32::try_from(zeros).unwrap_or(0).to_le_bytes());
    fill.resize(8 + zeros, 0);
    fill
}

impl std::fmt::Debug for Press {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Press").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Header and bytes, unpacked as the format says.
    fn unpack(packed: &Packed) -> (Header, Vec<u8>) {
        let bytes = packed.parts.concat();
        let (head, body) = bytes.split_first_chunk::<PACK_HEADER_LEN>().unwrap();
        let header = Header::decode(head).unwrap();
        assert_eq!((body.len(), packed.len()), (header.coded, bytes.len()));
        match header.kind {
            Kind::Plain => (header, body.to_vec()),
            Kind::Zstd => (header, zstd::bulk::decompress(body, header.raw).unwrap()),
            Kind::End => (header, Vec::new()),
        }
    }

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut state = seed;
        let next = std::iter::repeat_with(move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        });
        next.take(len).collect()
    }

    #[test]
    fn what_shrinks_is_compressed_and_comes_out_as_it_was() {
        let presses = Presses::default();
        let rows = b"a row that is much like others, number ".repeat(300);
        for cut in [1, 100, rows.len() - 1] {
            let (a, b) = rows.split_at(cut);
            let packed = presses.pack(vec![Bytes::copy_from_slice(a), Bytes::copy_from_slice(b)]);
            let (header, raw) = unpack(&packed);
            assert!(header.kind == Kind::Zstd && packed.raw == rows.len() && raw == rows, "{header:?}");
            assert!(packed.len() < rows.len() / 10);
        }
        assert_eq!(presses.0.lock().unwrap().len(), 1, "one press serves again");
    }

    #[test]
    fn what_is_short_or_does_not_shrink_goes_plain() {
        let presses = Presses::default();
        let noisy = [vec![noise(1, PIECE_BYTES)], vec![noise(2, 2_000), noise(3, 3_000)]];
        for pieces in noisy.into_iter().chain([vec![b"short".to_vec()]]) {
            let packed = presses.pack(pieces.iter().cloned().map(Bytes::from).collect());
            let (header, raw) = unpack(&packed);
            assert!(header.kind == Kind::Plain && raw == pieces.concat(), "{header:?}");
            assert_eq!(packed.len(), pieces.concat().len() + PACK_HEADER_LEN);
        }
    }

    #[test]
    fn what_shrinks_beyond_the_ratio_is_filled_up() {
        for len in [WORTH_BYTES, 5_000, PACK_BYTES_MAX] {
            let packed = Presses::default().pack(vec![Bytes::from(vec![0; len])]);
            // The header is refused if the ratio is not kept.
            let (header, raw) = unpack(&packed);
            assert!(header.kind == Kind::Zstd && raw == vec![0; len], "{header:?}");
        }
    }

    #[test]
    fn the_end_is_a_header_alone() {
        assert_eq!(unpack(&Packed { raw: 0, parts: [end(), Bytes::new()] }).0.kind, Kind::End);
    }
}
