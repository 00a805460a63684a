-- Composite types made by CREATE TYPE; attributes by attnum, dropped ones left out.
SELECT pg_catalog.json_build_object(
    'oid', t.oid::bigint,
    'schema', n.nspname,
    'name', t.typname,
    'attributes', COALESCE((
        SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
            'attnum', a.attnum,
            'name', a.attname,
            'type', pg_catalog.json_build_object(
                'schema', an.nspname, 'name', ty.typname,
                'sql', pg_catalog.format_type(a.atttypid, a.atttypmod)),
            'collation', CASE WHEN a.attcollation OPERATOR(pg_catalog.<>) ty.typcollation
                THEN pg_catalog.json_build_object('schema', cn.nspname, 'name', c.collname) END,
            'comment', (
                SELECT text.description
                FROM pg_catalog.pg_description AS text
                WHERE text.objoid OPERATOR(pg_catalog.=) a.attrelid AND text.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
                  AND text.objsubid OPERATOR(pg_catalog.=) a.attnum)) ORDER BY a.attnum)
        FROM pg_catalog.pg_attribute AS a
        JOIN pg_catalog.pg_type AS ty ON ty.oid OPERATOR(pg_catalog.=) a.atttypid
        JOIN pg_catalog.pg_namespace AS an ON an.oid OPERATOR(pg_catalog.=) ty.typnamespace
        LEFT JOIN pg_catalog.pg_collation AS c ON c.oid OPERATOR(pg_catalog.=) a.attcollation
        LEFT JOIN pg_catalog.pg_namespace AS cn ON cn.oid OPERATOR(pg_catalog.=) c.collnamespace
        WHERE a.attrelid OPERATOR(pg_catalog.=) t.typrelid AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped), '[]'::pg_catalog.json),
    'comment', (
        SELECT text.description
        FROM pg_catalog.pg_description AS text
        WHERE text.objoid OPERATOR(pg_catalog.=) t.oid AND text.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
          AND text.objsubid OPERATOR(pg_catalog.=) 0)) AS entry
FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS want (oid)
JOIN pg_catalog.pg_type AS t ON t.oid OPERATOR(pg_catalog.=) want.oid
JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) t.typnamespace
JOIN pg_catalog.pg_class AS k ON k.oid OPERATOR(pg_catalog.=) t.typrelid AND k.relkind OPERATOR(pg_catalog.=) 'c'
WHERE t.typtype OPERATOR(pg_catalog.=) 'c'
ORDER BY n.nspname, t.typname
