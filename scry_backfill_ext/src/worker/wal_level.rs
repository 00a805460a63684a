//! How much WAL a slot keeps, and what that calls for.
//!
//! ```text
//!  ok ──max_wal_warning──► warning ──max_wal_critical──► critical ──max_wal_hard, or the disk──► hard
//!   ◄──── a tenth below ──────◄──── a tenth below ──────────
//! ```
//!
//! Pure: the bounds, a reading and the time go in, a level and the times that
//! are left come out. A level is left only a tenth below its bound, so that
//! nothing flickers; `hard` is never left: the slot is gone.

/// What the WAL that a slot keeps calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(u32)]
pub enum Level {
    /// Nothing.
    #[default]
    Ok = 0,
    /// Words.
    Warning = 1,
    /// The stream gets everything.
    Critical = 2,
    /// The slot is given up.
    Hard = 3,
}

impl Level {
    const ALL: [Level; 4] = [Level::Ok, Level::Warning, Level::Critical, Level::Hard];

    /// From shared memory.
    pub fn from_u32(value: u32) -> Level {
        Level::ALL.get(value as usize).copied().unwrap_or_default()
    }

    /// As `status` shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Critical => "critical",
            Level::Hard => "given_up",
        }
    }
}

/// The settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes from which on it is said.
    pub warning: u64,
    /// Bytes from which on the stream gets everything.
    pub critical: u64,
    /// Bytes at which the slot is given up; `None` for never, whatever the disk says.
    pub hard: Option<u64>,
}

/// The disk that holds the WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Bytes that may still be used.
    pub free: u64,
    /// Bytes in all.
    pub size: u64,
}

impl Disk {
    /// Free bytes below which a slot is given up.
    fn reserve(self) -> u64 {
        self.size / 10
    }

    /// Whether giving up `kept` bytes is called for: less than a tenth is
    /// free, and what the slot keeps is a part of the reason.
    fn is_short(self, kept: u64) -> bool {
        self.free < self.reserve() && kept >= self.size / 20
    }
}

/// Why a slot is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It keeps more than `max_wal_hard`.
    Bound,
    /// The disk has less than a tenth free.
    Disk,
}

/// What is known of one slot from look to look.
#[derive(Debug, Clone, Copy, Default)]
pub struct Watch {
    level: Level,
    kept: u64,
    /// Bytes a second, smoothed.
    growth: f64,
    /// Seconds since some start, of the last look.
    seen_at: Option<f64>,
}

/// Seconds over which growth is smoothed: long enough for a checkpoint's worth
/// of bursts, short enough to see a new load.
const SMOOTH_S: f64 = 10.0;

impl Watch {
    /// Takes a reading at `now` (seconds); returns the level from before.
    pub fn look(&mut self, now: f64, kept: u64, disk: Option<Disk>, bounds: &Bounds) -> Level {
        if let Some(seen_at) = self.seen_at
            && now > seen_at
        {
            #[allow(clippy::cast_precision_loss)]
            let grown = (kept as f64 - self.kept as f64).max(0.0) / (now - seen_at);
            let weight = 1.0 - (-(now - seen_at) / SMOOTH_S).exp();
            // The first step counts whole: there is nothing to smooth yet.
            let weight = if self.growth == 0.0 { 1.0 } else { weight };
            self.growth += (grown - self.growth) * weight;
        }
        (self.seen_at, self.kept) = (Some(now), kept);
        let before = self.level;
        self.level = next_level(before, kept, disk, bounds);
        before
    }

    /// The level now.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Bytes kept.
    pub fn kept(&self) -> u64 {
        self.kept
    }

    /// Bytes a second by which that grows.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // `as` saturates; never negative.
    pub fn growth(&self) -> u64 {
        self.growth as u64
    }

    /// Seconds until the critical bound, at this rate.
    pub fn seconds_to_critical(&self, bounds: &Bounds) -> Option<u64> {
        self.seconds_for(bounds.critical.saturating_sub(self.kept))
    }

    /// Seconds until the slot is given up, at this rate.
    pub fn seconds_to_hard(&self, disk: Option<Disk>, bounds: &Bounds) -> Option<u64> {
        let hard = bounds.hard?;
        let room = disk.map_or(u64::MAX, |disk| disk.free.saturating_sub(disk.reserve()));
        self.seconds_for(hard.saturating_sub(self.kept).min(room))
    }

