//! Sets against changes in order: the same tables come out, and what the
//! figures are (`pace_of_sets`, ignored: `--ignored --nocapture`).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod platform_lab;

use bytes::Bytes;
use platform_lab::batch::column;
use platform_lab::{Batch, Platform, row};
use scry_platform::Error;
use scry_platform::apply::relation_map::RelationMap;
use scry_platform::apply::writer::Writer;
use scry_platform::shadow::{Connector, Purpose};
use scry_wire::Lsn;
use scry_wire::codec::Reader;
use scry_wire::message::change::{Change, OldKind};
use scry_wire::message::{Column, Format, Relation, ReplicaIdentity};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};
use tokio_postgres::Client;

struct Lab {
    platform: Platform,
    client: Client,
}

impl Lab {
    async fn new(sql: &str) -> Self {
        let platform = Platform::started().await;
        let client = platform.shadow().await;
        client.batch_execute(sql).await.unwrap();
        Lab { platform, client }
    }

    async fn writer(&self, folding: bool) -> Writer {
        let url = self.platform.shadow_url();
        let session = Connector::new(url.parse().unwrap(), None).open(Purpose::Apply).await.unwrap();
        let mut writer = Writer::new(session, RelationMap::default()).await.unwrap();
        writer.set_folding(folding);
        writer
    }

    async fn text(&self, sql: &str) -> String {
        let rows = self.client.query(sql, &[]).await.unwrap();
        let lines: Vec<String> = rows.iter().map(|r| r.get(0)).collect();
        lines.join("\n")
    }
}

fn relation(relid: u32, name: &str, columns: &[(&str, bool, u32)]) -> Relation {
    let columns: Vec<Column> =
        (1..).zip(columns).map(|(n, (name, key, oid))| column(n, name, *key, *oid)).collect();
    Relation {
        relid,
        format: Format::Binary,
        replica_identity: ReplicaIdentity::Default,
        schema: "public".into(),
        name: name.into(),
        columns,
    }
}

/// Applies a batch as the worker does; a shadow transaction holds at least `rows`.
async fn apply(writer: &mut Writer, batch: &Bytes, rows: u64, pending: &mut u64) -> Result<(), Error> {
    let mut reader = Reader::new(batch);
    while reader.remaining() > 0 {
        match Change::read(&mut reader).unwrap() {
            Change::Relation(relation) => writer.describe(relation).await?,
            Change::Begin(_) => writer.begin().await?,
            Change::Insert { relid, new } => writer.insert(batch, relid, new).await?,
            Change::Update { relid, old, new } => writer.update(batch, relid, old, new).await?,
            Change::Delete { relid, old } => writer.delete(batch, relid, old).await?,
            Change::Commit(_) if *pending >= rows => {
                writer.commit(0, Lsn(0), Lsn(0), 0).await?;
                *pending = 0;
            }
            _ => {}
        }
        *pending += 1;
    }
    Ok(())
}

async fn apply_all(writer: &mut Writer, batches: &[Bytes]) -> Result<(), Error> {
    let mut pending = 0;
    for batch in batches {
        apply(writer, batch, 20_000, &mut pending).await?;
    }
    writer.commit(0, Lsn(0), Lsn(0), 0).await
}

fn int(n: i32) -> [u8; 4] {
    n.to_be_bytes()
}

/// One transaction.
fn transaction(relations: &[&Relation], changes: impl FnOnce(Batch) -> Batch) -> Bytes {
    let open = relations.iter().fold(Batch::new(), |b, r| b.relation(r)).begin(10);
    changes(open).commit(10, 20).bytes.into()
}

const UNIQUE: &str = "CREATE TABLE public.u (id int PRIMARY KEY, n int UNIQUE, v text);
    INSERT INTO public.u SELECT g, g, 'old' FROM generate_series(1, 100) g;";

fn unique() -> Relation {
    relation(1, "u", &[("id", true, 23), ("n", false, 23), ("v", false, 25)])
}

fn u(id: i32, n: i32) -> Vec<u8> {
    row(&[Some(&int(id)), Some(&int(n)), Some(b"new")])
}

