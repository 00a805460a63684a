//! Rows and batches by hand.

use scry_wire::Lsn;
use scry_wire::frame::{Tag, seal};
use scry_wire::limits::{FRAME_HEADER_LEN, FRAME_PAYLOAD_MAX};
use scry_wire::message::change::{Begin, ChangeWriter, Commit, OldKind, Sequence};
use scry_wire::message::{Column, Format, Relation, ReplicaIdentity};

/// A tuple: `None` is NULL.
pub fn row(fields: &[Option<&[u8]>]) -> Vec<u8> {
    let mut out = i16::try_from(fields.len()).unwrap().to_be_bytes().to_vec();
    for field in fields {
        match field {
            None => out.extend_from_slice(&(-1i32).to_be_bytes()),
            Some(v) => {
                out.extend_from_slice(&i32::try_from(v.len()).unwrap().to_be_bytes());
                out.extend_from_slice(v);
            }
        }
    }
    out
}

/// A row of table `items` in binary.
pub fn item_row(id: i32, v: &str) -> Vec<u8> {
    row(&[Some(&id.to_be_bytes()), Some(v.as_bytes())])
}

/// The same with its text left out as unchanged.
pub fn item_row_unchanged(id: i32) -> Vec<u8> {
    let mut out = row(&[Some(&id.to_be_bytes()), None]);
    let end = out.len() - 4;
    out[end..].copy_from_slice(&(-2i32).to_be_bytes());
    out
}

/// Only the key of a row of `items`.
pub fn item_key(id: i32) -> Vec<u8> {
    row(&[Some(&id.to_be_bytes()), None])
}

pub fn column(attnum: i16, name: &str, key: bool, type_oid: u32) -> Column {
    Column { attnum, key, identity_always: false, type_oid, type_mod: -1, name: name.to_owned() }
}

/// Table `items`: binary, found by its primary key.
pub fn relation() -> Relation {
    Relation {
        relid: super::catalog::ITEMS,
        format: Format::Binary,
        replica_identity: ReplicaIdentity::Default,
        schema: "public".into(),
        name: "items".into(),
        columns: vec![column(1, "id", true, 23), column(2, "v", false, 25)],
    }
}

/// Table `notes`: text, no key, REPLICA IDENTITY FULL.
pub fn notes() -> Relation {
    Relation {
        relid: super::catalog::NOTES,
        format: Format::Text,
        replica_identity: ReplicaIdentity::Full,
        schema: "public".into(),
        name: "notes".into(),
        columns: vec![column(1, "j", true, 114), column(2, "n", true, 1700)],
    }
}

/// Changes under construction.
#[derive(Default)]
pub struct Batch {
    pub bytes: Vec<u8>,
    rows: u32,
}

impl Batch {
    pub fn new() -> Self {
        Self::default()
    }

    fn writer(&mut self) -> ChangeWriter<'_> {
        ChangeWriter::new(&mut self.bytes)
    }

    pub fn relation(mut self, relation: &Relation) -> Self {
        self.writer().relation(relation);
        self
    }

    pub fn begin(mut self, at: u64) -> Self {
        self.writer().begin(Begin { xid: at, commit_lsn: Lsn(at), commit_time: 0 });
        self
    }

    pub fn commit(mut self, at: u64, end: u64) -> Self {
        self.writer().commit(Commit { commit_lsn: Lsn(at), end_lsn: Lsn(end) });
        self
    }

    pub fn keepalive(mut self, end: u64) -> Self {
        self.writer().keepalive(Lsn(end));
        self
    }

    pub fn insert(mut self, relid: u32, new: &[u8]) -> Self {
        self.rows += 1;
        let mut w = self.writer();
        let open = w.insert(relid);
        w.tuple().extend_from_slice(new);
        w.close(open).unwrap();
        self
    }

    pub fn update(mut self, relid: u32, old: Option<(OldKind, &[u8])>, new: &[u8]) -> Self {
        self.rows += 1;
        let mut w = self.writer();
        let open = w.update(relid, old.map_or(OldKind::None, |(kind, _)| kind));
        w.tuple().extend_from_slice(old.map_or(&[], |(_, tuple)| tuple));
        w.tuple().extend_from_slice(new);
        w.close(open).unwrap();
        self
    }

    pub fn delete(mut self, relid: u32, kind: OldKind, old: &[u8]) -> Self {
        self.rows += 1;
        let mut w = self.writer();
        let open = w.delete(relid, kind);
        w.tuple().extend_from_slice(old);
        w.close(open).unwrap();
        self
    }

    pub fn schema(mut self, hold: &[u32], document: &[u8]) -> Self {
        self.writer().schema(hold, document).unwrap();
        self
    }

    pub fn truncate(mut self, flags: u8, relids: &[u32]) -> Self {
        self.writer().truncate(flags, relids);
        self
    }

    pub fn sequence(mut self, name: &str, last_value: i64) -> Self {
        let sequence =
            Sequence { relid: 9, last_value, is_called: true, schema: "public".into(), name: name.into() };
        self.writer().sequence(&sequence);
        self
    }

    /// One transaction of inserts into `items`.
    pub fn transaction(self, at: u64, end: u64, rows: &[(i32, &str)]) -> Self {
        let open = self.begin(at);
        let with = rows.iter().fold(open, |b, (id, v)| b.insert(super::catalog::ITEMS, &item_row(*id, v)));
        with.commit(at, end)
    }

    /// The frames, cut where a frame is full.
    pub fn frames(&self) -> Vec<Vec<u8>> {
        frames(Tag::Batch, &self.bytes, self.rows)
    }
}

/// Frames of this payload: all but the last go on.
pub fn frames(tag: Tag, payload: &[u8], rows: u32) -> Vec<Vec<u8>> {
    let count = payload.len().div_ceil(FRAME_PAYLOAD_MAX).max(1);
    (0..count)
        .map(|i| {
            let part = &payload[i * FRAME_PAYLOAD_MAX..payload.len().min((i + 1) * FRAME_PAYLOAD_MAX)];
            let mut frame = vec![0; FRAME_HEADER_LEN];
            frame.extend_from_slice(part);
            seal(&mut frame, tag, i + 1 < count, if i == 0 { rows } else { 0 });
            frame
        })
        .collect()
}
