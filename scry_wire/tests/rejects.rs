//! Bytes that are not what the format says: each is refused by a typed error.
#![allow(clippy::unwrap_used, reason = "in a test, a failed unwrap is the finding")]

mod hex;

use bytes::BytesMut;
use scry_wire::Error;
use scry_wire::codec::{Reader, Writer};
use scry_wire::frame::{Frame, Tag, seal};
use scry_wire::limits::{
    COLUMNS_MAX, FRAME_HEADER_LEN, FRAME_PAYLOAD_MAX, MESSAGE_BYTES_MAX, PACK_BYTES_MAX, PACK_RATIO_MAX,
};
use scry_wire::message::change::{Assembler, Change};
use scry_wire::message::piece::Mark;
use scry_wire::message::{
    CatalogApplied, ChunkDone, ChunkEnd, ChunkStart, Confirm, CopyFinish, CopyFinished, CopyProgress, Format,
    Hello, LateCopy, Message, Notice, Refuse, Relation, ReplicaIdentity, TableMarks, Welcome,
};
use scry_wire::pack::{Header as PackHeader, Kind};
use scry_wire::tuple::{self, Fields};

use hex::golden;

fn take(bytes: &[u8]) -> Result<Option<Frame>, Error> {
    Frame::take(&mut BytesMut::from(bytes))
}

/// The payload of a golden message.
fn payload(name: &str) -> Vec<u8> {
    golden(name).split_off(FRAME_HEADER_LEN)
}

/// The payload with one byte replaced.
fn with(name: &str, at: usize, byte: u8) -> Vec<u8> {
    let mut payload = payload(name);
    payload[at] = byte;
    payload
}

fn undefined<T: std::fmt::Debug>(result: Result<T, Error>, field: &str) {
    assert!(matches!(result, Err(Error::Undefined { what, .. }) if what == field), "{field}: {result:?}");
}

fn too_large<T: std::fmt::Debug>(result: Result<T, Error>, field: &str) {
    assert!(matches!(result, Err(Error::TooLarge { what, .. }) if what == field), "{field}: {result:?}");
}

fn change(bytes: &[u8]) -> Result<Change<'_>, Error> {
    Change::read(&mut Reader::new(bytes))
}

// Marks.

#[test]
fn rejects_marks_that_are_none_or_not_whole() {
    let read = |bytes: &[u8]| Mark::read(&mut Reader::new(bytes));
    undefined(read(&golden("change_commit")), "mark tag");
    for name in hex::names().iter().filter(|name| name.starts_with("mark_")) {
        let whole = golden(name);
        for len in 0..whole.len() {
            assert!(matches!(read(&whole[..len]), Err(Error::Truncated { .. })), "{name} cut at {len}");
        }
        let mut long = whole.clone();
        long[4] += 1;
        long.push(0);
        assert!(read(&long).is_err(), "{name} with a byte too many");
    }
    too_large(read(&[b'P', 0, 0, 0, 33]), "mark length");
}

// Frames.

#[test]
fn rejects_unknown_frame_tags() {
    let mut bytes = golden("chunk_end");
    bytes[4] = b'?';
    undefined(take(&bytes), "frame tag");
}

#[test]
fn rejects_undefined_frame_flags() {
    for flags in [0x02, 0x80, 0xff] {
        let mut bytes = golden("chunk_end");
        bytes[5] = flags;
        undefined(take(&bytes), "frame flags");
    }
}

#[test]
fn rejects_reserved_bytes_that_are_not_zero() {
    for at in [6, 7] {
        let mut bytes = golden("chunk_end");
        bytes[at] = 1;
        undefined(take(&bytes), "frame reserved bytes");
    }
}

#[test]
fn rejects_a_payload_above_the_bound_before_it_arrives() {
    let mut header = golden("chunk_end");
    header.truncate(FRAME_HEADER_LEN);
    header[..4].copy_from_slice(&u32::try_from(FRAME_PAYLOAD_MAX + 1).unwrap().to_be_bytes());
    too_large(take(&header), "frame length");
}

#[test]
fn accepts_the_largest_payload() {
    let mut bytes = vec![7; FRAME_HEADER_LEN + FRAME_PAYLOAD_MAX];
    seal(&mut bytes, Tag::Rows, false, 0);
    assert_eq!(take(&bytes).unwrap().unwrap().payload().len(), FRAME_PAYLOAD_MAX);
}

