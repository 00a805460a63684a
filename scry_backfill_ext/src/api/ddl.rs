//! The event trigger function: a schema change leaves a few bytes in the WAL,
//! and the extension is not dropped away from its jobs.
//!
//! It runs in a user's command and must not fail it, nor cost it anything: what
//! has changed is read by the decoder, at that place in the stream. Commands
//! on temporary objects leave nothing.

use pgrx::pg_sys::Oid;
use pgrx::spi::SpiError;
use pgrx::{pg_extern, pg_sys};

use crate::pg::{drop_guard, message, read, server, subtransaction};

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
    /// A materialized view was filled anew, or emptied.
    Refreshed(u32),
}

impl Note {
    /// The note in a message, if it is one.
    pub fn read(content: &[u8]) -> Option<Note> {
        match content {
            CHANGED => Some(Note::Changed),
            TYPE_CHANGED => Some(Note::TypeChanged),
            _ => {
                let relid = |prefix| std::str::from_utf8(content.strip_prefix(prefix)?).ok()?.parse().ok();
                relid(REWRITE).map(Note::Rewrite).or_else(|| relid(REFRESHED).map(Note::Refreshed))
            }
        }
    }

    /// The message that says so.
    pub fn write(self) -> Vec<u8> {
        match self {
            Note::Changed => CHANGED.to_vec(),
            Note::TypeChanged => TYPE_CHANGED.to_vec(),
            Note::Rewrite(relid) => [REWRITE, relid.to_string().as_bytes()].concat(),
            Note::Refreshed(relid) => [REFRESHED, relid.to_string().as_bytes()].concat(),
        }
    }
}

const CHANGED: &[u8] = b"schema";
const TYPE_CHANGED: &[u8] = b"schema type";
const REWRITE: &[u8] = b"rewrite ";
const REFRESHED: &[u8] = b"refresh ";

/// `scry_backfill.note_ddl()`.
#[pg_extern(sql = false)]
fn note_ddl(fcinfo: pg_sys::FunctionCallInfo) {
    let Some(event) = message::event_of(fcinfo) else {
        pgrx::error!("scry_backfill.note_ddl() is called by event triggers only")
    };
    if event == c"ddl_command_start" {
        return drop_guard::before_command(fcinfo);
    }
    if server::wal_level() != server::WalLevel::Logical {
        return;
    }
    let note = if event == c"table_rewrite" {
        subtransaction::rolled_back(rewritten, |_| None).map(Note::Rewrite)
    } else {
        let seek = if event == c"sql_drop" { dropped } else { changed };
        // Not to know is to note.
        let unknown = Some(Note::TypeChanged);
        subtransaction::rolled_back(|| seek().unwrap_or(unknown), |_| unknown)
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

/// What a command has done to anything lasting.
fn changed() -> Result<Option<Note>, SpiError> {
    // What changes a type first.
    const SQL: &str = "SELECT c.command_tag OPERATOR(pg_catalog.=) 'ALTER TYPE', \
            CASE WHEN c.command_tag OPERATOR(pg_catalog.=) 'REFRESH MATERIALIZED VIEW' THEN c.objid END \
        FROM pg_catalog.pg_event_trigger_ddl_commands() AS c \
        WHERE c.schema_name IS NULL OR c.schema_name OPERATOR(pg_catalog.<>) 'pg_temp' ORDER BY 1 DESC LIMIT 1";
    read::rows(SQL, &[], |mut rows| {
        let Some(row) = rows.next() else { return Ok(None) };
        let refreshed = row.get::<Oid>(2)?.map(|oid| Note::Refreshed(oid.to_u32()));
        let of_type = row.get::<bool>(1)? == Some(true);
        Ok(Some(refreshed.unwrap_or(if of_type { Note::TypeChanged } else { Note::Changed })))
    })
}

/// Whether it has dropped anything lasting.
fn dropped() -> Result<Option<Note>, SpiError> {
    const SQL: &str =
        "SELECT FROM pg_catalog.pg_event_trigger_dropped_objects() AS o WHERE NOT o.is_temporary LIMIT 1";
    read::rows(SQL, &[], |mut rows| Ok(rows.next().map(|_| Note::Changed)))
}

#[cfg(test)]
mod tests {
    use super::Note;

    #[test]
    fn reads_what_it_writes() {
        for note in [Note::Changed, Note::TypeChanged, Note::Rewrite(16_384), Note::Refreshed(16_385)] {
            assert_eq!(Note::read(&note.write()), Some(note));
        }
    }

    #[test]
    fn rejects_other_messages() {
        for content in [
            &b""[..],
            b"schema ",
            b"schema typ",
            b"rewrite",
            b"rewrite x",
            b"rewrite 99999999999",
            b"refresh",
            b"{}",
        ] {
            assert_eq!(Note::read(content), None);
        }
    }
}
