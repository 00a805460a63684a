//! A row on the wire: the body of a binary COPY tuple.
//!
//! ```text
//! i16 field count, then for each field: i32 length, bytes
//!                                       -1 NULL, -2 unchanged TOAST
//! ```
//!
//! The layout is that of `COPY ... (FORMAT binary)` (PostgreSQL manual, COPY,
//! "Tuples"), so that copied rows go into the shadow's COPY as they are. The
//! bytes of a field are the type's send function's output, or its output
//! function's text in the shadow's encoding, as the relation's
//! [`Format`](crate::message::Format) says. -2 is ours: it never stands in
//! copied rows.

use crate::{Error, codec::Reader, limits};

/// Length that stands for NULL.
pub const LEN_NULL: i32 = -1;
/// Length that stands for an unchanged, TOASTed value that the WAL does not hold.
pub const LEN_UNCHANGED: i32 = -2;

/// One field of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field<'a> {
    /// NULL.
    Null,
    /// A TOASTed value that this change did not touch.
    Unchanged,
    /// The value's bytes.
    Value(&'a [u8]),
}

/// The fields of a row, read one by one from borrowed bytes.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    reader: Reader<'a>,
    left: u16,
}

impl<'a> Fields<'a> {
    /// Begins to read the tuple at the front of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(bytes);
        let left = field_count(&mut reader)?;
        Ok(Fields { reader, left })
    }

    /// How many fields are left.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left.into()
    }

    /// The next field, `None` after the last.
    pub fn next_field(&mut self) -> Result<Option<Field<'a>>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        field(&mut self.reader).map(Some)
    }

    /// The bytes behind the tuple; an error while fields are left unread.
    pub fn rest(mut self) -> Result<&'a [u8], Error> {
        while self.next_field()?.is_some() {}
        Ok(self.reader.rest())
    }
}

fn field_count(reader: &mut Reader<'_>) -> Result<u16, Error> {
    let count = reader.i16("field count")?;
    match u16::try_from(count) {
        Ok(n) if usize::from(n) <= limits::COLUMNS_MAX => Ok(n),
        Ok(n) => Err(Error::TooLarge { what: "field count", got: n.into(), max: limits::COLUMNS_MAX as u64 }),
        Err(_) => Err(Error::Undefined { what: "field count", got: u64::from(count.unsigned_abs()) }),
    }
}

fn field<'a>(reader: &mut Reader<'a>) -> Result<Field<'a>, Error> {
    match reader.i32("field length")? {
        LEN_NULL => Ok(Field::Null),
        LEN_UNCHANGED => Ok(Field::Unchanged),
        len => match usize::try_from(len) {
            Ok(len) => Ok(Field::Value(reader.bytes(len, "field")?)),
            Err(_) => Err(Error::Undefined { what: "field length", got: u64::from(len.unsigned_abs()) }),
        },
    }
}

/// Takes the tuple at the front of `reader` and returns its bytes, checked.
pub fn take<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Error> {
    let start = reader.rest();
    for _ in 0..field_count(reader)? {
        field(reader)?;
    }
    let len = start.len() - reader.remaining();
    Ok(start.split_at_checked(len).map(|(tuple, _)| tuple).unwrap_or_default())
}

/// Bytes of the tuple at the front of `bytes`, or `None` when more are needed
/// to tell. Reads lengths only: for cutting a run of rows, not for checking it.
pub fn complete_len(bytes: &[u8]) -> Result<Option<usize>, Error> {
    let mut reader = Reader::new(bytes);
    match take(&mut reader) {
        Ok(tuple) => Ok(Some(tuple.len())),
        Err(Error::Truncated { .. }) => Ok(None),
        Err(other) => Err(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &[u8] = b"\x00\x03\xff\xff\xff\xff\x00\x00\x00\x02ab\xff\xff\xff\xfetail";

    #[test]
    fn reads_null_value_and_unchanged() {
        let mut fields = Fields::new(ROW).unwrap();
        assert_eq!(fields.next_field().unwrap(), Some(Field::Null));
        assert_eq!(fields.next_field().unwrap(), Some(Field::Value(b"ab")));
        assert_eq!(fields.next_field().unwrap(), Some(Field::Unchanged));
        assert_eq!(fields.next_field().unwrap(), None);
        assert_eq!(fields.rest().unwrap(), b"tail");
    }

    #[test]
    fn tells_when_a_row_is_incomplete() {
        let len = ROW.len() - 4;
        for cut in 0..len {
            assert_eq!(complete_len(&ROW[..cut]).unwrap(), None);
        }
        assert_eq!(complete_len(ROW).unwrap(), Some(len));
    }

    #[test]
    fn rejects_negative_counts_and_lengths() {
        assert!(Fields::new(b"\xff\xff").is_err());
        let mut fields = Fields::new(b"\x00\x01\xff\xff\xff\xfd").unwrap();
        assert!(fields.next_field().is_err());
    }
}
