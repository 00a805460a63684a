//! What the fuzz targets call: one function for each decoder.
//!
//! Role: take any bytes, read them as a peer's bytes are read, and fail when a
//! reader panics, when what it accepted is not written as the same bytes, or
//! when the places where the bytes were cut make a difference. Flow: the
//! targets below `fuzz_targets` call these functions with libFuzzer's inputs;
//! `scry_wire/tests/fuzz_smoke.rs` includes this file and calls them with
//! mutated golden bytes, on stable Rust.
//! What it does not do: look for hangs or memory; libFuzzer does.

use bytes::{Bytes, BytesMut};
use scry_wire::Error;
use scry_wire::catalog::Catalog;
use scry_wire::codec::{Reader, Writer};
use scry_wire::frame::{Frame, Tag, seal};
use scry_wire::limits::{FRAME_HEADER_LEN, FRAME_PAYLOAD_MAX, PACK_BYTES_MAX, PACK_HEADER_LEN};
use scry_wire::message::change::{Assembler, Change, ChangeWriter, OldKind, OldTuple};
use scry_wire::message::piece::Mark;
use scry_wire::message::{
    Ask, CatalogApplied, ChunkDone, ChunkEnd, ChunkStart, Confirm, CopyFinish, CopyFinished, CopyProgress,
    Hello, LateCopy, Message, Notice, Refuse, TableMarks, Tell, Welcome,
};
use scry_wire::pack;
use scry_wire::tuple::{self, Field, Fields};

/// Frames: all at once and in pieces gives the same; what was taken is sealed
/// as the same bytes.
pub fn frame(input: &[u8]) {
    let piece = usize::from(input.first().copied().unwrap_or_default() % 37) + 1;
    let (whole, whole_error) = take_frames(input, input.len().max(1));
    let (pieces, pieces_error) = take_frames(input, piece);
    assert_eq!(whole, pieces, "frames depend on how the bytes arrive");
    assert_eq!(whole_error, pieces_error, "the error depends on how the bytes arrive");
}

