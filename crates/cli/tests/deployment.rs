//! docs/deployment.md does what it says: its commands for plain machines are run, on three addresses of this machine; and what
//! deploy/ has for others is what they accept.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use argh::FromArgs;
use common::{STEVEDORE, text};
use kit::{PATIENCE, Program, TempFolder, comes_true, eventually, has_tools};
use serde_json::Value;

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const PAGE: &str = include_str!("../../../docs/deployment.md");
const MACHINES: [&str; 3] = ["one", "two", "three"];

/// Three machines of the page: an address and a root folder each.
struct Machines {
    folder: TempFolder,
    /// What stands for `10.0.0` on the page.
    network: String,
    /// What runs, by machine and role.
    servers: BTreeMap<(String, String), Program>,
    /// What was started in the background of a shell.
    background: Vec<Program>,
    /// What was exported, as a shell remembers it.
    exported: Vec<(String, String)>,
    /// What the page has as an example, and what it is here.
    examples: Vec<(&'static str, String)>,
}

impl Machines {
    fn new() -> Self {
        // All of 127.0.0.0/8 is this machine. Processes that run tests at the same time have other numbers.
        static MADE: AtomicU32 = AtomicU32::new(0);
        let (id, made) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let network = format!("127.{}.{}", 64 * (made + 1) + id / 256 % 64, id % 256);
        let (folder, servers, background) = (TempFolder::new(), BTreeMap::new(), Vec::new());
        Self { folder, network, servers, background, exported: Vec::new(), examples: Vec::new() }
    }

    /// The store of the section "Three machines", made by what it says.
    fn as_the_page_begins() -> Self {
        let mut machines = Self::new();
        for (kind, block) in blocks("Three machines") {
            match kind {
                "toml" => machines.configure_all(block),
                _ => machines.type_block(block),
            }
        }
        machines
    }

    fn configure_all(&self, config: &str) {
        for (number, machine) in MACHINES.iter().enumerate() {
            self.configure(machine, number + 1, config);
        }
    }

    fn type_block(&mut self, block: &str) {
        for line in block.lines() {
            let (prompt, line) = line.split_once("# ").expect("a prompt");
            let on = if prompt == "all" { &MACHINES[..] } else { &[prompt] };
            on.iter().for_each(|machine| self.type_in(machine, line));
        }
    }

    /// A user of machine three, with what the page put there.
    fn user(&self) -> common::User {
        common::User { cluster: self.root("three").join("etc/stevedore") }
    }

    fn gets_first(&self) {
        let got = self.folder.path().join("got");
        let _ = fs::remove_file(&got); // the first time there is none
        eventually("it is got", || self.user().run(&["get", "/first", text(&got)]).status.success());
        assert!(fs::read(&got).unwrap() == fs::read(STEVEDORE).unwrap());
    }

    /// Ends a server in order, as systemd does.
    fn stop(&mut self, machine: &str, role: &str) {
        let mut server = self.servers.remove(&(machine.into(), role.into())).expect("it runs");
        server.signal("TERM");
        // One of several Controllers that finds no majority is cut short after 2 s, and says so by its exit code.
        server.wait_for_exit();
    }

    fn start(&mut self, machine: &str, role: &str) {
        let mut command = self.as_the_unit_says(machine, role);
        command.env_remove("STEVEDORE_CLUSTER").env("RUST_LOG", "warn").stdin(Stdio::null());
        self.servers.insert((machine.into(), role.into()), Program::spawn(command));
    }

    /// A disk is lost: there is another one in its place.
    fn empty(&self, machine: &str, folder: &str) {
        let folder = self.root(machine).join(folder);
        fs::remove_dir_all(&folder).unwrap();
        fs::create_dir_all(&folder).unwrap();
    }

    fn root(&self, machine: &str) -> PathBuf {
        self.folder.path().join(machine)
    }

