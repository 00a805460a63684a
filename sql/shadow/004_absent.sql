-- Tables of the source that this shadow does not have, or not in the shape that
-- their rows need: it could not make them. Their changes are counted, not tried.

ALTER TABLE scry_shadow.quarantined ADD COLUMN absent boolean NOT NULL DEFAULT false;
