-- Rows of a former history: the source was copied and followed once, its slot
-- was lost, and a new copy begins. What is the source's still need not be sent.

-- Tables whose rows may be others than those of the copy's snapshot, until they
-- have been compared or copied.
CREATE TABLE scry_shadow.former (
    relid oid PRIMARY KEY
);

-- The schema was found to be the source's when the copy began: it is not made again.
ALTER TABLE scry_shadow.origin ADD COLUMN schema_kept boolean NOT NULL DEFAULT false;
