//! The values of a tuple as parameters: cut out of the batch, never copied,
//! never looked into.

use super::statement::RowColumn;
use crate::{Error, Result};
use bytes::{BufMut, Bytes, BytesMut};
use scry_wire::message::Format as WireFormat;
use scry_wire::tuple::{self, Field, Fields};
use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};

/// One value of a tuple.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// NULL.
    Null,
    /// A TOASTed value that the change did not touch.
    Unchanged,
    /// The value's bytes.
    Bytes(Bytes),
}

/// Cuts `tuple`, a part of `batch`, into its values; there must be `columns`.
pub fn cut(batch: &Bytes, tuple: &[u8], columns: usize) -> Result<Vec<Value>> {
    let mut fields = Fields::new(tuple)?;
    check_count(fields.left(), columns)?;
    let mut values = Vec::with_capacity(columns);
    while let Some(field) = fields.next_field()? {
        values.push(match field {
            Field::Null => Value::Null,
            Field::Unchanged => Value::Unchanged,
            Field::Value(bytes) => Value::Bytes(batch.slice_ref(bytes)),
        });
    }
    Ok(values)
}

/// Checks that `tuple` is a whole row of `columns` values.
pub fn check_whole(tuple: &[u8], columns: usize) -> Result<()> {
    let mut fields = Fields::new(tuple)?;
    check_count(fields.left(), columns)?;
    while let Some(field) = fields.next_field()? {
        if field == Field::Unchanged {
            return Err(Error::protocol("a new row leaves a value out"));
        }
    }
    Ok(())
}

fn check_count(got: usize, columns: usize) -> Result<()> {
    if got == columns {
        return Ok(());
    }
    Err(Error::protocol(format!("a row has {got} values, its relation has {columns} columns")))
}

/// A value on its way into a statement.
#[derive(Debug)]
pub struct Param {
    value: Option<Bytes>,
    format: Format,
}

impl Param {
    /// A parameter of a value that is there.
    pub fn new(value: &Value, format: WireFormat) -> Result<Self> {
        let value = match value {
            Value::Null => None,
            Value::Bytes(bytes) => Some(bytes.clone()),
            Value::Unchanged => return Err(Error::protocol("a row is sought by a value that was left out")),
        };
        let format = match format {
            WireFormat::Binary | WireFormat::Stored => Format::Binary,
            WireFormat::Text => Format::Text,
        };
        Ok(Param { value, format })
    }
}

impl ToSql for Param {
    fn to_sql(
        &self,
        _ty: &Type,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match &self.value {
            None => Ok(IsNull::Yes),
            Some(bytes) => {
                out.put_slice(bytes);
                Ok(IsNull::No)
            }
        }
    }

    fn accepts(_ty: &Type) -> bool {
        true
    }

    fn encode_format(&self, _ty: &Type) -> Format {
        self.format
    }

    to_sql_checked!();
}

/// A column's values in many tuples, as one array on its way into a statement.
#[derive(Debug)]
pub struct ArrayParam {
    bytes: BytesMut,
    count: u32,
    nulls: bool,
}

impl ArrayParam {
    /// An empty array over elements of this type.
    #[must_use]
    pub fn new(element: u32) -> Self {
        let mut bytes = BytesMut::with_capacity(256);
        // One dimension; whether there are NULLs and how many elements: at the end.
        bytes.put_i32(1);
        bytes.put_i32(0);
        bytes.put_u32(element);
        bytes.put_i32(0);
        bytes.put_i32(1);
        ArrayParam { bytes, count: 0, nulls: false }
    }

    /// Appends a value. In an array it stands as in a tuple.
    pub fn push(&mut self, value: Field<'_>) -> Result<()> {
        match value {
            Field::Null => {
                self.nulls = true;
                self.bytes.put_i32(tuple::LEN_NULL);
            }
            Field::Value(value) => {
                let len = i32::try_from(value.len()).map_err(|_| Error::protocol("a value is too large"))?;
                self.bytes.put_i32(len);
                self.bytes.put_slice(value);
            }
            Field::Unchanged => return Err(Error::protocol("a value of a set was left out")),
        }
        self.count += 1;
        Ok(())
    }
}

