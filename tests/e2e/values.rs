//! Values: every type that PostgreSQL brings, users' types, the odd ends of
//! their ranges; with settings that differ between the two sides.

use super::PATIENT;
use anyhow::Result;
use scry_testkit::{Pair, PairOptions, scenario};

const TYPES: &str = "
CREATE TYPE colour AS ENUM ('red', 'green', 'very ''quoted'' \"blue\"');
CREATE DOMAIN word AS text CHECK (VALUE <> 'forbidden');
CREATE TYPE point3 AS (x float8, y float8, label word);
CREATE TYPE colour_range AS RANGE (subtype = float8);
CREATE TABLE basic(id int PRIMARY KEY, b bool, i2 int2, i8 int8, f4 float4, f8 float8, n numeric, n2 numeric(20,4),
    t text, c char(7), v varchar(20), ch \"char\", nm name, by bytea, d date, tm time, tmz timetz, ts timestamp,
    tsz timestamptz, iv interval, u uuid, j json, jb jsonb, x xml, m money, bi bit(5), vb varbit, o oid, ip inet,
    cd cidr, mac macaddr, mac8 macaddr8, pt point, ls lseg, bx box, pa path, po polygon, ci circle, li line,
    tv tsvector, tq tsquery, i4r int4range, nr numrange, tr tstzrange, mr int4multirange, lsn pg_lsn);
CREATE TABLE arrays(id int PRIMARY KEY, i int[], t text[][], n numeric[], tsz timestamptz[], jb jsonb[], by bytea[], odd int[]);
CREATE TABLE of_user(id int PRIMARY KEY, c colour, w word, p point3, ca colour[], pa point3[], r colour_range, wa word[]);
CREATE TABLE no_columns(); ALTER TABLE no_columns REPLICA IDENTITY FULL;
CREATE TABLE dropped(id int PRIMARY KEY, gone text, kept text); INSERT INTO dropped VALUES (0, 'x', 'y');
ALTER TABLE dropped DROP gone; ALTER TABLE dropped ADD added int DEFAULT 42;
CREATE TABLE \"Ünïcode \"\"T\"\"\"(\"select\" int PRIMARY KEY, \"a b\" text, \"new
line\" int);
";

const ROWS: &str = "
INSERT INTO basic(id) VALUES (:k);
INSERT INTO basic VALUES (:k + 1, true, -32768, -9223372036854775808, 'NaN', '-Infinity', 'NaN', -0.0001, '', 'ab', 'ä€😀', 'z',
    'name', '\\x00ff', '-infinity', '24:00', '23:59:60+15:59', 'infinity', '4713-01-01 BC', '-178000000 years',
    '00000000-0000-0000-0000-000000000000', '{\"a\": [1,  2]}', '{\"b\": null}', '<a>x</a>', '-1234.56', B'10101', B'', 4294967295,
    '::1/64', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', '(1,-2)', '[(0,0),(1,1)]', '(2,2),(0,0)',
    '[(0,0),(1,1)]', '((0,0),(1,1),(2,0))', '<(0,0),5>', '{1,2,3}', 'a:1A b:2', 'a & !b', 'empty', '(,5.5]', '[2020-01-01,)',
    '{[1,3),[5,7)}', '16/B374D848');
INSERT INTO basic(id, f8, f4, n, t, d, ts, tsz, iv, tm, by) VALUES (:k + 2, '-0', 1.17549435e-38, 1e1000, E'\\\\N NULL \\t\\r\\n \\b',
    '5874897-12-31', '294276-12-31 23:59:59.999999', '0001-01-01 BC', '1 mon -1 day 00:00:00.000001', '00:00', decode(repeat('5c', 5000), 'hex')),
    (:k + 3, 1e308, 3.4e38, 'Infinity', repeat('long ', 100000), '0001-01-01', '4714-11-24 BC', '294276-12-31 UTC', 'P1Y', '12:34:56.789012', '');
