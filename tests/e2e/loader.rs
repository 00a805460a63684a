//! The loader in the shadow's server: what it writes is what COPY writes, byte by byte, and what it
//! must not take it refuses.

use anyhow::{Context, Result, ensure};
use postgres::{Client, NoTls};
use scry_testkit::{Pair, PairOptions, Platform, scenario};
use std::io::{Read, Write};

/// Columns of a table, and rows of it by `:n`, the row's number.
const TABLES: [(&str, &str); 7] = [
    (
        "a int, b bigint NOT NULL, c text, d char(8), e varchar(20), f boolean, g smallint, h real, i float8, j oid",
        "n, n::bigint * 1000000007, CASE WHEN n % 3 > 0 THEN repeat('é€x', n % 60) END, left('ab' || n, n % 8), left('vä' || n, 20), \
         CASE WHEN n % 5 > 0 THEN n % 2 = 0 END, n % 32768, n / 7.0, CASE WHEN n % 11 > 0 THEN n / -3.0 ELSE 'NaN' END, n",
    ),
    (
        "a date, b timestamptz, c timestamp(3), d time, e interval, f uuid, g timestamptz, h date, i timetz",
        "date '2000-01-01' + n, timestamptz '1999-01-01' + n * interval '1 hour 1 us', timestamp '2020-01-01' + n * interval '1 ms', \
         time '00:00' + n * interval '1 s', n * interval '1 mon 1 day 1 us', md5(n::text)::uuid, \
         CASE n % 3 WHEN 0 THEN 'infinity' WHEN 1 THEN '-infinity' ELSE '4713-01-01 BC' END::timestamptz, \
         CASE n % 3 WHEN 0 THEN 'infinity' WHEN 1 THEN '5874897-12-31' ELSE '4713-01-01 BC' END::date, '24:00+05:30'",
    ),
    (
        "a numeric, b numeric(12,2), c numeric, d numeric(5,5), e numeric, f numeric(3,-2), g numeric(1000,500)",
        "n * 10000, (n - 1500) / 97.0, CASE n % 6 WHEN 0 THEN 'NaN' WHEN 1 THEN 'Infinity' WHEN 2 THEN 1e300 WHEN 3 THEN -1e-300 \
         WHEN 4 THEN 0 ELSE 0.00 END::numeric, (n % 1000) / 100000.0, \
         (CASE WHEN n % 2 = 0 THEN '-' ELSE '' END || n || '.' || repeat('0', n % 9) || n % 7 || repeat('0', n % 5))::numeric, \
         n % 99999, CASE WHEN n % 4 > 0 THEN n / 3.0 END",
    ),
    (
        "a text[], b int[], c bigint[], d uuid[], e boolean[], f timestamptz[], g text[], h numeric[], i varchar(3)[]",
        "CASE n % 4 WHEN 0 THEN '{}' WHEN 1 THEN ARRAY['a', repeat('ü', n % 90)] WHEN 2 THEN ARRAY['x', NULL] END::text[], \
         ARRAY[n, -n, 7], ARRAY[n], ARRAY[md5(n::text)::uuid], ARRAY[true, n % 2 = 0, false], ARRAY[now() + n * interval '1 s'], \
         CASE n % 3 WHEN 0 THEN '[-2:0]={a,b,c}' WHEN 1 THEN '{{a,b},{c,d}}' END::text[], ARRAY[n / 3.0], ARRAY['abc', 'd']",
    ),
    (
        "a bytea, b json, c text, d jsonb, e xml, f inet, g bit(9), h varbit, i int4range, j tsvector, k point, l name, m \"char\", n money",
        "decode(repeat('00ff5c', n % 70), 'hex'), '{\"a\" : 1}', CASE WHEN n % 50 = 0 THEN (SELECT string_agg(md5(i::text || n), '') \
         FROM generate_series(1, 320) i) WHEN n % 50 = 1 THEN repeat('squeeze', 2000) END, jsonb_build_object('k', n, 'l', ARRAY[n / 3.0]), \
         '<a/>', '10.0.0.1/8', B'101010101', B'1', '[1,5)', 'a:1 b:2', point(n, -n), 'name' || n, 'x', n::int::money",
    ),
    (
        "a mood, b cents, c cents NOT NULL, d mood[], e pair",
        "CASE WHEN n % 2 = 0 THEN 'glad' END::mood, n, 1, '{sad,glad}', NULL",
    ),
    ("", ""),
];

