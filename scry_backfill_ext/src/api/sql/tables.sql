-- Not IF NOT EXISTS: a schema that somebody else made must stop the script.
CREATE SCHEMA scry_backfill;
REVOKE ALL ON SCHEMA scry_backfill FROM PUBLIC;
GRANT USAGE ON SCHEMA scry_backfill TO pg_monitor;

-- What start() makes. Written by the SQL functions (desired, definition) and
-- by the job's stream worker (state, copy_id); the rest of a job's state is in
-- shared memory and in its replication slot.
CREATE TABLE scry_backfill.job (
    name pg_catalog.text PRIMARY KEY,
    tables pg_catalog.text NOT NULL,
    mode pg_catalog.text NOT NULL CHECK (mode OPERATOR(pg_catalog.=) ANY (ARRAY['hybrid', 'snapshot', 'cdc'])),
    mode_reason pg_catalog.text NOT NULL,
    state_reason pg_catalog.text NOT NULL DEFAULT '',
    options pg_catalog.jsonb NOT NULL,
    desired pg_catalog.text NOT NULL CHECK (desired OPERATOR(pg_catalog.=) ANY (ARRAY['run', 'pause', 'stop'])),
    state pg_catalog.text NOT NULL CHECK (state OPERATOR(pg_catalog.=) ANY
        (ARRAY['new', 'copying', 'streaming', 'finished', 'stopped', 'needs_resync'])),
    whole_database pg_catalog.bool NOT NULL,
    -- Along which names without a schema are looked up when the schema changes.
    search_path pg_catalog.text[] NOT NULL,
    -- What the snapshot of the copied catalog saw, if it was not the slot's own.
    catalog_snapshot pg_catalog.text,
    generation pg_catalog.int8 NOT NULL,
    copy_id pg_catalog.int8 NOT NULL DEFAULT 0,
    slot_name pg_catalog.text NOT NULL,
    start_lsn pg_catalog.pg_lsn,
    owner pg_catalog.oid NOT NULL,
    database_oid pg_catalog.oid NOT NULL,
    created_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now(),
    changed_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now(),
    -- Names and globs that drop_table() took out: what is made later under such a name stays out too.
    left_alone pg_catalog.text[] NOT NULL DEFAULT '{}'
);

-- The tables of a job; names as they were when they joined it.
CREATE TABLE scry_backfill.job_table (
    job pg_catalog.text NOT NULL REFERENCES scry_backfill.job ON DELETE CASCADE,
    relid pg_catalog.oid NOT NULL,
    schema_name pg_catalog.text NOT NULL,
    table_name pg_catalog.text NOT NULL,
    state pg_catalog.text NOT NULL DEFAULT 'pending'
        -- held: its changes wait on the platform until it is copied; unidentified: as held, until it has a
        -- replica identity; excluded: the job leaves it alone.
        CHECK (state OPERATOR(pg_catalog.=) ANY (ARRAY['pending', 'copied', 'held', 'unidentified', 'excluded'])),
    copy_snapshot pg_catalog.text,
    -- How often it has been put on hold.
    holds pg_catalog.int8 NOT NULL DEFAULT 0,
    rows pg_catalog.int8 NOT NULL DEFAULT 0,
    -- Changes that the shadow refused (option on_error), as the platform tells:
    -- how many, whether later ones are counted only, and why the last one was.
    quarantined pg_catalog.int8 NOT NULL DEFAULT 0,
    diverged pg_catalog.bool NOT NULL DEFAULT false,
    quarantine_cause pg_catalog.text,
    PRIMARY KEY (job, relid)
);

-- What happened, once it has left the ring in shared memory.
CREATE TABLE scry_backfill.event_log (
    id pg_catalog.int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at pg_catalog.timestamptz NOT NULL,
    job pg_catalog.text NOT NULL,
    level pg_catalog.text NOT NULL CHECK (level OPERATOR(pg_catalog.=) ANY (ARRAY['info', 'warning', 'error'])),
    message pg_catalog.text NOT NULL,
    hint pg_catalog.text NOT NULL DEFAULT ''
);

REVOKE ALL ON scry_backfill.job, scry_backfill.job_table, scry_backfill.event_log FROM PUBLIC;
