//! Changes of tables on hold, on their way into `scry_shadow.kept`.
//!
//! ```text
//! change ─► piece of its table and transaction ─► rows that wait ─► one INSERT of many rows
//! ```
//!
//! A row is what one source transaction did to one table, as it stood in the
//! stream; a long one is cut into pieces, also within a change. The order of
//! a table's rows is that of `seq`; between tables there is none, because
//! foreign keys are silent. Memory: what waits, bounded, if a large change is
//! given in parts and what waits is written between them.
//!
//! Invariant: all that waits is written before the position moves past it.

use crate::shadow::Session;
use crate::{Error, Result};
use scry_wire::codec::Writer;
use scry_wire::message::Relation;
use std::collections::HashMap;

/// Collects changes of tables on hold.
#[derive(Debug, Default)]
pub struct Keeper {
    next: i64,
    open: HashMap<u32, Piece>,
    rows: Vec<Row>,
    bytes: usize,
    /// The description last written for a table, on this connection.
    described: HashMap<u32, Relation>,
}

/// What a transaction does to a table, so far.
#[derive(Debug)]
struct Piece {
    xid: u64,
    relation: Option<Vec<u8>>,
    changes: Vec<u8>,
}

/// A row of `scry_shadow.kept`.
#[derive(Debug)]
pub struct Row {
    relid: u32,
    seq: i64,
    xid: u64,
    relation: Option<Vec<u8>>,
    changes: Vec<u8>,
    more: bool,
}

/// The columns of many rows.
#[derive(Debug, Default)]
pub struct Columns {
    /// The tables.
    pub relids: Vec<u32>,
    /// The order.
    pub seqs: Vec<i64>,
    /// The transactions.
    pub xids: Vec<i64>,
    /// Descriptions, where they are new.
    pub relations: Vec<Option<Vec<u8>>>,
    /// The changes.
    pub changes: Vec<Vec<u8>>,
    /// Whether the next row goes on with the last change.
    pub more: Vec<bool>,
    /// About how many bytes these are.
    pub bytes: usize,
}

impl Keeper {
    pub(super) async fn load(session: &Session) -> Result<Self> {
        let sql = "SELECT coalesce(pg_catalog.max(seq), 0) + 1 FROM scry_shadow.kept";
        let row = session.query_one(sql, &[]).await.map_err(Error::sql("read scry_shadow.kept"))?;
        Ok(Keeper { next: row.get(0), ..Keeper::default() })
    }

    /// Keeps a part of a change; `last` says that the change ends with it. True
    /// when so much waits that it should be written.
    pub fn keep(&mut self, xid: u64, relation: &Relation, part: &[u8], last: bool) -> bool {
        let relid = relation.relid;
        if self.open.get(&relid).is_some_and(|piece| piece.xid != xid) {
            self.close(relid, false);
        }
        if self.described.get(&relid) != Some(relation) {
            self.close(relid, false);
            self.described.insert(relid, relation.clone());
            let mut bytes = Vec::new();
            relation.write(&mut Writer::new(&mut bytes));
            self.bytes += bytes.len();
            self.piece(relid, xid).relation = Some(bytes);
        }
        let mut rest = part;
        while !rest.is_empty() {
            let piece = self.piece(relid, xid);
            let room = PIECE_BYTES.saturating_sub(piece.changes.len());
            let (now, later) = rest.split_at(rest.len().min(room));
            piece.changes.extend_from_slice(now);
            self.bytes += now.len();
            rest = later;
            if !rest.is_empty() {
                self.close(relid, true);
            }
        }
        if !last || self.open.get(&relid).is_some_and(|piece| piece.changes.len() >= PIECE_BYTES) {
            self.close(relid, !last);
        }
        self.bytes >= WAITING_BYTES || self.rows.len() >= WAITING_ROWS
    }

    fn piece(&mut self, relid: u32, xid: u64) -> &mut Piece {
        self.open.entry(relid).or_insert_with(|| Piece { xid, relation: None, changes: Vec::new() })
    }

    fn close(&mut self, relid: u32, more: bool) {
        let Some(Piece { xid, relation, changes }) = self.open.remove(&relid) else { return };
        let seq = self.next;
        self.next += 1;
        self.bytes += ROW_OVERHEAD;
        self.rows.push(Row { relid, seq, xid, relation, changes, more });
    }