    /// What the page says, as it is on a machine.
    fn there(&self, machine: &str, text_of_page: &str) -> String {
        let root = text(&self.root(machine)).to_owned();
        let program = format!("{root}/usr/local/bin/stevedore");
        let mut there = text_of_page.replace("10.0.0", &self.network);
        there = there.replace("/usr/local/bin/stevedore", &program);
        for folder in ["/etc/stevedore", "/srv/stevedore", "/tmp/backup", "/tmp/tried"] {
            there = there.replace(folder, &format!("{root}{folder}"));
        }
        for (example, here) in &self.examples {
            there = if there == *example { here.clone() } else { there };
        }
        there
    }

    /// The configuration of the page, with the machine's own address where it says that this is to be there.
    fn configure(&self, machine: &str, number: usize, config: &str) {
        let own = |line: &str| match line.starts_with("listen") || line.starts_with("admin") {
            true => line.replace("10.0.0.1", &format!("10.0.0.{number}")),
            false => line.to_owned(),
        };
        let config = config.lines().map(own).collect::<Vec<_>>().join("\n");
        fs::write(self.root(machine).join("etc/stevedore/servers.toml"), self.there(machine, &config)).unwrap();
    }

    /// Does what a line of the page says, on a machine. What only a superuser may do is done in a way that needs no rights.
    fn type_in(&mut self, machine: &str, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let root = self.root(machine);
        match words[..] {
            ["install", "-m", "755", "stevedore", folder] => {
                fs::create_dir_all(root.join(&folder[1..])).unwrap();
                fs::copy(STEVEDORE, root.join(&folder[1..]).join("stevedore")).unwrap();
            }
            ["install", "-m", "644", file, _] => assert!(Path::new(REPOSITORY).join(file).exists(), "{file}"),
            ["install", "-d", "-o", "stevedore", ref folders @ ..] => {
                folders.iter().for_each(|folder| fs::create_dir_all(self.there(machine, folder)).unwrap());
            }
            ["useradd" | "chown", ..] => {}
            ["scp", "-r", from, to] => {
                let (machine, parent) = to.split_once(':').unwrap();
                let to = self.root(machine).join(&parent[1..]);
                fs::create_dir_all(&to).unwrap();
                let copied = Command::new("cp").args(["-r", &format!("{}{from}", text(&root)), text(&to)]).status();
                assert!(copied.unwrap().success());
            }
            ["systemctl", "enable", "--now", ref units @ ..] | ["systemctl", ref units @ ..] => {
                let (verb, units) =
                    units.split_first().filter(|(verb, _)| !verb.contains('@')).unwrap_or((&"start", units));
                for unit in units {
                    let role = unit.strip_prefix("stevedore@").unwrap();
                    match *verb {
                        "start" => self.start(machine, role),
                        "stop" => self.stop(machine, role),
                        _ => panic!("systemctl {verb}"),
                    }
                }
            }
            ["export", assignment] => {
                let (name, value) = assignment.split_once('=').unwrap();
                self.exported.push((name.to_owned(), self.there(machine, value)));
            }
            // Not for tests; that it would find a WebDAV server there is looked at.
            ["mount", "-t", "davfs", url, _] => self.look(&self.there(machine, url)),
            ["timeout", _, "stevedore", ref rest @ .., "&"] => {
                let words = rest.iter().map(|word| self.there(machine, word));
                let mut command = Command::new(STEVEDORE);
                command.args(words).envs(self.exported.iter().cloned()).stdin(Stdio::null());
                self.background.push(Program::spawn(command));
            }
            ["runuser", "-u", "stevedore", "--", "stevedore", ref rest @ ..] | ["stevedore", ref rest @ ..] => {
                let words: Vec<String> = rest.iter().map(|word| self.there(machine, word)).collect();
                let mut said = String::new();
                let run = || {
                    let mut command = Command::new(STEVEDORE);
                    let output = command.args(&words).envs(self.exported.iter().cloned()).output().unwrap();
                    said = String::from_utf8_lossy(&output.stderr).into_owned();
                    output.status.success()
                };
                // A person repeats a command for which it was too early.
                assert!(comes_true(2 * PATIENCE, run), "{machine}# {line}: {said}");
            }
            _ => panic!("the test does not know what this line of the page does: {line}"),
        }
    }

    /// The command of the unit file.
    fn as_the_unit_says(&self, machine: &str, role: &str) -> Command {
        let unit = fs::read_to_string(format!("{REPOSITORY}/deploy/systemd/stevedore@.service")).unwrap();
        let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a command");
        let line = self.there(machine, &line.replace("%i", role));
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        command
    }

