//! Reading by SPI without a transaction ID.
//!
//! `Spi::get_one` and `SpiClient::update` assign one, and the creation of a
//! slot waits for every transaction that has one: a function that only reads,
//! or waits for a worker, must not. What is read here is also as new as can
//! be: the statement's own snapshot may be older than what it waited for.

use pgrx::datum::{DatumWithOid, FromDatum, IntoDatum};
use pgrx::pg_sys;
use pgrx::spi::{self, Spi, SpiTupleTable};

/// Runs a query that reads, under a snapshot taken now, and hands its rows to `read`.
pub fn rows<R>(
    sql: &str,
    args: &[DatumWithOid<'_>],
    read: impl FnOnce(SpiTupleTable<'_>) -> Result<R, spi::Error>,
) -> Result<R, spi::Error> {
    // SAFETY: inside a transaction; popped below, or by the abort if the query fails.
    unsafe { pg_sys::PushActiveSnapshot(newest_snapshot()) };
    let result = Spi::connect(|client| read(client.select(sql, None, args)?));
    // SAFETY: the one pushed above; SPI leaves the stack as it found it.
    unsafe { pg_sys::PopActiveSnapshot() };
    result
}

/// The one value of a query that reads; `None` for NULL or no row.
pub fn one<T: FromDatum + IntoDatum>(sql: &str, args: &[DatumWithOid<'_>]) -> Result<Option<T>, spi::Error> {
    rows(sql, args, |rows| if rows.is_empty() { Ok(None) } else { rows.first().get::<T>(1) })
}

/// A snapshot of now or, while a place in the WAL is being decoded, of that place.
unsafe fn newest_snapshot() -> pg_sys::Snapshot {
    // SAFETY: inside a transaction; the server has no "latest" snapshot while it decodes (snapmgr.c).
    unsafe {
        if pg_sys::HistoricSnapshotActive() {
            pg_sys::GetTransactionSnapshot()
        } else {
            pg_sys::GetLatestSnapshot()
        }
    }
}
