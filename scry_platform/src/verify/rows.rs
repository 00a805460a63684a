//! The rows of a shadow's table, hashed as the source hashes its own.
//!
//! `COPY (SELECT columns FROM ONLY table) TO STDOUT` gives values in the very
//! form in which the source's rows travel: send functions' output, or output
//! functions' text. Memory: one row.

use crate::apply::relation_map::{full_name, qualified};
use crate::apply::schema::quote;
use crate::shadow::Session;
use crate::{Error, Result};
use bytes::{Buf, BytesMut};
use futures_util::TryStreamExt;
use scry_wire::hash::{RowHash, RowHasher};
use scry_wire::message::{Format, Relation};
use scry_wire::tuple::LEN_NULL;

/// A row of the shadow.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Its hashes.
    pub hash: RowHash,
    /// Where it stands: block and item; of no use unless asked for.
    pub ctid: (u32, u16),
}

/// Reads one table.
pub struct TableRows<'a> {
    relation: &'a Relation,
    hasher: RowHasher,
    with_ctid: bool,
    header: bool,
    buf: BytesMut,
    fields: Vec<u8>,
}

impl<'a> TableRows<'a> {
    /// A reader of `relation`, whose columns stand in the order of hashed rows.
    pub fn new(relation: &'a Relation, with_ctid: bool) -> Self {
        TableRows {
            relation,
            hasher: RowHasher::new(&relation.columns),
            with_ctid,
            header: relation.format == Format::Binary,
            buf: BytesMut::new(),
            fields: Vec::new(),
        }
    }

    fn sql(&self) -> String {
        let mut columns: Vec<String> =
            self.relation.columns.iter().map(|column| quote::ident(&column.name)).collect();
        if self.with_ctid {
            columns.push("ctid".to_owned());
        }
        let format = match self.relation.format {
            Format::Binary | Format::Stored => "binary",
            Format::Text => "text",
        };
        let (columns, table) = (columns.join(", "), qualified(self.relation));
        format!("COPY (SELECT {columns} FROM ONLY {table}) TO STDOUT (FORMAT {format})")
    }

    /// Hands each row to `each`.
    pub async fn read(
        mut self,
        session: &Session,
        mut each: impl FnMut(Row) -> Result<()> + Send,
    ) -> Result<()> {
        let cannot = || Error::sql(format!("read table {}", full_name(self.relation)));
        let stream = session.copy_out(&self.sql()).await.map_err(cannot())?;
        let mut stream = std::pin::pin!(stream);
        while let Some(piece) = stream.try_next().await.map_err(cannot())? {
            self.buf.extend_from_slice(&piece);
            while let Some(row) = self.next()? {
                each(row)?;
            }
        }
        if self.buf.is_empty() {
            return Ok(());
        }
        Err(Error::protocol(format!("the shadow's rows of {} end inside a row", full_name(self.relation))))
    }

    fn next(&mut self) -> Result<Option<Row>> {
        match self.relation.format {
            Format::Binary | Format::Stored => self.next_binary(),
            Format::Text => self.next_text(),
        }
    }

    fn next_binary(&mut self) -> Result<Option<Row>> {
        if self.header {
            if self.buf.len() < HEADER_LEN {
                return Ok(None);
            }
            self.buf.advance(HEADER_LEN);
            self.header = false;
        }
        let Some((count, fields)) = self.buf.split_first_chunk::<2>() else { return Ok(None) };
        if i16::from_be_bytes(*count) < 0 {
            self.buf.clear();
            return Ok(None);
        }
        let (hash, len) = match self.hasher.row(fields) {
            Ok(read) => read,
            Err(scry_wire::Error::Truncated { .. }) => return Ok(None),
            Err(other) => return Err(other.into()),
        };
        let (ctid, taken) = if self.with_ctid {
            let Some(ctid) = fields.get(len..len + CTID_LEN) else { return Ok(None) };
            (binary_ctid(ctid), len + CTID_LEN)
        } else {
            ((0, 0), len)
        };
        self.buf.advance(2 + taken);
        Ok(Some(Row { hash, ctid }))
    }

    fn next_text(&mut self) -> Result<Option<Row>> {
        let Some(end) = self.buf.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let line = self.buf.get(..end).unwrap_or_default();
        self.fields.clear();
        let mut ctid = (0, 0);
        if !self.relation.columns.is_empty() || self.with_ctid {
            let last = if self.with_ctid { self.relation.columns.len() } else { usize::MAX };
            for (place, field) in line.split(|byte| *byte == b'\t').enumerate() {
                if place == last {
                    ctid = text_ctid(field);
                } else {
                    push_text(field, &mut self.fields);
                }
            }
        }
        let (hash, _) = self.hasher.row(&self.fields)?;
        self.buf.advance(end + 1);
        Ok(Some(Row { hash, ctid }))
    }
}

