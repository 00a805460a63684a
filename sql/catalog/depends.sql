-- What must exist before what, among the objects of a closure.
--
-- $1 oid[], $2 oid[]  classid and objid of the closure's objects, in parallel
--
-- -> classid, objid, refclassid, refobjid: the first needs the second.
--
-- The referenced side is always an object of the closure.  The first side is one
-- of them, a column default (pg_attrdef) of one of the relations, or a
-- constraint (pg_constraint) of one of the domains.  Parts without an entry stand for
-- their whole: an array for its element type, a row type for its table, a
-- multirange for its range, a constructor for its type, a member for its extension, an
-- index for its constraint, the rule _RETURN for its view, an identity sequence for
-- its table, a family's operators and functions for the class or family that holds them.
--
-- Runs as superuser with search_path = '': every name and operator is qualified.
WITH object (classid, objid) AS (
    SELECT o.classid, o.objid
    FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.oid[]), pg_catalog.unnest($2::pg_catalog.oid[]))
         AS o (classid, objid)
),
stands_for (classid, objid, forclassid, forobjid) AS (
    SELECT d.classid, d.objid, d.refclassid, d.refobjid
    FROM pg_catalog.pg_depend AS d
    WHERE d.deptype OPERATOR(pg_catalog.=) 'e'
    UNION ALL
    SELECT 'pg_catalog.pg_rewrite'::pg_catalog.regclass, w.oid, 'pg_catalog.pg_class'::pg_catalog.regclass, w.ev_class
    FROM pg_catalog.pg_rewrite AS w
    WHERE w.rulename OPERATOR(pg_catalog.=) '_RETURN'
    UNION ALL
    SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, k.conindid, 'pg_catalog.pg_constraint'::pg_catalog.regclass, k.oid
    FROM pg_catalog.pg_constraint AS k
    WHERE k.contype OPERATOR(pg_catalog.=) ANY ('{p,u,x}'::"char"[])
    UNION ALL
    SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, c.oid, 'pg_catalog.pg_type'::pg_catalog.regclass, c.reltype
    FROM pg_catalog.pg_class AS c
    WHERE c.relkind OPERATOR(pg_catalog.=) 'c'
    UNION ALL
    SELECT d.classid, d.objid, d.refclassid, d.refobjid
    FROM pg_catalog.pg_depend AS d
    JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) d.objid AND c.relkind OPERATOR(pg_catalog.=) 'S'
    WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype OPERATOR(pg_catalog.=) 'i'
      AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
    UNION ALL
    SELECT d.classid, d.objid, d.refclassid, d.refobjid
    FROM pg_catalog.pg_depend AS d
    WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.deptype OPERATOR(pg_catalog.=) 'i'
      AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
    UNION ALL
    SELECT d.classid, d.objid, d.refclassid, d.refobjid
    FROM pg_catalog.pg_depend AS d
    WHERE d.classid OPERATOR(pg_catalog.=) ANY ('{pg_catalog.pg_amop,pg_catalog.pg_amproc}'::pg_catalog.regclass[]::pg_catalog.oid[])
      AND d.refclassid OPERATOR(pg_catalog.=) ANY ('{pg_catalog.pg_opclass,pg_catalog.pg_opfamily}'::pg_catalog.regclass[]::pg_catalog.oid[])
    UNION ALL
    -- Array, row and multirange types; the array of a row or multirange in one go.
    SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid,
           CASE WHEN c.relkind OPERATOR(pg_catalog.<>) 'c' THEN 'pg_catalog.pg_class'::pg_catalog.regclass
                ELSE 'pg_catalog.pg_type'::pg_catalog.regclass END,
           CASE WHEN c.relkind OPERATOR(pg_catalog.<>) 'c' THEN c.oid ELSE COALESCE(r.rngtypid, base.oid) END
    FROM pg_catalog.pg_type AS t
    LEFT JOIN pg_catalog.pg_type AS element ON element.oid OPERATOR(pg_catalog.=) t.typelem AND element.typarray OPERATOR(pg_catalog.=) t.oid
    JOIN pg_catalog.pg_type AS base ON base.oid OPERATOR(pg_catalog.=) COALESCE(element.oid, t.oid)
    LEFT JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) base.typrelid
    LEFT JOIN pg_catalog.pg_range AS r ON r.rngmultitypid OPERATOR(pg_catalog.=) base.oid
    WHERE t.oid OPERATOR(pg_catalog.>=) 16384
      AND (element.oid IS NOT NULL OR c.relkind OPERATOR(pg_catalog.<>) 'c' OR r.rngtypid IS NOT NULL)
),
-- A member of an extension may stand for a table first (the array of a member's
-- row type): twice is enough for every chain above.
resolved (classid, objid, forclassid, forobjid) AS (
    SELECT a.classid, a.objid, COALESCE(b.forclassid, a.forclassid), COALESCE(b.forobjid, a.forobjid)
    FROM stands_for AS a
    LEFT JOIN stands_for AS b ON b.classid OPERATOR(pg_catalog.=) a.forclassid AND b.objid OPERATOR(pg_catalog.=) a.forobjid
),
edge (classid, objid, refclassid, refobjid) AS (
    SELECT COALESCE(me.forclassid, d.classid), COALESCE(me.forobjid, d.objid),
           COALESCE(it.forclassid, d.refclassid), COALESCE(it.forobjid, d.refobjid)
    FROM pg_catalog.pg_depend AS d
    LEFT JOIN resolved AS me ON me.classid OPERATOR(pg_catalog.=) d.classid AND me.objid OPERATOR(pg_catalog.=) d.objid
    LEFT JOIN resolved AS it ON it.classid OPERATOR(pg_catalog.=) d.refclassid AND it.objid OPERATOR(pg_catalog.=) d.refobjid
    LEFT JOIN pg_catalog.pg_class AS owned
      ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass AND owned.oid OPERATOR(pg_catalog.=) d.objid
     AND owned.relkind OPERATOR(pg_catalog.=) 'S'
    WHERE d.deptype OPERATOR(pg_catalog.=) ANY ('{n,a,i}'::"char"[])
      -- A sequence is made before its owner; OWNED BY follows.
      AND NOT (owned.oid IS NOT NULL AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass)
      -- Things that a member of an extension needs are the extension's affair.
      AND NOT (me.forclassid IS NOT NULL
               AND me.forclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass)
)
SELECT DISTINCT e.classid, e.objid, e.refclassid, e.refobjid
FROM edge AS e
JOIN object AS it ON it.classid OPERATOR(pg_catalog.=) e.refclassid AND it.objid OPERATOR(pg_catalog.=) e.refobjid
LEFT JOIN object AS me ON me.classid OPERATOR(pg_catalog.=) e.classid AND me.objid OPERATOR(pg_catalog.=) e.objid
LEFT JOIN pg_catalog.pg_attrdef AS a
  ON e.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND a.oid OPERATOR(pg_catalog.=) e.objid
LEFT JOIN pg_catalog.pg_constraint AS k
  ON e.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_constraint'::pg_catalog.regclass AND k.oid OPERATOR(pg_catalog.=) e.objid AND k.contypid OPERATOR(pg_catalog.<>) 0
LEFT JOIN object AS whole
  ON whole.objid OPERATOR(pg_catalog.=) COALESCE(a.adrelid, k.contypid)
 AND whole.classid OPERATOR(pg_catalog.=) CASE WHEN a.oid IS NOT NULL THEN 'pg_catalog.pg_class'::pg_catalog.regclass
                          ELSE 'pg_catalog.pg_type'::pg_catalog.regclass END
WHERE (me.objid IS NOT NULL OR whole.objid IS NOT NULL)
  AND NOT (e.classid OPERATOR(pg_catalog.=) e.refclassid AND e.objid OPERATOR(pg_catalog.=) e.refobjid)
ORDER BY 1, 2, 3, 4
