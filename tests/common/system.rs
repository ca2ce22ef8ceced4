//! A Controller and Dstores as programs, and an honest client that sees to it that they go on serving.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use stevedore::client::Client;
use stevedore::protocol::Connection;

use super::program::Program;
use super::{PATIENCE, TempFolder, bytes};

/// All of it ends when dropped.
pub struct System {
    pub dstores: Vec<Program>,
    pub controller: Program,
    pub folder: TempFolder,
    timeout_ms: u64,
}

impl System {
    /// `start` is what a shell does before it becomes the Controller; see [`program`].
    pub fn start(start: &str, replicas: usize, timeout_ms: u64, period_s: u64) -> Self {
        Self::start_with(start, replicas, timeout_ms, period_s, &[])
    }

    /// The same, with further options for the Controller.
    pub fn start_with(start: &str, replicas: usize, timeout_ms: u64, period_s: u64, options: &[&str]) -> Self {
        let folder = TempFolder::new();
        let mut arguments = vec!["0".into(), replicas.to_string(), timeout_ms.to_string(), period_s.to_string()];
        arguments.extend(options.iter().map(ToString::to_string));
        let controller = program(start, env!("CARGO_BIN_EXE_controller"), &arguments, &folder);
        Self { dstores: Vec::new(), controller, folder, timeout_ms }
    }

    /// An honest Dstore joins; returns its number, which its folder is called by.
    pub fn join(&mut self, start: &str) -> usize {
        let number = self.dstores.len();
        let arguments = ["0".into(), self.controller.port.to_string(), self.timeout_ms.to_string(), number.to_string()];
        let dstore = program(start, env!("CARGO_BIN_EXE_dstore"), &arguments, &self.folder);
        self.controller.wait_for_log(&format!("[New Dstore {} ", dstore.port));
        self.dstores.push(dstore);
        number
    }

    /// One without tricks, with two Dstores and two copies of each file.
    pub fn ordinary() -> Self {
        let mut system = Self::start("", 2, 10_000, 0);
        system.join("");
        system.join("");
        system
    }

    pub fn files_of(&self, dstore: usize) -> PathBuf {
        self.folder.path().join(dstore.to_string())
    }

    pub fn client(&self) -> Client {
        Client::connect(loopback(self.controller.port), PATIENCE).unwrap()
    }

    /// A new client stores, loads, lists and removes as the spec says; returns how long the longest of these took.
    pub fn serves(&self) -> Duration {
        let mut client = self.client();
        let content = bytes(1, 10_000);
        let mut longest = Duration::ZERO;
        let mut timed = |step: &mut dyn FnMut()| {
            let begun = Instant::now();
            step();
            longest = longest.max(begun.elapsed());
        };
        timed(&mut || client.store_bytes("honest", &content).unwrap());
        timed(&mut || assert_eq!(client.load_bytes("honest").unwrap(), content));
        timed(&mut || assert!(client.list().unwrap().iter().any(|name| name.as_str() == "honest")));
        timed(&mut || client.remove("honest").unwrap());
        longest
    }
}

/// Starts a server in `folder` by way of a shell, which does `start` first: `ulimit -n 40;` or `unshare ... --` if it
/// ends in a command's beginning.
fn program(start: &str, program: &str, arguments: &[String], folder: &TempFolder) -> Program {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{start} exec \"$0\" \"$@\""), program]).args(arguments);
    command.current_dir(folder.path()).env("RUST_LOG", "info").stdin(Stdio::null());
    let mut program = Program::spawn(command);
    program.wait_until_it_listens();
    program
}

/// A bare connection, for any bytes that a test wants to send.
pub fn connect(port: u16) -> Connection {
    Connection::connect(loopback(port), PATIENCE).unwrap()
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
