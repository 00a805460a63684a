//! For every value: what is written is read as the same value, and where the
//! bytes are cut on their way makes no difference.
#![allow(clippy::unwrap_used, reason = "in a test, a failed unwrap is the finding")]

#[path = "../../fuzz/entry_points.rs"]
mod entry_points;

use bytes::BytesMut;
use proptest::collection::vec;
use proptest::prelude::*;
use scry_wire::codec::Reader;
use scry_wire::frame::{Frame, Tag, seal};
use scry_wire::limits::FRAME_HEADER_LEN;
use scry_wire::message::change::{
    Assembler, Begin, Change, ChangeWriter, Commit, OldKind, OldTuple, Sequence,
};
use scry_wire::message::{
    CatalogApplied, ChunkDone, ChunkEnd, ChunkStart, Column, Confirm, CopiedTable, CopyFinish, CopyFinished,
    CopyProgress, CopyState, DoneChunk, Format, Hello, LateCopy, LeftOutText, Level, Message, Notice, Refuse,
    RefuseKind, Relation, ReplicaIdentity, Role, TableMark, TableMarks, Welcome,
};
use scry_wire::tuple::{self, Field, Fields};
use scry_wire::{Lsn, version};

// Values.

/// Names: any text without a zero byte, within the bound.
fn name() -> impl Strategy<Value = String> {
    "[^\\x00]{0,60}"
}

fn text() -> impl Strategy<Value = String> {
    "[^\\x00]{0,300}"
}

fn lsn() -> impl Strategy<Value = Lsn> {
    any::<u64>().prop_map(Lsn)
}

fn hello() -> impl Strategy<Value = Hello> {
    let role = prop_oneof![Just(Role::Stream), Just(Role::Lead), Just(Role::Copy), Just(Role::Verify)];
    let versions = (0..=version::VERSION_MAX, version::VERSION_MAX..);
    let numbers = (any::<u64>(), any::<u32>(), any::<u32>(), any::<u32>(), any::<u64>());
    (versions, role, numbers, (name(), name(), name(), name(), name())).prop_map(
        |((version_min, version_max), role, numbers, names)| Hello {
            version_min,
            version_max,
            role,
            system_identifier: numbers.0,
            timeline: numbers.1,
            database_oid: numbers.2,
            server_version_num: numbers.3,
            generation: numbers.4,
            database: names.0,
            job: names.1,
            shadow_id: names.2,
            encoding: names.3,
            software: names.4,
        },
    )
}

fn welcome() -> impl Strategy<Value = Welcome> {
    let state = prop_oneof![Just(CopyState::None), Just(CopyState::Copying), Just(CopyState::Copied)];
    let versions = version::VERSION_MIN..=version::VERSION_MAX;
    (versions, (lsn(), lsn()), state, any::<(u64, u32, u64, bool)>(), name(), name()).prop_map(
        |(
            version,
            (applied_lsn, flushed_lsn),
            copy_state,
            (generation, timeline, copy_id, takes_stored),
            shadow,
            software,
        )| Welcome {
            version,
            applied_lsn,
            flushed_lsn,
            copy_state,
            generation,
            timeline,
            copy_id,
            takes_stored,
            shadow,
            software,
        },
    )
}

fn refuse() -> impl Strategy<Value = Refuse> {
    let kind = prop_oneof![
        Just(RefuseKind::Auth),
        Just(RefuseKind::Version),
        Just(RefuseKind::Identity),
        Just(RefuseKind::Protocol),
        Just(RefuseKind::Busy),
        Just(RefuseKind::Unreachable),
        Just(RefuseKind::Shadow),
        Just(RefuseKind::Stopping),
    ];
    (kind, any::<bool>(), text(), text(), text()).prop_map(|(kind, retry, message, detail, hint)| Refuse {
        kind,
        retry,
        message,
        detail,
        hint,
    })
}

