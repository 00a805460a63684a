-- Text search dictionaries.
SELECT pg_catalog.json_build_object(
    'oid', d.oid::bigint,
    'schema', n.nspname,
    'name', d.dictname,
    'template', pg_catalog.json_build_object('schema', tn.nspname, 'name', t.tmplname),
    'options', d.dictinitoption,
    'comment', (
        SELECT text.description
        FROM pg_catalog.pg_description AS text
        WHERE text.objoid OPERATOR(pg_catalog.=) d.oid AND text.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_ts_dict'::pg_catalog.regclass
          AND text.objsubid OPERATOR(pg_catalog.=) 0)) AS entry
FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS want (oid)
JOIN pg_catalog.pg_ts_dict AS d ON d.oid OPERATOR(pg_catalog.=) want.oid
JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) d.dictnamespace
JOIN pg_catalog.pg_ts_template AS t ON t.oid OPERATOR(pg_catalog.=) d.dicttemplate
JOIN pg_catalog.pg_namespace AS tn ON tn.oid OPERATOR(pg_catalog.=) t.tmplnamespace
ORDER BY n.nspname, d.dictname
