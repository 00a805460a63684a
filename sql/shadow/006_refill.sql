-- Materialized views that were filled while a table below them was on hold: they
-- are filled again when its rows are here.

CREATE TABLE scry_shadow.refill (
    relid oid PRIMARY KEY
);
