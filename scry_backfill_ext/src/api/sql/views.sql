-- What people look at. Each view is of the database one is connected to.

-- One row a job: what it does, why it does not go on, how far it is.
CREATE VIEW scry_backfill.status AS
SELECT
    j.name AS job,
    pg_catalog.current_database() AS database,
    s.state,
    -- A sender that does not run is the cause of what the worker says.
    COALESCE(s.sender_trouble, NULLIF(l.message, ''), b.why, NULLIF(j.state_reason, ''), q.why, '') AS why,
    COALESCE(CASE WHEN s.sender_trouble IS NOT NULL THEN l.message ELSE NULLIF(l.detail, '') END, b.detail, q.detail, '') AS detail,
    COALESCE(CASE WHEN s.sender_trouble IS NOT NULL THEN x.hint ELSE NULLIF(l.hint, '') END, b.hint,
        CASE WHEN j.state OPERATOR(pg_catalog.=) 'needs_resync' THEN
            pg_catalog.format('Start over with SELECT scry_backfill.resume(%L).', j.name) END, q.hint, '') AS hint,
    j.mode,
    j.mode_reason,
    l.shadow,
    t.tables,
    t.copied AS tables_copied,
    t.quarantined AS tables_quarantined,
    CASE WHEN s.streams THEN pg_catalog.pg_wal_lsn_diff(w.lsn, l.applied_lsn::pg_catalog.pg_lsn)::pg_catalog.int8 END AS lag_bytes,
    CASE
        WHEN NOT s.streams THEN NULL
        WHEN l.applied_commit_us OPERATOR(pg_catalog.=) 0 THEN 0
        ELSE GREATEST(0, EXTRACT(epoch FROM pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-)
            pg_catalog.to_timestamp(946684800 OPERATOR(pg_catalog.+) (l.applied_commit_us::pg_catalog.float8 OPERATOR(pg_catalog./) 1000000))))
    END::pg_catalog.float8 AS lag_seconds,
    pg_catalog.pg_wal_lsn_diff(w.lsn, r.restart_lsn)::pg_catalog.int8 AS retained_wal_bytes,
    NULLIF(j.slot_name, '') AS slot_name,
    r.restart_lsn,
    r.confirmed_flush_lsn,
    b.pid AS blocked_by_pid,
    b.xid AS blocked_by_xid,
    b.since AS blocked_since,
    l.rows_streamed,
    l.bytes_streamed,
    l.transactions_streamed,
    l.rows_copied,
    l.bytes_copied,
    CASE WHEN l.state OPERATOR(pg_catalog.=) 'finishing' THEN NULLIF(l.finish_step, '') END AS finish_step,
    l.finish_done,
    l.finish_total,
    x.max_rows_per_second,
    x.max_bytes_per_second,
    l.blocked_us::pg_catalog.float8 OPERATOR(pg_catalog./) 1000000 AS blocked_seconds,
    x.sender,
    l.failures,
    CASE WHEN l.state OPERATOR(pg_catalog.=) 'retrying' THEN
        pg_catalog.to_timestamp(946684800 OPERATOR(pg_catalog.+) (l.retry_at_us::pg_catalog.float8 OPERATOR(pg_catalog./) 1000000))
    END AS retry_at,
    l.worker_pid,
    CASE WHEN l.started_at_us OPERATOR(pg_catalog.<>) 0 THEN
        pg_catalog.to_timestamp(946684800 OPERATOR(pg_catalog.+) (l.started_at_us::pg_catalog.float8 OPERATOR(pg_catalog./) 1000000))
    END AS worker_started_at,
    j.created_at AS started_at,
    -- What limits it, and how fast it is.
    NULLIF(p.limiter, '') AS limiter,
    NULLIF(p.limiter_detail, '') AS limiter_detail,
    p.copy_rows_per_second,
    p.copy_bytes_per_second,
    p.stream_rows_per_second,
    p.stream_bytes_per_second,
    -- The WAL that its slot keeps.
    CASE WHEN s.state OPERATOR(pg_catalog.=) 'needs_resync' THEN 'given_up' ELSE p.wal_state END AS wal_state,
    p.wal_growth AS wal_growth_bytes_per_second,
    p.seconds_to_critical AS seconds_to_wal_critical,
    p.seconds_to_hard AS seconds_to_wal_hard,
    p.wal_disk_free AS wal_disk_free_bytes,
    r.wal_status AS slot_wal_status,
    pg_catalog.age(r.catalog_xmin)::pg_catalog.int8 AS slot_xmin_age
