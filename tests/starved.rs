//! A Controller or Dstore that runs out of descriptors or disk, or loses its folder, says so, harms no file, and
//! recovers. (spec 4.6.6, 7.11, 7.17)
#![cfg(target_os = "linux")]

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use stevedore::client::{Client, Error};

mod common;
use common::program::Program;
use common::system::System;
use common::{TempFolder, bytes, eventually};

/// Short enough to wait for, where something is expected to fail.
const SOON: Duration = Duration::from_secs(2);

fn impatient_client(system: &System) -> Client {
    Client::connect((Ipv4Addr::LOCALHOST, system.controller.port).into(), SOON).unwrap()
}

fn count(program: &mut Program, text: &str) -> usize {
    program.log_so_far().iter().filter(|line| line.contains(text)).count()
}

/// Connections that say nothing, and more than a program with `FEW_DESCRIPTORS` may have.
fn silent_connections(port: u16) -> Vec<TcpStream> {
    (0..80).map(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap()).collect()
}

/// As many that have begun a line: they may go on with it at any time.
fn too_many_connections(port: u16) -> Vec<TcpStream> {
    let connections = silent_connections(port);
    connections.iter().for_each(|mut connection| connection.write_all(b"LI").unwrap());
    connections
}

const FEW_DESCRIPTORS: &str = "ulimit -n 40;";

#[test]
fn a_controller_out_of_descriptors_keeps_its_peers_and_recovers() {
    let mut system = System::start(FEW_DESCRIPTORS, 1, 10_000, 0);
    system.join("");
    let mut earlier = system.client();
    let connections = too_many_connections(system.controller.port);
    system.controller.wait_for_log("cannot take new connections");
    for name in ["a", "b", "c"] {
        earlier.store_bytes(name, b"content").unwrap();
        assert_eq!(earlier.load_bytes(name).unwrap(), b"content");
    }
    drop(connections);
    system.controller.wait_for_log("can take new connections again");
    system.serves();
    assert_eq!(count(&mut system.controller, "cannot take new connections"), 1, "said once");
}

#[test]
fn a_dstore_out_of_descriptors_is_bypassed_until_it_recovers() {
    // spec 4.3
    let mut system = System::start("", 2, 10_000, 0);
    system.join("");
    let starved = system.join(FEW_DESCRIPTORS);
    system.client().store_bytes("f", b"content").unwrap();
    let connections = too_many_connections(system.dstores[starved].port);
    system.dstores[starved].wait_for_log("cannot take new connections");
    let mut client = impatient_client(&system);
    for _ in 0..3 {
        assert_eq!(client.load_bytes("f").unwrap(), b"content", "there is another holder");
    }
    drop(connections);
    system.dstores[starved].wait_for_log("can take new connections again");
    // The rest of those connections still queue there, and are taken many at a time. A connection after them has room.
    let mut attempts = 0;
    eventually("the Dstore takes transfers", || {
        attempts += 1;
        client.store_bytes(&format!("later-{attempts}"), b"content").is_ok()
    });
    system.serves();
    assert_eq!(count(&mut system.dstores[starved], "cannot take new connections"), 1, "said once");
}

#[test]
fn silent_connections_make_room_only_if_descriptors_are_short() {
    // spec 2.7: a peer that is merely idle is not timed out
    let mut system = System::start(FEW_DESCRIPTORS, 1, 10_000, 0);
    system.join("");
    let with_room = TcpStream::connect((Ipv4Addr::LOCALHOST, system.dstores[0].port)).unwrap();
    let mut idle = system.client();
    idle.list().unwrap();
    let silent = silent_connections(system.controller.port);
    system.controller.wait_for_log("cannot take new connections");
    system.serves();
    idle.list().expect("it has said something once");
    // The Dstore has waited for this one at least as long as the Controller for any.
    (&with_room).write_all(b"LOAD_DATA absent\n").unwrap();
    system.dstores[0].wait_for_log("LOAD_DATA absent");
    drop(silent);
}

#[test]
fn a_program_has_as_many_descriptors_as_its_user_may_give_it() {
    let mut system = System::start("ulimit -S -n 40;", 1, 10_000, 0);
    system.join("ulimit -S -n 40;");
    let connections = [system.controller.port, system.dstores[0].port].map(too_many_connections);
    system.serves();
    for program in [&mut system.controller, &mut system.dstores[0]] {
        assert_eq!(count(program, "cannot take new connections"), 0);
    }
    drop(connections);
}

