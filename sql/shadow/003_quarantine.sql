-- Changes that this shadow refused, of a job that goes on all the same
-- (option on_error), and the tables that are not the source's because of them.

CREATE TABLE scry_shadow.quarantined (
    relid      oid PRIMARY KEY,
    schema     text NOT NULL,
    relation   text NOT NULL,
    -- Commits of the transactions with the first and the last such change.
    since_lsn  pg_lsn NOT NULL,
    last_lsn   pg_lsn NOT NULL,
    -- All such changes; those of them that are kept, and their bytes.
    changes    bigint NOT NULL,
    kept       bigint NOT NULL,
    kept_bytes bigint NOT NULL,
    -- There were too many: later changes are counted, and not tried any more.
    diverged   boolean NOT NULL,
    -- What was tried last and why it was refused, without a value.
    cause      text NOT NULL,
    since      timestamptz NOT NULL DEFAULT pg_catalog.now(),
    last_at    timestamptz NOT NULL DEFAULT pg_catalog.now()
);

-- The changes. Values stand here only, never in a log.
CREATE TABLE scry_shadow.quarantine (
    seq        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    relid      oid NOT NULL,
    schema     text NOT NULL,
    relation   text NOT NULL,
    operation  text NOT NULL,
    xid        bigint NOT NULL,
    commit_lsn pg_lsn NOT NULL,
    -- By the columns' names, where the shadow can read the values; what an
    -- update left out as unchanged is not there.
    old_row    jsonb,
    new_row    jsonb,
    -- Else as they came: see "tuple" in docs/wire-format.md.
    old_tuple  bytea,
    new_tuple  bytea,
    sqlstate   text,
    error      text NOT NULL,
    detail     text,
    at         timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);

CREATE INDEX quarantine_relid ON scry_shadow.quarantine (relid, seq);
