//! The journal of a real platform: what is confirmed without the shadow is
//! there after any end, is bounded, and is never skipped.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod platform_lab;

use platform_lab::batch::{item_row, notes, row};
use platform_lab::catalog::{self, ITEMS, NOTES};
use platform_lab::{
    Batch, COPY_ID, Peer, Platform, eventually, item, items, kill_server, relation, stop_wal_writer,
};
use scry_wire::Lsn;
use scry_wire::frame::Tag;
use scry_wire::message::{ChunkDone, Confirm, CopyState, Message, Refuse, Role};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio_postgres::Client;

/// A platform with a journal, and a complete copy of no rows.
async fn platform(args: &[&str]) -> Platform {
    let mut platform = Platform::new();
    platform.args = ["--journal", "file"].iter().chain(args).map(|arg| (*arg).to_owned()).collect();
    platform.start().await;
    platform.copied(&[]).await;
    platform
}

/// A session that keeps the applier waiting.
async fn stand_in_the_way(platform: &Platform) -> Client {
    let shadow = platform.shadow().await;
    shadow.batch_execute("BEGIN; LOCK TABLE public.items IN SHARE MODE").await.unwrap();
    shadow
}

/// Transaction `n` inserts row n.
fn transactions(from: u64, upto: u64) -> Batch {
    (from..=upto).fold(Batch::new().relation(&relation()), |batch, n| {
        batch.transaction(n * 10, n * 10 + 10, &[(i32::try_from(n).unwrap(), "x")])
    })
}

fn position(n: u64) -> u64 {
    n * 10 + 10
}

/// Reads confirmations until this position is flushed; returns the last one.
async fn flushed(peer: &mut Peer, lsn: u64) -> Confirm {
    loop {
        let confirm: Confirm = peer.expect().await;
        assert!(confirm.flushed_lsn <= Lsn(lsn) && confirm.applied_lsn <= confirm.flushed_lsn, "{confirm:?}");
        if confirm.flushed_lsn == Lsn(lsn) {
            return confirm;
        }
    }
}

async fn ids(client: &Client) -> Vec<i32> {
    items(client).await.into_iter().map(|(id, _)| id).collect()
}

fn numbers(upto: i32) -> Vec<i32> {
    (1..=upto).collect()
}

/// The segments' files, in order.
fn segments(platform: &Platform) -> Vec<PathBuf> {
    let list = |dir: PathBuf| std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = list(platform.data_dir().join("journal")).flat_map(list).collect();
    files.sort();
    files
}

/// A platform whose journal has confirmed 20 transactions, of which the shadow
/// shows the first 5.
async fn ahead_of_its_shadow() -> (Platform, Client, Peer) {
    let platform = platform(&[]).await;
    let mut stream = platform.peer(Role::Stream).await;
    stream.welcome().await;
    stream.send_batch(&transactions(1, 5)).await;
    stream.confirmed(position(5)).await;
    let holder = stand_in_the_way(&platform).await;
    stream.send_batch(&transactions(6, 20)).await;
    let confirm = flushed(&mut stream, position(20)).await;
    assert_eq!(confirm.applied_lsn, Lsn(position(5)), "the shadow does not show it");
    (platform, holder, stream)
}

#[tokio::test]
async fn what_a_waiting_shadow_lacks_is_confirmed_and_survives_a_kill() {
    let (mut platform, holder, stream) = ahead_of_its_shadow().await;
    let (_, body) = platform.get("/api/v1/shadows").await.unwrap();
    assert!(body.contains("\"journal\":{\"applier\":\"running\""), "{body}");
    // Another connection goes on where the journal ends.
    drop(stream);
    let mut stream = platform.peer(Role::Stream).await;
    let welcome = stream.welcome().await;
    assert_eq!((welcome.applied_lsn, welcome.flushed_lsn), (Lsn(position(5)), Lsn(position(20))));
    // A transaction without its end, and a torn record behind it.
    stream
        .send_batch(&Batch::new().relation(&relation()).begin(300).insert(ITEMS, &item_row(99, "half")))
        .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    platform.kill();
    drop(holder);
    let last = segments(&platform).pop().unwrap();
    let mut bytes = std::fs::read(&last).unwrap();
    bytes.extend_from_slice(&[0x5a; 1000]);
    std::fs::write(&last, bytes).unwrap();
    platform.start().await;
    // Nobody is connected: it is applied all the same.
    let shadow = platform.shadow().await;
    eventually(numbers(20), async || ids(&shadow).await).await;
    let mut stream = platform.peer(Role::Stream).await;
    assert_eq!(stream.welcome().await.flushed_lsn, Lsn(position(20)));
    stream.send_batch(&transactions(18, 25)).await;
    stream.confirmed(position(25)).await;
    assert_eq!(ids(&shadow).await, numbers(25));
}

