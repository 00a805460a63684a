-- Base types and shell types.  Functions are named; what they are made of stands in their own entries.
SELECT pg_catalog.json_build_object(
    'oid', t.oid::bigint,
    'schema', n.nspname,
    'name', t.typname,
    'shell', NOT t.typisdefined,
    'input', (
        SELECT pg_catalog.json_build_object('schema', fn.nspname, 'name', f.proname, 'arguments', COALESCE((
            SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                'schema', xn.nspname, 'name', x.typname, 'sql', pg_catalog.format_type(x.oid, NULL)) ORDER BY u.place)
            FROM pg_catalog.unnest(f.proargtypes::pg_catalog.oid[]) WITH ORDINALITY AS u (oid, place)
            JOIN pg_catalog.pg_type AS x ON x.oid OPERATOR(pg_catalog.=) u.oid
            JOIN pg_catalog.pg_namespace AS xn ON xn.oid OPERATOR(pg_catalog.=) x.typnamespace), '[]'::pg_catalog.json))
        FROM pg_catalog.pg_proc AS f
        JOIN pg_catalog.pg_namespace AS fn ON fn.oid OPERATOR(pg_catalog.=) f.pronamespace
        WHERE f.oid OPERATOR(pg_catalog.=) t.typinput::pg_catalog.oid),
    'output', (
        SELECT pg_catalog.json_build_object('schema', fn.nspname, 'name', f.proname, 'arguments', COALESCE((
            SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                'schema', xn.nspname, 'name', x.typname, 'sql', pg_catalog.format_type(x.oid, NULL)) ORDER BY u.place)
            FROM pg_catalog.unnest(f.proargtypes::pg_catalog.oid[]) WITH ORDINALITY AS u (oid, place)
            JOIN pg_catalog.pg_type AS x ON x.oid OPERATOR(pg_catalog.=) u.oid
            JOIN pg_catalog.pg_namespace AS xn ON xn.oid OPERATOR(pg_catalog.=) x.typnamespace), '[]'::pg_catalog.json))
        FROM pg_catalog.pg_proc AS f
        JOIN pg_catalog.pg_namespace AS fn ON fn.oid OPERATOR(pg_catalog.=) f.pronamespace
        WHERE f.oid OPERATOR(pg_catalog.=) t.typoutput::pg_catalog.oid),
    'receive', (
        SELECT pg_catalog.json_build_object('schema', fn.nspname, 'name', f.proname, 'arguments', COALESCE((
            SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                'schema', xn.nspname, 'name', x.typname, 'sql', pg_catalog.format_type(x.oid, NULL)) ORDER BY u.place)
            FROM pg_catalog.unnest(f.proargtypes::pg_catalog.oid[]) WITH ORDINALITY AS u (oid, place)
            JOIN pg_catalog.pg_type AS x ON x.oid OPERATOR(pg_catalog.=) u.oid
            JOIN pg_catalog.pg_namespace AS xn ON xn.oid OPERATOR(pg_catalog.=) x.typnamespace), '[]'::pg_catalog.json))
        FROM pg_catalog.pg_proc AS f
        JOIN pg_catalog.pg_namespace AS fn ON fn.oid OPERATOR(pg_catalog.=) f.pronamespace
        WHERE f.oid OPERATOR(pg_catalog.=) t.typreceive::pg_catalog.oid),
    'send', (
        SELECT pg_catalog.json_build_object('schema', fn.nspname, 'name', f.proname, 'arguments', COALESCE((
            SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                'schema', xn.nspname, 'name', x.typname, 'sql', pg_catalog.format_type(x.oid, NULL)) ORDER BY u.place)
            FROM pg_catalog.unnest(f.proargtypes::pg_catalog.oid[]) WITH ORDINALITY AS u (oid, place)
            JOIN pg_catalog.pg_type AS x ON x.oid OPERATOR(pg_catalog.=) u.oid
            JOIN pg_catalog.pg_namespace AS xn ON xn.oid OPERATOR(pg_catalog.=) x.typnamespace), '[]'::pg_catalog.json))
        FROM pg_catalog.pg_proc AS f
        JOIN pg_catalog.pg_namespace AS fn ON fn.oid OPERATOR(pg_catalog.=) f.pronamespace
        WHERE f.oid OPERATOR(pg_catalog.=) t.typsend::pg_catalog.oid),
    'modifier_input', (
        SELECT pg_catalog.json_build_object('schema', fn.nspname, 'name', f.proname, 'arguments', COALESCE((
            SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                'schema', xn.nspname, 'name', x.typname, 'sql', pg_catalog.format_type(x.oid, NULL)) ORDER BY u.place)
            FROM pg_catalog.unnest(f.proargtypes::pg_catalog.oid[]) WITH ORDINALITY AS u (oid, place)
            JOIN pg_catalog.pg_type AS x ON x.oid OPERATOR(pg_catalog.=) u.oid
            JOIN pg_catalog.pg_namespace AS xn ON xn.oid OPERATOR(pg_catalog.=) x.typnamespace), '[]'::pg_catalog.json))
        FROM pg_catalog.pg_proc AS f
        JOIN pg_catalog.pg_namespace AS fn ON fn.oid OPERATOR(pg_catalog.=) f.pronamespace
        WHERE f.oid OPERATOR(pg_catalog.=) t.typmodin::pg_catalog.oid),
    'modifier_output', (
        SELECT pg_catalog.json_build_object('schema', fn.nspname, 'name', f.proname, 'arguments', COALESCE((
            SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                'schema', xn.nspname, 'name', x.typname, 'sql', pg_catalog.format_type(x.oid, NULL)) ORDER BY u.place)
            FROM pg_catalog.unnest(f.proargtypes::pg_catalog.oid[]) WITH ORDINALITY AS u (oid, place)
            JOIN pg_catalog.pg_type AS x ON x.oid OPERATOR(pg_catalog.=) u.oid
            JOIN pg_catalog.pg_namespace AS xn ON xn.oid OPERATOR(pg_catalog.=) x.typnamespace), '[]'::pg_catalog.json))
        FROM pg_catalog.pg_proc AS f
        JOIN pg_catalog.pg_namespace AS fn ON fn.oid OPERATOR(pg_catalog.=) f.pronamespace
        WHERE f.oid OPERATOR(pg_catalog.=) t.typmodout::pg_catalog.oid),
    'analyze', (
        SELECT pg_catalog.json_build_object('schema', fn.nspname, 'name', f.proname, 'arguments', COALESCE((
            SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                'schema', xn.nspname, 'name', x.typname, 'sql', pg_catalog.format_type(x.oid, NULL)) ORDER BY u.place)
            FROM pg_catalog.unnest(f.proargtypes::pg_catalog.oid[]) WITH ORDINALITY AS u (oid, place)
            JOIN pg_catalog.pg_type AS x ON x.oid OPERATOR(pg_catalog.=) u.oid
            JOIN pg_catalog.pg_namespace AS xn ON xn.oid OPERATOR(pg_catalog.=) x.typnamespace), '[]'::pg_catalog.json))
        FROM pg_catalog.pg_proc AS f
        JOIN pg_catalog.pg_namespace AS fn ON fn.oid OPERATOR(pg_catalog.=) f.pronamespace
        WHERE f.oid OPERATOR(pg_catalog.=) t.typanalyze::pg_catalog.oid),
    'subscript', (
        SELECT pg_catalog.json_build_object('schema', fn.nspname, 'name', f.proname, 'arguments', COALESCE((
            SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                'schema', xn.nspname, 'name', x.typname, 'sql', pg_catalog.format_type(x.oid, NULL)) ORDER BY u.place)
            FROM pg_catalog.unnest(f.proargtypes::pg_catalog.oid[]) WITH ORDINALITY AS u (oid, place)
            JOIN pg_catalog.pg_type AS x ON x.oid OPERATOR(pg_catalog.=) u.oid
            JOIN pg_catalog.pg_namespace AS xn ON xn.oid OPERATOR(pg_catalog.=) x.typnamespace), '[]'::pg_catalog.json))
        FROM pg_catalog.pg_proc AS f
        JOIN pg_catalog.pg_namespace AS fn ON fn.oid OPERATOR(pg_catalog.=) f.pronamespace
        WHERE f.oid OPERATOR(pg_catalog.=) t.typsubscript::pg_catalog.oid),
    'length', t.typlen,
    'by_value', t.typbyval,
    'alignment', t.typalign,
    'storage', t.typstorage,
    'category', t.typcategory,
    'preferred', t.typispreferred,
    'delimiter', t.typdelim,
    'collatable', t.typcollation OPERATOR(pg_catalog.<>) 0,
    'default', t.typdefault,
    'element', (
        SELECT pg_catalog.json_build_object('schema', xn.nspname, 'name', x.typname, 'sql', pg_catalog.format_type(x.oid, NULL))
        FROM pg_catalog.pg_type AS x
        JOIN pg_catalog.pg_namespace AS xn ON xn.oid OPERATOR(pg_catalog.=) x.typnamespace
        WHERE x.oid OPERATOR(pg_catalog.=) t.typelem),
    'comment', (
        SELECT text.description
        FROM pg_catalog.pg_description AS text
        WHERE text.objoid OPERATOR(pg_catalog.=) t.oid AND text.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
          AND text.objsubid OPERATOR(pg_catalog.=) 0)) AS entry
FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS want (oid)
JOIN pg_catalog.pg_type AS t ON t.oid OPERATOR(pg_catalog.=) want.oid
JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) t.typnamespace
WHERE t.typtype OPERATOR(pg_catalog.=) 'b' OR t.typtype OPERATOR(pg_catalog.=) 'p' AND NOT t.typisdefined
ORDER BY n.nspname, t.typname
