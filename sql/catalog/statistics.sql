-- Extended statistics objects.
SELECT pg_catalog.json_build_object(
    'oid', s.oid::bigint,
    'schema', n.nspname,
    'name', s.stxname,
    'table_oid', c.oid::bigint,
    'table_schema', tn.nspname,
    'table', c.relname,
    'definition', pg_catalog.pg_get_statisticsobjdef(s.oid),
    'target', CASE WHEN s.stxstattarget OPERATOR(pg_catalog.>=) 0 THEN s.stxstattarget END,
    'comment', (
        SELECT text.description
        FROM pg_catalog.pg_description AS text
        WHERE text.objoid OPERATOR(pg_catalog.=) s.oid AND text.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass
          AND text.objsubid OPERATOR(pg_catalog.=) 0)) AS entry
FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS want (oid)
JOIN pg_catalog.pg_statistic_ext AS s ON s.oid OPERATOR(pg_catalog.=) want.oid
JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) s.stxnamespace
JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) s.stxrelid
JOIN pg_catalog.pg_namespace AS tn ON tn.oid OPERATOR(pg_catalog.=) c.relnamespace
ORDER BY n.nspname, s.stxname