#[tokio::test]
async fn swapped_unique_values_are_written_in_order() {
    let lab = Lab::new(UNIQUE).await;
    let mut writer = lab.writer(true).await;
    let swap = transaction(&[&unique()], |b| {
        let b = b.update(1, None, &u(1, -1)).update(1, None, &u(2, 1)).update(1, None, &u(1, 2));
        (3..=100).fold(b, |b, id| b.update(1, None, &u(id, id + 1000)))
    });
    apply_all(&mut writer, &[swap]).await.unwrap();
    assert_eq!(writer.take_fallbacks(), 1);
    let sql = "SELECT concat_ws(' ', id, n, v) FROM public.u WHERE id <= 3 ORDER BY id";
    assert_eq!(lab.text(sql).await, "1 2 new\n2 1 new\n3 1003 new");
    assert_eq!(lab.text("SELECT count(*)::text FROM public.u WHERE v = 'new'").await, "100");
    // It goes on, in order at first and then by sets.
    for round in 0..4 {
        let next = transaction(&[], |b| {
            (3..=100).fold(b, |b, id| b.update(1, None, &u(id, id + 2000 + round * 1000)))
        });
        apply_all(&mut writer, &[next]).await.unwrap();
    }
    assert_eq!(writer.take_fallbacks(), 0);
    assert_eq!(lab.text("SELECT min(n)::text FROM public.u WHERE id > 2").await, "5003");
}

#[tokio::test]
async fn a_conflict_is_named_as_without_sets() {
    let lab = Lab::new(UNIQUE).await;
    for folding in [false, true] {
        let mut writer = lab.writer(folding).await;
        let missing = transaction(&[&unique()], |b| {
            (30..=101).fold(b, |b, id| b.update(1, None, &u(id, id + 500))).insert(1, &u(200, 200))
        });
        let error = apply_all(&mut writer, &[missing]).await.unwrap_err();
        assert!(
            matches!(&error, Error::Conflict { operation: "UPDATE", relation, found: 0, .. } if relation == "u"),
            "{error:?}"
        );
        assert!(writer.take_conflict().is_some());
        writer.roll_back().await;
        let duplicate = transaction(&[&unique()], |b| {
            (150..=199).fold(b, |b, id| b.insert(1, &u(id, id))).insert(1, &u(300, 7))
        });
        let error = apply_all(&mut writer, &[duplicate]).await.unwrap_err();
        assert!(matches!(error, Error::Sql { .. }), "{error:?}");
        assert_eq!(writer.take_fallbacks(), if folding { 2 } else { 0 });
        writer.roll_back().await;
        let sql = "SELECT count(*) || ' ' || sum(n) FROM public.u WHERE v = 'old'";
        assert_eq!(lab.text(sql).await, "100 5050", "nothing of it stays");
    }
}

const TYPES: &str = "CREATE TYPE public.mood AS ENUM ('sad', 'ok');
    CREATE DOMAIN public.cents AS integer CHECK (VALUE >= 0);
    CREATE TABLE public.source (id bigint PRIMARY KEY, a text, b bytea, c boolean, d \"char\", e char(5),
        f varchar(9), g name, h numeric(12,3), i real, j double precision, k money, l timestamptz, m timestamp(3),
        n date, o time, p timetz, q interval, r uuid, s json, t jsonb, u inet, v macaddr, w bit(5), x varbit,
        y public.mood, z public.cents, ab int4range, ac tsvector, ad point, ae xml, af oid, ag smallint);
    INSERT INTO public.source SELECT g, repeat(E'tab\\t\\\\ é', g % 3), '\\x00ff5c', g % 2 = 0, 'x', 'ab', 'v', 'n',
        g * 1.125, g / 3.0, '-0', '-12.34', 'infinity', '2026-01-02 03:04:05.678', '4713-01-01 BC', '24:00',
        '24:00+05:30', '1 mon -1 day 00:00:00.000001', md5(g::text)::uuid, '{\"a\": [1,  2]}', '{\"a\": null}',
        '10.0.0.1/8', '08:00:2b:01:02:03', B'10101', B'101', 'ok', g, '[1,5)', 'fat:1A cat:2', '(1,-0)',
        '<a>b</a>', 4294967295, -5 FROM generate_series(1, 100) g;
    UPDATE public.source SET (a, b, e, h, q, y, z, w) = ROW(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)
        WHERE id % 7 = 0;
    CREATE TABLE public.twin (LIKE public.source INCLUDING ALL);
    INSERT INTO public.twin (id) SELECT id FROM public.source;";

