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
    /// The same, of a type: a new label of an enum can be used on the shadow only after the
    /// transaction in which it came there.
    TypeChanged,
    /// A table is about to be rewritten: its rows get other values.
    Rewrite(u32),
}

impl Note {
    /// The note in a message, if it is one.
    pub fn read(content: &[u8]) -> Option<Note> {
        match content {
            CHANGED => Some(Note::Changed),
            TYPE_CHANGED => Some(Note::TypeChanged),
            _ => {
                let relid = std::str::from_utf8(content.strip_prefix(REWRITE)?).ok()?;
                relid.parse().ok().map(Note::Rewrite)
            }
        }
    }

    /// The message that says so.
    pub fn write(self) -> Vec<u8> {
        match self {
            Note::Changed => CHANGED.to_vec(),
            Note::TypeChanged => TYPE_CHANGED.to_vec(),
            Note::Rewrite(relid) => [REWRITE, relid.to_string().as_bytes()].concat(),
        }
    }
}

const CHANGED: &[u8] = b"schema";
const TYPE_CHANGED: &[u8] = b"schema type";
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
        let unknown = Some(Note::TypeChanged);
        subtransaction::rolled_back(|| anything_lasting(query).unwrap_or(unknown), |_| unknown)
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

fn anything_lasting(query: &str) -> Result<Option<Note>, SpiError> {
    let of_type = read::rows(query, &[], |mut rows| rows.next().map(|row| row.get::<bool>(1)).transpose())?;
    Ok(of_type.map(|of_type| if of_type == Some(true) { Note::TypeChanged } else { Note::Changed }))
}

/// Of a type those that change one, first.
const ANY_CHANGED: &str = "SELECT c.command_tag OPERATOR(pg_catalog.=) 'ALTER TYPE' \
    FROM pg_catalog.pg_event_trigger_ddl_commands() AS c \
    WHERE c.schema_name IS NULL OR c.schema_name OPERATOR(pg_catalog.<>) 'pg_temp' ORDER BY 1 DESC LIMIT 1";
const ANY_DROPPED: &str =
    "SELECT false FROM pg_catalog.pg_event_trigger_dropped_objects() AS o WHERE NOT o.is_temporary LIMIT 1";

#[cfg(test)]
mod tests {
    use super::Note;

    #[test]
    fn reads_what_it_writes() {
        for note in [Note::Changed, Note::TypeChanged, Note::Rewrite(16_384)] {
            assert_eq!(Note::read(&note.write()), Some(note));
        }
    }

    #[test]
    fn rejects_other_messages() {
        for content in
            [&b""[..], b"schema ", b"schema typ", b"rewrite", b"rewrite x", b"rewrite 99999999999", b"{}"]
        {
            assert_eq!(Note::read(content), None);
        }
    }
}
