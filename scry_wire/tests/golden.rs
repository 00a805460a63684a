//! The bytes of every message, both ways: what the crate writes is the golden
//! file, and what it reads from the file is the value that was written.
//!
//! A test that fails here has found a change of the format. That needs a new
//! version (`scry_wire::version`), not a new golden file.
#![allow(clippy::unwrap_used, reason = "in a test, a failed unwrap is the finding")]

mod hex;

use bytes::BytesMut;
use scry_wire::Lsn;
use scry_wire::codec::Reader;
use scry_wire::frame::{Frame, Tag, seal};
use scry_wire::limits::{FRAME_HEADER_LEN, FRAME_PAYLOAD_MAX, PACK_HEADER_LEN};
use scry_wire::message::change::{
    Assembler, Begin, Change, ChangeWriter, Commit, OldKind, OldTuple, Sequence, TRUNCATE_CASCADE,
    TRUNCATE_RESTART,
};
use scry_wire::message::piece::{End, Mark};
use scry_wire::message::{
    CatalogApplied, ChunkDone, ChunkEnd, ChunkStart, Column, Confirm, CopiedTable, CopyFinish, CopyFinished,
    CopyProgress, CopyState, DoneChunk, Format, Hello, LateCopy, LeftOutText, Level, Message, Notice, Refuse,
    RefuseKind, Relation, ReplicaIdentity, Role, TableMark, TableMarks, Welcome,
};
use scry_wire::pack::{self, Kind};
use scry_wire::tuple::{Field, Fields};
use std::fmt::Debug;

use hex::{assert_bytes, golden};

const LSN: Lsn = Lsn(0x16_B374_D848);
const GENERATION: u64 = 0x1122_3344_5566_7788;

fn frame(bytes: &[u8]) -> Frame {
    let mut buf = BytesMut::from(bytes);
    let frame = Frame::take(&mut buf).unwrap().expect("the golden file holds a whole frame");
    assert!(buf.is_empty(), "bytes behind the frame");
    frame
}

/// A message that fills a frame, written and read.
fn both_ways<M: Message + PartialEq + Debug>(name: &str, message: &M) {
    let golden = golden(name);
    assert_bytes(name, &message.to_frame(), &golden);
    assert_eq!(&M::from_frame(&frame(&golden)).unwrap(), message, "{name}");
}

/// A change, written and read.
fn change_both_ways(name: &str, expected: &Change<'_>, write: impl FnOnce(&mut ChangeWriter<'_>)) {
    let golden = golden(name);
    let mut written = Vec::new();
    write(&mut ChangeWriter::new(&mut written));
    assert_bytes(name, &written, &golden);
    let mut reader = Reader::new(&golden);
    assert_eq!(&Change::read(&mut reader).unwrap(), expected, "{name}");
    reader.finish("change").unwrap();
}

/// A frame around `payload`, as the writers of batches, rows and documents make it.
fn sealed(tag: Tag, continued: bool, rows: u32, payload: &[u8]) -> Vec<u8> {
    let mut buf = vec![0; FRAME_HEADER_LEN];
    buf.extend_from_slice(payload);
    seal(&mut buf, tag, continued, rows);
    buf
}

fn orders() -> Relation {
    Relation {
        relid: 16401,
        format: Format::Binary,
        replica_identity: ReplicaIdentity::Default,
        schema: "public".to_owned(),
        name: "orders".to_owned(),
        columns: vec![
            Column {
                attnum: 1,
                key: true,
                identity_always: true,
                type_oid: 20,
                type_mod: -1,
                name: "id".to_owned(),
            },
            Column {
                attnum: 4,
                key: false,
                identity_always: false,
                type_oid: 1043,
                type_mod: 24,
                name: "état".to_owned(),
            },
        ],
    }
}

const KEY: &[u8] = b"\0\x02\0\0\0\x08\0\0\0\0\0\0\0\x29\xff\xff\xff\xff";
const OLD: &[u8] = b"\0\x02\0\0\0\x08\0\0\0\0\0\0\0\x29\0\0\0\x03new";
const NEW: &[u8] = b"\0\x02\0\0\0\x08\0\0\0\0\0\0\0\x2a\xff\xff\xff\xfe";
const INSERTED: &[u8] = b"\0\x02\0\0\0\x08\0\0\0\0\0\0\0\x2a\0\0\0\x04paid";

