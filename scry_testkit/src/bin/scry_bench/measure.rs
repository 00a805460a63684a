//! What a piece of work costs: wall time, CPU time and private memory, apart
//! for the source, the shadow and the programs between them, from /proc.
//!
//! ```text
//!   source's postmaster ── backends, workers      source
//!                       └─ scry_sender            programs
//!   scry_platform                                 programs
//!     └─ its postmaster ── backends               shadow
//!   the peer's postmaster ── backends, workers    shadow
//!   children of ours: pgcopydb, java, psql        programs
//! ```
//!
//! A process belongs to the nearest of its ancestors that is one of these. What
//! has ended is in its parent's times once that has waited for it.

use anyhow::{Context, Result, bail};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Linux counts in hundredths of a second on every architecture it reports to users.
const TICK: Duration = Duration::from_millis(10);

/// Who pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Source,
    Shadow,
    /// What stands between the two: ours, or the peer's.
    Programs,
}

/// All parts, in the order of columns.
pub const PARTS: [Part; 3] = [Part::Source, Part::Shadow, Part::Programs];

/// One value for each part.
pub type Each<T> = [T; 3];

/// What one way of doing the work took.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    pub wall: Duration,
    pub cpu: Each<Duration>,
    /// Private memory of all processes of the part at the same time, at most; in bytes.
    pub memory: Each<u64>,
}

impl Figures {
    /// CPU time of a part, in seconds.
    pub fn cpu_of(&self, part: Part) -> f64 {
        self.cpu.get(part as usize).map_or(0.0, Duration::as_secs_f64)
    }

    /// CPU time of all parts, in seconds.
    pub fn cpu_of_all(&self) -> f64 {
        self.cpu.iter().map(Duration::as_secs_f64).sum()
    }
}

/// Knows which process belongs to whom.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    roots: HashMap<u32, Part>,
}

impl Meter {
    /// One that knows our own children.
    pub fn new() -> Meter {
        Meter { roots: HashMap::from([(std::process::id(), Part::Programs)]) }
    }

    /// And this process with what it starts.
    pub fn with(mut self, pid: u32, part: Part) -> Meter {
        self.roots.insert(pid, part);
        self
    }

    /// Does the work and says what it took.
    pub fn measure(&self, work: impl FnOnce() -> Result<()>) -> Result<Figures> {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let before = self.look()?;
            let watch = scope.spawn(|| self.watch(&over));
            let start = Instant::now();
            let done = work();
            let wall = start.elapsed();
            let after = self.look();
            over.store(true, Ordering::Relaxed);
            let Ok(memory) = watch.join() else { bail!("nobody looked at the memory") };
            done?;
            let mut cpu = [Duration::ZERO; 3];
            for ((cpu, after), before) in cpu.iter_mut().zip(after?.ticks).zip(before.ticks) {
                *cpu = TICK * u32::try_from(after.saturating_sub(before)).unwrap_or(u32::MAX);
            }
            Ok(Figures { wall, cpu, memory })
        })
    }

    fn watch(&self, over: &AtomicBool) -> Each<u64> {
        let mut most = [0; 3];
        while !over.load(Ordering::Relaxed) {
            if let Ok(seen) = self.look() {
                for (most, now) in most.iter_mut().zip(seen.memory) {
                    *most = now.max(*most);
                }
            }
            std::thread::sleep(LOOK);
        }
        most
    }

    fn look(&self) -> Result<Usage> {
        let ours = std::process::id();
        let mut processes = HashMap::new();
        for entry in std::fs::read_dir("/proc").context("read /proc")? {
            let Some(pid) = entry.ok().and_then(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
            else {
                continue;
            };
            // It may have ended meanwhile.
            if let Some(process) = Process::read(pid) {
                processes.insert(pid, process);
            }
        }
        let mut usage = Usage::default();
        for (pid, process) in &processes {
            let Some(part) = self.part_of(*pid, &processes) else { continue };
            // Of ourselves counts only what we have started.
            let ticks = if *pid == ours { process.ended } else { process.own + process.ended };
            let memory = if *pid == ours { 0 } else { private_bytes(*pid) };
            if let (Some(sum), Some(most)) =
                (usage.ticks.get_mut(part as usize), usage.memory.get_mut(part as usize))
            {
                *sum += ticks;
                *most += memory;
            }
        }
        Ok(usage)
    }

    fn part_of(&self, mut pid: u32, processes: &HashMap<u32, Process>) -> Option<Part> {
        // No cycle can be in a tree read in one go, but pids are reused.
        for _ in 0..64 {
            let process = processes.get(&pid)?;
            if let Some(part) = self.roots.get(&pid) {
                return Some(*part);
            }
            if process.is_sender {
                return Some(Part::Programs);
            }
            pid = process.parent;
        }
        None
    }
}

#[derive(Debug, Default)]
struct Usage {
    ticks: Each<u64>,
    memory: Each<u64>,
}

#[derive(Debug)]
struct Process {
    parent: u32,
    is_sender: bool,
    /// CPU time, in ticks.
    own: u64,
    /// That of children that were waited for.
    ended: u64,
}

impl Process {
    fn read(pid: u32) -> Option<Process> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name stands in parentheses; behind it: state, ppid, …, utime, stime, cutime, cstime (proc(5)).
        let (name, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let times =
            fields.get(11..15)?.iter().map(|field| field.parse().ok()).collect::<Option<Vec<u64>>>()?;
        let [user, system, ended_user, ended_system] = times.try_into().ok()?;
        Some(Process {
            parent: fields.get(1)?.parse().ok()?,
            is_sender: name.ends_with("(scry_sender"),
            own: user + system,
            ended: ended_user + ended_system,
        })
    }
}

/// Resident bytes that are neither a file's nor shared.
fn private_bytes(pid: u32) -> u64 {
    let pages = || {
        let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        let fields: Vec<u64> = statm.split_whitespace().filter_map(|field| field.parse().ok()).collect();
        // size, resident, shared, … in pages (proc(5)).
        Some(fields.get(1)?.saturating_sub(*fields.get(2)?))
    };
    pages().unwrap_or(0) * 4096
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_our_children_use_is_counted() {
        let figures = Meter::new()
            .measure(|| {
                let script = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
                std::process::Command::new("sh").args(["-c", script]).status().context("run sh")?;
                Ok(())
            })
            .unwrap();
        assert!(figures.cpu_of(Part::Programs) > 0.0);
        assert_eq!(figures.cpu_of(Part::Source), 0.0);
        assert!(figures.memory[Part::Programs as usize] > 0);
    }
}
