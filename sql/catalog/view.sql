-- Views.  Columns stand here for comments, defaults, and for a stand-in where views and
-- functions need each other.
SELECT pg_catalog.json_build_object(
    'oid', c.oid::bigint,
    'schema', n.nspname,
    'name', c.relname,
    'definition', pg_catalog.pg_get_viewdef(c.oid),
    'options', COALESCE(pg_catalog.to_json(c.reloptions), '[]'::pg_catalog.json),
    'columns', COALESCE((
        SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
            'attnum', a.attnum,
            'name', a.attname,
            'type', pg_catalog.json_build_object(
                'schema', tn.nspname, 'name', t.typname,
                'sql', pg_catalog.format_type(a.atttypid, a.atttypmod)),
            'collation', CASE WHEN a.attcollation OPERATOR(pg_catalog.<>) t.typcollation
                THEN pg_catalog.json_build_object('schema', cn.nspname, 'name', co.collname) END,
            'default', CASE WHEN d.oid IS NOT NULL THEN pg_catalog.json_build_object(
                'oid', d.oid::bigint, 'sql', pg_catalog.pg_get_expr(d.adbin, d.adrelid)) END,
            'comment', (
                SELECT text.description
                FROM pg_catalog.pg_description AS text
                WHERE text.objoid OPERATOR(pg_catalog.=) c.oid AND text.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
                  AND text.objsubid OPERATOR(pg_catalog.=) a.attnum)) ORDER BY a.attnum)
        FROM pg_catalog.pg_attribute AS a
        JOIN pg_catalog.pg_type AS t ON t.oid OPERATOR(pg_catalog.=) a.atttypid
        JOIN pg_catalog.pg_namespace AS tn ON tn.oid OPERATOR(pg_catalog.=) t.typnamespace
        LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid OPERATOR(pg_catalog.=) a.attrelid AND d.adnum OPERATOR(pg_catalog.=) a.attnum
        LEFT JOIN pg_catalog.pg_collation AS co ON co.oid OPERATOR(pg_catalog.=) a.attcollation
        LEFT JOIN pg_catalog.pg_namespace AS cn ON cn.oid OPERATOR(pg_catalog.=) co.collnamespace
        WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped), '[]'::pg_catalog.json),
    'comment', (
        SELECT text.description
        FROM pg_catalog.pg_description AS text
        WHERE text.objoid OPERATOR(pg_catalog.=) c.oid AND text.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
          AND text.objsubid OPERATOR(pg_catalog.=) 0)) AS entry
FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS want (oid)
JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) want.oid
JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE c.relkind OPERATOR(pg_catalog.=) 'v'
ORDER BY n.nspname, c.relname
