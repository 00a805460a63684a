//! Rows out of pieces that are cut anywhere.
//!
//! Rows are read where they lie in a piece; only what is left at its end is
//! copied, and completed by the beginning of the next.

use scry_wire::tuple::LEN_NULL;

/// Where a field stands in its row; a negative length is a NULL.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    at: usize,
    len: i32,
}

/// A whole row.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    bytes: &'a [u8],
    fields: &'a [Place],
}

impl<'a> Row<'a> {
    /// A field's bytes; `None` for a NULL.
    #[inline]
    pub fn field(&self, index: usize) -> Option<&'a [u8]> {
        let place = self.fields.get(index)?;
        let len = usize::try_from(place.len).ok()?;
        self.bytes.get(place.at..place.at + len)
    }

    #[cfg(test)]
    fn values(&self) -> Vec<Option<Vec<u8>>> {
        (0..self.fields.len()).map(|i| self.field(i).map(<[u8]>::to_vec)).collect()
    }
}

/// Why bytes are no rows of a table.
#[derive(Debug, PartialEq, Eq)]
pub enum Bad {
    /// They are not rows, or those of another table.
    Malformed,
    /// A row is longer than a tuple can be.
    TooLong,
}

/// Cuts pieces into rows.
#[derive(Debug)]
pub struct Rows {
    fields: Vec<Place>,
    rest: Vec<u8>,
}

impl Rows {
    /// Of a table of which so many columns travel.
    pub fn new(columns: usize) -> Self {
        Rows { fields: vec![Place::default(); columns], rest: Vec::new() }
    }

    /// Hands each row that `piece` completes to `each`.
    pub fn push(&mut self, piece: &[u8], mut each: impl FnMut(Row<'_>)) -> Result<(), Bad> {
        let mut piece = piece;
        if !self.rest.is_empty() {
            let Some(used) = self.complete_rest(piece, &mut each)? else { return Ok(()) };
            piece = piece.get(used..).unwrap_or_default();
        }
        while let Some(len) = measure(&mut self.fields, piece)? {
            let (bytes, after) = piece.split_at(len);
            each(Row { bytes, fields: &self.fields });
            piece = after;
        }
        self.rest.extend_from_slice(piece);
        Ok(())
    }

    /// Completes the row that was begun; returns how much of `piece` that took, `None` if all of it
    /// was not enough.
    fn complete_rest(&mut self, piece: &[u8], each: &mut impl FnMut(Row<'_>)) -> Result<Option<usize>, Bad> {
        let before = self.rest.len();
        let mut taken = 0;
        while taken < piece.len() {
            // What is there again at least, so that a row of many pieces is not copied for each.
            let upto = piece.len().min(taken + FIRST_TRY.max(taken));
            self.rest.extend_from_slice(piece.get(taken..upto).unwrap_or_default());
            taken = upto;
            if let Some(len) = measure(&mut self.fields, &self.rest)? {
                each(Row { bytes: &self.rest, fields: &self.fields });
                self.rest.clear();
                self.rest.shrink_to(KEEP);
                return Ok(Some(len - before));
            }
        }
        Ok(None)
    }

    /// Whether no row is begun.
    pub fn is_complete(&self) -> bool {
        self.rest.is_empty()
    }
}

/// Notes the fields of the row that `bytes` begin with, and returns its length; `None` if it is not
/// all there.
#[inline]
fn measure(fields: &mut [Place], bytes: &[u8]) -> Result<Option<usize>, Bad> {
    let Some((count, _)) = bytes.split_first_chunk::<2>() else { return Ok(None) };
    if usize::try_from(i16::from_be_bytes(*count)) != Ok(fields.len()) {
        return Err(Bad::Malformed);
    }
    let mut at = 2;
    for field in fields {
        let Some(len) = bytes.get(at..).and_then(<[u8]>::first_chunk::<4>) else { return Ok(None) };
        let len = i32::from_be_bytes(*len);
        at += 4;
        *field = Place { at, len };
        match usize::try_from(len) {
            Ok(len) => at += len,
            Err(_) if len == LEN_NULL => {}
            Err(_) => return Err(Bad::Malformed),
        }
        if at > ROW_MAX {
            return Err(Bad::TooLong);
        }
    }
    Ok((at <= bytes.len()).then_some(at))
}

/// `MaxAllocSize`: no tuple is longer, and nobody has to hold more of a row that is not all there.
const ROW_MAX: usize = 0x3FFF_FFFF;
/// How much of a piece is first taken to complete a row.
const FIRST_TRY: usize = 512;
/// Room for the rest of a piece that is kept.
const KEEP: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::super::tests::row;
    use super::*;

    #[test]
    fn rows_come_whole_wherever_the_pieces_are_cut() {
        let long = vec![7; 3000];
        let want: [[Option<&[u8]>; 2]; 4] =
            [[Some(b"ab"), None], [Some(b""), Some(&long)], [None, None], [Some(b"x"), Some(b"yz")]];
        let bytes: Vec<u8> = want.iter().flat_map(|values| row(values)).collect();
        for size in [1, 2, 3, 7, 64, 511, 513, 4000] {
            let mut rows = Rows::new(2);
            let mut got = Vec::new();
            for piece in bytes.chunks(size) {
                rows.push(piece, |row| got.push(row.values())).unwrap();
            }
            assert!(rows.is_complete());
            assert_eq!(got, want.map(|r| r.map(|v| v.map(<[u8]>::to_vec)).to_vec()), "pieces of {size}");
        }
    }

    #[test]
    fn a_row_that_is_begun_is_not_complete() {
        let mut rows = Rows::new(1);
        rows.push(&row(&[Some(b"abc")])[..5], |_| panic!("half a row")).unwrap();
        assert!(!rows.is_complete());
    }

    #[test]
    fn other_rows_are_refused() {
        assert_eq!(Rows::new(1).push(&row(&[None, None]), |_| {}), Err(Bad::Malformed));
        assert_eq!(Rows::new(1).push(&[0, 1, 0xFF, 0xFF, 0xFF, 0xFE], |_| {}), Err(Bad::Malformed));
        assert_eq!(Rows::new(1).push(&[0, 1, 0x7F, 0, 0, 0], |_| {}), Err(Bad::TooLong));
    }
}
