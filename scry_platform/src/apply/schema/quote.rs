//! Quoting of names and values for DDL: the only place where data becomes SQL.
//!
//! Every name is quoted, also where it need not be, so that no list of reserved words
//! matters. A NUL cannot be quoted; the driver refuses a statement that holds one.

use postgres_protocol::escape::{escape_identifier, escape_literal};

/// A name as an identifier.
pub fn ident(name: &str) -> String {
    escape_identifier(name)
}

/// A name in a schema.
pub fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", ident(schema), ident(name))
}

/// A value as a string literal.
pub fn literal(value: &str) -> String {
    escape_literal(value)
}

/// Names as a list of identifiers.
pub fn ident_list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(ident).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::{ident, literal, qualified};

    #[test]
    fn names_stay_data() {
        assert_eq!(ident("x\"; drop table y;--"), "\"x\"\"; drop table y;--\"");
        assert_eq!(qualified("a.b", "c\nd"), "\"a.b\".\"c\nd\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\'b").trim(), "E'a\\\\''b'");
    }
}
