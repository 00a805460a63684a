-- How the list of tables is read, and what is refused by name.

CREATE SCHEMA shop;
CREATE TABLE orders (id int PRIMARY KEY);
CREATE TABLE users (id int PRIMARY KEY);
CREATE TABLE shop.orders (id int PRIMARY KEY);
CREATE TABLE shop."Order, ""Items""" (id int PRIMARY KEY);
CREATE TABLE shop.products (id int PRIMARY KEY);
CREATE VIEW a_view AS SELECT 1 AS one;
CREATE MATERIALIZED VIEW a_matview AS SELECT 1 AS one;
CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY);
CREATE TEMP TABLE passing (id int PRIMARY KEY);
CREATE FOREIGN DATA WRAPPER dummy;
CREATE SERVER far FOREIGN DATA WRAPPER dummy;
CREATE FOREIGN TABLE foreign_one (id int) SERVER far;
CREATE TABLE events_log (id int PRIMARY KEY, at date) PARTITION BY RANGE (id);
CREATE TABLE events_log_1 PARTITION OF events_log FOR VALUES FROM (1) TO (10);
CREATE TABLE events_log_2 PARTITION OF events_log FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (id);
CREATE TABLE events_log_2a PARTITION OF events_log_2 FOR VALUES FROM (10) TO (20);
CREATE TABLE animals (id int PRIMARY KEY);
CREATE TABLE cats (PRIMARY KEY (id)) INHERITS (animals);

-- What a list comes to, without starting anything.
CREATE FUNCTION selected(list text, options jsonb DEFAULT '{}') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    found text;
BEGIN
    PERFORM scry_backfill.start(list, options => options);
    SELECT string_agg(format('%I.%I', schema_name, table_name), ' ' ORDER BY schema_name, table_name)
        INTO found FROM scry_backfill.job_table;
    RAISE EXCEPTION USING ERRCODE = 'ZZ000', MESSAGE = found;
EXCEPTION WHEN SQLSTATE 'ZZ000' THEN
    RETURN sqlerrm;
END $$;

SELECT selected('orders');
SELECT selected(' Orders ,USERS');
SELECT selected('shop.orders, "users"');
SELECT selected('shop."Order, ""Items"""');
SELECT selected('shop.*');
SELECT selected('shop.o*, shop.pr?ducts');
SELECT selected('order*');
SELECT selected('events_log');
SELECT selected('events_log_2');
SELECT selected('animals');
SELECT selected('*.orders');
SELECT selected('*');
SELECT selected('*', '{"exclude": ["shop.*", "events*"]}');
SELECT selected('public.*', '{"include": "order*", "exclude": "users"}');
SET search_path = shop, public;
SELECT public.selected('orders, users');
RESET search_path;

-- Syntax.
SELECT scry_backfill.start('');
SELECT scry_backfill.start(' , ');
SELECT scry_backfill.start('orders,');
SELECT scry_backfill.start('orders users');
SELECT scry_backfill.start('orders,"unclosed');
SELECT scry_backfill.start('""');
SELECT scry_backfill.start('a.b.c');
SELECT scry_backfill.start('orders; DROP TABLE users');

-- Unknown.
SELECT scry_backfill.start('ordres,users');
SELECT scry_backfill.start('nothing_like_it');
SELECT scry_backfill.start('products');
SELECT scry_backfill.start('public.products');
SELECT scry_backfill.start('nowhere.*');
SELECT scry_backfill.start('"Orders"');

-- Not tables, or not ours to copy.
SELECT scry_backfill.start('a_view');
SELECT scry_backfill.start('a_matview');
SELECT scry_backfill.start('unlogged');
SELECT scry_backfill.start('passing');
SELECT scry_backfill.start('foreign_one');
SELECT scry_backfill.start('pg_class');
SELECT scry_backfill.start('pg_catalog.pg_authid');
SELECT scry_backfill.start('scry_backfill.job');
SELECT scry_backfill.start('users, a_view, nothing_like_it');

-- Keys.
CREATE TABLE keyless (a int);
CREATE TABLE unidentified (id int PRIMARY KEY);
ALTER TABLE unidentified REPLICA IDENTITY NOTHING;
CREATE TABLE by_index (a int NOT NULL UNIQUE);
ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_a_key;
CREATE TABLE by_row (a int);
ALTER TABLE by_row REPLICA IDENTITY FULL;
CREATE TABLE late_key (id int PRIMARY KEY DEFERRABLE);
SELECT selected('by_index, by_row');
SELECT scry_backfill.start('users,keyless');
SELECT scry_backfill.start('unidentified,keyless,late_key');
SELECT selected('users,keyless', '{"keyless": "skip"}');
SELECT selected('users,keyless', '{"keyless": "inserts_only"}');
SELECT scry_backfill.start('users,keyless', options => '{"keyless": "resync"}');

-- Foreign keys to tables that are not selected.
CREATE TABLE invoices (id int PRIMARY KEY, user_id int REFERENCES users);
SELECT selected('invoices');
SELECT selected('invoices, users');

-- Types whose values nothing can write.
CREATE SCHEMA grove;
CREATE DOMAIN grove.tree AS pg_node_tree;
CREATE TABLE grove.trees (id int PRIMARY KEY, "a tree" grove.tree);
CREATE TABLE grove.paths (id int PRIMARY KEY, t grove.tree);
INSERT INTO grove.trees SELECT 1, ev_action FROM pg_rewrite LIMIT 1;
INSERT INTO grove.paths VALUES (1, NULL);
SELECT scry_backfill.start('grove.*');
SELECT selected('grove.*', '{"exclude": ["grove.trees"]}');
SELECT level, object, finding FROM scry_backfill.check('grove.*') WHERE finding ~ 'trees';

SELECT count(*) FROM scry_backfill.job;
SELECT count(*) FROM pg_replication_slots;
