-- Functions, defaults, views and what needs what.
CREATE TABLE shop.audit (id int PRIMARY KEY, what text, at timestamptz DEFAULT now());

-- Default <- function that takes the table's own row type.
CREATE TABLE shop.circle (id int, v int);
CREATE FUNCTION shop.of_circle(shop.circle) RETURNS int LANGUAGE sql AS 'SELECT ($1).id';
ALTER TABLE shop.circle ALTER COLUMN v SET DEFAULT shop.of_circle(NULL);

-- View <- function <- default: in another table.
CREATE VIEW shop.active AS SELECT id, name FROM shop.users WHERE name <> '';
CREATE FUNCTION shop.count_active() RETURNS bigint LANGUAGE sql STABLE BEGIN ATOMIC SELECT count(*) FROM shop.active; END;
CREATE TABLE shop.counts (n bigint DEFAULT shop.count_active(), s text DEFAULT lower('X'));

-- A view and a function that need each other.
CREATE VIEW shop.mutual AS SELECT id, name::varchar(10) AS name, name COLLATE "C" AS cname FROM shop.users;
CREATE FUNCTION shop.of_mutual(shop.mutual) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE OR REPLACE VIEW shop.mutual AS SELECT id, name::varchar(10) AS name, name COLLATE "C" AS cname FROM shop.users
    WHERE shop.of_mutual(NULL) = 1;

-- A view that needs a primary key.
CREATE VIEW shop.grouped AS SELECT u.id, u.name, u.born, count(o.id) AS orders
    FROM shop.users AS u LEFT JOIN shop.orders AS o ON o.user_id = u.id GROUP BY u.id;
CREATE FUNCTION shop.of_grouped() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM shop.grouped; END;
CREATE TABLE shop.late_default (n bigint DEFAULT shop.of_grouped());

CREATE VIEW shop.barrier WITH (security_barrier = true, security_invoker = true) AS
    SELECT id, name FROM shop.users WHERE id > 5 WITH LOCAL CHECK OPTION;
CREATE VIEW shop.cascaded AS SELECT id, name FROM shop.barrier WITH CASCADED CHECK OPTION;
ALTER VIEW shop.cascaded ALTER COLUMN name SET DEFAULT 'nobody';
ALTER VIEW shop.cascaded RENAME COLUMN name TO "the ""name""";
COMMENT ON VIEW shop.cascaded IS 'a view';
COMMENT ON COLUMN shop.cascaded."the ""name""" IS 'its column';
CREATE RECURSIVE VIEW shop.numbers (n) AS VALUES (1) UNION ALL SELECT n + 1 FROM numbers WHERE n < 10;
CREATE VIEW shop.constants AS SELECT 1 AS one, 'x'::text AS x;

CREATE MATERIALIZED VIEW shop.totals WITH (fillfactor = 90) AS SELECT user_id, count(*) AS n FROM shop.orders GROUP BY user_id;
CREATE UNIQUE INDEX totals_user ON shop.totals (user_id);
CREATE MATERIALIZED VIEW shop.above AS SELECT max(n) AS n FROM shop.totals;
CREATE MATERIALIZED VIEW shop.a_not_filled AS SELECT n, 'x'::text AS t FROM shop.above WITH NO DATA;
ALTER MATERIALIZED VIEW shop.a_not_filled ALTER COLUMN t SET STATISTICS 5;
ALTER MATERIALIZED VIEW shop.a_not_filled ALTER COLUMN t SET STORAGE PLAIN;
COMMENT ON MATERIALIZED VIEW shop.totals IS 'sums';
COMMENT ON COLUMN shop.totals.n IS 'count';
CREATE VIEW shop.over_matview AS SELECT * FROM shop.totals;

-- Functions of all sorts.
CREATE FUNCTION shop.many(a int, VARIADIC rest text[] DEFAULT '{}', OUT x int, OUT y text) RETURNS SETOF record
    LANGUAGE plpgsql STABLE PARALLEL SAFE COST 5 ROWS 7 SET search_path TO shop, pg_temp SET work_mem = '5MB'
    AS $body$ BEGIN x := a; y := $$a 'quoted' "word"$$; RETURN NEXT; END $body$;
CREATE FUNCTION shop.many(a text) RETURNS TABLE (t text, n int) LANGUAGE sql STRICT SECURITY DEFINER AS 'SELECT $1, 1';
CREATE FUNCTION shop.missing_inside() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION shop.generic(anyelement, anyarray) RETURNS anyelement LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE PROCEDURE shop.proc(INOUT a int, b text DEFAULT 'x;y') LANGUAGE plpgsql AS $$ BEGIN a := a + 1; COMMIT; END $$;
COMMENT ON FUNCTION shop.many(text) IS 'many';
COMMENT ON PROCEDURE shop.proc(int, text) IS 'procedure';
CREATE FUNCTION shop.plus(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT coalesce($1, 0) + coalesce($2, 0)';
CREATE FUNCTION shop.done(int) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1::text';
CREATE AGGREGATE shop.total(int) (SFUNC = shop.plus, STYPE = int, FINALFUNC = shop.done, INITCOND = '0',
    COMBINEFUNC = shop.plus, PARALLEL = SAFE, MSFUNC = shop.plus, MINVFUNC = shop.plus, MSTYPE = int, MFINALFUNC = shop.done, MINITCOND = '1');
CREATE AGGREGATE shop.biggest(int) (SFUNC = int4larger, STYPE = int, SORTOP = OPERATOR(pg_catalog.>));
CREATE FUNCTION shop.count_step(bigint) RETURNS bigint LANGUAGE sql AS 'SELECT $1 + 1';
CREATE AGGREGATE shop.count_all(*) (SFUNC = shop.count_step, STYPE = bigint, INITCOND = '0');
COMMENT ON AGGREGATE shop.total(int) IS 'sum';

-- An index and a generated column over functions.
CREATE FUNCTION shop.norm(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN shop.norm_inner(t); END $$;
CREATE FUNCTION shop.norm_inner(t text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)';
CREATE TABLE shop.normed (id int PRIMARY KEY, t text, n text GENERATED ALWAYS AS (shop.norm(t)) STORED);
CREATE INDEX normed_index ON shop.normed (shop.norm(t));
ALTER TABLE shop.normed ADD CHECK (shop.norm(t) <> 'x');
INSERT INTO shop.normed (id, t) VALUES (1, 'ABC'), (2, NULL);
