-- Text search dictionaries.
SELECT pg_catalog.jsonb_build_object(
    'oid', d.oid::bigint,
    'schema', n.nspname,
    'name', d.dictname,
    'template', pg_catalog.jsonb_build_object('schema', tn.nspname, 'name', t.tmplname),
    'options', d.dictinitoption,
    'comment', pg_catalog.obj_description(d.oid, 'pg_ts_dict')) AS entry
FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS want (oid)
JOIN pg_catalog.pg_ts_dict AS d ON d.oid OPERATOR(pg_catalog.=) want.oid
JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) d.dictnamespace
JOIN pg_catalog.pg_ts_template AS t ON t.oid OPERATOR(pg_catalog.=) d.dicttemplate
JOIN pg_catalog.pg_namespace AS tn ON tn.oid OPERATOR(pg_catalog.=) t.tmplnamespace
ORDER BY n.nspname, d.dictname
