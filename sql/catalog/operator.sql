-- Operators; those that are only named by others (no function yet) are left out.
SELECT pg_catalog.json_build_object(
    'oid', o.oid::bigint,
    'schema', n.nspname,
    'name', o.oprname,
    'left', CASE WHEN o.oprleft OPERATOR(pg_catalog.<>) 0 THEN pg_catalog.format_type(o.oprleft, NULL) END,
    'right', CASE WHEN o.oprright OPERATOR(pg_catalog.<>) 0 THEN pg_catalog.format_type(o.oprright, NULL) END,
    'function', pg_catalog.json_build_object('schema', pn.nspname, 'name', p.proname),
    'commutator', CASE WHEN com.oid IS NOT NULL
        THEN pg_catalog.json_build_object('schema', comn.nspname, 'name', com.oprname) END,
    'negator', CASE WHEN neg.oid IS NOT NULL
        THEN pg_catalog.json_build_object('schema', negn.nspname, 'name', neg.oprname) END,
    'restrict', CASE WHEN rest.oid IS NOT NULL
        THEN pg_catalog.json_build_object('schema', restn.nspname, 'name', rest.proname) END,
    'join', CASE WHEN jn.oid IS NOT NULL
        THEN pg_catalog.json_build_object('schema', jnn.nspname, 'name', jn.proname) END,
    'merges', o.oprcanmerge,
    'hashes', o.oprcanhash,
    'comment', (
        SELECT text.description
        FROM pg_catalog.pg_description AS text
        WHERE text.objoid OPERATOR(pg_catalog.=) o.oid AND text.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_operator'::pg_catalog.regclass
          AND text.objsubid OPERATOR(pg_catalog.=) 0)) AS entry
FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS want (oid)
JOIN pg_catalog.pg_operator AS o ON o.oid OPERATOR(pg_catalog.=) want.oid
JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) o.oprnamespace
JOIN pg_catalog.pg_proc AS p ON p.oid OPERATOR(pg_catalog.=) o.oprcode::pg_catalog.oid
JOIN pg_catalog.pg_namespace AS pn ON pn.oid OPERATOR(pg_catalog.=) p.pronamespace
LEFT JOIN pg_catalog.pg_operator AS com ON com.oid OPERATOR(pg_catalog.=) o.oprcom
LEFT JOIN pg_catalog.pg_namespace AS comn ON comn.oid OPERATOR(pg_catalog.=) com.oprnamespace
LEFT JOIN pg_catalog.pg_operator AS neg ON neg.oid OPERATOR(pg_catalog.=) o.oprnegate
LEFT JOIN pg_catalog.pg_namespace AS negn ON negn.oid OPERATOR(pg_catalog.=) neg.oprnamespace
LEFT JOIN pg_catalog.pg_proc AS rest ON rest.oid OPERATOR(pg_catalog.=) o.oprrest::pg_catalog.oid
LEFT JOIN pg_catalog.pg_namespace AS restn ON restn.oid OPERATOR(pg_catalog.=) rest.pronamespace
LEFT JOIN pg_catalog.pg_proc AS jn ON jn.oid OPERATOR(pg_catalog.=) o.oprjoin::pg_catalog.oid
LEFT JOIN pg_catalog.pg_namespace AS jnn ON jnn.oid OPERATOR(pg_catalog.=) jn.pronamespace
ORDER BY n.nspname, o.oprname, pg_catalog.format_type(o.oprleft, NULL), pg_catalog.format_type(o.oprright, NULL)
