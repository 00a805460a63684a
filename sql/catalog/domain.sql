-- Domains with their constraints.  NOT NULL is a flag here; PostgreSQL 17 and later also keep
-- a constraint for it, which is not listed.
SELECT pg_catalog.json_build_object(
    'oid', t.oid::bigint,
    'schema', n.nspname,
    'name', t.typname,
    'base', pg_catalog.json_build_object(
        'schema', bn.nspname, 'name', b.typname,
        'sql', pg_catalog.format_type(t.typbasetype, t.typtypmod)),
    'collation', CASE WHEN t.typcollation OPERATOR(pg_catalog.<>) b.typcollation
        THEN pg_catalog.json_build_object('schema', cn.nspname, 'name', c.collname) END,
    'not_null', t.typnotnull,
    'default', COALESCE(pg_catalog.pg_get_expr(t.typdefaultbin, 0),
                        pg_catalog.quote_literal(t.typdefault)),
    'constraints', COALESCE((
        SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
            'oid', k.oid::bigint,
            'name', k.conname,
            'definition', pg_catalog.pg_get_constraintdef(k.oid),
            'validated', k.convalidated,
            'comment', (
        SELECT text.description
        FROM pg_catalog.pg_description AS text
        WHERE text.objoid OPERATOR(pg_catalog.=) k.oid AND text.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_constraint'::pg_catalog.regclass
          AND text.objsubid OPERATOR(pg_catalog.=) 0)) ORDER BY k.conname)
        FROM pg_catalog.pg_constraint AS k
        WHERE k.contypid OPERATOR(pg_catalog.=) t.oid AND k.contype OPERATOR(pg_catalog.=) 'c'), '[]'::pg_catalog.json),
    'comment', (
        SELECT text.description
        FROM pg_catalog.pg_description AS text
        WHERE text.objoid OPERATOR(pg_catalog.=) t.oid AND text.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
          AND text.objsubid OPERATOR(pg_catalog.=) 0)) AS entry
FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS want (oid)
JOIN pg_catalog.pg_type AS t ON t.oid OPERATOR(pg_catalog.=) want.oid
JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) t.typnamespace
JOIN pg_catalog.pg_type AS b ON b.oid OPERATOR(pg_catalog.=) t.typbasetype
JOIN pg_catalog.pg_namespace AS bn ON bn.oid OPERATOR(pg_catalog.=) b.typnamespace
LEFT JOIN pg_catalog.pg_collation AS c ON c.oid OPERATOR(pg_catalog.=) t.typcollation
LEFT JOIN pg_catalog.pg_namespace AS cn ON cn.oid OPERATOR(pg_catalog.=) c.collnamespace
WHERE t.typtype OPERATOR(pg_catalog.=) 'd'
ORDER BY n.nspname, t.typname
