//! The submission's programs: started in a corner of their own, with limits, and killed whole.
//!
//! A program is started through `mark launch`, which makes it the leader of a session of its own, limits it, and becomes it.
//! What it starts in turn is found by session and by a mark in the environment, wherever it has wandered; orphans are adopted by `mark`
//! (it is a subreaper), so that none outlives its check.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions};

use super::failure::Failure;

/// The name of the environment variable by which a run's processes are known.
const RUN_VARIABLE: &str = "STEVEDORE_MARK_RUN";

/// This program, also after its file has been replaced by a newer build.
pub const MARK_ITSELF: &str = "/proc/self/exe";

/// The last bytes of what a program prints are kept, for the report.
const KEPT_OUTPUT: usize = 16 << 10;

/// A program that prints more than this is killed.
const OUTPUT_LIMIT: u64 = 512 << 20;

/// Of processor time, for one process.
const CPU_LIMIT_S: u64 = 300;

/// For one file.
const FILE_LIMIT: u64 = 256 << 20;

const OPEN_FILES: u64 = 4_096;

/// So long the last words of a program that has ended are waited for. What it leaves running may keep its pipes open.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A program of the submission, running.
pub struct Process {
    child: Child,
    output: Arc<Output>,
    /// It has ended, and its last words have been waited for.
    is_over: bool,
}

#[derive(Default)]
struct Output {
    printed: Mutex<Printed>,
    /// Signalled when a pipe has been read to its end.
    pipe_ended: Condvar,
}

#[derive(Default)]
struct Printed {
    tail: VecDeque<u8>,
    total: u64,
    open_pipes: usize,
}

impl Process {
    /// Starts `words` in `folder`.
    pub fn start(words: &[String], folder: &Path, run: &str) -> Result<Self, Failure> {
        let mut child = launcher(words, folder, run)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| Failure::new("a process can be started", error))?;
        let output = Arc::<Output>::default();
        output.printed.lock().open_pipes = 2;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        collect(out.expect("a pipe"), &output, child.id());
        collect(err.expect("a pipe"), &output, child.id());
        Ok(Self { child, output, is_over: false })
    }

    /// Its id, which is also its session's and its group's.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Why it has ended, if it has; then all that it has printed has been read.
    pub fn end(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        if !self.is_over {
            let mut printed = self.output.printed.lock();
            self.output.pipe_ended.wait_while_for(&mut printed, |printed| printed.open_pipes > 0, LAST_WORDS);
            self.is_over = true;
        }
        Some(status.to_string())
    }

    /// Kills it and what it has started in its group, and waits for it.
    pub fn kill(&mut self) {
        signal_group(self.child.id(), Signal::KILL);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Stops or continues it: a program that hangs.
    pub fn signal(&self, signal: Signal) {
        signal_group(self.child.id(), signal);
    }

    /// The last of what it has printed.
    pub fn printed(&self) -> String {
        let printed = self.output.printed.lock();
        let (older, newer) = printed.tail.as_slices();
        String::from_utf8_lossy(&[older, newer].concat()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What starts `words` in `folder`, with limits, and as part of a run.
pub fn launcher(words: &[String], folder: &Path, run: &str) -> Command {
    let mut launcher = Command::new(MARK_ITSELF);
    launcher.arg0("mark").arg("launch").args(words).current_dir(folder).env(RUN_VARIABLE, run).stdin(Stdio::null());
    launcher
}

/// Reads what a program prints, so that it never waits, and keeps the last of it. Ends with the pipe.
fn collect(mut pipe: impl Read + Send + 'static, output: &Arc<Output>, pid: u32) {
    let output = Arc::clone(output);
    thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        while let Ok(read @ 1..) = pipe.read(&mut buffer) {
            let mut printed = output.printed.lock();
            printed.total += read as u64;
            printed.tail.extend(&buffer[..read]);
            let surplus = printed.tail.len().saturating_sub(KEPT_OUTPUT);
            printed.tail.drain(..surplus);
            if printed.total > OUTPUT_LIMIT {
                signal_group(pid, Signal::KILL);
            }
        }
        output.printed.lock().open_pipes -= 1;
        output.pipe_ended.notify_all();
    });
}

/// To all processes of a group.
pub fn signal_group(pid: u32, signal: Signal) {
    if let Some(pid) = pid_of(pid) {
        let _ = rustix::process::kill_process_group(pid, signal);
    }
}

fn pid_of(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

/// `mark launch PROGRAM ARGUMENT...`: limits itself, then becomes the program. Returns only if it cannot.
pub fn launch(words: &[String]) -> String {
    let Some((program, arguments)) = words.split_first() else { return "launch what?".into() };
    let limit = |resource, limit| {
        let _ = rustix::process::setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) });
    };
    let _ = rustix::process::setsid();
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    limit(Resource::Core, 0);
    limit(Resource::Cpu, CPU_LIMIT_S);
    limit(Resource::Fsize, FILE_LIMIT);
    limit(Resource::Nofile, OPEN_FILES);
    let error = Command::new(program).args(arguments).exec();
    format!("cannot run {program}: {error}")
}

