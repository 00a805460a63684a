//! Which rows are not the same: the source's hashes against the shadow's.
//!
//! Rows are known by the hash of their key, or of the whole row where there is
//! no key; there the same row may stand more than once, and each counts.
//! Bounded by what the source sends, which is bounded by [`SOURCE_ROWS_MAX`].

use crate::accept::link::{FrameReader, unexpected};
use crate::{Error, Result};
use scry_wire::frame::Tag;
use scry_wire::hash::{self, RowHash};
use scry_wire::message::{Ask, DiffCounts, Message};
use std::collections::{HashMap, HashSet};

/// Rows of the source, by key and content: how many of each are left.
pub type SourceRows = HashMap<(u128, u128), u64>;

/// Reads the source's rows until [`Ask::End`].
pub async fn receive(reader: &mut FrameReader) -> Result<SourceRows> {
    let mut rows = SourceRows::new();
    let mut count = 0;
    loop {
        let frame = reader.expect().await?;
        match frame.tag() {
            Tag::Rows => {
                let payload = frame.payload();
                let entries = payload.chunks_exact(ENTRY_LEN);
                if !entries.remainder().is_empty() {
                    return Err(Error::protocol("a list of hashes ends inside one"));
                }
                for entry in entries {
                    let (key, row) = entry.split_at(ENTRY_LEN / 2);
                    *rows.entry((number(key), number(row))).or_default() += 1;
                    count += 1;
                }
                if count > SOURCE_ROWS_MAX {
                    return Err(Error::protocol(format!(
                        "more than {SOURCE_ROWS_MAX} rows are to be compared"
                    )));
                }
            }
            Tag::Ask if Ask::from_frame(&frame)? == Ask::End => return Ok(rows),
            _ => return Err(unexpected(&frame, "hashes or their end")),
        }
    }
}

fn number(bytes: &[u8]) -> u128 {
    bytes.first_chunk().map_or(0, |bytes| u128::from_be_bytes(*bytes))
}

/// A comparison under way.
pub struct Diff {
    source: SourceRows,
    buckets: HashSet<u16>,
    /// Rows of the shadow that the source does not have, by key.
    extra: HashMap<u128, u64>,
}

impl Diff {
    /// Of the source's rows in these buckets.
    pub fn new(source: SourceRows, buckets: &[u16]) -> Self {
        Diff { source, buckets: buckets.iter().copied().collect(), extra: HashMap::new() }
    }

    /// The shadow has a row.
    pub fn shadow_has(&mut self, row: RowHash) -> Result<()> {
        let bucket = u16::try_from(hash::bucket(row)).unwrap_or(u16::MAX);
        if !self.buckets.contains(&bucket) {
            return Ok(());
        }
        if let Some(left) = self.source.get_mut(&(row.key, row.row)) {
            *left -= 1;
            if *left == 0 {
                self.source.remove(&(row.key, row.row));
            }
            return Ok(());
        }
        *self.extra.entry(row.key).or_default() += 1;
        if self.extra.len() > SOURCE_ROWS_MAX {
            return Err(Error::protocol(format!("more than {SOURCE_ROWS_MAX} rows of a table differ")));
        }
        Ok(())
    }

    /// What is left differs.
    pub fn finish(mut self) -> (DiffCounts, Differing) {
        let mut counts = DiffCounts::default();
        let (mut keys, mut only_here): (HashSet<u128>, HashSet<u128>) = Default::default();
        for ((key, _), left) in self.source {
            let extra = self.extra.get_mut(&key);
            let changed = extra.as_ref().map_or(0, |extra| left.min(**extra));
            if let Some(extra) = extra {
                *extra -= changed;
            }
            counts.changed += changed;
            counts.missing += left - changed;
            keys.insert(key);
        }
        for (key, left) in self.extra {
            counts.extra += left;
            keys.insert(key);
            if left > 0 {
                only_here.insert(key);
            }
        }
        (counts, Differing { keys, extra: only_here })
    }
}

/// The keys of a table that differ.
pub struct Differing {
    keys: HashSet<u128>,
    /// Those of rows that the source does not have.
    extra: HashSet<u128>,
}

impl Differing {
    /// How many.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether a row is one of them.
    pub fn contains(&self, row: RowHash) -> bool {
        self.keys.contains(&row.key)
    }

    /// Whether the source does not have a row.
    pub fn is_extra(&self, row: RowHash) -> bool {
        self.extra.contains(&row.key)
    }

    /// Whether there are such rows.
    pub fn has_extra(&self) -> bool {
        !self.extra.is_empty()
    }

    /// All of them.
    pub fn list(&self) -> Vec<u128> {
        self.keys.iter().copied().collect()
    }
}

/// Hash of the key, hash of the row.
const ENTRY_LEN: usize = 32;
/// Rows that are compared one by one, a table.
const SOURCE_ROWS_MAX: usize = 4_000_000;
/// Keys that a session keeps to mend, of all tables.
pub const KEPT_KEYS_MAX: usize = 200_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: u128, row: u128) -> RowHash {
        RowHash { key, row }
    }

    fn diff(source: &[(u128, u128)], shadow: &[(u128, u128)]) -> (DiffCounts, Vec<u128>) {
        let mut rows = SourceRows::new();
        for entry in source {
            *rows.entry(*entry).or_default() += 1;
        }
        let buckets: Vec<u16> = (0..10).collect();
        let mut diff = Diff::new(rows, &buckets);
        for (key, content) in shadow {
            diff.shadow_has(row(*key, *content)).unwrap();
        }
        let (counts, keys) = diff.finish();
        let mut keys = keys.list();
        keys.sort_unstable();
        (counts, keys)
    }

    #[test]
    fn tells_missing_extra_and_changed_rows() {
        let (counts, keys) = diff(&[(1, 11), (2, 22), (3, 33)], &[(3, 34), (1, 11), (4, 44)]);
        assert_eq!(counts, DiffCounts { missing: 1, extra: 1, changed: 1 });
        assert_eq!(keys, [2, 3, 4]);
    }

    #[test]
    fn counts_duplicates_of_keyless_rows() {
        let (counts, keys) = diff(&[(5, 5), (5, 5), (6, 6)], &[(5, 5), (6, 6), (6, 6), (7, 7)]);
        assert_eq!(counts, DiffCounts { missing: 1, extra: 2, changed: 0 });
        assert_eq!(keys, [5, 6, 7]);
    }

    #[test]
    fn passes_over_other_buckets() {
        let (counts, keys) = diff(&[], &[(11, 1), (1 << 64, 1)]);
        assert_eq!((counts.extra, keys), (1, vec![1 << 64]), "bucket 11 was not asked for");
    }
}