    /// A gateway speaks WebDAV there.
    fn look(&self, url: &str) {
        let address = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        eventually("WebDAV is spoken there", || {
            use std::io::{Read, Write};
            let Ok(mut stream) = std::net::TcpStream::connect(&address) else { return false };
            let asked = write!(stream, "OPTIONS / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
            let mut answer = String::new();
            asked.is_ok()
                && stream.read_to_string(&mut answer).is_ok()
                && answer.starts_with("HTTP/1.1 204")
                && answer.to_lowercase().contains("\ndav: 1")
        });
    }
}

/// The blocks of a section of the page, with what kind each is.
fn blocks(section: &str) -> Vec<(&'static str, &'static str)> {
    let (_, rest) = PAGE.split_once(&format!("\n## {section}\n")).expect("the section");
    let section = rest.split_once("\n## ").map_or(rest, |(section, _)| section);
    let fenced = section.split("```").skip(1).step_by(2);
    fenced.map(|block| block.split_once('\n').expect("a kind")).collect()
}

#[test]
fn the_page_makes_a_store_of_three_machines() {
    let mut machines = Machines::as_the_page_begins();
    // As the page promises: a machine is lost, and what was stored is there.
    machines.servers.retain(|(machine, _), _| machine != "one");
    machines.gets_first();
    eventually("the page's words", || {
        let said = machines.user().run(&["health", "--healed"]);
        !said.status.success() && String::from_utf8_lossy(&said.stderr).contains("1 Dstore is away")
    });
}

#[test]
fn the_page_makes_good_what_is_lost() {
    let mut machines = Machines::as_the_page_begins();
    let failures = blocks("When something fails");
    let [(_, disk), (_, machine), (_, two_of_three), (_, all)] = failures[..] else { panic!("four failures") };
    // The page's examples are the second Dstore, and a Controller: both of machine two.
    let numbers_of_two = |machines: &Machines| {
        let own = |list: &Value, port: u16| {
            let address = format!("{}.2:{port}", machines.network);
            let found = list.as_array().unwrap().iter().find(|one| one["address"] == address.as_str());
            let id = &found.expect("it is there")["id"];
            id.as_str().map_or_else(|| id.to_string(), str::to_owned)
        };
        let status = machines.user().json(&["status", "--json"]);
        vec![("2", own(&status["dstores"], 7100)), ("3add41956da121a9", own(&status["controllers"], 7000))]
    };
    machines.examples = numbers_of_two(&machines);
    for line in disk.lines() {
        if line.starts_with("two# install") {
            machines.empty("two", "srv/stevedore/disk1");
        }
        machines.type_block(line);
    }
    machines.gets_first();

    // The new machine has steps 1 to 3.
    machines.examples = numbers_of_two(&machines);
    machines.servers.retain(|(machine, _), _| machine != "two");
    fs::remove_dir_all(machines.root("two")).unwrap();
    let beginning = blocks("Three machines");
    beginning[0].1.lines().for_each(|line| machines.type_in("two", line.split_once("# ").expect("a prompt").1));
    let (first, others) = machine.split_once('\n').expect("lines");
    machines.type_block(first); // the files of another machine
    let config = beginning.iter().find(|(kind, _)| *kind == "toml").expect("a configuration").1;
    machines.configure("two", 2, config);
    machines.type_block(others);
    machines.gets_first();

    for lost in ["one", "two"] {
        machines.servers.remove(&(lost.into(), "controller".into()));
        machines.empty(lost, "srv/stevedore/controller");
        machines.start(lost, "controller");
    }
    machines.type_block(two_of_three);
    machines.gets_first();

    // It makes and reads a backup; the store goes on.
    fs::create_dir(machines.root("one").join("tmp")).unwrap();
    blocks("Backup and restore").into_iter().for_each(|(_, block)| machines.type_block(block));
    machines.gets_first();

    if !kit::hunt::is_long() {
        return eprintln!(
            "SKIPPED: STEVEDORE_LONG=1 waits for the first backup at the Dstores, a minute after the start"
        );
    }
    let backup = machines.root("one").join("srv/stevedore/disk1/data/dstore/backup");
    assert!(comes_true(4 * PATIENCE, || backup.exists()), "no backup");
    let (stop, rest) = all.split_once('\n').expect("lines");
    machines.type_block(stop);
    MACHINES.iter().for_each(|machine| machines.empty(machine, "srv/stevedore/controller"));
    machines.type_block(rest);
    machines.gets_first();
}

#[test]
fn the_unit_is_what_systemd_accepts_and_is_hardened() {
    if !has_tools(&["systemd-analyze"]) {
        return;
    }
    let folder = TempFolder::new();
    let unit = fs::read_to_string(format!("{REPOSITORY}/deploy/systemd/stevedore@.service")).unwrap();
    let path = folder.path().join("stevedore@dstore.service");
    fs::write(&path, unit.replace("/usr/local/bin/stevedore", STEVEDORE)).unwrap();
    // An exposure of 2.0 of 10 is the most.
    for words in [&["verify"][..], &["security", "--offline=true", "--threshold=20", "--no-pager"]] {
        let output = Command::new("systemd-analyze").args(words).arg(&path).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&said));
    }
}

