//! What a snapshot saw, by transaction id.
//!
//! A table that is copied under a later snapshot than the slot's own gets from
//! the stream exactly the transactions which that snapshot did not see
//! (delivery contract, rules 5 and 6).

use std::str::FromStr;

/// A snapshot as `pg_current_snapshot()` writes it: `xmin:xmax:xip,…`, with
/// 64-bit transaction ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenBy {
    xmin: u64,
    xmax: u64,
    running: Vec<u64>,
}

impl SeenBy {
    /// Whether the snapshot saw the top-level transaction `xid`, which is
    /// known to have committed.
    #[must_use]
    pub fn saw(&self, xid: u64) -> bool {
        xid < self.xmin || (xid < self.xmax && self.running.binary_search(&xid).is_err())
    }
}

impl FromStr for SeenBy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("invalid snapshot {text:?}");
        let mut parts = text.splitn(3, ':');
        let mut number = || parts.next().and_then(|p| p.parse::<u64>().ok());
        let (xmin, xmax) = (number().ok_or_else(bad)?, number().ok_or_else(bad)?);
        let list = parts.next().ok_or_else(bad)?;
        let mut running = list
            .split(',')
            .filter(|part| !part.is_empty())
            .map(|part| part.parse::<u64>().map_err(|_| bad()))
            .collect::<Result<Vec<_>, _>>()?;
        running.sort_unstable();
        if xmin > xmax || running.iter().any(|xid| !(xmin..xmax).contains(xid)) {
            return Err(bad());
        }
        Ok(SeenBy { xmin, xmax, running })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test, a failed unwrap is the finding")]
mod tests {
    use super::*;

    #[test]
    fn knows_what_a_snapshot_saw() {
        let seen: SeenBy = "10:20:10,14,15".parse().unwrap();
        let saw: Vec<u64> = (8..23).filter(|xid| seen.saw(*xid)).collect();
        assert_eq!(saw, [8, 9, 11, 12, 13, 16, 17, 18, 19]);
        assert!("10:10:".parse::<SeenBy>().unwrap().saw(9));
        assert!(!"10:10:".parse::<SeenBy>().unwrap().saw(10));
    }

    #[test]
    fn rejects_other_text() {
        for bad in ["", "1", "1:2", "2:1:", "1:5:7", "x:1:", "1:2:3,"] {
            assert!(bad.parse::<SeenBy>().is_err(), "{bad:?}");
        }
    }
}