/// Makes `mark` the one that orphans come to. Once, at the start.
pub fn adopt_orphans() {
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

/// A process as /proc shows it.
struct Seen {
    group: u32,
    is_dead: bool,
    resident_pages: u64,
}

/// The processes of some sessions, and whatever else carries `mark` in its environment.
fn members(sessions: &[u32], mark: Option<&[u8]>) -> BTreeMap<u32, Seen> {
    let Ok(entries) = fs::read_dir("/proc") else { return BTreeMap::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may hold anything.
        let words: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let (state, group, session) = (words.first()?, words.get(2)?.parse().ok()?, words.get(3)?.parse().ok()?);
        let is_ours = sessions.contains(&session) || mark.is_some_and(|mark| has_mark(pid, mark));
        let resident_pages = words.get(21).and_then(|pages| pages.parse().ok()).unwrap_or(0);
        is_ours.then_some((pid, Seen { group, is_dead: matches!(*state, "Z" | "X"), resident_pages }))
    })
    .collect()
}

fn has_mark(pid: u32, mark: &[u8]) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.windows(mark.len()).any(|window| window == mark)
}

/// How many processes these sessions have, and how many bytes of memory they use.
pub fn usage(sessions: &[u32]) -> (usize, u64) {
    let members = members(sessions, None);
    (members.len(), members.values().map(|seen| seen.resident_pages * 4096).sum())
}

/// Kills whatever is left of a run. Returns what had left its process group behind: its own children are
/// a program's affair, but nothing may try to stay.
pub fn sweep(run: &str, sessions: &[u32]) -> Vec<String> {
    let mark = format!("{RUN_VARIABLE}={run}\0");
    let mut strays = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let left: Vec<_> =
            members(sessions, Some(mark.as_bytes())).into_iter().filter(|(_, seen)| !seen.is_dead).collect();
        if left.is_empty() || Instant::now() > deadline {
            strays.extend(left.iter().map(|(pid, _)| format!("process {pid} cannot be killed")));
            return strays;
        }
        for (pid, seen) in left {
            if !sessions.contains(&seen.group) {
                let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                let stray = format!("process {pid} ({}) had left its group", name.trim());
                if strays.len() < 20 && !strays.contains(&stray) {
                    strays.push(stray);
                }
            }
            let Some(pid) = pid_of(pid) else { continue };
            let _ = rustix::process::kill_process(pid, Signal::KILL);
            thread::sleep(Duration::from_millis(1));
            // An orphan is our child now. A child that a `Process` owns is waited for there, before this.
            let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }
}

/// Kills every process that has come to `mark` as an orphan and carries no mark: the submission has cleaned its
/// environment and left the session. Only when no check runs any more: a check's own processes are children of `mark`, too.
pub fn sweep_orphans() -> Vec<String> {
    let mut strays = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let orphans = children();
        if orphans.is_empty() || Instant::now() > deadline {
            return strays;
        }
        for pid in orphans {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let Some(process) = pid_of(pid) else { continue };
            let _ = rustix::process::kill_process(process, Signal::KILL);
            // Killed, so it ends; whatever it has started comes to us next.
            let is_stray = !matches!(rustix::process::waitpid(Some(process), WaitOptions::empty()), Ok(None) | Err(_));
            if is_stray && strays.len() < 20 {
                strays.push(format!("process {pid} ({}) had hidden from its check", name.trim()));
            }
        }
    }
}

/// The processes whose parent is `mark`.
fn children() -> Vec<u32> {
    let own = std::process::id().to_string();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.split_whitespace().nth(1) == Some(&own))
    })
    .collect()
}
