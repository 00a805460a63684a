-- Tables whose rows here are not the source's yet, and what the stream brings
-- for them until they are.

-- A table on hold: emptied, and waiting for a copy of its own.
CREATE TABLE scry_shadow.hold (
    relid     oid PRIMARY KEY,
    -- Commit of the transaction that put it on hold.
    since_lsn pg_lsn NOT NULL,
    state     text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'copying', 'copied')),
    -- The round that copies it: its number, what its snapshot saw, and the
    -- position that the stream must have reached before the two are joined.
    copy_id   bigint NOT NULL DEFAULT 0,
    snapshot  text NOT NULL DEFAULT '',
    until_lsn pg_lsn NOT NULL DEFAULT '0/0',
    -- Why the last round came to nothing.
    why       text NOT NULL DEFAULT '',
    held_at   timestamptz NOT NULL DEFAULT pg_catalog.now()
);

-- Changes of tables on hold, as they stood in the stream: a row for what one
-- source transaction does to one table, in pieces where that is much.
CREATE TABLE scry_shadow.kept (
    relid    oid NOT NULL,
    seq      bigint NOT NULL,
    xid      bigint NOT NULL,
    -- What the table's rows look like from here on, where that is new.
    relation bytea,
    changes  bytea NOT NULL,
    -- The last change goes on in the table's next row.
    more     boolean NOT NULL,
    PRIMARY KEY (relid, seq)
);

ALTER TABLE scry_shadow.kept ALTER COLUMN changes SET STORAGE EXTERNAL;
