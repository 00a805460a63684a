-- More of what pg_dump knows: functions, tables, triggers, rules, keys of every sort.
CREATE EXTENSION ltree; CREATE EXTENSION cube WITH SCHEMA ext; CREATE EXTENSION earthdistance WITH SCHEMA ext;
CREATE EXTENSION pg_trgm WITH SCHEMA ext; CREATE EXTENSION "uuid-ossp"; CREATE EXTENSION intarray;
CREATE EXTENSION isn; CREATE EXTENSION seg; CREATE EXTENSION lo; CREATE EXTENSION tablefunc; CREATE EXTENSION pgcrypto;
CREATE EXTENSION fuzzystrmatch; CREATE EXTENSION moddatetime; CREATE EXTENSION bloom; CREATE EXTENSION btree_gin;
CREATE EXTENSION dict_int; CREATE EXTENSION dict_xsyn; CREATE EXTENSION tcn; CREATE EXTENSION xml2; CREATE EXTENSION refint;
COMMENT ON EXTENSION ltree IS 'trees of ours';

CREATE TABLE shop.of_extensions (
    id uuid DEFAULT uuid_generate_v4() PRIMARY KEY, path ltree, q lquery, c ext.cube, book isbn13, s seg, big lo,
    ints int[], name text, hashed text GENERATED ALWAYS AS (encode(digest(name, 'sha256'), 'hex')) STORED, changed timestamp);
CREATE INDEX ON shop.of_extensions USING gist (path);
CREATE INDEX ON shop.of_extensions USING gin (name ext.gin_trgm_ops);
CREATE INDEX ON shop.of_extensions USING gist (name ext.gist_trgm_ops (siglen = 32));
CREATE INDEX ON shop.of_extensions USING gin (ints gin__int_ops);
CREATE INDEX ON shop.of_extensions USING bloom (name) WITH (length = 80, col1 = 2);
CREATE TRIGGER stamped BEFORE UPDATE ON shop.of_extensions FOR EACH ROW EXECUTE FUNCTION moddatetime(changed);

-- Unlogged, with all that belongs to it.
CREATE UNLOGGED TABLE shop.unlogged (a serial PRIMARY KEY, b int GENERATED ALWAYS AS IDENTITY, c text UNIQUE,
    user_id bigint REFERENCES shop.users);
CREATE INDEX unlogged_c ON shop.unlogged (lower(c));
ALTER TABLE shop.unlogged REPLICA IDENTITY USING INDEX unlogged_pkey;
CREATE VIEW shop.over_unlogged AS SELECT a FROM shop.unlogged;
CREATE UNLOGGED SEQUENCE shop.unlogged_sequence;
ALTER SEQUENCE shop.unlogged_b_seq SET LOGGED;
COMMENT ON TABLE shop.unlogged IS 'not in the WAL';

-- Keys: circular, to itself, to a partitioned table, SET NULL of some columns.
CREATE TABLE shop.hen (id int PRIMARY KEY, egg int);
CREATE TABLE shop.egg (id int PRIMARY KEY, hen int REFERENCES shop.hen DEFERRABLE);
ALTER TABLE shop.hen ADD FOREIGN KEY (egg) REFERENCES shop.egg DEFERRABLE INITIALLY DEFERRED;
CREATE TABLE shop.tenant (id int, part int, up int, PRIMARY KEY (id, part),
    FOREIGN KEY (id, up) REFERENCES shop.tenant (id, part) ON DELETE SET NULL (up) ON UPDATE SET DEFAULT);
CREATE TABLE shop.many_keys (a int UNIQUE DEFERRABLE, b int, c int, EXCLUDE (a WITH =, b WITH =) INCLUDE (c) WITH (fillfactor = 70),
    EXCLUDE USING gist ((int4range(a, b)) WITH &&) WHERE (c > 0) INITIALLY DEFERRED,
    CHECK (a > 0) NO INHERIT, CONSTRAINT "no ""name""" CHECK (b IS DISTINCT FROM c), UNIQUE NULLS NOT DISTINCT (b) INCLUDE (c));
CREATE TABLE shop.pk_include (a int, b int, c box, CONSTRAINT pk_included PRIMARY KEY (a) INCLUDE (b, c));

