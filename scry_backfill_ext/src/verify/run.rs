//! Compares tables until each has its verdict.
//!
//! ```text
//! all ─► hash ─┬─ equal ─────────────────────────────► equal
//!              └─ else, under another snapshot ─► hash ─┬─ equal ─► equal
//!                                                       └─ else ─► which rows ─► differs
//! repair: differs ─► the stream stands still ─► the source's rows of those keys ─► hash again
//! ```
//!
//! What is mended is never taken for equal: it is hashed again at a new place,
//! and mended again if it must be, a bounded number of times.

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

use scry_wire::hash::Sums;
use scry_wire::message::{Ask, DiffCounts, Hello, Relation, Tell};

use super::link::{Link, unexpected};
use super::place::Place;
use super::ranges;
use super::table::{self, Hashed};
use crate::api::refusal::Refusal;
use crate::catalog::Extent;
use crate::pg::scan::HashScan;
use crate::worker::shmem::JobRef;

/// What is said of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Both sides hold the same rows.
    Equal,
    /// They did not, and do now.
    Repaired,
    /// They do not.
    Differs,
    /// The table was rewritten each time it was looked at.
    Changing,
    /// The shadow's table could not be read.
    Unreadable,
    /// The table has been dropped on the source.
    Dropped,
}

impl Verdict {
    /// As it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Equal => "equal",
            Verdict::Repaired => "repaired",
            Verdict::Differs => "differs",
            Verdict::Changing => "changing",
            Verdict::Unreadable => "unreadable",
            Verdict::Dropped => "dropped",
        }
    }
}

/// What is known of a table.
#[derive(Debug)]
pub struct Outcome {
    /// The table.
    pub relid: u32,
    /// What is said of it.
    pub verdict: Verdict,
    /// The source's content.
    pub source: Option<Sums>,
    /// The shadow's content.
    pub shadow: Option<Sums>,
    /// How many rows differ, if that is known.
    pub differing: Option<DiffCounts>,
    /// Rows of the source that were written to the shadow, and rows removed there.
    pub repaired: u64,
    /// Seconds spent on it, on both sides at the same time.
    pub seconds: f64,
    /// Of them, seconds that the source's rows took to be hashed.
    pub source_seconds: f64,
    /// More, in words.
    pub remark: String,
    keys: Option<HashSet<u128>>,
}

impl Outcome {
    fn new(relid: u32) -> Outcome {
        Outcome {
            relid,
            verdict: Verdict::Changing,
            source: None,
            shadow: None,
            differing: None,
            repaired: 0,
            seconds: 0.0,
            source_seconds: 0.0,
            remark: String::new(),
            keys: None,
        }
    }

    /// Nothing more is to be found out.
    fn is_judged(&self) -> bool {
        match self.verdict {
            Verdict::Equal | Verdict::Repaired | Verdict::Dropped => true,
            Verdict::Differs => self.keys.is_some(),
            Verdict::Changing | Verdict::Unreadable => false,
        }
    }

    /// The rows that differ are known, and not too many.
    fn is_mendable(&self) -> bool {
        self.verdict == Verdict::Differs && self.keys.as_ref().is_some_and(|keys| !keys.is_empty())
    }
}

/// What is known of the schema.
#[derive(Debug)]
pub struct Schema {
    /// Whether both sides have the same.
    pub verdict: Verdict,
    /// Seconds spent on it.
    pub seconds: f64,
    /// What differs.
    pub remark: String,
}

/// Compares the schema of the job's tables and of what they need, or of the whole database.
pub fn compare_schema(hello: &Hello, job: JobRef, extent: Extent<'_>) -> Result<Schema, Refusal> {
    let started = Instant::now();
    let mut link = Link::open(hello)?;
    let mut schema = Schema { verdict: Verdict::Changing, seconds: 0.0, remark: String::new() };
    // What was changed on one side while the other was read is equal the next time.
    for _ in 0..ATTEMPTS_MAX {
        let place = Place::find(&mut link, job, false)?;
        table::send_catalog(&mut link, extent)?;
        let told = link.tell()?;
        place.leave(&mut link)?;
        (schema.verdict, schema.remark) = match told {
            Tell::Schema { objects, differences: 0, .. } => (Verdict::Equal, format!("{objects} objects")),
            Tell::Schema { differences, lines, .. } => {
                let more = differences.saturating_sub(lines.len() as u64);
                let more = if more > 0 { format!("; and {more} more") } else { String::new() };
                (Verdict::Differs, lines.join("; ") + &more)
            }
            Tell::Failed { reason, .. } => (Verdict::Unreadable, reason),
            _ => return Err(unexpected("what differs in the schema")),
        };
        if schema.verdict == Verdict::Equal {
            break;
        }
    }
    schema.seconds = started.elapsed().as_secs_f64();
    Ok(schema)
}

