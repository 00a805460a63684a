-- Aggregates.  arguments is what CREATE AGGREGATE takes in its parentheses ('*' for none);
-- identity_arguments leaves names of no consequence to the server's own function.
SELECT pg_catalog.jsonb_build_object(
    'oid', p.oid::bigint,
    'schema', n.nspname,
    'name', p.proname,
    'arguments', CASE WHEN p.pronargs OPERATOR(pg_catalog.=) 0 THEN '*'
                      ELSE pg_catalog.pg_get_function_arguments(p.oid) END,
    'identity_arguments', CASE WHEN p.pronargs OPERATOR(pg_catalog.=) 0 THEN '*'
                      ELSE pg_catalog.pg_get_function_identity_arguments(p.oid) END,
    'aggkind', a.aggkind,
    'parallel', p.proparallel,
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
        THEN pg_catalog.jsonb_build_object('schema', opn.nspname, 'name', o.oprname) END,
    'comment', pg_catalog.obj_description(p.oid, 'pg_proc')) AS entry
FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS want (oid)
JOIN pg_catalog.pg_proc AS p ON p.oid OPERATOR(pg_catalog.=) want.oid
JOIN pg_catalog.pg_aggregate AS a ON a.aggfnoid::pg_catalog.oid OPERATOR(pg_catalog.=) p.oid
JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
LEFT JOIN pg_catalog.pg_operator AS o ON o.oid OPERATOR(pg_catalog.=) a.aggsortop
LEFT JOIN pg_catalog.pg_namespace AS opn ON opn.oid OPERATOR(pg_catalog.=) o.oprnamespace
WHERE p.prokind OPERATOR(pg_catalog.=) 'a'
ORDER BY n.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid)
