-- Text search templates.
SELECT pg_catalog.json_build_object(
    'oid', t.oid::bigint,
    'schema', n.nspname,
    'name', t.tmplname,
    'init', (
        SELECT pg_catalog.json_build_object('schema', fn.nspname, 'name', f.proname, 'arguments', COALESCE((
            SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                'schema', xn.nspname, 'name', x.typname, 'sql', pg_catalog.format_type(x.oid, NULL)) ORDER BY u.place)
            FROM pg_catalog.unnest(f.proargtypes::pg_catalog.oid[]) WITH ORDINALITY AS u (oid, place)
            JOIN pg_catalog.pg_type AS x ON x.oid OPERATOR(pg_catalog.=) u.oid
            JOIN pg_catalog.pg_namespace AS xn ON xn.oid OPERATOR(pg_catalog.=) x.typnamespace), '[]'::pg_catalog.json))
        FROM pg_catalog.pg_proc AS f
        JOIN pg_catalog.pg_namespace AS fn ON fn.oid OPERATOR(pg_catalog.=) f.pronamespace
        WHERE f.oid OPERATOR(pg_catalog.=) t.tmplinit::pg_catalog.oid),
    'lexize', (
        SELECT pg_catalog.json_build_object('schema', fn.nspname, 'name', f.proname, 'arguments', COALESCE((
            SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                'schema', xn.nspname, 'name', x.typname, 'sql', pg_catalog.format_type(x.oid, NULL)) ORDER BY u.place)
            FROM pg_catalog.unnest(f.proargtypes::pg_catalog.oid[]) WITH ORDINALITY AS u (oid, place)
            JOIN pg_catalog.pg_type AS x ON x.oid OPERATOR(pg_catalog.=) u.oid
            JOIN pg_catalog.pg_namespace AS xn ON xn.oid OPERATOR(pg_catalog.=) x.typnamespace), '[]'::pg_catalog.json))
        FROM pg_catalog.pg_proc AS f
        JOIN pg_catalog.pg_namespace AS fn ON fn.oid OPERATOR(pg_catalog.=) f.pronamespace
        WHERE f.oid OPERATOR(pg_catalog.=) t.tmpllexize::pg_catalog.oid),
    'comment', (
        SELECT text.description
        FROM pg_catalog.pg_description AS text
        WHERE text.objoid OPERATOR(pg_catalog.=) t.oid AND text.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_ts_template'::pg_catalog.regclass
          AND text.objsubid OPERATOR(pg_catalog.=) 0)) AS entry
FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS want (oid)
JOIN pg_catalog.pg_ts_template AS t ON t.oid OPERATOR(pg_catalog.=) want.oid
JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) t.tmplnamespace
ORDER BY n.nspname, t.tmplname
