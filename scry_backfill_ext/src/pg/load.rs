//! What the server is doing now, read from its shared memory: no catalog, no
//! statistics collector, no lock but where said. A sample costs a pass over
//! the array of processes.

use std::time::Duration;

use pgrx::pg_sys;

/// The server's load at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    /// Processes of databases that wait for nothing: they compute, or want to.
    pub running: u32,
    /// … that wait for a disk.
    pub io: u32,
    /// … that wait for a lightweight lock or a buffer: for one another.
    pub locks: u32,
    /// Files that backends had to sync themselves since the server's start,
    /// because the checkpointer could not keep up (0 from 17 on).
    pub backend_fsyncs: u64,
    /// The longest lag of a standby.
    pub replica_lag: Duration,
}

/// Takes a sample; processes whose pid is in `ours` are not production.
pub fn sample(ours: &[i32]) -> Sample {
    let mut sample = Sample {
        backend_fsyncs: super::compat::backend_fsyncs(),
        replica_lag: replica_lag(),
        ..Sample::default()
    };
    // SAFETY: the array lives as long as the server; each field is a word that
    // is read whole, as pg_stat_activity reads them.
    unsafe {
        let header = &*pg_sys::ProcGlobal;
        for index in 0..header.allProcCount as usize {
            let process = header.allProcs.add(index);
            // An entry may keep its pid, and that it waits for nothing, when its process has ended;
            // its latch is disowned in every version (storage/lmgr/proc.c, `ProcKill`).
            let pid = (&raw const (*process).procLatch.owner_pid).read_volatile();
            if pid == 0 || (*process).databaseId == pg_sys::InvalidOid || ours.contains(&pid) {
                continue;
            }
            match (&raw const (*process).wait_event_info).read_volatile() >> 24 {
                0 => sample.running += 1,
                WAIT_IO => sample.io += 1,
                WAIT_LWLOCK | WAIT_BUFFER_PIN => sample.locks += 1,
                _ => {}
            }
        }
    }
    sample
}

fn replica_lag() -> Duration {
    let mut longest = 0;
    // SAFETY: as above; the lags are words that their walsender writes whole.
    unsafe {
        if pg_sys::WalSndCtl.is_null() {
            return Duration::ZERO;
        }
        let walsenders = (*pg_sys::WalSndCtl).walsnds.as_ptr();
        for index in 0..usize::try_from(pg_sys::max_wal_senders).unwrap_or(0) {
            let walsender = walsenders.add(index);
            let streams = (*walsender).state == pg_sys::WalSndState::WALSNDSTATE_STREAMING;
            if (&raw const (*walsender).pid).read_volatile() != 0 && streams {
                longest = longest.max((&raw const (*walsender).flushLag).read_volatile());
            }
        }
    }
    Duration::from_micros(longest.unsigned_abs())
}

// wait_event.h: the class of a wait stands in the highest byte, the same from 15 to 18.
const WAIT_LWLOCK: u32 = 0x01;
const WAIT_BUFFER_PIN: u32 = 0x04;
const WAIT_IO: u32 = 0x0A;