#[tokio::test]
async fn a_lost_journal_is_no_silent_gap() {
    let (mut platform, holder, stream) = ahead_of_its_shadow().await;
    platform.kill();
    drop((holder, stream));
    std::fs::remove_dir_all(platform.data_dir().join("journal")).unwrap();
    platform.start().await;
    let mut stream = platform.peer(Role::Stream).await;
    let welcome = stream.welcome().await;
    // Before what the slot stands at: the source starts over.
    assert_eq!((welcome.applied_lsn, welcome.flushed_lsn), (Lsn(position(5)), Lsn(position(5))));
}

#[tokio::test]
async fn a_damaged_journal_is_no_silent_gap() {
    let (mut platform, holder, stream) = ahead_of_its_shadow().await;
    platform.kill();
    drop((holder, stream));
    for file in segments(&platform) {
        let mut bytes = std::fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&file, bytes).unwrap();
    }
    platform.start().await;
    let mut stream = platform.peer(Role::Stream).await;
    let welcome = stream.welcome().await;
    assert!(welcome.flushed_lsn < Lsn(position(20)), "{welcome:?}");
    let shadow = platform.shadow().await;
    let held = ids(&shadow).await;
    assert_eq!(held, numbers(i32::try_from(held.len()).unwrap()), "nothing is skipped");
}

#[tokio::test]
async fn a_refused_change_stays_in_the_journal_until_it_can_be_applied() {
    let (platform, holder, mut stream) = ahead_of_its_shadow().await;
    // What the journal brings next is there already.
    holder.batch_execute("ROLLBACK; INSERT INTO public.items VALUES (30, 'by hand')").await.unwrap();
    stream.confirmed(position(20)).await;
    let holder = stand_in_the_way(&platform).await;
    stream.send_batch(&transactions(21, 40)).await;
    flushed(&mut stream, position(40)).await;
    holder.batch_execute("ROLLBACK").await.unwrap();
    for _ in 0..2 {
        let refuse = stream.refused().await;
        assert!(refuse.retry && refuse.message.contains("items_pkey"), "{refuse:?}");
        stream = platform.peer(Role::Stream).await;
        assert_eq!(stream.welcome().await.flushed_lsn, Lsn(position(40)));
    }
    stream.refused().await;
    assert_eq!(ids(&holder).await.len(), 30, "what stands before it is applied");
    let (_, body) = platform.get("/api/v1/shadows").await.unwrap();
    assert!(body.contains("\"applier\":\"failed\",\"why\":\"could not"), "{body}");
    // Mended, it goes on from where it stood.
    holder.batch_execute("DELETE FROM public.items WHERE id = 30").await.unwrap();
    let mut stream = platform.peer(Role::Stream).await;
    stream.welcome().await;
    stream.send_batch(&transactions(41, 41)).await;
    stream.confirmed(position(41)).await;
    assert_eq!(ids(&holder).await, numbers(41));
}

#[tokio::test]
async fn a_shadow_that_is_down_is_waited_for_on_the_same_connection() {
    let platform = platform(&[]).await;
    let mut stream = platform.peer(Role::Stream).await;
    stream.welcome().await;
    for round in 1..=3 {
        kill_server(platform.postmaster().unwrap()).await;
        stream.send_batch(&transactions(round * 100 - 99, round * 100)).await;
        stream.confirmed(position(round * 100)).await;
    }
    assert_eq!(ids(&platform.shadow().await).await, numbers(300));
}

