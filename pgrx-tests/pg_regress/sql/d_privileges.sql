-- Roles: what PUBLIC, an operator and a monitor may do.

CREATE ROLE scry_plain;
CREATE ROLE scry_operator;
CREATE ROLE scry_monitor IN ROLE pg_monitor;
GRANT USAGE ON SCHEMA scry_backfill TO scry_plain, scry_operator;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA scry_backfill TO scry_operator;
CREATE SCHEMA closed;
CREATE TABLE closed.inside (id int PRIMARY KEY);
CREATE TABLE secret (id int PRIMARY KEY);
CREATE TABLE guarded (id int PRIMARY KEY);
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
CREATE TABLE part_secret (id int PRIMARY KEY, hidden text);
GRANT SELECT ON users, guarded, closed.inside TO scry_operator;
GRANT SELECT ON events_log TO scry_operator;
GRANT SELECT (id) ON part_secret TO scry_operator;

SET ROLE scry_plain;
SELECT scry_backfill.start('users');
SELECT scry_backfill.stop();
SELECT scry_backfill.pause();
SELECT scry_backfill.resume();
SELECT scry_backfill.wait_for_shadow();
SELECT * FROM scry_backfill.check();
SELECT * FROM scry_backfill.status;
SELECT * FROM scry_backfill.events;
SELECT * FROM scry_backfill.job;

SET ROLE scry_operator;
SELECT scry_backfill.start('secret');
SELECT scry_backfill.start('users,secret');
SELECT scry_backfill.start('part_secret');
SELECT scry_backfill.start('guarded');
SELECT scry_backfill.start('closed.inside');
SELECT scry_backfill.start('public.*', options => '{"keyless": "skip"}') IS NULL;
-- Who may read a parent may read its children through it.
BEGIN;
SELECT * FROM scry_backfill.start('events_log*', job => 'parts');
ROLLBACK;
SELECT * FROM scry_backfill.job;
BEGIN;
SELECT * FROM scry_backfill.start('users', job => 'operators');
SELECT current_user;
SHOW search_path;
ROLLBACK;
SELECT current_user;

SET ROLE scry_monitor;
SELECT count(*) FROM scry_backfill.status;
SELECT count(*) FROM scry_backfill.progress;
SELECT count(*) FROM scry_backfill.tables;
SELECT count(*) >= 0 FROM scry_backfill.events;
SELECT scry_backfill.stop();
RESET ROLE;

-- After an error inside a block the caller is the caller again.
SET ROLE scry_operator;
DO $$
BEGIN
    PERFORM scry_backfill.start('secret');
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'as %, path %: %', current_user, current_setting('search_path'), sqlerrm;
END $$;
RESET ROLE;

-- Objects planted along the search_path are not found: neither operators nor
-- functions nor temporary tables.
CREATE SCHEMA planted;
CREATE FUNCTION planted.trap(oid, oid) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped'; END $$;
CREATE OPERATOR planted.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = planted.trap);
CREATE FUNCTION planted.trap_text(text, text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped'; END $$;
CREATE OPERATOR planted.= (LEFTARG = text, RIGHTARG = text, FUNCTION = planted.trap_text);
CREATE FUNCTION planted.count(anyelement) RETURNS int8 LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped'; END $$;
CREATE FUNCTION planted.now() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped'; END $$;
CREATE FUNCTION planted.format(text, VARIADIC text[]) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped'; END $$;
CREATE TEMP TABLE pg_class (oid oid, relname name);
CREATE TEMP TABLE pg_namespace (oid oid, nspname name);
SET search_path = planted, pg_temp, public, pg_catalog;
BEGIN;
SELECT * FROM scry_backfill.start('public.users', job => 'traps');
SELECT schema_name, table_name FROM scry_backfill.tables;
SELECT job, mode FROM scry_backfill.status;
DO $$ BEGIN PERFORM scry_backfill."check"('public.users'); END $$;
ROLLBACK;
RESET search_path;
DROP TABLE pg_temp.pg_class, pg_temp.pg_namespace;
DROP SCHEMA planted CASCADE;

DROP OWNED BY scry_plain, scry_operator;
DROP ROLE scry_plain, scry_operator, scry_monitor;