INSERT INTO arrays VALUES (:k, '{}', '{{a,NULL},{\"\",\"NULL\"}}', '{NaN,1.10}', '{infinity,2020-01-01}', '{null,\"[]\"}', '{\"\\\\x00\"}', '[-2:0]={1,2,3}'),
    (:k + 1, NULL, '{{{x}}}', NULL, NULL, NULL, NULL, '[5:5][-1:0]={{1,NULL}}');
INSERT INTO of_user VALUES (:k, 'very ''quoted'' \"blue\"', 'word', ROW(1.5, NULL, 'a,\"b'), '{red,NULL,\"very ''quoted'' \\\"blue\\\"\"}',
    ARRAY[ROW(1, 2, 'x')::point3, NULL], '[1.5,)', '{a,b}'), (:k + 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO no_columns DEFAULT VALUES;
INSERT INTO dropped VALUES (:k + 1, 'kept', NULL);
INSERT INTO \"Ünïcode \"\"T\"\"\" VALUES (:k, 'v', 1);
";

#[test]
fn every_type_arrives_by_copy_and_by_stream() {
    scenario("types", |lab| {
        let options = PairOptions {
            source_conf: [
                "DateStyle = 'SQL, DMY'",
                "IntervalStyle = 'sql_standard'",
                "TimeZone = 'Asia/Kathmandu'",
                "extra_float_digits = 0",
                "bytea_output = 'escape'",
            ]
            .map(str::to_owned)
            .to_vec(),
            ..PairOptions::default()
        };
        let pair = Pair::start(lab, &options)?;
        pair.sql(TYPES)?;
        rows(&pair, 1)?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        pair.assert_equal()?;
        rows(&pair, 100)?;
        pair.assert_equal()?;
        // Old values as keys of rows, and untouched neighbours.
        pair.sql(
            "UPDATE basic SET b = NOT b; UPDATE arrays SET id = -id; UPDATE of_user SET c = 'red';
             DELETE FROM basic WHERE id = 1; UPDATE \"Ünïcode \"\"T\"\"\" SET \"select\" = \"select\" + 1000; UPDATE dropped SET added = 1",
        )?;
        pair.assert_equal()?;
        pair.assert_source_unharmed()
    });
}

/// The rows under keys from `first` on. The values are written in ISO.
fn rows(pair: &Pair, first: u32) -> Result<()> {
    let script = ROWS.replace(":k", &first.to_string());
    pair.sql(&format!(
        "SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET xmloption = content; {script}"
    ))
    .map(|_| ())
}

/// A table for each type that the server brings an array of: some are sent as text for it.
#[test]
fn arrays_of_every_type_arrive() {
    scenario("array_types", |lab| {
        let pair = Pair::start(lab, &PairOptions::default())?;
        pair.sql(
            "DO $$ DECLARE t record; BEGIN
                FOR t IN SELECT typname, oid::regtype::text AS name FROM pg_type
                    WHERE typcategory = 'A' AND typlen = -1 AND oid < 16384
                        AND (SELECT e.typtype FROM pg_type AS e WHERE e.typarray = pg_type.oid) NOT IN ('c', 'p') LOOP
                    EXECUTE format('CREATE TABLE %I (id serial PRIMARY KEY, v %s)', 'a' || t.typname, t.name);
                END LOOP; END $$;
             CREATE PROCEDURE fill() LANGUAGE plpgsql AS $$ DECLARE t record; BEGIN
                FOR t IN SELECT oid::regclass AS name FROM pg_class WHERE relname LIKE 'a\\_%' AND relkind = 'r' LOOP
                    EXECUTE format('INSERT INTO %s (v) VALUES (''{}''), (''{NULL}''), (NULL)', t.name);
                END LOOP; END $$;
             INSERT INTO a_aclitem (v) VALUES ('{=r/postgres}'); CALL fill()",
        )?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        pair.assert_equal()?;
        pair.sql("CALL fill()")?;
        pair.assert_equal()?;
        pair.assert_source_unharmed()
    });
}