    /// Seconds until the next bound of any kind, at this rate.
    pub fn seconds_to_next(&self, disk: Option<Disk>, bounds: &Bounds) -> Option<u64> {
        let ahead = [bounds.warning, bounds.critical].into_iter().filter(|bound| *bound > self.kept).min();
        let next = ahead.and_then(|bound| self.seconds_for(bound - self.kept));
        [next, self.seconds_to_hard(disk, bounds)].into_iter().flatten().min()
    }

    fn seconds_for(&self, bytes: u64) -> Option<u64> {
        (self.growth() > 0).then(|| bytes / self.growth())
    }
}

fn next_level(now: Level, kept: u64, disk: Option<Disk>, bounds: &Bounds) -> Level {
    if now == Level::Hard || why_hard(kept, disk, bounds).is_some() {
        return Level::Hard;
    }
    let stays = |level, bound: u64| now >= level && kept >= bound - bound / 10;
    if kept >= bounds.critical || stays(Level::Critical, bounds.critical) {
        Level::Critical
    } else if kept >= bounds.warning || stays(Level::Warning, bounds.warning) {
        Level::Warning
    } else {
        Level::Ok
    }
}

/// Why a slot that keeps so much is to be given up, if it is.
pub fn why_hard(kept: u64, disk: Option<Disk>, bounds: &Bounds) -> Option<Reason> {
    let hard = bounds.hard?;
    if kept >= hard {
        return Some(Reason::Bound);
    }
    disk.is_some_and(|disk| disk.is_short(kept)).then_some(Reason::Disk)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { warning: 100, critical: 500, hard: Some(2000) };

    fn levels(kept: &[u64]) -> Vec<Level> {
        let mut watch = Watch::default();
        let seen = kept.iter().enumerate().map(|(second, kept)| {
            watch.look(second as f64, *kept, None, &BOUNDS);
            watch.level()
        });
        seen.collect()
    }

    #[test]
    fn rises_in_order_and_falls_a_tenth_below() {
        use Level::{Critical, Hard, Ok, Warning};
        assert_eq!(levels(&[0, 99, 100, 95, 90, 89]), [Ok, Ok, Warning, Warning, Warning, Ok]);
        assert_eq!(levels(&[499, 500, 460, 449, 2]), [Warning, Critical, Critical, Warning, Ok]);
        assert_eq!(levels(&[600, 2000, 0]), [Critical, Hard, Hard]);
    }

    #[test]
    fn never_means_never() {
        let never = Bounds { hard: None, ..BOUNDS };
        let full = Some(Disk { free: 0, size: 1000 });
        assert_eq!(why_hard(u64::MAX, full, &never), None);
        let mut watch = Watch::default();
        watch.look(0.0, 1, full, &never);
        watch.look(1.0, 1_000_000, full, &never);
        assert_eq!((watch.level(), watch.seconds_to_hard(full, &never)), (Level::Critical, None));
    }

    #[test]
    fn a_short_disk_costs_the_slot_that_is_a_part_of_the_reason() {
        assert_eq!(why_hard(60, Some(Disk { free: 99, size: 1000 }), &BOUNDS), Some(Reason::Disk));
        assert_eq!(why_hard(60, Some(Disk { free: 100, size: 1000 }), &BOUNDS), None);
        // The disk is full of other things.
        assert_eq!(why_hard(40, Some(Disk { free: 5, size: 1000 }), &BOUNDS), None);
    }

    #[test]
    fn tells_the_time_left() {
        let mut watch = Watch::default();
        assert_eq!(watch.seconds_to_hard(None, &BOUNDS), None);
        for second in 0..5 {
            watch.look(f64::from(second), 20 * second as u64, None, &BOUNDS);
        }
        assert_eq!((watch.kept(), watch.growth()), (80, 20));
        assert_eq!(watch.seconds_to_next(None, &BOUNDS), Some(1));
        assert_eq!(watch.seconds_to_critical(&BOUNDS), Some(21));
        assert_eq!(watch.seconds_to_hard(None, &BOUNDS), Some(96));
        let disk = Some(Disk { free: 300, size: 2000 });
        assert_eq!(watch.seconds_to_hard(disk, &BOUNDS), Some(5));
    }
}
