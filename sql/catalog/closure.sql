-- The closure of a job: every object that the shadow needs, and what is left out.
--
-- $1 oid[]    the tables chosen (relkind r or p); of a whole database: those left alone
-- $2 boolean  the whole database
--
-- -> classid oid, objid oid
--    standing text   'selected': the user's choice, or a part of a selected table
--                    'needed':   only because something selected can't be made
--                                without it (of a table: its columns, no rows; so are
--                                unlogged and foreign tables of a whole database)
--                    'left_out': not brought, object and reason say what and why
--    object text, reason text   for 'left_out'
--
-- Never listed: what stands in pg_catalog, information_schema, a temporary or
-- TOAST schema, what the extension scry_backfill or the shadow's own schema
-- holds, and members of extensions (the extension is listed).  Parts without an
-- entry of their own (defaults, array and row types, a constraint's index, the
-- rule that makes a view) are followed but not listed.
--
-- Runs as superuser with search_path = '': every name and operator is qualified.
--
-- The planner knows nothing of the size of a WITH query, and takes nested loops that need minutes
-- for 10,000 tables.  (x = ANY (SELECT ...)) IS TRUE is not made a join: it is a
-- hash lookup, whatever is guessed.
WITH RECURSIVE
schema (oid, nspname) AS (
    SELECT n.oid, n.nspname
    FROM pg_catalog.pg_namespace AS n
    WHERE NOT n.nspname OPERATOR(pg_catalog.=) ANY ('{information_schema,scry_backfill,scry_shadow}'::pg_catalog.name[])
      AND NOT pg_catalog.starts_with(n.nspname::pg_catalog.text, 'pg_')
),
member (classid, objid) AS (
    SELECT d.classid, d.objid
    FROM pg_catalog.pg_depend AS d
    WHERE d.deptype OPERATOR(pg_catalog.=) 'e' AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
),
-- The user's relations.
relation (oid, relkind, relpersistence, relispartition) AS (
    SELECT c.oid, c.relkind, c.relpersistence, c.relispartition
    FROM pg_catalog.pg_class AS c
    JOIN schema AS s ON s.oid OPERATOR(pg_catalog.=) c.relnamespace
    WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,v,m,f,S,i,I}'::"char"[])
      AND NOT EXISTS (
        SELECT FROM member AS m
        WHERE m.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass AND m.objid OPERATOR(pg_catalog.=) c.oid)
),
-- Tables of a whole database that its job leaves alone.
alone (oid) AS (
    SELECT named.oid
    FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS named (oid)
    WHERE $2::boolean
),
-- Tables whose rows go to the shadow; a partitioned table brings its partitions.
chosen (oid) AS (
    SELECT r.oid
    FROM relation AS r
    WHERE $2::boolean AND r.relkind OPERATOR(pg_catalog.=) ANY ('{r,p}'::"char"[]) AND r.relpersistence OPERATOR(pg_catalog.=) 'p'
      AND (r.oid OPERATOR(pg_catalog.=) ANY (SELECT a.oid FROM alone AS a)) IS NOT TRUE
    UNION ALL
    SELECT r.oid
    FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS named (oid)
    JOIN relation AS r ON r.oid OPERATOR(pg_catalog.=) named.oid
    WHERE NOT $2::boolean AND r.relkind OPERATOR(pg_catalog.=) ANY ('{r,p}'::"char"[]) AND r.relpersistence OPERATOR(pg_catalog.=) 'p'
    UNION
    SELECT i.inhrelid
    FROM chosen AS c
    JOIN pg_catalog.pg_inherits AS i ON i.inhparent OPERATOR(pg_catalog.=) c.oid
    WHERE (i.inhrelid OPERATOR(pg_catalog.=) ANY (
            SELECT r.oid
            FROM relation AS r
            WHERE r.relispartition AND r.relkind OPERATOR(pg_catalog.=) ANY ('{r,p}'::"char"[]) AND r.relpersistence OPERATOR(pg_catalog.=) 'p')) IS TRUE
      AND (i.inhrelid OPERATOR(pg_catalog.=) ANY (SELECT a.oid FROM alone AS a)) IS NOT TRUE
),
-- Tables that come without rows: whole databases have unlogged and foreign ones too.
shape (oid) AS (
    SELECT r.oid
    FROM relation AS r
    WHERE $2::boolean
      AND (r.relkind OPERATOR(pg_catalog.=) 'f'
           OR r.relkind OPERATOR(pg_catalog.=) ANY ('{r,p}'::"char"[]) AND r.relpersistence OPERATOR(pg_catalog.=) 'u')
),
-- Which view reads which relation, directly.
reads (reader, relid) AS (
    SELECT DISTINCT w.ev_class, d.refobjid
    FROM pg_catalog.pg_rewrite AS w
    JOIN pg_catalog.pg_depend AS d
      ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid OPERATOR(pg_catalog.=) w.oid
     AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid OPERATOR(pg_catalog.<>) w.ev_class
    WHERE w.rulename OPERATOR(pg_catalog.=) '_RETURN'
      AND (w.ev_class OPERATOR(pg_catalog.=) ANY (
            SELECT v.oid FROM relation AS v WHERE v.relkind OPERATOR(pg_catalog.=) ANY ('{v,m}'::"char"[]))) IS TRUE
      AND (d.refobjid OPERATOR(pg_catalog.=) ANY (
            SELECT r.oid FROM relation AS r WHERE r.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,v,m,f}'::"char"[]))) IS TRUE
),
-- Views that read, at some depth, a table that is not chosen.
blind (oid) AS (
    SELECT e.reader
    FROM reads AS e
    WHERE (e.relid OPERATOR(pg_catalog.=) ANY (
            SELECT r.oid FROM relation AS r WHERE r.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,f}'::"char"[]))) IS TRUE
      AND (e.relid OPERATOR(pg_catalog.=) ANY (SELECT c.oid FROM chosen AS c)) IS NOT TRUE
      AND (e.relid OPERATOR(pg_catalog.=) ANY (SELECT s.oid FROM shape AS s)) IS NOT TRUE
    UNION
    SELECT e.reader
    FROM blind AS b
    JOIN reads AS e ON e.relid OPERATOR(pg_catalog.=) b.oid
),
-- Views that read, at some depth, a chosen table.
sighted (oid) AS (
    SELECT e.reader
    FROM reads AS e
    WHERE (e.relid OPERATOR(pg_catalog.=) ANY (SELECT c.oid FROM chosen AS c)) IS TRUE
    UNION
    SELECT e.reader
    FROM sighted AS s
    JOIN reads AS e ON e.relid OPERATOR(pg_catalog.=) s.oid
),
kept (oid) AS (
    SELECT c.oid FROM chosen AS c
    UNION ALL
    SELECT s.oid FROM shape AS s
    UNION ALL
    SELECT r.oid
    FROM relation AS r
    WHERE r.relkind OPERATOR(pg_catalog.=) ANY ('{v,m}'::"char"[])
      AND ($2::boolean OR (r.oid OPERATOR(pg_catalog.=) ANY (SELECT s.oid FROM sighted AS s)) IS TRUE)
      AND (r.oid OPERATOR(pg_catalog.=) ANY (SELECT b.oid FROM blind AS b)) IS NOT TRUE
),
-- What hangs on the kept relations.
part (classid, objid) AS (
    SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass::pg_catalog.oid, k.oid
    FROM pg_catalog.pg_constraint AS k
    JOIN kept ON kept.oid OPERATOR(pg_catalog.=) k.conrelid
    LEFT JOIN pg_catalog.pg_constraint AS up ON up.oid OPERATOR(pg_catalog.=) k.conparentid
    WHERE k.contype OPERATOR(pg_catalog.=) ANY ('{p,u,x,c}'::"char"[])
       OR k.contype OPERATOR(pg_catalog.=) 'f' AND (up.conrelid OPERATOR(pg_catalog.=) ANY (SELECT o.oid FROM kept AS o)) IS NOT TRUE
    UNION ALL
    SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, i.indexrelid
    FROM pg_catalog.pg_index AS i
    JOIN kept ON kept.oid OPERATOR(pg_catalog.=) i.indrelid
    JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) i.indrelid
    WHERE (i.indisvalid OR c.relkind OPERATOR(pg_catalog.=) 'p') AND i.indisready
      AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_constraint AS k
        WHERE k.conindid OPERATOR(pg_catalog.=) i.indexrelid AND k.conrelid OPERATOR(pg_catalog.=) i.indrelid
          AND k.contype OPERATOR(pg_catalog.=) ANY ('{p,u,x}'::"char"[]))
    UNION ALL
    -- A partition's copy of a trigger comes with the parent's; it is listed only
    -- where it is switched otherwise.
    SELECT 'pg_catalog.pg_trigger'::pg_catalog.regclass, t.oid
    FROM pg_catalog.pg_trigger AS t
    LEFT JOIN pg_catalog.pg_trigger AS up ON up.oid OPERATOR(pg_catalog.=) t.tgparentid AND up.tgenabled OPERATOR(pg_catalog.=) t.tgenabled
    WHERE NOT t.tgisinternal
      AND (t.tgrelid OPERATOR(pg_catalog.=) ANY (SELECT o.oid FROM kept AS o)) IS TRUE
      AND (up.tgrelid OPERATOR(pg_catalog.=) ANY (SELECT o.oid FROM kept AS o)) IS NOT TRUE
    UNION ALL
    SELECT 'pg_catalog.pg_policy'::pg_catalog.regclass, p.oid
    FROM pg_catalog.pg_policy AS p
    WHERE (p.polrelid OPERATOR(pg_catalog.=) ANY (SELECT o.oid FROM kept AS o)) IS TRUE
    UNION ALL
    SELECT 'pg_catalog.pg_rewrite'::pg_catalog.regclass, w.oid
    FROM pg_catalog.pg_rewrite AS w
    WHERE (w.ev_class OPERATOR(pg_catalog.=) ANY (SELECT o.oid FROM kept AS o)) IS TRUE
    UNION ALL
    SELECT 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, s.oid
    FROM pg_catalog.pg_statistic_ext AS s
    WHERE (s.stxrelid OPERATOR(pg_catalog.=) ANY (SELECT o.oid FROM kept AS o)) IS TRUE
    UNION ALL
    SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, d.objid
    FROM pg_catalog.pg_depend AS d
    WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
      AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
      AND d.deptype OPERATOR(pg_catalog.=) ANY ('{a,i}'::"char"[])
      AND (d.refobjid OPERATOR(pg_catalog.=) ANY (SELECT o.oid FROM kept AS o)) IS TRUE
      AND (d.objid OPERATOR(pg_catalog.=) ANY (SELECT s.oid FROM relation AS s WHERE s.relkind OPERATOR(pg_catalog.=) 'S')) IS TRUE
),
-- Parts that reach a relation that does not come along.
outside (classid, objid, relid) AS (
    SELECT DISTINCT p.classid, p.objid, d.refobjid
    FROM part AS p
    JOIN pg_catalog.pg_depend AS d
      ON d.classid OPERATOR(pg_catalog.=) p.classid AND d.objid OPERATOR(pg_catalog.=) p.objid
     AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
    WHERE p.classid OPERATOR(pg_catalog.<>) 'pg_catalog.pg_class'::pg_catalog.regclass
      AND (d.refobjid OPERATOR(pg_catalog.=) ANY (
            SELECT r.oid FROM relation AS r WHERE r.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,v,m,f}'::"char"[]))) IS TRUE
      AND (d.refobjid OPERATOR(pg_catalog.=) ANY (SELECT o.oid FROM kept AS o)) IS NOT TRUE
),
-- Objects that belong to a schema by themselves, for the whole database.
everything (classid, objid) AS (
    SELECT 'pg_catalog.pg_namespace'::pg_catalog.regclass::pg_catalog.oid, s.oid
    FROM schema AS s
    WHERE s.oid OPERATOR(pg_catalog.>=) 16384 OR s.nspname OPERATOR(pg_catalog.=) 'public'
    UNION ALL
    SELECT 'pg_catalog.pg_extension'::pg_catalog.regclass, e.oid
    FROM pg_catalog.pg_extension AS e
    WHERE e.oid OPERATOR(pg_catalog.>=) 16384
    UNION ALL
    SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid
    FROM pg_catalog.pg_type AS t
    JOIN schema AS s ON s.oid OPERATOR(pg_catalog.=) t.typnamespace
    WHERE t.typtype OPERATOR(pg_catalog.=) ANY ('{e,d,c,r}'::"char"[])
       OR t.oid OPERATOR(pg_catalog.>=) 16384
          AND (t.typtype OPERATOR(pg_catalog.=) 'p'
               OR t.typtype OPERATOR(pg_catalog.=) 'b'
                  AND (t.oid OPERATOR(pg_catalog.=) ANY (SELECT e.typarray FROM pg_catalog.pg_type AS e)) IS NOT TRUE)
    UNION ALL
    SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid
    FROM pg_catalog.pg_proc AS p
    JOIN schema AS s ON s.oid OPERATOR(pg_catalog.=) p.pronamespace
    UNION ALL
    SELECT 'pg_catalog.pg_collation'::pg_catalog.regclass, c.oid
    FROM pg_catalog.pg_collation AS c
    JOIN schema AS s ON s.oid OPERATOR(pg_catalog.=) c.collnamespace
    UNION ALL
    SELECT 'pg_catalog.pg_operator'::pg_catalog.regclass, o.oid
    FROM pg_catalog.pg_operator AS o
    JOIN schema AS s ON s.oid OPERATOR(pg_catalog.=) o.oprnamespace
    WHERE o.oprcode::pg_catalog.oid OPERATOR(pg_catalog.<>) 0
    UNION ALL
    SELECT 'pg_catalog.pg_ts_dict'::pg_catalog.regclass, t.oid
    FROM pg_catalog.pg_ts_dict AS t
    JOIN schema AS s ON s.oid OPERATOR(pg_catalog.=) t.dictnamespace
    UNION ALL
    SELECT 'pg_catalog.pg_ts_config'::pg_catalog.regclass, t.oid
    FROM pg_catalog.pg_ts_config AS t
    JOIN schema AS s ON s.oid OPERATOR(pg_catalog.=) t.cfgnamespace
    UNION ALL
    SELECT 'pg_catalog.pg_opfamily'::pg_catalog.regclass, y.oid
    FROM pg_catalog.pg_opfamily AS y
    JOIN schema AS s ON s.oid OPERATOR(pg_catalog.=) y.opfnamespace
    UNION ALL
    SELECT 'pg_catalog.pg_opclass'::pg_catalog.regclass, y.oid
    FROM pg_catalog.pg_opclass AS y
    JOIN schema AS s ON s.oid OPERATOR(pg_catalog.=) y.opcnamespace
    UNION ALL
    SELECT 'pg_catalog.pg_conversion'::pg_catalog.regclass, y.oid
    FROM pg_catalog.pg_conversion AS y
    JOIN schema AS s ON s.oid OPERATOR(pg_catalog.=) y.connamespace
    UNION ALL
    SELECT 'pg_catalog.pg_ts_parser'::pg_catalog.regclass, y.oid
    FROM pg_catalog.pg_ts_parser AS y
    JOIN schema AS s ON s.oid OPERATOR(pg_catalog.=) y.prsnamespace
    UNION ALL
    SELECT 'pg_catalog.pg_ts_template'::pg_catalog.regclass, y.oid
    FROM pg_catalog.pg_ts_template AS y
    JOIN schema AS s ON s.oid OPERATOR(pg_catalog.=) y.tmplnamespace
    UNION ALL
    SELECT 'pg_catalog.pg_am'::pg_catalog.regclass, y.oid
    FROM pg_catalog.pg_am AS y
    WHERE y.oid OPERATOR(pg_catalog.>=) 16384
    UNION ALL
    SELECT 'pg_catalog.pg_language'::pg_catalog.regclass, y.oid
    FROM pg_catalog.pg_language AS y
    WHERE y.oid OPERATOR(pg_catalog.>=) 16384
    UNION ALL
    SELECT 'pg_catalog.pg_transform'::pg_catalog.regclass, y.oid
    FROM pg_catalog.pg_transform AS y
    WHERE y.oid OPERATOR(pg_catalog.>=) 16384
    UNION ALL
    SELECT 'pg_catalog.pg_foreign_data_wrapper'::pg_catalog.regclass, y.oid
    FROM pg_catalog.pg_foreign_data_wrapper AS y
    WHERE y.oid OPERATOR(pg_catalog.>=) 16384
    UNION ALL
    SELECT 'pg_catalog.pg_foreign_server'::pg_catalog.regclass, y.oid
    FROM pg_catalog.pg_foreign_server AS y
    WHERE y.oid OPERATOR(pg_catalog.>=) 16384
    UNION ALL
    SELECT 'pg_catalog.pg_event_trigger'::pg_catalog.regclass, y.oid
    FROM pg_catalog.pg_event_trigger AS y
    WHERE y.oid OPERATOR(pg_catalog.>=) 16384
    UNION ALL
    SELECT 'pg_catalog.pg_cast'::pg_catalog.regclass, c.oid
    FROM pg_catalog.pg_cast AS c
    WHERE c.oid OPERATOR(pg_catalog.>=) 16384
      AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_depend AS d
        WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_cast'::pg_catalog.regclass AND d.objid OPERATOR(pg_catalog.=) c.oid AND d.deptype OPERATOR(pg_catalog.=) 'i')
    UNION ALL
    SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, r.oid
    FROM relation AS r
    WHERE r.relkind OPERATOR(pg_catalog.=) 'S' AND r.relpersistence OPERATOR(pg_catalog.<>) 't'
      AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_depend AS d
        WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid OPERATOR(pg_catalog.=) r.oid
          AND (d.deptype OPERATOR(pg_catalog.=) 'i'
                  AND (d.refobjid OPERATOR(pg_catalog.=) ANY (SELECT o.oid FROM kept AS o)) IS NOT TRUE
               OR d.deptype OPERATOR(pg_catalog.=) 'a'
                  AND (d.refobjid OPERATOR(pg_catalog.=) ANY (SELECT a.oid FROM alone AS a)) IS TRUE))
),
seed (classid, objid) AS (
    SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid, kept.oid FROM kept
    UNION
    SELECT p.classid, p.objid
    FROM part AS p
    WHERE NOT EXISTS (SELECT FROM outside AS o WHERE o.classid OPERATOR(pg_catalog.=) p.classid AND o.objid OPERATOR(pg_catalog.=) p.objid)
    UNION
    SELECT e.classid, e.objid
    FROM everything AS e
    WHERE $2::boolean
      AND NOT EXISTS (SELECT FROM member AS m WHERE m.classid OPERATOR(pg_catalog.=) e.classid AND m.objid OPERATOR(pg_catalog.=) e.objid)
),
-- All that the seed needs.  Between relations nothing is followed here: a parent,
-- a sequence's owner or a referenced table come only when they are chosen.
needed (classid, objid) AS (
    SELECT s.classid, s.objid FROM seed AS s
    UNION
    SELECT step.classid, step.objid
    FROM needed AS n
    CROSS JOIN LATERAL (
        SELECT d.refclassid, d.refobjid
        FROM pg_catalog.pg_depend AS d
        WHERE d.classid OPERATOR(pg_catalog.=) n.classid AND d.objid OPERATOR(pg_catalog.=) n.objid
          AND (d.deptype OPERATOR(pg_catalog.=) 'e'
               OR d.deptype OPERATOR(pg_catalog.=) ANY ('{n,a,i}'::"char"[])
                  AND (d.refobjid OPERATOR(pg_catalog.>=) 16384
                       OR d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass)
                  AND NOT (n.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
                           AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass)
                  AND NOT EXISTS (
                    SELECT FROM pg_catalog.pg_depend AS m
                    WHERE m.classid OPERATOR(pg_catalog.=) n.classid AND m.objid OPERATOR(pg_catalog.=) n.objid AND m.deptype OPERATOR(pg_catalog.=) 'e'))
        UNION ALL
        SELECT 'pg_catalog.pg_attrdef'::pg_catalog.regclass, a.oid
        FROM pg_catalog.pg_attrdef AS a
        WHERE n.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass AND a.adrelid OPERATOR(pg_catalog.=) n.objid
        UNION ALL
        SELECT 'pg_catalog.pg_rewrite'::pg_catalog.regclass, w.oid
        FROM pg_catalog.pg_rewrite AS w
        WHERE n.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
          AND w.ev_class OPERATOR(pg_catalog.=) n.objid AND w.rulename OPERATOR(pg_catalog.=) '_RETURN'
        UNION ALL
        SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, k.oid
        FROM pg_catalog.pg_constraint AS k
        WHERE n.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass AND k.contypid OPERATOR(pg_catalog.=) n.objid
        UNION ALL
        -- Its index, for operator classes.
        SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, k.conindid
        FROM pg_catalog.pg_constraint AS k
        WHERE n.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_constraint'::pg_catalog.regclass AND k.oid OPERATOR(pg_catalog.=) n.objid
          AND k.contype OPERATOR(pg_catalog.=) ANY ('{p,u,x}'::"char"[])
        UNION ALL
        SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, t.typrelid
        FROM pg_catalog.pg_type AS t
        WHERE n.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
          AND t.oid OPERATOR(pg_catalog.=) n.objid AND t.typrelid OPERATOR(pg_catalog.<>) 0
        UNION ALL
        -- What an operator class or family holds.
        SELECT d.classid, d.objid
        FROM pg_catalog.pg_depend AS d
        WHERE n.classid OPERATOR(pg_catalog.=) ANY ('{pg_catalog.pg_opclass,pg_catalog.pg_opfamily}'::pg_catalog.regclass[]::pg_catalog.oid[])
          AND d.refclassid OPERATOR(pg_catalog.=) n.classid AND d.refobjid OPERATOR(pg_catalog.=) n.objid
          AND d.classid OPERATOR(pg_catalog.=) ANY ('{pg_catalog.pg_amop,pg_catalog.pg_amproc}'::pg_catalog.regclass[]::pg_catalog.oid[])
    ) AS step (classid, objid)
    WHERE NOT $2::boolean
),
listed (classid, objid) AS (
    SELECT n.classid, n.objid
    FROM needed AS n
    JOIN pg_catalog.pg_namespace AS s ON s.oid OPERATOR(pg_catalog.=) n.objid
    WHERE n.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass
      AND s.oid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT schema.oid FROM schema))
    UNION ALL
    SELECT n.classid, n.objid
    FROM needed AS n
    JOIN pg_catalog.pg_extension AS e ON e.oid OPERATOR(pg_catalog.=) n.objid
    WHERE n.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
      AND e.oid OPERATOR(pg_catalog.>=) 16384 AND e.extname OPERATOR(pg_catalog.<>) 'scry_backfill'
    UNION ALL
    SELECT n.classid, n.objid
    FROM needed AS n
    JOIN relation AS r ON r.oid OPERATOR(pg_catalog.=) n.objid
    WHERE n.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
      AND r.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,f,v,m,S,i,I}'::"char"[])
      AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_constraint AS k
        WHERE r.relkind OPERATOR(pg_catalog.=) ANY ('{i,I}'::"char"[]) AND k.conindid OPERATOR(pg_catalog.=) r.oid
          AND k.contype OPERATOR(pg_catalog.=) ANY ('{p,u,x}'::"char"[]))
    UNION ALL
    SELECT n.classid, n.objid
    FROM needed AS n
    JOIN pg_catalog.pg_type AS t ON t.oid OPERATOR(pg_catalog.=) n.objid
    JOIN schema AS s ON s.oid OPERATOR(pg_catalog.=) t.typnamespace
    LEFT JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) t.typrelid
    WHERE n.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
      AND (t.typtype OPERATOR(pg_catalog.=) ANY ('{e,d,r}'::"char"[]) OR t.typtype OPERATOR(pg_catalog.=) 'c' AND c.relkind OPERATOR(pg_catalog.=) 'c'
           OR t.oid OPERATOR(pg_catalog.>=) 16384
              AND (t.typtype OPERATOR(pg_catalog.=) 'p'
                   OR t.typtype OPERATOR(pg_catalog.=) 'b'
                      AND (t.oid OPERATOR(pg_catalog.=) ANY (SELECT e.typarray FROM pg_catalog.pg_type AS e)) IS NOT TRUE))
    UNION ALL
    SELECT n.classid, n.objid
    FROM needed AS n
    JOIN pg_catalog.pg_proc AS p ON p.oid OPERATOR(pg_catalog.=) n.objid
    JOIN schema AS s ON s.oid OPERATOR(pg_catalog.=) p.pronamespace
    WHERE n.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
      AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_depend AS d
        WHERE d.classid OPERATOR(pg_catalog.=) n.classid AND d.objid OPERATOR(pg_catalog.=) n.objid AND d.deptype OPERATOR(pg_catalog.=) 'i'
          AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass)
    UNION ALL
    SELECT n.classid, n.objid
    FROM needed AS n
    JOIN pg_catalog.pg_collation AS c ON c.oid OPERATOR(pg_catalog.=) n.objid
    JOIN schema AS s ON s.oid OPERATOR(pg_catalog.=) c.collnamespace
    WHERE n.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_collation'::pg_catalog.regclass
    UNION ALL
    SELECT n.classid, n.objid
    FROM needed AS n
    JOIN pg_catalog.pg_operator AS o ON o.oid OPERATOR(pg_catalog.=) n.objid AND o.oprcode::pg_catalog.oid OPERATOR(pg_catalog.<>) 0
    JOIN schema AS s ON s.oid OPERATOR(pg_catalog.=) o.oprnamespace
    WHERE n.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_operator'::pg_catalog.regclass
    UNION ALL
    SELECT n.classid, n.objid
    FROM needed AS n
    JOIN pg_catalog.pg_ts_dict AS t ON t.oid OPERATOR(pg_catalog.=) n.objid
    JOIN schema AS s ON s.oid OPERATOR(pg_catalog.=) t.dictnamespace
    WHERE n.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_ts_dict'::pg_catalog.regclass
    UNION ALL
    SELECT n.classid, n.objid
    FROM needed AS n
    JOIN pg_catalog.pg_ts_config AS t ON t.oid OPERATOR(pg_catalog.=) n.objid
    JOIN schema AS s ON s.oid OPERATOR(pg_catalog.=) t.cfgnamespace
    WHERE n.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_ts_config'::pg_catalog.regclass
    UNION ALL
    SELECT n.classid, n.objid
    FROM needed AS n
    JOIN pg_catalog.pg_opfamily AS y ON y.oid OPERATOR(pg_catalog.=) n.objid
    JOIN schema AS s ON s.oid OPERATOR(pg_catalog.=) y.opfnamespace
    WHERE n.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_opfamily'::pg_catalog.regclass
    UNION ALL
    SELECT n.classid, n.objid
    FROM needed AS n
    JOIN pg_catalog.pg_opclass AS y ON y.oid OPERATOR(pg_catalog.=) n.objid
    JOIN schema AS s ON s.oid OPERATOR(pg_catalog.=) y.opcnamespace
    WHERE n.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_opclass'::pg_catalog.regclass
    UNION ALL
    SELECT n.classid, n.objid
    FROM needed AS n
    JOIN pg_catalog.pg_conversion AS y ON y.oid OPERATOR(pg_catalog.=) n.objid
    JOIN schema AS s ON s.oid OPERATOR(pg_catalog.=) y.connamespace
    WHERE n.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_conversion'::pg_catalog.regclass
    UNION ALL
    SELECT n.classid, n.objid
    FROM needed AS n
    JOIN pg_catalog.pg_ts_parser AS y ON y.oid OPERATOR(pg_catalog.=) n.objid
    JOIN schema AS s ON s.oid OPERATOR(pg_catalog.=) y.prsnamespace
    WHERE n.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_ts_parser'::pg_catalog.regclass
    UNION ALL
    SELECT n.classid, n.objid
    FROM needed AS n
    JOIN pg_catalog.pg_ts_template AS y ON y.oid OPERATOR(pg_catalog.=) n.objid
    JOIN schema AS s ON s.oid OPERATOR(pg_catalog.=) y.tmplnamespace
    WHERE n.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_ts_template'::pg_catalog.regclass
    UNION ALL
    SELECT n.classid, n.objid
    FROM needed AS n
    WHERE n.objid OPERATOR(pg_catalog.>=) 16384
      AND n.classid OPERATOR(pg_catalog.=) ANY ('{pg_catalog.pg_am,pg_catalog.pg_language,pg_catalog.pg_transform,pg_catalog.pg_foreign_data_wrapper,
            pg_catalog.pg_foreign_server,pg_catalog.pg_event_trigger}'::pg_catalog.regclass[]::pg_catalog.oid[])
    UNION ALL
    SELECT n.classid, n.objid
    FROM needed AS n
    LEFT JOIN pg_catalog.pg_constraint AS k
      ON n.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_constraint'::pg_catalog.regclass AND k.oid OPERATOR(pg_catalog.=) n.objid
    LEFT JOIN pg_catalog.pg_rewrite AS w
      ON n.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND w.oid OPERATOR(pg_catalog.=) n.objid
    LEFT JOIN pg_catalog.pg_trigger AS t
      ON n.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_trigger'::pg_catalog.regclass AND t.oid OPERATOR(pg_catalog.=) n.objid
    WHERE k.conrelid OPERATOR(pg_catalog.<>) 0 OR w.rulename OPERATOR(pg_catalog.<>) '_RETURN' OR NOT t.tgisinternal
       OR n.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_policy'::pg_catalog.regclass
       OR n.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_cast'::pg_catalog.regclass
       OR n.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass
),
left_out (classid, objid, reason) AS (
    SELECT o.classid, o.objid,
           CASE WHEN o.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_constraint'::pg_catalog.regclass
                THEN 'it refers to ' ELSE 'it uses ' END
           OPERATOR(pg_catalog.||)
           pg_catalog.string_agg(pg_catalog.pg_describe_object('pg_catalog.pg_class'::pg_catalog.regclass, o.relid, 0),
                                 ', ' ORDER BY o.relid)
           OPERATOR(pg_catalog.||) ', which is not selected'
    FROM outside AS o
    GROUP BY o.classid, o.objid
    UNION ALL
    SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, b.oid, 'it reads tables that are not selected'
    FROM blind AS b
    WHERE $2::boolean OR (b.oid OPERATOR(pg_catalog.=) ANY (SELECT s.oid FROM sighted AS s)) IS TRUE
    UNION ALL
    SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, r.oid,
           CASE WHEN r.relkind OPERATOR(pg_catalog.=) 'f' THEN 'foreign tables are not copied'
                ELSE 'unlogged tables and sequences leave nothing in the WAL' END
    FROM relation AS r
    WHERE (r.relkind OPERATOR(pg_catalog.=) 'f' OR r.relpersistence OPERATOR(pg_catalog.=) 'u' AND r.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,S}'::"char"[]))
      AND NOT $2::boolean AND r.oid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.oid[])
      AND (r.oid OPERATOR(pg_catalog.=) ANY (
            SELECT p.objid
            FROM part AS p
            WHERE p.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass)) IS NOT TRUE
    UNION ALL
    SELECT u.classid, u.objid, u.reason
    FROM (
        SELECT 'pg_catalog.pg_publication'::pg_catalog.regclass::pg_catalog.oid, p.oid,
               'publications are not copied'
        FROM pg_catalog.pg_publication AS p
        UNION ALL
        SELECT 'pg_catalog.pg_subscription'::pg_catalog.regclass, p.oid, 'subscriptions are not copied'
        FROM pg_catalog.pg_subscription AS p
        JOIN pg_catalog.pg_database AS d ON d.oid OPERATOR(pg_catalog.=) p.subdbid AND d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
        UNION ALL
        SELECT 'pg_catalog.pg_namespace'::pg_catalog.regclass, n.oid,
               'the shadow keeps its own tables under this name'
        FROM pg_catalog.pg_namespace AS n
        WHERE n.nspname OPERATOR(pg_catalog.=) 'scry_shadow'
        UNION ALL
        SELECT 'pg_catalog.pg_user_mapping'::pg_catalog.regclass, m.umid, 'user mappings hold passwords'
        FROM pg_catalog.pg_user_mappings AS m
    ) AS u (classid, objid, reason)
    WHERE $2::boolean
      AND NOT EXISTS (SELECT FROM member AS m WHERE m.classid OPERATOR(pg_catalog.=) u.classid AND m.objid OPERATOR(pg_catalog.=) u.objid)
)
SELECT l.classid, l.objid,
       CASE WHEN s.objid IS NULL
              OR l.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
                 AND (l.objid OPERATOR(pg_catalog.=) ANY (SELECT f.oid FROM shape AS f)) IS TRUE
            THEN 'needed' ELSE 'selected' END::pg_catalog.text AS standing,
       NULL::pg_catalog.text AS object,
       NULL::pg_catalog.text AS reason
FROM listed AS l
LEFT JOIN seed AS s ON s.classid OPERATOR(pg_catalog.=) l.classid AND s.objid OPERATOR(pg_catalog.=) l.objid
WHERE NOT EXISTS (SELECT FROM member AS m WHERE m.classid OPERATOR(pg_catalog.=) l.classid AND m.objid OPERATOR(pg_catalog.=) l.objid)
UNION ALL
SELECT o.classid, o.objid, 'left_out',
       pg_catalog.pg_describe_object(o.classid, o.objid, 0),
       o.reason
FROM left_out AS o
UNION ALL
SELECT 'pg_catalog.pg_largeobject_metadata'::pg_catalog.regclass, 0, 'left_out',
       pg_catalog.concat(pg_catalog.count(*), ' large objects'),
       'large objects leave nothing in logical decoding'
FROM pg_catalog.pg_largeobject_metadata AS l
WHERE $2::boolean
HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 0
ORDER BY 1, 2, 3, 5