/// Rows of a table in binary COPY's form.
async fn copied(client: &Client, table: &str) -> Vec<Vec<u8>> {
    use futures_util::TryStreamExt;
    let sql = format!("COPY (SELECT * FROM {table} ORDER BY 1) TO STDOUT (FORMAT binary)");
    let parts: Vec<Bytes> = client.copy_out(&sql).await.unwrap().try_collect().await.unwrap();
    let all = parts.concat();
    let mut rest = &all[19..];
    let mut rows = Vec::new();
    while rest != b"\xff\xff" {
        let len = scry_wire::tuple::complete_len(rest).unwrap().unwrap();
        rows.push(rest[..len].to_vec());
        rest = &rest[len..];
    }
    rows
}

#[tokio::test]
async fn every_type_passes_in_a_set() {
    let lab = Lab::new(TYPES).await;
    let sql = "SELECT attname::text, atttypid FROM pg_attribute \
        WHERE attrelid = 'public.source'::regclass AND attnum > 0 ORDER BY attnum";
    let columns = lab.client.query(sql, &[]).await.unwrap();
    let columns: Vec<(String, bool, u32)> =
        columns.iter().map(|r| (r.get(0), r.get::<_, &str>(0) == "id", r.get(1))).collect();
    let columns: Vec<(&str, bool, u32)> = columns.iter().map(|(n, k, t)| (n.as_str(), *k, *t)).collect();
    let twin = relation(1, "twin", &columns);
    let rows = copied(&lab.client, "public.source").await;
    let mut writer = lab.writer(true).await;
    let updates = transaction(&[&twin], |b| rows.iter().fold(b, |b, row| b.update(1, None, row)));
    apply_all(&mut writer, &[updates]).await.unwrap();
    assert_eq!(writer.take_fallbacks(), 0);
    assert_eq!(copied(&lab.client, "public.twin").await, rows);
    let deletes = transaction(&[], |b| rows.iter().take(60).fold(b, |b, row| b.delete(1, OldKind::Key, row)));
    apply_all(&mut writer, &[deletes]).await.unwrap();
    assert_eq!(writer.take_fallbacks(), 0);
    assert_eq!(copied(&lab.client, "public.twin").await, rows[60..]);
}

const LISTS: &str = "CREATE TABLE public.lists (id int PRIMARY KEY, \
        gone int, l int[], v varchar(9)); \
    ALTER TABLE public.lists DROP COLUMN gone;";

/// There is no array over arrays: such tables' sets are arrays of their rows.
#[tokio::test]
async fn tables_with_arrays_go_in_sets() {
    let lab = Lab::new(LISTS).await;
    let lists = relation(1, "lists", &[("id", true, 23), ("l", false, 1007), ("v", false, 1043)]);
    // One dimension, no NULLs, int4, two elements from 1 on (array_recv).
    let list = |n: i32| [1, 0, 23, 2, 1, 4, n, 4, n + 1].map(i32::to_be_bytes).concat();
    let tuple = |id: i32, v: &str| row(&[Some(&int(id)), Some(&list(id)), Some(v.as_bytes())]);
    let mut writer = lab.writer(true).await;
    let inserts = transaction(&[&lists], |b| (1..=40).fold(b, |b, id| b.insert(1, &tuple(id, "new"))));
    apply_all(&mut writer, &[inserts]).await.unwrap();
    let updates = transaction(&[], |b| (1..=40).fold(b, |b, id| b.update(1, None, &tuple(id, "changed"))));
    apply_all(&mut writer, &[updates]).await.unwrap();
    let deletes = transaction(&[], |b| (1..=30).fold(b, |b, id| b.delete(1, OldKind::Key, &tuple(id, ""))));
    apply_all(&mut writer, &[deletes]).await.unwrap();
    assert_eq!(writer.take_fallbacks(), 0);
    let sums = "SELECT format('%s %s %s', count(*), sum(l[1] + l[2]), string_agg(DISTINCT v, ' ')) \
        FROM public.lists";
    assert_eq!(lab.text(sums).await, "10 720 changed");
}

/// A small generator: the seed replays the run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }

    fn roll32(&mut self, below: i32) -> i32 {
        i32::try_from(self.roll(u64::try_from(below).unwrap())).unwrap()
    }
}

