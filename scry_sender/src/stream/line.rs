//! How far behind a connection's link is, by the round trips of PINGs.
//!
//! ```text
//! a stream waits ─► ask ─► driver: PING ─► … ─► answer ─► round trip
//! ```
//!
//! Role: tells the two reasons apart for which a stream waits for room. A link
//! that is slow has a queue, in this machine's socket or on the way, and a PING
//! has to pass through it. A platform that does not read a stream, because its
//! shadow is slow, still answers PINGs at once: its connection reads them.
//! Flow: `connect` sends a PING first of all, while nothing is under way, then
//! at its interval, and sooner while streams wait; `up` asks when a wait ends.
//! Invariants: without waits there are no PINGs but the usual ones.
//! What it does not do: it is no proof. A platform whose processors are all
//! taken answers late as well; what follows from a queue is checked by its
//! effect (`pack`).

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// A PING that takes this much longer than the shortest one has stood in a
/// queue: far above the jitter of networks and schedulers, far below what a
/// stream's window of 2 MiB takes on a link that is worth packing for.
const QUEUED: Duration = Duration::from_millis(20);

/// The PINGs of one connection.
#[derive(Debug, Default)]
pub struct Line {
    pings: Mutex<Pings>,
    asked: Notify,
}

#[derive(Debug, Default)]
struct Pings {
    shortest: Option<Duration>,
    last: Duration,
    under_way: Option<Instant>,
}

impl Line {
    /// A stream waits: a PING should be sent soon.
    pub fn ask(&self) {
        self.asked.notify_one();
    }

    /// Waits until somebody has asked.
    pub async fn asked(&self) {
        self.asked.notified().await;
    }

    /// A PING is sent.
    pub fn sent(&self, now: Instant) {
        self.pings().under_way = Some(now);
    }

    /// It has been answered.
    pub fn answered(&self, now: Instant) {
        let mut pings = self.pings();
        let Some(sent) = pings.under_way.take() else { return };
        let trip = now.saturating_duration_since(sent);
        pings.last = trip;
        pings.shortest = Some(pings.shortest.map_or(trip, |shortest| shortest.min(trip)));
    }

    /// Whether what is sent now would stand in a queue.
    pub fn is_queued(&self, now: Instant) -> bool {
        let pings = self.pings();
        // Without one answer there is nothing to compare with.
        let Some(shortest) = pings.shortest else { return false };
        let open = pings.under_way.map_or(Duration::ZERO, |sent| now.saturating_duration_since(sent));
        pings.last.max(open) > shortest + QUEUED
    }

    fn pings(&self) -> std::sync::MutexGuard<'_, Pings> {
        self.pings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_queue_is_seen_by_what_it_adds_to_the_shortest_trip() {
        let (line, now) = (Line::default(), Instant::now());
        let trip = |ms: u32| {
            line.sent(now);
            line.answered(now + MS * ms);
        };
        line.sent(now);
        assert!(!line.is_queued(now + MS * 500), "nothing is known yet");
        line.answered(now + MS * 100);
        assert!(!line.is_queued(now), "far away is not slow");
        trip(115);
        assert!(!line.is_queued(now));
        trip(125);
        assert!(line.is_queued(now));
        trip(90);
        assert!(!line.is_queued(now));
        trip(111);
        assert!(line.is_queued(now), "by the shortest of all");
    }

    #[test]
    fn a_ping_that_is_late_says_so_before_its_answer() {
        let (line, now) = (Line::default(), Instant::now());
        line.sent(now);
        line.answered(now + MS);
        line.sent(now + MS);
        assert!(!line.is_queued(now + MS * 20));
        assert!(line.is_queued(now + MS * 23));
    }

    #[tokio::test]
    async fn who_asks_first_is_heard_later() {
        let line = Line::default();
        line.ask();
        line.ask();
        line.asked().await;
    }
}
