//! A table's content as numbers that both sides come to by themselves.
//!
//! ```text
//! row ─► fields in one order (key first, each group by column name) ─► 128-bit hash, seeded by the names
//! hash of the key's fields ─► bucket (1 of 1,024) ─► rows + 1, sum + hash of the row (wrapping)
//! ```
//!
//! Sums do not depend on the order of the rows; names are part of every hash,
//! so that values of swapped columns are not taken for equal; fields carry
//! their lengths, so that no two rows have the same bytes. Two tables are
//! called equal when every bucket has the same number of rows and the same sum.
//! XXH3 is no cryptographic hash: it finds accidents, not forgeries.
//!
//! What it does not do: make the bytes. Both sides must write the values in
//! the same form (see [`crate::message::Format`]).

use crate::codec::Reader;
use crate::tuple::{LEN_NULL, LEN_UNCHANGED};
use crate::{Error, message::Column};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

/// Buckets of a table.
pub const BUCKETS: usize = 1024;

/// The order in which the columns of a hashed row stand: the key's, then the
/// others, each by name.
pub fn sort(columns: &mut [Column]) {
    columns.sort_by(|a, b| (!a.key, &a.name).cmp(&(!b.key, &b.name)));
}

/// A row, as the other side knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RowHash {
    /// Of the key; of the whole row where there is no key.
    pub key: u128,
    /// Of the whole row.
    pub row: u128,
}

/// Hashes the rows of one table.
#[derive(Debug, Clone)]
pub struct RowHasher {
    seed: u64,
    columns: usize,
    keys: usize,
}

impl RowHasher {
    /// For rows of these columns, which must be in the order of [`sort`].
    #[must_use]
    pub fn new(columns: &[Column]) -> Self {
        let mut names = Vec::new();
        for column in columns {
            names.extend_from_slice(&(column.name.len() as u64).to_be_bytes());
            names.extend_from_slice(column.name.as_bytes());
            names.push(u8::from(column.key));
        }
        let keys = columns.iter().take_while(|column| column.key).count();
        // A key of all columns is none: rows may stand there more than once.
        let keys = if keys == columns.len() { 0 } else { keys };
        RowHasher { seed: xxh3_64(&names), columns: columns.len(), keys }
    }

    /// Whether rows are known by a key.
    #[must_use]
    pub fn has_key(&self) -> bool {
        self.keys > 0
    }

    /// The hash of the row at the front of `fields`, the body of a tuple
    /// behind its field count, and the bytes that it takes there.
    ///
    /// # Errors
    /// The bytes end inside a field, or a value was left out.
    #[inline]
    pub fn row(&self, fields: &[u8]) -> Result<(RowHash, usize), Error> {
        let mut reader = Reader::new(fields);
        skip(&mut reader, self.keys)?;
        let key_len = fields.len() - reader.remaining();
        skip(&mut reader, self.columns - self.keys)?;
        let len = fields.len() - reader.remaining();
        let row = xxh3_128_with_seed(fields.get(..len).unwrap_or_default(), self.seed);
        let key = match self.keys {
            0 => row,
            _ => xxh3_128_with_seed(fields.get(..key_len).unwrap_or_default(), self.seed),
        };
        Ok((RowHash { key, row }, len))
    }
}

#[inline]
fn skip(reader: &mut Reader<'_>, fields: usize) -> Result<(), Error> {
    for _ in 0..fields {
        match reader.i32("field length")? {
            LEN_NULL => {}
            LEN_UNCHANGED => return Err(Error::Undefined { what: "field length", got: 2 }),
            len => {
                let len = usize::try_from(len).map_err(|_| Error::Undefined {
                    what: "field length",
                    got: u64::from(len.unsigned_abs()),
                })?;
                reader.bytes(len, "field")?;
            }
        }
    }
    Ok(())
}

/// The bucket of a row.
#[must_use]
#[inline]
pub fn bucket(hash: RowHash) -> usize {
    usize::try_from(hash.key % BUCKETS as u128).unwrap_or(0)
}

/// One bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bucket {
    /// Its rows.
    pub rows: u64,
    /// The sum of their hashes.
    pub sum: u128,
}

/// The buckets of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sums {
    buckets: Vec<Bucket>,
}

impl Default for Sums {
    fn default() -> Self {
        Sums { buckets: vec![Bucket::default(); BUCKETS] }
    }
}

impl Sums {
    /// Of these buckets; those that lack are empty.
    #[must_use]
    pub fn from_buckets(mut buckets: Vec<Bucket>) -> Self {
        buckets.resize(BUCKETS, Bucket::default());
        Sums { buckets }
    }

    /// The buckets, [`BUCKETS`] of them.
    #[must_use]
    pub fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    /// Adds a row.
    #[inline]
    pub fn add(&mut self, hash: RowHash) {
        if let Some(place) = self.buckets.get_mut(bucket(hash)) {
            place.rows += 1;
            place.sum = place.sum.wrapping_add(hash.row);
        }
    }

