//! What a job does next, decided from what the job, the slot and the shadow say.
//!
//! Pure: the table of DESIGN "modes" and of delivery-contract rules 1 to 5 as
//! one function, with its tests. The simulation of `tests/simulation` compiles
//! this file too, and so runs what the worker runs.

use scry_wire::Lsn;
use scry_wire::message::{CopyState, Welcome};

use crate::pg::slot_info::SlotInfo;

/// What the job's row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts<'a> {
    /// `hybrid`, `snapshot` or `cdc`.
    pub mode: &'a str,
    /// How far the job was.
    pub state: &'a str,
    /// Which full start of the job this is.
    pub generation: u64,
    /// Where the slot began: what the shadow stands at before its first change.
    pub start_lsn: Lsn,
    /// Which snapshot of this generation is the current one.
    pub copy_id: u64,
}

/// The stream worker's next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// A snapshot job that is done.
    Finished,
    /// Slot and shadow fit: go on without copying.
    Follow,
    /// The shadow lacks tables.
    Copy {
        /// The slot is there: the copy takes a snapshot of its own.
        slot_exists: bool,
    },
    /// Slot and shadow do not fit; why, in words.
    StartOver(String),
    /// The shadow follows a newer server than this one; why, in words.
    Refuse(String),
}

/// What the server knows of its own history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// The timeline it writes.
    pub timeline: u32,
    /// Where its WAL ends.
    pub end: Lsn,
    /// Where it left the shadow's timeline (beyond everything if it is on it);
    /// `None` if it never was on it.
    pub left: Option<Lsn>,
}

/// Decides, from the job's row, its slot, the shadow's answer and the server's history.
pub fn next(job: &Facts<'_>, slot: Option<SlotInfo>, welcome: &Welcome, history: History) -> Next {
    if welcome.timeline > history.timeline {
        return Next::Refuse(format!(
            "the shadow follows timeline {}, and this server is on timeline {}",
            welcome.timeline, history.timeline
        ));
    }
    match other_history(job, welcome, history) {
        Some(why) => Next::StartOver(why),
        None => within_history(job, slot, welcome),
    }
}

/// Why positions on the shadow mean something else on this server: it was
/// restored from an older state, or left the shadow's timeline before them.
fn other_history(job: &Facts<'_>, welcome: &Welcome, history: History) -> Option<String> {
    if welcome.generation != job.generation || welcome.copy_state == CopyState::None {
        return None;
    }
    // What its journal holds counts as well.
    let (applied, timeline) = (welcome.flushed_lsn.max(welcome.applied_lsn), welcome.timeline);
    if welcome.copy_id > job.copy_id {
        return Some(
            "the shadow has a copy that this server does not know of: the server was restored from an \
                     older state"
                .to_owned(),
        );
    }
    if applied > history.end {
        return Some(format!(
            "the shadow stands at {applied}, and the WAL of this server ends at {}: the server was restored from an \
             older state",
            history.end
        ));
    }
    match history.left {
        _ if timeline == history.timeline => None,
        None => Some(format!(
            "timeline {} does not descend from timeline {timeline}, which the shadow has followed",
            history.timeline
        )),
        Some(left) if applied > left => Some(format!(
            "this server left timeline {timeline} at {left}, and the shadow stands at {applied}"
        )),
        Some(_) if welcome.copy_state == CopyState::Copying => {
            Some(format!("the server changed to timeline {} during the copy", history.timeline))
        }
        Some(_) => None,
    }
}

