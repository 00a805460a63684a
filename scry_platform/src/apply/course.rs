//! How far one stream is: a pure state machine around [`Order`].
//!
//! ```text
//! begin, change, commit, keepalive ─► order ─► reached
//!     step (what a commit of the shadow would move) ─► COMMIT ─► durable ─► Confirm
//! ```
//!
//! `applied` is the position that the shadow has committed, `reached` the one
//! that the next commit moves it to. A commit is durable when it returns, or,
//! where a journal has its changes, before anybody is told of it (`keep`). Invariants: both only move forward; a
//! step is given out between transactions only, so the shadow commits whole
//! ones; there is no other way to a confirmation than [`Course::durable`], which
//! wants the step that the shadow has committed. What it does not do: no I/O, no
//! clock. The simulation of `tests/simulation` runs it as it stands here.

use super::order::{Order, Turn};
use crate::{Error, Result};
use scry_wire::Lsn;
use scry_wire::message::Confirm;
use scry_wire::message::change::{Begin, Commit};

/// A move of the position, in one transaction of the shadow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Where the position must stand.
    pub from: Lsn,
    /// Where it is moved to; the same where only rows are committed.
    pub to: Lsn,
}

/// One stream's course.
#[derive(Debug)]
pub struct Course {
    order: Order,
    applied: Lsn,
    reached: Lsn,
    /// What ends up to here is passed over.
    floor: Lsn,
    /// Where the input is.
    place: Lsn,
}

impl Course {
    /// A connection that goes on from `applied`, the shadow's position.
    #[must_use]
    pub fn new(applied: Lsn) -> Self {
        Course { order: Order::new(applied), applied, reached: applied, floor: applied, place: applied }
    }

    /// The input begins at `base`, which may be before the shadow's position.
    #[must_use]
    pub fn from(mut self, base: Lsn) -> Self {
        self.place = base;
        self
    }

    /// A transaction begins.
    pub fn begin(&mut self, begin: Begin) -> Result<Turn> {
        self.order.begin(begin)
    }

    /// A transaction ends; says whether it was one to apply.
    pub fn commit(&mut self, commit: Commit) -> Result<Turn> {
        let turn = self.order.commit(commit)?;
        self.place.advance(commit.end_lsn);
        if turn == Turn::Apply {
            self.reached.advance(commit.end_lsn);
        }
        Ok(turn)
    }

    /// Everything before `lsn` has been sent.
    pub fn keepalive(&mut self, lsn: Lsn) {
        if !self.in_transaction() {
            self.place.advance(lsn);
        }
        if let Some(lsn) = self.order.keepalive(lsn) {
            self.reached.advance(lsn);
        }
    }

    /// Whether what comes now came before, and has had its effect. For what
    /// stands outside of transactions.
    #[must_use]
    pub fn is_repeated(&self) -> bool {
        self.place < self.floor
    }

    /// The shadow has committed `step`. Gives what may be
    /// confirmed now: only what this connection has sent, since what the shadow
    /// had before stands in the welcome.
    pub fn durable(&mut self, step: Step) -> Result<Option<Confirm>> {
        if step.from != self.applied || step.to > self.reached {
            let Step { from, to } = step;
            return Err(Error::protocol(format!(
                "the position was moved from {from} to {to}, but stands at {}",
                self.applied
            )));
        }
        let moved = self.applied.advance(step.to);
        Ok(moved.then_some(Confirm { applied_lsn: self.applied, flushed_lsn: self.applied }))
    }

    /// Another connection of the source goes on, between two transactions: from
    /// `base`, which is `reached` or before it.
    pub fn reconnected(&mut self, base: Lsn) {
        self.order = Order::new(self.reached);
        (self.floor, self.place) = (self.reached, base);
    }

    /// A change inside a transaction.
    pub fn change(&self) -> Result<Turn> {
        self.order.change()
    }

    /// Whether a transaction is open.
    #[must_use]
    pub fn in_transaction(&self) -> bool {
        self.order.in_transaction()
    }

    /// What a commit of the shadow at this moment moves; none inside of a
    /// transaction.
    #[must_use]
    pub fn step(&self) -> Option<Step> {
        (!self.in_transaction()).then_some(Step { from: self.applied, to: self.reached })
    }

    /// The position that the shadow has committed.
    #[must_use]
    pub fn applied(&self) -> Lsn {
        self.applied
    }

    /// The position that the next commit moves it to.
    #[must_use]
    pub fn reached(&self) -> Lsn {
        self.reached
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transaction(course: &mut Course, at: u64, end: u64) -> Turn {
        course.begin(Begin { xid: at, commit_lsn: Lsn(at), commit_time: 0 }).unwrap();
        assert_eq!(course.step(), None, "not inside of a transaction");
        course.commit(Commit { commit_lsn: Lsn(at), end_lsn: Lsn(end) }).unwrap()
    }

    #[test]
    fn confirms_what_is_durable_and_nothing_else() {
        let mut course = Course::new(Lsn(100));
        assert_eq!(transaction(&mut course, 80, 100), Turn::Skip);
        let step = course.step().unwrap();
        assert_eq!(course.durable(step).unwrap(), None, "the welcome has said so");
        assert_eq!(transaction(&mut course, 100, 120), Turn::Apply);
        let step = course.step().unwrap();
        assert_eq!(step, Step { from: Lsn(100), to: Lsn(120) });
        assert_eq!(transaction(&mut course, 120, 130), Turn::Apply);
        let confirm = Confirm { applied_lsn: Lsn(120), flushed_lsn: Lsn(120) };
        assert_eq!(course.durable(step).unwrap(), Some(confirm), "not 130");
        assert_eq!((course.applied(), course.reached()), (Lsn(120), Lsn(130)));
    }

    #[test]
    fn refuses_steps_that_are_not_its_own() {
        let mut course = Course::new(Lsn(100));
        transaction(&mut course, 100, 120);
        let step = course.step().unwrap();
        assert!(course.durable(Step { to: Lsn(130), ..step }).is_err(), "never reached");
        course.durable(step).unwrap();
        assert!(course.durable(step).is_err(), "moved twice");
    }

    #[test]
    fn knows_what_comes_again() {
        let mut course = Course::new(Lsn(100)).from(Lsn(60));
        assert!(course.is_repeated());
        course.keepalive(Lsn(80));
        assert!(course.is_repeated());
        assert_eq!(transaction(&mut course, 80, 100), Turn::Skip);
        assert!(!course.is_repeated());
        assert_eq!(transaction(&mut course, 100, 120), Turn::Apply);
        course.reconnected(Lsn(110));
        assert!(course.is_repeated(), "the source goes on a little before");
        course.keepalive(Lsn(120));
        assert!(!course.is_repeated());
        assert!(!Course::new(Lsn(100)).is_repeated());
    }

    #[test]
    fn a_keepalive_moves_the_position_between_transactions() {
        let mut course = Course::new(Lsn(100));
        course.keepalive(Lsn(90));
        assert_eq!(course.reached(), Lsn(100));
        course.keepalive(Lsn(150));
        let step = course.step().unwrap();
        assert!(course.durable(step).unwrap().is_some());
    }
}