const TYPES: &str = "CREATE SCHEMA lab; SET search_path = lab; CREATE TYPE mood AS ENUM ('sad', 'glad');
    CREATE DOMAIN cents AS integer CHECK (VALUE >= 0); CREATE TYPE pair AS (a int, b text);";

/// How a table stands when it is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Its storage is of the same transaction: pages are written.
    Pages,
    /// It was there before.
    Tuples,
    /// … with an index and a constraint.
    Indexed,
    /// … a page a third full.
    Filled,
}

#[test]
fn loads_what_copy_loads() {
    scenario("loader", |lab| {
        let pair = Pair::start(lab, &PairOptions::default())?;
        let (mut client, mut admin) = (owner(&pair)?, superuser(&pair.platform)?);
        admin.batch_execute(
            "CREATE EXTENSION pageinspect; CREATE EXTENSION pg_visibility; CREATE EXTENSION amcheck",
        )?;
        client.batch_execute(TYPES)?;
        for (number, (columns, values)) in TABLES.iter().enumerate() {
            client.batch_execute(&format!("CREATE TABLE from_{number} ({columns})"))?;
            let select = format!("SELECT {values} FROM generate_series(1, 3000) n");
            client.batch_execute(&format!("INSERT INTO from_{number} {select}"))?;
            let bytes = read(&mut client, &format!("COPY from_{number} TO STDOUT (FORMAT binary)"))?;
            for way in [Way::Pages, Way::Tuples, Way::Indexed, Way::Filled] {
                let want = make(&mut client, number, columns, way, "want", &mut |client, table| {
                    let freeze = if matches!(way, Way::Pages | Way::Filled) { ", FREEZE" } else { "" };
                    write(client, &format!("COPY {table} FROM STDIN (FORMAT binary{freeze})"), &bytes)
                })?;
                let got = make(&mut client, number, columns, way, "got", &mut |client, table| {
                    load(client, table, rows_of(&bytes))
                })?;
                check(&mut admin, &want, &got, way).with_context(|| format!("table {number}, {way:?}"))?;
            }
        }
        Ok(())
    });
}

/// Makes a table, has it filled, and returns its name.
fn make(
    client: &mut Client,
    number: usize,
    columns: &str,
    way: Way,
    what: &str,
    fill: &mut dyn FnMut(&mut Client, &str) -> Result<()>,
) -> Result<String> {
    let table = format!("{what}_{number}_{way:?}").to_lowercase();
    let options = if way == Way::Filled { "WITH (fillfactor = 30)" } else { "" };
    let create = format!("CREATE TABLE {table} ({columns}) {options}");
    if matches!(way, Way::Pages | Way::Filled) {
        client.batch_execute("BEGIN")?;
    }
    client.batch_execute(&create)?;
    if way == Way::Indexed && !columns.is_empty() {
        client.batch_execute(&format!(
            "CREATE INDEX ON {table} (a); ALTER TABLE {table} ADD CHECK (a IS NULL OR a = a)"
        ))?;
    }
    if matches!(way, Way::Tuples | Way::Indexed) {
        client.batch_execute("BEGIN")?;
    }
    fill(client, &table)?;
    client.batch_execute("COMMIT")?;
    Ok(format!("lab.{table}"))
}

