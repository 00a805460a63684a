-- Indexes that no constraint owns.  parent_oid is the index of the partitioned table that this
-- one is a part of.
SELECT pg_catalog.json_build_object(
    'oid', c.oid::bigint,
    'schema', n.nspname,
    'name', c.relname,
    'table_oid', t.oid::bigint,
    'table_schema', tn.nspname,
    'table', t.relname,
    'table_kind', t.relkind,
    'unique', i.indisunique,
    'definition', pg_catalog.pg_get_indexdef(c.oid),
    'clustered', i.indisclustered,
    'parent_oid', (
        SELECT h.inhparent::bigint
        FROM pg_catalog.pg_inherits AS h
        WHERE h.inhrelid OPERATOR(pg_catalog.=) c.oid),
    'statistics', COALESCE((
        SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
            'attnum', a.attnum, 'target', a.attstattarget) ORDER BY a.attnum)
        FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.>) 0 AND a.attstattarget OPERATOR(pg_catalog.>=) 0), '[]'::pg_catalog.json),
    'comment', (
        SELECT text.description
        FROM pg_catalog.pg_description AS text
        WHERE text.objoid OPERATOR(pg_catalog.=) c.oid AND text.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
          AND text.objsubid OPERATOR(pg_catalog.=) 0)) AS entry
FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS want (oid)
JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) want.oid
JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
JOIN pg_catalog.pg_index AS i ON i.indexrelid OPERATOR(pg_catalog.=) c.oid
JOIN pg_catalog.pg_class AS t ON t.oid OPERATOR(pg_catalog.=) i.indrelid
JOIN pg_catalog.pg_namespace AS tn ON tn.oid OPERATOR(pg_catalog.=) t.relnamespace
WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{i,I}'::"char"[])
ORDER BY n.nspname, c.relname
