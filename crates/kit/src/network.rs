//! A network of machines on this one: Linux's network namespaces, with a cable from each to a switch.
//!
//! A namespace is there for as long as a process is in it. Each is held by a `cat` that ends with its stdin, and so with the
//! process that has made the network, however that ends: nothing is left behind. All belong to a user namespace, which needs
//! no privilege on most systems; no name and no address is seen from outside, so that tests do not clash.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::folder::TempFolder;
use crate::program::has_tools;

/// What a process says once it holds its namespace.
const READY: &str = "ready";

/// A switch, and the machines that are connected to it. They share the files of this machine, but for `/etc/hosts`.
#[derive(Debug)]
pub struct Network {
    switch: Namespace,
    /// What `/etc/hosts` and `/etc/resolv.conf` are in there.
    files: TempFolder,
    machines: u8,
}

/// A machine of a [`Network`].
#[derive(Debug)]
pub struct Machine {
    namespace: Namespace,
    /// The switch's end of its cable, and the process that holds the switch.
    end: String,
    switch: u32,
    /// Where the others reach it.
    pub address: Ipv4Addr,
}

/// A process that does nothing in namespaces of its own, which end with it.
#[derive(Debug)]
struct Namespace(Child);

impl Network {
    /// A switch without machines, whose `/etc/hosts` is empty; `None`, which says why, if this machine does not permit it.
    pub fn new() -> Option<Self> {
        if !has_tools(&["unshare", "nsenter", "ip", "mount"]) {
            return None;
        }
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", "--mount"]);
        let made = Namespace::hold(command).and_then(|switch| {
            let files = TempFolder::new();
            // No name server is there; a name that hosts does not have is refused at once.
            for (name, text) in [("hosts", ""), ("resolv.conf", "nameserver 127.0.0.1\n")] {
                let file = files.path().join(name);
                fs::write(&file, text).map_err(|error| error.to_string())?;
                switch.run(&["mount", "--bind", path(&file), &format!("/etc/{name}")])?;
            }
            switch.run(&["ip", "link", "set", "lo", "up"])?;
            switch.run(&["ip", "link", "add", "name", "switch", "type", "bridge"])?;
            switch.run(&["ip", "link", "set", "switch", "up"])?;
            Ok(Self { switch, files, machines: 0 })
        });
        made.inspect_err(|why| eprintln!("SKIPPED: there may be no network namespaces here: {why}")).ok()
    }

    /// Another machine, with an address of its own and a way to all others.
    #[track_caller]
    pub fn machine(&mut self) -> Machine {
        self.machines += 1;
        let (address, end) = (Ipv4Addr::new(10, 9, 0, self.machines), format!("port{}", self.machines));
        let machine = self.connect(address, end);
        machine.unwrap_or_else(|why| panic!("no machine: {why}"))
    }

    fn connect(&self, address: Ipv4Addr, end: String) -> Result<Machine, String> {
        let mut command = self.switch.command("unshare");
        command.arg("--net");
        let namespace = Namespace::hold(command)?;
        let holder = namespace.0.id().to_string();
        let cable = ["ip", "link", "add", "name", &end, "type", "veth", "peer", "name", "cable", "netns", &holder];
        self.switch.run(&cable)?;
        self.switch.run(&["ip", "link", "set", &end, "master", "switch", "up"])?;
        namespace.run(&["ip", "address", "add", &format!("{address}/24"), "dev", "cable"])?;
        namespace.run(&["ip", "link", "set", "cable", "up"])?;
        namespace.run(&["ip", "link", "set", "lo", "up"])?;
        // Broadcasts to all go there, too.
        namespace.run(&["ip", "route", "add", "default", "dev", "cable"])?;
        Ok(Machine { namespace, end, switch: self.switch.0.id(), address })
    }

    /// Gives machines these names, in place of all names before.
    #[track_caller]
    pub fn name(&self, names: &[(&str, Ipv4Addr)]) {
        let lines: String = names.iter().map(|(name, address)| format!("{address} {name}\n")).collect();
        // Into the same file: it is this one that is seen as /etc/hosts.
        fs::write(self.files.path().join("hosts"), format!("127.0.0.1 localhost\n{lines}")).expect("a file of ours");
    }
}

impl Machine {
    /// A command that runs there. Its process is that of the program.
    pub fn command(&self, program: &str) -> Command {
        self.namespace.command(program)
    }

    /// Pulls its cable out of the switch: what is sent to it or by it is lost, and neither end is told.
    #[track_caller]
    pub fn unplug(&self) {
        self.set_cable("down");
    }

    /// Puts the cable back.
    #[track_caller]
    pub fn plug(&self) {
        self.set_cable("up");
    }

    #[track_caller]
    fn set_cable(&self, state: &str) {
        let set = run(enter(self.switch, "ip").args(["link", "set", &self.end, state]));
        set.unwrap_or_else(|why| panic!("{}: {why}", self.end));
    }
}

impl Namespace {
    /// Those that `command`, which runs another one in them, makes.
    fn hold(mut command: Command) -> Result<Self, String> {
        command.args(["sh", "-c", &format!("echo {READY}; exec cat")]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        let mut line = String::new();
        let read = BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line);
        if read.is_ok() && line.trim_end() == READY {
            return Ok(Self(child));
        }
        let ended = child.wait_with_output().map_err(|error| error.to_string())?;
        Err(String::from_utf8_lossy(&ended.stderr).trim().to_owned())
    }

    fn command(&self, program: &str) -> Command {
        enter(self.0.id(), program)
    }

    fn run(&self, words: &[&str]) -> Result<(), String> {
        run(self.command(words[0]).args(&words[1..]))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command in the namespaces of a process.
fn enter(holder: u32, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--user", "--net", "--mount", "--preserve-credentials", "--target", &holder.to_string(), program]);
    command
}

/// Runs a command to its end, which is to be a good one.
fn run(command: &mut Command) -> Result<(), String> {
    let Output { status, stderr, .. } = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {}", String::from_utf8_lossy(&stderr).trim())) }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path of ours")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_reach_each_other_by_name_until_a_cable_is_pulled() {
        let Some(mut network) = Network::new() else { return };
        if !has_tools(&["python3"]) {
            return;
        }
        let (one, two) = (network.machine(), network.machine());
        network.name(&[("one", one.address), ("two", two.address)]);
        let server = "import socket; s = socket.create_server(('', 7)); print('up', flush=True)\nwhile True: s.accept()[0].close()";
        let mut server = Namespace(one.command("python3").args(["-c", server]).stdout(Stdio::piped()).spawn().unwrap());
        BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
        let reaches = |name: &str, seconds: f32| {
            let connect = format!("import socket; socket.create_connection(('{name}', 7), {seconds}).close()");
            run(two.command("python3").args(["-c", &connect]))
        };
        assert_eq!(reaches("one", 20.0), Ok(()));
        let unknown = reaches("three", 20.0).unwrap_err();
        assert!(unknown.contains("gaierror"), "{unknown}");
        one.unplug();
        reaches("one", 0.3).unwrap_err();
        one.plug();
        assert_eq!(reaches("one", 20.0), Ok(()));
    }

    #[test]
    fn nothing_is_left_of_a_network() {
        let Some(mut network) = Network::new() else { return };
        let machine = network.machine();
        let holders = [machine.namespace.0.id(), network.switch.0.id()];
        let are_there = |holder: &u32| Path::new(&format!("/proc/{holder}")).exists();
        assert!(holders.iter().all(are_there));
        drop((machine, network));
        assert!(!holders.iter().any(are_there));
    }
}
