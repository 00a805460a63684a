-- Rewrite rules, but for those that make a view.
SELECT pg_catalog.json_build_object(
    'oid', w.oid::bigint,
    'name', w.rulename,
    'table_oid', c.oid::bigint,
    'schema', n.nspname,
    'table', c.relname,
    'view', c.relkind OPERATOR(pg_catalog.=) 'v',
    'definition', pg_catalog.pg_get_ruledef(w.oid),
    'enabled', w.ev_enabled,
    'comment', (
        SELECT text.description
        FROM pg_catalog.pg_description AS text
        WHERE text.objoid OPERATOR(pg_catalog.=) w.oid AND text.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass
          AND text.objsubid OPERATOR(pg_catalog.=) 0)) AS entry
FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS want (oid)
JOIN pg_catalog.pg_rewrite AS w ON w.oid OPERATOR(pg_catalog.=) want.oid
JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) w.ev_class
JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE w.rulename OPERATOR(pg_catalog.<>) '_RETURN'
ORDER BY n.nspname, c.relname, w.rulename
