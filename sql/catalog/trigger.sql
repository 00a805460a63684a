-- Triggers of users.  parent_oid: a partition's copy of its parent's trigger, listed for its
-- state only.
SELECT pg_catalog.json_build_object(
    'oid', t.oid::bigint,
    'name', t.tgname,
    'table_oid', c.oid::bigint,
    'schema', n.nspname,
    'table', c.relname,
    'view', c.relkind OPERATOR(pg_catalog.=) 'v',
    'definition', pg_catalog.pg_get_triggerdef(t.oid),
    'enabled', t.tgenabled,
    'parent_oid', t.tgparentid::bigint,
    'comment', (
        SELECT text.description
        FROM pg_catalog.pg_description AS text
        WHERE text.objoid OPERATOR(pg_catalog.=) t.oid AND text.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_trigger'::pg_catalog.regclass
          AND text.objsubid OPERATOR(pg_catalog.=) 0)) AS entry
FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS want (oid)
JOIN pg_catalog.pg_trigger AS t ON t.oid OPERATOR(pg_catalog.=) want.oid
JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) t.tgrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE NOT t.tgisinternal
ORDER BY n.nspname, c.relname, t.tgname
