//! The source's tables under the snapshot in force.

use std::collections::{HashMap, HashSet};

use scry_wire::frame::Tag;
use scry_wire::hash::{self, Sums};
use scry_wire::message::{Ask, Relation};

use super::link::Link;
use crate::api::refusal::Refusal;
use crate::batch::Batch;
use crate::catalog::{self, Extent};
use crate::pg::privileged::as_superuser;
use crate::pg::scan::{HashScan, HashedRow};

/// Sends the source's catalog document of this extent, as the snapshot sees it.
pub fn send_catalog(link: &mut Link, extent: Extent<'_>) -> Result<(), Refusal> {
    let document = as_superuser(|| catalog::document(extent, &HashMap::new()));
    let mut batch = Batch::new(Tag::Catalog);
    serde_json::to_writer(batch.buf(), &document)
        .map_err(|err| Refusal::not_ready(format!("could not write the catalog document: {err}")))?;
    link.rows(&mut batch)
}

/// What hashing a table came to.
#[derive(Debug)]
pub enum Hashed {
    /// Its buckets.
    Sums(Sums),
    /// It was dropped.
    Gone,
    /// It was rewritten or truncated after the snapshot: its rows are gone.
    Rewritten,
}

/// The storage numbers of the tables, as the snapshot sees them.
pub fn filenodes(relids: &[u32]) -> HashMap<u32, u32> {
    let stored = as_superuser(|| catalog::with_storage(relids));
    stored.into_iter().map(|table| (table.relid, table.filenode)).collect()
}

/// The table, as its rows are hashed.
pub fn describe(relid: u32) -> Option<Relation> {
    HashScan::open(relid).map(|scan| scan.description().clone())
}

/// Whether the table still has the storage that the snapshot sees.
pub fn is_unchanged(relid: u32, filenode: Option<u32>) -> bool {
    HashScan::open(relid).is_some_and(|scan| Some(scan.filenode()) == filenode)
}

/// Hashes a table as it was described; `link` hears of the rows that are read.
pub fn sums(link: &mut Link, described: &Relation, filenode: Option<u32>) -> Hashed {
    let is_same = |scan: &HashScan| Some(scan.filenode()) == filenode && scan.description() == described;
    let mut sums = Sums::default();
    let (mut rows, mut bytes) = (0, 0);
    let read = read(described.relid, is_same, |row| {
        sums.add(row.hash);
        (rows, bytes) = (rows + 1, bytes + row.len as u64);
        if rows == LOOK_ROWS {
            link.look(rows, bytes);
            (rows, bytes) = (0, 0);
        }
        true
    });
    match read {
        Read::Done => Hashed::Sums(sums),
        Read::Gone => Hashed::Gone,
        Read::Other => Hashed::Rewritten,
    }
}

/// Hands each row of a table that the snapshot in force sees to `each`, until that says `false`.
pub fn each_row(relid: u32, each: impl FnMut(HashedRow<'_>) -> bool) {
    read(relid, |_| true, each);
}

/// What reading a table came to.
enum Read {
    Done,
    Gone,
    /// It is not the same any more.
    Other,
}

/// Reads a table range by range; between them its lock is given back, so that DDL does not wait
/// for the whole of it.
fn read(
    relid: u32,
    is_same: impl Fn(&HashScan) -> bool,
    mut each: impl FnMut(HashedRow<'_>) -> bool,
) -> Read {
    let mut from = 0;
    loop {
        let Some(mut scan) = HashScan::open(relid) else { return Read::Gone };
        if !is_same(&scan) {
            return Read::Other;
        }
        let to = from + RANGE_BLOCKS;
        let mut goes_on = true;
        scan.rows(from, to, |row| {
            goes_on = each(row);
            goes_on
        });
        if !goes_on || to >= scan.blocks() {
            return Read::Done;
        }
        from = to;
    }
}

/// Blocks that are read under one lock: 64 MB.
const RANGE_BLOCKS: u32 = 8192;
/// Rows between two looks.
const LOOK_ROWS: u64 = 4096;

/// Sends the hashes of the rows in these buckets.
pub fn send_hashes(link: &mut Link, described: &Relation, buckets: &[u16]) -> Result<(), Refusal> {
    let wanted: HashSet<usize> = buckets.iter().map(|bucket| usize::from(*bucket)).collect();
    send(link, described.relid, |row, out| {
        let hash = row.hash;
        let is_wanted = wanted.contains(&hash::bucket(hash));
        if is_wanted {
            out.extend_from_slice(&hash.key.to_be_bytes());
            out.extend_from_slice(&hash.row.to_be_bytes());
        }
        is_wanted
    })
}

/// Sends the rows whose keys are among these; returns their number.
pub fn send_rows(link: &mut Link, relid: u32, keys: &HashSet<u128>) -> Result<(), Refusal> {
    send(link, relid, |row, out| {
        let is_wanted = keys.contains(&row.hash.key);
        if is_wanted {
            row.encode(out);
        }
        is_wanted
    })
}

/// The table, as its rows travel.
pub fn plain(relid: u32) -> Option<Relation> {
    HashScan::open(relid).map(|scan| scan.plain().clone())
}

fn send(
    link: &mut Link,
    relid: u32,
    mut write: impl FnMut(&mut HashedRow<'_>, &mut Vec<u8>) -> bool,
) -> Result<(), Refusal> {
    let mut batch = Batch::new(Tag::Rows);
    let mut result = Ok(());
    each_row(relid, |mut row| {
        write(&mut row, batch.buf());
        if batch.is_full() {
            result = link.rows(&mut batch);
        }
        result.is_ok()
    });
    result?;
    link.rows(&mut batch)?;
    link.ask(&Ask::End)
}
