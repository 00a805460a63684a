//! Rows into a table of the shadow, in the shadow's own server.
//!
//! ```text
//! CopyData ─► rows ─► form (value: numeric, array, jsonb) ─► page ─► the table's file
//! ```
//!
//! The platform calls `load_rows` where it would run `COPY … (FORMAT binary)`, and sends the same
//! rows; to the driver both look the same. What differs is the price: values of common types are
//! written as they are stored, without a function call and an allocation each, tuples go into pages
//! without the server's buffers where the table is new, and jsonb may come as the source stores it.
//!
//! Invariants: nothing is taken that the server would not have written itself: each value is checked
//! as its type's receive function checks it, or goes through that function; bytes that name lengths
//! and places (jsonb) are checked whole. A table that needs more than rows (triggers, computed
//! columns) is not opened. What it does not do: run on production, where nothing calls it.

mod array;
pub(crate) mod form;
mod jsonb;
mod numeric;
pub(crate) mod page;
mod rows;
#[cfg(test)]
mod tests;
pub(crate) mod value;

use std::cell::Cell;

use pgrx::pg_sys::Oid;
use pgrx::{PgSqlErrorCode, pg_extern};

use crate::pg::copy_in::CopyIn;
use crate::pg::report::raise;
use crate::pg::table_writer::TableWriter;
use crate::pg::{answers, touched};
use form::{Former, Refused};
use page::Page;
use rows::{Bad, Row, Rows};

thread_local! {
    /// Rows of the session's last load.
    static LOADED: Cell<i64> = const { Cell::new(0) };
}

/// Whether rows of these columns can be loaded into the table as it is now.
#[pg_extern(sql = false)]
fn can_load(relation: Oid, columns: Vec<String>) -> bool {
    if cfg!(target_endian = "big") {
        return false;
    }
    TableWriter::open(relation, &columns).map(|writer| writer.finish(0, 0)).is_ok()
}

/// Takes rows by the COPY protocol.
#[pg_extern(sql = false)]
fn load_rows(relation: Oid, columns: Vec<String>) {
    let writer = match TableWriter::open(relation, &columns) {
        Ok(writer) => writer,
        Err(reason) => raise(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("cannot load rows into the table with oid {}: {reason}", relation.to_u32()),
        ),
    };
    let mut load = Load::new(writer);
    let mut rows = Rows::new(columns.len());
    let mut input = CopyIn::begin();
    while let Some(piece) = input.next() {
        if let Err(bad) = rows.push(piece, |row| load.take(row)) {
            bad_rows(&bad, &load);
        }
    }
    if !rows.is_complete() {
        bad_rows(&Bad::Malformed, &load);
    }
    LOADED.set(load.finish());
}

/// Rows of the session's last load.
#[pg_extern(sql = false)]
fn rows_loaded() -> i64 {
    LOADED.get()
}

/// From here on a marked statement of this session fails unless it touches one row, and answers to
/// statements that came together leave together.
#[pg_extern(sql = false)]
fn serve_applier() {
    touched::hold();
    answers::keep_together();
}

/// One load of a table.
struct Load {
    writer: TableWriter,
    former: Former,
    pages: Pages,
    rows: u64,
    toasted: Vec<u8>,
}

impl Load {
    fn new(writer: TableWriter) -> Load {
        let former = Former::new(writer.columns().to_vec(), writer.xid(), writer.is_frozen());
        let pages = Pages { page: Page::new(), number: 0, spare: writer.spare() };
        Load { writer, former, pages, rows: 0, toasted: Vec::new() }
    }

    #[inline]
    fn take(&mut self, row: Row<'_>) {
        let Load { writer, former, pages, rows, toasted } = self;
        match former.form(row, writer) {
            Ok(tuple) => {
                writer.check(tuple);
                if !writer.takes_pages() {
                    writer.insert(tuple);
                } else if writer.toast(tuple, toasted) {
                    pages.add(toasted, writer);
                } else {
                    pages.add(tuple, writer);
                }
            }
            Err(refused) => refuse(refused, writer, *rows + 1),
        }
        writer.after_row();
        *rows += 1;
    }

    /// Ends with all rows in the table; returns how many.
    fn finish(mut self) -> i64 {
        self.pages.finish(&mut self.writer);
        self.writer.finish(self.rows, self.pages.number);
        self.rows.cast_signed()
    }
}

/// The page that is being filled.
struct Pages {
    page: Box<Page>,
    number: u32,
    spare: usize,
}

impl Pages {
    #[inline]
    fn add(&mut self, tuple: &[u8], writer: &mut TableWriter) {
        if self.page.add(tuple, self.number, self.spare) {
            return;
        }
        self.finish(writer);
        if !self.page.add(tuple, self.number, self.spare) {
            raise(
                PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format!("row is too big for a page of table \"{}\": size {}", writer.name(), tuple.len()),
            )
        }
    }

    /// Writes what has been filled.
    fn finish(&mut self, writer: &mut TableWriter) {
        if !self.page.is_empty() {
            writer.append(&mut self.page, self.number);
            self.number += 1;
            self.page.clear();
        }
    }
}

fn refuse(refused: Refused, writer: &TableWriter, row: u64) -> ! {
    let table = writer.name();
    match refused {
        Refused::Null(column) => raise(
            PgSqlErrorCode::ERRCODE_NOT_NULL_VIOLATION,
            format!(
                "null value in column \"{}\" of relation \"{table}\" violates not-null constraint, row {row}",
                writer.column_name(column)
            ),
        ),
        Refused::Jsonb(column) => raise(
            PgSqlErrorCode::ERRCODE_INVALID_BINARY_REPRESENTATION,
            format!(
                "invalid stored jsonb in column \"{}\" of relation \"{table}\", row {row}",
                writer.column_name(column)
            ),
        ),
    }
}

fn bad_rows(bad: &Bad, load: &Load) -> ! {
    let (code, what) = match bad {
        Bad::Malformed => (PgSqlErrorCode::ERRCODE_BAD_COPY_FILE_FORMAT, "malformed"),
        Bad::TooLong => (PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED, "too long"),
    };
    raise(code, format!("rows for table \"{}\" are {what} after row {}", load.writer.name(), load.rows))
}
