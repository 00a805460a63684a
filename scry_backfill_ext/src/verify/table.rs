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
use crate::pg::scan::HashScan;

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

/// Hashes a table as it was described.
pub fn sums(described: &Relation, filenode: Option<u32>) -> Hashed {
    let Some(mut scan) = HashScan::open(described.relid) else { return Hashed::Gone };
    if Some(scan.filenode()) != filenode || scan.description() != described {
        return Hashed::Rewritten;
    }
    let mut sums = Sums::default();
    scan.rows(|row| {
        sums.add(row.hash);
        true
    });
    Hashed::Sums(sums)
}

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
    mut write: impl FnMut(&mut crate::pg::scan::HashedRow<'_>, &mut Vec<u8>) -> bool,
) -> Result<(), Refusal> {
    let mut batch = Batch::new(Tag::Rows);
    let mut result = Ok(());
    if let Some(mut scan) = HashScan::open(relid) {
        scan.rows(|mut row| {
            write(&mut row, batch.buf());
            if batch.is_full() {
                result = link.rows(&mut batch);
            }
            result.is_ok()
        });
    }
    result?;
    link.rows(&mut batch)?;
    link.ask(&Ask::End)
}
