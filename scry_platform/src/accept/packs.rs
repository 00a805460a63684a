//! From packs to frames: what a sender compressed on its way here.
//!
//! ```text
//! body ─┬─ frames ──────────────────────────────► buf ─► Frame
//!       └─ packs ─► header ─► whole pack ─► inflate ┘
//! ```
//!
//! Role: the one place that inflates bytes of a peer. Flow: at a frame's
//! border the first byte tells packs from frames; from there all that comes is
//! packs, until the pack that ends them, again at a frame's border.
//! Invariants: a header is checked before its pack is waited for; a pack is
//! inflated in one step into the room that its header announced and the bound
//! allows (no window is kept, nothing grows with what the bytes pretend to
//! hold), and must fill that room exactly; what a pack held is never taken for
//! packs again; bad bytes are an error of this connection.
//! What it does not do: it checks no frames. Their checksums cover what was
//! inflated.

use crate::{Error, Result};
use bytes::{Buf, BytesMut};
use scry_wire::limits::{PACK_BYTES_MAX, PACK_HEADER_LEN};
use scry_wire::pack::{Header, Kind, begins};
use zstd::bulk::Decompressor;
use zstd::zstd_safe::DParameter;

/// The packs of one connection.
#[derive(Default)]
pub struct Packs {
    /// Packs that came, while packs come.
    coded: Option<BytesMut>,
    /// Made with the first pack that needs it, about 100 kB.
    inflate: Option<Decompressor<'static>>,
}

/// What [`Packs::unpack`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Took a pack: look for frames again.
    Went,
    /// Nothing: more bytes are needed.
    Waits,
}

impl Packs {
    /// Takes all of `buf`, if packs begin with it: its first byte stands at a
    /// frame's border.
    pub fn begin(&mut self, buf: &mut BytesMut) {
        if self.coded.is_none() && buf.first().is_some_and(|byte| begins(*byte)) {
            self.coded = Some(buf.split());
        }
    }

    /// Where bytes that come belong: to the packs, or else to `buf`.
    pub fn waiting<'a>(&'a mut self, buf: &'a mut BytesMut) -> &'a mut BytesMut {
        self.coded.as_mut().unwrap_or(buf)
    }

    /// Whether no pack has been begun and not ended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.coded.as_ref().is_none_or(|coded| coded.is_empty())
    }

    /// Appends the next pack's bytes to `buf`, which holds no whole frame.
    ///
    /// # Errors
    /// A bad header, bytes that do not inflate to what it announced, or an end
    /// of packs inside a frame.
    pub fn unpack(&mut self, buf: &mut BytesMut) -> Result<Step> {
        let Some(coded) = &mut self.coded else { return Ok(Step::Waits) };
        let Some(head) = coded.first_chunk::<PACK_HEADER_LEN>() else { return Ok(Step::Waits) };
        let header = Header::decode(head)?;
        if coded.len() < PACK_HEADER_LEN + header.coded {
            return Ok(Step::Waits);
        }
        coded.advance(PACK_HEADER_LEN);
        let body = coded.split_to(header.coded);
        match header.kind {
            Kind::Plain => buf.extend_from_slice(&body),
            Kind::Zstd => self.inflate(&body, header.raw, buf)?,
            Kind::End if buf.is_empty() => *buf = self.coded.take().unwrap_or_default(),
            Kind::End => return Err(Error::protocol("packs end inside a frame")),
        }
        Ok(Step::Went)
    }

    fn inflate(&mut self, body: &[u8], raw: usize, buf: &mut BytesMut) -> Result<()> {
        let begin = buf.len();
        buf.resize(begin + raw, 0);
        let room = buf.get_mut(begin..).unwrap_or_default();
        match inflater(&mut self.inflate)?.decompress_to_buffer(body, room) {
            Ok(len) if len == raw => Ok(()),
            Ok(len) => Err(Error::protocol(format!("a pack of {raw} bytes inflates to {len}"))),
            Err(error) => Err(Error::protocol(format!("a pack of {raw} bytes does not inflate: {error}"))),
        }
    }
}

fn inflater<'a>(kept: &'a mut Option<Decompressor<'static>>) -> Result<&'a mut Decompressor<'static>> {
    let made = match kept.take() {
        Some(made) => made,
        None => make().map_err(|error| Error::protocol(format!("could not make an inflater: {error}")))?,
    };
    Ok(kept.insert(made))
}

