-- Extensions.
SELECT pg_catalog.jsonb_build_object(
    'oid', e.oid::bigint,
    'name', e.extname,
    'schema', n.nspname,
    'version', e.extversion,
    'relocatable', e.extrelocatable,
    'comment', pg_catalog.obj_description(e.oid, 'pg_extension')) AS entry
FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS want (oid)
JOIN pg_catalog.pg_extension AS e ON e.oid OPERATOR(pg_catalog.=) want.oid
JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) e.extnamespace
ORDER BY e.extname
