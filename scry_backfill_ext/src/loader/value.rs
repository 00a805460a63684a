//! Values of common types from their binary form into their stored one.
//!
//! What the types' receive functions would take as it is is taken here; of everything else, also of
//! what is wrong, they decide themselves. Source of the rules: the receive functions in
//! `src/backend/utils/adt`.

use pgrx::pg_sys;

use super::array::Element;
use super::form::Layout;
use super::{array, numeric};

/// How a column's values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Fixed(Fixed),
    Bytes,
    /// `text` and `varchar` of at most so many characters.
    Text {
        max: usize,
    },
    /// `char(n)`: exactly so many characters.
    Padded {
        chars: usize,
    },
    Numeric {
        typmod: i32,
    },
    Array {
        element: Element,
        element_oid: u32,
    },
    /// As a container, if the source sends it so.
    Jsonb,
    /// By the type's receive function.
    Server,
}

impl Kind {
    /// Of a type (not a domain over one) with its modifier; `element` is an array's element type, 0 of
    /// others.
    pub fn of(type_oid: u32, typmod: i32, element: u32) -> Kind {
        let any = typmod < 0;
        match pg_sys::Oid::from(type_oid) {
            pg_sys::JSONBOID => Kind::Jsonb,
            pg_sys::NUMERICOID => Kind::Numeric { typmod },
            pg_sys::BPCHAROID if typmod > HEADER => {
                Kind::Padded { chars: usize::try_from(typmod - HEADER).unwrap_or(0) }
            }
            pg_sys::VARCHAROID if typmod > HEADER => {
                Kind::Text { max: usize::try_from(typmod - HEADER).unwrap_or(0) }
            }
            pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID if any => Kind::Text { max: usize::MAX },
            _ if any => match Element::of(type_oid) {
                Some(Element::Fixed(fixed)) => Kind::Fixed(fixed),
                Some(Element::Text) => Kind::Text { max: usize::MAX },
                None => match Element::of(element) {
                    Some(of) => Kind::Array { element: of, element_oid: element },
                    None if type_oid == pg_sys::BYTEAOID.to_u32() => Kind::Bytes,
                    None => Kind::Server,
                },
            },
            _ => Kind::Server,
        }
    }

    /// Appends a value's stored form; `false`, and nothing, where the server has to decide.
    #[inline]
    pub fn write(self, value: &[u8], layout: Layout, scratch: &mut Vec<u8>, out: &mut Vec<u8>) -> bool {
        match self {
            Kind::Fixed(fixed) => fixed.write(value, out),
            Kind::Bytes => layout.varlena(value, out),
            Kind::Text { max } => value.len() <= max && is_text(value) && layout.varlena(value, out),
            Kind::Padded { chars } => {
                value.len() == chars && value.is_ascii() && !value.contains(&0) && layout.varlena(value, out)
            }
            Kind::Numeric { typmod } => numeric::from_binary(value, typmod, layout, out),
            Kind::Array { element, element_oid } => {
                array::from_binary(value, element, element_oid, scratch) && layout.varlena(scratch, out)
            }
            Kind::Jsonb | Kind::Server => false,
        }
    }
}

/// Types of a fixed length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fixed {
    Bool,
    /// Two, four or eight bytes of any content.
    Word(usize),
    Date,
    Timestamp,
    Uuid,
}

impl Fixed {
    /// Of a type; `None` for all others.
    pub fn of(type_oid: u32) -> Option<Fixed> {
        Some(match pg_sys::Oid::from(type_oid) {
            pg_sys::BOOLOID => Fixed::Bool,
            pg_sys::INT2OID => Fixed::Word(2),
            pg_sys::INT4OID | pg_sys::FLOAT4OID | pg_sys::OIDOID => Fixed::Word(4),
            pg_sys::INT8OID | pg_sys::FLOAT8OID => Fixed::Word(8),
            pg_sys::DATEOID => Fixed::Date,
            pg_sys::TIMESTAMPOID | pg_sys::TIMESTAMPTZOID => Fixed::Timestamp,
            pg_sys::UUIDOID => Fixed::Uuid,
            _ => return None,
        })
    }

    /// Bytes of a value, and to what they are aligned.
    pub fn len_and_align(self) -> (usize, usize) {
        match self {
            Fixed::Bool => (1, 1),
            Fixed::Word(len) => (len, len),
            Fixed::Date => (4, 4),
            Fixed::Timestamp => (8, 8),
            Fixed::Uuid => (16, 1),
        }
    }

    /// Appends a value's stored form, aligned; `false`, and nothing, where the server has to decide.
    #[inline]
    pub fn write(self, value: &[u8], out: &mut Vec<u8>) -> bool {
        let (len, align_to) = self.len_and_align();
        if value.len() != len || !self.allows(value) {
            return false;
        }
        align(out, align_to);
        match self {
            Fixed::Bool => out.push(u8::from(value != [0])),
            Fixed::Uuid => out.extend_from_slice(value),
            _ => reversed(value, out),
        }
        true
    }

    #[inline]
    fn allows(self, value: &[u8]) -> bool {
        match self {
            Fixed::Date => value.first_chunk().is_some_and(|v| {
                let days = i32::from_be_bytes(*v);
                DATES.contains(&days) || days == i32::MIN || days == i32::MAX
            }),
            Fixed::Timestamp => value.first_chunk().is_some_and(|v| {
                let time = i64::from_be_bytes(*v);
                TIMESTAMPS.contains(&time) || time == i64::MIN || time == i64::MAX
            }),
            _ => true,
        }
    }
}

/// Appends the bytes of a number in the other order.
#[inline]
fn reversed(value: &[u8], out: &mut Vec<u8>) {
    match *value {
        [a, b] => out.extend_from_slice(&[b, a]),
        [a, b, c, d] => out.extend_from_slice(&[d, c, b, a]),
        [a, b, c, d, e, f, g, h] => out.extend_from_slice(&[h, g, f, e, d, c, b, a]),
        _ => out.extend(value.iter().rev()),
    }
}

/// Pads with zeros up to a multiple of `to`.
#[inline]
pub fn align(out: &mut Vec<u8>, to: usize) {
    let padded = out.len().next_multiple_of(to);
    if padded != out.len() {
        out.resize(padded, 0);
    }
}

/// Whether a text may stand in a database whose encoding is UTF8 (`pg_verify_mbstr`).
#[inline]
pub fn is_text(value: &[u8]) -> bool {
    !value.contains(&0) && (value.is_ascii() || std::str::from_utf8(value).is_ok())
}

/// `VARHDRSZ`, which stands in modifiers of lengths.
const HEADER: i32 = 4;
/// `IS_VALID_DATE` (datatype/timestamp.h), in days from 2000-01-01.
const DATES: std::ops::Range<i32> = -2_451_545..2_147_483_494 - 2_451_545;
/// `IS_VALID_TIMESTAMP` (datatype/timestamp.h), in microseconds from 2000-01-01.
const TIMESTAMPS: std::ops::Range<i64> = -211_813_488_000_000_000..9_223_371_331_200_000_000;
