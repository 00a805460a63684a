//! What a job does next, decided from what the job, the slot and the shadow say.
//!
//! Pure: the table of DESIGN "modes" and of delivery-contract rules 1 to 5 as
//! one function, with its tests.

use scry_wire::message::{CopyState, Welcome};

use super::job::Job;
use crate::pg::decoding::SlotInfo;

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
}

/// Decides, from the job's row, its slot, and the shadow's answer.
pub fn next(job: &Job, slot: Option<SlotInfo>, welcome: &Welcome) -> Next {
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
    // A shadow that has just been copied stands where the slot began.
    let applied = welcome.applied_lsn.max(job.start_lsn);
    match slot {
        // Tables that are complete would miss what came after that slot.
        None if was_complete || shadow_complete || shadow_begun => {
            Next::StartOver("the replication slot is gone: changes since then are unknown".to_owned())
        }
        None => Next::Copy { slot_exists: false },
        Some(slot) if slot.invalidated => Next::StartOver(
            "the replication slot was invalidated: the server has removed WAL that it needs".to_owned(),
        ),
        Some(slot) if shadow_complete => {
            if applied < slot.confirmed_flush_lsn {
                return Next::StartOver(format!(
                    "the shadow stands at {applied}, before the position {} that it had confirmed",
                    slot.confirmed_flush_lsn
                ));
            }
            Next::Follow
        }
        Some(_) if was_complete => Next::StartOver(
            "the shadow does not hold what it had confirmed: its history is another one".to_owned(),
        ),
        Some(_) => Next::Copy { slot_exists: true },
    }
}

#[cfg(test)]
mod tests {
    use scry_wire::Lsn;

    use crate::decode::schema::Scope;

    use super::*;

    fn welcome(generation: u64, copy_state: CopyState, applied: u64) -> Welcome {
        Welcome {
            version: 1,
            applied_lsn: Lsn(applied),
            copy_state,
            generation,
            shadow: String::new(),
            software: String::new(),
        }
    }

    fn job(mode: &str, state: &str) -> Job {
        Job {
            name: "default".to_owned(),
            mode: mode.to_owned(),
            state: state.to_owned(),
            generation: 7,
            copy_id: 1,
            slot_name: "scry_1_default".to_owned(),
            start_lsn: Lsn(30),
            scope: Scope::default(),
            catalog_snapshot: None,
            inserts_only: false,
        }
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
    fn goes_on_with_an_interrupted_copy_under_the_same_slot() {
        let copying = welcome(7, CopyState::Copying, 0);
        assert_eq!(next(&job("hybrid", "copying"), slot(40), &copying), Next::Copy { slot_exists: true });
    }

    #[test]
    fn starts_over_rather_than_leave_a_gap() {
        let copied = welcome(7, CopyState::Copied, 50);
        for (case, slot, welcome) in [
            ("slot gone", None, copied.clone()),
            ("slot gone in mid-copy", None, welcome(7, CopyState::Copying, 0)),
            ("invalidated", slot(40).map(|s| SlotInfo { invalidated: true, ..s }), copied.clone()),
            ("shadow behind", slot(60), copied),
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
}