/// Tables of several kinds of keys, twice. Rows are (key, value, kept), where
/// `kept` is sometimes left out of an update.
fn tables(suffix: &str) -> String {
    let mut sql = String::new();
    for (name, columns) in [
        ("plain", "k int PRIMARY KEY, v text, kept text"),
        ("texts", "k text PRIMARY KEY, v text, kept text"),
        ("folded", "k text COLLATE public.any_case PRIMARY KEY, v text, kept text"),
        ("uniques", "k int PRIMARY KEY, v text UNIQUE, kept text"),
        ("lists", "k int PRIMARY KEY, v text, kept text, l int[] DEFAULT '{1}'"),
    ] {
        writeln!(sql, "CREATE TABLE public.{name}_{suffix} ({columns});").unwrap();
    }
    sql
}

/// Random transactions that a source could have done, for relations 1 to 5.
fn history(dice: &mut Dice, transactions: usize) -> Vec<(u32, Vec<Step>)> {
    let mut tables: Vec<BTreeMap<i32, Option<String>>> = vec![BTreeMap::new(); 5];
    let mut out = Vec::new();
    for _ in 0..transactions {
        let table = usize::try_from(dice.roll(5)).unwrap();
        let rows = &mut tables[table];
        let mut steps = Vec::new();
        for _ in 0..=dice.roll(12) {
            let (at, to) = (dice.roll32(90), dice.roll32(90));
            let value = match dice.roll(6) {
                0 => None,
                _ => Some(format!("{}", dice.roll(500))),
            };
            let taken = table == 3 && value.is_some() && rows.values().any(|v| *v == value);
            let step = match (dice.roll(8), rows.contains_key(&at), rows.contains_key(&to)) {
                _ if taken => continue,
                (0..=5, false, _) => Step::Insert(at, value.clone()),
                (0..=4, true, _) => Step::Update(at, at, value.clone(), dice.roll(3) == 0),
                (5, true, false) => Step::Update(at, to, value.clone(), dice.roll(3) == 0),
                (6, true, _) => Step::Delete(at),
                _ => continue,
            };
            match &step {
                Step::Insert(k, v) => drop(rows.insert(*k, v.clone())),
                Step::Update(k, to, v, _) => {
                    rows.remove(k);
                    rows.insert(*to, v.clone());
                }
                Step::Delete(k) => drop(rows.remove(k)),
            }
            steps.push(step);
        }
        out.push((u32::try_from(table).unwrap() + 1, steps));
    }
    out
}

enum Step {
    Insert(i32, Option<String>),
    Update(i32, i32, Option<String>, bool),
    Delete(i32),
}

fn written(history: &[(u32, Vec<Step>)], suffix: &str) -> Vec<Bytes> {
    let describe = |b: Batch| {
        let text = [("k", true, 25), ("v", false, 25), ("kept", false, 25)];
        let int = [("k", true, 23), ("v", false, 25), ("kept", false, 25)];
        let list = [("k", true, 23), ("v", false, 25), ("kept", false, 25), ("l", false, 1007)];
        b.relation(&relation(1, &format!("plain_{suffix}"), &int))
            .relation(&relation(2, &format!("texts_{suffix}"), &text))
            .relation(&relation(3, &format!("folded_{suffix}"), &text))
            .relation(&relation(4, &format!("uniques_{suffix}"), &int))
            .relation(&relation(5, &format!("lists_{suffix}"), &list))
    };
    let mut batches = vec![describe(Batch::new()).bytes.into()];
    for chunk in history.chunks(50) {
        let mut batch = Batch::new();
        for (relid, steps) in chunk {
            batch = batch.begin(1);
            for step in steps {
                batch = written_step(batch, *relid, step);
            }
            batch = batch.commit(1, 2);
        }
        batches.push(batch.bytes.into());
    }
    batches
}

