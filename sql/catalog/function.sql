-- Functions, procedures and window functions.
SELECT pg_catalog.jsonb_build_object(
    'oid', p.oid::bigint,
    'schema', n.nspname,
    'name', p.proname,
    'prokind', p.prokind,
    'language', l.lanname,
    'arguments', pg_catalog.pg_get_function_identity_arguments(p.oid),
    'definition', pg_catalog.pg_get_functiondef(p.oid),
    'comment', pg_catalog.obj_description(p.oid, 'pg_proc')) AS entry
FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS want (oid)
JOIN pg_catalog.pg_proc AS p ON p.oid OPERATOR(pg_catalog.=) want.oid
JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
JOIN pg_catalog.pg_language AS l ON l.oid OPERATOR(pg_catalog.=) p.prolang
WHERE p.prokind OPERATOR(pg_catalog.=) ANY ('{f,p,w}'::"char"[])
ORDER BY n.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid)
