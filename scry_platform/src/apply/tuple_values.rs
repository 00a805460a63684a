//! The values of a tuple as parameters: cut out of the batch, never copied,
//! never looked into.

use crate::{Error, Result};
use bytes::{BufMut, Bytes, BytesMut};
use scry_wire::message::Format as WireFormat;
use scry_wire::tuple::{Field, Fields};
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
            WireFormat::Binary => Format::Binary,
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
    fn rejects_other_counts_and_left_out_values() {
        let batch = Bytes::from_static(b"\0\x01\xff\xff\xff\xfe");
        assert!(cut(&batch, &batch, 2).is_err());
        assert!(check_whole(&batch, 1).is_err());
        assert!(check_whole(b"\0\x01\xff\xff\xff\xff", 1).is_ok());
        assert!(Param::new(&Value::Unchanged, WireFormat::Text).is_err());
    }
}