FROM scry_backfill.job AS j
LEFT JOIN scry_backfill.live_jobs() AS l ON l.job OPERATOR(pg_catalog.=) j.name
LEFT JOIN scry_backfill.live_pace() AS p ON p.job OPERATOR(pg_catalog.=) j.name
CROSS JOIN scry_backfill.live_sender() AS x
CROSS JOIN LATERAL (
    SELECT
        CASE
            WHEN j.desired OPERATOR(pg_catalog.=) 'stop' THEN 'stopped'
            WHEN j.state OPERATOR(pg_catalog.=) 'needs_resync' THEN j.state
            WHEN j.desired OPERATOR(pg_catalog.=) 'pause' THEN 'paused'
            WHEN j.state OPERATOR(pg_catalog.=) 'finished' THEN j.state
            -- What it was before the launcher has taken notice.
            WHEN l.state IS NULL OR l.state OPERATOR(pg_catalog.=) ANY (ARRAY['paused', 'stopped']) THEN 'starting'
            ELSE l.state
        END AS state,
        l.state OPERATOR(pg_catalog.=) 'streaming' AS streams,
        CASE WHEN l.state OPERATOR(pg_catalog.=) ANY (ARRAY['starting', 'connecting', 'retrying'])
            THEN NULLIF(x.message, '') END AS sender_trouble
) AS s
CROSS JOIN LATERAL (
    SELECT pg_catalog.count(*) AS tables,
        pg_catalog.count(*) FILTER (WHERE jt.state OPERATOR(pg_catalog.=) 'copied') AS copied,
        pg_catalog.count(*) FILTER (WHERE jt.quarantined OPERATOR(pg_catalog.>) 0) AS quarantined
    FROM scry_backfill.job_table AS jt
    WHERE jt.job OPERATOR(pg_catalog.=) j.name AND jt.state OPERATOR(pg_catalog.<>) 'excluded'
) AS t
CROSS JOIN (
    SELECT CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_current_wal_lsn() END AS lsn
) AS w
LEFT JOIN pg_catalog.pg_replication_slots AS r ON r.slot_name OPERATOR(pg_catalog.=) j.slot_name::pg_catalog.name
LEFT JOIN LATERAL (
    -- The slot waits for every transaction that was running: the oldest one that is left.
    SELECT o.pid, o.xid, o.since,
        'the slot waits for a running transaction to end' AS why,
        o.detail,
        o.hint
    FROM (
        SELECT a.pid, a.backend_xid::pg_catalog.text AS xid, a.xact_start AS since,
            pg_catalog.format('Process %s (%s, database %s) runs transaction %s since %s.',
                a.pid, a.usename, a.datname, a.backend_xid, pg_catalog.date_trunc('second', a.xact_start)) AS detail,
            pg_catalog.format('End that transaction, or cancel it: SELECT pg_terminate_backend(%s);', a.pid) AS hint
        FROM pg_catalog.pg_stat_activity AS a
        WHERE a.backend_xid IS NOT NULL AND a.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()
        UNION ALL
        SELECT NULL::pg_catalog.int4, p.transaction::pg_catalog.text, p.prepared,
            pg_catalog.format('Prepared transaction %L (%s, database %s) is left since %s.',
                p.gid, p.owner, p.database, pg_catalog.date_trunc('second', p.prepared)),
            pg_catalog.format('COMMIT PREPARED or ROLLBACK PREPARED %L in database %s.', p.gid, p.database)
        FROM pg_catalog.pg_prepared_xacts AS p
    ) AS o
    ORDER BY o.since
    LIMIT 1
) AS b ON l.state OPERATOR(pg_catalog.=) 'creating_slot'
LEFT JOIN LATERAL (
    -- What the platform keeps aside is not forgotten with the message that told it.
    SELECT
        pg_catalog.format('table %I.%I is quarantined: %s', jt.schema_name, jt.table_name, jt.quarantine_cause) AS why,
        CASE WHEN t.quarantined OPERATOR(pg_catalog.>) 1 THEN
            pg_catalog.format('%s tables are quarantined: see scry_backfill.tables.', t.quarantined)
        END AS detail,
        pg_catalog.format('Mend the cause on the shadow, then: SELECT scry_backfill.resync(%L, %L);',
            pg_catalog.format('%I.%I', jt.schema_name, jt.table_name), j.name) AS hint
    FROM scry_backfill.job_table AS jt
    WHERE jt.job OPERATOR(pg_catalog.=) j.name AND jt.quarantined OPERATOR(pg_catalog.>) 0
    ORDER BY jt.diverged DESC, jt.quarantined DESC, jt.relid
    LIMIT 1
) AS q ON s.state OPERATOR(pg_catalog.=) 'streaming';

