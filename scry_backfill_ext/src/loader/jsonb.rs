//! Whether bytes are a jsonb container as the server stores it (utils/jsonb.h).
//!
//! ```text
//! container: header (count, kind) │ an entry for each child │ the children's bytes
//! entry:     type, and its length, or where it ends
//! ```
//!
//! Functions of the server trust what stands in a table: an entry that points elsewhere makes them
//! read elsewhere. So everything that they follow is checked: every entry lies within its container and
//! behind the one before, the children fill it exactly, strings are UTF-8, keys are in their order,
//! numerics have digits. What is valid here the server could have written itself.

use super::numeric;
use super::value::is_text;

/// Checks containers; keeps its memory from one to the next.
#[derive(Debug, Default)]
pub struct Validator {
    /// Where containers begin and end that are not checked yet: however deep, no recursion.
    open: Vec<(usize, usize)>,
}

impl Validator {
    /// Whether `bytes` are a root container and nothing else.
    pub fn is_valid(&mut self, bytes: &[u8]) -> bool {
        self.open.clear();
        self.open.push((0, bytes.len()));
        let mut is_root = true;
        while let Some((at, end)) = self.open.pop() {
            if self.check(bytes, at, end, std::mem::take(&mut is_root)).is_none() {
                return false;
            }
        }
        true
    }

    /// Checks one container; those in it are noted. `None` if it is not valid.
    fn check(&mut self, bytes: &[u8], at: usize, end: usize, is_root: bool) -> Option<()> {
        let header = word(bytes, at)?;
        let count = (header & COUNT_MASK) as usize;
        let (children, keys) = match header & !COUNT_MASK {
            ARRAY => (count, 0),
            OBJECT => (count.checked_mul(2)?, count),
            // A value by itself is an array of one.
            SCALAR_ARRAY if is_root && count == 1 => (count, 0),
            _ => return None,
        };
        let entries = at + 4;
        let data = entries.checked_add(children.checked_mul(4)?).filter(|data| *data <= end)?;
        let mut from = data;
        let mut key_before: Option<&[u8]> = None;
        for index in 0..children {
            let entry = word(bytes, entries + 4 * index)?;
            let offset = (entry & OFFSET_MASK) as usize;
            let upto = if entry & HAS_OFFSET == 0 { from + offset } else { data + offset };
            if upto < from || upto > end {
                return None;
            }
            let kind = entry & TYPE_MASK;
            if index < keys {
                let key = bytes.get(from..upto).filter(|_| kind == STRING)?;
                if key_before.is_some_and(|before| !is_before(before, key)) {
                    return None;
                }
                key_before = Some(key);
            }
            match kind {
                STRING => is_text(bytes.get(from..upto)?).then_some(())?,
                NUMERIC => check_numeric(bytes, from.next_multiple_of(4), upto)?,
                FALSE | TRUE | NULL => (from == upto).then_some(())?,
                CONTAINER if header & !COUNT_MASK != SCALAR_ARRAY => {
                    let begin = from.next_multiple_of(4);
                    (begin < upto).then_some(())?;
                    self.open.push((begin, upto));
                }
                _ => return None,
            }
            from = upto;
        }
        (from == end).then_some(())
    }
}

/// `lengthCompareJsonbString` (utils/adt/jsonb_util.c): the shorter first.
fn is_before(a: &[u8], b: &[u8]) -> bool {
    (a.len(), a) < (b.len(), b)
}

/// A numeric with a header of four bytes, uncompressed.
fn check_numeric(bytes: &[u8], at: usize, end: usize) -> Option<()> {
    let header = word(bytes, at)?;
    let len = (header >> 2) as usize;
    let is_plain = header & 3 == 0 && at.checked_add(len) == Some(end);
    (is_plain && numeric::is_stored(bytes.get(at + 4..end)?)).then_some(())
}

#[inline]
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk::<4>().map(|word| u32::from_le_bytes(*word))
}

// JsonbContainer
const COUNT_MASK: u32 = 0x0FFF_FFFF;
const OBJECT: u32 = 0x2000_0000;
const ARRAY: u32 = 0x4000_0000;
const SCALAR_ARRAY: u32 = 0x5000_0000;
// JEntry
const OFFSET_MASK: u32 = 0x0FFF_FFFF;
const TYPE_MASK: u32 = 0x7000_0000;
const HAS_OFFSET: u32 = 0x8000_0000;
const STRING: u32 = 0x0000_0000;
const NUMERIC: u32 = 0x1000_0000;
const FALSE: u32 = 0x2000_0000;
const TRUE: u32 = 0x3000_0000;
const NULL: u32 = 0x4000_0000;
const CONTAINER: u32 = 0x5000_0000;
