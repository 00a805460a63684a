-- Row security policies.  roles is empty for PUBLIC.
SELECT pg_catalog.json_build_object(
    'oid', p.oid::bigint,
    'name', p.polname,
    'table_oid', c.oid::bigint,
    'schema', n.nspname,
    'table', c.relname,
    'permissive', p.polpermissive,
    'command', p.polcmd,
    'roles', COALESCE((
        SELECT pg_catalog.json_agg(r.rolname ORDER BY r.rolname)
        FROM pg_catalog.pg_roles AS r
        WHERE r.oid OPERATOR(pg_catalog.=) ANY (p.polroles)), '[]'::pg_catalog.json),
    'using', pg_catalog.pg_get_expr(p.polqual, p.polrelid),
    'check', pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid),
    'comment', (
        SELECT text.description
        FROM pg_catalog.pg_description AS text
        WHERE text.objoid OPERATOR(pg_catalog.=) p.oid AND text.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_policy'::pg_catalog.regclass
          AND text.objsubid OPERATOR(pg_catalog.=) 0)) AS entry
FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS want (oid)
JOIN pg_catalog.pg_policy AS p ON p.oid OPERATOR(pg_catalog.=) want.oid
JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) p.polrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
ORDER BY n.nspname, c.relname, p.polname
