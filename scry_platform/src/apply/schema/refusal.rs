//! What the shadow's refusal of a statement means for the rest.
//!
//! ```text
//! refusal ─┬─ says nothing about the statement (disk, connection, lock) ─► all ends, and is tried again
//!          ├─ of a part that no row needs ────────────────────────────────► that part is left out
//!          └─ of a table ─┬─ the shadow's owner can mend it at once ──────► all waits for that
//!                         └─ the shadow cannot do it ─────────────────────► the table is absent
//! ```
//!
//! What it does not do: run anything, or write down who is absent (see `apply::absent`).

use scry_wire::catalog::{Entry, Object};
use tokio_postgres::error::SqlState;

/// A table of the job that the shadow does not have, or not in the shape that its rows need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absent {
    /// The table on the source.
    pub relid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// It has no rows of its own.
    pub partitioned: bool,
    /// What the shadow says.
    pub reason: String,
}

impl Absent {
    /// The table behind `object`, if it is one.
    pub(super) fn of(object: &Object, reason: String) -> Option<Self> {
        let Entry::Table(table) = &object.entry else { return None };
        Some(Self {
            relid: object.oid,
            schema: table.schema.clone(),
            name: table.name.clone(),
            partitioned: table.partitioned,
            reason,
        })
    }
}

/// Errors that say nothing about the statement: it may well work at another time.
pub(super) fn ends_everything(code: &SqlState) -> bool {
    let class = code.code().get(..2).unwrap_or_default();
    matches!(class, "08" | "25" | "40" | "53" | "57" | "58" | "F0")
        || matches!(code.code(), "XX001" | "XX002")
        || *code == SqlState::LOCK_NOT_AVAILABLE
}

/// Something else on the shadow has the name: its owner's, who can rename it.
pub(super) fn is_taken(code: &str) -> bool {
    matches!(code, "42P04" | "42P06" | "42P07" | "42701" | "42710" | "42712" | "42723")
}

/// Whether the shadow cannot do to a table what `part` asks, whatever its owner does to that
/// table. Otherwise its owner is in the way: with something of the same name, with objects
/// that depend on the table (`detail` lists them), with the table taken away or changed. Rows
/// that do not fit are a matter of the job's policy: `rows_too`.
pub(super) fn is_beyond(part: &str, code: &str, detail: &str, rows_too: bool) -> bool {
    let class = code.get(..2).unwrap_or_default();
    if class == "XX" || is_taken(code) {
        return false;
    }
    match part {
        "create" => true,
        "add column" | "type" | "expression" | "not null" => match class {
            "42" => !matches!(code, "42501" | "42P01" | "42703"),
            // A schema that is not there.
            "3F" => true,
            "0A" => detail.is_empty(),
            "54" => true,
            "22" | "23" => rows_too,
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_no_word_about_a_table() {
        for code in ["53100", "57P01", "40P01", "55P03", "08006", "XX001"] {
            assert!(ends_everything(&SqlState::from_code(code)), "{code}");
        }
        for code in ["42704", "42501", "23505", "XX000", "0A000"] {
            assert!(!ends_everything(&SqlState::from_code(code)), "{code}");
        }
    }

    #[test]
    fn tells_what_the_owner_can_mend_from_what_cannot_be_done() {
        let absent = |part: &str, code: &str| is_beyond(part, code, "", false);
        assert!(absent("create", "42704") && absent("create", "42501") && absent("create", ""));
        assert!(!absent("create", "42P07") && !absent("create", "XX000"));
        assert!(absent("add column", "42704") && absent("type", "42846") && absent("type", "3F000"));
        for code in ["42701", "42501", "2BP01", "42P01", "23502"] {
            assert!(!absent("add column", code), "{code}");
        }
        assert!(is_beyond("not null", "23502", "", true));
        assert!(!is_beyond("type", "0A000", "view v depends on it", true));
        assert!(!absent("rename column", "42703"));
    }
}
