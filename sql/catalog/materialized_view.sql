-- Materialized views (pg_attver: see table.sql).  populated is a state: it says whether to refresh, and is not compared.
SELECT pg_catalog.json_build_object(
    'oid', c.oid::bigint,
    'schema', n.nspname,
    'name', c.relname,
    'definition', pg_catalog.pg_get_viewdef(c.oid),
    'access_method', am.amname,
    'options', COALESCE(pg_catalog.to_json(c.reloptions), '[]'::pg_catalog.json),
    'toast_options', COALESCE(pg_catalog.to_json(toast.reloptions), '[]'::pg_catalog.json),
    'populated', c.relispopulated,
    'columns', COALESCE((
        SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
            'attnum', a.attnum,
            'name', a.attname,
            'storage', CASE WHEN a.attstorage OPERATOR(pg_catalog.<>) t.typstorage THEN a.attstorage END,
            'compression', a.attcompression,
            'statistics', CASE WHEN a.attstattarget OPERATOR(pg_catalog.>=) 0 THEN a.attstattarget END,
            'options', CASE WHEN a.attoptions IS NULL THEN '[]'::pg_catalog.json ELSE COALESCE((
                SELECT pg_catalog.json_agg(u.option ORDER BY u.place)
                FROM pg_catalog.unnest(a.attoptions) WITH ORDINALITY AS u (option, place)
                WHERE NOT pg_catalog.starts_with(u.option, 'pg_attver=')), '[]'::pg_catalog.json) END,
            'comment', (
                SELECT text.description
                FROM pg_catalog.pg_description AS text
                WHERE text.objoid OPERATOR(pg_catalog.=) c.oid AND text.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
                  AND text.objsubid OPERATOR(pg_catalog.=) a.attnum)) ORDER BY a.attnum)
        FROM pg_catalog.pg_attribute AS a
        JOIN pg_catalog.pg_type AS t ON t.oid OPERATOR(pg_catalog.=) a.atttypid
        WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped), '[]'::pg_catalog.json),
    'comment', (
        SELECT text.description
        FROM pg_catalog.pg_description AS text
        WHERE text.objoid OPERATOR(pg_catalog.=) c.oid AND text.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
          AND text.objsubid OPERATOR(pg_catalog.=) 0)) AS entry
FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS want (oid)
JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) want.oid
JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
LEFT JOIN pg_catalog.pg_am AS am ON am.oid OPERATOR(pg_catalog.=) c.relam
LEFT JOIN pg_catalog.pg_class AS toast ON toast.oid OPERATOR(pg_catalog.=) c.reltoastrelid
WHERE c.relkind OPERATOR(pg_catalog.=) 'm'
ORDER BY n.nspname, c.relname
