-- What the snapshots of the copy saw: an interrupted copy goes on under a later
-- one. Changes that a table's own snapshot saw are on the shadow with its rows,
-- and may wait in the platform's journal all the same.

CREATE TABLE scry_shadow.copy_round (
    copy_id  bigint PRIMARY KEY,
    -- As pg_current_snapshot() writes it; empty for the slot's own, after which
    -- the stream begins.
    snapshot text NOT NULL
);
