//! SIGINT and SIGTERM end every program cleanly, and soon. (spec 5.1, 7.11)

#![cfg(unix)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::thread;

use stevedore::protocol::{Connection, Message};
use stevedore::{controller, dstore};

mod common;
use common::program::Program;
use common::{Cluster, PATIENCE, TempFolder, eventually, full_listener};

const CONTROLLER: &str = env!("CARGO_BIN_EXE_controller");
const DSTORE: &str = env!("CARGO_BIN_EXE_dstore");
const CLIENT: &str = env!("CARGO_BIN_EXE_client");
const CLUSTER: &str = env!("CARGO_BIN_EXE_cluster");

/// By name, and by the number that a shell adds to 128.
const SIGNALS: [(&str, i32); 2] = [("INT", 2), ("TERM", 15)];

fn connect(port: u16) -> Connection {
    Connection::connect((Ipv4Addr::LOCALHOST, port).into(), PATIENCE).unwrap()
}

#[test]
fn a_server_told_to_end_exits_with_0_whatever_is_under_way() {
    // spec 4.2, 4.6: one client waits for acknowledgements, another for the rebalance that waits for these
    for (signal, _) in SIGNALS {
        let folder = TempFolder::new();
        let mut controller = Program::start(CONTROLLER, &["0", "1", "60000", "1"], folder.path());
        let mut dstore = connect(controller.port);
        dstore.send_content(b"JOIN 9\n").unwrap();
        assert!(matches!(dstore.receive_within(PATIENCE), Ok(Some(Ok(Message::List { .. })))));
        dstore.send_content(b"LIST\n").unwrap();
        let mut client = connect(controller.port);
        client.send_content(b"STORE f 5\n").unwrap();
        assert!(matches!(client.receive_within(PATIENCE), Ok(Some(Ok(Message::StoreTo { .. })))));
        let second = connect(controller.port);
        second.send_content(b"REMOVE f\n").unwrap();
        controller.signal(signal);
        assert_eq!(controller.wait_for_exit().code(), Some(0), "SIG{signal}");
        assert!(matches!(client.receive_within(PATIENCE), Ok(None) | Err(_)), "no answer: no peer knows it");
    }
}

#[test]
fn a_dstore_told_to_end_keeps_and_acknowledges_no_partial_file() {
    // spec 7.11
    for (signal, _) in SIGNALS {
        let folder = TempFolder::new();
        let cport = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = cport.local_addr().unwrap().port().to_string();
        let mut dstore = Program::start(DSTORE, &["0", &port, "60000", "files"], folder.path());
        let mut controller = BufReader::new(cport.accept().unwrap().0);
        let files = folder.path().join("files");
        let mut senders = Vec::new();
        for (name, size) in [("a", 1_000_000), ("b", 10), ("c", 0)] {
            let mut sender = connect(dstore.port);
            sender.send_content(format!("STORE {name} {size}\n").as_bytes()).unwrap();
            assert!(matches!(sender.receive_within(PATIENCE), Ok(Some(Ok(Message::Ack)))));
            sender.send_content(&vec![1; size / 2]).unwrap();
            senders.push(sender);
        }
        eventually("one is there, two are on their way", || {
            let names: Vec<_> = fs::read_dir(&files).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.len() == 3 && names.iter().any(|name| name == "c")
        });
        dstore.signal(signal);
        assert_eq!(dstore.wait_for_exit().code(), Some(0), "SIG{signal}");
        let left: Vec<_> = fs::read_dir(&files).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["c"], "whole or not at all");
        let mut said = String::new();
        controller.read_to_string(&mut said).unwrap();
        assert_eq!(said.lines().skip(1).collect::<Vec<_>>(), ["STORE_ACK c"]);
    }
}

