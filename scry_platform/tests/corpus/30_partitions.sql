-- Partition trees.
CREATE TABLE shop.events (
    id bigint NOT NULL, at timestamptz NOT NULL, kind text NOT NULL DEFAULT 'x', payload jsonb,
    PRIMARY KEY (id, at, kind), CONSTRAINT known CHECK (id > 0)
) PARTITION BY RANGE (at);
CREATE TABLE shop.events_2020 PARTITION OF shop.events FOR VALUES FROM ('2020-01-01 00:00+00') TO ('2021-01-01 00:00+00')
    PARTITION BY LIST (kind);
CREATE TABLE shop.events_2020_a PARTITION OF shop.events_2020 FOR VALUES IN ('a', 'it''s', NULL);
CREATE TABLE shop.events_2020_rest PARTITION OF shop.events_2020 DEFAULT PARTITION BY HASH (id);
CREATE TABLE shop.events_2020_rest_0 PARTITION OF shop.events_2020_rest FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE shop.events_2020_rest_1 PARTITION OF shop.events_2020_rest FOR VALUES WITH (MODULUS 2, REMAINDER 1)
    WITH (fillfactor = 80);
-- Other column order, a dropped column, an own default and an own index.
CREATE TABLE shop.events_old (gone int, payload jsonb, kind text NOT NULL DEFAULT 'old', at timestamptz NOT NULL, id bigint NOT NULL,
    CONSTRAINT known CHECK (id > 0));
ALTER TABLE shop.events_old DROP COLUMN gone;
ALTER TABLE shop.events ATTACH PARTITION shop.events_old FOR VALUES FROM (MINVALUE) TO ('2019-01-01 00:00+00');
CREATE INDEX events_old_own ON shop.events_old (kind);
CREATE TABLE shop.events_default PARTITION OF shop.events DEFAULT;
CREATE INDEX events_kind ON shop.events (kind, (payload ->> 'a'));
CREATE UNIQUE INDEX events_unique ON shop.events (at, id, kind);
ALTER TABLE shop.events ADD COLUMN user_id bigint REFERENCES shop.users (id);
CREATE INDEX events_only ON ONLY shop.events (user_id);
INSERT INTO shop.events (id, at, kind, user_id)
    SELECT i, timestamptz '2018-06-01 00:00+00' + i * interval '10 days', CASE WHEN i % 2 = 0 THEN 'a' ELSE 'b' END, 1000
    FROM generate_series(1, 150) AS i;
CREATE TABLE shop.refers_to_events (id bigint, at timestamptz, kind text,
    FOREIGN KEY (id, at, kind) REFERENCES shop.events);
CREATE TABLE shop.by_expression (a int, b text COLLATE "C") PARTITION BY RANGE ((a * 2), b COLLATE "C" text_pattern_ops);
CREATE TABLE shop.by_expression_1 PARTITION OF shop.by_expression FOR VALUES FROM (MINVALUE, MINVALUE) TO (10, 'm');
COMMENT ON TABLE shop.events_2020_a IS 'a leaf';
-- A plain index of the parent over a partition's key.
CREATE TABLE shop.keyed (a int NOT NULL) PARTITION BY LIST (a);
CREATE TABLE shop.keyed_1 PARTITION OF shop.keyed (PRIMARY KEY (a)) FOR VALUES IN (1);
CREATE UNIQUE INDEX keyed_a ON ONLY shop.keyed (a);
ALTER INDEX shop.keyed_a ATTACH PARTITION shop.keyed_1_pkey;
