//! Statements that must touch one row: what the applier and the library in its server agree on.
//!
//! The applier marks such a statement in its text; the server's side, where it is installed, fails a marked
//! statement that has touched no row or more than one (decision 32). Neither is sent to anybody else.

/// With this a marked statement begins.
pub const MARK: &str = "/* one row */ ";

const BEFORE: &str = "a statement for one row has touched ";

/// What the server says of a marked statement that has touched so many.
#[must_use]
pub fn message(touched: u64) -> String {
    format!("{BEFORE}{touched}")
}

/// How many rows a marked statement has touched, if that is what an error says.
#[must_use]
pub fn touched(message: &str) -> Option<u64> {
    message.strip_prefix(BEFORE)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        assert_eq!([0, 7, u64::MAX].map(|n| touched(&message(n))), [0, 7, u64::MAX].map(Some));
        assert_eq!(touched("relation \"t\" does not exist"), None);
    }
}