/// The table itself: shadow and server speak of the same history.
fn within_history(job: &Facts<'_>, slot: Option<SlotInfo>, welcome: &Welcome) -> Next {
    let shadow_is_ours = welcome.generation == job.generation;
    let shadow_complete = shadow_is_ours && welcome.copy_state == CopyState::Copied;
    let shadow_begun = shadow_is_ours && welcome.copy_state == CopyState::Copying;
    if job.mode == "snapshot" {
        if shadow_begun {
            return Next::StartOver("the copy was interrupted, and its snapshot is gone".to_owned());
        }
        return if job.state == "finished" || shadow_complete {
            Next::Finished
        } else {
            Next::Copy { slot_exists: false }
        };
    }
    let was_complete = job.state == "streaming";
    // What the platform holds, on the shadow or in its journal. A shadow that
    // has just been copied stands where the slot began.
    let held = welcome.flushed_lsn.max(job.start_lsn);
    match slot {
        // Tables that are complete would miss what came after that slot.
        None if was_complete || shadow_complete || shadow_begun => {
            Next::StartOver("the replication slot is gone: changes since then are unknown".to_owned())
        }
        None => Next::Copy { slot_exists: false },
        Some(slot) if slot.invalidated => Next::StartOver(
            "the replication slot was invalidated: the server has removed WAL that it needs".to_owned(),
        ),
        // Where the slot stands before the shadow, it is another one of the same name, or the
        // shadow is. In mid-copy too: its whole tables lack what lies between.
        Some(slot)
            if (shadow_complete || (shadow_begun && job.start_lsn.is_valid()))
                && held < slot.confirmed_flush_lsn =>
        {
            Next::StartOver(format!(
                "the shadow stands at {held}, before the position {} that it had confirmed",
                slot.confirmed_flush_lsn
            ))
        }
        Some(_) if shadow_complete => Next::Follow,
        Some(_) if was_complete => Next::StartOver(
            "the shadow does not hold what it had confirmed: its history is another one".to_owned(),
        ),
        Some(_) => Next::Copy { slot_exists: true },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn welcome(generation: u64, copy_state: CopyState, applied: u64) -> Welcome {
        Welcome {
            version: 1,
            applied_lsn: Lsn(applied),
            flushed_lsn: Lsn(applied),
            copy_state,
            generation,
            timeline: 2,
            copy_id: 1,
            takes_stored: false,
            shadow: String::new(),
            software: String::new(),
        }
    }

    fn job<'a>(mode: &'a str, state: &'a str) -> Facts<'a> {
        Facts { mode, state, generation: 7, start_lsn: Lsn(30), copy_id: 1 }
    }

    /// The timeline of the shadow, and no end in sight.
    const SAME: History = History { timeline: 2, end: Lsn(1000), left: Some(Lsn(u64::MAX)) };

    fn next(job: &Facts<'_>, slot: Option<SlotInfo>, welcome: &Welcome) -> Next {
        super::next(job, slot, welcome, SAME)
    }

    fn slot(confirmed: u64) -> Option<SlotInfo> {
        Some(SlotInfo { restart_lsn: Lsn(1), confirmed_flush_lsn: Lsn(confirmed), invalidated: false })
    }

    #[test]
    fn copies_first_and_then_follows() {
        let fresh = welcome(0, CopyState::None, 0);
        assert_eq!(next(&job("hybrid", "new"), None, &fresh), Next::Copy { slot_exists: false });
        let copied = welcome(7, CopyState::Copied, 50);
        assert_eq!(next(&job("hybrid", "streaming"), slot(40), &copied), Next::Follow);
        let unmoved = welcome(7, CopyState::Copied, 0);
        assert_eq!(next(&job("hybrid", "streaming"), slot(30), &unmoved), Next::Follow);
        // The leader ended before it could note that the copy is complete.
        assert_eq!(next(&job("hybrid", "copying"), slot(40), &copied), Next::Follow);
    }

    #[test]
    fn follows_where_the_journal_holds_what_the_shadow_lacks() {
        let journaled = Welcome { flushed_lsn: Lsn(60), ..welcome(7, CopyState::Copied, 50) };
        assert_eq!(next(&job("hybrid", "streaming"), slot(60), &journaled), Next::Follow);
        let lost = Welcome { flushed_lsn: Lsn(50), ..journaled };
        assert!(matches!(next(&job("hybrid", "streaming"), slot(60), &lost), Next::StartOver(_)));
    }

    #[test]
    fn goes_on_with_an_interrupted_copy_under_the_same_slot() {
        let copying = welcome(7, CopyState::Copying, 0);
        assert_eq!(next(&job("hybrid", "copying"), slot(30), &copying), Next::Copy { slot_exists: true });
        // The worker ended before it could note where its slot began.
        let unnoted = Facts { start_lsn: Lsn::INVALID, ..job("hybrid", "copying") };
        assert_eq!(next(&unnoted, slot(30), &copying), Next::Copy { slot_exists: true });
    }

    #[test]
    fn starts_over_rather_than_leave_a_gap() {
        let copied = welcome(7, CopyState::Copied, 50);
        for (case, slot, welcome) in [
            ("slot gone", None, copied.clone()),
            ("slot gone in mid-copy", None, welcome(7, CopyState::Copying, 0)),
            ("invalidated", slot(40).map(|s| SlotInfo { invalidated: true, ..s }), copied.clone()),
            ("shadow behind", slot(60), copied),
            ("another slot of that name in mid-copy", slot(60), welcome(7, CopyState::Copying, 0)),
            ("shadow as it was after the copy", slot(60), welcome(7, CopyState::Copied, 0)),
            ("other history", slot(40), welcome(8, CopyState::Copied, 50)),
            ("empty shadow", slot(40), welcome(0, CopyState::None, 0)),
        ] {
            let got = next(&job("hybrid", "streaming"), slot, &welcome);
            assert!(matches!(got, Next::StartOver(_)), "{case}: {got:?}");
        }
    }

    #[test]
    fn finishes_a_snapshot_once() {
        let fresh = welcome(0, CopyState::None, 0);
        assert_eq!(next(&job("snapshot", "new"), None, &fresh), Next::Copy { slot_exists: false });
        assert_eq!(next(&job("snapshot", "finished"), None, &fresh), Next::Finished);
        let begun = welcome(7, CopyState::Copying, 0);
        assert!(matches!(next(&job("snapshot", "copying"), None, &begun), Next::StartOver(_)));
    }

    #[test]
    fn never_takes_a_position_of_another_history() {
        let (copied, copying) = (welcome(7, CopyState::Copied, 50), welcome(7, CopyState::Copying, 0));
        let journaled = Welcome { flushed_lsn: Lsn(70), ..copied.clone() };
        let job = job("hybrid", "streaming");
        let decide = |welcome: &Welcome, history| super::next(&job, slot(40), welcome, history);
        let promoted = |left| History { timeline: 3, left, ..SAME };
        for (case, welcome, history) in [
            ("restored, WAL ends before", &copied, History { end: Lsn(49), ..SAME }),
            ("restored, an older round", &Welcome { copy_id: 2, ..copied.clone() }, SAME),
            ("restored in mid-copy", &Welcome { copy_id: 2, ..copying.clone() }, SAME),
            ("promoted behind the shadow", &copied, promoted(Some(Lsn(49)))),
            ("promoted behind the journal", &journaled, promoted(Some(Lsn(69)))),
            ("restored, WAL ends before the journal", &journaled, History { end: Lsn(69), ..SAME }),
            ("another branch", &copied, promoted(None)),
            ("promoted in mid-copy", &copying, promoted(Some(Lsn(60)))),
        ] {
            let got = decide(welcome, history);
            assert!(matches!(got, Next::StartOver(_)), "{case}: {got:?}");
        }
        // A failover slot: all that the shadow has is on both timelines.
        assert_eq!(decide(&copied, promoted(Some(Lsn(50)))), Next::Follow);
        // The old primary must not take the shadow from the new one.
        let old = History { timeline: 1, left: None, ..SAME };
        assert!(matches!(decide(&copied, old), Next::Refuse(_)));
        // Nothing is known: nothing can be wrong.
        let fresh = Welcome { copy_id: 9, ..welcome(0, CopyState::None, 0) };
        assert!(
            matches!(decide(&fresh, promoted(None)), Next::StartOver(why) if why.contains("history is another"))
        );
    }
}
