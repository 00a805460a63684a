-- Collations.  The names of two columns changed in PostgreSQL 17 (colliculocale,
-- daticulocale), so the row is read as JSON.
SELECT pg_catalog.json_build_object(
    'oid', c.oid::bigint,
    'schema', n.nspname,
    'name', c.collname,
    'provider', c.collprovider,
    'deterministic', c.collisdeterministic,
    'encoding', CASE WHEN c.collencoding OPERATOR(pg_catalog.>=) 0 THEN pg_catalog.pg_encoding_to_char(c.collencoding) END,
    'collate', r.collrow OPERATOR(pg_catalog.->>) 'collcollate',
    'ctype', r.collrow OPERATOR(pg_catalog.->>) 'collctype',
    'locale', COALESCE(r.collrow OPERATOR(pg_catalog.->>) 'colllocale',
                       r.collrow OPERATOR(pg_catalog.->>) 'colliculocale'),
    'rules', r.collrow OPERATOR(pg_catalog.->>) 'collicurules',
    'comment', (
        SELECT text.description
        FROM pg_catalog.pg_description AS text
        WHERE text.objoid OPERATOR(pg_catalog.=) c.oid AND text.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_collation'::pg_catalog.regclass
          AND text.objsubid OPERATOR(pg_catalog.=) 0)) AS entry
FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS want (oid)
JOIN pg_catalog.pg_collation AS c ON c.oid OPERATOR(pg_catalog.=) want.oid
JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.collnamespace
CROSS JOIN LATERAL (SELECT pg_catalog.to_jsonb(c)) AS r (collrow)
ORDER BY n.nspname, c.collname, c.collencoding
