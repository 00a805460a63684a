-- Operator families, with the operators and functions that no class of theirs holds.
SELECT pg_catalog.json_build_object(
    'oid', y.oid::bigint,
    'schema', n.nspname,
    'name', y.opfname,
    'access_method', a.amname,
    'operators', COALESCE((
        SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
            'strategy', m.amopstrategy,
            'operator', pg_catalog.json_build_object('schema', opn.nspname, 'name', o.oprname),
            'left', (
                SELECT pg_catalog.json_build_object('schema', xn.nspname, 'name', x.typname, 'sql', pg_catalog.format_type(x.oid, NULL))
                FROM pg_catalog.pg_type AS x
                JOIN pg_catalog.pg_namespace AS xn ON xn.oid OPERATOR(pg_catalog.=) x.typnamespace
                WHERE x.oid OPERATOR(pg_catalog.=) m.amoplefttype),
            'right', (
                SELECT pg_catalog.json_build_object('schema', xn.nspname, 'name', x.typname, 'sql', pg_catalog.format_type(x.oid, NULL))
                FROM pg_catalog.pg_type AS x
                JOIN pg_catalog.pg_namespace AS xn ON xn.oid OPERATOR(pg_catalog.=) x.typnamespace
                WHERE x.oid OPERATOR(pg_catalog.=) m.amoprighttype),
            'order_family', CASE WHEN sf.oid IS NOT NULL
                THEN pg_catalog.json_build_object('schema', sfn.nspname, 'name', sf.opfname) END)
            ORDER BY m.amopstrategy, pg_catalog.format_type(m.amoplefttype, NULL), pg_catalog.format_type(m.amoprighttype, NULL))
        FROM pg_catalog.pg_depend AS d
        JOIN pg_catalog.pg_amop AS m ON m.oid OPERATOR(pg_catalog.=) d.objid
        JOIN pg_catalog.pg_operator AS o ON o.oid OPERATOR(pg_catalog.=) m.amopopr
        JOIN pg_catalog.pg_namespace AS opn ON opn.oid OPERATOR(pg_catalog.=) o.oprnamespace
        LEFT JOIN pg_catalog.pg_opfamily AS sf ON sf.oid OPERATOR(pg_catalog.=) m.amopsortfamily
        LEFT JOIN pg_catalog.pg_namespace AS sfn ON sfn.oid OPERATOR(pg_catalog.=) sf.opfnamespace
        WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_amop'::pg_catalog.regclass
          AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_opfamily'::pg_catalog.regclass AND d.refobjid OPERATOR(pg_catalog.=) y.oid), '[]'::pg_catalog.json),
    'functions', COALESCE((
        SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
            'number', m.amprocnum,
            'left', (
                SELECT pg_catalog.json_build_object('schema', xn.nspname, 'name', x.typname, 'sql', pg_catalog.format_type(x.oid, NULL))
                FROM pg_catalog.pg_type AS x
                JOIN pg_catalog.pg_namespace AS xn ON xn.oid OPERATOR(pg_catalog.=) x.typnamespace
                WHERE x.oid OPERATOR(pg_catalog.=) m.amproclefttype),
            'right', (
                SELECT pg_catalog.json_build_object('schema', xn.nspname, 'name', x.typname, 'sql', pg_catalog.format_type(x.oid, NULL))
                FROM pg_catalog.pg_type AS x
                JOIN pg_catalog.pg_namespace AS xn ON xn.oid OPERATOR(pg_catalog.=) x.typnamespace
                WHERE x.oid OPERATOR(pg_catalog.=) m.amprocrighttype),
            'function', (
                SELECT pg_catalog.json_build_object('schema', fn.nspname, 'name', f.proname, 'arguments', COALESCE((
                    SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                        'schema', xn.nspname, 'name', x.typname, 'sql', pg_catalog.format_type(x.oid, NULL)) ORDER BY u.place)
                    FROM pg_catalog.unnest(f.proargtypes::pg_catalog.oid[]) WITH ORDINALITY AS u (oid, place)
                    JOIN pg_catalog.pg_type AS x ON x.oid OPERATOR(pg_catalog.=) u.oid
                    JOIN pg_catalog.pg_namespace AS xn ON xn.oid OPERATOR(pg_catalog.=) x.typnamespace), '[]'::pg_catalog.json))
                FROM pg_catalog.pg_proc AS f
                JOIN pg_catalog.pg_namespace AS fn ON fn.oid OPERATOR(pg_catalog.=) f.pronamespace
                WHERE f.oid OPERATOR(pg_catalog.=) m.amproc::pg_catalog.oid))
            ORDER BY m.amprocnum, pg_catalog.format_type(m.amproclefttype, NULL), pg_catalog.format_type(m.amprocrighttype, NULL))
        FROM pg_catalog.pg_depend AS d
        JOIN pg_catalog.pg_amproc AS m ON m.oid OPERATOR(pg_catalog.=) d.objid
        WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_amproc'::pg_catalog.regclass
          AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_opfamily'::pg_catalog.regclass AND d.refobjid OPERATOR(pg_catalog.=) y.oid), '[]'::pg_catalog.json),
    'comment', (
        SELECT text.description
        FROM pg_catalog.pg_description AS text
        WHERE text.objoid OPERATOR(pg_catalog.=) y.oid AND text.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_opfamily'::pg_catalog.regclass
          AND text.objsubid OPERATOR(pg_catalog.=) 0)) AS entry
FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS want (oid)
JOIN pg_catalog.pg_opfamily AS y ON y.oid OPERATOR(pg_catalog.=) want.oid
JOIN pg_catalog.pg_am AS a ON a.oid OPERATOR(pg_catalog.=) y.opfmethod
JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) y.opfnamespace
ORDER BY n.nspname, y.opfname, a.amname
