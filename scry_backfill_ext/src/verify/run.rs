//! Compares tables until each has its verdict.
//!
//! ```text
//! all ─► hash ─┬─ equal ─────────────────────────────► equal
//!              └─ else, under another snapshot ─► hash ─┬─ equal ─► equal
//!                                                       └─ else ─► which rows ─► differs
//! ```

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Instant;

use scry_wire::hash::Sums;
use scry_wire::message::{Ask, DiffCounts, Hello, Relation, Tell};

use super::link::{Link, unexpected};
use super::place::Place;
use super::table::{self, Hashed};
use crate::api::refusal::Refusal;
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
    /// Seconds spent on it.
    pub seconds: f64,
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
            remark: String::new(),
            keys: None,
        }
    }

    fn is_final(&self) -> bool {
        matches!(self.verdict, Verdict::Equal | Verdict::Repaired | Verdict::Dropped)
    }
}

/// Compares these tables; an outcome each, in their order.
pub fn compare(hello: &Hello, job: JobRef, relids: &[u32], repair: bool) -> Result<Vec<Outcome>, Refusal> {
    let mut link = Link::open(hello)?;
    let mut outcomes: Vec<Outcome> = relids.iter().map(|relid| Outcome::new(*relid)).collect();
    for attempt in 1..=ATTEMPTS_MAX {
        let mut open: Vec<&mut Outcome> = outcomes.iter_mut().filter(|o| !o.is_final()).collect();
        if attempt > 1 {
            // What differs twice differs.
            open.retain(|o| o.verdict != Verdict::Differs || o.keys.is_none());
        }
        if open.is_empty() {
            break;
        }
        let place = Place::find(&mut link, job, false)?;
        hash_all(&mut link, &mut open)?;
        if attempt > 1 {
            for outcome in open.into_iter().filter(|o| o.verdict == Verdict::Differs) {
                find_rows(&mut link, outcome)?;
            }
        }
        place.leave(&mut link)?;
    }
    let _ = repair;
    Ok(outcomes)
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
                let source = table::sums(&described, filenode);
                let shadow = link.tell()?;
                judge(outcome, source, shadow, filenode)?;
            }
            None => outcome.verdict = Verdict::Dropped,
        }
        outcome.seconds += started.elapsed().as_secs_f64();
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
        (Hashed::Sums(source), Some(shadow)) if source == shadow => Verdict::Equal,
        _ => Verdict::Differs,
    };
    if let Hashed::Sums(sums) = source {
        outcome.source = Some(sums);
    }
    outcome.shadow = shadow;
    Ok(())
}

/// Finds out which rows differ, at the place where the hashes did.
fn find_rows(link: &mut Link, outcome: &mut Outcome) -> Result<(), Refusal> {
    let (Some(source), Some(shadow)) = (&outcome.source, &outcome.shadow) else { return Ok(()) };
    let started = Instant::now();
    let buckets = source.differing(shadow);
    if source.rows_in(&buckets).max(shadow.rows_in(&buckets)) > LISTED_ROWS_MAX {
        outcome.remark = format!("more than {LISTED_ROWS_MAX} rows would have to be compared one by one");
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
                outcome.keys = Some(if listed { keys } else { HashSet::new() });
                break;
            }
            Tell::Failed { reason, .. } => {
                outcome.verdict = Verdict::Unreadable;
                outcome.remark = reason;
                break;
            }
            _ => return Err(unexpected("the rows that differ")),
        }
    }
    outcome.seconds += started.elapsed().as_secs_f64();
    Ok(())
}

/// The differences of a table, for people.
fn words(counts: DiffCounts) -> String {
    let parts: HashMap<_, _> = HashMap::from([
        ("missing on the shadow", counts.missing),
        ("only on the shadow", counts.extra),
        ("with other values", counts.changed),
    ]);
    let mut parts: Vec<String> =
        parts.into_iter().filter(|(_, n)| *n > 0).map(|(what, n)| format!("{n} {what}")).collect();
    parts.sort();
    parts.join(", ")
}

/// Places at which a table is looked at before it is said to differ or change.
const ATTEMPTS_MAX: u32 = 3;
/// Rows that are compared one by one, a table: hashes of them are held by the platform.
const LISTED_ROWS_MAX: u64 = 4_000_000;