/// The tuples of both tables are the same, and the server finds nothing wrong with ours.
fn check(admin: &mut Client, want: &str, got: &str, way: Way) -> Result<()> {
    // Bits of NULLs, of varlenas, of values elsewhere, of frozen and of live tuples; the tuple's
    // bytes where they hold no pointer to TOAST, whose oids are new each time.
    let tuples = |table: &str| {
        format!(
            "SELECT b AS block, lp, t_ctid, t_infomask & 7 AS has, t_infomask & 3840 AS seen, t_infomask2, t_hoff, t_bits, \
                CASE WHEN t_infomask & 4 = 0 THEN t_data END AS data, lp_len, lp_off \
             FROM generate_series(0, pg_relation_size('{table}') / 8192 - 1) b, \
                LATERAL heap_page_items(get_raw_page('{table}', b::int))"
        )
    };
    let columns = "block, lp, t_ctid, has, t_infomask2, t_hoff, t_bits, data, lp_len, lp_off";
    let sql = format!(
        "WITH want AS ({}), got AS ({}) SELECT (SELECT count(*) FROM got), \
            (SELECT count(*) FROM (SELECT {columns} FROM want EXCEPT SELECT {columns} FROM got) x), \
            (SELECT count(*) FROM (SELECT {columns} FROM got EXCEPT SELECT {columns} FROM want) x), \
            (SELECT array_agg(DISTINCT seen) FROM want) @> (SELECT array_agg(DISTINCT seen) FROM got), \
            (SELECT array_agg(DISTINCT seen)::text FROM want), (SELECT array_agg(DISTINCT seen)::text FROM got)",
        tuples(want),
        tuples(got)
    );
    let row = admin.query_one(&sql, &[])?;
    let counts: [i64; 3] = [row.get(0), row.get(1), row.get(2)];
    ensure!(counts == [3000, 0, 0], "tuples, missing, too many: {counts:?}");
    ensure!(
        row.get::<_, Option<bool>>(3) == Some(true),
        "seen otherwise than what COPY writes: {:?} {:?}",
        row.get::<_, String>(4),
        row.get::<_, String>(5)
    );
    let content = format!(
        "SELECT record_send(t)::text FROM {want} t EXCEPT ALL SELECT record_send(t)::text FROM {got} t"
    );
    ensure!(admin.query(&content, &[])?.is_empty(), "other content");
    let wrong = admin.query(&format!("SELECT msg FROM verify_heapam('{got}', check_toast := true)"), &[])?;
    ensure!(wrong.is_empty(), "{}", wrong[0].get::<_, String>(0));
    if matches!(way, Way::Pages | Way::Filled) {
        let sql = format!(
            "SELECT coalesce(bool_and(all_visible AND all_frozen AND pd_all_visible), true), \
                (SELECT count(*) FROM pg_check_frozen('{got}')), (SELECT count(*) FROM pg_check_visible('{got}')) \
             FROM pg_visibility('{got}')"
        );
        let row = admin.query_one(&sql, &[])?;
        ensure!(
            row.get::<_, bool>(0) && row.get::<_, i64>(1) == 0 && row.get::<_, i64>(2) == 0,
            "not frozen"
        );
    }
    if way == Way::Indexed {
        let sql = format!(
            "SELECT bt_index_check(indexrelid, heapallindexed := true) FROM pg_index WHERE indrelid = '{got}'::regclass"
        );
        admin.query(&sql, &[])?;
    }
    Ok(())
}

