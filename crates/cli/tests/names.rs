//! The name server's shell over a whole store of real processes: what it says of storages. (docs/wires.md, section 3)

mod common;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use common::{Gateway, User, Whole, limited, spawn, start, text, wait_for_dstores};
use kit::{TempFolder, bytes, free_ports};

/// Runs the client on these commands; what it says.
fn shell(gateway: &mut Gateway, commands: &str) -> Vec<String> {
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/names.py");
    let place = gateway.place("Names");
    let (host, port) = place.split_once(':').expect("an address");
    let mut command = limited(Path::new("python3"));
    command.arg("-B").arg(client).args([host, port]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut client = command.spawn().unwrap();
    client.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
    let output = client.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_file_is_on_all_storages_and_init_lists_them() {
    if !kit::has_tools(&["python3"]) {
        return;
    }
    // One more than a file of the store has replicas.
    let store = Whole::start(4, "never");
    wait_for_dstores(&store.user, 4);
    let ports = free_ports(20);
    let ports = format!("{}-{}", ports.start(), ports.end());
    let options = ["--names", "0", "--names-in", "/box", "--names-ports", &ports, "--period", "0", "--allow-format"];
    let mut gateway = Gateway::start(&store.user, &options);
    let local = store.local("from");
    fs::write(&local, bytes(1, 20_000)).unwrap();
    store.user.ok(&["put", text(&local), "/beside"]);
    let said = shell(&mut gateway, &format!("write a {}\ncreate empty\n", text(&local)));
    assert_eq!(said, ["20000 bytes recieved", "File created"]);
    // Copies count once their Dstores have said that they have them.
    kit::eventually("all storages have it", || shell(&mut gateway, "info a\n") == ["size=20000 replicas=4"]);
    assert_eq!(shell(&mut gateway, "info empty\n"), ["size=0 replicas=4"]);
    let storages = shell(&mut gateway, "init\n");
    assert_eq!(storages.len(), 4, "{storages:?}");
    for storage in &storages {
        let free = storage.strip_prefix("storage 127.0.0.1 ").unwrap_or_else(|| panic!("{storage:?}"));
        assert!(free.ends_with(['K', 'M', 'G', 'T']) && free != "0", "{storage:?}");
    }
    assert_eq!(shell(&mut gateway, "ls\n"), [""; 1]);
    assert_eq!(store.user.ok(&["ls", "/"]).lines().collect::<Vec<_>>(), ["beside", "box/"]);
}

#[test]
fn storages_answer_a_broadcast_and_are_listed_in_the_log() {
    let folder = TempFolder::new();
    let data = folder.path().join("controller");
    let _controller = start(&["controller", "--port", "0", "--sync", "never", "--data", text(&data)]);
    let user = User { cluster: data };
    let port = free_ports(2).start().to_string();
    let gateway = || Gateway::start(&user, &["--names", "0", "--period", "1", "--names-discovery", &port]);
    let mut before = gateway();
    // Several on one machine answer on the same port.
    let _dstores = [1, 2].map(|number: usize| {
        let disk = folder.path().join(number.to_string());
        fs::create_dir(&disk).unwrap();
        fs::copy(user.cluster.join("cluster.toml"), disk.join("cluster.toml")).unwrap();
        let words = ["dstore", "--names", "--names-discovery", &port, "--port", "0", "--data", text(&disk)];
        let dstore = spawn(&words);
        wait_for_dstores(&user, number);
        dstore
    });
    before.program.wait_for_log("names: the storage ");
}