fn notice() -> impl Strategy<Value = Notice> {
    let level = prop_oneof![Just(Level::Info), Just(Level::Warning), Just(Level::Error)];
    (level, text(), text()).prop_map(|(level, message, hint)| Notice { level, message, hint })
}

fn late_copy() -> impl Strategy<Value = LateCopy> {
    (any::<u64>(), lsn(), lsn(), text(), vec(any::<u32>(), 0..6)).prop_map(
        |(copy_id, from_lsn, until_lsn, snapshot, relids)| LateCopy {
            copy_id,
            from_lsn,
            until_lsn,
            snapshot,
            relids,
        },
    )
}

fn table_marks() -> impl Strategy<Value = TableMarks> {
    let mark = (any::<u32>(), any::<u64>(), any::<bool>(), "[^\\x00]{0,200}");
    let marks =
        mark.prop_map(|(relid, changes, diverged, cause)| TableMark { relid, changes, diverged, cause });
    vec(marks, 0..6).prop_map(|tables| TableMarks { tables })
}

fn copied_tables() -> impl Strategy<Value = Vec<CopiedTable>> {
    let table = (any::<u32>(), any::<u32>(), any::<u64>());
    vec(table.prop_map(|(relid, chunks, rows)| CopiedTable { relid, chunks, rows }), 0..20)
}

fn left_out() -> impl Strategy<Value = Vec<LeftOutText>> {
    let item = ("[^\\x00]{0,200}", "[^\\x00]{0,200}");
    vec(item.prop_map(|(object, reason)| LeftOutText { object, reason }), 0..10)
}

fn catalog_applied() -> impl Strategy<Value = CatalogApplied> {
    let chunk = (any::<u32>(), any::<u32>(), any::<u64>()).prop_map(|(relid, chunk, rows)| DoneChunk {
        relid,
        chunk,
        rows,
    });
    let parts = (copied_tables(), vec(chunk, 0..20), vec(any::<u32>(), 0..20), left_out());
    parts.prop_map(|(tables, chunks, former, left_out)| CatalogApplied { tables, chunks, former, left_out })
}

fn relation() -> impl Strategy<Value = Relation> {
    let column = (any::<i16>(), any::<bool>(), any::<bool>(), any::<u32>(), any::<i32>(), name()).prop_map(
        |(attnum, key, identity_always, type_oid, type_mod, name)| Column {
            attnum,
            key,
            identity_always,
            type_oid,
            type_mod,
            name,
        },
    );
    let identity = prop_oneof![
        Just(ReplicaIdentity::Default),
        Just(ReplicaIdentity::Index),
        Just(ReplicaIdentity::Full),
        Just(ReplicaIdentity::Nothing),
    ];
    let format = prop_oneof![Just(Format::Binary), Just(Format::Text)];
    (any::<u32>(), format, identity, name(), name(), vec(column, 0..12)).prop_map(
        |(relid, format, replica_identity, schema, name, columns)| Relation {
            relid,
            format,
            replica_identity,
            schema,
            name,
            columns,
        },
    )
}

fn chunk_start() -> impl Strategy<Value = ChunkStart> {
    let parts = (any::<u64>(), 0..1000_u32, 0..1000_u32, relation(), any::<bool>());
    parts.prop_map(|(copy_id, chunk, more, mut relation, stored)| {
        if stored {
            relation.format = Format::Stored;
        }
        ChunkStart { copy_id, chunk, chunks: chunk + 1 + more, relation }
    })
}

fn confirm() -> impl Strategy<Value = Confirm> {
    (lsn(), lsn()).prop_map(|(applied_lsn, flushed_lsn)| Confirm { applied_lsn, flushed_lsn })
}

type OwnedField = Option<Option<Vec<u8>>>;

/// A tuple and its bytes: `None` is unchanged, `Some(None)` is NULL.
fn fields() -> impl Strategy<Value = Vec<OwnedField>> {
    vec(proptest::option::weighted(0.9, proptest::option::weighted(0.8, vec(any::<u8>(), 0..40))), 0..8)
}