#[test]
fn hello() {
    both_ways(
        "hello",
        &Hello {
            version_min: 1,
            version_max: 1,
            role: Role::Stream,
            system_identifier: 7_234_567_890_123_456_789,
            timeline: 3,
            database_oid: 16384,
            server_version_num: 150_020,
            generation: GENERATION,
            database: "shop".to_owned(),
            job: "default".to_owned(),
            shadow_id: "shadow".to_owned(),
            encoding: "UTF8".to_owned(),
            software: "scry_backfill 0.1.0".to_owned(),
        },
    );
}

#[test]
fn welcome() {
    both_ways(
        "welcome",
        &Welcome {
            version: 1,
            applied_lsn: LSN,
            flushed_lsn: Lsn(LSN.0 + 0x100),
            copy_state: CopyState::Copied,
            generation: GENERATION,
            timeline: 2,
            copy_id: 41,
            takes_stored: true,
            shadow: "shadow".to_owned(),
            software: "scry_platform 0.1.0".to_owned(),
        },
    );
}

#[test]
fn refuse() {
    both_ways(
        "refuse",
        &Refuse {
            kind: RefuseKind::Auth,
            retry: true,
            message: "token refused".to_owned(),
            detail: String::new(),
            hint: "Set scry_backfill.auth_token_file.".to_owned(),
        },
    );
}

#[test]
fn notice() {
    both_ways(
        "notice",
        &Notice {
            level: Level::Warning,
            message: "endpoint cannot be reached".to_owned(),
            hint: "é".to_owned(),
        },
    );
}

#[test]
fn catalog_document_in_two_frames() {
    for (name, continued, text) in
        [("catalog_continued", true, &b"{\"format\":1,\"ob"[..]), ("catalog", false, b"jects\":[]}")]
    {
        let golden = golden(name);
        assert_bytes(name, &sealed(Tag::Catalog, continued, 0, text), &golden);
        let frame = frame(&golden);
        assert_eq!((frame.tag(), frame.continued(), &frame.payload()[..]), (Tag::Catalog, continued, text));
    }
}

#[test]
fn catalog_applied() {
    both_ways(
        "catalog_applied",
        &CatalogApplied {
            tables: vec![CopiedTable { relid: 16390, chunks: 4, rows: 500_000 }],
            chunks: vec![
                DoneChunk { relid: 16401, chunk: 0, rows: 1000 },
                DoneChunk { relid: 16401, chunk: 7, rows: 999 },
            ],
            former: vec![16412],
            left_out: vec![LeftOutText {
                object: "constraint orders_user_fkey".to_owned(),
                reason: "table users is not part of the job".to_owned(),
            }],
        },
    );
}

#[test]
fn chunk_start() {
    both_ways(
        "chunk_start",
        &ChunkStart { copy_id: 0x0102_0304_0506_0708, chunk: 7, chunks: 12, relation: orders() },
    );
}

#[test]
fn rows() {
    let golden = golden("rows");
    let payload = b"\0\x02\0\0\0\x08\0\0\0\0\0\0\0\x2a\xff\xff\xff\xff\0\x02\0\0\0\x08\0\0";
    assert_bytes("rows", &sealed(Tag::Rows, false, 2, payload), &golden);
    let frame = frame(&golden);
    assert_eq!((frame.tag(), frame.rows(), &frame.payload()[..]), (Tag::Rows, 2, &payload[..]));
}

#[test]
fn chunk_end() {
    both_ways("chunk_end", &ChunkEnd { rows: 1000 });
}

#[test]
fn chunk_done() {
    both_ways("chunk_done", &ChunkDone { relid: 16401, chunk: 7, rows: 1000, repeated: true });
}

#[test]
fn copy_finish() {
    both_ways(
        "copy_finish",
        &CopyFinish {
            tables: vec![
                CopiedTable { relid: 16390, chunks: 4, rows: 500_000 },
                CopiedTable { relid: 16401, chunks: 1, rows: 0 },
            ],
        },
    );
}

#[test]
fn copy_progress() {
    both_ways("copy_progress", &CopyProgress { done: 3, total: 17, current: "index orders_pkey".to_owned() });
}

#[test]
fn copy_finished() {
    both_ways(
        "copy_finished",
        &CopyFinished {
            left_out: vec![LeftOutText {
                object: "policy p on table public.orders".to_owned(),
                reason: "role app does not exist".to_owned(),
            }],
        },
    );
}

