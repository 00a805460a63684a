//! The event trigger function: a schema change leaves a few bytes in the WAL.
//!
//! It runs in a user's command and must not fail it, nor cost it anything: what
//! has changed is read by the decoder, at that place in the stream. Commands
//! on temporary objects leave nothing.

use pgrx::pg_sys::Oid;
use pgrx::spi::SpiError;
use pgrx::{pg_extern, pg_sys};

use crate::pg::{message, read, server, subtransaction};

/// A message about the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// Something lasting was made, changed or dropped.
    Changed,
    /// A table is about to be rewritten: its rows get other values.
    Rewrite(u32),
}

impl Note {
    /// The note in a message, if it is one.
    pub fn read(content: &[u8]) -> Option<Note> {
        match content {
            CHANGED => Some(Note::Changed),
            _ => {
                let relid = std::str::from_utf8(content.strip_prefix(REWRITE)?).ok()?;
                relid.parse().ok().map(Note::Rewrite)
            }
        }
    }

    fn write(self) -> Vec<u8> {
        match self {
            Note::Changed => CHANGED.to_vec(),
            Note::Rewrite(relid) => [REWRITE, relid.to_string().as_bytes()].concat(),
        }
    }
}

const CHANGED: &[u8] = b"schema";
const REWRITE: &[u8] = b"rewrite ";

/// `scry_backfill.note_ddl()`.
#[pg_extern(sql = false)]
fn note_ddl(fcinfo: pg_sys::FunctionCallInfo) {
    let Some(event) = message::event_of(fcinfo) else {
        pgrx::error!("scry_backfill.note_ddl() is called by event triggers only")
    };
    if server::wal_level() != server::WalLevel::Logical {
        return;
    }
    let note = if event == c"table_rewrite" {
        subtransaction::rolled_back(rewritten, |_| None).map(Note::Rewrite)
    } else {
        let query = if event == c"sql_drop" { ANY_DROPPED } else { ANY_CHANGED };
        // Not to know is to note.
        let lasting = subtransaction::rolled_back(|| anything_lasting(query).unwrap_or(true), |_| true);
        lasting.then_some(Note::Changed)
    };
    if let Some(note) = note {
        message::emit(&note.write());
    }
}

/// The table that is about to be rewritten.
fn rewritten() -> Option<u32> {
    let oid = read::one::<Oid>("SELECT pg_catalog.pg_event_trigger_table_rewrite_oid()", &[]);
    oid.ok().flatten().map(Oid::to_u32)
}

fn anything_lasting(query: &str) -> Result<bool, SpiError> {
    read::rows(query, &[], |rows| Ok(!rows.is_empty()))
}

const ANY_CHANGED: &str = "SELECT FROM pg_catalog.pg_event_trigger_ddl_commands() AS c \
    WHERE c.schema_name IS NULL OR c.schema_name OPERATOR(pg_catalog.<>) 'pg_temp' LIMIT 1";
const ANY_DROPPED: &str =
    "SELECT FROM pg_catalog.pg_event_trigger_dropped_objects() AS o WHERE NOT o.is_temporary LIMIT 1";

#[cfg(test)]
mod tests {
    use super::Note;

    #[test]
    fn reads_what_it_writes() {
        for note in [Note::Changed, Note::Rewrite(16_384)] {
            assert_eq!(Note::read(&note.write()), Some(note));
        }
    }

    #[test]
    fn rejects_other_messages() {
        for content in [&b""[..], b"schema ", b"rewrite", b"rewrite x", b"rewrite 99999999999", b"{}"] {
            assert_eq!(Note::read(content), None);
        }
    }
}
