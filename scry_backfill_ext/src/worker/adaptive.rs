//! How much of its speed a copy gives up for production: a closed loop.
//!
//! ```text
//! sample of the server ─► averages ─► pressure? ─yes─► halve the speed, not below the floor
//!                                        └──────no───► a step faster
//! ```
//!
//! Additive increase, multiplicative decrease, as a TCP sender does: from full
//! speed to the floor within a second, back within some seconds. Pure: samples
//! go in, a brake and its cause come out. Backends that wait for locks of
//! tables are no pressure: a copy takes none that they wait for.

use crate::pg::load::Sample;

/// Samples a second that the numbers below are made for.
pub const SAMPLES_PER_SECOND: u32 = 4;

/// A copy's least speed, in thousandths: it must end some day, for its slot
/// keeps WAL meanwhile.
const COPY_FLOOR: u32 = 50;
/// The stream's least speed, in thousandths: what it holds back is WAL kept.
const STREAM_FLOOR: u32 = 500;
/// How much faster with each sample without pressure, in thousandths.
const STEP: u32 = 50;
/// Weight of a sample in the averages: half of what is seen is half a second old.
const WEIGHT: f64 = 0.5;
/// Processes that wait for a disk, for each processor, that are pressure.
const IO_PER_CPU: f64 = 0.5;
/// Processes that wait for one another, for each processor, that are pressure.
const LOCKS_PER_CPU: f64 = 0.5;
/// A standby this far behind is pressure.
const REPLICA_LAG_S: f64 = 5.0;

/// What presses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u32)]
pub enum Cause {
    /// Nothing.
    #[default]
    None = 0,
    /// As many processes want to compute as there are processors.
    Cpu = 1,
    /// Processes wait for the disk.
    Io = 2,
    /// Processes wait for one another.
    Locks = 3,
    /// Backends have to sync files themselves.
    Checkpointer = 4,
    /// A standby falls behind.
    Replica = 5,
}

impl Cause {
    const ALL: [Cause; 6] =
        [Cause::None, Cause::Cpu, Cause::Io, Cause::Locks, Cause::Checkpointer, Cause::Replica];

    /// From shared memory.
    pub fn from_u32(value: u32) -> Cause {
        Cause::ALL.get(value as usize).copied().unwrap_or_default()
    }

    /// As `status` shows it, with how much of it there is.
    pub fn describe(self, amount: f64) -> String {
        match self {
            Cause::None => String::new(),
            Cause::Cpu => format!("{amount:.1} processes of production compute"),
            Cause::Io => format!("{amount:.1} processes of production wait for the disk"),
            Cause::Locks => format!("{amount:.1} processes of production wait for one another"),
            Cause::Checkpointer => "backends have to sync files themselves".to_owned(),
            Cause::Replica => format!("a standby is {amount:.1} s behind"),
        }
    }
}

/// The loop's memory.
#[derive(Debug, Clone, Copy)]
pub struct Controller {
    cpus: f64,
    running: f64,
    io: f64,
    locks: f64,
    fsyncs: Option<u64>,
    /// Thousandths of the full speed.
    speed: u32,
    cause: Cause,
    amount: f64,
}

impl Controller {
    /// Full speed, on a machine of so many processors.
    pub fn new(cpus: usize) -> Controller {
        Controller {
            cpus: f64::from(u32::try_from(cpus).unwrap_or(u32::MAX)).max(1.0),
            running: 0.0,
            io: 0.0,
            locks: 0.0,
            fsyncs: None,
            speed: 1000,
            cause: Cause::None,
            amount: 0.0,
        }
    }

