-- Range types with their multiranges.
SELECT pg_catalog.json_build_object(
    'oid', t.oid::bigint,
    'schema', n.nspname,
    'name', t.typname,
    'subtype', pg_catalog.json_build_object(
        'schema', sn.nspname, 'name', s.typname,
        'sql', pg_catalog.format_type(r.rngsubtype, NULL)),
    'operator_class', CASE WHEN NOT oc.opcdefault
        THEN pg_catalog.json_build_object('schema', ocn.nspname, 'name', oc.opcname) END,
    'collation', CASE WHEN r.rngcollation OPERATOR(pg_catalog.<>) s.typcollation
        THEN pg_catalog.json_build_object('schema', cn.nspname, 'name', c.collname) END,
    'canonical', CASE WHEN canon.oid IS NOT NULL
        THEN pg_catalog.json_build_object('schema', canonn.nspname, 'name', canon.proname) END,
    'subtype_diff', CASE WHEN diff.oid IS NOT NULL
        THEN pg_catalog.json_build_object('schema', diffn.nspname, 'name', diff.proname) END,
    'multirange', pg_catalog.json_build_object('schema', mn.nspname, 'name', m.typname),
    'comment', (
        SELECT text.description
        FROM pg_catalog.pg_description AS text
        WHERE text.objoid OPERATOR(pg_catalog.=) t.oid AND text.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
          AND text.objsubid OPERATOR(pg_catalog.=) 0)) AS entry
FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS want (oid)
JOIN pg_catalog.pg_type AS t ON t.oid OPERATOR(pg_catalog.=) want.oid
JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) t.typnamespace
JOIN pg_catalog.pg_range AS r ON r.rngtypid OPERATOR(pg_catalog.=) t.oid
JOIN pg_catalog.pg_type AS s ON s.oid OPERATOR(pg_catalog.=) r.rngsubtype
JOIN pg_catalog.pg_namespace AS sn ON sn.oid OPERATOR(pg_catalog.=) s.typnamespace
JOIN pg_catalog.pg_type AS m ON m.oid OPERATOR(pg_catalog.=) r.rngmultitypid
JOIN pg_catalog.pg_namespace AS mn ON mn.oid OPERATOR(pg_catalog.=) m.typnamespace
JOIN pg_catalog.pg_opclass AS oc ON oc.oid OPERATOR(pg_catalog.=) r.rngsubopc
JOIN pg_catalog.pg_namespace AS ocn ON ocn.oid OPERATOR(pg_catalog.=) oc.opcnamespace
LEFT JOIN pg_catalog.pg_collation AS c ON c.oid OPERATOR(pg_catalog.=) r.rngcollation
LEFT JOIN pg_catalog.pg_namespace AS cn ON cn.oid OPERATOR(pg_catalog.=) c.collnamespace
LEFT JOIN pg_catalog.pg_proc AS canon ON canon.oid OPERATOR(pg_catalog.=) r.rngcanonical::pg_catalog.oid
LEFT JOIN pg_catalog.pg_namespace AS canonn ON canonn.oid OPERATOR(pg_catalog.=) canon.pronamespace
LEFT JOIN pg_catalog.pg_proc AS diff ON diff.oid OPERATOR(pg_catalog.=) r.rngsubdiff::pg_catalog.oid
LEFT JOIN pg_catalog.pg_namespace AS diffn ON diffn.oid OPERATOR(pg_catalog.=) diff.pronamespace
ORDER BY n.nspname, t.typname