#[test]
fn loads_nothing_that_the_server_would_not_take() {
    scenario("loader_refuses", |lab| {
        let pair = Pair::start(lab, &PairOptions::default())?;
        let (mut client, mut admin) = (owner(&pair)?, superuser(&pair.platform)?);
        client.batch_execute(TYPES)?;
        client.batch_execute(
            "CREATE TABLE t (a int NOT NULL, b text CHECK (b <> 'no'), c jsonb, d cents, e char(3), f numeric(4,1), g date, h text[]);
             CREATE TABLE parted (a int) PARTITION BY LIST (a); CREATE TABLE part PARTITION OF parted FOR VALUES IN (1);
             CREATE TABLE computed (a int, b int GENERATED ALWAYS AS (a + 1) STORED); CREATE VIEW seen AS SELECT 1 AS a;
             CREATE TABLE fires (a int); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE TRIGGER f BEFORE INSERT ON fires FOR EACH ROW EXECUTE FUNCTION f(); ALTER TABLE fires ENABLE ALWAYS TRIGGER f",
        )?;
        admin.batch_execute("CREATE TABLE lab.others (a int)")?;
        for (table, columns, want) in [
            ("t", "{a,b,c,d,e,f,g,h}", true),
            ("t", "{h,g,f,e,d,c,b,a}", true),
            ("t", "{a,b,c,d,e,f,g}", false),
            ("t", "{a,b,c,d,e,f,g,h,i}", false),
            ("t", "{a,a,b,c,d,e,f,g,h}", false),
            ("part", "{a}", true),
            ("parted", "{a}", false),
            ("computed", "{a}", false),
            ("seen", "{a}", false),
            ("fires", "{a}", false),
            ("others", "{a}", false),
            ("pg_catalog.pg_description", "{objoid,classoid,objsubid,description}", false),
        ] {
            let sql = format!("SELECT scry_shadow.can_load('{table}'::regclass, '{columns}'::text[])");
            let got: bool = client.query_one(&sql, &[])?.get(0);
            ensure!(got == want, "{table} {columns}: {got}");
        }
        let good: [Option<&[u8]>; 8] = [Some(&[0, 0, 0, 1]), Some(b"x"), None, None, None, None, None, None];
        let bad: [(&str, usize, Option<&[u8]>); 14] = [
            ("23502", 0, None),
            ("08P01", 0, Some(&[1])),
            ("23514", 1, Some(b"no")),
            ("22021", 1, Some(b"\xFF")),
            ("22021", 1, Some(b"a\0b")),
            ("22P03", 2, Some(b"\x02\0\0\0\x30")),
            ("22P02", 2, Some(b"\x01{")),
            ("XX000", 2, Some(b"\x03{}")),
            ("23514", 3, Some(&[0xFF, 0xFF, 0xFF, 0xFF])),
            ("22001", 4, Some(b"four")),
            ("22003", 5, Some(&[0, 1, 0, 1, 0, 0, 0, 1, 0, 1])),
            ("22P03", 5, Some(&[0, 1, 0, 0, 0, 0, 0, 0, 0x27, 0x10])),
            ("22008", 6, Some(&[0x80, 0, 0, 1])),
            ("54000", 7, Some(&[0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 25])),
        ];
        load(&mut client, "t", &row(&good))?;
        for (code, place, value) in bad {
            let mut values = good;
            values[place] = value;
            let error = load(&mut client, "t", &[row(&good), row(&values)].concat()).err();
            let found = error.as_ref().and_then(code_of);
            ensure!(found.as_deref() == Some(code), "column {place}: {found:?}, not {code}: {error:?}");
        }
        for (bytes, what) in [(&row(&good)[..9], "half a row"), (&row(&good[..7])[..], "a column too few")] {
            let found = load(&mut client, "t", bytes).err().as_ref().and_then(code_of);
            ensure!(found.as_deref() == Some("22P04"), "{what}: {found:?}");
        }
        let found = load(&mut client, "part", &row(&[Some(&[0, 0, 0, 2])])).err().as_ref().and_then(code_of);
        ensure!(found.as_deref() == Some("23514"), "another partition's row: {found:?}");
        let count: i64 = client.query_one("SELECT count(*) FROM t", &[])?.get(0);
        ensure!(count == 1, "{count} rows: what was refused left something");
        // Nobody else may call it.
        let denied = admin.batch_execute("SET ROLE pg_monitor; SELECT scry_shadow.rows_loaded()").err();
        ensure!(denied.and_then(|e| e.code().map(|c| c.code().to_owned())).as_deref() == Some("42501"));
        Ok(())
    });
}

