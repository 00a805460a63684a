//! Whether to pack: a state machine that is told what happens, and when.
//!
//! ```text
//!            two windows in a row wait for a slow link
//!   Plain ─────────────────────────────────────────────► Packed
//!     ▲  │ one is enough after a look                      │
//!     │  └─────────────────────────────────────────────────►
//!     ├── the first window carries no more than plain ones did: rest, 10 s
//!     │   at first, doubled up to 5 min                    │
//!     └── look: from time to time; when later windows carry no more; when
//!         the time goes by at the press and no longer at the link
//! ```
//!
//! Role: packs are worth a processor only while the link is what the stream
//! waits for, and only if bytes get through faster for it. The first is
//! measured in windows, by waits during which the link was behind
//! (`stream::line`); the second by what windows of either kind carry for each
//! second that the stream waits or presses, so that the compressor's speed, the
//! ratio and whatever else there is are in it.
//! Flow: `passed`, `waited` and `packed` add to the window; a window of half a
//! second of waits and work is judged. The first window after a change of state
//! is thrown away: it carries what was under way.
//! Invariants: a stream that does not wait is never packed and reads no clock;
//! nor is one that waits for a shadow which is slow; should one be taken for
//! the other, packing carries no more, and is tried again ever more rarely.
//! What it does not do: it reads no clock; time comes with what it is told.

use std::time::{Duration, Instant};

/// Waits and work that make a window: many round trips, and a bounded share of
/// a processor before the first verdict.
const WINDOW: Duration = Duration::from_millis(500);
/// A window that takes longer than this to fill is begun again: such a stream
/// waits for its source.
const WINDOW_AGE_MAX: Duration = Duration::from_secs(2);
/// The part of a window's time that must be waits for the link.
const LINK_SHARE: f64 = 0.7;
/// Bytes a second that make a link too fast to be looked at: half of what
/// Zstandard's fastest level takes in on one processor, or more.
const LINK_RATE_MAX: f64 = 200e6;
/// What packs must carry beside plain windows: to be begun, and to go on.
const GAIN_BEGIN: f64 = 1.2;
const GAIN_KEEP: f64 = 1.05;
/// Slow windows in a row before packs are tried.
const SLOW_WINDOWS: u32 = 2;
/// After packs gained nothing.
const REST_MIN: Duration = Duration::from_secs(10);
const REST_MAX: Duration = Duration::from_secs(300);
/// Between two looks at how the link is without packs.
const LOOK_MIN: Duration = Duration::from_secs(10);
const LOOK_MAX: Duration = Duration::from_secs(120);

/// Decides for one stream.
#[derive(Debug)]
pub struct Decider {
    state: State,
    window: Window,
    /// The next window is thrown away.
    warm: bool,
    /// Packs have gained on this link, and it has not been seen fast since.
    proven: bool,
    rest_until: Option<Instant>,
    rest: Duration,
    look: Duration,
}

/// None of it survives the stream.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    /// As it is. Set at the beginning, after a look is due, after no gain.
    /// Left when the link is slow.
    Plain {
        /// Windows in a row in which it was.
        slow: u32,
    },
    /// In packs. Left when they carry no more than plain windows, or for a look.
    Packed {
        /// What the last plain window carried.
        plain_rate: f64,
        /// The first window has been judged.
        judged: bool,
        since: Instant,
    },
}

/// What has happened since the window's begin.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    begun: Option<Instant>,
    /// Bytes of frames.
    raw: u64,
    /// Waits for room, of all kinds.
    waits: Duration,
    /// Of these, while the link was behind.
    link: Duration,
    /// Time at the press.
    press: Duration,
}

impl Window {
    fn busy(&self) -> Duration {
        self.waits + self.press
    }

    /// Bytes for each second of waits and work.
    #[allow(clippy::cast_precision_loss)]
    fn rate(&self) -> f64 {
        self.raw as f64 / self.busy().as_secs_f64().max(1e-9)
    }

