-- Aggregates.  arguments is what CREATE AGGREGATE takes in its parentheses ('*' for none);
-- identity_arguments leaves names of no consequence to the server's own function.
SELECT pg_catalog.json_build_object(
    'oid', p.oid::bigint,
    'schema', n.nspname,
    'name', p.proname,
    'arguments', CASE WHEN p.pronargs OPERATOR(pg_catalog.=) 0 THEN '*'
                      ELSE pg_catalog.pg_get_function_arguments(p.oid) END,
    'identity_arguments', CASE WHEN p.pronargs OPERATOR(pg_catalog.=) 0 THEN '*'
                      ELSE pg_catalog.pg_get_function_identity_arguments(p.oid) END,
    'aggkind', a.aggkind,
    'argument_types', COALESCE((
        SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
            'schema', xn.nspname, 'name', x.typname, 'sql', pg_catalog.format_type(x.oid, NULL)) ORDER BY u.place)
        FROM pg_catalog.unnest(p.proargtypes::pg_catalog.oid[]) WITH ORDINALITY AS u (oid, place)
        JOIN pg_catalog.pg_type AS x ON x.oid OPERATOR(pg_catalog.=) u.oid
        JOIN pg_catalog.pg_namespace AS xn ON xn.oid OPERATOR(pg_catalog.=) x.typnamespace), '[]'::pg_catalog.json),
    'argument_names', COALESCE(pg_catalog.to_json(p.proargnames), '[]'::pg_catalog.json),
    'variadic', p.provariadic OPERATOR(pg_catalog.<>) 0,
    'direct_arguments', a.aggnumdirectargs,
    'parallel', p.proparallel,
    'machine', CASE WHEN a.aggtranstype OPERATOR(pg_catalog.=) 'pg_catalog.internal'::pg_catalog.regtype
        THEN pg_catalog.json_build_object(
            'transition', (
                SELECT pg_catalog.json_build_object('schema', fn.nspname, 'name', f.proname, 'arguments', COALESCE((
                    SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                        'schema', xn.nspname, 'name', x.typname, 'sql', pg_catalog.format_type(x.oid, NULL)) ORDER BY u.place)
                    FROM pg_catalog.unnest(f.proargtypes::pg_catalog.oid[]) WITH ORDINALITY AS u (oid, place)
                    JOIN pg_catalog.pg_type AS x ON x.oid OPERATOR(pg_catalog.=) u.oid
                    JOIN pg_catalog.pg_namespace AS xn ON xn.oid OPERATOR(pg_catalog.=) x.typnamespace), '[]'::pg_catalog.json))
                FROM pg_catalog.pg_proc AS f
                JOIN pg_catalog.pg_namespace AS fn ON fn.oid OPERATOR(pg_catalog.=) f.pronamespace
                WHERE f.oid OPERATOR(pg_catalog.=) a.aggtransfn::pg_catalog.oid),
            'final', (
                SELECT pg_catalog.json_build_object('schema', fn.nspname, 'name', f.proname, 'arguments', COALESCE((
                    SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                        'schema', xn.nspname, 'name', x.typname, 'sql', pg_catalog.format_type(x.oid, NULL)) ORDER BY u.place)
                    FROM pg_catalog.unnest(f.proargtypes::pg_catalog.oid[]) WITH ORDINALITY AS u (oid, place)
                    JOIN pg_catalog.pg_type AS x ON x.oid OPERATOR(pg_catalog.=) u.oid
                    JOIN pg_catalog.pg_namespace AS xn ON xn.oid OPERATOR(pg_catalog.=) x.typnamespace), '[]'::pg_catalog.json))
                FROM pg_catalog.pg_proc AS f
                JOIN pg_catalog.pg_namespace AS fn ON fn.oid OPERATOR(pg_catalog.=) f.pronamespace
                WHERE f.oid OPERATOR(pg_catalog.=) a.aggfinalfn::pg_catalog.oid),
            'combine', (
                SELECT pg_catalog.json_build_object('schema', fn.nspname, 'name', f.proname, 'arguments', COALESCE((
                    SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                        'schema', xn.nspname, 'name', x.typname, 'sql', pg_catalog.format_type(x.oid, NULL)) ORDER BY u.place)
                    FROM pg_catalog.unnest(f.proargtypes::pg_catalog.oid[]) WITH ORDINALITY AS u (oid, place)
                    JOIN pg_catalog.pg_type AS x ON x.oid OPERATOR(pg_catalog.=) u.oid
                    JOIN pg_catalog.pg_namespace AS xn ON xn.oid OPERATOR(pg_catalog.=) x.typnamespace), '[]'::pg_catalog.json))
                FROM pg_catalog.pg_proc AS f
                JOIN pg_catalog.pg_namespace AS fn ON fn.oid OPERATOR(pg_catalog.=) f.pronamespace
                WHERE f.oid OPERATOR(pg_catalog.=) a.aggcombinefn::pg_catalog.oid),
            'serialize', (
                SELECT pg_catalog.json_build_object('schema', fn.nspname, 'name', f.proname, 'arguments', COALESCE((
                    SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                        'schema', xn.nspname, 'name', x.typname, 'sql', pg_catalog.format_type(x.oid, NULL)) ORDER BY u.place)
                    FROM pg_catalog.unnest(f.proargtypes::pg_catalog.oid[]) WITH ORDINALITY AS u (oid, place)
                    JOIN pg_catalog.pg_type AS x ON x.oid OPERATOR(pg_catalog.=) u.oid
                    JOIN pg_catalog.pg_namespace AS xn ON xn.oid OPERATOR(pg_catalog.=) x.typnamespace), '[]'::pg_catalog.json))
                FROM pg_catalog.pg_proc AS f
                JOIN pg_catalog.pg_namespace AS fn ON fn.oid OPERATOR(pg_catalog.=) f.pronamespace
                WHERE f.oid OPERATOR(pg_catalog.=) a.aggserialfn::pg_catalog.oid),
            'deserialize', (
                SELECT pg_catalog.json_build_object('schema', fn.nspname, 'name', f.proname, 'arguments', COALESCE((
                    SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                        'schema', xn.nspname, 'name', x.typname, 'sql', pg_catalog.format_type(x.oid, NULL)) ORDER BY u.place)
                    FROM pg_catalog.unnest(f.proargtypes::pg_catalog.oid[]) WITH ORDINALITY AS u (oid, place)
                    JOIN pg_catalog.pg_type AS x ON x.oid OPERATOR(pg_catalog.=) u.oid
                    JOIN pg_catalog.pg_namespace AS xn ON xn.oid OPERATOR(pg_catalog.=) x.typnamespace), '[]'::pg_catalog.json))
                FROM pg_catalog.pg_proc AS f
                JOIN pg_catalog.pg_namespace AS fn ON fn.oid OPERATOR(pg_catalog.=) f.pronamespace
                WHERE f.oid OPERATOR(pg_catalog.=) a.aggdeserialfn::pg_catalog.oid)) END,
    'transition', a.aggtransfn::pg_catalog.text,
    'state_type', pg_catalog.format_type(a.aggtranstype, NULL),
    'state_space', a.aggtransspace,
    'initial', a.agginitval,
    'final', CASE WHEN a.aggfinalfn::pg_catalog.oid OPERATOR(pg_catalog.<>) 0 THEN a.aggfinalfn::pg_catalog.text END,
    'final_extra', a.aggfinalextra,
    'final_modify', a.aggfinalmodify,
    'combine', CASE WHEN a.aggcombinefn::pg_catalog.oid OPERATOR(pg_catalog.<>) 0 THEN a.aggcombinefn::pg_catalog.text END,
    'serialize', CASE WHEN a.aggserialfn::pg_catalog.oid OPERATOR(pg_catalog.<>) 0 THEN a.aggserialfn::pg_catalog.text END,
    'deserialize', CASE WHEN a.aggdeserialfn::pg_catalog.oid OPERATOR(pg_catalog.<>) 0 THEN a.aggdeserialfn::pg_catalog.text END,
    'moving_transition', CASE WHEN a.aggmtransfn::pg_catalog.oid OPERATOR(pg_catalog.<>) 0 THEN a.aggmtransfn::pg_catalog.text END,
    'moving_inverse', CASE WHEN a.aggminvtransfn::pg_catalog.oid OPERATOR(pg_catalog.<>) 0 THEN a.aggminvtransfn::pg_catalog.text END,
    'moving_state_type', CASE WHEN a.aggmtranstype OPERATOR(pg_catalog.<>) 0 THEN pg_catalog.format_type(a.aggmtranstype, NULL) END,
    'moving_state_space', a.aggmtransspace,
    'moving_initial', a.aggminitval,
    'moving_final', CASE WHEN a.aggmfinalfn::pg_catalog.oid OPERATOR(pg_catalog.<>) 0 THEN a.aggmfinalfn::pg_catalog.text END,
    'moving_final_extra', a.aggmfinalextra,
    'moving_final_modify', a.aggmfinalmodify,
    'sort_operator', CASE WHEN o.oid IS NOT NULL
        THEN pg_catalog.json_build_object('schema', opn.nspname, 'name', o.oprname) END,
    'comment', (
        SELECT text.description
        FROM pg_catalog.pg_description AS text
        WHERE text.objoid OPERATOR(pg_catalog.=) p.oid AND text.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
          AND text.objsubid OPERATOR(pg_catalog.=) 0)) AS entry
FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS want (oid)
JOIN pg_catalog.pg_proc AS p ON p.oid OPERATOR(pg_catalog.=) want.oid
JOIN pg_catalog.pg_aggregate AS a ON a.aggfnoid::pg_catalog.oid OPERATOR(pg_catalog.=) p.oid
JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
LEFT JOIN pg_catalog.pg_operator AS o ON o.oid OPERATOR(pg_catalog.=) a.aggsortop
LEFT JOIN pg_catalog.pg_namespace AS opn ON opn.oid OPERATOR(pg_catalog.=) o.oprnamespace
WHERE p.prokind OPERATOR(pg_catalog.=) 'a'
ORDER BY n.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid)
