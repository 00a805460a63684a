//! Where the stream stands still for a session that compares both sides: the
//! worker's half of [`crate::apply::halt`].

use super::Worker;
use super::input::Input;
use crate::Result;
use crate::apply::halt::{self, Halt, Reached};
use scry_wire::Lsn;
use scry_wire::message::change::Begin;
use std::time::Duration;
use tokio::sync::oneshot;

impl Worker<'_> {
    /// Between two transactions: takes a new halt, and stands still if this is
    /// where one wants it. `rest` is what the batch still holds, `next` the
    /// transaction at its front.
    pub(super) async fn halt_here(
        &mut self,
        input: &mut Input,
        rest: &[u8],
        next: Option<Begin>,
    ) -> Result<()> {
        if self.course.in_transaction() {
            return Ok(());
        }
        if self.halt.is_none() {
            let Ok(halt) = self.halts.try_recv() else { return Ok(()) };
            self.take_halt(halt).await?;
        }
        let Some((wanted, _)) = &self.halt else { return Ok(()) };
        let is_here = match next {
            Some(begin) => halt::is_before(wanted, begin),
            None => self.course.reached() >= wanted.lsn,
        };
        if is_here { self.stand(input, rest, next).await } else { Ok(()) }
    }

    /// Stands still until the session has its snapshot of the source.
    pub(super) async fn take_halt(&mut self, halt: Halt) -> Result<()> {
        self.settle().await?;
        let Halt { ready, wanted, reach } = halt;
        if ready.send(()).is_err() {
            return Ok(());
        }
        let Ok(Ok(wanted)) = tokio::time::timeout(HALT_TIMEOUT, wanted).await else { return Ok(()) };
        if self.recent.all_seen(&wanted.seen) {
            self.halt = Some((wanted, reach));
        } else {
            answer_halt(reach, self.course.applied(), false).await;
        }
        Ok(())
    }

    /// Stands still where the session wants it, if that is exact.
    async fn stand(&mut self, input: &mut Input, rest: &[u8], next: Option<Begin>) -> Result<()> {
        let Some((wanted, reach)) = self.halt.take() else { return Ok(()) };
        self.settle().await?;
        let exact = match next {
            // What ends before the floor is on the shadow: too far.
            Some(begin) if begin.commit_lsn < self.course.applied() => false,
            Some(_) => input.is_exact(&wanted, rest, self.course.reached()).await,
            None => true,
        };
        answer_halt(reach, self.course.applied(), exact).await;
        Ok(())
    }
}

/// Tells the session; where it is exact, stands still until the session lets go.
async fn answer_halt(reach: oneshot::Sender<Reached>, applied: Lsn, exact: bool) {
    let (go_on, gone_on) = oneshot::channel();
    if reach.send(Reached { exact, applied, go_on }).is_ok() && exact {
        // However it ends, the session no longer needs the place.
        let _ = gone_on.await;
    }
}

/// How long the stream waits for a verifying session to say where it wants it,
/// and reads ahead.
pub(super) const HALT_TIMEOUT: Duration = Duration::from_secs(10);