/// What a shell does before it becomes a Dstore: it makes the folder, named by `number`, a disk of 1 MiB that only it
/// sees.
fn small_disk(number: usize) -> String {
    let inside = format!(r#"mkdir -p {number} && mount -t tmpfs -o size=1m none {number} && exec "$0" "$@""#);
    format!(r#"exec unshare --map-root-user --mount sh -c '{inside}' "$0" "$@";"#)
}

fn can_mount() -> bool {
    let folder = TempFolder::new();
    let mut command = Command::new("sh");
    command.args(["-c", &small_disk(0), "true"]).current_dir(folder.path());
    let can = command.output().unwrap().status.success();
    if !can {
        println!("SKIPPED: no mount namespaces here, or no permission to make one");
    }
    can
}

/// A Dstore's folder as it sees it itself.
fn as_seen_by(dstore: &Program, folder: &Path) -> PathBuf {
    Path::new(&format!("/proc/{}/root", dstore.child.id())).join(folder.strip_prefix("/").unwrap())
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_too_large_for_the_disk_leaves_its_room_to_others() {
    // spec 7.11
    if !can_mount() {
        return;
    }
    let mut system = System::start("", 1, 1000, 0);
    system.join(&small_disk(0));
    let folder = as_seen_by(&system.dstores[0], &system.files_of(0));
    let mut client = impatient_client(&system);
    let (small, large) = (bytes(1, 300_000), bytes(2, 5_000_000));
    client.store_bytes("small", &small).unwrap();
    for name in ["large", "larger", "largest"] {
        let refused = client.store_bytes(name, &large);
        // All content may be under way before the Dstore closes. Then the Controller's silence shows the failure.
        assert!(matches!(refused, Err(Error::Dstore { .. } | Error::NoReply { .. })), "{refused:?}");
        eventually("nothing of it stays", || names(&folder) == ["small"]);
        assert_eq!(client.load_bytes("small").unwrap(), small);
    }
    // The Controller frees the name when no acknowledgement has come in time.
    eventually("the large one is forgotten", || {
        !matches!(client.store_bytes("large", &small), Err(Error::AlreadyExists(_)))
    });
    assert_eq!(names(&folder), ["large", "small"]);
    system.dstores[0].wait_for_log("No space left");
    system.serves();
}

#[test]
fn a_rebalance_onto_a_full_disk_loses_nothing() {
    // spec 4.6.6, 7.17: the new Dstore is to get six or seven files and has room for three
    if !can_mount() {
        return;
    }
    let mut system = System::start("", 2, 1000, 1);
    system.join("");
    system.join("");
    let mut client = system.client();
    let files: Vec<_> = (0..10).map(|n| (format!("f{n}"), bytes(n, 300_000))).collect();
    for (name, content) in &files {
        client.store_bytes(name, content).unwrap();
    }
    let full = system.join(&small_disk(2));
    system.dstores[full].wait_for_log("No space left");
    let folders = [system.files_of(0), system.files_of(1), as_seen_by(&system.dstores[full], &system.files_of(full))];
    let copies = |name: &str, content: &[u8]| {
        folders.iter().filter(|folder| fs::read(folder.join(name)).is_ok_and(|copy| copy == content)).count()
    };
    for _ in 0..3 {
        for (name, content) in &files {
            assert_eq!(&client.load_bytes(name).unwrap(), content);
        }
        assert_eq!(client.list().unwrap().len(), files.len());
        eventually("two copies of each", || files.iter().all(|(name, content)| copies(name, content) >= 2));
    }
}

#[test]
fn a_read_only_folder_serves_loads_and_its_removes_happen_later() {
    // spec 4.4: a remove that is not acknowledged is seen to by a later rebalance
    if !can_mount() {
        return;
    }
    let mut system = System::start("", 1, 1000, 1);
    system.join(&small_disk(0));
    let folder = as_seen_by(&system.dstores[0], &system.files_of(0));
    let mut client = impatient_client(&system);
    client.store_bytes("f", b"content").unwrap();
    client.store_bytes("g", b"content").unwrap();
    remount(&system.dstores[0], &system.files_of(0), "ro");
    assert!(client.store_bytes("new", b"content").is_err());
    assert!(matches!(client.remove("f"), Err(Error::NoReply { .. })));
    assert_eq!(client.load_bytes("g").unwrap(), b"content");
    assert_eq!(names(&folder), ["f", "g"]);
    remount(&system.dstores[0], &system.files_of(0), "rw");
    eventually("the removed file goes", || names(&folder) == ["g"]);
    eventually("it stores again", || client.store_bytes("new", b"content").is_ok());
    assert_eq!(client.load_bytes("g").unwrap(), b"content");
}

#[test]
fn copies_refused_by_a_read_only_folder_are_made_elsewhere() {
    // spec 4.6.3, 7.17: it answers LIST like the others, and would get the copies that are missing
    if !can_mount() {
        return;
    }
    let mut system = System::start("", 2, 1000, 1);
    for _ in 0..3 {
        system.join("");
    }
    let mut client = system.client();
    let files: Vec<_> = (0..9).map(|n| (format!("f{n}"), bytes(n, 10_000))).collect();
    for (name, content) in &files {
        client.store_bytes(name, content).unwrap();
    }
    let refuses = system.join(&small_disk(3).replace("&& exec", "&& mount -o remount,bind,ro 3 && exec"));
    let lost = system.dstores.remove(0);
    drop(lost);
    let refusing = refuses - 1;
    let folders =
        [system.files_of(1), system.files_of(2), as_seen_by(&system.dstores[refusing], &system.files_of(refuses))];
    let copies = |name: &str, content: &[u8]| {
        folders.iter().filter(|folder| fs::read(folder.join(name)).is_ok_and(|copy| copy == content)).count()
    };
    eventually("two copies of each", || files.iter().all(|(name, content)| copies(name, content) == 2));
    assert_eq!(names(&folders[2]), [""; 0]);
    for (name, content) in &files {
        assert_eq!(&client.load_bytes(name).unwrap(), content);
    }
    remount(&system.dstores[refusing], &system.files_of(refuses), "rw");
    eventually("it gets its share", || folders.iter().all(|folder| names(folder).len() == 6));
    assert!(files.iter().all(|(name, content)| copies(name, content) == 2));
    system.serves();
}

#[test]
fn a_dstore_does_not_start_over_foreign_files_it_cannot_move() {
    // spec 7.15: the folder is a disk of its own, so that there is no room beside it
    if !can_mount() {
        return;
    }
    let system = System::start("", 1, 1000, 0);
    let on_disk = small_disk(0).replace("&& exec", "&& echo mine > 0/photo && ls 0 && exec");
    let start = |force: &[&str]| {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            &on_disk,
            env!("CARGO_BIN_EXE_dstore"),
            "0",
            &system.controller.port.to_string(),
            "1000",
            "0",
        ]);
        Program::spawn({
            command.args(force).current_dir(system.folder.path());
            command
        })
    };
    let mut refused = start(&[]);
    assert_eq!(refused.wait_for_exit().code(), Some(1));
    refused.wait_for_log("such as \"photo\", and they cannot be moved");
    assert_eq!(system.folder.names(), ["0"], "nothing is left beside it");
    let mut forced = start(&["--force"]);
    forced.wait_until_it_listens();
    assert_eq!(names(&as_seen_by(&forced, &system.files_of(0))), [""; 0]);
}

fn remount(dstore: &Program, folder: &Path, how: &str) {
    let mut command = Command::new("nsenter");
    command.args(["--preserve-credentials", "--user", "--mount", "--target", &dstore.child.id().to_string()]);
    let done = command.args(["--", "mount", "-o", &format!("remount,bind,{how}")]).arg(folder).output().unwrap();
    assert!(done.status.success(), "{done:?}");
}

#[test]
fn a_dstore_is_filled_again_after_its_folder_was_deleted() {
    // spec 4.3, 4.6
    let mut system = System::start("", 2, 1000, 1);
    for _ in 0..3 {
        system.join("");
    }
    let files: Vec<_> = (0..9).map(|n| (format!("f{n}"), bytes(n, 10_000))).collect();
    let mut client = system.client();
    for (name, content) in &files {
        client.store_bytes(name, content).unwrap();
    }
    fs::remove_dir_all(system.files_of(0)).unwrap();
    for (name, content) in &files {
        assert_eq!(&client.load_bytes(name).unwrap(), content, "from another holder");
    }
    fs::create_dir(system.files_of(0)).unwrap();
    let copies = |name: &str, content: &[u8]| {
        let holds = |dstore| fs::read(system.files_of(dstore).join(name)).is_ok_and(|copy| copy == content);
        (0..3).filter(|&dstore| holds(dstore)).count()
    };
    eventually("two copies of each again", || files.iter().all(|(name, content)| copies(name, content) == 2));
    assert_eq!(names(&system.files_of(0)).len(), 6, "evenly spread");
    system.serves();
}
