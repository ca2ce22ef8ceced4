//! Stores that are found by a broadcast, on two machines with a cable between them. (depot 7)

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{STEVEDORE, text};
use kit::{Machine, Network, Program, TempFolder, eventually, has_tools};

/// Answers each broadcast for the store whose id is its argument, with addresses at which it is not.
const STRANGER: &str = r#"
import socket, sys
id, here, other = sys.argv[1:]
asked = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asked.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
asked.bind(("", 7000))
claimed = socket.create_server((here, 7003))
print("ready", flush=True)
while True:
    text, peer = asked.recvfrom(2000)
    asked.sendto(f"STEVEDORE! 1 {id} {other},{here}:8".encode(), peer)
"#;

fn command(machine: &Machine, words: &[&str]) -> Command {
    let mut command = machine.command(STEVEDORE);
    command.args(words).env_remove("STEVEDORE_CLUSTER").stdin(Stdio::null());
    command
}

fn start(machine: &Machine, words: &[&str], says: &str) -> Program {
    let mut program = Program::spawn(command(machine, words));
    program.wait_for_log(says);
    program
}

/// What a command prints, and what it says; whether it has worked.
fn run(machine: &Machine, words: &[&str]) -> (bool, String, String) {
    let output = command(machine, words).output().unwrap();
    let read = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.success(), read(output.stdout), read(output.stderr))
}

/// A copy of a store's files that knows an address at which there is nothing.
fn copy_without_address(from: &Path, to: PathBuf, address: &str) -> PathBuf {
    fs::create_dir(&to).unwrap();
    for name in ["cluster.toml", "client.toml"] {
        let known = fs::read_to_string(from.join(name)).unwrap();
        assert!(known.contains(address), "{known}");
        fs::write(to.join(name), known.replace(address, "10.9.0.1:9")).unwrap();
    }
    to
}

#[test]
fn stores_of_one_network_are_found_by_name_and_do_not_mix() {
    let Some(mut network) = Network::new().filter(|_| has_tools(&["python3"])) else { return };
    let (here, there) = (network.machine(), network.machine());
    let [here_address, there_address] = [&here, &there].map(|machine| machine.address.to_string());
    let folder = TempFolder::new();
    // Two stores on one machine, whose Controllers answer on the same port; a Dstore of each on the other one.
    let mut servers = Vec::new();
    let mut files = Vec::new();
    for (store, port) in [("red", "7001"), ("blue", "7002")] {
        let data = folder.path().join(store);
        let words =
            ["controller", "--data", text(&data), "--name", store, "--replicas", "1", "--listen", &here_address];
        let controller = start(&here, &[&words[..], &["--port", port, "--sync", "never"]].concat(), "stevedore status");
        let known = folder.path().join(format!("there-{store}"));
        let known = copy_without_address(&data, known, &format!("{here_address}:{port}"));
        let client = text(&known.join("client.toml")).to_owned();
        let words = ["dstore", "--discover", store, "--data", text(&known), "--listen", &there_address];
        let dstore = start(&there, &[&words[..], &["--port", "0", "--sync", "never"]].concat(), "Dstore of the store");
        eventually("the Dstore is there", || {
            run(&there, &["status", "--discover", store, "--cluster", &client]).1.contains(&there_address)
        });
        let content = folder.path().join("content");
        fs::write(&content, store).unwrap();
        let put = run(&there, &["put", text(&content), "/name", "--discover", store, "--cluster", &client]);
        assert!(put.0, "{put:?}");
        servers.push((controller, dstore));
        files.push((data, client));
    }
    for ((data, _), store) in files.iter().zip(["red", "blue"]) {
        assert_eq!(run(&here, &["cat", "/name", "--cluster", text(&data.join("client.toml"))]).1, store);
    }
    // A gateway finds its store, too.
    let red = files[0].1.as_str();
    let words = ["gateway", "--discover", "red", "--cluster", red, "--http", "0", "--no-s3"];
    let _gateway = start(&there, &words, "In another terminal");
    let (_, _, why) = run(&there, &["cat", "/name", "--discover", "blue", "--cluster", red]);
    assert!(why.contains("the file is for a store called \"red\""), "{why}");
    // A store that is not there is said not to be: also while a stranger claims to be it.
    let file = fs::read_to_string(files[0].0.join("client.toml")).unwrap();
    let id = file.split_once("\ncluster = \"").and_then(|(_, rest)| rest.split_once('"')).expect("its id").0;
    servers[0].0.kill();
    let mut stranger = here.command("python3");
    stranger.args(["-uc", STRANGER, id, &here_address, &format!("{here_address}:7002")]).stdin(Stdio::null());
    let mut stranger = Program::spawn(stranger);
    stranger.wait_for_log("ready");
    let (has_worked, printed, _) = run(&there, &["cat", "/name", "--discover", "red", "--cluster", red]);
    assert!(!has_worked && printed.is_empty(), "{printed}");
}