/// Appends a field of COPY's text form as a field of a tuple.
fn push_text(field: &[u8], out: &mut Vec<u8>) {
    if field == b"\\N" {
        out.extend_from_slice(&LEN_NULL.to_be_bytes());
        return;
    }
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    let mut bytes = field.iter();
    while let Some(byte) = bytes.next() {
        let plain = match byte {
            b'\\' => match bytes.next() {
                Some(b'b') => 0x08,
                Some(b'f') => 0x0C,
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b't') => b'\t',
                Some(b'v') => 0x0B,
                Some(other) => *other,
                None => b'\\',
            },
            other => *other,
        };
        out.push(plain);
    }
    let len = i32::try_from(out.len() - at - 4).unwrap_or(i32::MAX);
    if let Some(place) = out.get_mut(at..at + 4) {
        place.copy_from_slice(&len.to_be_bytes());
    }
}

fn binary_ctid(field: &[u8]) -> (u32, u16) {
    match field {
        [_, _, _, _, a, b, c, d, e, f] => {
            (u32::from_be_bytes([*a, *b, *c, *d]), u16::from_be_bytes([*e, *f]))
        }
        _ => (0, 0),
    }
}

fn text_ctid(field: &[u8]) -> (u32, u16) {
    let text = std::str::from_utf8(field).unwrap_or_default();
    let parts = text.trim_matches(['(', ')']).split_once(',');
    parts.and_then(|(block, item)| Some((block.parse().ok()?, item.parse().ok()?))).unwrap_or((0, 0))
}

/// Signature, flags and length of the extension: COPY's binary header.
const HEADER_LEN: usize = 19;
/// Length and bytes of a `tid`.
const CTID_LEN: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use scry_wire::message::{Column, ReplicaIdentity};

    fn relation(format: Format) -> Relation {
        let column = |name: &str, key| Column {
            attnum: 1,
            key,
            identity_always: false,
            type_oid: 25,
            type_mod: -1,
            name: name.to_owned(),
        };
        Relation {
            relid: 1,
            format,
            replica_identity: ReplicaIdentity::Default,
            schema: "public".to_owned(),
            name: "t".to_owned(),
            columns: vec![column("id", true), column("v", false)],
        }
    }

    /// Reads `bytes` with a cut at each place: rows come out the same.
    fn read(relation: &Relation, bytes: &[u8], cut: usize) -> Vec<(RowHash, (u32, u16))> {
        let mut rows = TableRows::new(relation, true);
        let mut got = Vec::new();
        for part in [&bytes[..cut], &bytes[cut..]] {
            rows.buf.extend_from_slice(part);
            while let Some(row) = rows.next().unwrap() {
                got.push((row.hash, row.ctid));
            }
        }
        assert!(rows.buf.is_empty());
        got
    }

    #[test]
    fn reads_the_same_rows_in_both_forms_at_every_cut() {
        let mut binary = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
        binary.extend_from_slice(b"\0\x03\0\0\0\x011\0\0\0\x03a\tb\0\0\0\x06\0\0\0\x05\0\x02");
        binary.extend_from_slice(b"\0\x03\0\0\0\x012\xff\xff\xff\xff\0\0\0\x06\0\x01\0\0\0\x07\xff\xff");
        let text = b"1\ta\\tb\t(5,2)\n2\t\\N\t(65536,7)\n";
        let want = read(&relation(Format::Binary), &binary, 0);
        assert_eq!(want.iter().map(|row| row.1).collect::<Vec<_>>(), [(5, 2), (65536, 7)]);
        for cut in 0..binary.len() {
            assert_eq!(read(&relation(Format::Binary), &binary, cut), want);
        }
        for cut in 0..text.len() {
            assert_eq!(read(&relation(Format::Text), text, cut), want);
        }
    }

    #[test]
    fn undoes_every_escape() {
        let mut out = Vec::new();
        push_text(b"\\b\\f\\n\\r\\t\\v\\\\x", &mut out);
        assert_eq!(&out[4..], b"\x08\x0c\n\r\t\x0b\\x");
        assert_eq!(out[..4], 8i32.to_be_bytes());
    }

    #[test]
    fn names_columns_in_the_order_of_the_hash() {
        let relation = relation(Format::Text);
        let sql = TableRows::new(&relation, false).sql();
        assert_eq!(sql, r#"COPY (SELECT "id", "v" FROM ONLY "public"."t") TO STDOUT (FORMAT text)"#);
    }
}
