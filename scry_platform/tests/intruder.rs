//! A source that is hostile: what it defines stays in its own shadow and runs
//! without rights, and what it sends again changes nothing.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod platform_lab;

use platform_lab::batch::item_row;
use platform_lab::catalog::{self, ITEMS, NOTES};
use platform_lab::{Batch, COPY_ID, Peer, Platform, hello, item, items, relation};
use scry_wire::Lsn;
use scry_wire::message::{Hello, RefuseKind, Role};
use serde_json::{Value, json};

/// The usual document with more objects.
fn document(more: &[Value]) -> Vec<u8> {
    let mut document: Value = serde_json::from_slice(&catalog::items(COPY_ID)).unwrap();
    document["objects"].as_array_mut().unwrap().extend_from_slice(more);
    serde_json::to_vec(&document).unwrap()
}

fn extension(oid: u32, name: &str) -> Value {
    let entry = json!({ "kind": "extension", "name": name, "schema": "public", "version": "1.0" });
    json!({ "class": "pg_extension", "oid": oid, "selected": true, "entry": entry })
}

fn function(oid: u32, name: &str, language: &str, definition: &str) -> Value {
    let entry = json!({
        "kind": "function", "schema": "public", "name": name, "prokind": "f", "language": language,
        "arguments": "", "definition": definition
    });
    json!({ "class": "pg_proc", "oid": oid, "selected": true, "entry": entry })
}

/// What every statement of a source's definitions runs as may not do.
const FORBIDDEN: [&str; 11] = [
    "SELECT pg_catalog.pg_read_file('/etc/passwd')",
    "SELECT pg_catalog.pg_ls_dir('/')",
    "COPY public.items TO PROGRAM 'cat'",
    "COPY public.items TO '/tmp/scry-intruder'",
    "COPY public.items FROM '/etc/passwd'",
    "SELECT pg_catalog.lo_import('/etc/passwd')",
    "CREATE EXTENSION file_fdw",
    "CREATE FUNCTION public.machine() RETURNS int LANGUAGE internal AS 'pg_backend_pid'",
    "ALTER SYSTEM SET work_mem = '1GB'",
    "CREATE ROLE intruder",
    "SET ROLE scry_admin",
];

#[tokio::test]
async fn a_hostile_source_gets_no_further_than_its_shadow() {
    let platform = Platform::started().await;
    let mut lead = platform.peer(Role::Lead).await;
    lead.welcome().await;
    let body = |name: &str, language: &str, body: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION public.{name}() RETURNS integer LANGUAGE {language} AS $function${body}$function$"
        )
    };
    let hostile = [
        extension(17001, "file_fdw"),
        extension(17002, "plpython3u"),
        extension(17003, "x\"; DROP SCHEMA scry_shadow CASCADE; --"),
        function(17004, "python", "plpython3u", &body("python", "plpython3u", "import os")),
        function(17005, "machine", "c", &body("machine", "c", "/tmp/evil.so")),
        function(
            17006,
            "two",
            "sql",
            "CREATE OR REPLACE FUNCTION public.two() RETURNS integer LANGUAGE sql AS $$SELECT 1$$; DROP SCHEMA scry_shadow CASCADE",
        ),
        function(17007, "no_function", "sql", "DROP SCHEMA scry_shadow CASCADE"),
        function(
            17008,
            "program",
            "sql",
            &body("program", "sql", "SELECT pg_catalog.length(pg_catalog.pg_read_file('/etc/passwd'))"),
        ),
    ];
    lead.send_catalog(&document(&hostile)).await;
    let mut left_out = lead.catalog_applied().await.left_out;
    let mut copy = platform.peer(Role::Copy).await;
    copy.welcome().await;
    copy.chunk(0, 1, &relation(), &[item_row(1, "one")]).await;
    left_out.extend(lead.finish(&[(ITEMS, 1, 1), (NOTES, 0, 0)]).await.left_out);
    let told: Vec<String> = left_out.iter().map(|item| format!("{}: {}", item.object, item.reason)).collect();
    println!("{told:#?}");
    for name in ["file_fdw", "plpython3u", "python", "machine", "two", "no_function"] {
        assert!(told.iter().any(|line| line.contains(name)), "{name} is left out, and told: {told:#?}");
    }
    let shadow = platform.shadow().await;
    assert_eq!(items(&shadow).await, [item(1, "one")]);
    let made: Vec<String> = shadow
        .query(
            "SELECT proname::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace \
             UNION ALL SELECT extname FROM pg_extension WHERE extname <> 'plpgsql' ORDER BY 1",
            &[],
        )
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert!(made.iter().all(|name| name == "program"), "made: {made:?}");
    // Who it all runs as: no superuser, no predefined role. (Policies do not bind it: they may be forced.)
    let rights = "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR EXISTS \
                  (SELECT FROM pg_auth_members WHERE member = r.oid) FROM pg_roles r WHERE rolname = current_user";
    assert!(!shadow.query_one(rights, &[]).await.unwrap().get::<_, bool>(0));
    if made.iter().any(|name| name == "program") {
        let error = shadow.query("SELECT public.program()", &[]).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "42501", "{error:?}");
    }
    for statement in FORBIDDEN {
        let error = shadow.batch_execute(statement).await.unwrap_err();
        let code = error.code().unwrap().code();
        assert_eq!(code, "42501", "{statement}: {error:?}");
    }
}

