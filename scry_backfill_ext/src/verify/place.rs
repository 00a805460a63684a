//! A place that both sides know: a snapshot here, a position of the shadow there.
//!
//! The stream is stopped first, so that nothing passes it which the snapshot
//! does not see; then the snapshot is taken, and the stream goes on to where
//! the snapshot stands. Where transactions became visible in another order
//! than they were committed in, there is no such place: then another snapshot
//! is taken, a moment later.

use std::sync::atomic::Ordering::AcqRel;
use std::time::Duration;

use pgrx::spi::{Spi, SpiError};
use scry_wire::message::{Ask, Tell};

use super::link::{Link, unexpected};
use crate::api::refusal::Refusal;
use crate::pg::snapshot::Moment;
use crate::pg::{latch, peer, wal};
use crate::worker::shmem::JobRef;

/// The snapshot in force, and the platform at the same place.
pub struct Place(Moment);

impl Place {
    /// Finds one. `hold`: the stream stands still there until [`Place::leave`].
    pub fn find(link: &mut Link, job: JobRef, hold: bool) -> Result<Place, Refusal> {
        for attempt in 0..ATTEMPTS_MAX {
            if attempt > 0 {
                peer::nap(PAUSE * attempt.min(20));
            }
            link.ask(&Ask::Stop)?;
            match link.tell()? {
                Tell::Ready => {}
                _ => return Err(unexpected("that the stream stands still")),
            }
            let moment = Moment::take();
            let seen = current_snapshot()?;
            if seen.len() > SEEN_BYTES_MAX {
                return Err(Refusal::not_ready("too many transactions run at this moment to note them all")
                    .hint("Try again when fewer are running."));
            }
            let lsn = wal::insert_position();
            link.ask(&Ask::Position { seen, lsn, hold })?;
            // What is not on disk is not decoded; the position is sent when it is reached.
            wal::flush(lsn);
            job.live().wanted_lsn.fetch_max(lsn.0, AcqRel);
            latch::wake(&job.live().stream);
            match link.tell()? {
                Tell::At { exact: true } => return Ok(Place(moment)),
                Tell::At { exact: false } => {}
                _ => return Err(unexpected("a position")),
            }
        }
        Err(Refusal::not_ready("could not find a moment at which both sides can be compared")
            .detail(format!(
                "In each of {ATTEMPTS_MAX} snapshots a transaction was visible before one that was committed earlier."
            ))
            .hint("Try again when fewer transactions commit at the same time."))
    }

    /// The place is no longer needed.
    pub fn leave(self, link: &mut Link) -> Result<(), Refusal> {
        drop(self.0);
        link.ask(&Ask::Release)
    }
}

/// As [`pgrx::spi::Spi::get_one`], without a transaction ID, under the snapshot in force.
fn current_snapshot() -> Result<String, Refusal> {
    const SQL: &str = "SELECT pg_catalog.pg_current_snapshot()::pg_catalog.text";
    let text: Result<Option<String>, SpiError> =
        Spi::connect(|client| client.select(SQL, Some(1), &[])?.first().get_one());
    Ok(text?.unwrap_or_default())
}

/// Snapshots that are tried. Under heavy load one in a few does not fit.
const ATTEMPTS_MAX: u32 = 60;
/// Bytes of a snapshot's text: the bound of its field (docs/wire-format.md, ask).
const SEEN_BYTES_MAX: usize = 512 << 10;
const PAUSE: Duration = Duration::from_millis(1);
