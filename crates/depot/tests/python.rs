//! `examples/depot.py`, a client that knows only docs/depot-protocol.md, against our Controller and Dstores. (depot 8)

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Cursor};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::{CLUSTER, ScriptedDstore, Store};
use depot::client::{Files, PutOptions, Source};
use depot::namespace::change::{Condition, RemovalExtent};
use depot::path::Path;
use depot::wire::ClientId;
use kit::{TempFolder, bytes};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/depot.py");

/// What the script reads, in a folder of its own.
fn client_file(store: &Store) -> (TempFolder, PathBuf) {
    let folder = TempFolder::new();
    let file = folder.path().join("client.toml");
    let key = store.secret.client_key(ClientId(0xabc)).reveal();
    let text =
        format!("cluster = \"{CLUSTER}\"\ncontrollers = [\"{}\"]\nclient = \"abc\"\nkey = \"{key}\"\n", store.address);
    fs::write(&file, text).unwrap();
    (folder, file)
}

fn run(file: &std::path::Path, arguments: &[&str]) -> String {
    let output = Command::new("python3").arg(SCRIPT).arg(file).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn has_python() -> bool {
    Command::new("python3").args(["-c", "import tomllib"]).output().is_ok_and(|output| output.status.success())
}

#[test]
fn a_client_in_python_puts_gets_lists_and_watches() {
    if !has_python() {
        println!("python3 with tomllib is not installed: nothing was tested");
        return;
    }
    let store = Store::new(3);
    let dstores: [ScriptedDstore; 3] = std::array::from_fn(|number| ScriptedDstore::new(&store, number as u128 + 1));
    let (folder, file) = client_file(&store);
    let mut watching =
        Command::new("python3").arg(SCRIPT).arg(&file).args(["watch", "60"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut told = BufReader::new(watching.stdout.take().unwrap()).lines();
    // The first line tells that it has begun: changes are made until it comes.
    let beginning: Path = "/beginning".parse().unwrap();
    let (sender, first) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let line = told.next();
        let _ = sender.send(line);
        told
    });
    let client = store.client();
    kit::eventually("the watch has begun", || {
        client.make_directory(&beginning, false, &Default::default(), None).unwrap();
        client.remove_directory(&beginning, Condition::Any, RemovalExtent::Empty).unwrap();
        first.try_recv().is_ok()
    });
    let mut told = reader.join().unwrap();
    for (number, size) in [0, 1, 70_000, 200_001].into_iter().enumerate() {
        let content = bytes(number as u64, size);
        let local = folder.path().join("local file");
        fs::write(&local, &content).unwrap();
        let remote = format!("/a b/ü%{size}");
        run(&file, &["put", local.to_str().unwrap(), &remote]);
        let path: Path = remote.parse().unwrap();
        let mut read = Vec::new();
        client.get(&path, Condition::Any).unwrap().copy_to(0..u64::MAX, &mut read).unwrap();
        assert!(read == content, "put by Python: {size} bytes");
        let options = PutOptions { parents: true, ..PutOptions::default() };
        let path: Path = format!("/rust/{size}").parse().unwrap();
        client.put(&path, Source::Once(&mut Cursor::new(&content)), &options).unwrap();
        run(&file, &["get", path.as_str(), local.to_str().unwrap()]);
        assert!(fs::read(&local).unwrap() == content, "put by Rust: {size} bytes");
    }
    let listed = run(&file, &["list", "/a b"]);
    let names: Vec<&str> = listed.lines().map(|line| line.rsplit("  ").next().unwrap()).collect();
    assert_eq!(names, ["ü%0", "ü%1", "ü%200001", "ü%70000"], "{listed}");
    assert!(dstores.iter().all(|dstore| !dstore.objects().is_empty()));
    assert!(told.any(|line| line.unwrap() == "put /rust/200001"), "the last put is told");
    watching.kill().unwrap();
    watching.wait().unwrap();
    let failed = Command::new("python3").arg(SCRIPT).arg(&file).args(["get", "/missing", "x"]).output().unwrap();
    assert!(!failed.status.success() && String::from_utf8_lossy(&failed.stderr).contains("not-found"), "{failed:?}");
}
