//! What a job does next, decided from what the job, the slot and the shadow say.
//!
//! Pure: the table of DESIGN "modes" and of delivery-contract rules 1 to 5 as
//! one function, with its tests.

use scry_wire::message::{CopyState, Welcome};

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

/// Decides. `mode`, `state` and `generation` are the job's row.
pub fn next(mode: &str, state: &str, generation: u64, slot: Option<SlotInfo>, welcome: &Welcome) -> Next {
    let shadow_is_ours = welcome.generation == generation;
    let shadow_complete = shadow_is_ours && welcome.copy_state == CopyState::Copied;
    let shadow_begun = shadow_is_ours && welcome.copy_state == CopyState::Copying;
    if mode == "snapshot" {
        if shadow_begun {
            return Next::StartOver("the copy was interrupted, and its snapshot is gone".to_owned());
        }
        return if state == "finished" || shadow_complete {
            Next::Finished
        } else {
            Next::Copy { slot_exists: false }
        };
    }
    let was_complete = state == "streaming";
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
            if welcome.applied_lsn < slot.confirmed_flush_lsn {
                return Next::StartOver(format!(
                    "the shadow stands at {}, before the position {} that it had confirmed",
                    welcome.applied_lsn, slot.confirmed_flush_lsn
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

    fn slot(confirmed: u64) -> Option<SlotInfo> {
        Some(SlotInfo { restart_lsn: Lsn(1), confirmed_flush_lsn: Lsn(confirmed), invalidated: false })
    }

    #[test]
    fn copies_first_and_then_follows() {
        let fresh = welcome(0, CopyState::None, 0);
        assert_eq!(next("hybrid", "new", 7, None, &fresh), Next::Copy { slot_exists: false });
        let copied = welcome(7, CopyState::Copied, 50);
        assert_eq!(next("hybrid", "streaming", 7, slot(40), &copied), Next::Follow);
        // The leader ended before it could note that the copy is complete.
        assert_eq!(next("hybrid", "copying", 7, slot(40), &copied), Next::Follow);
    }

    #[test]
    fn goes_on_with_an_interrupted_copy_under_the_same_slot() {
        let copying = welcome(7, CopyState::Copying, 0);
        assert_eq!(next("hybrid", "copying", 7, slot(40), &copying), Next::Copy { slot_exists: true });
    }

    #[test]
    fn starts_over_rather_than_leave_a_gap() {
        let copied = welcome(7, CopyState::Copied, 50);
        for (case, slot, welcome) in [
            ("slot gone", None, copied.clone()),
            ("slot gone in mid-copy", None, welcome(7, CopyState::Copying, 0)),
            ("invalidated", slot(40).map(|s| SlotInfo { invalidated: true, ..s }), copied.clone()),
            ("shadow behind", slot(60), copied),
            ("other history", slot(40), welcome(8, CopyState::Copied, 50)),
            ("empty shadow", slot(40), welcome(0, CopyState::None, 0)),
        ] {
            let got = next("hybrid", "streaming", 7, slot, &welcome);
            assert!(matches!(got, Next::StartOver(_)), "{case}: {got:?}");
        }
    }

    #[test]
    fn finishes_a_snapshot_once() {
        let fresh = welcome(0, CopyState::None, 0);
        assert_eq!(next("snapshot", "new", 7, None, &fresh), Next::Copy { slot_exists: false });
        assert_eq!(next("snapshot", "finished", 7, None, &fresh), Next::Finished);
        let begun = welcome(7, CopyState::Copying, 0);
        assert!(matches!(next("snapshot", "copying", 7, None, &begun), Next::StartOver(_)));
    }
}