#[tokio::test]
async fn what_the_shadow_shows_is_confirmed_when_it_is_on_its_disk() {
    let mut platform = Platform::new();
    let points = platform.home.path().join("failpoints");
    std::fs::write(&points, "").unwrap();
    platform.args = ["--journal", "file"].map(str::to_owned).to_vec();
    platform.env = vec![("SCRY_FAILPOINTS", points.clone())];
    platform.start().await;
    let wait_at = async |steps: &[&str]| {
        let lines: Vec<_> = steps.iter().map(|step| format!("{step}=return(wait)\n")).collect();
        std::fs::write(&points, lines.concat()).unwrap();
        let set: BTreeMap<_, _> = steps.iter().map(|step| (step, "return(wait)")).collect();
        let set = format!("failpoints are set set={set:?}");
        eventually(true, async || platform.log().contains(&set)).await;
    };
    platform.copied(&[]).await;
    let mut stream = platform.peer(Role::Stream).await;
    stream.welcome().await;
    stream.send_batch(&transactions(1, 5)).await;
    stream.confirmed(position(5)).await;

    // Nobody but us brings the shadow's WAL to its disk.
    let shadow = platform.shadow().await;
    stop_wal_writer(platform.postmaster().unwrap());
    wait_at(&["platform::shown"]).await;
    stream.send_batch(&transactions(6, 20)).await;
    eventually(numbers(20), async || ids(&shadow).await).await;
    drop(shadow);
    // What is applied again is not committed before we have looked.
    wait_at(&["platform::shown", "platform::applied"]).await;
    kill_server(platform.postmaster().unwrap()).await;
    wait_at(&["platform::applied"]).await;
    eventually(true, async || platform.log().contains("failpoint step=\"platform::applied\"")).await;
    let shadow = platform.shadow().await;
    assert_eq!(ids(&shadow).await, numbers(5), "the crash took what nobody was told of");
    std::fs::write(&points, "").unwrap();
    stream.confirmed(position(20)).await;
    assert_eq!(ids(&shadow).await, numbers(20), "out of the journal");
}

#[tokio::test]
async fn an_unfinished_transaction_of_an_old_connection_leaves_nothing() {
    let platform = platform(&[]).await;
    let mut old = platform.peer(Role::Stream).await;
    old.welcome().await;
    let half = Batch::new().relation(&relation()).transaction(10, 20, &[(1, "one")]).begin(20);
    old.send_batch(&half.insert(ITEMS, &item_row(2, "old"))).await;
    flushed(&mut old, 20).await;
    let mut new = platform.peer(Role::Stream).await;
    assert_eq!(new.welcome().await.flushed_lsn, Lsn(20));
    assert!(old.refused().await.message.contains("taken over"));
    new.send_batch(&Batch::new().relation(&relation()).transaction(20, 30, &[(2, "new")])).await;
    new.confirmed(30).await;
    assert_eq!(items(&platform.shadow().await).await, [item(1, "one"), item(2, "new")]);
}

/// A megabyte that does not compress.
fn noise(n: u64) -> String {
    let mut x = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..1 << 20)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            char::from(b'!' + u8::try_from(x % 90).unwrap())
        })
        .collect()
}

