//! A store of many machines: each in a network namespace of its own, with a cable that can be pulled. (depot 1.1, 6.2, 7)

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::process::{Command, Output, Stdio};

use common::{STEVEDORE, text};
use kit::{Machine, Network, PATIENCE, Program, TempFolder, comes_true, eventually, has_tools};
use serde_json::Value;

/// The exit code of a command that finds no Controller that can answer.
const UNAVAILABLE: i32 = 1;

/// A server, and the machine that it runs on.
struct Server {
    process: Option<Program>,
    machine: Machine,
}

/// Servers with names, and a user on a machine of their own.
struct Store {
    servers: BTreeMap<String, Server>,
    user: Machine,
    network: Network,
    folder: TempFolder,
    /// Where the Controllers are, with commas in between.
    controllers: String,
    replicas: u8,
}

/// What the program prints, and whether it has worked.
fn ran(mut command: Command) -> (bool, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.success(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

impl Store {
    /// So many Controllers, Dstores and a gateway, all there; `None` if this machine does not permit networks of its own.
    fn of(controllers: usize, dstores: usize, replicas: u8) -> Option<Self> {
        if !has_tools(&["curl"]) {
            return None;
        }
        let mut network = Network::new()?;
        let (user, folder) = (network.machine(), TempFolder::new());
        let names = (1..=controllers).map(|number| format!("c{number}"));
        let addresses = names.clone().map(|name| format!("{name}:7000")).collect::<Vec<_>>().join(",");
        let names = names.chain((1..=dstores).map(|number| format!("d{number}"))).chain(["gateway".into()]);
        let server = |name| (name, Server { process: None, machine: network.machine() });
        let servers = names.map(server).collect();
        let mut store = Self { servers, user, network, folder, controllers: addresses, replicas };
        let secret = store.folder.path().join("secret");
        let drawn = Command::new(STEVEDORE)
            .args(["secret", "draw", "--controllers", &store.controllers, text(&secret)])
            .output();
        assert!(drawn.unwrap().status.success());
        store.give_names();
        let names: Vec<String> = store.servers.keys().cloned().collect();
        names.iter().for_each(|name| store.start(name));
        eventually("all are there", || store.has_all());
        Some(store)
    }

    /// Each server is known by its name, wherever it is now.
    fn give_names(&self) {
        let names: Vec<(&str, Ipv4Addr)> =
            self.servers.iter().map(|(name, server)| (name.as_str(), server.machine.address)).collect();
        self.network.name(&names);
    }

    fn start(&mut self, name: &str) {
        let machine = &self.servers[name].machine;
        let (data, address) = (self.folder.path().join(name), machine.address.to_string());
        let replicas = self.replicas.to_string();
        let secret = self.folder.path().join("secret");
        let common = ["--listen", &address];
        let storing = ["--cluster", text(&secret), "--data", text(&data), "--advertise", name];
        let words = match name.as_bytes()[0] {
            b'c' if self.controllers.contains(',') => {
                [&["controller", "--replicas", &replicas, "--peers", &self.controllers], &storing[..]].concat()
            }
            b'c' => [&["controller", "--replicas", &replicas], &storing[..]].concat(),
            b'd' => [&["dstore", "--host", name], &storing[..]].concat(),
            _ => vec!["gateway", "--open", "--no-s3"],
        };
        let mut command = self.on(machine, &[&words[..], &common].concat());
        command.env("RUST_LOG", "info");
        self.servers.get_mut(name).unwrap().process = Some(Program::spawn(command));
    }

    /// Ends its process, which hears nothing of it before.
    fn kill(&mut self, name: &str) {
        self.servers.get_mut(name).unwrap().process = None;
    }

    /// The program on a machine.
    fn on(&self, machine: &Machine, words: &[&str]) -> Command {
        let mut command = machine.command(STEVEDORE);
        command.args(words).env("STEVEDORE_CLUSTER", self.folder.path().join("secret"));
        command.env_remove("RUST_LOG").stdin(Stdio::null());
        command
    }

    fn machine(&self, name: &str) -> &Machine {
        &self.servers[name].machine
    }

    /// Has the user do something with the program.
    fn user(&self, words: &[&str]) -> (bool, String) {
        ran(self.on(&self.user, words))
    }

    /// What the leader says; nothing if none is reached.
    fn status(&self) -> Value {
        serde_json::from_str(&self.user(&["status", "--json"]).1).unwrap_or_default()
    }

    /// Whether all servers are there, and all copies made.
    fn has_all(&self) -> bool {
        let status = self.status();
        let count = |what: &str, is: fn(&Value) -> bool| {
            status[what].as_array().into_iter().flatten().filter(|one| is(one)).count()
        };
        let begins_with = |first: char| self.servers.keys().filter(|name| name.starts_with(first)).count();
        let votes = |one: &Value| one["role"] == "leader" || one["role"] == "follower";
        count("controllers", votes) == begins_with('c')
            && count("dstores", |one| one["state"] == "present") == begins_with('d')
            && self.user(&["health", "--healed"]).0
            && self.asks_gateway(&["http://gateway:8080/"]).0
    }

    /// The name of the Controller that leads, once one does.
    fn leader(&self) -> String {
        let mut found = None;
        eventually("one leads", || {
            let status = self.status();
            let leads = |one: &&Value| one["is_leader"] == true;
            let leader = status["controllers"].as_array().into_iter().flatten().find(leads).cloned();
            found = leader.and_then(|one| Some(one["address"].as_str()?.split(':').next()?.to_owned()));
            found.is_some()
        });
        found.expect("awaited")
    }

    /// The user asks the gateway, as any program does that speaks HTTP.
    fn asks_gateway(&self, words: &[&str]) -> (bool, Vec<u8>) {
        let mut curl = self.user.command("curl");
        let output = curl.args(["-sf", "--max-time", "20", "--noproxy", "*"]).args(words).output().unwrap();
        (output.status.success(), output.stdout)
    }

    fn puts(&self, name: &str, bytes: &[u8]) {
        let file = self.folder.path().join("put");
        fs::write(&file, bytes).unwrap();
        let url = format!("http://gateway:8080/{name}");
        eventually("it is put", || self.asks_gateway(&["-T", text(&file), &url]).0);
    }

    fn gets(&self, name: &str, bytes: &[u8]) {
        let url = format!("http://gateway:8080/{name}");
        eventually("it is got", || self.asks_gateway(&[&url]) == (true, bytes.to_vec()));
    }

    /// The machine is lost without a word, and its disk goes on in another one. Only the name is the same.
    fn moves(&mut self, name: &str) {
        self.machine(name).unplug();
        self.kill(name);
        let machine = self.network.machine();
        self.servers.get_mut(name).unwrap().machine = machine;
        self.give_names();
        self.start(name);
    }
}

#[test]
fn a_store_outlives_the_loss_of_machines_and_a_partition() {
    let Some(mut store) = Store::of(3, 4, 3) else { return };
    let (first, second) = (kit::bytes(1, 3_000_000), kit::bytes(2, 100_000));
    store.puts("first", &first);
    // The leader and a Dstore that has the file are lost.
    let copies = store.user(&["stat", "--copies", "/first"]).1;
    let holder = (1..=4).map(|number| format!("d{number}")).find(|name| copies.contains(&format!("{name}:")));
    let lost = [store.leader(), holder.expect(&copies)];
    lost.iter().for_each(|name| store.kill(name));
    store.gets("first", &first);
    lost.iter().for_each(|name| store.start(name));
    eventually("all are there again", || store.has_all());

    // The leader's cable is pulled. The others go on, and it cannot know.
    let leader = store.leader();
    store.machine(&leader).unplug();
    store.puts("second", &second);
    // What is asked for there is answered when it is known, or not at all: the file is never said to be missing.
    let only_it = store.folder.path().join("client.toml");
    let all = fs::read_to_string(store.folder.path().join("secret/client.toml")).unwrap();
    let others = ["c1", "c2", "c3"].map(|name| format!("\"{name}:7000\""));
    let list = others.join(", ");
    assert!(all.contains(&list), "{all}");
    fs::write(&only_it, all.replace(&list, &format!("\"{leader}:7000\""))).unwrap();
    let ask_there = || {
        let mut command = store.on(store.machine(&leader), &["cat", "/second"]);
        command.env("STEVEDORE_CLUSTER", &only_it).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let asked = ask_there();
    assert_ne!(store.leader(), leader);
    store.machine(&leader).plug();
    let answered = asked.wait_with_output().unwrap();
    assert!(answered.stdout == second || answered.status.code() == Some(UNAVAILABLE), "{answered:?}");
    eventually("all are there after the partition", || store.has_all());
    assert!(ask_there().wait_with_output().unwrap().stdout == second);
}

#[test]
fn a_server_is_found_by_its_name_at_another_address() {
    let Some(mut store) = Store::of(1, 2, 2) else { return };
    let bytes = kit::bytes(3, 200_000);
    store.puts("file", &bytes);
    for name in ["c1", "d1"] {
        store.moves(name);
        // What was sent to the old address is given up after 10 s: a machine that is gone does not say so.
        assert!(comes_true(3 * PATIENCE, || store.has_all()), "{name} is not found");
    }
    // Only the copy at d1 is left.
    store.kill("d2");
    store.gets("file", &bytes);
}