#[test]
fn rejects_a_wrong_checksum() {
    for at in [8, 12, FRAME_HEADER_LEN] {
        let mut bytes = golden("chunk_end");
        bytes[at] ^= 0x10;
        assert!(matches!(take(&bytes), Err(Error::Checksum { .. })), "byte {at}");
    }
}

// Messages.

/// Every proper prefix of a message is refused, and so is a byte too many.
#[test]
fn rejects_every_truncation_and_bytes_left_over() {
    type Read = fn(&[u8]) -> Result<(), Error>;
    fn read<M: Message>(payload: &[u8]) -> Result<(), Error> {
        M::from_payload(payload).map(drop)
    }
    let messages: [(&str, Read); 14] = [
        ("hello", read::<Hello>),
        ("welcome", read::<Welcome>),
        ("refuse", read::<Refuse>),
        ("notice", read::<Notice>),
        ("catalog_applied", read::<CatalogApplied>),
        ("chunk_start", read::<ChunkStart>),
        ("chunk_end", read::<ChunkEnd>),
        ("chunk_done", read::<ChunkDone>),
        ("copy_finish", read::<CopyFinish>),
        ("copy_progress", read::<CopyProgress>),
        ("copy_finished", read::<CopyFinished>),
        ("late_copy", read::<LateCopy>),
        ("table_marks", read::<TableMarks>),
        ("confirm", read::<Confirm>),
    ];
    for (name, read) in messages {
        let mut payload = payload(name);
        assert_eq!(read(&payload), Ok(()), "{name}");
        for cut in 0..payload.len() {
            let result = read(&payload[..cut]);
            assert!(matches!(result, Err(Error::Truncated { .. })), "{name} cut at {cut}: {result:?}");
        }
        payload.push(0);
        assert!(matches!(read(&payload), Err(Error::LeftOver { count: 1, .. })), "{name}");
    }
}

#[test]
fn rejects_a_message_of_another_tag() {
    let frame = take(&golden("welcome")).unwrap().unwrap();
    assert_eq!(Hello::from_frame(&frame), Err(Error::Unexpected { tag: 'W', expected: "hello" }));
}

#[test]
fn rejects_a_hello_with_other_magic() {
    undefined(Hello::from_payload(&with("hello", 0, b'X')), "hello magic");
}

#[test]
fn rejects_a_hello_without_a_common_version() {
    let mut payload = payload("hello");
    payload[4..8].copy_from_slice(&[0xff, 0xfe, 0xff, 0xff]);
    let result = Hello::from_payload(&payload);
    assert!(
        matches!(result, Err(Error::Version { theirs_min: 0xfffe, theirs_max: 0xffff, .. })),
        "{result:?}"
    );
}

#[test]
fn rejects_a_welcome_to_a_version_that_was_not_offered() {
    let result = Welcome::from_payload(&with("welcome", 1, 99));
    assert!(matches!(result, Err(Error::Version { theirs_min: 99, .. })), "{result:?}");
}

#[test]
fn rejects_undefined_values_of_one_byte_fields() {
    undefined(Hello::from_payload(&with("hello", 8, b'?')), "role");
    undefined(Welcome::from_payload(&with("welcome", 18, b'?')), "copy_state");
    undefined(Refuse::from_payload(&with("refuse", 0, b'?')), "refusal kind");
    undefined(Refuse::from_payload(&with("refuse", 1, 2)), "retry");
    undefined(Notice::from_payload(&with("notice", 0, b'?')), "level");
    undefined(ChunkDone::from_payload(&with("chunk_done", 16, 2)), "repeated");
    undefined(TableMarks::from_payload(&with("table_marks", 16, 2)), "diverged");
    undefined(ChunkStart::from_payload(&with("chunk_start", 20, b'?')), "format");
    undefined(ChunkStart::from_payload(&with("chunk_start", 21, b'?')), "replica_identity");
    undefined(ChunkStart::from_payload(&with("chunk_start", 48, 4)), "column flags");
}

#[test]
fn rejects_a_chunk_beyond_the_number_of_chunks() {
    undefined(ChunkStart::from_payload(&with("chunk_start", 11, 12)), "chunk");
    too_large(ChunkStart::from_payload(&with("chunk_start", 12, 0xff)), "chunks");
}

