//! Several Controllers as their users have them: real processes, kills under load, added and removed. (depot 4.5, 4.7)

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use common::{Gateway, User, Whole, python, spawn, start, text};
use kit::{Program, TempFolder, eventually, free_port};
use serde_json::{Value, json};

/// A Controller in a process of its own.
struct Controller {
    process: Program,
    folder: PathBuf,
    port: u16,
}

/// Controllers and Dstores, each in a process of its own.
struct Store {
    folder: TempFolder,
    controllers: Vec<Controller>,
    dstores: Vec<Program>,
    user: User,
}

impl Controller {
    fn words(folder: &Path, port: u16) -> Vec<String> {
        let words = ["controller", "--replicas", "2", "--data", text(folder), "--port", &port.to_string()];
        words.map(str::to_owned).into()
    }

    fn start(folder: PathBuf, port: u16, more: &[&str]) -> Self {
        let mut words = Self::words(&folder, port);
        words.extend(more.iter().map(|word| (*word).to_owned()));
        let process = spawn(&words.iter().map(String::as_str).collect::<Vec<_>>());
        Self { process, folder, port }
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn restart(&mut self) {
        let words = Self::words(&self.folder, self.port);
        self.process = spawn(&words.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

impl Store {
    /// A store that begins with three Controllers, and has two Dstores.
    fn of_three() -> Self {
        let folder = TempFolder::new();
        let at = |name: &str| folder.path().join(name);
        let ports = [free_port(), free_port(), free_port()];
        let peers = ports.map(|port| format!("127.0.0.1:{port}")).join(",");
        let names = ["one", "two", "three"].map(at);
        let mut first = Controller::start(names[0].clone(), ports[0], &["--peers", &peers]);
        // The others need its file, as it says.
        first.process.wait_for_log("Each needs a copy of");
        let mut controllers = vec![first];
        for (name, port) in names.iter().zip(ports).skip(1) {
            fs::create_dir(name).unwrap();
            fs::copy(names[0].join("cluster.toml"), name.join("cluster.toml")).unwrap();
            controllers.push(Controller::start(name.clone(), port, &["--peers", &peers]));
        }
        for controller in &mut controllers {
            controller.process.wait_for_log("  stevedore status");
        }
        let start_dstore = |number: u32| {
            let disk = at(&format!("disk{number}"));
            fs::create_dir(&disk).unwrap();
            fs::copy(names[0].join("cluster.toml"), disk.join("cluster.toml")).unwrap();
            let host = number.to_string();
            let words = ["dstore", "--port", "0", "--controllers", &peers, "--host", &host, "--data", text(&disk)];
            spawn(&words)
        };
        let dstores = vec![start_dstore(1), start_dstore(2)];
        let user = User { cluster: names[0].join("client.toml") };
        let store = Self { folder, controllers, dstores, user };
        eventually("all are there", || {
            let status = store.status();
            let present = |dstore: &&Value| dstore["state"] == "present";
            let dstores = status["dstores"].as_array().unwrap();
            store.voters(&status) == 3 && dstores.iter().filter(present).count() == 2
        });
        store
    }

    fn status(&self) -> Value {
        self.user.json(&["status", "--json"])
    }

    fn voters(&self, status: &Value) -> usize {
        let votes = |controller: &&Value| controller["role"] == "leader" || controller["role"] == "follower";
        status["controllers"].as_array().unwrap().iter().filter(votes).count()
    }

    /// The place and the number of the Controller that leads, once one does.
    fn leader(&self) -> (usize, String) {
        let mut leader = None;
        eventually("one leads", || {
            let status = self.status();
            let all = status["controllers"].as_array().unwrap();
            leader = all.iter().find(|controller| controller["is_leader"] == true).cloned();
            leader.is_some()
        });
        let leader = leader.expect("awaited");
        let at = self.controllers.iter().position(|known| leader["address"] == known.address().as_str());
        (at.expect("it is one of ours"), leader["id"].as_str().unwrap().to_owned())
    }

    /// Puts files one after another while `work` is done: each that was acknowledged is there afterwards.
    fn under_load(&mut self, name: &str, work: impl FnOnce(&mut Self)) -> u64 {
        /// Ends the load, also where a test fails.
        struct Done<'a>(&'a AtomicBool);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Release);
            }
        }
        let (done, count) = (AtomicBool::new(false), AtomicU64::new(0));
        let cluster = self.user.cluster.clone();
        let content = self.folder.path().join("content");
        thread::scope(|scope| {
            let load = scope.spawn(|| {
                let user = User { cluster };
                while !done.load(Ordering::Acquire) {
                    let number = count.load(Ordering::Relaxed);
                    fs::write(&content, format!("{name} {number}")).unwrap();
                    // No command fails: each waits for the next leader.
                    user.ok(&["put", text(&content), &format!("/{name}-{number}")]);
                    count.store(number + 1, Ordering::Relaxed);
                }
            });
            let end = Done(&done);
            work(self);
            let then = count.load(Ordering::Relaxed);
            eventually("the load goes on", || count.load(Ordering::Relaxed) >= then + 3 || load.is_finished());
            drop(end);
            load.join().expect("every put was acknowledged");
        });
        let count = count.load(Ordering::Relaxed);
        for number in 0..count {
            assert_eq!(self.user.ok(&["cat", &format!("/{name}-{number}")]), format!("{name} {number}"));
        }
        count
    }
}

