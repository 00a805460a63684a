//! The order of changes on one stream connection: a pure state machine.
//!
//! ```text
//!             begin (new)                    begin (before floor)
//!   Between ───────────────► Applying      Between ─────────► Skipping
//!      ▲ ◄────── commit ────────┘             ▲ ◄── commit ──────┘
//! ```
//!
//! `floor` is the shadow's position when the connection began: transactions
//! that end at or before it are there already and are skipped. `seen` is the
//! highest position that this connection has called complete, by a commit or a
//! keepalive: a transaction that begins to commit below it would be lost if it
//! were taken for an old one, so it is a violation instead. Nothing here
//! survives the connection: the shadow's position does.

use crate::{Error, Result};
use scry_wire::Lsn;
use scry_wire::message::change::{Begin, Commit};

/// Where the stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between transactions. Set by start and commit; left by begin.
    Between,
    /// In a transaction that the shadow does not have yet.
    Applying { commit_lsn: Lsn },
    /// In a transaction that the shadow has.
    Skipping { commit_lsn: Lsn },
}

/// What to do with a change of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Apply it.
    Apply,
    /// The shadow has it.
    Skip,
}

/// The order of one connection's changes.
#[derive(Debug)]
pub struct Order {
    state: State,
    floor: Lsn,
    seen: Lsn,
}

impl Order {
    /// A connection that goes on from `applied`, the shadow's position.
    #[must_use]
    pub fn new(applied: Lsn) -> Self {
        Order { state: State::Between, floor: applied, seen: Lsn::INVALID }
    }

    /// Whether a transaction is open.
    #[must_use]
    pub fn in_transaction(&self) -> bool {
        self.state != State::Between
    }

    /// A transaction begins.
    pub fn begin(&mut self, begin: Begin) -> Result<Turn> {
        let commit_lsn = begin.commit_lsn;
        if self.in_transaction() {
            return Err(violation(format!("transaction at {commit_lsn} begins inside another")));
        }
        if !commit_lsn.is_valid() || commit_lsn < self.seen {
            return Err(violation(format!(
                "transaction at {commit_lsn} comes after {} was called complete",
                self.seen
            )));
        }
        // The floor is the end of a record, so a commit record that begins
        // before it also ends at or before it.
        let turn = if commit_lsn < self.floor { Turn::Skip } else { Turn::Apply };
        self.state = match turn {
            Turn::Apply => State::Applying { commit_lsn },
            Turn::Skip => State::Skipping { commit_lsn },
        };
        Ok(turn)
    }

    /// A change inside a transaction.
    pub fn change(&self) -> Result<Turn> {
        match self.state {
            State::Between => Err(violation("a change stands outside of a transaction")),
            State::Applying { .. } => Ok(Turn::Apply),
            State::Skipping { .. } => Ok(Turn::Skip),
        }
    }

    /// The transaction ends; says whether it was one to apply.
    pub fn commit(&mut self, commit: Commit) -> Result<Turn> {
        let (begun, turn) = match self.state {
            State::Between => return Err(violation("a commit stands outside of a transaction")),
            State::Applying { commit_lsn } => (commit_lsn, Turn::Apply),
            State::Skipping { commit_lsn } => (commit_lsn, Turn::Skip),
        };
        if commit.commit_lsn != begun {
            return Err(violation(format!(
                "transaction at {begun} is committed as the one at {}",
                commit.commit_lsn
            )));
        }
        if commit.end_lsn <= commit.commit_lsn {
            return Err(violation(format!("transaction at {begun} ends before its commit")));
        }
        if turn == Turn::Skip && commit.end_lsn > self.floor {
            return Err(violation(format!(
                "transaction at {begun} reaches over the shadow's position {}",
                self.floor
            )));
        }
        self.seen.advance(commit.end_lsn);
        self.state = State::Between;
        Ok(turn)
    }

    /// Everything before `lsn` has been sent. Returns the position that the
    /// shadow may take, if this is one: inside a transaction it is not.
    pub fn keepalive(&mut self, lsn: Lsn) -> Option<Lsn> {
        if self.in_transaction() {
            return None;
        }
        self.seen.advance(lsn);
        (lsn > self.floor).then_some(lsn)
    }
}

fn violation(message: impl Into<String>) -> Error {
    Error::Protocol(format!("changes are out of order: {}", message.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn begin(at: u64) -> Begin {
        Begin { xid: at, commit_lsn: Lsn(at), commit_time: 0 }
    }

    fn commit(at: u64, end: u64) -> Commit {
        Commit { commit_lsn: Lsn(at), end_lsn: Lsn(end) }
    }

    #[test]
    fn skips_what_the_shadow_has_and_applies_the_rest() {
        let mut order = Order::new(Lsn(100));
        assert_eq!(order.begin(begin(80)).unwrap(), Turn::Skip);
        assert_eq!(order.change().unwrap(), Turn::Skip);
        assert_eq!(order.commit(commit(80, 100)).unwrap(), Turn::Skip);
        assert_eq!(order.begin(begin(100)).unwrap(), Turn::Apply);
        assert_eq!(order.commit(commit(100, 120)).unwrap(), Turn::Apply);
    }

    #[test]
    fn rejects_every_wrong_order() {
        let mut order = Order::new(Lsn(0));
        assert!(order.change().is_err());
        assert!(order.commit(commit(1, 2)).is_err());
        assert!(order.begin(begin(0)).is_err());
        order.begin(begin(10)).unwrap();
        assert!(order.begin(begin(20)).is_err());
        assert!(order.commit(commit(11, 20)).is_err());
        assert!(order.commit(commit(10, 10)).is_err());
        order.commit(commit(10, 20)).unwrap();
        assert!(order.begin(begin(10)).is_err(), "replayed");
        assert!(order.begin(begin(19)).is_err(), "reordered");
    }

    #[test]
    fn rejects_a_transaction_below_a_keepalive() {
        let mut order = Order::new(Lsn(0));
        assert_eq!(order.keepalive(Lsn(50)), Some(Lsn(50)));
        assert!(order.begin(begin(40)).is_err());
        assert!(order.begin(begin(50)).is_ok());
        assert_eq!(order.keepalive(Lsn(60)), None, "not inside a transaction");
    }

    #[test]
    fn rejects_a_transaction_that_reaches_over_the_position() {
        let mut order = Order::new(Lsn(100));
        order.begin(begin(90)).unwrap();
        assert!(order.commit(commit(90, 110)).is_err());
    }

    proptest! {
        /// Whatever is replayed from whatever position: every transaction of
        /// the history is applied exactly once, in order.
        #[test]
        fn effect_exactly_once(
            steps in proptest::collection::vec(1u64..50, 1..40),
            cuts in proptest::collection::vec(0usize..40, 0..6),
        ) {
            let mut history = Vec::new();
            let mut at = 1;
            for step in steps {
                history.push((at, at + step));
                at += step + 1;
            }
            let mut applied = Vec::new();
            let mut position = Lsn(0);
            for cut in cuts.iter().copied().chain([history.len()]) {
                let mut order = Order::new(position);
                for (start, end) in history.iter().take(cut) {
                    if order.begin(begin(*start)).unwrap() == Turn::Apply {
                        applied.push(*start);
                    }
                    order.commit(commit(*start, *end)).unwrap();
                    position.advance(Lsn(*end));
                }
            }
            let all: Vec<u64> = history.iter().map(|(start, _)| *start).collect();
            prop_assert_eq!(applied, all);
        }
    }
}
