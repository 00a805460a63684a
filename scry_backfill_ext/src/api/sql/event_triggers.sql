-- That the schema has changed stands in the WAL, in the transaction that
-- changed it: a message of a few bytes. What has changed is read by the
-- decoder when it comes to that place. Nothing of that may fail a user's command;
-- without these triggers the decoder still notices changed columns.

CREATE FUNCTION scry_backfill.note_ddl() RETURNS pg_catalog.event_trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'note_ddl_wrapper';

CREATE EVENT TRIGGER scry_backfill_ddl ON ddl_command_end
    WHEN TAG IN (
        'ALTER AGGREGATE', 'ALTER COLLATION', 'ALTER CONVERSION', 'ALTER DOMAIN',
        'ALTER EXTENSION', 'ALTER FOREIGN DATA WRAPPER', 'ALTER FOREIGN TABLE', 'ALTER FUNCTION', 'ALTER INDEX',
        'ALTER LANGUAGE', 'ALTER MATERIALIZED VIEW', 'ALTER OPERATOR', 'ALTER OPERATOR CLASS',
        'ALTER OPERATOR FAMILY', 'ALTER POLICY', 'ALTER PROCEDURE', 'ALTER ROUTINE', 'ALTER RULE', 'ALTER SCHEMA',
        'ALTER SEQUENCE', 'ALTER SERVER', 'ALTER STATISTICS', 'ALTER TABLE', 'ALTER TEXT SEARCH CONFIGURATION',
        'ALTER TEXT SEARCH DICTIONARY', 'ALTER TEXT SEARCH PARSER', 'ALTER TEXT SEARCH TEMPLATE', 'ALTER TRIGGER',
        'ALTER TYPE', 'ALTER VIEW', 'COMMENT', 'CREATE ACCESS METHOD', 'CREATE AGGREGATE', 'CREATE CAST',
        'CREATE COLLATION', 'CREATE CONVERSION', 'CREATE DOMAIN', 'CREATE EXTENSION', 'CREATE FOREIGN DATA WRAPPER',
        'CREATE FOREIGN TABLE', 'CREATE FUNCTION', 'CREATE INDEX', 'CREATE LANGUAGE', 'CREATE MATERIALIZED VIEW',
        'CREATE OPERATOR', 'CREATE OPERATOR CLASS', 'CREATE OPERATOR FAMILY', 'CREATE POLICY', 'CREATE PROCEDURE',
        'CREATE RULE', 'CREATE SCHEMA', 'CREATE SEQUENCE', 'CREATE SERVER', 'CREATE STATISTICS', 'CREATE TABLE',
        'CREATE TABLE AS', 'CREATE TEXT SEARCH CONFIGURATION', 'CREATE TEXT SEARCH DICTIONARY',
        'CREATE TEXT SEARCH PARSER', 'CREATE TEXT SEARCH TEMPLATE', 'CREATE TRANSFORM', 'CREATE TRIGGER',
        'CREATE TYPE', 'CREATE VIEW', 'IMPORT FOREIGN SCHEMA', 'REFRESH MATERIALIZED VIEW', 'SELECT INTO')
    EXECUTE FUNCTION scry_backfill.note_ddl();

CREATE EVENT TRIGGER scry_backfill_drop ON sql_drop
    EXECUTE FUNCTION scry_backfill.note_ddl();

CREATE EVENT TRIGGER scry_backfill_rewrite ON table_rewrite
    EXECUTE FUNCTION scry_backfill.note_ddl();

-- Refuses to drop the extension while a job runs, before the command locks anything.
CREATE EVENT TRIGGER scry_backfill_keep ON ddl_command_start
    WHEN TAG IN ('DROP EXTENSION', 'DROP OWNED')
    EXECUTE FUNCTION scry_backfill.note_ddl();

-- Also in sessions that apply somebody else's replication.
ALTER EVENT TRIGGER scry_backfill_ddl ENABLE ALWAYS;
ALTER EVENT TRIGGER scry_backfill_drop ENABLE ALWAYS;
ALTER EVENT TRIGGER scry_backfill_rewrite ENABLE ALWAYS;
ALTER EVENT TRIGGER scry_backfill_keep ENABLE ALWAYS;

REVOKE ALL ON FUNCTION scry_backfill.note_ddl() FROM PUBLIC;