#[test]
fn accepts_positions_in_either_order() {
    let mut payload = payload("confirm");
    let ahead = Confirm::from_payload(&payload).unwrap();
    payload.rotate_left(8);
    let behind = Confirm::from_payload(&payload).unwrap();
    assert!(ahead.flushed_lsn > ahead.applied_lsn, "a journal is ahead of the shadow");
    assert_eq!((behind.applied_lsn, behind.flushed_lsn), (ahead.flushed_lsn, ahead.applied_lsn));
}

/// A count is checked before memory is taken for what it announces.
#[test]
fn rejects_counts_above_their_bounds() {
    let all = u32::MAX.to_be_bytes();
    too_large(CopyFinish::from_payload(&all), "tables");
    too_large(CatalogApplied::from_payload(&[&[0; 4], &all[..]].concat()), "chunks");
    too_large(CatalogApplied::from_payload(&[&[0; 8], &all[..]].concat()), "tables with former rows");
    too_large(CopyFinished::from_payload(&all), "objects left out");
    too_large(TableMarks::from_payload(&all), "marked tables");
    too_large(LateCopy::from_payload(&[&[0; 28], &all[..]].concat()), "late tables");
    let mut relation = payload("chunk_start");
    relation[42..46].copy_from_slice(&all);
    too_large(ChunkStart::from_payload(&relation), "columns");
}

#[test]
fn rejects_names_and_texts_above_their_bounds() {
    let mut name = payload("hello");
    name[37..41].copy_from_slice(&257_u32.to_be_bytes());
    too_large(Hello::from_payload(&name), "database");
    let mut text = payload("notice");
    text[1..5].copy_from_slice(&65_537_u32.to_be_bytes());
    too_large(Notice::from_payload(&text), "message");
}

#[test]
fn rejects_text_that_is_not_utf8_or_holds_a_zero_byte() {
    for byte in [0, 0xff] {
        let result = Hello::from_payload(&with("hello", 41, byte));
        assert_eq!(result, Err(Error::BadText { what: "database" }));
    }
}

#[test]
fn writes_a_zero_byte_in_text_as_a_space() {
    let mut buf = Vec::new();
    Writer::new(&mut buf).name("a\0b");
    assert_eq!(Reader::new(&buf).name("name").unwrap(), "a b");
}

// Changes.

#[test]
fn rejects_unknown_change_tags() {
    undefined(change(b"?\0\0\0\0"), "change tag");
}

#[test]
fn rejects_changes_above_the_bound() {
    let len = u32::try_from(MESSAGE_BYTES_MAX + 1).unwrap().to_be_bytes();
    too_large(change(&[b"I", &len[..]].concat()), "change length");
}

#[test]
fn rejects_a_change_that_its_length_cuts_or_overfills() {
    for (name, shift) in [("change_insert", -1_i8), ("change_update_key", -1), ("change_delete_full", -1)] {
        let mut bytes = golden(name);
        bytes[4] = bytes[4].wrapping_add_signed(shift);
        assert!(matches!(change(&bytes), Err(Error::Truncated { .. })), "{name}");
    }
    let mut bytes = golden("change_commit");
    bytes[4] += 1;
    bytes.push(0);
    assert_eq!(change(&bytes), Err(Error::LeftOver { what: "change", count: 1 }));
}

#[test]
fn rejects_a_delete_without_an_old_tuple() {
    undefined(change(b"D\0\0\0\x05\0\0\x40\x11n"), "old tuple kind");
}

#[test]
fn rejects_undefined_truncate_flags() {
    let mut bytes = golden("change_truncate");
    bytes[5] = 4;
    undefined(change(&bytes), "truncate flags");
}

#[test]
fn rejects_a_frame_that_ends_inside_a_change() {
    let whole = golden("change_insert");
    let frame = |payload: &[u8], continued| {
        let mut bytes = vec![0; FRAME_HEADER_LEN];
        bytes.extend_from_slice(payload);
        seal(&mut bytes, Tag::Batch, continued, 0);
        take(&bytes).unwrap().unwrap()
    };
    for cut in 1..whole.len() - 1 {
        let mut assembler = Assembler::new();
        assert_eq!(assembler.push(&frame(&whole[..cut], true)).unwrap(), None);
        let result = assembler.push(&frame(&whole[cut..whole.len() - 1], false));
        assert!(matches!(result, Err(Error::Truncated { .. })), "cut at {cut}: {result:?}");
    }
}