/// Compares these tables; an outcome each, in their order.
pub fn compare(hello: &Hello, job: JobRef, relids: &[u32], repair: bool) -> Result<Vec<Outcome>, Refusal> {
    let mut link = Link::open(hello)?;
    let mut outcomes: Vec<Outcome> = relids.iter().map(|relid| Outcome::new(*relid)).collect();
    let mut round = 0;
    while look(&mut link, job, &mut outcomes, repair)? && repair && round < REPAIRS_MAX {
        round += 1;
        if !mend(&mut link, job, &mut outcomes)? {
            break;
        }
    }
    Ok(outcomes)
}

/// Looks at the tables that have no verdict yet, until they have. Returns
/// whether any differs in rows that are known.
fn look(link: &mut Link, job: JobRef, outcomes: &mut [Outcome], repair: bool) -> Result<bool, Refusal> {
    for attempt in 1..=ATTEMPTS_MAX {
        let mut open: Vec<&mut Outcome> = outcomes.iter_mut().filter(|o| !o.is_judged()).collect();
        if open.is_empty() {
            break;
        }
        // A table that is emptied all the time is locked first, from here until it is hashed.
        let changing = open.iter().filter(|o| attempt > 1 && o.verdict == Verdict::Changing);
        let locks: Vec<HashScan> =
            changing.take(LOCKED_MAX).filter_map(|o| HashScan::open(o.relid)).collect();
        let place = Place::find(link, job, false)?;
        hash_all(link, &mut open)?;
        if repair {
            settle(link, &open)?;
        }
        drop(locks);
        // What differs twice differs; what was mended is looked at again anyway.
        for outcome in open.into_iter().filter(|o| o.verdict == Verdict::Differs) {
            if attempt > 1 || outcome.repaired > 0 {
                find_rows(link, outcome, true)?;
            }
        }
        place.leave(link)?;
    }
    Ok(outcomes.iter().any(Outcome::is_mendable))
}

/// Makes the rows that the shadow has of a table those of the snapshot in force, in round
/// `copy_id` of a copy. Returns how many they are; `None` if the table is to be copied: it
/// was changed since the snapshot, its rows cannot be read there, or too many differ.
pub fn bring_up(
    link: &mut Link,
    copy_id: u64,
    relid: u32,
    filenode: u32,
) -> Result<Option<BroughtUp>, Refusal> {
    let mut outcome = Outcome::new(relid);
    let mut brought_up = None;
    for mended in [false, true] {
        stand(link, copy_id)?;
        let Some(described) = table::describe(relid) else { break };
        link.ask(&Ask::Table(described.clone()))?;
        let source = table::sums(link, &described, Some(filenode));
        let shadow = link.tell()?;
        judge(&mut outcome, source, shadow, Some(filenode))?;
        if matches!(outcome.verdict, Verdict::Equal | Verdict::Repaired) {
            link.ask(&Ask::Settled { relid })?;
            // Answered when it is written down.
            stand(link, copy_id)?;
            let rows = outcome.source.as_ref().map_or(0, Sums::rows);
            brought_up = Some(BroughtUp { rows, mended: outcome.repaired });
            break;
        }
        if outcome.verdict != Verdict::Differs || mended {
            break;
        }
        find_rows(link, &mut outcome, false)?;
        if !outcome.is_mendable() || !mend_table(link, &mut outcome)? {
            break;
        }
    }
    link.ask(&Ask::Release)?;
    Ok(brought_up)
}

/// A table of a former history that is the source's again.
#[derive(Debug, Clone, Copy)]
pub struct BroughtUp {
    /// Its rows.
    pub rows: u64,
    /// Of them, and of those that are gone, rows that were mended.
    pub mended: u64,
}

/// Has the shadow's transaction opened, in a copy.
fn stand(link: &mut Link, copy_id: u64) -> Result<(), Refusal> {
    link.ask(&Ask::Standing { copy_id })?;
    match link.tell()? {
        Tell::At { exact: true } => Ok(()),
        Tell::At { exact: false } => Err(Refusal::not_ready("another copy is under way on the shadow")),
        _ => Err(unexpected("a position")),
    }
}

