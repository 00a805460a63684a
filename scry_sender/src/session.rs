//! The states of one worker's connection; pure: events in, actions out.
//!
//! ```text
//!                    Failed (retry)
//!                 ┌───────────────────┐
//!                 ▼                   │
//! Hello ─► Connecting ─► Greeting ─► Waiting ── RetryDue ─► Connecting
//!              │  Opened    │ Frame(Welcome)
//!              │            ▼
//!              │         Streaming
//!              │            │
//!              └──────┬─────┘  Failed, BadFrame, WorkerGone, Stop, Frame(Refuse)
//!                     ▼
//!                   Ended
//! ```
//!
//! Role: decides what happens to a connection; `relay` does it.
//! Invariants: until the welcome has been passed on, a failure that can be
//! retried is retried here and told by notices; after it, nothing is retried:
//! the worker is told and starts again from the position of its next welcome.
//! At most one refusal is sent, and nothing after it. What the platform says
//! before `Opened` cannot reach the worker.
//! What it does not do: no I/O, no clock (time is an argument), no randomness.

use std::time::{Duration, Instant};

use scry_wire::frame::Tag;
use scry_wire::message::{Level, Notice, Refuse, RefuseKind};

use crate::error::{Failure, Policy};

/// How often the worker is told the same cause again, so that its status
/// shows that the sender is alive.
pub const NOTICE_EVERY: Duration = Duration::from_secs(10);

/// Where a connection stands. None of it survives the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// An attempt runs. Set by the hello or a retry; left when it succeeds or fails.
    Connecting,
    /// The last attempt failed. Left when the back-off is over.
    Waiting,
    /// The platform took the request; its welcome is due.
    Greeting,
    /// Welcomed: frames go both ways.
    Streaming,
    /// Over; every event is ignored.
    Ended,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The platform answered the request with 200.
    Opened,
    /// The attempt failed, or the stream broke.
    Failed(Failure),
    /// The back-off is over.
    RetryDue,
    /// [`NOTICE_EVERY`] has passed since the last notice.
    NoticeDue,
    /// A checked frame came from the platform.
    Frame(Tag),
    /// The worker sent something that the format does not allow.
    BadFrame(scry_wire::Error),
    /// The worker closed its connection.
    WorkerGone,
    /// The program stops.
    Stop,
}

/// What to do; in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start an attempt.
    Connect,
    /// Drop what is left of the upstream; wait, then report [`Event::RetryDue`].
    Retry {
        /// Begin at the slow end of the back-off.
        slowly: bool,
        /// Not before this has passed.
        at_least: Option<Duration>,
    },
    /// Send the worker a notice.
    Notice(Notice),
    /// Pass on the frame that was reported.
    Forward,
    /// Begin to pass on the worker's frames.
    StartUp,
    /// Send the worker a refusal.
    Refuse(Refuse),
    /// End the connection on both sides.
    Close,
}

/// One worker's connection, from its hello on.
#[derive(Debug)]
pub struct Session {
    state: State,
    told: Option<(Notice, Instant)>,
}

impl Default for Session {
    fn default() -> Self {
        Session::new()
    }
}

impl Session {
    /// A session whose hello has been read; its first attempt is due.
    #[must_use]
    pub fn new() -> Session {
        Session { state: State::Connecting, told: None }
    }

    /// Takes an event; `now` is the time at which it happened.
    pub fn on(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match event {
            _ if self.state == State::Ended => Vec::new(),
            Event::Opened => self.opened(),
            Event::Failed(failure) => self.failed(&failure, now),
            Event::RetryDue => self.retry_due(),
            Event::NoticeDue => self.notice_due(now),
            Event::Frame(tag) => self.frame(tag),
            Event::BadFrame(error) => self.bad_frame(&error),
            Event::WorkerGone => self.close(None),
            Event::Stop => self.close(Some(stopping())),
        }
    }

    /// When [`Event::NoticeDue`] should come, if at all.
    #[must_use]
    pub fn notice_at(&self) -> Option<Instant> {
        match self.state {
            State::Connecting | State::Waiting => self.told.as_ref().map(|(_, at)| *at + NOTICE_EVERY),
            State::Greeting | State::Streaming | State::Ended => None,
        }
    }