    /// Takes a sample.
    pub fn observe(&mut self, sample: &Sample) {
        for (average, seen) in
            [(&mut self.running, sample.running), (&mut self.io, sample.io), (&mut self.locks, sample.locks)]
        {
            *average += (f64::from(seen) - *average) * WEIGHT;
        }
        let synced = self.fsyncs.is_some_and(|before| sample.backend_fsyncs > before);
        self.fsyncs = Some(sample.backend_fsyncs);
        let lag = sample.replica_lag.as_secs_f64();
        let pressure = if synced {
            Some((Cause::Checkpointer, 0.0))
        } else if self.io >= (self.cpus * IO_PER_CPU).max(1.0) {
            Some((Cause::Io, self.io))
        } else if self.locks >= (self.cpus * LOCKS_PER_CPU).max(1.0) {
            Some((Cause::Locks, self.locks))
        } else if self.running >= self.cpus {
            Some((Cause::Cpu, self.running))
        } else if lag >= REPLICA_LAG_S {
            Some((Cause::Replica, lag))
        } else {
            None
        };
        match pressure {
            Some((cause, amount)) => {
                self.speed = (self.speed / 2).max(COPY_FLOOR);
                (self.cause, self.amount) = (cause, amount);
            }
            None => self.speed = (self.speed + STEP).min(1000),
        }
        if self.speed == 1000 {
            (self.cause, self.amount) = (Cause::None, 0.0);
        }
    }

    /// Forgets all pressure.
    pub fn release(&mut self) {
        *self = Controller { cpus: self.cpus, ..Controller::new(1) };
    }

    /// Thousandths of its speed that a copy gives up.
    pub fn brake(&self) -> u32 {
        1000 - self.speed
    }

    /// Why, and how much of it there is.
    pub fn cause(&self) -> (Cause, f64) {
        (self.cause, self.amount)
    }
}

/// Thousandths of its speed that the stream gives up while a copy gives up `brake`.
pub fn stream_brake(brake: u32) -> u32 {
    brake.min(1000 - STREAM_FLOOR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn busy(running: u32) -> Sample {
        Sample { running, ..Sample::default() }
    }

    #[test]
    fn an_idle_server_costs_nothing() {
        let mut controller = Controller::new(2);
        for _ in 0..100 {
            controller.observe(&busy(1));
        }
        assert_eq!((controller.brake(), controller.cause()), (0, (Cause::None, 0.0)));
    }

    #[test]
    fn gives_way_within_a_second_and_comes_back_in_steps() {
        let mut controller = Controller::new(2);
        for _ in 0..SAMPLES_PER_SECOND {
            controller.observe(&busy(8));
        }
        assert!(controller.brake() >= 900, "{controller:?}");
        assert_eq!(controller.cause().0, Cause::Cpu);
        for _ in 0..10 {
            controller.observe(&busy(8));
        }
        assert_eq!(controller.brake(), 1000 - COPY_FLOOR);
        let mut samples = 0;
        while controller.brake() > 0 {
            let before = controller.brake();
            controller.observe(&busy(0));
            assert!(before.saturating_sub(controller.brake()) <= STEP);
            samples += 1;
        }
        assert!(samples <= 8 * SAMPLES_PER_SECOND, "{samples}");
    }

    #[test]
    fn names_what_presses() {
        for (sample, cause) in [
            (Sample { io: 3, ..Sample::default() }, Cause::Io),
            (Sample { locks: 3, ..Sample::default() }, Cause::Locks),
            (Sample { replica_lag: Duration::from_secs(9), ..Sample::default() }, Cause::Replica),
        ] {
            let mut controller = Controller::new(2);
            (0..4).for_each(|_| controller.observe(&sample));
            assert_eq!(controller.cause().0, cause);
            assert!(!cause.describe(controller.cause().1).is_empty());
            assert_eq!(Cause::from_u32(cause as u32), cause);
        }
        let mut controller = Controller::new(2);
        controller.observe(&Sample { backend_fsyncs: 7, ..Sample::default() });
        assert_eq!(controller.brake(), 0, "what was before the loop began is no pressure");
        controller.observe(&Sample { backend_fsyncs: 8, ..Sample::default() });
        assert_eq!((controller.brake(), controller.cause().0), (500, Cause::Checkpointer));
    }

    #[test]
    fn the_stream_keeps_half_its_speed() {
        assert_eq!((stream_brake(0), stream_brake(300), stream_brake(950)), (0, 300, 500));
    }
}
