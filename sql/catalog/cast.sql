-- Casts made by users (those of an extension come with it).
SELECT pg_catalog.json_build_object(
    'oid', c.oid::bigint,
    'source', pg_catalog.format_type(c.castsource, NULL),
    'target', pg_catalog.format_type(c.casttarget, NULL),
    'source_type', (
        SELECT pg_catalog.json_build_object('schema', xn.nspname, 'name', x.typname, 'sql', pg_catalog.format_type(x.oid, NULL))
        FROM pg_catalog.pg_type AS x
        JOIN pg_catalog.pg_namespace AS xn ON xn.oid OPERATOR(pg_catalog.=) x.typnamespace
        WHERE x.oid OPERATOR(pg_catalog.=) c.castsource),
    'target_type', (
        SELECT pg_catalog.json_build_object('schema', xn.nspname, 'name', x.typname, 'sql', pg_catalog.format_type(x.oid, NULL))
        FROM pg_catalog.pg_type AS x
        JOIN pg_catalog.pg_namespace AS xn ON xn.oid OPERATOR(pg_catalog.=) x.typnamespace
        WHERE x.oid OPERATOR(pg_catalog.=) c.casttarget),
    'method', c.castmethod,
    'context', c.castcontext,
    'function', CASE WHEN p.oid IS NOT NULL THEN pg_catalog.json_build_object(
        'schema', n.nspname, 'name', p.proname,
        'arguments', pg_catalog.pg_get_function_identity_arguments(p.oid),
        'argument_types', COALESCE((
            SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                'schema', xn.nspname, 'name', x.typname, 'sql', pg_catalog.format_type(x.oid, NULL)) ORDER BY u.place)
            FROM pg_catalog.unnest(p.proargtypes::pg_catalog.oid[]) WITH ORDINALITY AS u (oid, place)
            JOIN pg_catalog.pg_type AS x ON x.oid OPERATOR(pg_catalog.=) u.oid
            JOIN pg_catalog.pg_namespace AS xn ON xn.oid OPERATOR(pg_catalog.=) x.typnamespace), '[]'::pg_catalog.json)) END,
    'comment', (
        SELECT text.description
        FROM pg_catalog.pg_description AS text
        WHERE text.objoid OPERATOR(pg_catalog.=) c.oid AND text.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_cast'::pg_catalog.regclass
          AND text.objsubid OPERATOR(pg_catalog.=) 0)) AS entry
FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS want (oid)
JOIN pg_catalog.pg_cast AS c ON c.oid OPERATOR(pg_catalog.=) want.oid
LEFT JOIN pg_catalog.pg_proc AS p ON p.oid OPERATOR(pg_catalog.=) c.castfunc
LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
ORDER BY pg_catalog.format_type(c.castsource, NULL), pg_catalog.format_type(c.casttarget, NULL)
