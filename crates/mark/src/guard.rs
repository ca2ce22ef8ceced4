//! Whatever ends `mark`, no process and no folder stays.
//!
//! `mark` is two processes, and each cleans up after the other:
//!
//! ```text
//! mark            waits         the one that was started: a signal, a closed terminal or a kill ends it
//!   mark-guarded  does the work in a session of its own, so that Ctrl-C reaches only the first
//!     programs, builds          and whatever they start
//! ```
//!
//! The first holds the writing end of a pipe that is the second's standard input. When the first ends, however it does,
//! the second reads the end of the stream, and becomes `mark clean-up`: `exec` ends all its threads at once, so that none
//! can start another program. When the second ends, the first cleans up. Orphans come to the nearer of the two, as both are
//! subreapers (prctl(2)): a process may leave its session and its group, but not its ancestors.
//!
//! Only a kill of both at the same moment leaves something behind: a folder, and what a program has started. The
//! programs themselves die with the thread that launched them.

use std::env;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use stevedore::program::Failure;

use crate::stage::process::{self, MARK_ITSELF};

/// What the second process calls itself.
const GUARDED: &str = "mark-guarded";

/// So long a folder is tried again that cannot be removed: what has been killed may still be writing.
const REMOVAL: Duration = Duration::from_secs(5);

/// The folder below which a process of `mark` makes all others. It is gone when `mark` has ended.
fn folder_of(process: u32) -> PathBuf {
    env::temp_dir().join(format!("mark-{process}"))
}

/// Does the work in a second process that is guarded by this one, and that guards it. `work` gets the folder that it may
/// fill; it stays if `keeps_folder`.
pub fn guarded(keeps_folder: bool, work: impl FnOnce(&Path) -> Result<(), Failure>) -> Result<(), Failure> {
    process::adopt_orphans();
    if env::args_os().next().is_none_or(|name| name != GUARDED) {
        return wait_for_the_other(keeps_folder);
    }
    let folder = folder_of(std::process::id());
    let _ = rustix::process::setsid();
    let doomed = (!keeps_folder).then(|| folder.clone());
    thread::spawn(move || {
        // Nothing is ever written to it: this returns at its end.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        become_the_cleaner(doomed.as_deref())
    });
    work(&folder)
}

fn wait_for_the_other(keeps_folder: bool) -> Result<(), Failure> {
    let mut other = Command::new(MARK_ITSELF)
        .arg0(GUARDED)
        .args(env::args_os().skip(1))
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::new(format!("cannot start: {error}")))?;
    // `wait` would close it.
    let lifeline = other.stdin.take();
    let status = other.wait().map_err(Failure::new)?;
    drop(lifeline);
    let folder = folder_of(other.id());
    clean_up((!keeps_folder).then_some(folder.as_path()));
    exit(status)
}

fn exit(status: ExitStatus) -> Result<(), Failure> {
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(Failure { message: String::new(), code: u8::try_from(code).unwrap_or(1) }), // told already
        None => Err(Failure::new(format!("ended before its time ({status})"))),
    }
}

fn become_the_cleaner(folder: Option<&Path>) {
    // Returns only if it cannot; then the folder stays, and the programs die with us.
    let error = Command::new(MARK_ITSELF).arg0("mark").arg("clean-up").args(folder).exec();
    eprintln!("mark: cannot clean up: {error}");
    std::process::exit(1)
}

/// `mark clean-up [FOLDER]`: kills every descendant, and removes the folder.
pub fn clean_up(folder: Option<&Path>) {
    process::sweep_orphans();
    let Some(folder) = folder else { return };
    let deadline = Instant::now() + REMOVAL;
    while fs::remove_dir_all(folder).is_err() && folder.exists() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
}
