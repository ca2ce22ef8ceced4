//! The built programs, run as their users run them.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Instant;

use super::PATIENCE;

/// A program that is running, killed when dropped. What it has said is shown if the test fails.
pub struct Program {
    pub child: Child,
    /// Where it listens.
    pub port: u16,
    log: Receiver<String>,
    seen: Vec<String>,
    name: String,
}

impl Program {
    /// Starts a server in `folder`, and waits until it says where it listens.
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

    /// Waits until a server says where it listens.
    pub fn wait_until_it_listens(&mut self) {
        self.wait_for_log("listening on ");
        let said = self.seen.iter().find_map(|line| line.split_once("listening on "));
        self.port = said.and_then(|(_, port)| port.parse().ok()).expect("a port");
        self.name = format!("{} on {}", self.name, self.port);
    }

    /// Runs any command, and waits for nothing.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (lines, log) = channel();
        forward(child.stderr.take().unwrap(), lines.clone());
        forward(child.stdout.take().unwrap(), lines);
        let name = Path::new(command.get_program()).file_name().unwrap().to_string_lossy().into_owned();
        Self { child, port: 0, log, seen: Vec::new(), name }
    }

    /// Sends it a signal, as `kill` does; nothing if it has ended.
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {} 2> /dev/null", self.child.id());
        Command::new("sh").args(["-c", &kill]).status().unwrap();
    }

    /// The most memory that it has used so far, in MiB; 0 where the system does not tell.
    pub fn peak_memory_mib(&self) -> usize {
        self.status_mib("VmHWM:")
    }

    /// The memory that it uses now, in MiB; 0 where the system does not tell.
    pub fn memory_mib(&self) -> usize {
        self.status_mib("VmRSS:")
    }

    fn status_mib(&self, field: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let value = status.lines().find_map(|line| line.strip_prefix(field));
        value.and_then(|kb| kb.trim().trim_end_matches(" kB").parse::<usize>().ok()).unwrap_or(0) / 1024
    }

    /// Waits until a line of the log holds `text`.
    pub fn wait_for_log(&mut self, text: &str) {
        assert!(self.comes_to_log(text), "{} does not log {text:?}", self.name);
    }

    /// The same for what may not come; false if it does not, or the program ends without it.
    pub fn comes_to_log(&mut self, text: &str) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let mut looked_at = 0;
        loop {
            if self.seen[looked_at..].iter().any(|line| line.contains(text)) {
                return true;
            }
            looked_at = self.seen.len();
            match self.log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    /// What it has said.
    pub fn log_so_far(&mut self) -> &[String] {
        self.seen.extend(self.log.try_iter());
        &self.seen
    }

    /// Waits until it has ended.
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "{} does not end", self.name);
            thread::yield_now();
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = self.log_so_far().join("\n");
            eprintln!("--- log of {}\n{log}", self.name);
        }
    }
}

/// Sends on what a program says, line by line; a pipe that nobody empties would stop it.
fn forward(output: impl Read + Send + 'static, lines: Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let _ = lines.send(line);
        }
    });
}
