-- Functions, procedures and window functions.  native stands for machine code: what it is
-- made of, in parts, if they can say all of it.
SELECT pg_catalog.json_build_object(
    'oid', p.oid::bigint,
    'schema', n.nspname,
    'name', p.proname,
    'prokind', p.prokind,
    'language', l.lanname,
    'arguments', pg_catalog.pg_get_function_identity_arguments(p.oid),
    'definition', pg_catalog.pg_get_functiondef(p.oid),
    'leakproof', p.proleakproof,
    'support', (
        SELECT pg_catalog.json_build_object('schema', fn.nspname, 'name', f.proname, 'arguments', COALESCE((
            SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                'schema', xn.nspname, 'name', x.typname, 'sql', pg_catalog.format_type(x.oid, NULL)) ORDER BY u.place)
            FROM pg_catalog.unnest(f.proargtypes::pg_catalog.oid[]) WITH ORDINALITY AS u (oid, place)
            JOIN pg_catalog.pg_type AS x ON x.oid OPERATOR(pg_catalog.=) u.oid
            JOIN pg_catalog.pg_namespace AS xn ON xn.oid OPERATOR(pg_catalog.=) x.typnamespace), '[]'::pg_catalog.json))
        FROM pg_catalog.pg_proc AS f
        JOIN pg_catalog.pg_namespace AS fn ON fn.oid OPERATOR(pg_catalog.=) f.pronamespace
        WHERE f.oid OPERATOR(pg_catalog.=) p.prosupport::pg_catalog.oid),
    'argument_types', CASE WHEN p.proleakproof OR p.prosupport::pg_catalog.oid OPERATOR(pg_catalog.<>) 0 THEN COALESCE((
        SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
            'schema', xn.nspname, 'name', x.typname, 'sql', pg_catalog.format_type(x.oid, NULL)) ORDER BY u.place)
        FROM pg_catalog.unnest(p.proargtypes::pg_catalog.oid[]) WITH ORDINALITY AS u (oid, place)
        JOIN pg_catalog.pg_type AS x ON x.oid OPERATOR(pg_catalog.=) u.oid
        JOIN pg_catalog.pg_namespace AS xn ON xn.oid OPERATOR(pg_catalog.=) x.typnamespace), '[]'::pg_catalog.json) END,
    'native', CASE WHEN l.lanname OPERATOR(pg_catalog.=) ANY ('{c,internal}'::pg_catalog.name[])
                    AND p.proargmodes IS NULL AND p.pronargdefaults OPERATOR(pg_catalog.=) 0 AND p.proconfig IS NULL
                    AND p.prosupport::pg_catalog.oid OPERATOR(pg_catalog.=) 0 AND p.prokind OPERATOR(pg_catalog.<>) 'p'
        THEN pg_catalog.json_build_object(
            'source', p.prosrc,
            'library', p.probin,
            'arguments', COALESCE((
                SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                    'schema', xn.nspname, 'name', x.typname, 'sql', pg_catalog.format_type(x.oid, NULL)) ORDER BY u.place)
                FROM pg_catalog.unnest(p.proargtypes::pg_catalog.oid[]) WITH ORDINALITY AS u (oid, place)
                JOIN pg_catalog.pg_type AS x ON x.oid OPERATOR(pg_catalog.=) u.oid
                JOIN pg_catalog.pg_namespace AS xn ON xn.oid OPERATOR(pg_catalog.=) x.typnamespace), '[]'::pg_catalog.json),
            'names', COALESCE(pg_catalog.to_json(p.proargnames), '[]'::pg_catalog.json),
            'returns', (
                SELECT pg_catalog.json_build_object('schema', xn.nspname, 'name', x.typname, 'sql', pg_catalog.format_type(x.oid, NULL))
                FROM pg_catalog.pg_type AS x
                JOIN pg_catalog.pg_namespace AS xn ON xn.oid OPERATOR(pg_catalog.=) x.typnamespace
                WHERE x.oid OPERATOR(pg_catalog.=) p.prorettype),
            'returns_set', p.proretset,
            'strict', p.proisstrict,
            'volatile', p.provolatile,
            'parallel', p.proparallel,
            'security_definer', p.prosecdef,
            'cost', p.procost,
            'rows', p.prorows) END,
    'comment', (
        SELECT text.description
        FROM pg_catalog.pg_description AS text
        WHERE text.objoid OPERATOR(pg_catalog.=) p.oid AND text.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
          AND text.objsubid OPERATOR(pg_catalog.=) 0)) AS entry
FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS want (oid)
JOIN pg_catalog.pg_proc AS p ON p.oid OPERATOR(pg_catalog.=) want.oid
JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
JOIN pg_catalog.pg_language AS l ON l.oid OPERATOR(pg_catalog.=) p.prolang
WHERE p.prokind OPERATOR(pg_catalog.=) ANY ('{f,p,w}'::"char"[])
ORDER BY n.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid)