-- One row a table that is or was copied in this round; the largest tables
-- have the most chunks. seconds_left goes by the table's own rate so far.
CREATE VIEW scry_backfill.progress AS
SELECT
    jt.job,
    jt.schema_name,
    jt.table_name,
    s.state,
    c.chunks,
    c.chunks_done,
    c.blocks,
    COALESCE(c.rows, jt.rows) AS rows,
    c.bytes,
    CASE s.state
        WHEN 'copied' THEN 100
        ELSE COALESCE(pg_catalog.round(100 OPERATOR(pg_catalog.*) c.chunks_done::pg_catalog.numeric
            OPERATOR(pg_catalog./) NULLIF(c.chunks, 0), 1), 0)
    END AS percent,
    CASE WHEN s.state OPERATOR(pg_catalog.=) 'copying' AND c.chunks_done OPERATOR(pg_catalog.>) 0 THEN
        pg_catalog.round((c.chunks OPERATOR(pg_catalog.-) c.chunks_done)::pg_catalog.numeric
            OPERATOR(pg_catalog.*) EXTRACT(epoch FROM pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) s.started_at)
            OPERATOR(pg_catalog./) c.chunks_done, 1)
    END AS seconds_left,
    s.started_at
FROM scry_backfill.job_table AS jt
LEFT JOIN scry_backfill.live_copies() AS c
    ON c.job OPERATOR(pg_catalog.=) jt.job AND c.relid OPERATOR(pg_catalog.=) jt.relid
CROSS JOIN LATERAL (
    SELECT
        CASE
            WHEN jt.state OPERATOR(pg_catalog.=) 'copied' THEN 'copied'
            -- A table on hold is live when the stream has passed its copy.
            WHEN c.chunks OPERATOR(pg_catalog.=) c.chunks_done AND NOT jt.state OPERATOR(pg_catalog.=) ANY (ARRAY['held', 'unidentified']) THEN 'copied'
            WHEN c.started_at_us OPERATOR(pg_catalog.<>) 0 THEN 'copying'
            ELSE 'waiting'
        END AS state,
        CASE WHEN c.started_at_us OPERATOR(pg_catalog.<>) 0 THEN
            pg_catalog.to_timestamp(946684800 OPERATOR(pg_catalog.+) (c.started_at_us::pg_catalog.float8 OPERATOR(pg_catalog./) 1000000))
        END AS started_at
) AS s
WHERE jt.state OPERATOR(pg_catalog.<>) 'excluded'
ORDER BY jt.job, jt.schema_name, jt.table_name;

-- One row a table of a job.
CREATE VIEW scry_backfill.tables AS
SELECT
    jt.job,
    COALESCE(n.nspname::pg_catalog.text, jt.schema_name) AS schema_name,
    COALESCE(c.relname::pg_catalog.text, jt.table_name) AS table_name,
    CASE
        WHEN c.oid IS NULL THEN 'dropped'
        WHEN j.desired OPERATOR(pg_catalog.=) 'stop' THEN 'stopped'
        WHEN jt.state OPERATOR(pg_catalog.=) 'copied' AND j.mode OPERATOR(pg_catalog.=) 'snapshot' THEN 'copied'
        WHEN jt.state OPERATOR(pg_catalog.=) 'copied' AND jt.diverged THEN 'diverged'
        WHEN jt.state OPERATOR(pg_catalog.=) 'copied' AND jt.quarantined OPERATOR(pg_catalog.>) 0 THEN 'quarantined'
        WHEN jt.state OPERATOR(pg_catalog.=) 'copied' THEN 'following'
        WHEN jt.state OPERATOR(pg_catalog.=) ANY (ARRAY['excluded', 'unidentified']) THEN jt.state
        ELSE 'copying'
    END AS state,
    CASE c.relreplident WHEN 'd' THEN 'primary key' WHEN 'i' THEN 'index' WHEN 'f' THEN 'full' WHEN 'n' THEN 'nothing' END
        AS replica_identity,
    jt.rows AS rows_copied,
    jt.quarantined,
    jt.quarantine_cause AS cause
FROM scry_backfill.job_table AS jt
JOIN scry_backfill.job AS j ON j.name OPERATOR(pg_catalog.=) jt.job
LEFT JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) jt.relid
LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
ORDER BY 1, 2, 3;

-- What happened, newest first. The ring in shared memory may hold what is
-- stored already: UNION takes it once.
CREATE VIEW scry_backfill.events AS
SELECT at, job, level, message, hint FROM scry_backfill.event_log
UNION
SELECT pg_catalog.to_timestamp(946684800 OPERATOR(pg_catalog.+) (e.at_us::pg_catalog.float8 OPERATOR(pg_catalog./) 1000000)),
    e.job, e.level, e.message, e.hint
FROM scry_backfill.recent_events() AS e
ORDER BY at DESC;

GRANT SELECT ON scry_backfill.status, scry_backfill.progress, scry_backfill.tables, scry_backfill.events TO pg_monitor;