fn tuple_bytes(fields: &[OwnedField]) -> Vec<u8> {
    let mut buf = i16::try_from(fields.len()).unwrap().to_be_bytes().to_vec();
    for field in fields {
        match field {
            None => buf.extend_from_slice(&tuple::LEN_UNCHANGED.to_be_bytes()),
            Some(None) => buf.extend_from_slice(&tuple::LEN_NULL.to_be_bytes()),
            Some(Some(value)) => {
                buf.extend_from_slice(&i32::try_from(value.len()).unwrap().to_be_bytes());
                buf.extend_from_slice(value);
            }
        }
    }
    buf
}

/// A change that owns its tuples.
#[derive(Debug, Clone)]
enum Owned {
    Relation(Relation),
    Begin(Begin),
    Insert(u32, Vec<u8>),
    Update(u32, OldKind, Vec<u8>, Vec<u8>),
    Delete(u32, bool, Vec<u8>),
    Truncate(u8, Vec<u32>),
    Sequence(Sequence),
    Schema(Vec<u32>, Vec<u8>),
    Commit(Commit),
    Keepalive(Lsn),
}

fn owned_change() -> impl Strategy<Value = Owned> {
    let row = || fields().prop_map(|fields| tuple_bytes(&fields));
    let old = prop_oneof![Just(OldKind::None), Just(OldKind::Key), Just(OldKind::Full)];
    prop_oneof![
        relation().prop_map(Owned::Relation),
        (any::<u64>(), lsn(), any::<i64>()).prop_map(|(xid, commit_lsn, commit_time)| Owned::Begin(Begin {
            xid,
            commit_lsn,
            commit_time
        })),
        (any::<u32>(), row()).prop_map(|(relid, new)| Owned::Insert(relid, new)),
        (any::<u32>(), old, row(), row())
            .prop_map(|(relid, kind, old, new)| Owned::Update(relid, kind, old, new)),
        (any::<u32>(), any::<bool>(), row()).prop_map(|(relid, full, old)| Owned::Delete(relid, full, old)),
        (0..4_u8, vec(any::<u32>(), 0..6)).prop_map(|(flags, relids)| Owned::Truncate(flags, relids)),
        (any::<u32>(), any::<i64>(), any::<bool>(), name(), name()).prop_map(
            |(relid, last_value, is_called, schema, name)| Owned::Sequence(Sequence {
                relid,
                last_value,
                is_called,
                schema,
                name
            })
        ),
        (vec(any::<u32>(), 0..4), vec(any::<u8>(), 0..64))
            .prop_map(|(hold, document)| Owned::Schema(hold, document)),
        (lsn(), lsn()).prop_map(|(commit_lsn, end_lsn)| Owned::Commit(Commit { commit_lsn, end_lsn })),
        lsn().prop_map(Owned::Keepalive),
    ]
}

impl Owned {
    fn write(&self, w: &mut ChangeWriter<'_>) {
        let (open, tuples): (_, [&[u8]; 2]) = match self {
            Owned::Relation(relation) => return w.relation(relation),
            Owned::Begin(begin) => return w.begin(*begin),
            Owned::Truncate(flags, relids) => return w.truncate(*flags, relids),
            Owned::Sequence(sequence) => return w.sequence(sequence),
            Owned::Schema(hold, document) => return w.schema(hold, document).unwrap(),
            Owned::Commit(commit) => return w.commit(*commit),
            Owned::Keepalive(end_lsn) => return w.keepalive(*end_lsn),
            Owned::Insert(relid, new) => (w.insert(*relid), [new, &[]]),
            Owned::Update(relid, OldKind::None, _, new) => (w.update(*relid, OldKind::None), [new, &[]]),
            Owned::Update(relid, kind, old, new) => (w.update(*relid, *kind), [old, new]),
            Owned::Delete(relid, full, old) => {
                (w.delete(*relid, if *full { OldKind::Full } else { OldKind::Key }), [old, &[]])
            }
        };
        for bytes in tuples {
            w.tuple().extend_from_slice(bytes);
        }
        w.close(open).unwrap();
    }

