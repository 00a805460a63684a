//! A position in the WAL.

use std::fmt;
use std::str::FromStr;

/// A WAL position (`XLogRecPtr`, access/xlogdefs.h): bytes since the start of
/// the cluster's WAL. Written as PostgreSQL writes it: `16/B374D848`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// `InvalidXLogRecPtr`: no position.
    pub const INVALID: Lsn = Lsn(0);

    /// Whether this is a position at all.
    #[must_use]
    pub fn is_valid(self) -> bool {
        self != Self::INVALID
    }

    /// Bytes from `earlier` to this position; zero when it lies behind.
    #[must_use]
    pub fn bytes_since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Moves forward to `to`; a position never goes back. Says whether it moved.
    pub fn advance(&mut self, to: Lsn) -> bool {
        let moved = to > *self;
        if moved {
            *self = to;
        }
        moved
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl From<u64> for Lsn {
    fn from(value: u64) -> Self {
        Lsn(value)
    }
}

/// The text was not of the form `hex/hex`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid WAL position {0:?}: expected two hexadecimal numbers with a slash between them")]
pub struct ParseLsnError(String);

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Self, ParseLsnError> {
        let bad = || ParseLsnError(text.to_owned());
        let (high, low) = text.split_once('/').ok_or_else(bad)?;
        // from_str_radix alone would take a sign.
        let part = |s: &str| match s.len() {
            1..=8 if s.bytes().all(|b| b.is_ascii_hexdigit()) => {
                u32::from_str_radix(s, 16).map(u64::from).map_err(|_| bad())
            }
            _ => Err(bad()),
        };
        Ok(Lsn(part(high)? << 32 | part(low)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let lsn = Lsn(0x16_B374_D848);
        assert_eq!(lsn.to_string(), "16/B374D848");
        assert_eq!("16/B374D848".parse(), Ok(lsn));
    }

    #[test]
    fn rejects_other_text() {
        for bad in ["", "/", "1", "1/", "1/2/3", "123456789/1", "x/1", "+1/0", "1/-1"] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn advances_only_forward() {
        let mut lsn = Lsn(10);
        assert!(!lsn.advance(Lsn(9)));
        assert!(lsn.advance(Lsn(11)));
        assert_eq!(lsn, Lsn(11));
    }
}