#[test]
fn late_copy() {
    both_ways(
        "late_copy",
        &LateCopy {
            copy_id: 3,
            from_lsn: Lsn(LSN.0 - 0x100),
            until_lsn: LSN,
            snapshot: "10:20:10,14".to_owned(),
            relids: vec![16390, 16401],
        },
    );
}

#[test]
fn table_marks() {
    let mark = |relid, changes, diverged, cause: &str| TableMark {
        relid,
        changes,
        diverged,
        cause: cause.to_owned(),
    };
    both_ways(
        "table_marks",
        &TableMarks { tables: vec![mark(16390, 3, false, "INSERT: é"), mark(16401, 10_001, true, "")] },
    );
}

#[test]
fn confirm() {
    both_ways("confirm", &Confirm { applied_lsn: LSN, flushed_lsn: Lsn(LSN.0 + 0x100) });
}

fn begin() -> Begin {
    Begin { xid: (1 << 32) + 7, commit_lsn: LSN, commit_time: 848_253_296_123_456 }
}

fn commit() -> Commit {
    Commit { commit_lsn: LSN, end_lsn: Lsn(LSN.0 + 0x30) }
}

fn write_insert(w: &mut ChangeWriter<'_>) {
    let open = w.insert(16401);
    w.tuple().extend_from_slice(INSERTED);
    w.close(open).unwrap();
}

#[test]
fn change_begin_and_commit() {
    change_both_ways("change_begin", &Change::Begin(begin()), |w| w.begin(begin()));
    change_both_ways("change_commit", &Change::Commit(commit()), |w| w.commit(commit()));
}

#[test]
fn change_relation() {
    change_both_ways("change_relation", &Change::Relation(orders()), |w| w.relation(&orders()));
}

#[test]
fn change_insert() {
    change_both_ways("change_insert", &Change::Insert { relid: 16401, new: INSERTED }, write_insert);
}

#[test]
fn change_update_with_each_old_tuple() {
    let cases: [(_, _, _, &[u8]); 3] = [
        ("change_update", OldTuple::None, OldKind::None, b""),
        ("change_update_key", OldTuple::Key(KEY), OldKind::Key, KEY),
        ("change_update_full", OldTuple::Full(OLD), OldKind::Full, OLD),
    ];
    for (name, old, kind, old_bytes) in cases {
        change_both_ways(name, &Change::Update { relid: 16401, old, new: NEW }, |w| {
            let open = w.update(16401, kind);
            w.tuple().extend_from_slice(old_bytes);
            w.tuple().extend_from_slice(NEW);
            w.close(open).unwrap();
        });
    }
}

#[test]
fn change_delete_with_each_old_tuple() {
    let cases = [
        ("change_delete_key", OldTuple::Key(KEY), OldKind::Key, KEY),
        ("change_delete_full", OldTuple::Full(OLD), OldKind::Full, OLD),
    ];
    for (name, old, kind, old_bytes) in cases {
        change_both_ways(name, &Change::Delete { relid: 16401, old }, |w| {
            let open = w.delete(16401, kind);
            w.tuple().extend_from_slice(old_bytes);
            w.close(open).unwrap();
        });
    }
}

#[test]
fn change_truncate() {
    let flags = TRUNCATE_CASCADE | TRUNCATE_RESTART;
    change_both_ways("change_truncate", &Change::Truncate { flags, relids: vec![16401, 16390] }, |w| {
        w.truncate(flags, &[16401, 16390]);
    });
}

#[test]
fn change_schema() {
    let change = Change::Schema { hold: vec![16_385, 16_390], document: b"{}" };
    change_both_ways("change_schema", &change, |w| w.schema(&[16_385, 16_390], b"{}").unwrap());
}

#[test]
fn change_sequence() {
    let sequence = Sequence {
        relid: 16400,
        last_value: 33,
        is_called: true,
        schema: "public".to_owned(),
        name: "orders_id_seq".to_owned(),
    };
    change_both_ways("change_sequence", &Change::Sequence(sequence.clone()), |w| w.sequence(&sequence));
}

#[test]
fn change_keepalive() {
    let end = Lsn(LSN.0 + 0x60);
    change_both_ways("change_keepalive", &Change::Keepalive(end), |w| w.keepalive(end));
}

