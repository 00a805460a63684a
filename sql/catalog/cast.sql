-- Casts made by users (those of an extension come with it).
SELECT pg_catalog.jsonb_build_object(
    'oid', c.oid::bigint,
    'source', pg_catalog.format_type(c.castsource, NULL),
    'target', pg_catalog.format_type(c.casttarget, NULL),
    'method', c.castmethod,
    'context', c.castcontext,
    'function', CASE WHEN p.oid IS NOT NULL THEN pg_catalog.jsonb_build_object(
        'schema', n.nspname, 'name', p.proname,
        'arguments', pg_catalog.pg_get_function_identity_arguments(p.oid)) END,
    'comment', pg_catalog.obj_description(c.oid, 'pg_cast')) AS entry
FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS want (oid)
JOIN pg_catalog.pg_cast AS c ON c.oid OPERATOR(pg_catalog.=) want.oid
LEFT JOIN pg_catalog.pg_proc AS p ON p.oid OPERATOR(pg_catalog.=) c.castfunc
LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
ORDER BY pg_catalog.format_type(c.castsource, NULL), pg_catalog.format_type(c.casttarget, NULL)