/// Mends the rows that are known to differ, while the stream stands still.
/// Returns whether anything was done.
fn mend(link: &mut Link, job: JobRef, outcomes: &mut [Outcome]) -> Result<bool, Refusal> {
    let place = Place::find(link, job, true)?;
    let mut done = false;
    for outcome in outcomes.iter_mut().filter(|o| o.is_mendable()) {
        let started = Instant::now();
        done |= mend_table(link, outcome)?;
        outcome.seconds += started.elapsed().as_secs_f64();
    }
    place.leave(link)?;
    Ok(done)
}

fn mend_table(link: &mut Link, outcome: &mut Outcome) -> Result<bool, Refusal> {
    let (Some(keys), Some(differing)) = (outcome.keys.take(), outcome.differing) else { return Ok(false) };
    let described = table::describe(outcome.relid).zip(table::plain(outcome.relid));
    let filenode = table::filenodes(&[outcome.relid]).get(&outcome.relid).copied();
    let Some((hashed, relation)) = described.filter(|_| table::is_unchanged(outcome.relid, filenode)) else {
        // It was rewritten since: looked at again.
        return Ok(true);
    };
    link.ask(&Ask::Mend { hashed, relation })?;
    table::send_rows(link, outcome.relid, &keys)?;
    match link.tell()? {
        Tell::Mended { relid, .. } if relid == outcome.relid => {
            outcome.repaired += differing.all();
            Ok(true)
        }
        Tell::Failed { relid, reason } if relid == outcome.relid => {
            outcome.remark = format!("{}; could not repair: {reason}", outcome.remark);
            outcome.keys = Some(HashSet::new());
            Ok(false)
        }
        _ => Err(unexpected("that a table is mended")),
    }
}

/// Hashes the tables here while the platform hashes them there, one ahead.
fn hash_all(link: &mut Link, open: &mut [&mut Outcome]) -> Result<(), Refusal> {
    let relids: Vec<u32> = open.iter().map(|o| o.relid).collect();
    let filenodes = table::filenodes(&relids);
    let mut asked: VecDeque<Option<Relation>> = VecDeque::new();
    for place in 0..open.len() {
        while asked.len() < 2 && place + asked.len() < relids.len() {
            let described = relids.get(place + asked.len()).and_then(|relid| table::describe(*relid));
            if let Some(relation) = &described {
                link.ask(&Ask::Table(relation.clone()))?;
            }
            asked.push_back(described);
        }
        let (Some(outcome), Some(described)) = (open.get_mut(place), asked.pop_front()) else { break };
        let started = Instant::now();
        let filenode = filenodes.get(&outcome.relid).copied();
        match described {
            Some(described) => {
                let source = table::sums(link, &described, filenode);
                outcome.source_seconds = started.elapsed().as_secs_f64();
                let shadow = link.tell()?;
                judge(outcome, source, shadow, filenode)?;
            }
            None => outcome.verdict = Verdict::Dropped,
        }
        outcome.seconds += started.elapsed().as_secs_f64();
    }
    Ok(())
}

/// What was refused of tables that are equal is no difference any more: their
/// quarantine ends.
fn settle(link: &mut Link, looked_at: &[&mut Outcome]) -> Result<(), Refusal> {
    for outcome in looked_at.iter().filter(|o| matches!(o.verdict, Verdict::Equal | Verdict::Repaired)) {
        link.ask(&Ask::Settled { relid: outcome.relid })?;
    }
    Ok(())
}

fn judge(outcome: &mut Outcome, source: Hashed, shadow: Tell, filenode: Option<u32>) -> Result<(), Refusal> {
    (outcome.source, outcome.shadow) = (None, None);
    outcome.remark.clear();
    let shadow = match shadow {
        Tell::Sums { relid, sums } if relid == outcome.relid => Some(sums),
        Tell::Failed { relid, reason } if relid == outcome.relid => {
            outcome.remark = reason;
            None
        }
        _ => return Err(unexpected("the hash of a table")),
    };
    outcome.verdict = match (&source, &shadow) {
        (Hashed::Gone, _) => Verdict::Dropped,
        // The shadow's rows may be gone as well when the table was emptied meanwhile.
        _ if !table::is_unchanged(outcome.relid, filenode) => Verdict::Changing,
        (Hashed::Rewritten, _) => Verdict::Changing,
        (_, None) => Verdict::Unreadable,
        (Hashed::Sums(source), Some(shadow)) if source == shadow && outcome.repaired > 0 => Verdict::Repaired,
        (Hashed::Sums(source), Some(shadow)) if source == shadow => Verdict::Equal,
        _ => Verdict::Differs,
    };
    if let (Verdict::Repaired, Some(counts)) = (outcome.verdict, outcome.differing) {
        outcome.remark = words(counts);
    }
    if let Hashed::Sums(sums) = source {
        outcome.source = Some(sums);
    }
    outcome.shadow = shadow;
    Ok(())
}