    /// All rows.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.rows).sum()
    }

    /// The content as one number, in hexadecimal.
    #[must_use]
    pub fn content(&self) -> String {
        let sum = self.buckets.iter().fold(0u128, |sum, bucket| sum.wrapping_add(bucket.sum));
        format!("{sum:032x}")
    }

    /// The numbers of the buckets that are not the same in `other`.
    #[must_use]
    pub fn differing(&self, other: &Sums) -> Vec<u16> {
        let pairs = self.buckets.iter().zip(&other.buckets);
        let differing = pairs.enumerate().filter(|(_, (mine, theirs))| mine != theirs);
        differing.filter_map(|(place, _)| u16::try_from(place).ok()).collect()
    }

    /// Rows in these buckets.
    #[must_use]
    pub fn rows_in(&self, buckets: &[u16]) -> u64 {
        buckets.iter().filter_map(|place| self.buckets.get(usize::from(*place))).map(|b| b.rows).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(names: &[(&str, bool)]) -> Vec<Column> {
        let mut columns: Vec<Column> = names
            .iter()
            .map(|(name, key)| Column {
                attnum: 1,
                key: *key,
                identity_always: false,
                type_oid: 25,
                type_mod: -1,
                name: (*name).to_owned(),
            })
            .collect();
        sort(&mut columns);
        columns
    }

    fn fields(values: &[Option<&[u8]>]) -> Vec<u8> {
        let mut out = Vec::new();
        for value in values {
            match value {
                None => out.extend_from_slice(&LEN_NULL.to_be_bytes()),
                Some(bytes) => {
                    out.extend_from_slice(&i32::try_from(bytes.len()).unwrap().to_be_bytes());
                    out.extend_from_slice(bytes);
                }
            }
        }
        out
    }

    fn sums(hasher: &RowHasher, rows: &[Vec<u8>]) -> Sums {
        let mut sums = Sums::default();
        rows.iter().for_each(|row| sums.add(hasher.row(row).unwrap().0));
        sums
    }

    #[test]
    fn columns_stand_key_first_and_by_name() {
        let sorted = columns(&[("b", false), ("z", true), ("a", false), ("k", true)]);
        let names: Vec<&str> = sorted.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["k", "z", "a", "b"]);
    }

    #[test]
    fn order_of_rows_does_not_matter_and_content_does() {
        let hasher = RowHasher::new(&columns(&[("id", true), ("v", false)]));
        let row = |id: &'static [u8], v: Option<&'static [u8]>| fields(&[Some(id), v]);
        let rows = [row(b"1", Some(b"x")), row(b"2", None), row(b"3", Some(b""))];
        let mut turned = rows.clone();
        turned.reverse();
        let all = sums(&hasher, &rows);
        assert_eq!(all, sums(&hasher, &turned));
        assert_eq!(all.rows(), 3);
        assert_eq!(all.content().len(), 32);
        // NULL is not the empty text.
        turned[0] = row(b"3", None);
        let other = sums(&hasher, &turned);
        assert_eq!(all.differing(&other).len(), 1);
        assert_ne!(all.content(), other.content());
        assert!(all.rows_in(&all.differing(&other)) >= 1);
    }

    #[test]
    fn names_and_borders_of_values_count() {
        let one = RowHasher::new(&columns(&[("a", false), ("b", false)]));
        let other = RowHasher::new(&columns(&[("a", false), ("c", false)]));
        let row = fields(&[Some(b"x"), Some(b"yz")]);
        assert_ne!(one.row(&row).unwrap().0, other.row(&row).unwrap().0);
        let moved = fields(&[Some(b"xy"), Some(b"z")]);
        assert_ne!(one.row(&row).unwrap().0, one.row(&moved).unwrap().0);
    }

    #[test]
    fn the_key_tells_the_bucket_and_duplicates_count() {
        let keyed = RowHasher::new(&columns(&[("id", true), ("v", false)]));
        let a = keyed.row(&fields(&[Some(b"1"), Some(b"x")])).unwrap().0;
        let b = keyed.row(&fields(&[Some(b"1"), Some(b"y")])).unwrap().0;
        assert_eq!((a.key, bucket(a)), (b.key, bucket(b)));
        assert_ne!(a.row, b.row);
        let keyless = RowHasher::new(&columns(&[("id", true), ("v", true)]));
        assert!(!keyless.has_key());
        let row = fields(&[Some(b"1"), Some(b"x")]);
        let hash = keyless.row(&row).unwrap().0;
        assert_eq!(hash.key, hash.row);
        assert_ne!(sums(&keyless, std::slice::from_ref(&row)), sums(&keyless, &[row.clone(), row]));
    }

    #[test]
    fn tells_where_the_row_ends_and_rejects_what_is_none() {
        let hasher = RowHasher::new(&columns(&[("id", true), ("v", false)]));
        let row = fields(&[Some(b"1"), None]);
        let more = [row.clone(), b"tail".to_vec()].concat();
        assert_eq!(hasher.row(&more).unwrap().1, row.len());
        assert!(hasher.row(&row[..row.len() - 1]).is_err());
        assert!(hasher.row(b"\xff\xff\xff\xfe\xff\xff\xff\xff").is_err());
        assert!(hasher.row(b"\xff\xff\xff\xfd\xff\xff\xff\xff").is_err());
    }
}