#[tokio::test]
async fn what_runs_while_rows_are_applied_is_no_superuser() {
    let platform = Platform::started().await;
    platform.copied(&[]).await;
    let shadow = platform.shadow().await;
    // Somebody has planted a trigger that even an applying session runs.
    shadow
        .batch_execute(
            "CREATE TABLE public.seen (who text, super text, path text, role text);
             CREATE FUNCTION public.watch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO public.seen VALUES (current_user, current_setting('is_superuser'),
                     current_setting('search_path'), current_setting('session_replication_role'));
                 RETURN NEW; END $$;
             CREATE TRIGGER watch BEFORE INSERT ON public.items FOR EACH ROW EXECUTE FUNCTION public.watch();
             ALTER TABLE public.items ENABLE ALWAYS TRIGGER watch;
             CREATE FUNCTION public.never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'called'; END $$;
             CREATE TRIGGER never BEFORE INSERT ON public.items FOR EACH ROW EXECUTE FUNCTION public.never()",
        )
        .await
        .unwrap();
    let mut stream = platform.peer(Role::Stream).await;
    stream.welcome().await;
    stream
        .send_batch(&Batch::new().relation(&relation()).transaction(10, 20, &[(1, "one"), (2, "two")]))
        .await;
    stream.confirmed(20).await;
    let rows = shadow.query("SELECT DISTINCT who, super, path, role FROM public.seen", &[]).await.unwrap();
    assert_eq!(rows.len(), 1);
    let seen: [String; 4] = std::array::from_fn(|column| rows[0].get(column));
    assert_eq!(seen, ["scry_shadow", "off", "\"\"", "replica"]);
}

#[tokio::test]
async fn what_was_sent_before_changes_nothing() {
    let platform = Platform::started().await;
    platform.copied(&[item_row(1, "one")]).await;
    let shadow = platform.shadow().await;
    let first = || Batch::new().relation(&relation()).transaction(10, 20, &[(2, "two")]);
    let second = || Batch::new().relation(&relation()).transaction(20, 30, &[(3, "three")]);
    let mut stream = platform.peer(Role::Stream).await;
    stream.welcome().await;
    stream.send_batch(&first()).await;
    stream.send_batch(&second()).await;
    stream.confirmed(30).await;
    let is_unchanged = async || {
        assert_eq!(items(&shadow).await, [item(1, "one"), item(2, "two"), item(3, "three")]);
        let sql = "SELECT applied_lsn::text FROM scry_shadow.origin";
        assert_eq!(shadow.query_one(sql, &[]).await.unwrap().get::<_, String>(0), "0/1E");
    };
    // Recorded and played again: all of it, twice; the last part; the parts in another order.
    for batches in [vec![first(), second(), first()], vec![second()], vec![second(), first()]] {
        let mut peer = platform.peer(Role::Stream).await;
        assert_eq!(peer.welcome().await.applied_lsn, Lsn(30));
        for batch in &batches {
            peer.send_batch(batch).await;
        }
        peer.end();
        while peer.next().await.is_some() {}
        is_unchanged().await;
    }
    // A chunk of the copy, after its end.
    let mut copy = platform.peer(Role::Copy).await;
    copy.welcome().await;
    copy.chunk_of(COPY_ID, 0, 1, &relation(), &[item_row(9, "again")]).await;
    while copy.next().await.is_some_and(|frame| frame.tag() != scry_wire::frame::Tag::Refuse) {}
    is_unchanged().await;
    // From another generation, another source, an older timeline.
    let said = async |hello: Hello| {
        let mut peer = Peer::connect(platform.port, None).await;
        peer.send(&hello).await;
        peer.send_batch(&Batch::new().relation(&relation()).transaction(30, 40, &[(4, "four")])).await;
        tokio::time::timeout(std::time::Duration::from_secs(2), async {
            while peer.next().await.is_some() {}
        })
        .await
        .ok();
    };
    said(Hello { generation: 8, ..hello(Role::Stream) }).await;
    said(Hello { system_identifier: 5, ..hello(Role::Stream) }).await;
    is_unchanged().await;
    let mut old = Peer::connect(platform.port, None).await;
    old.send(&Hello { timeline: 0, ..hello(Role::Stream) }).await;
    assert_eq!(old.refused().await.kind, RefuseKind::Identity);
    is_unchanged().await;
    // The timeline that a position belongs to comes with it, not with a hello.
    let mut promoted = Peer::connect(platform.port, None).await;
    promoted.send(&Hello { timeline: 2, ..hello(Role::Stream) }).await;
    assert_eq!(promoted.welcome().await.timeline, 1);
    drop(promoted);
    let mut promoted = Peer::connect(platform.port, None).await;
    promoted.send(&Hello { timeline: 2, ..hello(Role::Stream) }).await;
    let welcome = promoted.welcome().await;
    assert_eq!((welcome.timeline, welcome.copy_id), (1, COPY_ID));
    promoted.send_batch(&Batch::new().relation(&relation()).transaction(30, 40, &[(4, "four")])).await;
    promoted.confirmed(40).await;
    let mut left_behind = platform.peer(Role::Stream).await;
    let refuse = left_behind.refused().await;
    assert_eq!((refuse.kind, refuse.retry), (RefuseKind::Identity, false));
    assert!(refuse.message.contains("timeline 1") && refuse.message.contains("timeline 2"), "{refuse:?}");
}
