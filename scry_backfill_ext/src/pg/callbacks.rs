//! The output plugin's callbacks, handed on to a [`Sink`].
//!
//! The server calls C functions; this turns them into calls of a Rust trait
//! with safe arguments. `decode` implements the trait; `pg` knows nothing of
//! it. One sink a process, installed while a [`super::decoding::Decoder`] runs.

use std::cell::Cell;
use std::ptr::NonNull;

use pgrx::{pg_guard, pg_sys};
use scry_wire::Lsn;

use super::compat;
use super::relation::{RelationRef, TupleRef};
use super::sequence::SequenceRecord;

/// A transaction that is being given out, in commit order.
#[derive(Debug, Clone, Copy)]
pub struct Transaction {
    /// The top-level transaction's id, 64 bits wide.
    pub xid: u64,
    /// Where its commit record begins.
    pub commit_lsn: Lsn,
    /// Where its commit record ends.
    pub end_lsn: Lsn,
    /// When it was committed (`TimestampTz`).
    pub commit_time: i64,
    /// Where the change at hand stands; at the end, the commit record. The catalogs are shown with
    /// what was committed before.
    pub at: Lsn,
}

/// A change of a row.
pub enum RowChange<'a> {
    /// The row is new.
    Insert(TupleRef<'a>),
    /// The row has changed; `old` as far as the replica identity gives it.
    Update {
        /// Old key or row.
        old: Option<TupleRef<'a>>,
        /// New row.
        new: TupleRef<'a>,
    },
    /// The row is gone; `None` when there is no replica identity.
    Delete(Option<TupleRef<'a>>),
}

/// What happens while a transaction is given out in pieces before it ends.
pub enum StreamEvent<'a> {
    /// A piece of this transaction begins.
    Start(u64),
    /// The piece ends. The server may have broken it off inside a change, because the
    /// transaction is being aborted.
    Stop,
    /// A row has changed.
    Change {
        /// The subtransaction, or the transaction itself.
        subxid: u64,
        /// The table.
        relation: RelationRef<'a>,
        /// What has changed.
        change: RowChange<'a>,
    },
    /// Tables have been truncated.
    Truncate {
        /// The subtransaction, or the transaction itself.
        subxid: u64,
        /// The tables.
        relations: Vec<RelationRef<'a>>,
        /// With those that refer to them.
        cascade: bool,
        /// Their sequences begin anew.
        restart: bool,
    },
    /// A message of the extension's own.
    Message(&'a [u8]),
    /// A subtransaction has been aborted; the transaction, if that is what is named.
    Abort {
        /// The transaction.
        xid: u64,
        /// What of it is void.
        subxid: u64,
    },
    /// The transaction has been committed, and all of it has been given out.
    Commit(Transaction),
}

/// What takes decoded changes.
pub trait Sink {
    /// A transaction begins.
    fn begin(&mut self, transaction: &Transaction);
    /// A row has changed.
    fn change(&mut self, transaction: &Transaction, relation: &RelationRef<'_>, change: RowChange<'_>);
    /// Tables have been truncated.
    fn truncate(
        &mut self,
        transaction: &Transaction,
        relations: &[RelationRef<'_>],
        cascade: bool,
        restart: bool,
    );
    /// A message of the extension's own, written inside the transaction.
    fn message(&mut self, transaction: &Transaction, content: &[u8]);
    /// The transaction ends.
    fn commit(&mut self, transaction: &Transaction);
    /// A transaction that has not ended, or was given out in pieces.
    fn stream(&mut self, event: StreamEvent<'_>);
    /// A sequence has moved.
    fn sequence(&mut self, record: &SequenceRecord);
    /// All WAL has been read, up to `end`: wait for more. `false` ends the reading.
    fn wait_for_wal(&mut self, end: Lsn) -> bool;
}

type SinkPtr = NonNull<dyn Sink>;

thread_local! {
    static SINK: Cell<Option<SinkPtr>> = const { Cell::new(None) };
}

/// Installs `sink` while `work` runs.
pub fn with_sink<R>(sink: &mut (dyn Sink + 'static), work: impl FnOnce() -> R) -> R {
    struct Restore(Option<SinkPtr>);
    impl Drop for Restore {
        fn drop(&mut self) {
            SINK.set(self.0);
        }
    }
    let _restore = Restore(SINK.replace(Some(NonNull::from(sink))));
    work()
}

fn sink<'a>() -> &'a mut dyn Sink {
    let Some(mut sink) = SINK.get() else {
        pgrx::error!("logical decoding of scry_backfill is run by its own worker only")
    };
    // SAFETY: `with_sink` keeps the exclusive borrow alive while the server
    // runs; callbacks do not nest.
    unsafe { sink.as_mut() }
}

/// Called by the WAL reader at the end of the WAL.
pub fn wait_for_wal(end: Lsn) -> bool {
    sink().wait_for_wal(end)
}

/// Called between records.
pub fn sequence(record: &SequenceRecord) {
    sink().sequence(record);
}

/// The library's output plugin (`_PG_output_plugin_init`, output_plugin.h).
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn _PG_output_plugin_init(callbacks: *mut pg_sys::OutputPluginCallbacks) {
    // SAFETY: the server passes a zeroed struct of its own.
    let callbacks = unsafe { &mut *callbacks };
    callbacks.startup_cb = Some(startup);
    callbacks.begin_cb = Some(begin);
    callbacks.change_cb = Some(change);
    callbacks.truncate_cb = Some(truncate);
    callbacks.message_cb = Some(message);
    callbacks.commit_cb = Some(commit);
    callbacks.stream_start_cb = Some(stream_start);
    callbacks.stream_stop_cb = Some(stream_stop);
    callbacks.stream_change_cb = Some(stream_change);
    callbacks.stream_truncate_cb = Some(stream_truncate);
    callbacks.stream_message_cb = Some(stream_message);
    callbacks.stream_abort_cb = Some(stream_abort);
    callbacks.stream_commit_cb = Some(stream_commit);
}

#[pg_guard]
unsafe extern "C-unwind" fn startup(
    _ctx: *mut pg_sys::LogicalDecodingContext,
    options: *mut pg_sys::OutputPluginOptions,
    _is_init: bool,
) {
    // SAFETY: the server's own struct.
    unsafe {
        (*options).output_type = pg_sys::OutputPluginOutputType::OUTPUT_PLUGIN_BINARY_OUTPUT;
        (*options).receive_rewrites = false;
    }
}

unsafe fn transaction(txn: *const pg_sys::ReorderBufferTXN) -> Transaction {
    // SAFETY: given by the server for the time of the callback.
    let txn = unsafe { &*txn };
    Transaction {
        xid: full_xid(txn.xid.into_inner()),
        commit_lsn: Lsn(txn.final_lsn),
        end_lsn: Lsn(txn.end_lsn),
        // SAFETY: at commit the union holds the commit time.
        commit_time: unsafe { txn.xact_time.commit_time },
        at: Lsn(txn.final_lsn),
    }
}

/// A recent transaction id with its epoch (transam.h, `FullTransactionId`).
pub fn full_xid(xid: u32) -> u64 {
    // SAFETY: reads shared memory under its own lock.
    let next = unsafe { pg_sys::ReadNextFullTransactionId() }.value;
    let epoch = (next >> 32) - u64::from(xid > next as u32 && next >> 32 > 0);
    epoch << 32 | u64::from(xid)
}

#[pg_guard]
unsafe extern "C-unwind" fn begin(
    _ctx: *mut pg_sys::LogicalDecodingContext,
    txn: *mut pg_sys::ReorderBufferTXN,
) {
    // SAFETY: as `transaction`.
    let transaction = unsafe { transaction(txn) };
    CURRENT.set(Some(transaction));
    sink().begin(&transaction);
}

thread_local! {
    /// The transaction between begin and commit: computed once, not per change.
    static CURRENT: Cell<Option<Transaction>> = const { Cell::new(None) };
}

unsafe fn current(txn: *const pg_sys::ReorderBufferTXN) -> Transaction {
    match CURRENT.get() {
        Some(transaction) => transaction,
        // SAFETY: as `transaction`.
        None => unsafe { transaction(txn) },
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn change(
    _ctx: *mut pg_sys::LogicalDecodingContext,
    txn: *mut pg_sys::ReorderBufferTXN,
    relation: pg_sys::Relation,
    change: *mut pg_sys::ReorderBufferChange,
) {
    // SAFETY: relation and change are the server's, valid during the callback.
    unsafe {
        let transaction = Transaction { at: Lsn((*change).lsn), ..current(txn) };
        let relation = RelationRef::new(relation);
        let change = row_change(&relation, change);
        sink().change(&transaction, &relation, change);
    }
}

unsafe fn row_change<'a>(
    relation: &RelationRef<'_>,
    change: *mut pg_sys::ReorderBufferChange,
) -> RowChange<'a> {
    use pg_sys::ReorderBufferChangeType as Type;
    // SAFETY: the server's, valid during the callback.
    unsafe {
        let (old, new) = compat::change_tuples(change);
        let (old, new) = (TupleRef::new(old), TupleRef::new(new));
        match ((*change).action, new) {
            (Type::REORDER_BUFFER_CHANGE_INSERT, Some(new)) => RowChange::Insert(new),
            (Type::REORDER_BUFFER_CHANGE_UPDATE, Some(new)) => RowChange::Update { old, new },
            (Type::REORDER_BUFFER_CHANGE_DELETE, _) => RowChange::Delete(old),
            _ => pgrx::error!("unexpected change of relation {} in the WAL", relation.relid()),
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn truncate(
    _ctx: *mut pg_sys::LogicalDecodingContext,
    txn: *mut pg_sys::ReorderBufferTXN,
    count: std::ffi::c_int,
    relations: *mut pg_sys::Relation,
    change: *mut pg_sys::ReorderBufferChange,
) {
    // SAFETY: the server passes `count` open relations.
    unsafe {
        let transaction = Transaction { at: Lsn((*change).lsn), ..current(txn) };
        let relations = truncated(count, relations);
        let truncate = (*change).data.truncate;
        sink().truncate(&transaction, &relations, truncate.cascade, truncate.restart_seqs);
    }
}

unsafe fn truncated<'a>(count: std::ffi::c_int, relations: *mut pg_sys::Relation) -> Vec<RelationRef<'a>> {
    // SAFETY: by contract: so many open relations.
    unsafe {
        let relations = std::slice::from_raw_parts(relations, count as usize);
        relations.iter().map(|relation| RelationRef::new(*relation)).collect()
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn commit(
    _ctx: *mut pg_sys::LogicalDecodingContext,
    txn: *mut pg_sys::ReorderBufferTXN,
    _commit_lsn: pg_sys::XLogRecPtr,
) {
    // SAFETY: as `transaction`.
    let transaction = unsafe { transaction(txn) };
    CURRENT.set(None);
    sink().commit(&transaction);
}

#[pg_guard]
unsafe extern "C-unwind" fn message(
    _ctx: *mut pg_sys::LogicalDecodingContext,
    txn: *mut pg_sys::ReorderBufferTXN,
    _lsn: pg_sys::XLogRecPtr,
    transactional: bool,
    prefix: *const std::ffi::c_char,
    size: pg_sys::Size,
    content: *const std::ffi::c_char,
) {
    // SAFETY: a C string of the server's, and `size` bytes that live during the callback.
    unsafe {
        if is_ours(transactional, prefix) {
            let transaction = current(txn);
            sink().message(&transaction, std::slice::from_raw_parts(content.cast(), size));
        }
    }
}

unsafe fn is_ours(transactional: bool, prefix: *const std::ffi::c_char) -> bool {
    // SAFETY: a C string of the server's.
    transactional && unsafe { std::ffi::CStr::from_ptr(prefix) } == super::message::PREFIX
}

// Pieces of transactions in progress. The server calls back within the piece's own transaction
// of the reorder buffer, where the catalogs can be read by their indexes only: never by a query
// (heapam.c, "unexpected heap_getnext call during logical decoding"). An ERROR that says that
// the transaction is being aborted is the server's to catch (reorderbuffer.c,
// `ReorderBufferProcessTXN`).

#[pg_guard]
unsafe extern "C-unwind" fn stream_start(
    _ctx: *mut pg_sys::LogicalDecodingContext,
    txn: *mut pg_sys::ReorderBufferTXN,
) {
    // SAFETY: given by the server for the time of the callback.
    let xid = unsafe { (*txn).xid };
    sink().stream(StreamEvent::Start(full_xid(xid.into_inner())));
}

#[pg_guard]
unsafe extern "C-unwind" fn stream_stop(
    _ctx: *mut pg_sys::LogicalDecodingContext,
    _txn: *mut pg_sys::ReorderBufferTXN,
) {
    sink().stream(StreamEvent::Stop);
}

unsafe fn subxid(change: *const pg_sys::ReorderBufferChange) -> u64 {
    // SAFETY: a change belongs to a transaction while it lives (reorderbuffer.h).
    full_xid(unsafe { (*(*change).txn).xid.into_inner() })
}

#[pg_guard]
unsafe extern "C-unwind" fn stream_change(
    _ctx: *mut pg_sys::LogicalDecodingContext,
    _txn: *mut pg_sys::ReorderBufferTXN,
    relation: pg_sys::Relation,
    change: *mut pg_sys::ReorderBufferChange,
) {
    // SAFETY: as `change`.
    unsafe {
        let relation = RelationRef::new(relation);
        let row = row_change(&relation, change);
        sink().stream(StreamEvent::Change { subxid: subxid(change), relation, change: row });
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn stream_truncate(
    _ctx: *mut pg_sys::LogicalDecodingContext,
    _txn: *mut pg_sys::ReorderBufferTXN,
    count: std::ffi::c_int,
    relations: *mut pg_sys::Relation,
    change: *mut pg_sys::ReorderBufferChange,
) {
    // SAFETY: as `truncate`.
    unsafe {
        let relations = truncated(count, relations);
        let truncate = (*change).data.truncate;
        let (cascade, restart) = (truncate.cascade, truncate.restart_seqs);
        sink().stream(StreamEvent::Truncate { subxid: subxid(change), relations, cascade, restart });
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn stream_message(
    _ctx: *mut pg_sys::LogicalDecodingContext,
    _txn: *mut pg_sys::ReorderBufferTXN,
    _lsn: pg_sys::XLogRecPtr,
    transactional: bool,
    prefix: *const std::ffi::c_char,
    size: pg_sys::Size,
    content: *const std::ffi::c_char,
) {
    // SAFETY: as `message`.
    unsafe {
        if is_ours(transactional, prefix) {
            sink().stream(StreamEvent::Message(std::slice::from_raw_parts(content.cast(), size)));
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn stream_abort(
    _ctx: *mut pg_sys::LogicalDecodingContext,
    txn: *mut pg_sys::ReorderBufferTXN,
    _abort_lsn: pg_sys::XLogRecPtr,
) {
    // SAFETY: given by the server; a subtransaction knows its transaction, which has none.
    let (xid, subxid) = unsafe {
        let top = if (*txn).toptxn.is_null() { txn } else { (*txn).toptxn };
        ((*top).xid, (*txn).xid)
    };
    sink().stream(StreamEvent::Abort {
        xid: full_xid(xid.into_inner()),
        subxid: full_xid(subxid.into_inner()),
    });
}

#[pg_guard]
unsafe extern "C-unwind" fn stream_commit(
    _ctx: *mut pg_sys::LogicalDecodingContext,
    txn: *mut pg_sys::ReorderBufferTXN,
    _commit_lsn: pg_sys::XLogRecPtr,
) {
    // SAFETY: as `transaction`.
    let transaction = unsafe { transaction(txn) };
    sink().stream(StreamEvent::Commit(transaction));
}