#[test]
fn a_killed_leader_is_replaced_and_nothing_is_lost() {
    let mut store = Store::of_three();
    for round in 0..3 {
        store.under_load(&format!("kill{round}"), |store| {
            let (leader, id) = store.leader();
            store.controllers[leader].process.kill();
            eventually("another one leads", || store.leader().1 != id);
            store.controllers[leader].restart();
            eventually("it is back", || store.status()["problems"].as_array().unwrap().is_empty());
        });
    }
    // One that is asked to end hands over, and says nothing of trouble.
    store.under_load("term", |store| {
        let (leader, id) = store.leader();
        store.controllers[leader].process.signal("TERM");
        let ended = store.controllers[leader].process.wait_for_exit();
        let said = store.controllers[leader].process.log_so_far();
        assert!(ended.success(), "{said:#?}");
        assert_ne!(store.leader().1, id);
        store.controllers[leader].restart();
    });
    drop(std::mem::take(&mut store.dstores));
}

/// Asks a gateway over HTTP; status and body, or `None` if it is not there.
fn ask(gateway: &str, request: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(gateway).ok()?;
    let length = body.len();
    let head =
        format!("{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(format!("{head}{body}").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

#[test]
fn clients_of_one_gateway_go_on_without_the_leader_and_the_other_gateway() {
    let mut store = Store::of_three();
    let mut gateways = [(); 2].map(|()| Gateway::start(&store.user, &[]));
    let address =
        |gateway: &mut Gateway| gateway.place("HTTP").trim_start_matches("http://").trim_end_matches('/').to_owned();
    let addresses = gateways.each_mut().map(address);
    let (done, lost) = (AtomicBool::new(false), AtomicBool::new(false));
    let counts = [AtomicU64::new(0), AtomicU64::new(0)];
    let count = |which: usize| counts[which].load(Ordering::Acquire);
    let acknowledged: Vec<Vec<String>> = thread::scope(|scope| {
        let clients: Vec<_> = [0, 1]
            .map(|which: usize| {
                let (gateway, counts, done, lost) = (&addresses[which], &counts, &done, &lost);
                scope.spawn(move || {
                    let mut acknowledged = Vec::new();
                    for number in 0.. {
                        if done.load(Ordering::Acquire) {
                            break;
                        }
                        let path = format!("/{which}/{number}");
                        match ask(gateway, &format!("POST {path}"), &path) {
                            Some((201, _)) => {
                                acknowledged.push(path);
                                counts[which].fetch_add(1, Ordering::AcqRel);
                            }
                            None if which == 1 && lost.load(Ordering::Acquire) => break,
                            answer => panic!("{path}: {answer:?}"),
                        }
                    }
                    acknowledged
                })
            })
            .into();
        let go_on = |which| {
            let then = count(which);
            eventually("its clients go on", || count(which) >= then + 10 || clients[which].is_finished());
        };
        (0..2).for_each(go_on);
        let (leader, id) = store.leader();
        store.controllers[leader].process.kill();
        eventually("another one leads", || store.leader().1 != id);
        (0..2).for_each(go_on);
        lost.store(true, Ordering::Release);
        gateways[1].program.kill();
        go_on(0);
        done.store(true, Ordering::Release);
        clients.into_iter().map(|client| client.join().expect("each request was answered")).collect()
    });
    for path in acknowledged.iter().flatten() {
        assert_eq!(ask(&addresses[0], &format!("GET {path}"), ""), Some((200, path.clone())));
    }
    assert!(acknowledged.iter().all(|of_one| of_one.len() >= 20), "{acknowledged:?}");
}

/// A program that stores files through one way in, and reads them, until its stdin ends.
struct Client {
    program: Program,
}

impl Client {
    fn start(python: &Path, way: &str, place: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/matrix.py");
        let mut command = Command::new(python);
        command.arg("-B").arg(script).arg(json!({ way: place }).to_string()).arg(way);
        command.stdin(Stdio::piped()).env("PYTHONUTF8", "1").env("no_proxy", "*");
        Self { program: Program::spawn(command) }
    }

    fn count(&mut self) -> usize {
        self.program.log_so_far().iter().filter(|line| line.starts_with("done ")).count()
    }

    /// Waits until it has done some more.
    fn goes_on(&mut self) {
        let then = self.count();
        eventually("it goes on", || {
            self.count() >= then + 5 || self.program.child.try_wait().is_ok_and(|end| end.is_some())
        });
        assert!(self.count() >= then + 5, "it has ended");
    }

    /// Has it end: all that it has asked for was done.
    fn ends_well(mut self) {
        drop(self.program.child.stdin.take());
        assert!(self.program.wait_for_exit().success());
    }
}

#[test]
fn clients_of_other_wires_go_on_without_the_leader_and_the_other_gateway() {
    if !kit::has_tools(&["python3"]) {
        return;
    }
    let with_grpc = python("grpc_tools");
    let mut store = Store::of_three();
    let options = "--names 0 --period 0 --coursework 0 --coursework-timeout 30000 --fluffy 0 --tracker 0 \
                   --tracker-keepers 0 --tracker-notify 0";
    let options: Vec<&str> = options.split_whitespace().collect();
    let mut gateways = [(); 2].map(|()| Gateway::start(&store.user, &options));
    let python = with_grpc.clone().unwrap_or_else(|| PathBuf::from("python3"));
    let ways: &[&str] = match with_grpc {
        Some(_) => &["Names", "Coursework", "Tracker", "Fluffy"],
        None => &["Names", "Coursework"],
    };
    let [mut kept, mut lost] = gateways.each_mut().map(|gateway| -> Vec<Client> {
        let client = |way: &&str| {
            let place = gateway.place(way);
            Client::start(&python, &way.to_lowercase(), place.split(',').next().expect("an address"))
        };
        ways.iter().map(client).collect()
    });
    kept.iter_mut().chain(&mut lost).for_each(Client::goes_on);
    let (leader, id) = store.leader();
    store.controllers[leader].process.kill();
    eventually("another one leads", || store.leader().1 != id);
    kept.iter_mut().chain(&mut lost).for_each(Client::goes_on);
    gateways[1].program.kill();
    kept.iter_mut().for_each(Client::goes_on);
    kept.into_iter().for_each(Client::ends_well);
}

#[test]
fn each_controller_has_the_same_changes_without_a_gap() {
    let mut store = Store::of_three();
    // Users who know one Controller each.
    let users: Vec<User> = (0..3)
        .map(|number| {
            let all = fs::read_to_string(&store.user.cluster).unwrap();
            let address = store.controllers[number].address();
            let of_one = |line: &str| match line.starts_with("controllers = ") {
                true => format!("controllers = [\"{address}\"]"),
                false => line.to_owned(),
            };
            let cluster = store.folder.path().join(format!("user{number}.toml"));
            fs::write(&cluster, all.lines().map(of_one).collect::<Vec<_>>().join("\n")).unwrap();
            User { cluster }
        })
        .collect();
    let files = store.folder.path().join("files");
    fs::create_dir(&files).unwrap();
    (0..50).for_each(|number| fs::write(files.join(format!("{number:02}")), b"x").unwrap());
    let version = store.status()["version"].as_str().unwrap().to_owned();
    store.user.ok(&["put", "-r", text(&files), "/files"]);
    let seen = |count: usize| -> Vec<Value> {
        let count = count.to_string();
        let words = ["watch", "--json", "--after", &version, "--count", &count, "/"];
        let all: Vec<String> = users.iter().map(|user| user.ok(&words)).collect();
        assert!(all.iter().all(|one| *one == all[0]), "{all:#?}");
        all[0].lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let numbers = |events: &[Value]| -> Vec<u64> {
        let number = |event: &Value| event["version"].as_str()?.rsplit('.').next()?.parse().ok();
        events.iter().map(|event| number(event).expect("a version")).collect()
    };
    let first = numbers(&seen(50));
    assert!(first.windows(2).all(|two| two[1] == two[0] + 1), "no number is left out: {first:?}");
    let later = store.under_load("later", |store| {
        let (leader, id) = store.leader();
        store.controllers[leader].process.kill();
        eventually("another one leads", || store.leader().1 != id);
        store.controllers[leader].restart();
        eventually("it is back", || store.voters(&store.status()) == 3);
    });
    let all = numbers(&seen(50 + later as usize));
    assert!(all.starts_with(&first) && all.is_sorted_by(|one, next| one < next), "{all:?}");
}

#[test]
fn controllers_are_added_and_removed_under_load() {
    let mut store = Store::of_three();
    store.under_load("change", |store| {
        let folder = store.folder.path().join("four");
        fs::create_dir(&folder).unwrap();
        fs::copy(store.controllers[0].folder.join("cluster.toml"), folder.join("cluster.toml")).unwrap();
        let mut fourth = Controller::start(folder, free_port(), &["--join"]);
        fourth.process.wait_for_log("waits to be added");
        store.user.ok(&["controllers", "add", &fourth.address()]);
        store.controllers.push(fourth);
        assert_eq!(store.voters(&store.status()), 4);
        let (leader, id) = store.leader();
        store.user.ok(&["controllers", "remove", &id]);
        assert_eq!(store.voters(&store.status()), 3);
        let said = store.controllers[leader].process.wait_for_exit();
        assert_eq!(said.code(), Some(1), "it was removed, says so, and ends");
        store.user.ok(&["controllers", "transfer"]);
    });
    let listed = store.user.ok(&["controllers", "list"]);
    assert_eq!(listed.lines().count(), 4, "{listed}");
}

#[test]
fn a_watch_goes_on_behind_a_killed_leader() {
    let mut store = Store::of_three();
    let version = store.status()["version"].as_str().unwrap().to_owned();
    let words = ["watch", "--json", "--after", &version, "/"];
    let mut watch = Program::spawn(store.user.command(&words));
    let mut puts = Vec::new();
    let (leader, _) = store.leader();
    // The watch asks one of them: each is killed, the leader first.
    for killed in [leader, (leader + 1) % 3, (leader + 2) % 3] {
        let name = format!("watched{killed}");
        let count = store.under_load(&name, |store| {
            watch.wait_for_log(&format!("/{name}-0")); // it is not behind
            store.controllers[killed].process.kill();
            eventually("another one leads", || store.leader().0 != killed);
            store.controllers[killed].restart();
            eventually("it is back", || store.voters(&store.status()) == 3);
        });
        puts.extend((0..count).map(|number| format!("/{name}-{number}")));
    }
    watch.wait_for_log(puts.last().unwrap());
    let seen = watch.log_so_far().to_vec();
    let events: Vec<Value> = seen.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_puts = events.iter().filter(|event| event["verb"] == "put");
    let paths: Vec<&str> = of_puts.map(|event| event["paths"][0].as_str().unwrap()).collect();
    assert_eq!(paths, puts, "each once, in the order in which they were acknowledged");
    let told = store.user.ok(&["watch", "--json", "--after", &version, "--count", &seen.len().to_string()]);
    assert_eq!(told.lines().collect::<Vec<_>>(), seen, "as the log has it");
}

#[test]
fn one_that_is_left_of_three_is_recovered_alone() {
    // depot 4.9
    let mut store = Store::of_three();
    let local = store.folder.path().join("content");
    fs::write(&local, "kept").unwrap();
    store.user.ok(&["put", text(&local), "/kept"]);
    let (left, _) = store.leader(); // it has all that was acknowledged
    for controller in &mut store.controllers {
        controller.process.kill();
    }
    let folder = store.controllers[left].folder.clone();
    store.user.ok(&["recover", "--data", text(&folder), "--yes"]);
    store.controllers[left].restart();
    let user = User { cluster: folder.join("client.toml") };
    store.controllers[left].process.wait_for_log("  stevedore status");
    assert_eq!(user.ok(&["cat", "/kept"]), "kept");
    user.ok(&["put", text(&local), "/later"]);
    assert_eq!(store.voters(&user.json(&["status", "--json"])), 1);
}

#[test]
fn a_lost_folder_of_a_whole_store_is_made_good_by_one_command() {
    make_good("disk2");
}

#[test]
fn the_first_folder_of_a_whole_store_may_be_the_lost_one() {
    make_good("disk1");
}

fn make_good(lost: &str) {
    let mut store = Whole::start_with(3, 3, "never");
    let local = store.local("content");
    fs::write(&local, "kept").unwrap();
    store.user.ok(&["put", text(&local), "/kept"]);
    eventually("all three vote", || {
        let status = store.user.json(&["status", "--json"]);
        let votes = |one: &&Value| one["role"] == "leader" || one["role"] == "follower";
        status["controllers"].as_array().unwrap().iter().filter(votes).count() == 3
    });
    store.server.signal("TERM");
    assert!(store.server.wait_for_exit().success());
    fs::remove_dir_all(store.local(lost)).unwrap();
    store.server = start(&store.words());
    // It says what to type.
    let said = store.server.log_so_far();
    let command = said.iter().find_map(|line| line.trim().strip_prefix("stevedore controllers replace "));
    let words: Vec<&str> = command.unwrap_or_else(|| panic!("{said:#?}")).split(' ').collect();
    let &[id, address] = &words[..] else { panic!("{words:?}") };
    store.user.ok(&["put", text(&local), "/meanwhile"]);
    let replace = ["controllers", "replace", id, address];
    assert!(store.user.ok(&replace).contains("votes"));
    store.user.ok(&replace); // the answer may have been lost
    eventually("all of it is well", || {
        let status = store.user.json(&["status", "--json"]);
        let all = status["controllers"].as_array().unwrap();
        let has_trouble = |problem: &Value| problem.as_str().unwrap().contains("Controller");
        assert!(all.iter().all(|one| one["id"] != id));
        !status["problems"].as_array().unwrap().iter().any(has_trouble) && all.len() == 3
    });
    store.end_and_start();
    assert!(store.server.log_so_far().iter().all(|line| !line.contains("controllers replace")));
    for name in ["/kept", "/meanwhile"] {
        assert_eq!(store.user.ok(&["cat", name]), "kept");
    }
}

#[test]
fn one_process_with_three_controllers_comes_back_after_a_kill() {
    let mut store = Whole::start_with(1, 3, "never");
    let put = |name: &str| {
        let local = store.folder.path().join("content");
        fs::write(&local, name).unwrap();
        store.user.ok(&["put", text(&local), name]);
    };
    put("/before");
    let controllers = |store: &Whole| {
        let status = store.user.json(&["status", "--json"]);
        status["controllers"].as_array().unwrap().len()
    };
    assert_eq!(controllers(&store), 3);
    store.kill_and_start();
    assert_eq!(store.user.ok(&["cat", "/before"]), "/before");
    store.end_and_start();
    assert_eq!(store.user.ok(&["cat", "/before"]), "/before");
    assert_eq!(controllers(&store), 3);
}
