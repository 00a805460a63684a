//! The event trigger function: a schema change leaves a few bytes in the WAL.
//!
//! It runs in a user's command and must not fail it, nor cost it anything: what
//! has changed is read by the decoder, at that place in the stream. Commands
//! on temporary objects leave nothing.

use pgrx::spi::SpiError;
use pgrx::{pg_extern, pg_sys};

use crate::pg::{message, read, server, subtransaction};

/// What stands in the message.
pub const SCHEMA_CHANGED: &[u8] = b"schema";

/// `scry_backfill.note_ddl()`.
#[pg_extern(sql = false)]
fn note_ddl(fcinfo: pg_sys::FunctionCallInfo) {
    let Some(event) = message::event_of(fcinfo) else {
        pgrx::error!("scry_backfill.note_ddl() is called by event triggers only")
    };
    if server::wal_level() != server::WalLevel::Logical {
        return;
    }
    let query = if event == c"sql_drop" { DROPPED } else { CHANGED };
    // Not to know is to note.
    let lasting = subtransaction::rolled_back(|| anything_lasting(query).unwrap_or(true), |_| true);
    if lasting {
        message::emit(SCHEMA_CHANGED);
    }
}

fn anything_lasting(query: &str) -> Result<bool, SpiError> {
    read::rows(query, &[], |rows| Ok(!rows.is_empty()))
}

const CHANGED: &str = "SELECT FROM pg_catalog.pg_event_trigger_ddl_commands() AS c \
    WHERE c.schema_name IS NULL OR c.schema_name OPERATOR(pg_catalog.<>) 'pg_temp' LIMIT 1";
const DROPPED: &str =
    "SELECT FROM pg_catalog.pg_event_trigger_dropped_objects() AS o WHERE NOT o.is_temporary LIMIT 1";