impl ArrayParam {
    /// Appends a tuple as a value of a row type with these columns (rowtypes.c, `record_recv`). What the
    /// tuple leaves out is NULL: no statement reads it.
    pub fn push_row(&mut self, fields: &mut Fields<'_>, columns: &[RowColumn]) -> Result<()> {
        let mut values = Vec::with_capacity(columns.len());
        while let Some(field) = fields.next_field()? {
            values.push(field);
        }
        let too_large = |_| Error::protocol("a row is too large");
        let len_at = self.bytes.len();
        self.bytes.put_i32(0);
        self.bytes.put_i32(i32::try_from(columns.len()).map_err(too_large)?);
        for column in columns {
            self.bytes.put_u32(column.type_oid);
            match column.place.and_then(|place| values.get(place)) {
                Some(Field::Value(value)) => {
                    self.bytes.put_i32(i32::try_from(value.len()).map_err(too_large)?);
                    self.bytes.put_slice(value);
                }
                _ => self.bytes.put_i32(tuple::LEN_NULL),
            }
        }
        let len = i32::try_from(self.bytes.len() - len_at - LEN_BYTES).map_err(too_large)?;
        if let Some(place) = self.bytes.get_mut(len_at..len_at + LEN_BYTES) {
            place.copy_from_slice(&len.to_be_bytes());
        }
        self.count += 1;
        Ok(())
    }
}

/// Of a value's length.
const LEN_BYTES: usize = 4;

impl ToSql for ArrayParam {
    fn to_sql(
        &self,
        _ty: &Type,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        let at = |range: std::ops::Range<usize>| self.bytes.get(range).unwrap_or_default();
        out.put_slice(at(0..4));
        out.put_i32(self.nulls.into());
        out.put_slice(at(8..12));
        out.put_u32(self.count);
        out.put_slice(at(16..self.bytes.len()));
        Ok(IsNull::No)
    }

    fn accepts(_ty: &Type) -> bool {
        true
    }

    fn encode_format(&self, _ty: &Type) -> Format {
        Format::Binary
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_rows_without_copying() {
        let batch = Bytes::from_static(b"\0\x03\xff\xff\xff\xff\0\0\0\x01a\xff\xff\xff\xfe");
        let values = cut(&batch, &batch, 3).unwrap();
        assert_eq!(values, [Value::Null, Value::Bytes(Bytes::from_static(b"a")), Value::Unchanged]);
        let Value::Bytes(a) = &values[1] else { panic!() };
        assert_eq!(a.as_ptr(), batch[10..].as_ptr());
    }

    #[test]
    fn writes_arrays_as_the_server_reads_them() {
        let mut array = ArrayParam::new(25);
        array.push(Field::Value(b"a")).unwrap();
        array.push(Field::Null).unwrap();
        assert!(array.push(Field::Unchanged).is_err());
        let mut out = BytesMut::new();
        array.to_sql(&Type::TEXT_ARRAY, &mut out).unwrap();
        assert_eq!(
            &out[..],
            b"\0\0\0\x01\0\0\0\x01\0\0\0\x19\0\0\0\x02\0\0\0\x01\0\0\0\x01a\xff\xff\xff\xff"
        );
    }

    #[test]
    fn rejects_other_counts_and_left_out_values() {
        let batch = Bytes::from_static(b"\0\x01\xff\xff\xff\xfe");
        assert!(cut(&batch, &batch, 2).is_err());
        assert!(check_whole(&batch, 1).is_err());
        assert!(check_whole(b"\0\x01\xff\xff\xff\xff", 1).is_ok());
        assert!(Param::new(&Value::Unchanged, WireFormat::Text).is_err());
    }
}
