//! Versions of the format, and how two peers agree on one.
//!
//! A constant for each version, with what it brought. A peer offers a range in
//! its hello; the answer names the highest version that both speak.

use crate::Error;

/// 2026-11: frames, handshake, copy chunks, change batches, confirmation.
pub const VERSION_1: u16 = 1;

/// Lowest version this build speaks.
pub const VERSION_MIN: u16 = VERSION_1;
/// Highest version this build speaks.
pub const VERSION_MAX: u16 = VERSION_1;

const _: () = assert!(VERSION_MIN <= VERSION_MAX, "the range of versions is not empty");

/// The highest version in both `theirs_min..=theirs_max` and this build's own
/// range, or [`Error::Version`].
pub fn negotiate(theirs_min: u16, theirs_max: u16) -> Result<u16, Error> {
    let best = theirs_max.min(VERSION_MAX);
    if theirs_min <= theirs_max && best >= theirs_min && best >= VERSION_MIN {
        return Ok(best);
    }
    Err(Error::Version { ours_min: VERSION_MIN, ours_max: VERSION_MAX, theirs_min, theirs_max })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_overlapping_ranges() {
        assert_eq!(negotiate(1, 1), Ok(1));
        assert_eq!(negotiate(0, 9), Ok(VERSION_MAX));
    }

    #[test]
    fn rejects_disjoint_and_inverted_ranges() {
        assert!(negotiate(VERSION_MAX + 1, VERSION_MAX + 2).is_err());
        assert!(negotiate(0, 0).is_err());
        assert!(negotiate(2, 1).is_err());
    }
}
