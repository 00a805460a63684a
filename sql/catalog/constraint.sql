-- Constraints of tables: primary key, unique, check, foreign key, exclusion.
--
-- parent_oid is the constraint of the partitioned table that this one is a part of
-- (conparentid); index is the index behind a key or an exclusion, with its own definition.
SELECT pg_catalog.json_build_object(
    'oid', k.oid::bigint,
    'name', k.conname,
    'table_oid', c.oid::bigint,
    'schema', n.nspname,
    'table', c.relname,
    'partitioned', c.relkind OPERATOR(pg_catalog.=) 'p',
    'type', k.contype,
    'definition', pg_catalog.pg_get_constraintdef(k.oid),
    'deferrable', k.condeferrable,
    'deferred', k.condeferred,
    'validated', k.convalidated,
    'no_inherit', k.contype OPERATOR(pg_catalog.=) 'c' AND k.connoinherit,
    'local', k.conislocal,
    'inherited', k.coninhcount,
    'parent_oid', k.conparentid::bigint,
    'referenced_oid', k.confrelid::bigint,
    'index', CASE WHEN k.contype OPERATOR(pg_catalog.=) ANY ('{p,u,x}'::"char"[]) THEN (
        SELECT pg_catalog.json_build_object(
            'oid', i.indexrelid::bigint,
            'name', ic.relname,
            'method', am.amname,
            'definition', pg_catalog.pg_get_indexdef(i.indexrelid),
            'clustered', i.indisclustered,
            'parent_oid', (
                SELECT h.inhparent::bigint
                FROM pg_catalog.pg_inherits AS h
                WHERE h.inhrelid OPERATOR(pg_catalog.=) i.indexrelid),
            'comment', (
        SELECT text.description
        FROM pg_catalog.pg_description AS text
        WHERE text.objoid OPERATOR(pg_catalog.=) i.indexrelid AND text.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
          AND text.objsubid OPERATOR(pg_catalog.=) 0))
        FROM pg_catalog.pg_index AS i
        JOIN pg_catalog.pg_class AS ic ON ic.oid OPERATOR(pg_catalog.=) i.indexrelid
        JOIN pg_catalog.pg_am AS am ON am.oid OPERATOR(pg_catalog.=) ic.relam
        WHERE i.indexrelid OPERATOR(pg_catalog.=) k.conindid) END,
    'comment', (
        SELECT text.description
        FROM pg_catalog.pg_description AS text
        WHERE text.objoid OPERATOR(pg_catalog.=) k.oid AND text.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_constraint'::pg_catalog.regclass
          AND text.objsubid OPERATOR(pg_catalog.=) 0)) AS entry
FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS want (oid)
JOIN pg_catalog.pg_constraint AS k ON k.oid OPERATOR(pg_catalog.=) want.oid
JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) k.conrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE k.contype OPERATOR(pg_catalog.=) ANY ('{p,u,x,c,f}'::"char"[])
ORDER BY n.nspname, c.relname, k.conname
