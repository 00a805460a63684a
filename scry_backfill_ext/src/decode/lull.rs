//! Schema changes that follow each other without a row between them are read once.
//!
//! ```text
//! commit of a transaction without rows, schema changed ─┬─ more to decode, or read a moment ago ─► waits
//!                                                       └─ else ─► read
//! what waits ─┬─ any change of any row, truncation, begun transaction ─► read before it
//!             ├─ all decoded, and a moment has passed ─► a message of our own ─► its commit ─► read
//!             └─ it waits too long ─► the same message, or the next commit ─► read
//! ```
//!
//! Role: reading all catalogs takes a second in a database of thousands of tables, for each
//! transaction that changes the schema. Of several in a row the last one's catalogs hold what
//! all of them did, and nothing in the stream lies between them.
//!
//! Invariants: while a change waits nothing is written that moves the shadow's position, so
//! that after any end of this process it is decoded again; what is born, or rewritten, in a
//! transaction that waits counts as of the transaction that is read in. A row shows the catalogs
//! as they were when it was written: what was committed after that, and before the row's own
//! transaction, goes on waiting, for that transaction's end at the latest.
//! What it does not do: read. See [`super::schema`].

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use scry_wire::Lsn;

/// Whether and since when schema changes wait to be read.
#[derive(Debug, Default)]
pub struct Lull {
    since: Option<Instant>,
    /// Where the transactions that wait were committed, in that order; they and their subtransactions.
    xids: Vec<(Lsn, u32)>,
    /// A message is on its way that ends the waiting.
    asked: bool,
    /// What has changed must be on the shadow before the next transaction begins there.
    forbidden: bool,
    /// The last reading on this connection: its end, and how long it took.
    last: Option<(Instant, Duration)>,
}

impl Lull {
    /// Whether any change waits.
    pub fn waits(&self) -> bool {
        self.since.is_some()
    }

    /// Whether the transaction that commits may wait; `more` is there to be decoded.
    ///
    /// The first one on a connection is read at once: what the tables looked like before is
    /// needed to judge what the others make of them.
    pub fn may_wait(&self, more: bool) -> bool {
        let Some((_, took)) = self.last else { return false };
        let long = self.since.is_some_and(|since| since.elapsed() > WAIT_MAX.max(took));
        !long && !self.forbidden && self.xids.len() < XIDS_MAX && (more || self.pause() > Duration::ZERO)
    }

    /// The transaction at hand must be read at its commit, if not before.
    pub fn forbid(&mut self) {
        self.forbidden = true;
    }

    /// It waits; it was committed at `commit_lsn`.
    pub fn wait(&mut self, xids: impl IntoIterator<Item = u32>, commit_lsn: Lsn) {
        self.since.get_or_insert_with(Instant::now);
        self.xids.extend(xids.into_iter().map(|xid| (commit_lsn, xid)));
        self.asked = false;
    }

    /// How long nothing need be done although all has been decoded: as long as the last
    /// reading took, so that no more than half of the time goes there. `None`: nothing waits,
    /// or what ends it is on its way.
    pub fn due(&self) -> Option<Duration> {
        (self.waits() && !self.asked).then(|| self.pause())
    }

    /// Whether it has waited too long, while there is always more to decode.
    pub fn is_overdue(&self) -> bool {
        !self.asked && self.since.is_some_and(|since| since.elapsed() > WAIT_MAX * 2)
    }

    /// A message has been written whose commit ends the waiting.
    pub fn ask(&mut self) {
        self.asked = true;
    }

    /// Whether any waits that is seen from `at`. Asked of every row.
    #[inline]
    pub fn waits_before(&self, at: Lsn) -> bool {
        self.xids.first().is_some_and(|(commit_lsn, _)| *commit_lsn < at)
    }

    /// The transactions that wait and are seen from `at`.
    pub fn xids_before(&self, at: Lsn) -> BTreeSet<u32> {
        self.xids.iter().take_while(|(commit_lsn, _)| *commit_lsn < at).map(|(_, xid)| *xid).collect()
    }

    /// All that is seen from `at` has been read; that took so long.
    pub fn read(&mut self, took: Duration, at: Lsn) {
        let mut xids = std::mem::take(&mut self.xids);
        xids.retain(|(commit_lsn, _)| *commit_lsn >= at);
        let since = self.since.filter(|_| !xids.is_empty());
        *self = Lull { since, xids, last: Some((Instant::now(), took)), ..Lull::default() };
    }

    fn pause(&self) -> Duration {
        self.last.map_or(Duration::ZERO, |(end, took)| took.min(WAIT_MAX).saturating_sub(end.elapsed()))
    }
}

/// Longest wait while more is decoded, but for readings that take longer themselves.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// Transactions that wait at a time.
const XIDS_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_millis(500);

    #[test]
    fn the_first_is_read_at_once_and_others_wait_for_more() {
        let mut lull = Lull::default();
        assert!(!lull.may_wait(true) && lull.due().is_none());
        lull.read(Duration::ZERO, Lsn(9));
        assert!(lull.may_wait(true) && !lull.may_wait(false));
        lull.wait([7, 8], Lsn(2));
        lull.wait([9], Lsn(3));
        assert!(lull.waits() && lull.xids_before(Lsn(9)).len() == 3);
        assert_eq!(lull.due(), Some(Duration::ZERO));
        lull.ask();
        assert!(lull.due().is_none());
        lull.read(Duration::ZERO, Lsn(9));
        assert!(!lull.waits() && lull.xids_before(Lsn(9)).is_empty());
    }

    #[test]
    fn what_a_row_does_not_see_goes_on_waiting() {
        let mut lull = Lull::default();
        lull.wait([7], Lsn(2));
        lull.wait([8, 9], Lsn(5));
        assert!(!lull.waits_before(Lsn(2)) && lull.waits_before(Lsn(3)));
        assert_eq!(lull.xids_before(Lsn(3)), BTreeSet::from([7]));
        lull.read(Duration::ZERO, Lsn(3));
        assert!(lull.waits() && !lull.waits_before(Lsn(4)) && lull.due().is_some());
        assert_eq!(lull.xids_before(Lsn(6)), BTreeSet::from([8, 9]));
        lull.read(Duration::ZERO, Lsn(6));
        assert!(!lull.waits());
    }

    #[test]
    fn a_long_reading_is_followed_by_a_pause() {
        let mut lull = Lull::default();
        lull.read(LONG, Lsn(9));
        assert!(lull.may_wait(false));
        lull.wait([7], Lsn(2));
        let due = lull.due().unwrap();
        assert!(due > Duration::ZERO && due <= LONG, "{due:?}");
        let mut other = Lull::default();
        other.read(LONG, Lsn(9));
        other.forbid();
        assert!(!other.may_wait(true), "a label can be used only after its transaction");
        // However many follow, it does not wait for ever.
        lull.since = Instant::now().checked_sub(WAIT_MAX * 3);
        assert!(!lull.may_wait(true) && lull.is_overdue());
    }
}
