//! Numerics from their binary form into their stored one (utils/adt/numeric.c).

use super::form::Layout;

/// Appends the stored form of what `numeric_send` has written; `false`, and nothing, where
/// `numeric_recv` has to decide: special values, digits that are to be cut or rounded, values that a
/// modifier (`typmod`) may not allow, and what is no numeric at all.
pub fn from_binary(binary: &[u8], typmod: i32, layout: Layout, out: &mut Vec<u8>) -> bool {
    let Some((head, digits)) = binary.split_first_chunk::<8>() else { return false };
    let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let (count, weight, sign, dscale) = (usize::from(word(0)), word(2) as i16, word(4), word(6));
    if digits.len() != 2 * count || (sign != POSITIVE && sign != NEGATIVE) || dscale > DSCALE_MAX {
        return false;
    }
    let digit =
        |index: usize| digits.get(2 * index..2 * index + 2).map_or(0, |d| u16::from_be_bytes([d[0], d[1]]));
    if (0..count).any(|index| digit(index) >= BASE) || !is_canonical(count, weight, sign, dscale, digit) {
        return false;
    }
    if !fits(typmod, count, weight, dscale, digit) {
        return false;
    }
    let is_short = dscale <= SHORT_DSCALE_MAX && SHORT_WEIGHT.contains(&weight);
    layout.begin_varlena(out, if is_short { 2 } else { 4 } + digits.len());
    if is_short {
        let negative = if sign == NEGATIVE { SHORT_NEGATIVE } else { 0 };
        let head = SHORT | negative | dscale << 7 | (weight as u16 & 0x7F);
        out.extend_from_slice(&head.to_le_bytes());
    } else {
        out.extend_from_slice(&(sign | dscale).to_le_bytes());
        out.extend_from_slice(&weight.to_le_bytes());
    }
    for digit in digits.chunks_exact(2) {
        out.extend_from_slice(&[digit[1], digit[0]]);
    }
    true
}

/// As `make_result` leaves a value: no zeros at either end, no sign and weight of a zero, no digits
/// behind the display scale.
fn is_canonical(count: usize, weight: i16, sign: u16, dscale: u16, digit: impl Fn(usize) -> u16) -> bool {
    if count == 0 {
        return sign == POSITIVE && weight == 0;
    }
    let last = digit(count - 1);
    if digit(0) == 0 || last == 0 {
        return false;
    }
    // Decimal digits of the last base-10000 digit that stand behind the scale.
    let places = 4 * (count as i64 - 1 - i64::from(weight));
    let hidden = places - i64::from(dscale);
    match hidden {
        ..=0 => true,
        1..=3 => last.is_multiple_of(10_u16.pow(hidden as u32)),
        _ => false,
    }
}

/// Whether `numeric(precision, scale)` takes the value as it is (`apply_typmod`).
fn fits(typmod: i32, count: usize, weight: i16, dscale: u16, digit: impl Fn(usize) -> u16) -> bool {
    let Some(modifier) = typmod.checked_sub(4).filter(|m| *m >= 0) else { return typmod < 0 };
    let (precision, scale) = (modifier >> 16 & 0xFFFF, modifier & 0x7FF);
    // From 15 on a scale has 11 bits, the highest of them its sign.
    if scale >= 0x400 || i32::from(dscale) != scale {
        return false;
    }
    if count == 0 {
        return true;
    }
    let first = digit(0).checked_ilog10().map_or(0, |log| log as i32 + 1);
    i32::from(weight) * 4 + first <= precision - scale
}

/// Whether these bytes, behind a varlena's header, are a finite numeric of the server's making:
/// as jsonb holds them. The layouts are `NumericShort` and `NumericLong`.
pub fn is_stored(bytes: &[u8]) -> bool {
    let Some((head, rest)) = bytes.split_first_chunk::<2>() else { return false };
    let head = u16::from_le_bytes(*head);
    let (weight, sign, dscale, digits) = match head & SIGN_MASK {
        0xC000 => return false,
        SHORT => {
            let weight = (head & 0x3F) as i16 | if head & 0x40 == 0 { 0 } else { !0x3F };
            let sign = if head & SHORT_NEGATIVE == 0 { POSITIVE } else { NEGATIVE };
            (weight, sign, head >> 7 & SHORT_DSCALE_MAX, rest)
        }
        sign => match rest.split_first_chunk::<2>() {
            Some((weight, digits)) => (i16::from_le_bytes(*weight), sign, head & DSCALE_MAX, digits),
            None => return false,
        },
    };
    let count = digits.len() / 2;
    let digit =
        |index: usize| digits.get(2 * index..2 * index + 2).map_or(0, |d| u16::from_le_bytes([d[0], d[1]]));
    digits.len().is_multiple_of(2)
        && (0..count).all(|index| digit(index) < BASE)
        && is_canonical(count, weight, sign, dscale, digit)
}

const BASE: u16 = 10_000;
const POSITIVE: u16 = 0;
const NEGATIVE: u16 = 0x4000;
const SIGN_MASK: u16 = 0xC000;
const DSCALE_MAX: u16 = 0x3FFF;
const SHORT: u16 = 0x8000;
const SHORT_NEGATIVE: u16 = 0x2000;
const SHORT_DSCALE_MAX: u16 = 0x3F;
const SHORT_WEIGHT: std::ops::RangeInclusive<i16> = -64..=63;
