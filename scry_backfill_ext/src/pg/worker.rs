//! A background worker's beginning and end.

use std::sync::atomic::Ordering::AcqRel;

use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgMemoryContexts, PgTryBuilder, pg_guard, pg_sys};

use super::shared::{self, JobLive, Process};
use super::{ffi, latch};

/// Installs the server's own signal handlers and lets signals in.
///
/// SIGTERM is `die`: the next interrupt check ends the process with FATAL, so
/// that termination, shutdown and DROP DATABASE work wherever it waits.
pub fn begin_signals() {
    // SAFETY: called once at the start of a background worker's main function.
    unsafe {
        set_handler(pg_sys::SIGTERM, ffi::die);
        set_handler(pg_sys::SIGHUP, ffi::SignalHandlerForConfigReload);
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

unsafe fn set_handler(signal: u32, handler: unsafe extern "C-unwind" fn(i32)) {
    // SAFETY: handler is one of the server's own, async-signal-safe handlers.
    unsafe { super::compat::pqsignal(signal as i32, handler) }
}

/// Connects to `database` as the bootstrap superuser, and fixes the settings
/// that shape text output, whatever the role or database says (FAULTS.md, G3).
pub fn connect(database: u32) {
    // SAFETY: first thing a worker with a database connection does.
    unsafe {
        pg_sys::BackgroundWorkerInitializeConnectionByOid(pg_sys::Oid::from(database), pg_sys::InvalidOid, 0);
    }
    for (name, value) in SESSION {
        set_option(name, value);
    }
}

/// Settings of every worker's session.
const SESSION: [(&std::ffi::CStr, &std::ffi::CStr); 19] = [
    (c"client_encoding", c"UTF8"),
    (c"search_path", c""),
    (c"DateStyle", c"ISO"),
    (c"IntervalStyle", c"postgres"),
    (c"TimeZone", c"UTC"),
    (c"extra_float_digits", c"3"),
    (c"bytea_output", c"hex"),
    (c"xmloption", c"content"),
    (c"lc_monetary", c"C"),
    (c"lc_numeric", c"C"),
    (c"statement_timeout", c"0"),
    (c"lock_timeout", c"0"),
    // What is noted here must be on disk before the slot moves past it; no standby is waited for.
    (c"synchronous_commit", c"local"),
    (c"default_transaction_isolation", c"read committed"),
    (c"default_transaction_read_only", c"off"),
    (c"max_parallel_workers_per_gather", c"0"),
    (c"idle_in_transaction_session_timeout", c"0"),
    (c"row_security", c"off"),
    (c"synchronize_seqscans", c"off"),
];

/// Sets a setting for this process.
pub fn set_option(name: &std::ffi::CStr, value: &std::ffi::CStr) {
    // SAFETY: both are valid C strings; raises ERROR on bad values, caught at the border.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_SESSION,
        );
    }
}

/// A setting's value, if the server has it.
pub fn option(name: &std::ffi::CStr) -> Option<String> {
    // SAFETY: missing_ok; the text is copied before anything can change it.
    unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        (!value.is_null()).then(|| std::ffi::CStr::from_ptr(value).to_string_lossy().into_owned())
    }
}

/// Announces this process and takes the announcement back at its end, however
/// it ends short of a crash.
pub fn announce_until_exit(place: &'static Process, job: Option<&'static JobLive>) {
    latch::announce(place);
    let at_exit = AtExit { place, job };
    AT_EXIT.set(Some(at_exit));
    // SAFETY: the callback outlives the process.
    unsafe { pg_sys::before_shmem_exit(Some(on_exit), pg_sys::Datum::from(0)) }
}

#[derive(Clone, Copy)]
struct AtExit {
    place: &'static Process,
    job: Option<&'static JobLive>,
}

thread_local! {
    static AT_EXIT: std::cell::Cell<Option<AtExit>> = const { std::cell::Cell::new(None) };
}

#[pg_guard]
unsafe extern "C-unwind" fn on_exit(_code: i32, _arg: pg_sys::Datum) {
    if let Some(at_exit) = AT_EXIT.take() {
        if let Some(job) = at_exit.job {
            wake_up(job);
        }
        latch::retire(at_exit.place);
        latch::wake(&shared::live().launcher);
    }
}

/// Says that the stream worker of `job` sleeps: the next commit wakes it.
pub fn fall_asleep(job: &JobLive) {
    if !job.sleeping.swap(true, AcqRel) {
        shared::live().sleepers.fetch_add(1, AcqRel);
    }
}

/// Says that it no longer does. Returns whether it did.
pub fn wake_up(job: &JobLive) -> bool {
    let slept = job.sleeping.swap(false, AcqRel);
    if slept {
        shared::live().sleepers.fetch_sub(1, AcqRel);
    }
    slept
}

/// Runs `work` with the memory that lives as long as the process: what the
/// server allocates for its caller there outlives the transaction, and the
/// decoder's callback, that `work` may stand in. The handle of a background
/// worker is such a thing (bgworker.c, `RegisterDynamicBackgroundWorker`).
pub fn in_lasting_memory<R>(work: impl FnOnce() -> R) -> R {
    // SAFETY: this context is never reset. An error on the way sets a context of its own when it
    // is caught, and otherwise ends the process.
    unsafe { PgMemoryContexts::TopMemoryContext.switch_to(|_| work()) }
}

/// Ends this process now, wherever it is: the server's exit callbacks give
/// back slot, locks and memory. 0: nothing went wrong.
pub fn exit(code: i32) -> ! {
    // SAFETY: runs the exit callbacks and does not return.
    unsafe { super::compat::proc_exit(code) }
}

/// What ended a worker's work.
pub struct Failure {
    /// The error's message.
    pub message: String,
    /// Its detail; may be empty.
    pub detail: String,
    /// Its hint; may be empty.
    pub hint: String,
}

/// Runs `work`; when it fails, shows the failure to `record` and ends this
/// process with the error, as the server does with any failed worker.
pub fn run(work: impl FnOnce(), record: impl Fn(&Failure)) {
    let work = std::panic::AssertUnwindSafe(work);
    let record = std::panic::AssertUnwindSafe(record);
    PgTryBuilder::new(|| {
        let work = work;
        (work.0)();
    })
    .catch_others(|cause| {
        let failure = match &cause {
            CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => Failure {
                message: report.message().to_owned(),
                detail: report.detail().unwrap_or_default().to_owned(),
                hint: report.hint().unwrap_or_default().to_owned(),
            },
            CaughtError::RustPanic { ereport, .. } => Failure {
                message: format!("internal error: {}", ereport.message()),
                detail: String::new(),
                hint: "This is a bug in scry_backfill; the worker is started again.".to_owned(),
            },
        };
        let record = &record;
        (record.0)(&failure);
        cause.rethrow()
    })
    .execute();
}