fn written_step(batch: Batch, relid: u32, step: &Step) -> Batch {
    let key = |k: i32| match relid {
        2 | 3 => format!("key {k}").into_bytes(),
        _ => int(k).to_vec(),
    };
    let tuple = |k: i32, v: Option<&str>, same: bool| {
        let list = [&int(1)[..], &int(0), &int(23), &int(1), &int(1), &int(4), &int(k)].concat();
        let mut fields = vec![Some(key(k)), v.map(|v| v.as_bytes().to_vec())];
        fields.push(if same { None } else { Some(format!("kept {k} {v:?}").into_bytes()) });
        if relid == 5 {
            fields.push(Some(list));
        }
        let fields: Vec<Option<&[u8]>> = fields.iter().map(Option::as_deref).collect();
        let mut out = row(&fields);
        if same {
            let at = row(&fields[..2]).len();
            out[at..at + 4].copy_from_slice(&int(-2));
        }
        out
    };
    let old = |k: i32| {
        let mut fields = vec![None; if relid == 5 { 4 } else { 3 }];
        let key = key(k);
        fields[0] = Some(&key[..]);
        row(&fields)
    };
    match step {
        Step::Insert(k, v) => batch.insert(relid, &tuple(*k, v.as_deref(), false)),
        Step::Update(k, to, v, same) if k == to => {
            batch.update(relid, None, &tuple(*to, v.as_deref(), *same))
        }
        Step::Update(k, to, v, same) => {
            batch.update(relid, Some((OldKind::Key, &old(*k))), &tuple(*to, v.as_deref(), *same))
        }
        Step::Delete(k) => batch.delete(relid, OldKind::Key, &old(*k)),
    }
}

#[tokio::test]
async fn sets_leave_what_the_order_leaves() {
    let collation = "CREATE COLLATION public.any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);";
    let lab = Lab::new(&format!("{collation}{}{}", tables("sets"), tables("order"))).await;
    let (mut sets, mut order) = (lab.writer(true).await, lab.writer(false).await);
    let mut fallbacks = 0;
    for seed in 1..=6u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let history = history(&mut dice, 1500);
        for (writer, suffix) in [(&mut sets, "sets"), (&mut order, "order")] {
            for batch in written(&history, suffix) {
                // Runs of many sizes.
                let size = dice.roll(400);
                apply(writer, &batch, size, &mut 0).await.unwrap();
            }
            writer.commit(0, Lsn(0), Lsn(0), 0).await.unwrap();
        }
        fallbacks += sets.take_fallbacks();
        for name in ["plain", "texts", "folded", "uniques", "lists"] {
            let read = |suffix| format!("SELECT t::text FROM public.{name}_{suffix} t ORDER BY k");
            let (got, want) = (lab.text(&read("sets")).await, lab.text(&read("order")).await);
            assert!(got == want, "table {name}, seed {seed}:\n{got}\n---\n{want}");
        }
        let truncate = ["sets", "order"].map(|s| {
            format!("TRUNCATE public.plain_{s}, public.texts_{s}, public.folded_{s}, public.uniques_{s}, public.lists_{s};")
        });
        lab.client.batch_execute(&truncate.concat()).await.unwrap();
    }
    println!("{fallbacks} runs fell back");
}

const PGBENCH: &str = "
    CREATE TABLE public.accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84)) WITH (fillfactor=100);
    CREATE TABLE public.tellers (tid int PRIMARY KEY, bid int, tbalance int, filler char(84));
    CREATE TABLE public.branches (bid int PRIMARY KEY, bbalance int, filler char(88));
    CREATE TABLE public.history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
    INSERT INTO public.accounts SELECT g, g / 100000, 0, '' FROM generate_series(0, 999999) g;
    INSERT INTO public.tellers SELECT g, g / 10, 0, '' FROM generate_series(0, 99) g;
    INSERT INTO public.branches SELECT g, 0, '' FROM generate_series(0, 9) g;
    CREATE TABLE public.docs (id bigint PRIMARY KEY, k int, v text, w text);
    INSERT INTO public.docs SELECT g * 2, g, repeat('v', 60), repeat('w', 60) FROM generate_series(0, 999999) g;
    CREATE INDEX ON public.docs (k);";

fn pgbench() -> Vec<Relation> {
    vec![
        relation(
            1,
            "accounts",
            &[("aid", true, 23), ("bid", false, 23), ("abalance", false, 23), ("filler", false, 1042)],
        ),
        relation(
            2,
            "tellers",
            &[("tid", true, 23), ("bid", false, 23), ("tbalance", false, 23), ("filler", false, 1042)],
        ),
        relation(3, "branches", &[("bid", true, 23), ("bbalance", false, 23), ("filler", false, 1042)]),
        Relation {
            replica_identity: ReplicaIdentity::Nothing,
            ..relation(
                4,
                "history",
                &[
                    ("tid", false, 23),
                    ("bid", false, 23),
                    ("aid", false, 23),
                    ("delta", false, 23),
                    ("mtime", false, 1114),
                    ("filler", false, 1042),
                ],
            )
        },
        relation(5, "docs", &[("id", true, 20), ("k", false, 23), ("v", false, 25), ("w", false, 25)]),
    ]
}

