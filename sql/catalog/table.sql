-- Tables and partitioned tables.  Columns by attnum, dropped ones marked.  Values of
-- regrole and aclitem name roles, which are the cluster's: of a table with such a column
-- all of them are listed.
--
-- Storage, collation and compression stand only where they are not what the type brings.
-- A default's id is that of its pg_attrdef row.  not_null_name is the constraint of
-- PostgreSQL 18 and later; older servers keep a flag only. One that is not valid is not brought: the
-- rows of the copy may break it.  pg_attver is the server's own stamp on
-- a column, kept among its options by later minor releases of the back branches.
SELECT pg_catalog.json_build_object(
    'oid', c.oid::bigint,
    'schema', n.nspname,
    'name', c.relname,
    'partitioned', c.relkind OPERATOR(pg_catalog.=) 'p',
    'unlogged', c.relpersistence OPERATOR(pg_catalog.=) 'u',
    'access_method', am.amname,
    'of_type', CASE WHEN ot.oid IS NOT NULL
        THEN pg_catalog.json_build_object('schema', otn.nspname, 'name', ot.typname,
                                           'sql', pg_catalog.format_type(ot.oid, NULL)) END,
    'options', COALESCE(pg_catalog.to_json(c.reloptions), '[]'::pg_catalog.json),
    'toast_options', COALESCE(pg_catalog.to_json(toast.reloptions), '[]'::pg_catalog.json),
    'row_security', c.relrowsecurity,
    'force_row_security', c.relforcerowsecurity,
    'replica_identity', c.relreplident,
    'replica_identity_index', (
        SELECT ic.relname
        FROM pg_catalog.pg_index AS i
        JOIN pg_catalog.pg_class AS ic ON ic.oid OPERATOR(pg_catalog.=) i.indexrelid
        WHERE i.indrelid OPERATOR(pg_catalog.=) c.oid AND i.indisreplident),
    'partition_key', CASE WHEN c.relkind OPERATOR(pg_catalog.=) 'p' THEN pg_catalog.pg_get_partkeydef(c.oid) END,
    'partition_bound', CASE WHEN c.relispartition THEN pg_catalog.pg_get_expr(c.relpartbound, c.oid) END,
    'parents', COALESCE((
        SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
            'oid', p.oid::bigint, 'schema', pn.nspname, 'name', p.relname) ORDER BY i.inhseqno)
        FROM pg_catalog.pg_inherits AS i
        JOIN pg_catalog.pg_class AS p ON p.oid OPERATOR(pg_catalog.=) i.inhparent
        JOIN pg_catalog.pg_namespace AS pn ON pn.oid OPERATOR(pg_catalog.=) p.relnamespace
        WHERE i.inhrelid OPERATOR(pg_catalog.=) c.oid), '[]'::pg_catalog.json),
    'filenode', c.relfilenode::bigint,
    'roles', CASE WHEN EXISTS (
            SELECT FROM pg_catalog.pg_attribute AS a
            WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid AND NOT a.attisdropped
              AND a.atttypid OPERATOR(pg_catalog.=) ANY ('{regrole,regrole[],aclitem,aclitem[]}'::pg_catalog.regtype[]::pg_catalog.oid[]))
        THEN (
            SELECT pg_catalog.json_agg(r.rolname ORDER BY r.rolname)
            FROM pg_catalog.pg_roles AS r
            WHERE NOT pg_catalog.starts_with(r.rolname::pg_catalog.text, 'pg_'))
        ELSE '[]'::pg_catalog.json END,
    'columns', COALESCE((
        SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
            'attnum', a.attnum,
            'name', a.attname,
            'dropped', a.attisdropped,
            'type', CASE WHEN NOT a.attisdropped THEN pg_catalog.json_build_object(
                'schema', tn.nspname, 'name', t.typname,
                'sql', pg_catalog.format_type(a.atttypid, a.atttypmod)) END,
            'not_null', a.attnotnull AND COALESCE(nn.convalidated, TRUE),
            'not_null_name', nn.conname,
            'not_null_no_inherit', COALESCE(nn.connoinherit, FALSE),
            'default', CASE WHEN d.oid IS NOT NULL THEN pg_catalog.json_build_object(
                'oid', d.oid::bigint, 'sql', pg_catalog.pg_get_expr(d.adbin, d.adrelid)) END,
            'generated', a.attgenerated,
            'identity', a.attidentity,
            'collation', CASE WHEN a.attcollation OPERATOR(pg_catalog.<>) t.typcollation
                THEN pg_catalog.json_build_object('schema', cn.nspname, 'name', co.collname) END,
            'storage', CASE WHEN a.attstorage OPERATOR(pg_catalog.<>) t.typstorage THEN a.attstorage END,
            'compression', a.attcompression,
            'statistics', CASE WHEN a.attstattarget OPERATOR(pg_catalog.>=) 0 THEN a.attstattarget END,
            'options', CASE WHEN a.attoptions IS NULL THEN '[]'::pg_catalog.json ELSE COALESCE((
                SELECT pg_catalog.json_agg(u.option ORDER BY u.place)
                FROM pg_catalog.unnest(a.attoptions) WITH ORDINALITY AS u (option, place)
                WHERE NOT pg_catalog.starts_with(u.option, 'pg_attver=')), '[]'::pg_catalog.json) END,
            'local', a.attislocal,
            'inherited', a.attinhcount,
            'missing', CASE WHEN a.atthasmissing THEN a.attmissingval::pg_catalog.text END,
            'comment', (
                SELECT text.description
                FROM pg_catalog.pg_description AS text
                WHERE text.objoid OPERATOR(pg_catalog.=) c.oid AND text.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
                  AND text.objsubid OPERATOR(pg_catalog.=) a.attnum)) ORDER BY a.attnum)
        FROM pg_catalog.pg_attribute AS a
        LEFT JOIN pg_catalog.pg_type AS t ON t.oid OPERATOR(pg_catalog.=) a.atttypid
        LEFT JOIN pg_catalog.pg_namespace AS tn ON tn.oid OPERATOR(pg_catalog.=) t.typnamespace
        LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid OPERATOR(pg_catalog.=) a.attrelid AND d.adnum OPERATOR(pg_catalog.=) a.attnum
        LEFT JOIN pg_catalog.pg_collation AS co ON co.oid OPERATOR(pg_catalog.=) a.attcollation
        LEFT JOIN pg_catalog.pg_namespace AS cn ON cn.oid OPERATOR(pg_catalog.=) co.collnamespace
        LEFT JOIN pg_catalog.pg_constraint AS nn
          ON nn.conrelid OPERATOR(pg_catalog.=) a.attrelid AND nn.contype OPERATOR(pg_catalog.=) 'n' AND nn.conkey OPERATOR(pg_catalog.=) ARRAY[a.attnum]
        WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.>) 0), '[]'::pg_catalog.json),
    'comment', (
        SELECT text.description
        FROM pg_catalog.pg_description AS text
        WHERE text.objoid OPERATOR(pg_catalog.=) c.oid AND text.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
          AND text.objsubid OPERATOR(pg_catalog.=) 0)) AS entry
FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS want (oid)
JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) want.oid
JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
LEFT JOIN pg_catalog.pg_am AS am ON am.oid OPERATOR(pg_catalog.=) c.relam
LEFT JOIN pg_catalog.pg_type AS ot ON ot.oid OPERATOR(pg_catalog.=) c.reloftype
LEFT JOIN pg_catalog.pg_namespace AS otn ON otn.oid OPERATOR(pg_catalog.=) ot.typnamespace
LEFT JOIN pg_catalog.pg_class AS toast ON toast.oid OPERATOR(pg_catalog.=) c.reltoastrelid
WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p}'::"char"[])
ORDER BY n.nspname, c.relname