fn take_frames(input: &[u8], piece: usize) -> (Vec<Bytes>, Option<Error>) {
    let mut buf = BytesMut::new();
    let mut frames = Vec::new();
    for part in input.chunks(piece) {
        buf.extend_from_slice(part);
        loop {
            match Frame::take(&mut buf) {
                Ok(Some(frame)) => frames.push(checked(frame)),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

fn checked(frame: Frame) -> Bytes {
    control_payload(frame.tag(), &frame.payload());
    let again = sealed(frame.tag(), frame.continued(), frame.rows(), &frame.payload());
    let bytes = frame.into_bytes();
    assert_eq!(bytes, again, "a frame is not sealed as it was read");
    bytes
}

fn sealed(tag: Tag, continued: bool, rows: u32, payload: &[u8]) -> Vec<u8> {
    let mut buf = vec![0; FRAME_HEADER_LEN];
    buf.extend_from_slice(payload);
    seal(&mut buf, tag, continued, rows);
    buf
}

/// Hello and the other messages that fill a frame: the first byte is the
/// frame's tag, the rest its payload.
pub fn control(input: &[u8]) {
    if let Some((tag, payload)) = input.split_first()
        && let Ok(tag) = Tag::from_byte(*tag)
    {
        control_payload(tag, payload);
    }
}

fn control_payload(tag: Tag, payload: &[u8]) {
    match tag {
        Tag::Hello => message::<Hello>(payload),
        Tag::Welcome => message::<Welcome>(payload),
        Tag::Refuse => message::<Refuse>(payload),
        Tag::Notice => message::<Notice>(payload),
        Tag::CatalogApplied => message::<CatalogApplied>(payload),
        Tag::ChunkStart => message::<ChunkStart>(payload),
        Tag::ChunkEnd => message::<ChunkEnd>(payload),
        Tag::ChunkDone => message::<ChunkDone>(payload),
        Tag::CopyFinish => message::<CopyFinish>(payload),
        Tag::CopyProgress => message::<CopyProgress>(payload),
        Tag::CopyFinished => message::<CopyFinished>(payload),
        Tag::LateCopy => message::<LateCopy>(payload),
        Tag::TableMarks => message::<TableMarks>(payload),
        Tag::Confirm => message::<Confirm>(payload),
        Tag::Ask => message::<Ask>(payload),
        Tag::Tell => message::<Tell>(payload),
        Tag::Catalog | Tag::Rows | Tag::Batch | Tag::Piece => {}
    }
}

fn message<M: Message>(payload: &[u8]) {
    if let Ok(message) = M::from_payload(payload) {
        let mut again = Vec::new();
        message.write(&mut Writer::new(&mut again));
        assert_eq!(payload, again, "a {} is not written as it was read", M::NAME);
    }
}

/// Changes: what was read is written as the same bytes, and frame borders
/// anywhere in them change nothing. The first byte says where they are cut.
pub fn change(input: &[u8]) {
    let Some((cut, batch)) = input.split_first() else { return };
    mark(batch);
    let mut reader = Reader::new(batch);
    let mut readable = true;
    while reader.remaining() > 0 {
        let before = reader.rest();
        let Ok(change) = Change::read(&mut reader) else {
            readable = false;
            break;
        };
        let mut again = Vec::new();
        write_change(&mut ChangeWriter::new(&mut again), &change);
        let consumed = before.len() - reader.remaining();
        assert_eq!(before.get(..consumed), Some(&again[..]), "{change:?} is not written as it was read");
    }
    if let Some(assembled) = assemble(batch, usize::from(*cut) + 1) {
        assert_eq!(assembled, batch, "a batch depends on where it is cut");
    } else {
        assert!(!readable, "a batch that can be read whole is refused in pieces");
    }
}

fn assemble(batch: &[u8], piece: usize) -> Option<Vec<u8>> {
    let batch = batch.get(..FRAME_PAYLOAD_MAX).unwrap_or(batch);
    let mut assembler = Assembler::new();
    let mut assembled = Vec::new();
    let parts: Vec<&[u8]> = batch.chunks(piece).collect();
    for (i, part) in parts.iter().enumerate() {
        let bytes = sealed(Tag::Batch, i + 1 < parts.len(), 0, part);
        let frame = Frame::take(&mut BytesMut::from(&bytes[..])).ok()??;
        assembled.extend_from_slice(&assembler.push(&frame).ok()?.unwrap_or_default());
    }
    Some(assembled)
}

fn write_change(w: &mut ChangeWriter<'_>, change: &Change<'_>) {
    let (open, tuples) = match change {
        Change::Relation(relation) => return w.relation(relation),
        Change::Begin(begin) => return w.begin(*begin),
        Change::Truncate { flags, relids } => return w.truncate(*flags, relids),
        Change::Sequence(sequence) => return w.sequence(sequence),
        Change::Schema { hold, document } => {
            return w.schema(hold, document).expect("what was read is below the bound");
        }
        Change::Commit(commit) => return w.commit(*commit),
        Change::Keepalive(end_lsn) => return w.keepalive(*end_lsn),
        Change::Insert { relid, new } => (w.insert(*relid), [*new, &[]]),
        Change::Update { relid, old, new } => (w.update(*relid, kind(old)), [old_bytes(old), *new]),
        Change::Delete { relid, old } => (w.delete(*relid, kind(old)), [old_bytes(old), &[]]),
    };
    for tuple in tuples {
        w.tuple().extend_from_slice(tuple);
    }
    w.close(open).expect("what was read is below the bound");
}

fn kind(old: &OldTuple<'_>) -> OldKind {
    match old {
        OldTuple::None => OldKind::None,
        OldTuple::Key(_) => OldKind::Key,
        OldTuple::Full(_) => OldKind::Full,
    }
}

fn old_bytes<'a>(old: &OldTuple<'a>) -> &'a [u8] {
    match old {
        OldTuple::None => &[],
        OldTuple::Key(tuple) | OldTuple::Full(tuple) => tuple,
    }
}

/// Marks between the changes of pieces: what was read is written as the same bytes.
fn mark(input: &[u8]) {
    let mut reader = Reader::new(input);
    if let Ok(mark) = Mark::read(&mut reader) {
        let mut again = Vec::new();
        mark.write(&mut again);
        let consumed = input.len() - reader.remaining();
        assert_eq!(input.get(..consumed), Some(&again[..]), "{mark:?} is not written as it was read");
    }
}

/// Tuples: the length, the bytes and the fields agree with one another.
pub fn tuple(input: &[u8]) {
    let taken = tuple::take(&mut Reader::new(input));
    match tuple::complete_len(input) {
        Ok(Some(len)) => {
            assert_eq!(taken, Ok(&input[..len]), "a tuple's length is not the length of its bytes");
            assert_eq!(fields(input).as_ref(), Ok(&input[..len].to_vec()), "fields are not written as read");
            assert_eq!(tuple::complete_len(&input[..len]), Ok(Some(len)));
        }
        Ok(None) => assert!(matches!(taken, Err(Error::Truncated { .. })), "{taken:?}"),
        Err(error) => assert_eq!(taken, Err(error)),
    }
}

fn fields(input: &[u8]) -> Result<Vec<u8>, Error> {
    let mut fields = Fields::new(input)?;
    let mut again = Vec::new();
    let mut w = Writer::new(&mut again);
    w.u16(u16::try_from(fields.left()).unwrap_or(u16::MAX));
    while let Some(field) = fields.next_field()? {
        match field {
            Field::Null => Writer::new(&mut again).i32(tuple::LEN_NULL),
            Field::Unchanged => Writer::new(&mut again).i32(tuple::LEN_UNCHANGED),
            Field::Value(value) => {
                Writer::new(&mut again).u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
                again.extend_from_slice(value);
            }
        }
    }
    Ok(again)
}

/// The catalog document: what was read is written as a document that says the
/// same, and every object has a name for people.
pub fn catalog(input: &[u8]) {
    let Ok(document) = serde_json::from_slice::<Catalog>(input) else { return };
    let again = serde_json::to_vec(&document).expect("a document is written");
    let again: Catalog = serde_json::from_slice(&again).expect("a written document is read");
    assert_eq!(document.objects.len(), again.objects.len());
    assert_eq!(document.differences(&again), [], "a document differs from itself");
    document.objects.iter().for_each(|object| drop(object.describe()));
}

/// Headers of packs, one after another with what they announce: what was read is written as the same
/// bytes, and never asks for more than the bound.
pub fn pack(mut input: &[u8]) {
    while let Some((head, rest)) = input.split_first_chunk::<PACK_HEADER_LEN>() {
        let Ok(header) = pack::Header::decode(head) else { return };
        assert_eq!(header.encode(), *head, "a pack's header is not written as it was read");
        assert!(header.raw <= PACK_BYTES_MAX && header.coded <= header.raw, "{header:?}");
        assert!(header.kind == pack::Kind::End || header.coded >= pack::coded_min(header.raw), "{header:?}");
        input = rest.get(header.coded..).unwrap_or_default();
    }
}
