//! Arrays of one dimension without NULLs, of common types, from their binary form into their stored
//! one (utils/adt/arrayfuncs.c, `array_recv`; utils/array.h).

use pgrx::pg_sys;

use super::value::{Fixed, align, is_text};

/// What an array holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    Fixed(Fixed),
    Text,
}

impl Element {
    /// Of a type; `None` for types of which the server makes its arrays itself.
    pub fn of(type_oid: u32) -> Option<Element> {
        if [pg_sys::TEXTOID, pg_sys::VARCHAROID].contains(&type_oid.into()) {
            return Some(Element::Text);
        }
        Fixed::of(type_oid).map(Element::Fixed)
    }
}

/// Writes the array's bytes, without the varlena's header, into `out`; `false` where `array_recv` has
/// to decide.
pub fn from_binary(binary: &[u8], element: Element, element_oid: u32, out: &mut Vec<u8>) -> bool {
    let int = |at: usize| binary.get(at..)?.first_chunk::<4>().map(|int| i32::from_be_bytes(*int));
    let (Some(dimensions), Some(0), Some(oid)) = (int(0), int(4), int(8)) else { return false };
    if oid.cast_unsigned() != element_oid {
        return false;
    }
    out.clear();
    if dimensions == 0 {
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&oid.to_le_bytes());
        return binary.len() == 12;
    }
    let (1, Some(count), Some(lower)) = (dimensions, int(12), int(16)) else { return false };
    if count < 1 || lower.checked_add(count).is_none() {
        return false;
    }
    // The varlena's header, which the elements are aligned with; taken off at the end.
    out.extend_from_slice(&[0; 4]);
    for word in [1, 0, oid, count, lower] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    let mut rest = binary.get(20..).unwrap_or_default();
    for _ in 0..count {
        let Some((len, after)) = rest.split_first_chunk::<4>() else { return false };
        let Ok(len) = usize::try_from(i32::from_be_bytes(*len)) else { return false };
        let Some((value, after)) = after.split_at_checked(len) else { return false };
        if !write(element, value, out) {
            return false;
        }
        rest = after;
    }
    out.drain(..4);
    rest.is_empty() && out.len() <= SIZE_MAX
}

/// Appends one element, and what aligns the next.
#[inline]
fn write(element: Element, value: &[u8], out: &mut Vec<u8>) -> bool {
    match element {
        Element::Fixed(fixed) => {
            let written = fixed.write(value, out);
            align(out, fixed.len_and_align().1);
            written
        }
        Element::Text => {
            if !is_text(value) {
                return false;
            }
            out.extend_from_slice(&((value.len() as u32 + 4) << 2).to_le_bytes());
            out.extend_from_slice(value);
            align(out, 4);
            true
        }
    }
}

/// Well below `MaxAllocSize`: larger ones are the server's to refuse.
const SIZE_MAX: usize = 0x3000_0000;
