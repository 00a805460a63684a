//! Ranges of keys: the query that finds them, the same on both sides, and how they read.
//!
//! Rows that stand next to each other in the order of the key are one range, told by its first
//! and its last key.

/// Ranges that are told of a table and side.
pub const RANGES_MAX: usize = 20;
/// Characters of a key that are told.
const KEY_CHARS_MAX: usize = 120;

/// The query: `$1` is a `text[]` of the rows' places (ctid); `table` and `keys`, not empty, stand
/// quoted. It gives the first and the last key of each range as text, and one range more than are told.
#[must_use]
pub fn sql(table: &str, keys: &[String]) -> String {
    let keys = keys.join(", ");
    format!(
        "SELECT (pg_catalog.array_agg(d.key ORDER BY d.n))[1], (pg_catalog.array_agg(d.key ORDER BY d.n DESC))[1] \
         FROM (SELECT o.n, ROW({keys})::pg_catalog.text AS key, \
                   o.n OPERATOR(pg_catalog.-) pg_catalog.row_number() OVER (ORDER BY o.n) AS run \
               FROM (SELECT {keys}, ctid AS scry_place, pg_catalog.row_number() OVER (ORDER BY {keys}) AS n \
                     FROM ONLY {table}) AS o \
               WHERE o.scry_place OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.text[]::pg_catalog.tid[])) AS d \
         GROUP BY d.run ORDER BY pg_catalog.min(d.n) LIMIT {}",
        RANGES_MAX + 1
    )
}

/// A range in words.
#[must_use]
pub fn words(first: &str, last: &str) -> String {
    if first == last { cut(first) } else { format!("{}..{}", cut(first), cut(last)) }
}

fn cut(key: &str) -> String {
    if key.chars().count() <= KEY_CHARS_MAX {
        return key.to_owned();
    }
    let start: String = key.chars().take(KEY_CHARS_MAX).collect();
    format!("{start}...")
}

/// A list of ranges in words: those that are told, and that there are more.
#[must_use]
pub fn list(ranges: &[String]) -> String {
    let more = if ranges.len() > RANGES_MAX { ", ..." } else { "" };
    let told = ranges.get(..RANGES_MAX).unwrap_or(ranges);
    format!("{}{more}", told.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_in_words() {
        assert_eq!(words("(1)", "(1)"), "(1)");
        assert_eq!(words("(1)", "(5)"), "(1)..(5)");
        assert_eq!(words(&"x".repeat(200), "(5)").len(), KEY_CHARS_MAX + 3 + 2 + 3);
        let many: Vec<String> = (0..=RANGES_MAX).map(|n| n.to_string()).collect();
        assert!(list(&many).ends_with("19, ...") && list(&many[..2]) == "0, 1");
    }
}
