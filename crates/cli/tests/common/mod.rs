//! The program as a process: servers that run, and commands that use them.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::thread;

use kit::{Program, TempFolder, eventually};
use parking_lot::Mutex;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;

/// The program.
pub const STEVEDORE: &str = env!("CARGO_BIN_EXE_stevedore");

/// What a server says last of all when it has started.
const STARTED: &str = "  stevedore status";

/// Starts a server, and waits until it has started.
pub fn start(words: &[&str]) -> Program {
    let mut server = spawn(words);
    server.wait_for_log(STARTED);
    server
}

/// Starts a server, and waits for nothing.
pub fn spawn(words: &[&str]) -> Program {
    let mut command = Command::new(STEVEDORE);
    command.args(words).env_remove("STEVEDORE_CLUSTER").env("RUST_LOG", "info").stdin(Stdio::null());
    Program::spawn(command)
}

/// A user of a store.
pub struct User {
    /// The folder with the `client.toml`.
    pub cluster: PathBuf,
}

impl User {
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(STEVEDORE);
        command.args(words).env("STEVEDORE_CLUSTER", &self.cluster).env_remove("RUST_LOG").stdin(Stdio::null());
        command
    }

    /// Runs a command to its end, whatever that is.
    pub fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Runs a command that is to work; what it prints.
    #[track_caller]
    pub fn ok(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {} {errors}", output.status);
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs a command that is to fail; its exit code, and what it says.
    #[track_caller]
    pub fn fails(&self, words: &[&str]) -> (i32, String) {
        let output = self.run(words);
        assert!(!output.status.success(), "{words:?} works");
        (output.status.code().expect("no signal"), String::from_utf8(output.stderr).expect("text"))
    }

    /// Runs a command that prints one JSON document.
    #[track_caller]
    pub fn json(&self, words: &[&str]) -> Value {
        let printed = self.ok(words);
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{words:?}: {error} in {printed}"))
    }

    /// Runs a command that prints a JSON document in each line.
    #[track_caller]
    pub fn json_lines(&self, words: &[&str]) -> Vec<Value> {
        let printed = self.ok(words);
        let read = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{words:?}: {error} in {line}"));
        printed.lines().map(read).collect()
    }

    /// Runs a command with these bytes on its stdin.
    #[track_caller]
    pub fn with_input(&self, words: &[&str], input: &[u8]) -> Output {
        let mut command = self.command(words);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().expect("piped");
        thread::scope(|scope| {
            // It may end before it has read all.
            scope.spawn(move || stdin.write_all(input));
            child.wait_with_output().unwrap()
        })
    }
}

/// A command on a terminal of its own.
pub struct OnTerminal {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<String>>,
}

impl OnTerminal {
    pub fn start(mut command: Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let terminal = OpenOptions::new().read(true).write(true).open(path).unwrap();
        command.env("TERM", "xterm");
        command.stdin(terminal.try_clone().unwrap()).stdout(terminal.try_clone().unwrap()).stderr(terminal);
        let child = command.spawn().unwrap();
        drop(command); // its ends of the terminal
        let keyboard = File::from(master);
        let screen = Arc::<Mutex<String>>::default();
        let (mut output, shown) = (keyboard.try_clone().unwrap(), Arc::clone(&screen));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut buffer) {
                shown.lock().push_str(&String::from_utf8_lossy(&buffer[..read]));
            }
        });
        Self { child, keyboard, screen }
    }

    /// Waits until this is on the screen.
    pub fn shows(&self, text: &str) {
        eventually(text, || self.screen.lock().contains(text));
    }

    /// All that was ever shown.
    pub fn screen(&self) -> String {
        self.screen.lock().clone()
    }

    pub fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("it ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.expect("it has ended")
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- the screen\n{}", self.screen.lock());
        }
    }
}

/// A Controller without Dstores: enough for all that moves no bytes.
pub struct Lone {
    pub server: Program,
    pub user: User,
    pub folder: TempFolder,
}

impl Lone {
    pub fn start() -> Self {
        let folder = TempFolder::new();
        let data = folder.path().join("data");
        let server = start(&["controller", "--port", "0", "--sync", "never", "--data", text(&data)]);
        Self { server, user: User { cluster: data }, folder }
    }
}

/// A path of ours as text.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ours")
}

/// A whole store in one process, on free ports.
pub struct Whole {
    pub server: Program,
    pub user: User,
    pub folder: TempFolder,
    words: Vec<String>,
}

impl Whole {
    /// With so many folders, and one Controller. `sync` is when something counts as kept.
    pub fn start(folders: usize, sync: &str) -> Self {
        Self::start_with(folders, 1, sync)
    }