    /// Whether the connection is over.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.state == State::Ended
    }

    fn opened(&mut self) -> Vec<Action> {
        self.state = State::Greeting;
        // The cause is gone: an empty message clears what was told before.
        match self.told.take() {
            Some(_) => vec![Action::Notice(notice(Level::Info, String::new(), String::new()))],
            None => Vec::new(),
        }
    }

    fn failed(&mut self, failure: &Failure, now: Instant) -> Vec<Action> {
        let policy = failure.kind.policy();
        if self.state == State::Streaming || policy == Policy::Refuse {
            return self.close(Some(failure.to_refuse()));
        }
        self.state = State::Waiting;
        let mut actions = Vec::new();
        let notice = notice(Level::Error, failure.line(), failure.hint.clone());
        let old = matches!(&self.told, Some((told, at)) if *told == notice && now < *at + NOTICE_EVERY);
        if !old {
            actions.push(Action::Notice(notice.clone()));
            self.told = Some((notice, now));
        }
        let slowly = policy == Policy::RetrySlowly;
        actions.push(Action::Retry { slowly, at_least: failure.retry_after });
        actions
    }

    fn retry_due(&mut self) -> Vec<Action> {
        if self.state != State::Waiting {
            return Vec::new();
        }
        self.state = State::Connecting;
        vec![Action::Connect]
    }

    fn notice_due(&mut self, now: Instant) -> Vec<Action> {
        let due = self.notice_at().is_some_and(|at| now >= at);
        match &mut self.told {
            Some((notice, at)) if due => {
                *at = now;
                vec![Action::Notice(notice.clone())]
            }
            _ => Vec::new(),
        }
    }

    fn frame(&mut self, tag: Tag) -> Vec<Action> {
        match (&self.state, tag) {
            (State::Greeting, Tag::Welcome) => {
                self.state = State::Streaming;
                vec![Action::Forward, Action::StartUp]
            }
            (State::Greeting | State::Streaming, Tag::Refuse) => {
                self.state = State::Ended;
                vec![Action::Forward, Action::Close]
            }
            (State::Greeting, Tag::Notice) => vec![Action::Forward],
            (State::Greeting, tag) => self.unexpected(tag, "welcome"),
            (State::Streaming, Tag::Welcome) => self.unexpected(tag, "a confirmation or receipt"),
            (State::Streaming, _) => vec![Action::Forward],
            // A frame of an upstream that has been given up.
            (State::Connecting | State::Waiting | State::Ended, _) => Vec::new(),
        }
    }

    fn unexpected(&mut self, tag: Tag, expected: &'static str) -> Vec<Action> {
        let error = scry_wire::Error::Unexpected { tag: tag.as_char(), expected };
        self.close(Some(Refuse {
            kind: RefuseKind::Protocol,
            retry: true,
            message: "platform broke the protocol".to_owned(),
            detail: error.to_string(),
            hint: String::new(),
        }))
    }

    fn bad_frame(&mut self, error: &scry_wire::Error) -> Vec<Action> {
        self.close(Some(protocol_refusal(error)))
    }

    fn close(&mut self, refuse: Option<Refuse>) -> Vec<Action> {
        self.state = State::Ended;
        refuse.map(Action::Refuse).into_iter().chain([Action::Close]).collect()
    }
}

/// The refusal for bytes of a worker that are not what the format says. A
/// worker of another version stays one; anything else may have been damage on
/// the way, and a new connection starts from a known position.
#[must_use]
pub fn protocol_refusal(error: &scry_wire::Error) -> Refuse {
    let version = matches!(error, scry_wire::Error::Version { .. });
    Refuse {
        kind: if version { RefuseKind::Version } else { RefuseKind::Protocol },
        retry: !version,
        message: if version {
            "worker and scry_sender speak different versions".to_owned()
        } else {
            "scry_sender received bytes that are not a valid frame".to_owned()
        },
        detail: error.to_string(),
        hint: if version { "Install the same release of all programs.".to_owned() } else { String::new() },
    }
}

/// The refusal of a program that stops.
#[must_use]
pub fn stopping() -> Refuse {
    Refuse {
        kind: RefuseKind::Stopping,
        retry: true,
        message: "scry_sender is stopping".to_owned(),
        detail: String::new(),
        hint: String::new(),
    }
}

