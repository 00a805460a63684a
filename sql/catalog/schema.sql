-- Schemas.
SELECT pg_catalog.jsonb_build_object(
    'oid', n.oid::bigint,
    'name', n.nspname,
    'comment', pg_catalog.obj_description(n.oid, 'pg_namespace')) AS entry
FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS want (oid)
JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) want.oid
ORDER BY n.nspname
