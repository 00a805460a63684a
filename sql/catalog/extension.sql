-- Extensions.
SELECT pg_catalog.json_build_object(
    'oid', e.oid::bigint,
    'name', e.extname,
    'schema', n.nspname,
    'version', e.extversion,
    'relocatable', e.extrelocatable,
    'comment', (
        SELECT text.description
        FROM pg_catalog.pg_description AS text
        WHERE text.objoid OPERATOR(pg_catalog.=) e.oid AND text.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
          AND text.objsubid OPERATOR(pg_catalog.=) 0)) AS entry
FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS want (oid)
JOIN pg_catalog.pg_extension AS e ON e.oid OPERATOR(pg_catalog.=) want.oid
JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) e.extnamespace
ORDER BY e.extname