fn tpcb(batch: Batch, dice: &mut Dice) -> Batch {
    let (aid, tid, delta) = (dice.roll32(1_000_000), dice.roll32(100), dice.roll32(10_000));
    let (aid, tid, bid, delta) = (int(aid), int(tid), int(tid / 10), int(delta));
    let (f84, f88) = ([b' '; 84], [b' '; 88]);
    batch
        .update(1, None, &row(&[Some(&aid), Some(&bid), Some(&delta), Some(&f84)]))
        .update(2, None, &row(&[Some(&tid), Some(&bid), Some(&delta), Some(&f84)]))
        .update(3, None, &row(&[Some(&bid), Some(&delta), Some(&f88)]))
        .insert(
            4,
            &row(&[Some(&tid), Some(&bid), Some(&aid), Some(&delta), Some(&[0, 2, 0, 0, 0, 0, 0, 0]), None]),
        )
}

fn doc(id: i64, k: i32) -> Vec<u8> {
    row(&[Some(&id.to_be_bytes()), Some(&int(k)), Some(&[b'x'; 60]), Some(&[b'y'; 60])])
}

/// Batches of about half a megabyte, of `rows` changes in transactions of `size`.
fn backlog(rows: usize, size: usize, mut one: impl FnMut(Batch) -> Batch) -> Vec<Bytes> {
    let mut batches = Vec::new();
    let mut batch = pgbench().iter().fold(Batch::new(), |b, r| b.relation(r));
    for _ in 0..rows / size {
        batch = one(batch.begin(1)).commit(1, 2);
        if batch.bytes.len() > 512 << 10 {
            batches.push(std::mem::take(&mut batch).bytes.into());
        }
    }
    batches.push(batch.bytes.into());
    batches
}

/// In order and by sets, in one run. `SCRY_TEST_ROWS` changes a workload.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures; takes a minute"]
async fn pace_of_sets() {
    let rows: usize = std::env::var("SCRY_TEST_ROWS").ok().and_then(|v| v.parse().ok()).unwrap_or(200_000);
    let lab = Lab::new(PGBENCH).await;
    let mut dice = Dice(88_172_645_463_325_252);
    let mut next = 3_000_000i64;
    println!("{:<22}{:>14}{:>14}{:>8}", "rows a second", "in order", "sets", "times");
    for name in ["pgbench TPC-B", "spread-key updates", "inserts", "mixed"] {
        let mut pace = Vec::new();
        for folding in [false, true] {
            let batches = match name {
                "pgbench TPC-B" => backlog(rows, 4, |b| tpcb(b, &mut dice)),
                "spread-key updates" => backlog(rows, 4, |b| {
                    (0..4).fold(b, |b, _| b.update(5, None, &doc(i64::from(dice.roll32(1_000_000)) * 2, 7)))
                }),
                "inserts" => backlog(rows, 4, |b| {
                    next += 4;
                    (-3..=0).fold(b, |b, n| b.insert(5, &doc(next + n, 9)))
                }),
                _ => backlog(rows, 4, |b| {
                    next += 1;
                    let gone = row(&[Some(&(next - 2000).to_be_bytes()), None, None, None]);
                    (0..2)
                        .fold(b, |b, _| b.update(5, None, &doc(i64::from(dice.roll32(1_000_000)) * 2, 8)))
                        .insert(5, &doc(next, 3))
                        .delete(5, OldKind::Key, &gone)
                }),
            };
            let mut writer = lab.writer(folding).await;
            let start = Instant::now();
            apply_all(&mut writer, &batches).await.unwrap();
            #[expect(clippy::cast_precision_loss, reason = "a figure")]
            pace.push(rows as f64 / start.elapsed().as_secs_f64());
            assert_eq!(writer.take_fallbacks(), 0);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        println!("{name:<22}{:>14.0}{:>14.0}{:>8.2}", pace[0], pace[1], pace[1] / pace[0]);
    }
}
