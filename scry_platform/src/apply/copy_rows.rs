//! Rows as `COPY ... FROM STDIN` wants them: pure.
//!
//! Binary rows stand on the wire as COPY has them and need only COPY's header
//! and trailer. Text rows are written as lines: fields apart by tabs, special
//! bytes escaped (PostgreSQL manual, COPY, "Text Format"). A field may be
//! hundreds of megabytes: escaping works on pieces, and [`TextRows`] keeps an
//! incomplete row's lengths, not its bytes.
//!
//! What it does not do: look into a value, or check a binary row. The shadow's
//! COPY does.

use bytes::{Buf, Bytes, BytesMut};
use scry_wire::{limits, tuple};

/// What binary COPY data begins with: signature, flags, length of extension.
pub const BINARY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What binary COPY data ends with: -1 as a field count.
pub const BINARY_TRAILER: &[u8] = b"\xff\xff";

/// Appends `value` in text COPY's escapes.
pub fn escape_into(value: &[u8], out: &mut BytesMut) {
    out.reserve(value.len());
    let mut plain = 0;
    for (i, byte) in value.iter().enumerate() {
        let Some(escaped) = escape(*byte) else { continue };
        out.extend_from_slice(value.get(plain..i).unwrap_or_default());
        out.extend_from_slice(&[b'\\', escaped]);
        plain = i + 1;
    }
    out.extend_from_slice(value.get(plain..).unwrap_or_default());
}

/// The letter behind the backslash, for bytes that need one.
fn escape(byte: u8) -> Option<u8> {
    Some(match byte {
        b'\\' => b'\\',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0b => b'v',
        0x0c => b'f',
        _ => return None,
    })
}

/// Where the reader stands in the rows.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// Before a row's field count.
    Row,
    /// Before a field's length; so many fields are left, and whether it is the first.
    Field { left: u16, first: bool },
    /// Inside a value; so many of its bytes are left.
    Value { left: usize, fields: u16 },
}

/// Turns tuples that arrive in arbitrary pieces into text COPY lines.
#[derive(Debug)]
pub struct TextRows {
    place: Place,
    pending: BytesMut,
}

impl Default for TextRows {
    fn default() -> Self {
        TextRows { place: Place::Row, pending: BytesMut::new() }
    }
}

impl TextRows {
    /// Nothing read yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the last piece ended with a whole row.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(self.place, Place::Row) && self.pending.is_empty()
    }

    /// Appends the lines of the next piece to `out`: at most twice its length
    /// and a few bytes a field.
    ///
    /// # Errors
    /// A count or length that no row has.
    pub fn push(&mut self, piece: Bytes, out: &mut BytesMut) -> Result<(), scry_wire::Error> {
        // At most seven bytes of an incomplete count or length are carried over.
        let mut input = piece;
        if !self.pending.is_empty() {
            self.pending.extend_from_slice(&input);
            input = std::mem::take(&mut self.pending).freeze();
        }
        while self.step(&mut input, out)? {}
        self.pending.extend_from_slice(&input);
        Ok(())
    }

    /// One field or count; false when more bytes are needed.
    fn step(&mut self, input: &mut Bytes, out: &mut BytesMut) -> Result<bool, scry_wire::Error> {
        match self.place {
            Place::Row => {
                let Ok(count) = input.try_get_i16() else { return Ok(false) };
                let left = u16::try_from(count).unwrap_or(u16::MAX);
                if usize::from(left) > limits::COLUMNS_MAX {
                    let max = limits::COLUMNS_MAX as u64;
                    return Err(scry_wire::Error::TooLarge { what: "field count", got: left.into(), max });
                }
                self.place = Place::Field { left, first: true };
            }
            Place::Field { left: 0, .. } => {
                out.extend_from_slice(b"\n");
                self.place = Place::Row;
            }
            Place::Field { left, first } => {
                let Ok(len) = input.try_get_i32() else { return Ok(false) };
                if !first {
                    out.extend_from_slice(b"\t");
                }
                self.place = match usize::try_from(len) {
                    Ok(len) => Place::Value { left: len, fields: left - 1 },
                    Err(_) if len == tuple::LEN_NULL => {
                        out.extend_from_slice(b"\\N");
                        Place::Field { left: left - 1, first: false }
                    }
                    Err(_) => {
                        let got = u64::from(len.unsigned_abs());
                        return Err(scry_wire::Error::Undefined { what: "field length", got });
                    }
                };
            }
            Place::Value { left: 0, fields } => self.place = Place::Field { left: fields, first: false },
            Place::Value { left, fields } => {
                if input.is_empty() {
                    return Ok(false);
                }
                let part = input.split_to(left.min(input.len()));
                escape_into(&part, out);
                self.place = Place::Value { left: left - part.len(), fields };
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(fields: &[Option<&[u8]>]) -> Vec<u8> {
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

    fn lines(bytes: &[u8], cut: usize) -> Vec<u8> {
        let mut rows = TextRows::new();
        let mut out = BytesMut::new();
        for piece in bytes.chunks(cut.max(1)) {
            rows.push(Bytes::copy_from_slice(piece), &mut out).unwrap();
        }
        assert!(rows.is_complete());
        out.to_vec()
    }

    #[test]
    fn writes_lines_as_copy_reads_them() {
        let mut bytes = row(&[Some(b"a\tb"), None, Some(b""), Some(b"\\N")]);
        bytes.extend(row(&[]));
        bytes.extend(row(&[Some("é\n\r\u{8}\u{b}\u{c}\\.".as_bytes())]));
        let want = "a\\tb\t\\N\t\t\\\\N\n\né\\n\\r\\b\\v\\f\\\\.\n".as_bytes();
        for cut in 1..=bytes.len() {
            assert_eq!(lines(&bytes, cut), want, "cut {cut}");
        }
    }

    #[test]
    fn rejects_unchanged_fields_and_negative_counts() {
        let mut out = BytesMut::new();
        let unchanged = Bytes::from_static(b"\0\x01\xff\xff\xff\xfe");
        assert!(TextRows::new().push(unchanged, &mut out).is_err());
        assert!(TextRows::new().push(Bytes::from_static(b"\xff\xff"), &mut out).is_err());
    }

    #[test]
    fn knows_an_incomplete_row() {
        let mut rows = TextRows::new();
        rows.push(Bytes::from_static(b"\0\x01\0\0\0\x05ab"), &mut BytesMut::new()).unwrap();
        assert!(!rows.is_complete());
    }

    proptest! {
        #[test]
        fn same_lines_at_every_cut(
            fields in proptest::collection::vec(proptest::option::of(proptest::collection::vec(any::<u8>(), 0..9)), 0..5),
            cut in 1usize..20,
        ) {
            let fields: Vec<Option<&[u8]>> = fields.iter().map(|f| f.as_deref()).collect();
            let bytes = row(&fields);
            prop_assert_eq!(lines(&bytes, cut), lines(&bytes, usize::MAX));
        }
    }
}