#[test]
fn rejects_a_continued_change_above_the_bound_before_it_arrives() {
    let mut bytes = vec![0; FRAME_HEADER_LEN];
    bytes.extend_from_slice(b"I\xff\xff\xff\xff");
    seal(&mut bytes, Tag::Batch, true, 0);
    let frame = take(&bytes).unwrap().unwrap();
    too_large(Assembler::new().push(&frame), "change length");
}

// Tuples.

#[test]
fn rejects_negative_field_counts_and_lengths() {
    undefined(Fields::new(b"\xff\xff"), "field count");
    undefined(tuple::complete_len(b"\0\x01\xff\xff\xff\xfd"), "field length");
    undefined(tuple::complete_len(b"\0\x01\x80\0\0\0"), "field length");
}

#[test]
fn rejects_more_fields_than_a_relation_can_have() {
    let count = u16::try_from(COLUMNS_MAX + 1).unwrap().to_be_bytes();
    too_large(Fields::new(&count), "field count");
}

#[test]
fn rejects_the_rest_of_a_tuple_that_is_cut() {
    let tuple = golden("tuple");
    for cut in 2..tuple.len() {
        let result = Fields::new(&tuple[..cut]).unwrap().rest();
        assert!(matches!(result, Err(Error::Truncated { .. })), "cut at {cut}");
    }
}

// Packs.

fn pack(kind: u8, raw: usize, coded: usize) -> Result<PackHeader, Error> {
    let mut bytes = PackHeader { kind: Kind::Plain, raw, coded }.encode();
    bytes[0] = kind;
    PackHeader::decode(&bytes)
}

#[test]
fn rejects_packs_of_no_kind_and_reserved_bytes() {
    for kind in (0..=u8::MAX).filter(|byte| !b"pze".contains(byte)) {
        undefined(pack(kind, 5, 5), "pack kind");
    }
    for at in 1..4 {
        let mut bytes = PackHeader { kind: Kind::Plain, raw: 5, coded: 5 }.encode();
        bytes[at] = 1;
        undefined(PackHeader::decode(&bytes), "pack reserved bytes");
    }
}

#[test]
fn rejects_packs_above_their_bounds_before_they_arrive() {
    assert!(pack(b'z', PACK_BYTES_MAX, PACK_BYTES_MAX - 1).is_ok());
    assert!(pack(b'z', PACK_BYTES_MAX, PACK_BYTES_MAX / PACK_RATIO_MAX).is_ok());
    too_large(pack(b'z', PACK_BYTES_MAX + 1, 10_000), "pack length");
    too_large(pack(b'z', u32::MAX as usize, 10_000), "pack length");
    too_large(pack(b'p', u32::MAX as usize, u32::MAX as usize), "pack length");
    too_large(pack(b'z', 10, u32::MAX as usize), "pack compressed length");
    too_large(pack(b'z', PACK_BYTES_MAX, PACK_BYTES_MAX / PACK_RATIO_MAX - 1), "pack length by its ratio");
}

#[test]
fn rejects_packs_whose_lengths_do_not_fit_their_kind() {
    for (kind, raw, coded) in [
        (b'p', 0, 0),
        (b'p', 5, 4),
        (b'z', 0, 0),
        (b'z', 5, 0),
        (b'z', 5, 5),
        (b'z', 5, 6),
        (b'e', 5, 5),
        (b'e', 1, 0),
        (b'e', 0, 1),
    ] {
        undefined(pack(kind, raw, coded), "pack lengths");
    }
}

#[test]
fn rejects_stored_rows_outside_of_chunks() {
    let mut stored = Relation {
        relid: 1,
        format: Format::Stored,
        replica_identity: ReplicaIdentity::Default,
        schema: "s".to_owned(),
        name: "t".to_owned(),
        columns: Vec::new(),
    };
    let read = |relation: &Relation, of_chunk: bool| {
        let mut bytes = Vec::new();
        relation.write(&mut Writer::new(&mut bytes));
        let mut reader = Reader::new(&bytes);
        if of_chunk { Relation::read_of_chunk(&mut reader) } else { Relation::read(&mut reader) }
    };
    assert!(matches!(read(&stored, false), Err(Error::Undefined { what: "format", .. })));
    assert_eq!(read(&stored, true).as_ref(), Ok(&stored));
    stored.format = Format::Binary;
    assert_eq!(read(&stored, false).as_ref(), Ok(&stored));
}
