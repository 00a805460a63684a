//! Names of the metrics, once, and the recorder behind `/metrics`.
//!
//! Labels are the shadow's database and the peer's role; no names of tables,
//! which could be many, and never a value.

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};

/// Connections of workers that are open now, by role.
pub const CONNECTIONS: &str = "scry_platform_connections";
/// Connections refused or ended with an error, by kind.
pub const REFUSED: &str = "scry_platform_refused_total";
/// Row changes applied.
pub const ROWS_APPLIED: &str = "scry_platform_rows_applied_total";
/// Source transactions applied.
pub const TRANSACTIONS_APPLIED: &str = "scry_platform_transactions_applied_total";
/// Shadow transactions committed by the apply.
pub const SHADOW_COMMITS: &str = "scry_platform_shadow_commits_total";
/// Times that sets failed and their changes were written in order.
pub const SET_FALLBACKS: &str = "scry_platform_set_fallbacks_total";
/// Tables whose rows are not the source's yet, because a copy of them is due.
pub const TABLES_HELD: &str = "scry_platform_tables_held";
/// Bytes of changes that were kept for tables on hold.
pub const CHANGES_KEPT: &str = "scry_platform_kept_bytes_total";
/// Tables that are not the source's because changes of them were refused.
pub const TABLES_QUARANTINED: &str = "scry_platform_tables_quarantined";
/// Changes that were refused, or passed over because too many were.
pub const CHANGES_QUARANTINED: &str = "scry_platform_quarantined_total";
/// The applied position, as a number.
pub const APPLIED_LSN: &str = "scry_platform_applied_lsn";
/// Bytes of the journal's files.
pub const JOURNAL_BYTES: &str = "scry_platform_journal_bytes";
/// Up to where changes are safe, as a number: in the journal or on the shadow.
pub const SAFE_LSN: &str = "scry_platform_safe_lsn";
/// Whether the journal has no room: the source waits.
pub const JOURNAL_FULL: &str = "scry_platform_journal_full";
/// Times the shadow's applier could not go on.
pub const APPLIER_FAILURES: &str = "scry_platform_applier_failures_total";
/// Rows loaded by copies.
pub const ROWS_COPIED: &str = "scry_platform_rows_copied_total";
/// Chunks loaded by copies.
pub const CHUNKS_COPIED: &str = "scry_platform_chunks_copied_total";
/// Chunks that were there already.
pub const CHUNKS_REPEATED: &str = "scry_platform_chunks_repeated_total";
/// Updates and deletes that did not find exactly their row.
pub const CONFLICTS: &str = "scry_platform_conflicts_total";
/// Times the embedded shadow was started again after it ended by itself.
pub const SHADOW_RESTARTS: &str = "scry_platform_shadow_restarts_total";
/// Bytes received from senders, as they came: compressed where they were.
pub const BYTES_RECEIVED: &str = "scry_platform_bytes_received_total";

/// Installs the recorder for this process.
///
/// # Errors
/// When one is installed already.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new().install_recorder()?;
    metrics::describe_gauge!(CONNECTIONS, "Connections of workers that are open now, by role");
    metrics::describe_counter!(REFUSED, "Connections refused or ended with an error, by kind");
    metrics::describe_counter!(ROWS_APPLIED, "Row changes applied");
    metrics::describe_counter!(TRANSACTIONS_APPLIED, "Source transactions applied");
    metrics::describe_counter!(SHADOW_COMMITS, "Shadow transactions committed by the apply");
    metrics::describe_counter!(
        SET_FALLBACKS,
        "Times that sets failed and their changes were written in order"
    );
    metrics::describe_gauge!(TABLES_HELD, "Tables on hold: emptied, and being copied again");
    metrics::describe_counter!(CHANGES_KEPT, "Bytes of changes that were kept for tables on hold");
    metrics::describe_gauge!(TABLES_QUARANTINED, "Tables of which changes were refused and kept aside");
    metrics::describe_counter!(
        CHANGES_QUARANTINED,
        "Changes that were refused and kept aside, or counted only"
    );
    metrics::describe_gauge!(APPLIED_LSN, "The applied position of the source's WAL, as a number");
    metrics::describe_gauge!(JOURNAL_BYTES, "Bytes of the journal's files");
    metrics::describe_gauge!(
        SAFE_LSN,
        "Up to where changes are in the journal or on the shadow, as a number"
    );
    metrics::describe_gauge!(JOURNAL_FULL, "1 while the journal has no room and the source waits");
    metrics::describe_counter!(APPLIER_FAILURES, "Times that changes could not be applied");
    metrics::describe_counter!(ROWS_COPIED, "Rows loaded by copies");
    metrics::describe_counter!(CHUNKS_COPIED, "Chunks loaded by copies");
    metrics::describe_counter!(CHUNKS_REPEATED, "Chunks that were on the shadow already");
    metrics::describe_counter!(CONFLICTS, "Updates and deletes that did not find exactly their row");
    metrics::describe_counter!(SHADOW_RESTARTS, "Times the embedded shadow was started again");
    metrics::describe_counter!(BYTES_RECEIVED, "Bytes received from senders, as they came");
    Ok(handle)
}
