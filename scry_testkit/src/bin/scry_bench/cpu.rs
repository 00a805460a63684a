//! CPU time of whole process trees, from /proc.

use anyhow::{Context, Result};
use std::collections::HashMap;
use std::time::Duration;

/// CPU time used so far by `root`, by its living descendants, and by those of
/// their children that have ended and were waited for.
pub fn of_tree(root: u32) -> Result<Duration> {
    let mut processes: HashMap<u32, (u32, u64)> = HashMap::new();
    for entry in std::fs::read_dir("/proc").context("read /proc")? {
        let Some(pid) = entry.ok().and_then(|entry| entry.file_name().to_str()?.parse().ok()) else {
            continue;
        };
        // It may have ended meanwhile.
        if let Some(seen) =
            std::fs::read_to_string(format!("/proc/{pid}/stat")).ok().and_then(|stat| read(&stat))
        {
            processes.insert(pid, seen);
        }
    }
    let below = |mut pid: u32| {
        // Parents have lower depth; no cycle can be in a tree read in one go, but pids are reused.
        for _ in 0..64 {
            if pid == root {
                return true;
            }
            match processes.get(&pid) {
                Some((parent, _)) if *parent != 0 => pid = *parent,
                _ => return false,
            }
        }
        false
    };
    let ticks: u64 = processes.iter().filter(|(pid, _)| below(**pid)).map(|(_, (_, ticks))| ticks).sum();
    // Linux counts in hundredths of a second on every architecture it reports to users.
    Ok(Duration::from_millis(ticks * 10))
}

/// Parent, and CPU time in ticks with that of ended children.
fn read(stat: &str) -> Option<(u32, u64)> {
    // After the name in parentheses: state, ppid, …, utime, stime, cutime, cstime (proc(5)).
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let parent = fields.get(1)?.parse().ok()?;
    let ticks = fields.get(11..15)?.iter().map(|field| field.parse::<u64>().ok()).sum::<Option<u64>>()?;
    Some((parent, ticks))
}