-- Partitions of every sort; keys on, to and under them; foreign keys with NOT VALID on a leaf.
CREATE TABLE shop.by_hash (id int, tenant int, PRIMARY KEY (id, tenant)) PARTITION BY HASH (tenant, id);
CREATE TABLE shop.by_hash_0 PARTITION OF shop.by_hash FOR VALUES WITH (MODULUS 4, REMAINDER 0) PARTITION BY LIST (tenant);
CREATE TABLE shop.by_hash_0_null PARTITION OF shop.by_hash_0 DEFAULT;
CREATE TABLE shop.by_hash_1 (extra int, tenant int NOT NULL, id int NOT NULL);
ALTER TABLE shop.by_hash_1 DROP COLUMN extra;
ALTER TABLE shop.by_hash ATTACH PARTITION shop.by_hash_1 FOR VALUES WITH (MODULUS 4, REMAINDER 1);
CREATE TABLE shop.to_hash (id int, tenant int, note text, FOREIGN KEY (id, tenant) REFERENCES shop.by_hash ON DELETE CASCADE)
    PARTITION BY RANGE (id, tenant);
CREATE TABLE shop.to_hash_low PARTITION OF shop.to_hash (note DEFAULT 'low' NOT NULL, CHECK (id < 100))
    FOR VALUES FROM (MINVALUE, MINVALUE) TO (100, MAXVALUE);