#[test]
fn kubernetes_and_the_program_accept_what_is_deployed_there() {
    let python = std::env::var_os("STEVEDORE_PYTHON").map(|python| PathBuf::from(python).join("bin"));
    let Some(validate) = python.as_ref().map(|bin| bin.join("kubernetes-validate")).filter(|path| path.exists()) else {
        eprintln!("SKIPPED: there is no kubernetes-validate in $STEVEDORE_PYTHON");
        return;
    };
    if !has_tools(&["kubectl"]) {
        return;
    }
    let folder = TempFolder::new();
    let there = folder.path().join("kubernetes");
    fs::create_dir(&there).unwrap();
    for name in ["kustomization", "controllers", "dstores", "gateways"] {
        let file = format!("{name}.yaml");
        fs::copy(format!("{REPOSITORY}/deploy/kubernetes/{file}"), there.join(file)).unwrap();
    }
    let secret = there.join("secret");
    let drawn = Command::new(STEVEDORE).args(["secret", "draw", "--controllers", "a:7000", text(&secret)]).status();
    assert!(drawn.unwrap().success());
    let rendered = Command::new("kubectl").args(["kustomize", text(&there)]).output().unwrap();
    assert!(rendered.status.success(), "{}", String::from_utf8_lossy(&rendered.stderr));
    let path = folder.path().join("all.yaml");
    fs::write(&path, rendered.stdout).unwrap();
    let validated = Command::new(validate).args(["--strict", "--quiet", text(&path)]).output().unwrap();
    let said = String::from_utf8_lossy(&[validated.stdout, validated.stderr].concat()).into_owned();
    assert!(validated.status.success(), "{said}");
    // As JSON, which needs no further crate.
    let script = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let json =
        Command::new(python.expect("looked for").join("python")).args(["-c", script, text(&path)]).output().unwrap();
    let all: Vec<Value> = serde_json::from_slice(&json.stdout).unwrap();
    let pods = all.iter().filter_map(|one| one["spec"]["template"]["spec"].as_object());
    let mut commands = Vec::new();
    for container in pods.flat_map(|pod| pod["containers"].as_array().unwrap()) {
        let words = |list: &Value| -> Vec<String> {
            list.as_array().unwrap().iter().map(|word| word.as_str().unwrap().replace("$(POD_NAME)", "pod-0")).collect()
        };
        commands.push(words(&container["args"]));
        let probe = &container["readinessProbe"]["exec"]["command"];
        commands.extend((!probe.is_null()).then(|| words(probe)[1..].to_vec()));
    }
    assert_eq!(commands.len(), 4, "three kinds of servers, and a probe");
    for command in commands {
        let prepared = cli::words::prepare(command);
        let prepared: Vec<&str> = prepared.iter().map(String::as_str).collect();
        let read = cli::Arguments::from_args(&["stevedore"], &prepared);
        assert!(read.is_ok(), "{prepared:?}: {:?}", read.err());
    }
}