fn bytes_of_journal(platform: &Platform) -> u64 {
    segments(platform).iter().filter_map(|file| std::fs::metadata(file).ok()).map(|file| file.len()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_journal_makes_the_source_wait_and_goes_on() {
    let platform = platform(&["--journal-max-size", "16MB"]).await;
    let holder = stand_in_the_way(&platform).await;
    let mut stream = platform.peer(Role::Stream).await;
    stream.welcome().await;
    stream.send_batch(&Batch::new().relation(&relation())).await;
    let large = |n: u64| {
        let row = item_row(i32::try_from(n).unwrap(), &noise(n));
        Batch::new().begin(n * 10).insert(ITEMS, &row).commit(n * 10, n * 10 + 10)
    };
    let (count, start) = (40, Instant::now());
    let mut sent = 0;
    while sent < count {
        let batch = large(sent + 1);
        if tokio::time::timeout(Duration::from_secs(3), stream.send_batch(&batch)).await.is_err() {
            break;
        }
        sent += 1;
    }
    assert!(sent < 30, "{sent} MB were taken in {:?}", start.elapsed());
    assert!(bytes_of_journal(&platform) <= 16 << 20, "{}", bytes_of_journal(&platform));
    let (_, body) = platform.get("/api/v1/shadows").await.unwrap();
    assert!(body.contains("\"full\":true"), "{body}");
    // The rest of what was cut is lost with the connection; it is sent again.
    drop(stream);
    holder.batch_execute("ROLLBACK").await.unwrap();
    let mut stream = platform.peer(Role::Stream).await;
    let from = stream.welcome().await.flushed_lsn.0 / 10;
    assert!(from > 1, "what fits is confirmed");
    stream.send_batch(&Batch::new().relation(&relation())).await;
    for n in from..=count {
        stream.send_batch(&large(n)).await;
    }
    stream.confirmed(position(count)).await;
    let shadow = platform.shadow().await;
    assert_eq!(ids(&shadow).await, numbers(i32::try_from(count).unwrap()));
    let held: i64 = shadow.query_one("SELECT sum(length(v)) FROM public.items", &[]).await.unwrap().get(0);
    assert_eq!(held, i64::try_from(count << 20).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_larger_than_the_journal_passes() {
    let platform = platform(&["--journal-max-size", "16MB"]).await;
    let mut stream = platform.peer(Role::Stream).await;
    stream.welcome().await;
    stream.send_batch(&Batch::new().relation(&relation()).begin(10)).await;
    for n in 1..=60 {
        let row = item_row(n, &noise(n.unsigned_abs().into()));
        stream.send_batch(&Batch::new().insert(ITEMS, &row)).await;
    }
    assert!(bytes_of_journal(&platform) <= 16 << 20, "{}", bytes_of_journal(&platform));
    // Its end, and more in the same frame.
    stream.send_batch(&Batch::new().commit(10, 20).transaction(20, 30, &[(61, "behind")])).await;
    stream.confirmed(30).await;
    let shadow = platform.shadow().await;
    assert_eq!(ids(&shadow).await, numbers(61));
    stream.send_batch(&transactions(62, 70)).await;
    stream.confirmed(position(70)).await;
    assert_eq!(ids(&shadow).await, numbers(70));
}

/// A leader whose catalog was read under a snapshot that saw this.
async fn leader(platform: &Platform, copy_id: u64, snapshot: &str) -> Peer {
    let mut lead = platform.peer(Role::Lead).await;
    lead.welcome().await;
    let mut document: serde_json::Value = serde_json::from_slice(&catalog::items(copy_id)).unwrap();
    document["snapshot"] = snapshot.into();
    lead.send_catalog(document.to_string().as_bytes()).await;
    lead.catalog_applied().await;
    lead
}

#[tokio::test]
async fn what_is_streamed_during_the_copy_is_confirmed_and_applied_after_it() {
    let mut platform = Platform::new();
    platform.args = vec!["--journal".into(), "file".into()];
    platform.start().await;
    let mut stream = platform.peer(Role::Stream).await;
    assert_eq!(stream.welcome().await.copy_state, CopyState::None);
    let lead = leader(&platform, COPY_ID, "").await;
    stream.send_batch(&transactions(2, 20)).await;
    assert_eq!(flushed(&mut stream, position(20)).await.applied_lsn, Lsn(0), "nothing is applied yet");
    platform.kill();
    drop((lead, stream));
    platform.start().await;
    let mut stream = platform.peer(Role::Stream).await;
    let welcome = stream.welcome().await;
    assert_eq!((welcome.copy_state, welcome.applied_lsn), (CopyState::Copying, Lsn(0)));
    assert_eq!(welcome.flushed_lsn, Lsn(position(20)));
    stream.send_batch(&transactions(21, 30)).await;
    platform.copied(&[item_row(1, "copied")]).await;
    stream.confirmed(position(30)).await;
    assert_eq!(ids(&platform.shadow().await).await, numbers(30));
}

#[tokio::test]
async fn what_a_later_snapshot_of_the_copy_saw_is_not_applied_twice() {
    let mut platform = Platform::new();
    platform.args = vec!["--journal".into(), "file".into()];
    platform.start().await;
    let mut stream = platform.peer(Role::Stream).await;
    stream.welcome().await;
    let lead = leader(&platform, COPY_ID, "").await;
    // One table is whole before the copy is interrupted.
    let note = |text: &str| row(&[Some(text.as_bytes()), None]);
    let mut copy = platform.peer(Role::Copy).await;
    copy.welcome().await;
    copy.chunk(0, 1, &notes(), &[note("0")]).await;
    let both = |n: u64| {
        let id = i32::try_from(n).unwrap();
        Batch::new()
            .begin(n * 10)
            .insert(ITEMS, &item_row(id, "x"))
            .insert(NOTES, &note(&n.to_string()))
            .commit(n * 10, n * 10 + 10)
    };
    stream.send_batch(&Batch::new().relation(&relation()).relation(&notes())).await;
    for n in 1..=6 {
        stream.send_batch(&both(n)).await;
    }
    flushed(&mut stream, position(6)).await;
    drop((lead, copy, stream));
    // The next snapshot saw all but 40 and what came after 50.
    let mut stream = platform.peer(Role::Stream).await;
    assert_eq!(stream.welcome().await.flushed_lsn, Lsn(position(6)));
    let mut lead = leader(&platform, COPY_ID + 1, "40:60:40").await;
    let mut copy = platform.peer(Role::Copy).await;
    copy.welcome().await;
    let rows: Vec<Vec<u8>> = [1, 2, 3, 5].into_iter().map(|id| item_row(id, "x")).collect();
    copy.chunk_of(COPY_ID + 1, 0, 1, &relation(), &rows).await;
    let done: ChunkDone = copy.expect().await;
    assert_eq!(done.rows, 4);
    lead.finish(&[(ITEMS, 1, 4), (NOTES, 1, 1)]).await;
    stream.send_batch(&Batch::new().relation(&relation()).relation(&notes())).await;
    stream.send_batch(&both(7)).await;
    stream.confirmed(position(7)).await;
    let shadow = platform.shadow().await;
    assert_eq!(ids(&shadow).await, numbers(7));
    let count: i64 =
        shadow.query_one("SELECT count(DISTINCT j::text) FROM public.notes", &[]).await.unwrap().get(0);
    assert_eq!(count, 8, "the table of the first snapshot has all of the stream");
}

#[tokio::test]
async fn a_sequence_does_not_go_back() {
    let (mut platform, holder, stream) = ahead_of_its_shadow().await;
    drop((holder, stream));
    let mut stream = platform.peer(Role::Stream).await;
    stream.welcome().await;
    stream
        .send_batch(&Batch::new().relation(&relation()).sequence("counter", 100).transaction(
            210,
            220,
            &[(21, "x")],
        ))
        .await;
    stream.confirmed(220).await;
    stream.send_batch(&Batch::new().sequence("counter", 200).transaction(220, 230, &[(22, "x")])).await;
    stream.confirmed(230).await;
    // The segment is still there: it is read again from its beginning.
    let shadow = platform.shadow().await;
    shadow.batch_execute("SELECT pg_catalog.setval('public.counter', 300)").await.unwrap();
    let holder = stand_in_the_way(&platform).await;
    stream.send_batch(&transactions(23, 23)).await;
    flushed(&mut stream, position(23)).await;
    platform.kill();
    drop((holder, shadow));
    platform.start().await;
    let shadow = platform.shadow().await;
    eventually(numbers(23), async || ids(&shadow).await).await;
    let value: i64 = shadow.query_one("SELECT last_value FROM public.counter", &[]).await.unwrap().get(0);
    assert_eq!(value, 300, "older values stay where they are");
}

/// A sender takes anything else for a broken protocol.
#[tokio::test]
async fn the_welcome_comes_first() {
    let (platform, _holder, stream) = ahead_of_its_shadow().await;
    drop(stream);
    for _ in 0..5 {
        let mut stream = platform.peer(Role::Stream).await;
        stream.welcome().await;
        assert!(stream.marks.is_none() && stream.notices.is_empty());
    }
}

#[tokio::test]
async fn its_files_are_the_platform_s_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (platform, _holder, _stream) = ahead_of_its_shadow().await;
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for file in segments(&platform) {
        assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
    }
    assert_eq!(mode(&platform.data_dir().join("journal")), 0o700);
}

#[tokio::test]
async fn a_lie_is_refused_before_it_stands_there() {
    let platform = platform(&[]).await;
    for lie in [
        Batch::new().begin(40).begin(41),
        Batch::new().relation(&relation()).transaction(40, 50, &[(9, "x")]).begin(30),
        Batch::new().begin(40).commit(41, 50),
    ] {
        let mut peer = platform.peer(Role::Stream).await;
        peer.welcome().await;
        peer.send_batch(&lie).await;
        let frame = peer.next().await.unwrap();
        assert_eq!(frame.tag(), Tag::Refuse, "{:?}", Refuse::from_frame(&frame));
    }
    assert_eq!(items(&platform.shadow().await).await, []);
}
