-- Text search configurations with their mappings, by token type.
SELECT pg_catalog.json_build_object(
    'oid', c.oid::bigint,
    'schema', n.nspname,
    'name', c.cfgname,
    'parser', pg_catalog.json_build_object('schema', pn.nspname, 'name', p.prsname),
    'mappings', COALESCE((
        SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
            'token', token.alias, 'dictionaries', m.dictionaries) ORDER BY m.maptokentype)
        FROM (
            SELECT m.maptokentype, pg_catalog.json_agg(pg_catalog.json_build_object(
                'schema', dn.nspname, 'name', d.dictname) ORDER BY m.mapseqno) AS dictionaries
            FROM pg_catalog.pg_ts_config_map AS m
            JOIN pg_catalog.pg_ts_dict AS d ON d.oid OPERATOR(pg_catalog.=) m.mapdict
            JOIN pg_catalog.pg_namespace AS dn ON dn.oid OPERATOR(pg_catalog.=) d.dictnamespace
            WHERE m.mapcfg OPERATOR(pg_catalog.=) c.oid
            GROUP BY m.maptokentype) AS m
        JOIN pg_catalog.ts_token_type(c.cfgparser) AS token ON token.tokid OPERATOR(pg_catalog.=) m.maptokentype
    ), '[]'::pg_catalog.json),
    'comment', (
        SELECT text.description
        FROM pg_catalog.pg_description AS text
        WHERE text.objoid OPERATOR(pg_catalog.=) c.oid AND text.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_ts_config'::pg_catalog.regclass
          AND text.objsubid OPERATOR(pg_catalog.=) 0)) AS entry
FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS want (oid)
JOIN pg_catalog.pg_ts_config AS c ON c.oid OPERATOR(pg_catalog.=) want.oid
JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.cfgnamespace
JOIN pg_catalog.pg_ts_parser AS p ON p.oid OPERATOR(pg_catalog.=) c.cfgparser
JOIN pg_catalog.pg_namespace AS pn ON pn.oid OPERATOR(pg_catalog.=) p.prsnamespace
ORDER BY n.nspname, c.cfgname
