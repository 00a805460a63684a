//! Platforms that are broken, hostile or lie: told in the status, believed in
//! nothing, and nothing else of the source suffers.

use super::{SOON, says};
use anyhow::{Result, ensure};
use scry_testkit::scripted::{Script, ScriptedPlatform};
use scry_testkit::wire::message::{CatalogApplied, Confirm, CopyState, Hello, Message, Role, Welcome};
use scry_testkit::wire::{Lsn, version};
use scry_testkit::{Lab, Pair, PairOptions, scenario};
use std::sync::Arc;
use std::time::Duration;

fn welcome(hello: &Hello, version: u16) -> Vec<u8> {
    Welcome {
        version,
        applied_lsn: Lsn(0),
        flushed_lsn: Lsn(0),
        copy_state: CopyState::None,
        generation: hello.generation,
        timeline: hello.timeline,
        copy_id: 0,
        takes_stored: false,
        shadow: "shadow".to_owned(),
        software: "scripted".to_owned(),
    }
    .to_frame()
}

/// A source that streams to a scripted platform.
fn source_of(lab: &Lab, script: Script) -> Result<(Pair, ScriptedPlatform)> {
    let platform = ScriptedPlatform::start(script, scry_testkit::scripted::CONTENT_TYPE)?;
    let pair = Pair::start(lab, &PairOptions { endpoint: Some(platform.url()), ..PairOptions::default() })?;
    pair.sql("CREATE TABLE t(id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 1000)")?;
    Ok((pair, platform))
}

#[test]
fn a_confirmation_of_what_was_never_sent_is_not_believed() {
    scenario("lying_confirmation", |lab| {
        let lie = Arc::new(|hello: &Hello| {
            let mut pieces = vec![welcome(hello, version::VERSION_1)];
            let far = Lsn(u64::MAX / 2);
            match hello.role {
                Role::Stream => pieces.push(Confirm { applied_lsn: far, flushed_lsn: far }.to_frame()),
                // The stream worker listens once the copy is planned.
                Role::Lead => pieces.push(CatalogApplied::default().to_frame()),
                Role::Copy | Role::Verify => {}
            }
            pieces
        });
        let (pair, platform) = source_of(lab, Script::Frames(lie))?;
        pair.start_job("t")?;
        pair.wait_status("the lie in the status", SOON, |row| says(row, "confirm"))?;
        ensure!(!platform.hellos().is_empty());
        for _ in 0..20 {
            pair.sql("INSERT INTO t SELECT max(id) + 1 FROM t")?;
            std::thread::sleep(Duration::from_millis(100));
            let moved = pair.sql(
                "SELECT count(*) FROM pg_replication_slots WHERE confirmed_flush_lsn > pg_current_wal_lsn()",
            )?;
            ensure!(moved == "0", "the slot moved past the end of the WAL");
        }
        pair.assert_source_unharmed()
    });
}

#[test]
fn answers_that_are_no_frames_are_told() {
    scenario("bad_answers", |lab| {
        let (pair, platform) = source_of(lab, Script::Status(500))?;
        pair.start_job("t")?;
        pair.wait_status("status 500", SOON, |row| says(row, "500"))?;
        for (script, words) in [
            (Script::Status(404), "404"),
            (Script::Status(401), "token"),
            (Script::Status(302), "302"),
            (Script::Status(413), "413"),
            (Script::Status(429), "429"),
            (Script::Status(503), "503"),
            (Script::GoAway, "closed the connection"),
            (Script::Frames(Arc::new(|_: &Hello| vec![vec![0xff; 64]])), "frame"),
            (Script::Frames(Arc::new(|hello: &Hello| vec![welcome(hello, 99)])), "version"),
            (
                Script::FramesThenEnd(Arc::new(|hello: &Hello| {
                    let mut cut = welcome(hello, version::VERSION_1);
                    cut.truncate(cut.len() - 3);
                    vec![cut]
                })),
                "",
            ),
        ] {
            platform.follow(script);
            pair.wait_status(&format!("\"{words}\" in the status"), SOON, |row| says(row, words))?;
        }
        // Commits go on, and a stop needs no platform.
        pair.sql("INSERT INTO t VALUES (-1); SELECT scry_backfill.stop('default')")?;
        scry_testkit::wait::until_true("the slot to be dropped", SOON, || {
            Ok(pair.sql("SELECT count(*) FROM pg_replication_slots")? == "0")
        })?;
        pair.assert_source_unharmed()
    });
}

#[test]
fn a_silent_platform_is_told_and_left() {
    scenario("silent_platform", |lab| {
        let (pair, _platform) = source_of(lab, Script::Silence)?;
        pair.start_job("t")?;
        pair.wait_status("the silence in the status", Duration::from_secs(60), |row| {
            says(row, "answer") || says(row, "within") || says(row, "timed out")
        })?;
        pair.assert_source_unharmed()
    });
}