    /// The link is what the stream waited for, nearly all of the time.
    fn is_slow(&self, now: Instant) -> bool {
        let elapsed = self.begun.map_or(Duration::ZERO, |begun| now - begun);
        self.link >= elapsed.mul_f64(LINK_SHARE) && self.rate() < LINK_RATE_MAX
    }
}

impl Decider {
    /// As it is, until a link has been found slow.
    #[must_use]
    pub fn new() -> Self {
        Decider {
            state: State::Plain { slow: 0 },
            window: Window::default(),
            warm: false,
            proven: false,
            rest_until: None,
            rest: REST_MIN,
            look: LOOK_MIN,
        }
    }

    /// Whether what comes next should be packed.
    #[must_use]
    pub fn packs(&self) -> bool {
        matches!(self.state, State::Packed { .. })
    }

    /// Bytes went up as they are.
    pub fn passed(&mut self, bytes: u64) {
        self.window.raw += bytes;
    }

    /// Bytes were packed, which ended `now` and took so long.
    pub fn packed(&mut self, now: Instant, bytes: u64, took: Duration) {
        self.touch(now, took);
        self.window.raw += bytes;
        self.window.press += took;
        self.judge(now);
        if let State::Packed { since, .. } = self.state
            && now - since >= self.look
        {
            self.plain();
        }
    }

    /// The stream waited until `now`; `queued`: the link was behind.
    pub fn waited(&mut self, now: Instant, wait: Duration, queued: bool) {
        self.touch(now, wait);
        self.window.waits += wait;
        if queued {
            self.window.link += wait;
        }
        self.judge(now);
    }

    /// Begins a window with what lasted so long until `now`, unless one goes on.
    fn touch(&mut self, now: Instant, lasted: Duration) {
        let begin = now.checked_sub(lasted).unwrap_or(now);
        let old =
            self.window.begun.is_some_and(|begun| begin.saturating_duration_since(begun) > WINDOW_AGE_MAX);
        if old && let State::Plain { slow } = &mut self.state {
            *slow = 0;
            self.found_fast();
        }
        if old || self.window.begun.is_none() {
            self.window = Window { begun: Some(begin), ..Window::default() };
        }
    }

    fn judge(&mut self, now: Instant) {
        if self.window.busy() < WINDOW {
            return;
        }
        let window = std::mem::take(&mut self.window);
        if std::mem::take(&mut self.warm) {
            return;
        }
        match self.state {
            State::Plain { slow } => self.judge_plain(now, &window, slow),
            State::Packed { plain_rate, judged, since } => {
                self.judge_packed(now, &window, plain_rate, judged, since);
            }
        }
    }

    fn judge_plain(&mut self, now: Instant, window: &Window, slow: u32) {
        if !window.is_slow(now) {
            self.state = State::Plain { slow: 0 };
            self.found_fast();
            return;
        }
        let slow = slow + 1;
        let enough = if self.proven { 1 } else { SLOW_WINDOWS };
        if slow < enough || self.rest_until.is_some_and(|until| now < until) {
            self.state = State::Plain { slow };
            return;
        }
        let plain_rate = window.rate();
        self.change(State::Packed { plain_rate, judged: false, since: now });
    }

    fn judge_packed(&mut self, now: Instant, window: &Window, plain_rate: f64, judged: bool, since: Instant) {
        let gain = window.rate() / plain_rate.max(1.0);
        let enough = gain >= if self.proven { GAIN_KEEP } else { GAIN_BEGIN };
        if !enough && !judged {
            self.rest_until = Some(now + self.rest);
            self.rest = (self.rest * 2).min(REST_MAX);
            self.proven = false;
            return self.plain();
        }
        let at_the_press = window.press * 2 > window.busy() && now - since >= LOOK_MIN;
        if !enough || at_the_press {
            return self.plain();
        }
        if !judged {
            if self.proven {
                self.look = (self.look * 2).min(LOOK_MAX);
            }
            self.proven = true;
            self.rest = REST_MIN;
            self.state = State::Packed { plain_rate, judged: true, since };
        }
    }