    /// With so many folders and Controllers.
    pub fn start_with(folders: usize, controllers: usize, sync: &str) -> Self {
        Self::start_as(folders, controllers, sync, &["--no-gateway"])
    }

    /// With a gateway.
    pub fn with_gateway(folders: usize) -> Self {
        Self::start_as(folders, 1, "never", &["--http", "0", "--s3", "0"])
    }

    /// With so many folders and Controllers, and these options.
    pub fn with(folders: usize, controllers: usize, options: &[&str]) -> Self {
        Self::start_as(folders, controllers, "never", options)
    }

    fn start_as(folders: usize, controllers: usize, sync: &str, gateway: &[&str]) -> Self {
        let folder = TempFolder::new();
        let mut words: Vec<String> =
            ["serve", "--controller-port", "0", "--dstore-port", "0", "--sync", sync].map(str::to_owned).into();
        words.extend(gateway.iter().map(|&word| word.to_owned()));
        words.extend(["--controllers".to_owned(), controllers.to_string()]);
        words.extend((1..=folders).map(|number| text(&folder.path().join(format!("disk{number}"))).to_owned()));
        let server = Self::serve(&words);
        let user = User { cluster: folder.path().join("disk1") };
        Self { server, user, folder, words }
    }

    fn serve(words: &[String]) -> Program {
        start(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Kills it as a power cut would, but for what the system has in memory, and starts it again.
    pub fn kill_and_start(&mut self) {
        self.server.kill();
        self.server = Self::serve(&self.words);
    }

    /// Has it end in order, and starts it again.
    #[track_caller]
    pub fn end_and_start(&mut self) {
        self.server.signal("TERM");
        assert!(self.server.wait_for_exit().success(), "a server that is asked to end has done its job");
        self.server = Self::serve(&self.words);
    }

    /// What it was started with.
    pub fn words(&self) -> Vec<&str> {
        self.words.iter().map(String::as_str).collect()
    }

    /// A place for local files, beside those of the store.
    pub fn local(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// A gateway beside a store, in a process of its own.
pub struct Gateway {
    pub program: Program,
}

impl Gateway {
    /// With these options, and without S3.
    pub fn start(user: &User, options: &[&str]) -> Self {
        let mut program =
            spawn(&[&["gateway", "--cluster", text(&user.cluster), "--http", "0", "--no-s3"], options].concat());
        program.wait_for_log("In another terminal");
        Self { program }
    }

    /// Where it says that a way in is: what is behind its name.
    pub fn place(&mut self, name: &str) -> String {
        let lines = self.program.log_so_far().iter();
        let found = lines.filter_map(|line| line.split_once(&format!("  {name} "))).next_back();
        found.unwrap_or_else(|| panic!("no {name}")).1.trim().to_owned()
    }
}

/// Python with packages, if it has this module: `.ci/run` says where by STEVEDORE_PYTHON. Else says that the test is skipped.
pub fn python(module: &str) -> Option<PathBuf> {
    let python = std::env::var_os("STEVEDORE_PYTHON").map(|folder| PathBuf::from(folder).join("bin/python"));
    let has_it = |python: &PathBuf| {
        let import = Command::new(python).args(["-c", &format!("import {module}")]).stderr(Stdio::null()).status();
        import.is_ok_and(|status| status.success())
    };
    let found = python.filter(has_it);
    if found.is_none() {
        eprintln!("SKIPPED: there is no Python with {module} in STEVEDORE_PYTHON");
    }
    found
}

/// A program that is killed after ten minutes, which is longer than anything takes: foreign clients wait without limits.
pub fn limited(program: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", "600"]).arg(program);
    command
}

/// Runs a script of `tests/python` to its end, which is to be a good one; what it prints.
#[track_caller]
pub fn run_script(python: &Path, name: &str, words: &[&str]) -> String {
    let output = script(python, name, words);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {words:?}: {errors}");
    String::from_utf8(output.stdout).expect("text")
}

/// Runs a script of `tests/python` to its end, whatever that is.
pub fn script(python: &Path, name: &str, words: &[&str]) -> Output {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python");
    let mut command = limited(python);
    command.arg("-B").arg(folder.join(name)).args(words).stdin(Stdio::null()).env("PYTHONUTF8", "1");
    command.env("no_proxy", "*").output().expect("Python starts")
}

/// Waits until the Controller knows so many Dstores to be there.
pub fn wait_for_dstores(user: &User, count: usize) {
    eventually("the Dstores are there", || {
        let status = user.json(&["status", "--json"]);
        let dstores = status["dstores"].as_array().cloned().unwrap_or_default();
        dstores.iter().filter(|dstore| dstore["state"] == "present").count() >= count
    });
}