    fn as_change(&self) -> Change<'_> {
        match self {
            Owned::Relation(relation) => Change::Relation(relation.clone()),
            Owned::Begin(begin) => Change::Begin(*begin),
            Owned::Insert(relid, new) => Change::Insert { relid: *relid, new },
            Owned::Update(relid, kind, old, new) => {
                let old = match kind {
                    OldKind::None => OldTuple::None,
                    OldKind::Key => OldTuple::Key(old),
                    OldKind::Full => OldTuple::Full(old),
                };
                Change::Update { relid: *relid, old, new }
            }
            Owned::Delete(relid, true, old) => Change::Delete { relid: *relid, old: OldTuple::Full(old) },
            Owned::Delete(relid, false, old) => Change::Delete { relid: *relid, old: OldTuple::Key(old) },
            Owned::Truncate(flags, relids) => Change::Truncate { flags: *flags, relids: relids.clone() },
            Owned::Sequence(sequence) => Change::Sequence(sequence.clone()),
            Owned::Schema(hold, document) => Change::Schema { hold: hold.clone(), document },
            Owned::Commit(commit) => Change::Commit(*commit),
            Owned::Keepalive(end_lsn) => Change::Keepalive(*end_lsn),
        }
    }
}

// Properties.

fn round_trip<M: Message + PartialEq + std::fmt::Debug>(message: &M) -> Result<(), TestCaseError> {
    let bytes = message.to_frame();
    let mut buf = BytesMut::from(&bytes[..]);
    let frame = Frame::take(&mut buf).unwrap().unwrap();
    prop_assert!(buf.is_empty());
    prop_assert_eq!(&M::from_frame(&frame).unwrap(), message);
    Ok(())
}

