-- What the platform keeps in every shadow database: whose history it holds and
-- how far it is. Run once, in one transaction, as the owner of the shadow.

CREATE SCHEMA scry_shadow;

COMMENT ON SCHEMA scry_shadow IS 'What scry_platform keeps of this shadow: not part of the source''s schema';

CREATE TABLE scry_shadow.migration (
    number     integer PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);

-- One row: the source and job this shadow belongs to. The position is written
-- in the same transaction as the changes that lead to it.
CREATE TABLE scry_shadow.origin (
    only_row           boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    -- Unsigned 64-bit numbers of the source, kept bit by bit.
    system_identifier  bigint NOT NULL,
    timeline           bigint NOT NULL,
    database_oid       oid NOT NULL,
    database           text NOT NULL,
    job                text NOT NULL,
    shadow_id          text NOT NULL,
    encoding           text NOT NULL,
    server_version_num bigint NOT NULL,
    -- The full start of the job whose history this is; 0 before the first copy.
    generation         bigint NOT NULL DEFAULT 0,
    copy_id            bigint NOT NULL DEFAULT 0,
    copy_state         text NOT NULL DEFAULT 'none' CHECK (copy_state IN ('none', 'copying', 'copied')),
    -- End of the last source transaction that is here.
    applied_lsn        pg_lsn NOT NULL DEFAULT '0/0',
    applied_at         timestamptz,
    rows_applied       bigint NOT NULL DEFAULT 0,
    bound_at           timestamptz NOT NULL DEFAULT pg_catalog.now(),
    copied_at          timestamptz
) WITH (fillfactor = 10);

-- The catalog document that the schema here was made from.
CREATE TABLE scry_shadow.catalog (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    document bytea NOT NULL
);

-- Ledger of the copy: a chunk's rows and its line here are committed together.
CREATE TABLE scry_shadow.chunk (
    relid     oid NOT NULL,
    chunk     integer NOT NULL,
    chunks    integer NOT NULL,
    copy_id   bigint NOT NULL,
    rows      bigint NOT NULL,
    loaded_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (relid, chunk)
);

-- Objects of the source that this shadow does not have.
CREATE TABLE scry_shadow.left_out (
    object text NOT NULL,
    reason text NOT NULL
);

-- Changes that did not find the row they belong to. The key stands here only,
-- never in a log.
CREATE TABLE scry_shadow.conflict (
    schema     text NOT NULL,
    relation   text NOT NULL,
    operation  text NOT NULL,
    applied_lsn pg_lsn NOT NULL,
    key        jsonb,
    found      bigint NOT NULL,
    first_seen timestamptz NOT NULL DEFAULT pg_catalog.now(),
    last_seen  timestamptz NOT NULL DEFAULT pg_catalog.now(),
    seen       bigint NOT NULL DEFAULT 1,
    UNIQUE (schema, relation, operation, applied_lsn)
);
