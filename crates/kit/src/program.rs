//! Programs, run as their users run them.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::mem;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Instant;

use crate::wait::{PATIENCE, comes_true};

/// What a server says, on either of its outputs, once it takes connections; the port follows.
const LISTENING: &str = "listening on ";

/// A program that runs. It is killed when dropped, and what it has said is shown if a test fails meanwhile.
#[derive(Debug)]
pub struct Program {
    /// The process. Outputs that are read are taken.
    pub child: Child,
    /// Where it listens; 0 until it has said so.
    pub port: u16,
    /// Locked by no thread: with it, threads may share what runs.
    log: Mutex<Receiver<String>>,
    seen: Vec<String>,
    name: String,
}

impl Program {
    /// Starts a server in `folder`, and waits until it listens.
    pub fn start(program: &str, arguments: &[&str], folder: &Path) -> Self {
        Self::start_with(program, arguments, folder, "info")
    }

    /// The same with another `RUST_LOG`.
    pub fn start_with(program: &str, arguments: &[&str], folder: &Path, log_level: &str) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(folder).env("RUST_LOG", log_level).stdin(Stdio::null());
        let mut started = Self::spawn(command);
        started.wait_until_it_listens();
        started
    }

    /// Starts any command, and waits for nothing.
    pub fn spawn(mut command: Command) -> Self {
        command.stderr(Stdio::piped());
        let (mut program, lines) = Self::spawn_reading_stdout(command);
        forward(program.child.stderr.take().expect("piped"), lines);
        program
    }

    /// The same, but only its stdout is read. Its stderr goes where `command` sends it; a pipe's end stays in `child`.
    pub fn spawn_with_own_stderr(command: Command) -> Self {
        Self::spawn_reading_stdout(command).0
    }

    /// Returns the program, and where further lines of its log go.
    fn spawn_reading_stdout(mut command: Command) -> (Self, Sender<String>) {
        let started = command.stdout(Stdio::piped()).spawn();
        let mut child = started.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (lines, log) = channel();
        forward(child.stdout.take().expect("piped"), lines.clone());
        let name = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
        (Self { child, port: 0, log: Mutex::new(log), seen: Vec::new(), name }, lines)
    }

    /// Waits until a server says where it listens.
    #[track_caller]
    pub fn wait_until_it_listens(&mut self) {
        assert!(self.comes_to_listen(), "{} does not listen", self.name);
    }

    /// Whether a server says where it listens; waits for that, until it ends or [`PATIENCE`] does.
    pub fn comes_to_listen(&mut self) -> bool {
        let port = |line: &String| line.split_once(LISTENING)?.1.trim().parse().ok();
        if !self.comes_to_log(LISTENING) {
            return false;
        }
        self.port = self.seen.iter().find_map(port).expect("a port");
        self.name = format!("{} on {}", self.name, self.port);
        true
    }

    /// Has a thread pass each further line of the log to `hear`, until the program closes its outputs. From now on the
    /// other ways to look at the log see no new lines.
    pub fn follow(&mut self, hear: impl FnMut(String) + Send + 'static) {
        let log = mem::replace(&mut self.log, Mutex::new(channel().1));
        thread::spawn(move || log.into_inner().expect("never locked").into_iter().for_each(hear));
    }

    /// Sends it a signal, as `kill -NAME` does; nothing if it has ended. Signal "0" is none.
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {} 2> /dev/null", self.child.id());
        Command::new("sh").args(["-c", &kill]).status().expect("a shell");
    }

    /// Kills it, and waits until it has ended.
    pub fn kill(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The most memory that it has used so far, in MiB; 0 where the system does not tell.
    pub fn peak_memory_mib(&self) -> usize {
        self.status("VmHWM:").unwrap_or(0) / 1024
    }

    /// The memory that it uses now, in MiB; 0 where the system does not tell.
    pub fn memory_mib(&self) -> usize {
        self.status("VmRSS:").unwrap_or(0) / 1024
    }

    /// A number of Linux's `/proc/PID/status`: `VmRSS:` and its like are in KiB.
    pub fn status(&self, field: &str) -> Option<usize> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    }

    /// Waits until a line of the log holds `text`.
    #[track_caller]
    pub fn wait_for_log(&mut self, text: &str) {
        assert!(self.comes_to_log(text), "{} does not log {text:?}", self.name);
    }

    /// Whether a line of the log holds `text`; waits for one, until the program ends or [`PATIENCE`] does.
    pub fn comes_to_log(&mut self, text: &str) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let mut looked_at = 0;
        loop {
            if self.seen[looked_at..].iter().any(|line| line.contains(text)) {
                return true;
            }
            looked_at = self.seen.len();
            let log = self.log.get_mut().expect("never locked");
            match log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    /// What it has said, on both outputs.
    pub fn log_so_far(&mut self) -> &[String] {
        self.seen.extend(self.log.get_mut().expect("never locked").try_iter());
        &self.seen
    }

    /// Waits until it has ended by itself.
    #[track_caller]
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        let mut status = None;
        let has_ended = comes_true(PATIENCE, || {
            status = self.child.try_wait().expect("a child of ours");
            status.is_some()
        });
        assert!(has_ended, "{} does not end", self.name);
        status.expect("it has ended")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let log = self.log_so_far().join("\n");
            eprintln!("--- log of {}\n{log}", self.name);
        }
    }
}

/// Passes on what a program says, line by line, until it closes this output: a full pipe would stop it.
fn forward(output: impl Read + Send + 'static, lines: Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let _ = lines.send(String::from_utf8_lossy(&line).into_owned());
        }
    });
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null());
        Program::spawn(command)
    }

    #[test]
    fn a_server_is_known_by_the_port_that_it_says() {
        let mut server = shell("echo starting; echo 'listening on 4711'; exec sleep 1000");
        server.wait_until_it_listens();
        assert_eq!(server.port, 4711);
        assert_eq!(server.log_so_far(), ["starting", "listening on 4711"]);
        assert!(server.child.try_wait().unwrap().is_none(), "it goes on");
    }

    #[test]
    fn a_log_is_read_from_both_outputs_and_in_any_encoding() {
        let mut program = shell(r"printf 'one\n' >&2; printf '\377two\n'; exit 3");
        assert!(program.comes_to_log("two") && program.comes_to_log("one"));
        assert!(!program.comes_to_log("three"), "it has ended without");
        assert_eq!(program.wait_for_exit().code(), Some(3));
    }

    #[test]
    fn further_lines_are_passed_on_and_an_own_stderr_is_not_read() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo listening on 1; echo aside >&2; echo two; echo three"]).stderr(Stdio::null());
        let mut program = Program::spawn_with_own_stderr(command);
        program.wait_until_it_listens();
        let (heard, lines) = channel();
        program.follow(move |line| heard.send(line).unwrap());
        assert_eq!(lines.into_iter().collect::<Vec<_>>(), ["two", "three"]);
        assert!(!program.comes_to_log("two"), "it is passed on");
    }

    #[test]
    fn a_program_that_is_dropped_has_ended() {
        let program = shell("echo here; exec sleep 1000");
        let process = format!("/proc/{}", program.child.id());
        drop(program);
        assert!(!Path::new(&process).exists());
    }
}

/// Whether all of these programs are installed. If one is not, says that what needs it is skipped.
pub fn has_tools(names: &[&str]) -> bool {
    let is_missing = |name: &&&str| Command::new(name).arg("--version").output().is_err();
    let missing = names.iter().find(is_missing);
    if let Some(name) = missing {
        eprintln!("SKIPPED: {name} is not installed");
    }
    missing.is_none()
}