#[test]
fn damaged_jsonb_is_refused_or_means_something() {
    scenario("loader_jsonb", |lab| {
        let pair = Pair::start(lab, &PairOptions::default())?;
        let (mut client, mut admin) = (owner(&pair)?, superuser(&pair.platform)?);
        admin.batch_execute("CREATE EXTENSION pageinspect")?;
        client.batch_execute(
            r#"CREATE SCHEMA lab; SET search_path = lab; CREATE TABLE j (j jsonb); ALTER TABLE j ALTER j SET STORAGE external; ALTER TABLE j SET (toast_tuple_target = 8160);
            INSERT INTO j VALUES ('null'), ('1.50'), ('"é"'), ('[]'), ('{}'), ('true'), ('[1, "a", null, [], {"k": [2]}]'),
                ('{"a": 1, "bb": {"c": [true, false, {"d": "x"}]}, "e": -1e-9, "f": ""}'), ('[[[[[[[["deep"]]]]]]]]');
            INSERT INTO j SELECT jsonb_agg(n) FROM generate_series(1, 100) n;
            INSERT INTO j SELECT jsonb_object_agg('key' || n, repeat('v', n)) FROM generate_series(1, 70) n"#,
        )?;
        let sql = "SELECT t_attrs[1] FROM heap_page_item_attrs(get_raw_page('lab.j', 0), 'lab.j'::regclass)";
        let stored: Vec<Vec<u8>> = admin.query(sql, &[])?.iter().map(|r| r.get(0)).collect();
        let containers: Vec<&[u8]> = stored.iter().map(|datum| without_header(datum)).collect();
        client.batch_execute("CREATE TABLE k (j jsonb)")?;
        let all: Vec<u8> = containers.iter().flat_map(|c| stored_row(c)).collect();
        load(&mut client, "k", &all)?;
        let same = "SELECT count(*) FROM (SELECT j FROM j EXCEPT ALL SELECT j FROM k) x";
        ensure!(client.query_one(same, &[])?.get::<_, i64>(0) == 0, "jsonb came out as something else");

        let mut seed = lab.seed | 1;
        let mut random = move |below: usize| {
            // xorshift64*
            seed ^= seed >> 12;
            seed ^= seed << 25;
            seed ^= seed >> 27;
            usize::try_from(seed.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap_or(0) % below.max(1)
        };
        let (mut taken, mut refused) = (0, 0);
        for round in 0..1500 {
            let mut damaged = containers[round % containers.len()].to_vec();
            match random(4) {
                0 => damaged.truncate(random(damaged.len())),
                1 => damaged.extend_from_slice(&[0; 4][..=random(4).min(3)]),
                _ => {}
            }
            for _ in 0..=random(2) {
                if !damaged.is_empty() {
                    let at =
                        if random(2) == 0 { random(damaged.len().min(16)) } else { random(damaged.len()) };
                    damaged[at] ^= 1 << random(8);
                }
            }
            client.batch_execute("TRUNCATE k")?;
            match load(&mut client, "k", &stored_row(&damaged)) {
                Ok(()) => taken += 1,
                Err(error) => {
                    ensure!(code_of(&error).as_deref() == Some("22P03"), "{error:?}");
                    refused += 1;
                    continue;
                }
            }
            let sql = "SELECT j::text::jsonb = j, j <@ j, jsonb_pretty(j), j || '[]', hashtext(j::text), \
                (SELECT count(*) FROM jsonb_path_query(j, '$.**')) FROM k";
            let row = client.query_one(sql, &[])?;
            ensure!(
                row.get::<_, bool>(0) && row.get::<_, bool>(1),
                "taken, but means nothing: {damaged:02x?}"
            );
        }
        ensure!(taken > 10 && refused > 500, "{taken} taken, {refused} refused: the damage says little");
        Ok(())
    });
}

#[test]
fn rows_that_are_not_taken_come_in_another_form() {
    scenario("loader_not_taken", |lab| {
        let mut pair = Pair::start(lab, &PairOptions::default())?;
        let file = lab.path("failpoints");
        std::fs::write(&file, "platform::loading=1*return")?;
        pair.platform.program.env("SCRY_FAILPOINTS", &file.display().to_string());
        pair.platform.program.stop()?;
        pair.platform.start()?;
        pair.sql(
            "CREATE TABLE j (id int PRIMARY KEY, j jsonb, t text); INSERT INTO j SELECT n, jsonb_build_object('k', n, 'l', \
             ARRAY[n / 3.0, NULL]), repeat('x', n % 100) FROM generate_series(1, 5000) n",
        )?;
        pair.start_job("*")?;
        pair.wait_for_shadow(super::PATIENT)?;
        pair.assert_equal()?;
        let log = pair.platform.program.log_text();
        ensure!(log.contains("asked for in another form"), "they were taken: {log}");
        pair.assert_source_unharmed()
    });
}

/// A varlena's bytes, whose header has one byte or four.
fn without_header(datum: &[u8]) -> &[u8] {
    let header = if datum.first().is_some_and(|byte| byte & 1 == 1) { 1 } else { 4 };
    datum.get(header..).unwrap_or_default()
}

fn stored_row(container: &[u8]) -> Vec<u8> {
    row(&[Some(&[&[2], container].concat())])
}

fn row(values: &[Option<&[u8]>]) -> Vec<u8> {
    let mut out = (values.len() as i16).to_be_bytes().to_vec();
    for value in values {
        out.extend_from_slice(&value.map_or(-1, |v| v.len() as i32).to_be_bytes());
        out.extend_from_slice(value.unwrap_or_default());
    }
    out
}

/// What stands between COPY's header and trailer.
fn rows_of(copied: &[u8]) -> &[u8] {
    copied.get(19..copied.len().saturating_sub(2)).unwrap_or_default()
}

fn read(client: &mut Client, sql: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    client.copy_out(sql)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn write(client: &mut Client, sql: &str, bytes: &[u8]) -> Result<()> {
    let mut copy = client.copy_in(sql)?;
    // Pieces that are cut where no row ends.
    for piece in bytes.chunks(7919) {
        copy.write_all(piece)?;
        copy.flush()?;
    }
    copy.finish()?;
    Ok(())
}

/// Loads rows, with all columns of the table.
fn load(client: &mut Client, table: &str, rows: &[u8]) -> Result<()> {
    let sql = "SELECT coalesce(array_agg(quote_literal(attname) ORDER BY attnum), '{}') FROM pg_attribute \
               WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped";
    let columns: Vec<String> = client.query_one(sql, &[&table])?.get(0);
    let call =
        format!("CALL scry_shadow.load_rows('{table}'::regclass, ARRAY[{}]::text[])", columns.join(", "));
    write(client, &call, rows)
}

fn code_of(error: &anyhow::Error) -> Option<String> {
    let mut causes = error.chain();
    causes.find_map(|cause| {
        let error = cause.downcast_ref::<postgres::Error>()?;
        error.code().map(|code| code.code().to_owned())
    })
}

fn owner(pair: &Pair) -> Result<Client> {
    let mut client = pair.platform.shadow_client(None)?;
    client.batch_execute("SET search_path = lab")?;
    Ok(client)
}

fn superuser(platform: &Platform) -> Result<Client> {
    let password = std::fs::read_to_string(platform.data_dir.join("scry_admin.password"))?;
    let port = std::fs::read_to_string(platform.data_dir.join("port"))?;
    let config = format!(
        "host=127.0.0.1 port={} user=scry_admin password={} dbname=shadow",
        port.trim(),
        password.trim()
    );
    Ok(Client::connect(&config, NoTls)?)
}
