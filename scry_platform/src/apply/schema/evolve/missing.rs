//! The value that rows older than a column have: `attmissingval` as a literal.
//!
//! The server prints it as an array of one element. The element's text is taken out of it and
//! given to the column's type: an array literal of the type would not do, for a column that is
//! an array itself.

use crate::apply::schema::quote::literal;

/// `'value'::type`, to be a DEFAULT; None if the text is not that of an array of one.
pub(super) fn literal_of(missing: &str, sql_type: &str) -> Option<String> {
    Some(format!("{}::{sql_type}", literal(&element(missing)?).trim_start()))
}

/// The element of an array of one, as its type printed it.
fn element(array: &str) -> Option<String> {
    let inner = array.strip_prefix('{')?.strip_suffix('}')?;
    let Some(quoted) = inner.strip_prefix('"') else {
        let plain = !inner.is_empty() && !inner.contains(['"', '{', '}', '\\']) && inner != "NULL";
        return plain.then(|| inner.to_owned());
    };
    let mut text = String::with_capacity(quoted.len());
    let mut chars = quoted.chars();
    loop {
        match chars.next()? {
            '"' => break,
            '\\' => text.push(chars.next()?),
            other => text.push(other),
        }
    }
    chars.next().is_none().then_some(text)
}

#[cfg(test)]
mod tests {
    use super::{element, literal_of};

    #[test]
    fn takes_the_element_out() {
        let cases = [
            ("{5}", Some("5")),
            ("{2020-01-01}", Some("2020-01-01")),
            ("{\"a b\"}", Some("a b")),
            ("{\"\"}", Some("")),
            ("{\"NULL\"}", Some("NULL")),
            ("{\"{1,2}\"}", Some("{1,2}")),
            ("{\"a\\\"b\\\\c\"}", Some("a\"b\\c")),
            ("{NULL}", None),
            ("{}", None),
            ("{\"a\",\"b\"}", None),
            ("{\"a}", None),
            ("5", None),
        ];
        for (array, expected) in cases {
            assert_eq!(element(array).as_deref(), expected, "{array}");
        }
    }

    #[test]
    fn writes_a_literal() {
        assert_eq!(literal_of("{it's}", "text").as_deref(), Some("'it''s'::text"));
        assert_eq!(literal_of("{\"{1,2}\"}", "integer[]").as_deref(), Some("'{1,2}'::integer[]"));
    }
}
