//! The delivery protocol in a simulated world: seeded, without PostgreSQL, sockets or a clock.
//!
//! ```text
//!  source ──frames──► sender ──pieces──► platform ──transactions──► shadow
//!  state::next         Session             Course, Order, Chunk      a map of rows, the origin, the ledger
//!  Progress, SeenBy    Scanner             frames, Assembler
//!     ▲ world: time, latencies, cuts, half-open connections, flipped bits, crashes of every part at every step
//! ```
//!
//! What decides is the programs' own code: the sender's `session` and `scan`, the platform's `course`,
//! `order` and `chunk`, the format, and the extension's `confirm` and `state`, whose files are compiled
//! here too (the extension itself cannot be linked without a server). What is modelled is what these
//! pure parts are surrounded by: processes, connections, WAL, and a shadow that commits or does not.
//!
//! Invariants, looked at at every commit of the shadow and every move of the slot: each row of each
//! source transaction is there exactly once when its transaction is, and never before; the position never
//! goes back; the slot is never confirmed past what is durable; no job starts over without a reason; and when
//! the faults end, all of it arrives.
//!
//! A failing seed is printed with the end of its story; `SCRY_SEED=N` runs that one alone. Each rule can be
//! broken on purpose ([`world::Rule`]): a test for each shows that the simulation sees it.

#[path = "../../scry_backfill_ext/src/confirm.rs"]
#[allow(dead_code, reason = "the file is the extension's; not all of it is needed here")]
mod confirm;
#[path = "../../scry_backfill_ext/src/pg/slot_info.rs"]
mod slot_info;
#[path = "../../scry_backfill_ext/src/worker/state.rs"]
mod state;
/// As the extension's files name it.
mod pg {
    pub(crate) use crate::slot_info;
}

mod platform;
mod sender;
mod shadow;
mod source;
mod world;

use scry_testkit::Rng;
use std::time::Instant;
use world::{Rule, World};

/// Schedules in `make test`; `SCRY_SCHEDULES` sets another number.
const SCHEDULES: u64 = 5000;

/// In how many schedules a broken rule must have been seen.
const SEEN_WITHIN: u64 = 400;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.trim().parse().ok()
}

/// Runs a schedule again, with its story, and fails with it.
fn tell(seed: u64, rule: Rule) -> ! {
    let mut world = World::new(seed, rule, true);
    let outcome = world.run();
    let story = world.story();
    panic!(
        "{outcome:?}\nthe end of its story:\n{story}\nSCRY_SEED={seed} cargo test --profile e2e -p scry_e2e \
         --test simulation replays it"
    );
}

#[test]
fn every_schedule_keeps_the_promise() {
    if let Some(seed) = setting("SCRY_SEED") {
        let mut world = World::new(seed, Rule::Kept, true);
        let outcome = world.run();
        println!("{}", world.story());
        assert!(outcome.is_ok(), "seed {seed}: {outcome:?}");
        return;
    }
    let count = setting("SCRY_SCHEDULES").unwrap_or(SCHEDULES);
    let first = Rng::seed_from_env();
    let start = Instant::now();
    let mut figures = world::Figures::default();
    for seed in first..first + count {
        let mut world = World::new(seed, Rule::Kept, false);
        if world.run().is_err() {
            tell(seed, Rule::Kept);
        }
        figures.add(&world.figures);
    }
    let per_minute = count as f64 * 60.0 / start.elapsed().as_secs_f64().max(0.001);
    println!("seeds {first}..{}: {count} schedules, {per_minute:.0} a minute; {figures}", first + count);
    assert!(figures.saw_everything(), "the schedules do not reach everything: {figures}");
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 1..20 {
        let run = || {
            let mut world = World::new(seed, Rule::Kept, true);
            let outcome = world.run();
            (outcome, world.story_whole())
        };
        assert!(run() == run(), "seed {seed} has two stories");
    }
}

/// Breaks a rule and requires that it is seen, and that the finding says `words`.
fn is_seen(rule: Rule, words: &str) {
    for seed in 1..=SEEN_WITHIN {
        // It may also be seen in another way first: that nothing arrives any more, say.
        if let Err(found) = World::new(seed, rule, false).run()
            && found.contains(words)
        {
            println!("{rule:?}: seen at seed {seed}: {found}");
            return;
        }
    }
    panic!("{rule:?}: not seen in {SEEN_WITHIN} schedules");
}

macro_rules! broken_rules {
    ($($name:ident: $rule:ident, $words:literal;)*) => {
        $(#[test]
        fn $name() {
            is_seen(Rule::$rule, $words);
        })*
    };
}

broken_rules! {
    sees_a_confirmation_before_the_commit: ConfirmBeforeCommit, "durable";
    sees_a_commit_that_is_not_flushed: CommitNotFlushed, "durable";
    sees_a_position_apart_from_its_rows: PositionApart, "times";
    sees_transactions_that_are_not_skipped: NothingSkipped, "times";
    sees_a_chunk_apart_from_its_line: LedgerApart, "times";
    sees_a_slot_confirmed_by_what_was_sent: ConfirmSent, "durable";
    sees_a_silent_gap: SilentGap, "times";
    sees_a_snapshot_whose_changes_come_again: SnapshotForgotten, "times";
    sees_a_transaction_cut_in_two: HalfTransactions, "times";
}