CREATE TABLE shop.to_hash_high (id int, tenant int, note text, FOREIGN KEY (id, tenant) REFERENCES shop.by_hash ON DELETE CASCADE);
ALTER TABLE shop.to_hash ATTACH PARTITION shop.to_hash_high FOR VALUES FROM (1000, 0) TO (MAXVALUE, MAXVALUE);
CREATE TABLE shop.by_expr (t text, at date) PARTITION BY LIST (lower(t) COLLATE "C");
CREATE TABLE shop.by_expr_1 PARTITION OF shop.by_expr FOR VALUES IN ('a', NULL) WITH (autovacuum_enabled = off);
CREATE TABLE shop.empty_tree (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE INDEX on_parent ON ONLY shop.by_hash (tenant);
CREATE INDEX on_leaf ON shop.by_hash_1 (tenant);
ALTER INDEX shop.on_parent ATTACH PARTITION shop.on_leaf;
COMMENT ON INDEX shop.on_parent IS 'not complete';
ALTER TABLE shop.by_hash_1 CLUSTER ON by_hash_1_pkey;
ALTER TABLE shop.by_hash_1 REPLICA IDENTITY USING INDEX by_hash_1_pkey;
ALTER TABLE shop.by_hash_0_null REPLICA IDENTITY FULL;
CREATE STATISTICS shop.on_tree (dependencies) ON id, tenant FROM shop.by_hash;

-- Children by inheritance, put there later; other order, two parents, generated, dropped.
CREATE TABLE shop.parent_a (a int NOT NULL, b text DEFAULT 'b', CHECK (a > 0));
CREATE TABLE shop.parent_b (c int, a int NOT NULL);
CREATE TABLE shop.put_under (c int, gone int, b text, a int NOT NULL, own int GENERATED ALWAYS AS (c * 2) STORED,
    CONSTRAINT parent_a_a_check CHECK (a > 0));
ALTER TABLE shop.put_under DROP COLUMN gone;
ALTER TABLE shop.put_under INHERIT shop.parent_b;
ALTER TABLE shop.put_under INHERIT shop.parent_a;
CREATE TABLE shop.merged (own text) INHERITS (shop.parent_a, shop.parent_b);
ALTER TABLE shop.merged ALTER COLUMN b SET DEFAULT NULL;

-- Columns.
CREATE TABLE shop.columns (
    a int GENERATED BY DEFAULT AS IDENTITY (SEQUENCE NAME shop."Sequence of a" START -5 INCREMENT -1 MINVALUE -100 MAXVALUE -1 CYCLE),
    b text COMPRESSION pglz, c varchar(5)[] COLLATE "POSIX", d numeric(5,-2), e interval hour to minute,
    f timestamp(0), g bit varying(3)[], h "char"[], i name, j regclass DEFAULT 'shop.columns'::regclass, k pg_lsn, l xid8, m oidvector,
    n int2vector, o jsonpath, p tsquery, q macaddr8, r pg_snapshot, s int[3][4], t money DEFAULT '1.00'::money,
    u time with time zone DEFAULT '12:00+00', v text DEFAULT CURRENT_USER, w double precision DEFAULT 'NaN',
    x int DEFAULT NULL, y text DEFAULT E'\n\t\\', z shop.state[] DEFAULT ARRAY['new'::shop.state]);
ALTER TABLE shop.columns ALTER COLUMN a SET STATISTICS 0, ALTER COLUMN b SET (n_distinct = 5, n_distinct_inherited = -0.1);
ALTER TABLE shop.columns SET (autovacuum_vacuum_scale_factor = 0.05, toast_tuple_target = 4096, parallel_workers = 3,
    vacuum_truncate = false, user_catalog_table = true, toast.vacuum_index_cleanup = off);
CREATE TABLE shop."Order" ("select" int, "Select" int, "SELECT" int, "ünïcödé" int, "😀" int, "tab	in" int, "a.b" int, "a""b" int,
    PRIMARY KEY ("select", "Select"));
CREATE TABLE public."Order" ("select" int DEFAULT 1);
CREATE TABLE public.user_ () INHERITS (public."Order");

-- Functions.
CREATE FUNCTION shop.atomic(a int, b int DEFAULT 5) RETURNS TABLE (x int, y text) LANGUAGE sql STABLE
    BEGIN ATOMIC SELECT a + b, 'semi;colon'::text; SELECT id::int, name FROM shop.users WHERE id > a; END;
CREATE FUNCTION shop.returned(a int) RETURNS int LANGUAGE sql IMMUTABLE RETURN a + 1;
CREATE PROCEDURE shop.atomic_proc(a int, OUT b int) LANGUAGE sql BEGIN ATOMIC DELETE FROM shop.users WHERE id = a; SELECT a; END;
CREATE FUNCTION shop.poly(anycompatible, anycompatiblearray, VARIADIC anycompatiblearray) RETURNS anycompatible LANGUAGE sql
    AS 'SELECT $1';
CREATE FUNCTION shop.poly_range(anyrange, anymultirange) RETURNS anyelement LANGUAGE sql AS 'SELECT lower($1)';
CREATE FUNCTION shop.user_rows() RETURNS SETOF shop.users LANGUAGE sql ROWS 3 AS 'SELECT * FROM shop.users';
CREATE FUNCTION shop.with_types(shop.amount, shop.state[], shop.floats, ltree, OUT shop.address, INOUT text) LANGUAGE plpgsql
    SECURITY DEFINER CALLED ON NULL INPUT SET DateStyle TO 'ISO, DMY' SET search_path FROM CURRENT
    AS $outer$ BEGIN EXECUTE $$SELECT 'x'$$; END $outer$;
CREATE FUNCTION shop."fn $$ $function$"() RETURNS text LANGUAGE sql AS $x$ SELECT '$function$ $$'::text $x$;
CREATE FUNCTION shop.same_name(int) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION shop.same_name(text) RETURNS int LANGUAGE sql AS 'SELECT 2';
CREATE FUNCTION shop.same_name(VARIADIC int[]) RETURNS int LANGUAGE sql AS 'SELECT 3';
COMMENT ON FUNCTION shop.same_name(VARIADIC int[]) IS 'three';

-- A circle of function, default, view and function.
CREATE TABLE shop.ring (id int PRIMARY KEY, v int);
CREATE VIEW shop.ring_view AS SELECT id, v FROM shop.ring;
CREATE FUNCTION shop.ring_function(r shop.ring_view DEFAULT NULL) RETURNS int LANGUAGE sql STABLE BEGIN ATOMIC SELECT max(id) FROM shop.ring_view; END;
CREATE FUNCTION shop.ring_default() RETURNS int LANGUAGE sql STABLE BEGIN ATOMIC SELECT shop.ring_function(); END;
ALTER TABLE shop.ring ALTER COLUMN v SET DEFAULT shop.ring_default();
CREATE OR REPLACE VIEW shop.ring_view AS SELECT id, v FROM shop.ring WHERE shop.ring_default() IS NOT NULL;
CREATE POLICY ring_policy ON shop.ring USING (v = shop.ring_default());
ALTER TABLE shop.ring ENABLE ROW LEVEL SECURITY;

-- Views.
CREATE VIEW shop.no_view_columns AS SELECT;
CREATE VIEW shop.columns_differ (one, "Two words", three) AS SELECT 1, 'x'::text COLLATE "C", ARRAY[ROW(1, 'a')::shop.row_type];
CREATE VIEW shop.with_cte AS WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 5)
    SEARCH DEPTH FIRST BY n SET o CYCLE n SET c USING p SELECT n FROM t;