/// The bound on the window is not needed while packs are inflated in one step;
/// it stands here for whoever changes that.
fn make() -> std::io::Result<Decompressor<'static>> {
    let mut inflate = Decompressor::new()?;
    inflate.set_parameter(DParameter::WindowLogMax(PACK_BYTES_MAX.ilog2()))?;
    Ok(inflate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use scry_wire::frame::{Frame, Tag, frame};

    fn pack(kind: Kind, raw: usize, body: &[u8]) -> Vec<u8> {
        [&Header { kind, raw, coded: body.len() }.encode()[..], body].concat()
    }

    fn zstd(raw: &[u8]) -> Vec<u8> {
        pack(Kind::Zstd, raw.len(), &zstd::bulk::compress(raw, 1).unwrap())
    }

    fn end() -> Vec<u8> {
        pack(Kind::End, 0, &[])
    }

    fn notice(fill: u8, len: usize) -> Vec<u8> {
        frame(Tag::Notice, |payload| payload.extend(std::iter::repeat_n(fill, len)))
    }

    /// All frames of `bytes`, which come in pieces of `size`.
    fn frames(bytes: &[u8], size: usize) -> Result<Vec<Vec<u8>>> {
        let (mut packs, mut buf, mut all) = (Packs::default(), BytesMut::new(), Vec::new());
        for piece in bytes.chunks(size) {
            packs.waiting(&mut buf).extend_from_slice(piece);
            loop {
                packs.begin(&mut buf);
                if let Some(frame) = Frame::take(&mut buf)? {
                    all.push(frame.into_bytes().to_vec());
                } else if packs.unpack(&mut buf)? == Step::Waits {
                    break;
                }
                assert!(buf.len() <= (1 << 20) + PACK_BYTES_MAX + bytes.len(), "{} bytes", buf.len());
            }
        }
        assert!(buf.is_empty() && packs.is_empty(), "something is left");
        Ok(all)
    }

    #[test]
    fn reads_frames_and_packs_in_turns_cut_anywhere() {
        let run: Vec<Vec<u8>> = (0..6).map(|i| notice(b'a' + i, 300 * usize::from(i) + 9)).collect();
        let packed = run[1..4].concat();
        let bytes = [
            run[0].clone(),
            zstd(&packed[..500]),
            pack(Kind::Plain, 40, &packed[500..540]),
            zstd(&packed[540..]),
            end(),
            run[4].clone(),
            zstd(&run[5]),
        ]
        .concat();
        for size in 1..bytes.len() {
            assert_eq!(frames(&bytes, size).unwrap(), run, "{size}");
        }
    }

    #[test]
    fn reads_the_golden_pack() {
        let text = include_str!("../../../scry_wire/tests/golden/pack_zstd.hex");
        let pairs = text.lines().flat_map(|line| line.split('#').next().unwrap_or("").split_whitespace());
        let golden: Vec<u8> = pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
        let (mut packs, mut buf) = (Packs::default(), BytesMut::from(&golden[..]));
        packs.begin(&mut buf);
        assert_eq!(packs.unpack(&mut buf).unwrap(), Step::Went);
        assert_eq!(buf[..], [0x5a; 64]);
    }

    /// What inflates to more, or to less, than its header says.
    #[test]
    fn rejects_packs_that_lie_about_their_length() {
        let large = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
        let small = zstd::bulk::compress(&[0; 900], 1).unwrap();
        for body in [large, small] {
            let raw = (body.len() * 2).clamp(1_000, PACK_BYTES_MAX);
            let body = &body[..body.len().min(raw - 1)];
            assert!(frames(&pack(Kind::Zstd, raw, body), 1 << 20).is_err());
        }
        let two = [zstd::bulk::compress(&[1; 600], 1).unwrap(), zstd::bulk::compress(&[2; 600], 1).unwrap()];
        let error = frames(&pack(Kind::Zstd, 1_000, &two.concat()), 1 << 20).unwrap_err();
        assert!(error.to_string().contains("does not inflate"), "{error}");
    }

    #[test]
    fn rejects_ends_inside_frames_and_packs_in_packs() {
        let whole = notice(b'x', 2_000);
        let inside = [zstd(&whole[..900]), end(), whole[900..].to_vec()].concat();
        assert!(frames(&inside, 1 << 20).unwrap_err().to_string().contains("inside a frame"));
        let nested = zstd(&zstd(&whole).repeat(20));
        assert!(frames(&nested, 1 << 20).is_err());
        let nested = [zstd(&vec![b'z'; 1_000]), end()].concat();
        assert!(frames(&nested, 1 << 20).is_err());
        // Less than a frame's header, which nothing has looked at yet.
        let nested = [pack(Kind::Plain, 4, b"zzzz"), end(), zstd(&whole)].concat();
        assert!(frames(&nested, 1 << 20).is_err());
    }

    #[test]
    fn rejects_flipped_bits_without_a_panic() {
        let whole: Vec<u8> = (0..40).flat_map(|i| notice(i, 50)).collect();
        let bytes = [zstd(&whole), end()].concat();
        for i in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[i / 8] ^= 1 << (i % 8);
            let mut buf = BytesMut::from(&bad[..]);
            let mut packs = Packs::default();
            packs.begin(&mut buf);
            while matches!(packs.unpack(&mut buf), Ok(Step::Went)) {
                while matches!(Frame::take(&mut buf), Ok(Some(_))) {}
            }
            assert!(buf.capacity() <= 4 * PACK_BYTES_MAX + (1 << 20));
        }
    }
}