    /// The link is not what the stream waits for: what was learned is void.
    fn found_fast(&mut self) {
        self.proven = false;
        self.look = LOOK_MIN;
    }

    fn plain(&mut self) {
        self.change(State::Plain { slow: 0 });
    }

    fn change(&mut self, state: State) {
        self.state = state;
        self.window = Window::default();
        self.warm = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: f64 = 1e6;
    const PIECE: f64 = 32768.0;

    /// A stream in a world of fixed rates, in bytes a second.
    struct World {
        decider: Decider,
        now: Instant,
        link: f64,
        /// What the platform reads, of frames.
        receiver: f64,
        press: f64,
        ratio: f64,
        /// What the source sends.
        source: f64,
        /// Waits for the receiver look like waits for the link.
        mistaken: bool,
        raw: f64,
        packed_for: Duration,
        switches: u32,
    }

    impl World {
        fn new(link: f64) -> World {
            let now = Instant::now();
            World {
                decider: Decider::new(),
                now,
                link,
                receiver: 2000.0 * MB,
                press: 400.0 * MB,
                ratio: 4.0,
                source: 2000.0 * MB,
                mistaken: false,
                raw: 0.0,
                packed_for: Duration::ZERO,
                switches: 0,
            }
        }

        fn spend(&mut self, seconds: f64) -> Duration {
            let time = Duration::from_secs_f64(seconds);
            self.now += time;
            time
        }

        /// A piece, or as many as a pack holds: pressed, then waited for.
        fn step(&mut self) {
            let (begun, packs) = (self.now, self.decider.packs());
            let raw = if packs { 4.0 * PIECE } else { PIECE };
            let wire = if packs { raw / self.ratio } else { raw };
            let pressing = if packs { raw / self.press } else { 0.0 };
            if packs {
                let took = self.spend(pressing);
                self.decider.packed(self.now, raw as u64, took);
            } else {
                self.decider.passed(raw as u64);
            }
            let (on_link, at_receiver) = (wire / self.link, raw / self.receiver);
            let behind = on_link > at_receiver;
            // The link empties its queue while the press works.
            let wait = on_link.max(at_receiver) - pressing;
            // A link that is faster than this is never seen to be behind.
            let queued = (behind && self.link < 100.0 * MB) || self.mistaken;
            if wait > 0.0 {
                let waited = self.spend(wait);
                self.decider.waited(self.now, waited, queued);
            }
            let spent = (self.now - begun).as_secs_f64();
            self.spend((raw / self.source - spent).max(0.0));
            self.raw += raw;
            if packs {
                self.packed_for += self.now - begun;
            }
            self.switches += u32::from(packs != self.decider.packs());
        }

        /// Runs; the rate of frames, and the share of time in packs.
        fn run(&mut self, seconds: u64) -> (f64, f64) {
            let (begun, raw, packed) = (self.now, self.raw, self.packed_for);
            while self.now - begun < Duration::from_secs(seconds) {
                self.step();
            }
            let time = (self.now - begun).as_secs_f64();
            ((self.raw - raw) / time, (self.packed_for - packed).as_secs_f64() / time)
        }
    }

    #[test]
    fn a_slow_link_is_packed_and_carries_more() {
        for link in [0.1 * MB, MB, 10.0 * MB, 50.0 * MB] {
            let mut world = World::new(link);
            world.run(if link < MB { 20 } else { 5 });
            let (rate, packed) = world.run(300);
            assert!(rate > 3.0 * link || rate > 0.45 * world.press, "{link}: {rate}");
            assert!(packed > 0.9, "{link}: {packed}");
        }
    }

    #[test]
    fn a_fast_link_is_never_packed() {
        for link in [150.0 * MB, 1000.0 * MB, 10_000.0 * MB] {
            let mut world = World::new(link);
            // Even if it is seen to be behind.
            world.mistaken = link > LINK_RATE_MAX;
            world.run(60);
            assert_eq!(world.switches, 0, "{link}");
        }
    }

    #[test]
    fn a_slow_receiver_is_no_slow_link() {
        for receiver in [0.5 * MB, 20.0 * MB] {
            let mut world = World { receiver, ..World::new(1000.0 * MB) };
            world.run(120);
            assert_eq!(world.switches, 0);
            // Nor on a link that would be slow for a faster one.
            let mut world = World { receiver, ..World::new(receiver * 2.0) };
            world.run(120);
            assert_eq!(world.switches, 0);
        }
    }

    #[test]
    fn a_receiver_that_is_taken_for_a_link_costs_little() {
        let mut world = World { receiver: 10.0 * MB, mistaken: true, ..World::new(1000.0 * MB) };
        let (_, first) = world.run(60);
        assert!(first < 0.15, "{first}");
        let (rate, later) = world.run(3600);
        assert!(later < 0.01, "{later}");
        assert!(rate > 9.5 * MB, "{rate}");
    }

    #[test]
    fn what_does_not_shrink_is_left_alone() {
        let mut world = World { ratio: 1.01, ..World::new(MB) };
        world.run(60);
        let (rate, packed) = world.run(3600);
        assert!(packed < 0.01 && rate > 0.99 * MB, "{packed} {rate}");
        // From then on it does: within the longest rest.
        world.ratio = 4.0;
        world.run(310);
        assert!(world.run(300).1 > 0.9);
    }

    #[test]
    fn a_processor_that_is_slower_than_the_link_is_left_alone() {
        let mut world = World { press: 30.0 * MB, ..World::new(60.0 * MB) };
        world.run(60);
        let (rate, packed) = world.run(600);
        assert!(packed < 0.03 && rate > 55.0 * MB, "{packed} {rate}");
    }

    #[test]
    fn a_link_that_becomes_fast_is_noticed_and_one_that_becomes_slow_again_too() {
        let mut world = World::new(2.0 * MB);
        world.run(300);
        assert!(world.decider.packs());
        world.link = 2000.0 * MB;
        world.run(15);
        assert!(!world.decider.packs());
        assert_eq!(world.run(60).1, 0.0);
        world.link = 2.0 * MB;
        world.run(5);
        assert!(world.run(60).1 > 0.9);
    }

    #[test]
    fn a_link_that_becomes_slower_or_a_little_faster_stays_packed() {
        let mut world = World::new(4.0 * MB);
        world.run(60);
        for link in [1.0, 3.0, 0.5, 8.0] {
            world.link = link * MB;
            world.run(10);
            let (rate, packed) = world.run(120);
            assert!(packed > 0.85 && rate > 3.0 * link * MB, "{link}: {packed} {rate}");
        }
    }

    #[test]
    fn steady_rates_change_the_state_for_looks_only() {
        let mut world = World::new(5.0 * MB);
        world.run(3600);
        let looks = 3600 / LOOK_MAX.as_secs() as u32 + 8;
        assert!(world.switches <= 2 * looks, "{} switches", world.switches);
    }

    #[test]
    fn a_source_that_sends_less_than_the_link_carries_is_never_packed() {
        let mut world = World { source: 3.0 * MB, ..World::new(10.0 * MB) };
        world.run(600);
        assert_eq!(world.switches, 0);
    }

    /// A source that packs have let go ahead stays packed, because the link
    /// would not carry it otherwise.
    #[test]
    fn a_source_between_both_rates_stays_packed() {
        let mut world = World { source: 6.0 * MB, ..World::new(4.0 * MB) };
        world.run(10);
        let (rate, packed) = world.run(600);
        assert!(packed > 0.85 && rate > 5.5 * MB, "{packed} {rate}");
    }

    #[test]
    fn small_frames_with_pauses_are_never_packed() {
        let mut decider = Decider::new();
        let mut now = Instant::now();
        for _ in 0..10_000 {
            now += Duration::from_millis(100);
            decider.passed(300);
            // Even on a link that takes its time for each of them.
            decider.waited(now, Duration::from_millis(20), true);
            assert!(!decider.packs());
        }
    }
}