    /// Takes what waits, to be written now. `None`: nothing does.
    pub fn take(&mut self) -> Option<Columns> {
        let mut open: Vec<u32> = self.open.keys().copied().collect();
        open.sort_unstable();
        for relid in open {
            self.close(relid, false);
        }
        if self.rows.is_empty() {
            return None;
        }
        let mut columns = Columns { bytes: std::mem::take(&mut self.bytes), ..Columns::default() };
        for row in self.rows.drain(..) {
            columns.relids.push(row.relid);
            columns.seqs.push(row.seq);
            columns.xids.push(row.xid.cast_signed());
            columns.relations.push(row.relation);
            columns.changes.push(row.changes);
            columns.more.push(row.more);
        }
        Some(columns)
    }

    /// Drops what waits for these tables.
    pub(super) fn forget(&mut self, relids: &[u32]) {
        self.rows.retain(|row| !relids.contains(&row.relid));
        for relid in relids {
            self.open.remove(relid);
            self.described.remove(relid);
        }
    }
}

/// Writes [`Columns`].
pub const INSERT_KEPT: &str = "INSERT INTO scry_shadow.kept (relid, seq, xid, relation, changes, more) \
    SELECT * FROM ROWS FROM (pg_catalog.unnest($1::oid[]), pg_catalog.unnest($2::bigint[]), \
    pg_catalog.unnest($3::bigint[]), pg_catalog.unnest($4::bytea[]), pg_catalog.unnest($5::bytea[]), \
    pg_catalog.unnest($6::boolean[]))";

/// Bytes of a table's row.
const PIECE_BYTES: usize = 256 << 10;
/// What may wait before it is written.
const WAITING_BYTES: usize = 2 << 20;
const WAITING_ROWS: usize = 4096;
/// What a row costs beside its changes.
const ROW_OVERHEAD: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use scry_wire::message::{Format, ReplicaIdentity};

    fn relation(relid: u32, name: &str) -> Relation {
        Relation {
            relid,
            format: Format::Binary,
            replica_identity: ReplicaIdentity::Default,
            schema: "s".into(),
            name: name.into(),
            columns: Vec::new(),
        }
    }

    fn lines(keeper: &mut Keeper) -> Vec<(u32, i64, Vec<u8>, bool, bool)> {
        let Some(c) = keeper.take() else { return Vec::new() };
        (0..c.relids.len())
            .map(|i| (c.relids[i], c.xids[i], c.changes[i].clone(), c.relations[i].is_some(), c.more[i]))
            .collect()
    }

    #[test]
    fn keeps_a_row_for_a_transaction_and_table() {
        let mut keeper = Keeper::default();
        let (a, b) = (relation(1, "a"), relation(2, "b"));
        for (xid, table, byte) in [(7, &a, b"1"), (7, &b, b"2"), (7, &a, b"3"), (8, &a, b"4")] {
            assert!(!keeper.keep(xid, table, byte, true));
        }
        let got = lines(&mut keeper);
        let of = |relid: u32| got.iter().filter(|line| line.0 == relid).cloned().collect::<Vec<_>>();
        let expected = [(1, 7, b"13".to_vec(), true, false), (1, 8, b"4".to_vec(), false, false)];
        assert_eq!(of(1), expected);
        assert_eq!(of(2), [(2, 7, b"2".to_vec(), true, false)]);
        assert!(keeper.take().is_none());
        // Another description stands before the change it belongs to.
        keeper.keep(9, &a, b"5", true);
        keeper.keep(9, &relation(1, "z"), b"6", true);
        let got = lines(&mut keeper);
        assert_eq!(got, [(1, 9, b"5".to_vec(), false, false), (1, 9, b"6".to_vec(), true, false)]);
    }

    #[test]
    fn cuts_a_large_change_and_forgets_a_table() {
        let mut keeper = Keeper::default();
        let a = relation(1, "a");
        keeper.keep(7, &a, &[0; 10], true);
        let large = vec![1; PIECE_BYTES * 2];
        keeper.keep(7, &a, &large[..5], false);
        keeper.keep(7, &a, &large[5..], true);
        keeper.keep(7, &relation(2, "b"), b"x", true);
        let columns = keeper.take().unwrap();
        // Two whole pieces and the rest, then the other table.
        assert_eq!(columns.more, [true, true, false, false]);
        let all: Vec<u8> = columns.changes[..3].concat();
        assert_eq!(all, [vec![0; 10], large].concat());
        assert!(columns.seqs.is_sorted());
        keeper.keep(8, &a, b"x", true);
        keeper.forget(&[1]);
        assert!(keeper.take().is_none());
    }
}