/// Finds out which rows differ, at the place where the hashes did.
fn find_rows(link: &mut Link, outcome: &mut Outcome, say_where: bool) -> Result<(), Refusal> {
    let (Some(source), Some(shadow)) = (&outcome.source, &outcome.shadow) else { return Ok(()) };
    let started = Instant::now();
    let buckets = source.differing(shadow);
    if source.rows_in(&buckets).max(shadow.rows_in(&buckets)) > LISTED_ROWS_MAX {
        outcome.remark = format!("too many rows differ to compare them one by one; {RESYNC}");
        outcome.keys = Some(HashSet::new());
        return Ok(());
    }
    let Some(relation) = table::describe(outcome.relid) else { return Ok(()) };
    link.ask(&Ask::Rows { relation: relation.clone(), buckets: buckets.clone() })?;
    table::send_hashes(link, &relation, &buckets)?;
    let mut keys = HashSet::new();
    loop {
        match link.tell()? {
            Tell::Keys(part) => keys.extend(part),
            Tell::Diff { relid, counts, listed } if relid == outcome.relid => {
                outcome.differing = Some(counts);
                outcome.remark = words(counts);
                let few = listed && keys.len() <= MENDED_ROWS_MAX;
                if !few {
                    outcome.remark =
                        format!("{}; too many to repair them one by one; {RESYNC}", outcome.remark);
                }
                if few && say_where {
                    outcome.remark += &where_they_lie(link, &relation, &keys, counts)?;
                }
                outcome.keys = Some(if few { keys } else { HashSet::new() });
                break;
            }
            Tell::Failed { reason, .. } => {
                outcome.remark = reason;
                outcome.keys = Some(HashSet::new());
                break;
            }
            _ => return Err(unexpected("the rows that differ")),
        }
    }
    outcome.seconds += started.elapsed().as_secs_f64();
    Ok(())
}

/// Between which keys the differing rows lie, for people; empty where they have no key.
fn where_they_lie(
    link: &mut Link,
    relation: &Relation,
    keys: &HashSet<u128>,
    counts: DiffCounts,
) -> Result<String, Refusal> {
    if !ranges::has_order(relation) {
        return Ok(String::new());
    }
    let mut text = String::new();
    let here = ranges::of_rows(relation, keys);
    if !here.is_empty() {
        text = format!("; keys {}", scry_wire::ranges::list(&here));
    }
    if counts.extra > 0 {
        link.ask(&Ask::Ranges(relation.clone()))?;
        match link.tell()? {
            Tell::Ranges { lines, .. } if !lines.is_empty() => {
                text += &format!("; keys only on the shadow {}", scry_wire::ranges::list(&lines));
            }
            Tell::Ranges { .. } | Tell::Failed { .. } => {}
            _ => return Err(unexpected("ranges of keys")),
        }
    }
    Ok(text)
}

/// The differences of a table, for people.
fn words(counts: DiffCounts) -> String {
    let parts = [
        (counts.missing, "missing on the shadow"),
        (counts.extra, "only on the shadow"),
        (counts.changed, "with other values"),
    ];
    let parts: Vec<String> =
        parts.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    parts.join(", ")
}

/// Places at which a table is looked at before it is said to differ or change.
const ATTEMPTS_MAX: u32 = 3;
/// Tables that are locked at a time while both sides find their place.
const LOCKED_MAX: usize = 8;
/// How often the rows of a table are mended before it is said to differ.
const REPAIRS_MAX: u32 = 3;
/// Rows that are mended one by one, a table.
const MENDED_ROWS_MAX: usize = 100_000;
const RESYNC: &str = "copy the table again with scry_backfill.resync()";
/// Rows that are compared one by one, a table: hashes of them are held by the platform.
const LISTED_ROWS_MAX: u64 = 4_000_000;