/// Its exit status tells which signal it was.
#[test]
fn a_signal_ends_a_client_and_leaves_no_partial_download() {
    // spec 4.3: a Dstore that stops half way, with the client patient
    for (signal, number) in SIGNALS {
        let folder = TempFolder::new();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let mut controller = listener.accept().unwrap().0;
            hear(&controller);
            writeln!(controller, "LOAD_FROM {port} 1000000").unwrap();
            let mut dstore = listener.accept().unwrap().0;
            dstore.write_all(&[1; 500_000]).unwrap();
            hear(&controller); // for ever
        });
        let mut client = Command::new(CLIENT);
        client.args([&port.to_string(), "60000", "load", "f"]).current_dir(folder.path());
        let mut client = Program::spawn(client);
        eventually("some of it is there", || {
            fs::read_dir(folder.path()).unwrap().any(|entry| entry.unwrap().metadata().is_ok_and(|data| data.len() > 0))
        });
        client.signal(signal);
        assert_eq!(client.wait_for_exit().signal(), Some(number), "SIG{signal}: a shell sees {}", 128 + number);
        assert_eq!(folder.names(), [""; 0]);
    }
}

fn hear(mut peer: &TcpStream) {
    let _ = BufReader::new(&mut peer).read_line(&mut String::new());
}

#[test]
fn a_cluster_told_to_end_removes_its_temporary_folder() {
    for (signal, _) in SIGNALS {
        for demo in [false, true] {
            let folder = TempFolder::new();
            let mut cluster = Command::new(CLUSTER);
            cluster.env("TMPDIR", folder.path()).stdin(Stdio::piped());
            if demo {
                // It waits for a rebalance that does not come.
                cluster.args(["--demo", "--period", "1000000", file!()]);
            }
            let mut cluster = Program::spawn(cluster);
            cluster.wait_for_log(if demo { "Waiting for a rebalance" } else { "Say help" });
            assert_eq!(folder.names().len(), 1);
            let stored = format!("store {}\nload shutdown.rs {}\n", file!(), folder.path().display());
            cluster.child.stdin.as_mut().unwrap().write_all(stored.as_bytes()).unwrap();
            if !demo {
                cluster.wait_for_log("stored shutdown.rs");
            }
            cluster.signal(signal);
            assert_eq!(cluster.wait_for_exit().code(), Some(0), "SIG{signal}, demo: {demo}");
            // The download may have been finished.
            let left: Vec<_> = folder.names().into_iter().filter(|name| name != "shutdown.rs").collect();
            assert_eq!(left, [""; 0]);
        }
    }
}

#[test]
fn a_slow_end_is_cut_short_by_a_second_signal_or_the_bound() {
    // A Dstore that starts waits for a Controller that takes no connection, and hears no request to end meanwhile.
    let (_full, port) = full_listener();
    let arguments = ["0", &port.to_string(), "3600000", "files"];
    for (signals, expected) in [(["INT", "TERM"], 15), (["INT", "0"], 2)] {
        let folder = TempFolder::new();
        let mut command = Command::new(DSTORE);
        command.args(arguments).current_dir(folder.path());
        let mut dstore = Program::spawn(command);
        eventually("it connects", || common::is_connecting_to(port));
        dstore.signal(signals[0]);
        eventually("it ends", || {
            dstore.signal(signals[1]); // 0 is none
            dstore.child.try_wait().unwrap().is_some()
        });
        assert_eq!(dstore.wait_for_exit().signal(), Some(expected), "{signals:?}");
    }
}

#[test]
fn settings_that_make_no_sense_are_refused_and_do_not_panic() {
    let zero = std::time::Duration::ZERO;
    let started = controller::start(controller::Config::new(0)).err().expect("R is 0");
    assert_eq!(started.to_string(), "cannot start: R must be at least 1");
    let started = controller::start(controller::Config { timeout: zero, ..controller::Config::new(1) });
    assert_eq!(started.err().unwrap().to_string(), "cannot start: the timeout must be more than nothing");
    let cluster = Cluster::start(1, 1);
    let folder = TempFolder::new();
    let config = dstore::Config { timeout: zero, ..dstore::Config::new(cluster.address().port(), folder.path()) };
    let started = dstore::start(config).err().unwrap();
    assert_eq!(started.to_string(), "cannot start: the timeout must be more than nothing");
    assert!(stevedore::client::Client::connect(cluster.address(), zero).is_err());
    let taken = controller::Config { port: cluster.address().port(), ..controller::Config::new(1) };
    assert!(matches!(controller::start(taken), Err(controller::StartError::Listen { .. })));
}
