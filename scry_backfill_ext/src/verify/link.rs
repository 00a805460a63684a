//! The session's, or a snapshot worker's, connection to the platform, through the sender.
//!
//! One question, one answer; the platform may tell what it waits for meanwhile.
//! Every wait is on the latch and can be cancelled.

use std::time::Duration;

use pgrx::PgSqlErrorCode;
use scry_wire::frame::{Frame, Tag};
use scry_wire::message::{Ask, Hello, Level, Message, Notice, Refuse, Tell};

use crate::api::refusal::Refusal;
use crate::batch::Batch;
use crate::handoff::{Handoff, Lost, bad_frame};

/// An open connection.
pub struct Link {
    handoff: Handoff,
    told: String,
    watch: Watch,
}

/// Hears of rows and bytes that have been read, and of every second that is waited; may wait
/// itself, or end the process.
pub type Watch = Box<dyn FnMut(u64, u64)>;

impl Link {
    /// Connects and waits for the welcome. A user's session.
    pub fn open(hello: &Hello) -> Result<Link, Refusal> {
        Link::watched(hello, Box::new(|_, _| ()))
    }

    /// As [`Link::open`], for a worker.
    pub fn watched(hello: &Hello, watch: Watch) -> Result<Link, Refusal> {
        let mut link = Link { handoff: Handoff::connect().map_err(lost)?, told: String::new(), watch };
        link.send(&hello.to_frame())?;
        link.answer(Tag::Welcome, true)?;
        Ok(link)
    }

    /// Asks something.
    pub fn ask(&mut self, ask: &Ask) -> Result<(), Refusal> {
        self.send(&ask.to_frame())
    }

    /// The next answer.
    pub fn tell(&mut self) -> Result<Tell, Refusal> {
        let frame = self.answer(Tag::Tell, false)?;
        Tell::from_frame(&frame).map_err(|err| lost(bad_frame(&err)))
    }

    /// Rows were read that are not sent.
    pub fn look(&mut self, rows: u64, bytes: u64) {
        (self.watch)(rows, bytes);
    }

    /// Sends what a batch holds.
    pub fn rows(&mut self, batch: &mut Batch) -> Result<(), Refusal> {
        let mut result = Ok(());
        batch.drain(false, |frame| {
            if result.is_ok() {
                result = self.send(frame);
            }
        });
        result
    }

    fn send(&mut self, frame: &[u8]) -> Result<(), Refusal> {
        self.handoff.send(frame, |_| Ok(())).map_err(lost)
    }

    /// Waits for a frame; `connecting`: what the sender cannot reach is an error at once.
    fn answer(&mut self, wanted: Tag, connecting: bool) -> Result<Frame, Refusal> {
        loop {
            while let Some(frame) = self.handoff.next_frame() {
                match frame.tag() {
                    tag if tag == wanted => return Ok(frame),
                    Tag::Notice => {
                        let notice = Notice::from_frame(&frame).map_err(|err| lost(bad_frame(&err)))?;
                        self.notice(notice, connecting)?;
                    }
                    Tag::Refuse => {
                        let refuse = Refuse::from_frame(&frame).map_err(|err| lost(bad_frame(&err)))?;
                        return Err(refused(refuse));
                    }
                    tag => {
                        let message = format!("the platform sent an unexpected frame {:?}", tag.as_char());
                        return Err(connection(message).hint(SAME_RELEASE));
                    }
                }
            }
            self.handoff.wait(WAIT_TICK).map_err(lost)?;
            self.look(0, 0);
        }
    }

    fn notice(&mut self, notice: Notice, connecting: bool) -> Result<(), Refusal> {
        if connecting && notice.level == Level::Error {
            return Err(connection(notice.message).hint(notice.hint));
        }
        if !notice.message.is_empty() && self.told != notice.message {
            self.told.clone_from(&notice.message);
            connection(notice.message).hint(notice.hint).notice();
        }
        Ok(())
    }
}

fn connection(message: impl Into<String>) -> Refusal {
    Refusal::new(PgSqlErrorCode::ERRCODE_CONNECTION_EXCEPTION, message)
}

fn lost(lost: Lost) -> Refusal {
    connection(lost.message).hint(lost.hint)
}

fn refused(refuse: Refuse) -> Refusal {
    connection(refuse.message).detail(refuse.detail).hint(refuse.hint)
}

/// An answer that does not fit the question.
pub fn unexpected(what: &str) -> Refusal {
    connection(format!("the platform sent another answer than {what}")).hint(SAME_RELEASE)
}

const SAME_RELEASE: &str = "Use a sender and a platform of the same release as the extension.";
const WAIT_TICK: Duration = Duration::from_secs(1);
