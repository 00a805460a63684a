-- Transforms.
SELECT pg_catalog.json_build_object(
    'oid', t.oid::bigint,
    'type', (
        SELECT pg_catalog.json_build_object('schema', xn.nspname, 'name', x.typname, 'sql', pg_catalog.format_type(x.oid, NULL))
        FROM pg_catalog.pg_type AS x
        JOIN pg_catalog.pg_namespace AS xn ON xn.oid OPERATOR(pg_catalog.=) x.typnamespace
        WHERE x.oid OPERATOR(pg_catalog.=) t.trftype),
    'language', l.lanname,
    'from_sql', (
        SELECT pg_catalog.json_build_object('schema', fn.nspname, 'name', f.proname, 'arguments', COALESCE((
            SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                'schema', xn.nspname, 'name', x.typname, 'sql', pg_catalog.format_type(x.oid, NULL)) ORDER BY u.place)
            FROM pg_catalog.unnest(f.proargtypes::pg_catalog.oid[]) WITH ORDINALITY AS u (oid, place)
            JOIN pg_catalog.pg_type AS x ON x.oid OPERATOR(pg_catalog.=) u.oid
            JOIN pg_catalog.pg_namespace AS xn ON xn.oid OPERATOR(pg_catalog.=) x.typnamespace), '[]'::pg_catalog.json))
        FROM pg_catalog.pg_proc AS f
        JOIN pg_catalog.pg_namespace AS fn ON fn.oid OPERATOR(pg_catalog.=) f.pronamespace
        WHERE f.oid OPERATOR(pg_catalog.=) t.trffromsql::pg_catalog.oid),
    'to_sql', (
        SELECT pg_catalog.json_build_object('schema', fn.nspname, 'name', f.proname, 'arguments', COALESCE((
            SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                'schema', xn.nspname, 'name', x.typname, 'sql', pg_catalog.format_type(x.oid, NULL)) ORDER BY u.place)
            FROM pg_catalog.unnest(f.proargtypes::pg_catalog.oid[]) WITH ORDINALITY AS u (oid, place)
            JOIN pg_catalog.pg_type AS x ON x.oid OPERATOR(pg_catalog.=) u.oid
            JOIN pg_catalog.pg_namespace AS xn ON xn.oid OPERATOR(pg_catalog.=) x.typnamespace), '[]'::pg_catalog.json))
        FROM pg_catalog.pg_proc AS f
        JOIN pg_catalog.pg_namespace AS fn ON fn.oid OPERATOR(pg_catalog.=) f.pronamespace
        WHERE f.oid OPERATOR(pg_catalog.=) t.trftosql::pg_catalog.oid),
    'comment', (
        SELECT text.description
        FROM pg_catalog.pg_description AS text
        WHERE text.objoid OPERATOR(pg_catalog.=) t.oid AND text.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_transform'::pg_catalog.regclass
          AND text.objsubid OPERATOR(pg_catalog.=) 0)) AS entry
FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS want (oid)
JOIN pg_catalog.pg_transform AS t ON t.oid OPERATOR(pg_catalog.=) want.oid
JOIN pg_catalog.pg_language AS l ON l.oid OPERATOR(pg_catalog.=) t.trflang
ORDER BY pg_catalog.format_type(t.trftype, NULL), l.lanname
