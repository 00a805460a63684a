-- Foreign servers.
SELECT pg_catalog.json_build_object(
    'oid', s.oid::bigint,
    'name', s.srvname,
    'wrapper', w.fdwname,
    'type', s.srvtype,
    'version', s.srvversion,
    'options', COALESCE((
        SELECT pg_catalog.json_agg(pg_catalog.json_build_object('name', u.option_name, 'value', COALESCE(u.option_value, '')) ORDER BY u.place)
        FROM pg_catalog.pg_options_to_table(s.srvoptions) WITH ORDINALITY AS u (option_name, option_value, place)), '[]'::pg_catalog.json),
    'comment', (
        SELECT text.description
        FROM pg_catalog.pg_description AS text
        WHERE text.objoid OPERATOR(pg_catalog.=) s.oid AND text.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_foreign_server'::pg_catalog.regclass
          AND text.objsubid OPERATOR(pg_catalog.=) 0)) AS entry
FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS want (oid)
JOIN pg_catalog.pg_foreign_server AS s ON s.oid OPERATOR(pg_catalog.=) want.oid
JOIN pg_catalog.pg_foreign_data_wrapper AS w ON w.oid OPERATOR(pg_catalog.=) s.srvfdw
ORDER BY s.srvname
