-- None is SECURITY DEFINER. start() and check() resolve names along the
-- caller's search_path; what they do then runs with a safe one of its own.

CREATE FUNCTION scry_backfill.start(
    tables pg_catalog.text DEFAULT '*',
    mode pg_catalog.text DEFAULT 'auto',
    job pg_catalog.text DEFAULT 'default',
    options pg_catalog.jsonb DEFAULT '{}')
RETURNS TABLE (job pg_catalog.text, mode pg_catalog.text, reason pg_catalog.text)
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE ROWS 1
AS 'MODULE_PATHNAME', 'start_wrapper';

CREATE FUNCTION scry_backfill.stop(
    job pg_catalog.text DEFAULT 'default', drop_slot pg_catalog.bool DEFAULT true)
RETURNS pg_catalog.void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'stop_wrapper';

CREATE FUNCTION scry_backfill.pause(job pg_catalog.text DEFAULT 'default')
RETURNS pg_catalog.void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'pause_wrapper';

CREATE FUNCTION scry_backfill.resume(job pg_catalog.text DEFAULT 'default')
RETURNS pg_catalog.void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'resume_wrapper';

CREATE FUNCTION scry_backfill.add_table(name pg_catalog.text, job pg_catalog.text DEFAULT 'default')
RETURNS pg_catalog.void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'add_table_wrapper';

CREATE FUNCTION scry_backfill.drop_table(name pg_catalog.text, job pg_catalog.text DEFAULT 'default')
RETURNS pg_catalog.void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'drop_table_wrapper';

CREATE FUNCTION scry_backfill.resync(name pg_catalog.text, job pg_catalog.text DEFAULT 'default')
RETURNS pg_catalog.void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'resync_wrapper';

CREATE FUNCTION scry_backfill.wait_for_shadow(
    job pg_catalog.text DEFAULT 'default', timeout pg_catalog.interval DEFAULT '60s')
RETURNS pg_catalog.bool
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'wait_for_shadow_wrapper';

CREATE FUNCTION scry_backfill.verify(
    tables pg_catalog.text DEFAULT '*',
    job pg_catalog.text DEFAULT 'default',
    repair pg_catalog.bool DEFAULT false)
RETURNS TABLE (
    schema_name pg_catalog.text, table_name pg_catalog.text, verdict pg_catalog.text,
    source_rows pg_catalog.int8, shadow_rows pg_catalog.int8,
    source_hash pg_catalog.text, shadow_hash pg_catalog.text,
    differing_rows pg_catalog.int8, repaired_rows pg_catalog.int8,
    seconds pg_catalog.float8, source_seconds pg_catalog.float8, remark pg_catalog.text)
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE ROWS 100
AS 'MODULE_PATHNAME', 'verify_wrapper';

CREATE FUNCTION scry_backfill."check"(tables pg_catalog.text DEFAULT '*')
RETURNS TABLE (level pg_catalog.text, object pg_catalog.text, finding pg_catalog.text, remedy pg_catalog.text)
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE ROWS 10
AS 'MODULE_PATHNAME', 'check_wrapper';

-- As its caller; sql/source/roles.sql says what the roles may do.
CREATE FUNCTION scry_backfill.create_roles()
RETURNS TABLE (role pg_catalog.text, privilege pg_catalog.text, made pg_catalog.bool)
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE ROWS 2
AS 'MODULE_PATHNAME', 'create_roles_wrapper';

-- Behind the views.

CREATE FUNCTION scry_backfill.live_jobs()
RETURNS TABLE (
    job pg_catalog.text, state pg_catalog.text,
    message pg_catalog.text, detail pg_catalog.text, hint pg_catalog.text,
    shadow pg_catalog.text, started_at_us pg_catalog.int8,
    failures pg_catalog.int8, retry_at_us pg_catalog.int8,
    sent_lsn pg_catalog.text, applied_lsn pg_catalog.text, flushed_lsn pg_catalog.text,
    applied_commit_us pg_catalog.int8,
    rows_streamed pg_catalog.int8, bytes_streamed pg_catalog.int8, transactions_streamed pg_catalog.int8,
    rows_copied pg_catalog.int8, bytes_copied pg_catalog.int8,
    finish_step pg_catalog.text, finish_done pg_catalog.int8, finish_total pg_catalog.int8,
    blocked_us pg_catalog.int8, worker_pid pg_catalog.int4)
LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED ROWS 1
AS 'MODULE_PATHNAME', 'live_jobs_wrapper';

CREATE FUNCTION scry_backfill.live_copies()
RETURNS TABLE (
    job pg_catalog.text, relid pg_catalog.oid,
    chunks pg_catalog.int8, chunks_done pg_catalog.int8, blocks pg_catalog.int8,
    rows pg_catalog.int8, bytes pg_catalog.int8, started_at_us pg_catalog.int8)
LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED ROWS 100
AS 'MODULE_PATHNAME', 'live_copies_wrapper';

CREATE FUNCTION scry_backfill.live_sender()
RETURNS TABLE (
    sender pg_catalog.text, message pg_catalog.text, hint pg_catalog.text,
    max_rows_per_second pg_catalog.int8, max_bytes_per_second pg_catalog.int8)
LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED ROWS 1
AS 'MODULE_PATHNAME', 'live_sender_wrapper';

CREATE FUNCTION scry_backfill.live_pace()
RETURNS TABLE (
    job pg_catalog.text, limiter pg_catalog.text, limiter_detail pg_catalog.text,
    copy_rows_per_second pg_catalog.int8, copy_bytes_per_second pg_catalog.int8,
    stream_rows_per_second pg_catalog.int8, stream_bytes_per_second pg_catalog.int8,
    wal_state pg_catalog.text, wal_growth pg_catalog.int8,
    seconds_to_critical pg_catalog.int8, seconds_to_hard pg_catalog.int8, wal_disk_free pg_catalog.int8)
LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED ROWS 1
AS 'MODULE_PATHNAME', 'live_pace_wrapper';

CREATE FUNCTION scry_backfill.recent_events()
RETURNS TABLE (
    at_us pg_catalog.int8, job pg_catalog.text, level pg_catalog.text,
    message pg_catalog.text, hint pg_catalog.text)
LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED ROWS 100
AS 'MODULE_PATHNAME', 'recent_events_wrapper';

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA scry_backfill FROM PUBLIC;
GRANT EXECUTE ON FUNCTION scry_backfill.live_jobs(), scry_backfill.live_copies(), scry_backfill.live_sender(),
    scry_backfill.live_pace(), scry_backfill.recent_events() TO pg_monitor;