CREATE VIEW shop.grouping AS SELECT name, count(*) FILTER (WHERE id > 3) OVER w AS f, row_number() OVER w FROM shop.users
    GROUP BY GROUPING SETS ((name, id), ()) WINDOW w AS (ORDER BY id NULLS FIRST RANGE BETWEEN 1 PRECEDING AND CURRENT ROW);
CREATE VIEW shop.lateral_view AS SELECT u.id, x.* FROM shop.users AS u CROSS JOIN LATERAL ROWS FROM (unnest(ARRAY[1, 2]), generate_series(1, 3))
    WITH ORDINALITY AS x (a, b, n) WHERE u.name SIMILAR TO 'a%' AND u.born BETWEEN SYMMETRIC '2000-01-01' AND '1990-01-01';
CREATE VIEW shop.renamed AS SELECT u.id AS "User Id" FROM shop.users AS u;
ALTER VIEW shop.renamed RENAME COLUMN "User Id" TO "u""id";
ALTER TABLE shop.users RENAME COLUMN other TO "the other";
CREATE MATERIALIZED VIEW shop.unfilled (a, "B") WITH (autovacuum_enabled = false) AS SELECT id, name FROM shop.users WITH NO DATA;
CREATE INDEX unfilled_a ON shop.unfilled (a DESC);
CREATE MATERIALIZED VIEW shop.clustered AS SELECT id, name FROM shop.users;
CREATE UNIQUE INDEX clustered_id ON shop.clustered (id);
ALTER MATERIALIZED VIEW shop.clustered CLUSTER ON clustered_id;
ALTER MATERIALIZED VIEW shop.clustered ALTER COLUMN name SET (n_distinct = 5);
COMMENT ON INDEX shop.clustered_id IS 'of a matview';
CREATE STATISTICS shop.of_matview (mcv) ON id, name FROM shop.clustered;

-- Triggers and rules.
CREATE TABLE shop.triggered (id int PRIMARY KEY, "a b" int, c text);
CREATE TRIGGER "of ""columns""" BEFORE UPDATE OF "a b", c ON shop.triggered FOR EACH ROW
    WHEN (OLD.* IS DISTINCT FROM NEW.* AND NEW.c <> 'it''s') EXECUTE FUNCTION shop.keep();
CREATE TRIGGER tables AFTER INSERT ON shop.triggered REFERENCING NEW TABLE AS "new rows" FOR EACH STATEMENT EXECUTE FUNCTION shop.note_change('a');
CREATE CONSTRAINT TRIGGER deferred AFTER UPDATE OR DELETE ON shop.triggered DEFERRABLE INITIALLY IMMEDIATE FOR EACH ROW EXECUTE FUNCTION shop.note_change();
CREATE TRIGGER redundant BEFORE UPDATE ON shop.triggered FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
COMMENT ON TRIGGER "of ""columns""" ON shop.triggered IS 'of columns';
CREATE TRIGGER instead_of INSTEAD OF UPDATE OR DELETE ON shop.renamed FOR EACH ROW EXECUTE FUNCTION shop.keep();
CREATE RULE to_log AS ON INSERT TO shop.triggered WHERE NEW.id > 5 DO ALSO
    (INSERT INTO shop.audit (id, what) VALUES (NEW.id, 'rule'); UPDATE shop.audit SET what = 'x' WHERE id = NEW.id);
CREATE RULE instead AS ON DELETE TO shop.renamed DO INSTEAD DELETE FROM shop.users WHERE id = OLD."u""id" RETURNING id;
COMMENT ON RULE to_log ON shop.triggered IS 'to the log';
CREATE POLICY for_roles ON shop.triggered AS RESTRICTIVE FOR DELETE TO corpus_reader, pg_read_all_data USING ("a b" > 0);
CREATE POLICY inserted ON shop.triggered FOR INSERT WITH CHECK (c <> '');
