-- From 0.1.0 to 0.2.0. What it makes must be what a new installation makes:
-- e2e::lifecycle::an_upgrade_ends_as_a_new_installation compares them.

\echo Use "ALTER EXTENSION scry_backfill UPDATE TO '0.2.0'" to load this file. \quit

ALTER TABLE scry_backfill.job ADD COLUMN left_alone pg_catalog.text[] NOT NULL DEFAULT '{}';

CREATE FUNCTION scry_backfill.create_roles()
RETURNS TABLE (role pg_catalog.text, privilege pg_catalog.text, made pg_catalog.bool)
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE ROWS 2
AS 'MODULE_PATHNAME', 'create_roles_wrapper';

REVOKE ALL ON FUNCTION scry_backfill.create_roles() FROM PUBLIC;

CREATE EVENT TRIGGER scry_backfill_keep ON ddl_command_start
    WHEN TAG IN ('DROP EXTENSION', 'DROP OWNED')
    EXECUTE FUNCTION scry_backfill.note_ddl();

ALTER EVENT TRIGGER scry_backfill_keep ENABLE ALWAYS;