proptest! {
    #[test]
    fn every_message_is_read_as_it_was_written(
        hello in hello(),
        welcome in welcome(),
        refuse in refuse(),
        notice in notice(),
        catalog_applied in catalog_applied(),
        chunk_start in chunk_start(),
        (relid, chunk, rows, repeated) in any::<(u32, u32, u64, bool)>(),
        tables in copied_tables(),
        (done, total, current) in (any::<u32>(), any::<u32>(), text()),
        left_out in left_out(),
        late_copy in late_copy(),
        table_marks in table_marks(),
        confirm in confirm(),
    ) {
        round_trip(&hello)?;
        round_trip(&welcome)?;
        round_trip(&refuse)?;
        round_trip(&notice)?;
        round_trip(&catalog_applied)?;
        round_trip(&chunk_start)?;
        round_trip(&ChunkEnd { rows })?;
        round_trip(&ChunkDone { relid, chunk, rows, repeated })?;
        round_trip(&CopyFinish { tables })?;
        round_trip(&CopyProgress { done, total, current })?;
        round_trip(&CopyFinished { left_out })?;
        round_trip(&late_copy)?;
        round_trip(&table_marks)?;
        round_trip(&confirm)?;
    }

    /// What a writer cuts or replaces, its own reader still takes.
    #[test]
    fn text_of_any_kind_and_length_is_readable(message in any::<String>(), repeat in 1..3000_usize) {
        let long = message.repeat(repeat);
        let notice = Notice { level: Level::Error, message: long.clone(), hint: message };
        let frame = Frame::take(&mut BytesMut::from(&notice.to_frame()[..])).unwrap().unwrap();
        let read = Notice::from_frame(&frame).unwrap();
        prop_assert!(long.replace('\0', " ").starts_with(&read.message));
    }

    #[test]
    fn a_tuple_is_read_as_it_was_written(fields in fields(), behind in vec(any::<u8>(), 0..10)) {
        let bytes = tuple_bytes(&fields);
        for cut in 0..bytes.len() {
            prop_assert_eq!(tuple::complete_len(&bytes[..cut]).unwrap(), None);
        }
        let with_more = [&bytes[..], &behind].concat();
        prop_assert_eq!(tuple::complete_len(&with_more).unwrap(), Some(bytes.len()));
        let mut reader = Fields::new(&with_more).unwrap();
        for field in &fields {
            let expected = match field {
                None => Field::Unchanged,
                Some(None) => Field::Null,
                Some(Some(value)) => Field::Value(value),
            };
            prop_assert_eq!(reader.next_field().unwrap(), Some(expected));
        }
        prop_assert_eq!(reader.rest().unwrap(), &behind[..]);
    }

    /// Changes cut into frames anywhere, frames cut into reads anywhere.
    #[test]
    fn a_change_stream_survives_every_cut(
        changes in vec(owned_change(), 1..20),
        frame_lens in vec(1..200_usize, 1..10),
        read_lens in vec(1..300_usize, 1..10),
    ) {
        let mut batch = Vec::new();
        changes.iter().for_each(|change| change.write(&mut ChangeWriter::new(&mut batch)));

        let wire = in_frames(&batch, &frame_lens);
        let mut assembler = Assembler::new();
        let mut received = BytesMut::new();
        let mut expected = changes.iter();
        let mut sent = &wire[..];
        for len in read_lens.iter().cycle() {
            let (now, later) = sent.split_at((*len).min(sent.len()));
            received.extend_from_slice(now);
            while let Some(frame) = Frame::take(&mut received).unwrap() {
                let Some(whole) = assembler.push(&frame).unwrap() else { continue };
                let mut reader = Reader::new(&whole);
                while reader.remaining() > 0 {
                    let change = Change::read(&mut reader).unwrap();
                    prop_assert_eq!(&change, &expected.next().expect("no change too many").as_change());
                }
            }
            sent = later;
            if sent.is_empty() {
                break;
            }
        }
        prop_assert!(received.is_empty());
        prop_assert!(expected.next().is_none(), "changes are missing");
    }

    #[test]
    fn a_position_is_read_as_it_was_written(lsn in lsn(), other in ".{0,20}") {
        prop_assert_eq!(lsn.to_string().parse::<Lsn>().unwrap(), lsn);
        if let Ok(read) = other.parse::<Lsn>() {
            let digits = |c: char| c == '/' || c.is_ascii_hexdigit();
            prop_assert!(other.chars().all(digits), "{:?} was read as {}", other, read);
        }
    }

    /// Both sides come to the same version, whoever asks.
    #[test]
    fn a_negotiated_version_lies_in_both_ranges(min in any::<u16>(), max in any::<u16>()) {
        match version::negotiate(min, max) {
            Ok(chosen) => {
                prop_assert!((min..=max).contains(&chosen));
                prop_assert!((version::VERSION_MIN..=version::VERSION_MAX).contains(&chosen));
            }
            Err(_) => prop_assert!(max < version::VERSION_MIN || min > version::VERSION_MAX || min > max),
        }
    }

    #[test]
    fn random_bytes_never_panic(input in vec(any::<u8>(), 0..400)) {
        entry_points::frame(&input);
        entry_points::control(&input);
        entry_points::change(&input);
        entry_points::tuple(&input);
        entry_points::catalog(&input);
        entry_points::pack(&input);
    }
}

/// `batch` as `Batch` frames whose payloads have the given lengths, in turn.
/// Every frame but the last is continued: a reader may not depend on it.
fn in_frames(batch: &[u8], lens: &[usize]) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut left = batch;
    for len in lens.iter().cycle() {
        let (now, later) = left.split_at((*len).min(left.len()));
        let mut frame = vec![0; FRAME_HEADER_LEN];
        frame.extend_from_slice(now);
        seal(&mut frame, Tag::Batch, !later.is_empty(), 0);
        wire.extend_from_slice(&frame);
        left = later;
        if left.is_empty() {
            break;
        }
    }
    wire
}
