-- What CREATE EXTENSION makes, and who may use it.

-- A schema that somebody else made is not taken over.
CREATE ROLE scry_planter;
GRANT CREATE ON DATABASE regression TO scry_planter;
SET ROLE scry_planter;
CREATE SCHEMA scry_backfill;
RESET ROLE;
CREATE EXTENSION scry_backfill;
DROP SCHEMA scry_backfill;
REVOKE CREATE ON DATABASE regression FROM scry_planter;
DROP ROLE scry_planter;

CREATE EXTENSION scry_backfill;
SELECT extrelocatable, extnamespace::regnamespace FROM pg_extension WHERE extname = 'scry_backfill';

-- Functions: none for PUBLIC, none SECURITY DEFINER.
SELECT p.proname, pg_get_function_arguments(p.oid) AS arguments, p.prosecdef,
    has_function_privilege('pg_monitor', p.oid, 'EXECUTE') AS monitor
FROM pg_proc AS p
WHERE p.pronamespace = 'scry_backfill'::regnamespace
ORDER BY p.proname;
SELECT p.proname
FROM pg_proc AS p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a
WHERE p.pronamespace = 'scry_backfill'::regnamespace AND a.grantee = 0;

-- Tables and views.
SELECT c.relname, c.relkind, coalesce(array_to_string(c.relacl, ' '), '') AS acl
FROM pg_class AS c
WHERE c.relnamespace = 'scry_backfill'::regnamespace AND c.relkind IN ('r', 'v')
ORDER BY c.relname;
SELECT a.attname, format_type(a.atttypid, NULL)
FROM pg_attribute AS a
WHERE a.attrelid = 'scry_backfill.status'::regclass
ORDER BY a.attnum;
SELECT * FROM scry_backfill.progress;
SELECT * FROM scry_backfill.tables;
SELECT count(*) FROM scry_backfill.status;

-- Everything belongs to the extension.
SELECT c.oid::regclass
FROM pg_class AS c
WHERE c.relnamespace = 'scry_backfill'::regnamespace AND c.relkind IN ('r', 'v')
    AND NOT EXISTS (SELECT FROM pg_depend AS d
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e');

-- Settings.
SELECT name, context, vartype, unit, boot_val, min_val, max_val
FROM pg_settings WHERE name LIKE 'scry\_backfill.%' ORDER BY name;
ALTER SYSTEM SET scry_backfill.endpoint = 'http://192.0.2.1:80';
ALTER SYSTEM SET scry_backfill.endpoint = 'ftp://127.0.0.1:1';
ALTER SYSTEM SET scry_backfill.endpoint = 'not a url';
ALTER SYSTEM SET scry_backfill.endpoint = 'https://';
ALTER SYSTEM SET scry_backfill.endpoint = 'https://host:99999';
ALTER SYSTEM SET scry_backfill.sender = 'nobody';
ALTER SYSTEM SET scry_backfill.snapshot_workers = 0;
SET scry_backfill.endpoint = 'https://elsewhere:1';
SET scry_backfill.unheard_of = 1;

DROP EXTENSION scry_backfill;
SELECT count(*) FROM pg_namespace WHERE nspname = 'scry_backfill';
CREATE EXTENSION scry_backfill;
