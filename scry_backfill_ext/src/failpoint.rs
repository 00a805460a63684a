//! Failpoints: named steps at which a test makes a worker fail.
//!
//! `scry_backfill.failpoint = 'step=action'`, or `'step=action@3'` for the third
//! time a process comes by; actions are `error`, `panic` (which the border turns
//! into an error), `exit` (a FATAL of the worker's own) and `sleep`. A hit stands
//! in the server's log. Nothing here ends a process by a signal.
//!
//! Invariant: without the feature `failpoints`, which only test builds have,
//! there is no such setting, and a step is nothing.

/// The steps, in the order of the path.
pub mod step {
    /// The slot is created, and nothing is read yet.
    pub const SLOT_CREATED: &str = "slot_created";
    /// The copy's snapshot is exported.
    pub const SNAPSHOT_EXPORTED: &str = "snapshot_exported";
    /// A chunk's rows are read and handed over; its end is not.
    pub const CHUNK_READ: &str = "chunk_read";
    /// A chunk's end is handed over; its receipt is due.
    pub const CHUNK_SENT: &str = "chunk_sent";
    /// Every chunk has its receipt; the shadow is to be completed.
    pub const COPY_DONE: &str = "copy_done";
    /// The WAL has been read to its end; the decoder's reader asks for more.
    pub const WAL_AWAITED: &str = "wal_awaited";
    /// The decoder gives a transaction's begin.
    pub const BEGUN: &str = "begun";
    /// The decoder gives a row's change.
    pub const CHANGED: &str = "changed";
    /// The decoder gives a truncation.
    pub const TRUNCATED: &str = "truncated";
    /// The decoder gives a message of the extension's own.
    pub const TOLD: &str = "told";
    /// The decoder gives anything of a transaction in progress.
    pub const PIECE: &str = "piece";
    /// A transaction is decoded.
    pub const DECODED: &str = "decoded";
    /// A batch is handed over.
    pub const HANDED_OVER: &str = "handed_over";
    /// A confirmation has come; the slot does not know yet.
    pub const CONFIRM_RECEIVED: &str = "confirm_received";
    /// The slot is confirmed, in memory; it is not saved.
    pub const SLOT_CONFIRMED: &str = "slot_confirmed";
}

#[cfg(feature = "failpoints")]
pub use on::{define, hit};

/// Defines the setting: there is none in this build.
#[cfg(not(feature = "failpoints"))]
pub fn define() {}

/// A step of the path: nothing in this build.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn hit(_step: &str) {}

#[cfg(feature = "failpoints")]
mod on {
    use std::cell::Cell;
    use std::ffi::CString;
    use std::time::{Duration, Instant};

    use pgrx::pg_sys::panic::ErrorReport;
    use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PgLogLevel, PgSqlErrorCode};

    use crate::pg::latch;

    static FAILPOINT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

    thread_local! {
        /// How often this process has come by the step that is set.
        static COME_BY: Cell<u32> = const { Cell::new(0) };
    }

    /// How long a step sleeps.
    const SLEEP: Duration = Duration::from_secs(1);

    /// Defines the setting.
    pub fn define() {
        GucRegistry::define_string_guc(
            c"scry_backfill.failpoint",
            c"Makes a worker fail at a step, for tests.",
            c"step=action[@time]; actions: error, panic, exit, sleep.",
            &FAILPOINT,
            GucContext::Sighup,
            GucFlags::SUPERUSER_ONLY | GucFlags::NO_SHOW_ALL,
        );
    }

    /// A step of the path: does what the test wants there.
    pub fn hit(step: &str) {
        let Some(setting) = FAILPOINT.get() else { return };
        let Ok(setting) = setting.to_str() else { return };
        let Some(wanted) = setting.strip_prefix(step).and_then(|rest| rest.strip_prefix('=')) else { return };
        let (action, time) = wanted.split_once('@').unwrap_or((wanted, "1"));
        let come_by = COME_BY.get() + 1;
        COME_BY.set(come_by);
        if time.parse() != Ok(come_by) {
            return;
        }
        pgrx::log!("failpoint {step}: {action}");
        match action {
            "sleep" => {
                let until = Instant::now() + SLEEP;
                while Instant::now() < until {
                    latch::wait(until.saturating_duration_since(Instant::now()));
                }
            }
            "panic" => panic!("failpoint {step}"),
            "exit" => {
                let code = PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN;
                let report = ErrorReport::new(code, format!("failpoint {step} was hit"), "scry_backfill");
                report.report(PgLogLevel::FATAL);
            }
            _ => pgrx::error!("failpoint {step} was hit"),
        }
    }
}
