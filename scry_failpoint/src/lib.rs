//! Failpoints: named steps at which a test makes sender or platform fail.
//!
//! ```text
//! file named by SCRY_FAILPOINTS ── "step=actions" a line ──► watch ──► hit(step): error | sleep | wait | panic | exit
//! ```
//!
//! Role: the programs call [`hit`] at their steps; the crate `fail` says what
//! happens there, in its own notation with what we do in its `return`:
//! `platform::committed=3*off->1*return(exit)` ends the platform after the
//! fourth commit. The file is looked at all the time, so that a test can change
//! its mind. Invariant: without feature `on` there is nothing here but a
//! function that does nothing; with it, nothing happens unless the variable is
//! set. The extension has steps of its own (`scry_backfill_ext/src/failpoint.rs`).
#![forbid(unsafe_code)]

/// The steps of sender and platform, in the order of the path.
pub mod step {
    /// The sender has put a piece of a worker's frames on the wire.
    pub const SENT: &str = "sender::sent";
    /// A frame of changes has come in at the platform.
    pub const RECEIVED: &str = "platform::received";
    /// Changes are applied; the shadow's COMMIT is next.
    pub const APPLIED: &str = "platform::applied";
    /// The shadow has committed; the confirmation is next.
    pub const COMMITTED: &str = "platform::committed";
    /// The shadow shows changes that its disk may lack; bringing them there is next.
    pub const SHOWN: &str = "platform::shown";
    /// The loader is about to be asked for a chunk's table; told to fail, it does not take it.
    pub const LOADING: &str = "platform::loading";
    /// A chunk's rows are committed; its receipt is next.
    pub const CHUNK_COMMITTED: &str = "platform::chunk_committed";
    /// All of them.
    pub const ALL: [&str; 7] = [SENT, RECEIVED, APPLIED, COMMITTED, SHOWN, LOADING, CHUNK_COMMITTED];
}

/// A step was told to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed {
    /// Which step.
    pub step: &'static str,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "failpoint {} was hit", self.step)
    }
}

impl std::error::Error for Failed {}

#[cfg(feature = "on")]
pub use on::{hit, watch};

/// A step of the path: does nothing in this build.
///
/// # Errors
/// None in this build.
#[cfg(not(feature = "on"))]
#[inline]
pub async fn hit(_step: &'static str) -> Result<(), Failed> {
    Ok(())
}

/// Begins to look at the file of failpoints: does nothing in this build.
#[cfg(not(feature = "on"))]
#[inline]
pub fn watch() {}

#[cfg(feature = "on")]
mod on {
    use super::Failed;
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    /// What is said to the log when a step is hit, before its name.
    const HIT: &str = "failpoint";
    /// What is said to the log when the file says something new, before what it says.
    const TAKEN: &str = "failpoints are set";
    /// The file is read this often.
    const LOOK: Duration = Duration::from_millis(20);
    /// How long a step sleeps unless its action says so.
    const SLEEP: Duration = Duration::from_secs(1);
    /// The status of a program that a failpoint ended.
    const EXIT: i32 = 70;

    static WATCHED: AtomicBool = AtomicBool::new(false);

    /// A step of the path: does what the test wants there.
    ///
    /// # Errors
    /// [`Failed`] when the step is told to fail.
    pub async fn hit(step: &'static str) -> Result<(), Failed> {
        if !WATCHED.load(Ordering::Relaxed) {
            return Ok(());
        }
        let Some(action) = wanted(step) else { return Ok(()) };
        tracing::warn!(step, action, "{HIT}");
        match action.as_str() {
            "sleep" => tokio::time::sleep(SLEEP).await,
            "wait" => {
                while wanted(step).as_deref() == Some("wait") {
                    tokio::time::sleep(LOOK).await;
                }
            }
            "panic" => panic!("failpoint {step}"),
            "exit" => std::process::exit(EXIT),
            _ => return Err(Failed { step }),
        }
        Ok(())
    }

    fn wanted(step: &str) -> Option<String> {
        fail::fail_point!(step, |action| Some(action.unwrap_or_default()));
        None
    }

    /// Begins to look at the file that `SCRY_FAILPOINTS` names, if it does.
    pub fn watch() {
        let Some(file) = std::env::var_os("SCRY_FAILPOINTS") else { return };
        if WATCHED.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut set = BTreeMap::new();
        obey(Path::new(&file), &mut set);
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(LOOK);
                obey(Path::new(&file), &mut set);
            }
        });
    }

    /// Sets what the file says where that is news, and forgets what it no longer says.
    fn obey(file: &Path, set: &mut BTreeMap<String, String>) {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.trim().split_once('='));
        let wanted: BTreeMap<String, String> =
            lines.map(|(step, actions)| (step.to_owned(), actions.to_owned())).collect();
        if wanted == *set {
            return;
        }
        for step in set.keys().filter(|step| !wanted.contains_key(*step)) {
            fail::remove(step);
        }
        for (step, actions) in wanted.iter().filter(|(step, actions)| set.get(*step) != Some(*actions)) {
            if let Err(error) = fail::cfg(step, actions) {
                tracing::error!(step, actions, error, "failpoint not understood");
            }
        }
        *set = wanted;
        tracing::info!(?set, "{TAKEN}");
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_file_says_what_happens_and_can_change_its_mind() {
            let file = std::env::temp_dir().join(format!("scry-failpoint-{}", std::process::id()));
            let mut set = BTreeMap::new();
            std::fs::write(&file, "a::step=1*off->1*return(exit)\nnonsense\n").unwrap();
            obey(&file, &mut set);
            assert_eq!(wanted("a::step"), None);
            assert_eq!(wanted("a::step").as_deref(), Some("exit"));
            assert_eq!(wanted("a::step"), None, "once");
            obey(&file, &mut set);
            assert_eq!(wanted("a::step"), None, "the same file is no news");
            std::fs::write(&file, "another::step=return(error)").unwrap();
            obey(&file, &mut set);
            assert_eq!(wanted("another::step").as_deref(), Some("error"));
            std::fs::remove_file(&file).unwrap();
            obey(&file, &mut set);
            assert_eq!(wanted("another::step"), None);
        }
    }
}