fn notice(level: Level, message: String, hint: String) -> Notice {
    Notice { level, message, hint }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::FailureKind;

    fn fail(kind: FailureKind, text: &str) -> Event {
        Event::Failed(Failure::new(kind, text))
    }

    fn notices(actions: &[Action]) -> Vec<&str> {
        actions
            .iter()
            .filter_map(|a| match a {
                Action::Notice(n) => Some(n.message.as_str()),
                _ => None,
            })
            .collect()
    }

    fn refused(actions: &[Action]) -> Option<RefuseKind> {
        actions.iter().find_map(|a| match a {
            Action::Refuse(r) => Some(r.kind),
            _ => None,
        })
    }

    #[test]
    fn welcome_opens_the_way_up() {
        let now = Instant::now();
        let mut s = Session::new();
        assert_eq!(s.on(Event::Opened, now), []);
        assert_eq!(s.on(Event::Frame(Tag::Notice), now), [Action::Forward]);
        assert_eq!(s.on(Event::Frame(Tag::Welcome), now), [Action::Forward, Action::StartUp]);
        assert_eq!(s.on(Event::Frame(Tag::Confirm), now), [Action::Forward]);
        assert_eq!(s.on(Event::WorkerGone, now), [Action::Close]);
        assert!(s.ended());
    }

    #[test]
    fn a_cause_is_told_when_it_changes_and_every_ten_seconds() {
        let start = Instant::now();
        let mut s = Session::new();
        let a = s.on(fail(FailureKind::Connect, "refused"), start);
        assert_eq!(notices(&a), ["refused"]);
        assert!(matches!(a[1], Action::Retry { slowly: false, .. }));
        assert_eq!(s.on(Event::RetryDue, start), [Action::Connect]);
        let a = s.on(fail(FailureKind::Connect, "refused"), start + Duration::from_secs(1));
        assert_eq!(notices(&a), [""; 0]);
        s.on(Event::RetryDue, start);
        let a = s.on(fail(FailureKind::CertificateExpired, "expired"), start + Duration::from_secs(2));
        assert_eq!(notices(&a), ["expired"]);
        assert!(matches!(a[1], Action::Retry { slowly: true, .. }));
        assert_eq!(s.notice_at(), Some(start + Duration::from_secs(12)));
        assert_eq!(s.on(Event::NoticeDue, start + Duration::from_secs(11)), []);
        assert_eq!(notices(&s.on(Event::NoticeDue, start + Duration::from_secs(12))), ["expired"]);
    }

    #[test]
    fn a_resolved_cause_is_cleared_before_the_welcome() {
        let now = Instant::now();
        let mut s = Session::new();
        s.on(fail(FailureKind::Resolve, "no such host"), now);
        s.on(Event::RetryDue, now);
        assert_eq!(notices(&s.on(Event::Opened, now)), [""]);
        assert_eq!(s.notice_at(), None);
    }

    #[test]
    fn a_break_before_the_welcome_is_retried_and_after_it_refused() {
        let now = Instant::now();
        let mut s = Session::new();
        s.on(Event::Opened, now);
        let a = s.on(fail(FailureKind::Lost, "reset"), now);
        assert_eq!(refused(&a), None);
        s.on(Event::RetryDue, now);
        s.on(Event::Opened, now);
        s.on(Event::Frame(Tag::Welcome), now);
        let a = s.on(fail(FailureKind::Lost, "reset"), now);
        assert_eq!(refused(&a), Some(RefuseKind::Unreachable));
        assert_eq!(a.last(), Some(&Action::Close));
    }

    #[test]
    fn an_answer_that_no_retry_mends_is_refused() {
        let mut s = Session::new();
        let a = s.on(fail(FailureKind::Auth, "401"), Instant::now());
        assert_eq!(refused(&a), Some(RefuseKind::Auth));
    }

    #[test]
    fn rejects_frames_of_the_platform_before_its_welcome() {
        let now = Instant::now();
        let mut s = Session::new();
        s.on(Event::Opened, now);
        let a = s.on(Event::Frame(Tag::Confirm), now);
        assert_eq!(refused(&a), Some(RefuseKind::Protocol));
        assert!(!a.contains(&Action::Forward));
    }

    #[test]
    fn rejects_a_second_welcome() {
        let now = Instant::now();
        let mut s = Session::new();
        s.on(Event::Opened, now);
        s.on(Event::Frame(Tag::Welcome), now);
        assert_eq!(refused(&s.on(Event::Frame(Tag::Welcome), now)), Some(RefuseKind::Protocol));
    }

    #[test]
    fn the_platforms_refusal_ends_it_and_nothing_follows() {
        let now = Instant::now();
        let mut s = Session::new();
        s.on(Event::Opened, now);
        assert_eq!(s.on(Event::Frame(Tag::Refuse), now), [Action::Forward, Action::Close]);
        assert_eq!(s.on(Event::Stop, now), []);
        assert_eq!(s.on(fail(FailureKind::Lost, "x"), now), []);
    }

    #[test]
    fn stop_is_told_in_every_state() {
        let now = Instant::now();
        for steps in 0..3 {
            let mut s = Session::new();
            if steps > 0 {
                s.on(Event::Opened, now);
            }
            if steps > 1 {
                s.on(Event::Frame(Tag::Welcome), now);
            }
            assert_eq!(refused(&s.on(Event::Stop, now)), Some(RefuseKind::Stopping));
        }
    }

    #[test]
    fn another_version_is_not_worth_a_retry() {
        let version = scry_wire::Error::Version { ours_min: 1, ours_max: 1, theirs_min: 2, theirs_max: 3 };
        assert!(!protocol_refusal(&version).retry);
        assert!(protocol_refusal(&scry_wire::Error::Checksum { sent: 1, computed: 2 }).retry);
    }
}