fn transaction() -> Vec<u8> {
    let mut buf = Vec::new();
    let mut w = ChangeWriter::new(&mut buf);
    w.begin(begin());
    w.relation(&orders());
    write_insert(&mut w);
    w.commit(commit());
    buf
}

#[test]
fn marks_of_pieces() {
    let (xid, subxid) = (1 << 32 | 783, 1 << 32 | 784);
    let (commit_lsn, end_lsn) = (LSN, Lsn(LSN.0 + 48));
    for (name, mark) in [
        ("mark_transaction", Mark::Transaction(xid)),
        ("mark_subtransaction", Mark::Subtransaction(subxid)),
        ("mark_abort", Mark::Abort { xid, subxid }),
        ("mark_end", Mark::End(End { xid, commit_lsn, commit_time: 0x3_019c_2a4b_0d40, end_lsn })),
    ] {
        let golden = golden(name);
        let mut written = Vec::new();
        mark.write(&mut written);
        assert_bytes(name, &written, &golden);
        let mut reader = Reader::new(&golden);
        assert_eq!(Mark::read(&mut reader), Ok(mark), "{name}");
        reader.finish("mark").unwrap();
        assert!(Mark::is_tag(golden[0]), "{name}");
    }
}

#[test]
fn no_change_is_taken_for_a_mark() {
    for name in hex::names().iter().filter(|name| name.starts_with("change_")) {
        assert!(!Mark::is_tag(golden(name)[0]), "{name}");
    }
}

#[test]
fn batch() {
    let golden = golden("batch");
    assert_bytes("batch", &sealed(Tag::Batch, false, 1, &transaction()), &golden);
    let frame = frame(&golden);
    assert_eq!((frame.tag(), frame.rows(), frame.continued()), (Tag::Batch, 1, false));
    assert_eq!(Assembler::new().push(&frame).unwrap().unwrap(), transaction());
}

#[test]
fn batch_cut_inside_a_change() {
    let whole = transaction();
    let (first, rest) = whole.split_at(38);
    let files = [golden("batch_continued"), golden("batch_rest")];
    assert_bytes("batch_continued", &sealed(Tag::Batch, true, 0, first), &files[0]);
    assert_bytes("batch_rest", &sealed(Tag::Batch, false, 1, rest), &files[1]);
    let mut assembler = Assembler::new();
    let begin_only = assembler.push(&frame(&files[0])).unwrap().unwrap();
    let others = assembler.push(&frame(&files[1])).unwrap().unwrap();
    assert_eq!(begin_only, golden("change_begin"));
    assert_eq!([begin_only, others].concat(), whole);
}

#[test]
fn tuple() {
    let golden = golden("tuple");
    let mut fields = Fields::new(&golden).unwrap();
    let mut read = Vec::new();
    while let Some(field) = fields.next_field().unwrap() {
        read.push(field);
    }
    assert_eq!(read, [Field::Null, Field::Value(b""), Field::Value(b"ab"), Field::Unchanged]);
    assert!(fields.rest().unwrap().is_empty());
}

#[test]
fn packs() {
    let packs =
        [("pack_plain", Kind::Plain, 5, 5), ("pack_zstd", Kind::Zstd, 64, 10), ("pack_end", Kind::End, 0, 0)];
    for (name, kind, raw, coded) in packs {
        let golden = golden(name);
        let (head, body) = golden.split_first_chunk::<PACK_HEADER_LEN>().unwrap();
        let header = pack::Header { kind, raw, coded };
        assert_eq!(pack::Header::decode(head), Ok(header), "{name}");
        assert_bytes(name, &header.encode(), head);
        assert_eq!(body.len(), coded, "{name}");
        assert_eq!(pack::begins(golden[0]), kind != Kind::End, "{name}");
    }
}

#[test]
fn no_frame_is_taken_for_a_pack() {
    for len in [0, 1, FRAME_PAYLOAD_MAX] {
        assert!(!pack::begins(sealed(Tag::Rows, true, 1, &vec![0x7a; len])[0]), "{len}");
    }
}

/// A file that no test reads would hold nothing.
#[test]
fn every_golden_file_is_used() {
    let source = include_str!("golden.rs");
    for name in hex::names() {
        assert!(source.contains(&format!("\"{name}\"")), "{name}.hex is read by no test");
    }
}
