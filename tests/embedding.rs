//! Controller and Dstores inside a process: dropping a handle ends every thread and closes every socket, promptly,
//! whatever was going on. (design: ownership does the stopping)
//!
//! One test, in a program of its own, because it counts the threads and descriptors of the whole process.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use stevedore::{controller, dstore};

mod common;
use common::{TempFolder, eventually, full_listener, is_connecting_to};

/// So long that a test which waits for any timeout cannot pass.
const TIMEOUT: Duration = Duration::from_secs(600);

/// How long a drop may take on a machine that is busy with something else.
const PROMPT: Duration = Duration::from_secs(20);

/// Threads and descriptors of this process.
fn census() -> (usize, usize) {
    let count = |folder| fs::read_dir(folder).unwrap().count();
    // The listing of descriptors has one open itself, each time.
    (count("/proc/self/task"), count("/proc/self/fd"))
}

fn start_controller(replicas: usize) -> (controller::Handle, u16) {
    let config = controller::Config { timeout: TIMEOUT, ..controller::Config::new(replicas) };
    let controller = controller::start(config).unwrap();
    let port = controller.address().unwrap().port();
    (controller, port)
}

fn start_dstore(cport: u16, folder: &TempFolder) -> dstore::Handle {
    // With all the threads that a Dstore can have.
    let (sync, scrub) = (true, Some(TIMEOUT));
    let config = dstore::Config { timeout: TIMEOUT, sync, scrub, ..dstore::Config::new(cport, folder.path()) };
    dstore::start(config).unwrap()
}

fn settle(controller: &controller::Handle, members: usize) {
    let settled = |status: &controller::Status| status.members.len() == members && status.is_at_rest;
    controller.wait_until(PROMPT, settled).expect("the Dstores join");
}

/// A peer that follows a script.
struct Peer(BufReader<TcpStream>);

impl Peer {
    fn connect(port: u16) -> Self {
        Self::new(TcpStream::connect(("127.0.0.1", port)).unwrap())
    }

    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PROMPT)).unwrap();
        Self(BufReader::new(stream))
    }

    fn say(&mut self, line: &str) {
        self.0.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Reads to the end of the stream, orderly or not; panics if it does not come.
    fn expect_end(mut self) {
        match self.0.read_to_end(&mut Vec::new()) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
        }
    }
}

/// Idle peers on both, and parked threads.
fn idle_connections() {
    let (controller, cport) = start_controller(1);
    let folder = TempFolder::new();
    let dstore = start_dstore(cport, &folder);
    settle(&controller, 1);
    let port = dstore.address().to_string().parse().unwrap();
    for _ in 0..10 {
        drop(Peer::connect(cport)); // leaves a thread parked
    }
    let mut peers: Vec<Peer> = (0..20).map(|at| Peer::connect(if at % 2 == 0 { cport } else { port })).collect();
    peers[0].say("LIST");
    assert_eq!(peers[0].hear(), "LIST");
    eventually("a thread and two descriptors for each", || census().0 > 20 && census().1 > 40);
    drop(dstore);
    drop(controller);
    peers.into_iter().for_each(Peer::expect_end);
}

/// One client waits for a STORE, and another for a REMOVE, that no Dstore will acknowledge.
fn operations_in_progress() {
    let (controller, cport) = start_controller(1);
    let mut silent = Peer::connect(cport);
    silent.say("JOIN 9");
    assert_eq!(silent.hear(), "LIST");
    silent.say("LIST");
    settle(&controller, 1);
    let mut remover = Peer::connect(cport);
    remover.say("STORE f 1");
    assert_eq!(remover.hear(), "STORE_TO 9");
    silent.say("STORE_ACK f");
    assert_eq!(remover.hear(), "STORE_COMPLETE");
    remover.say("REMOVE f");
    assert_eq!(silent.hear(), "REMOVE f");
    let mut storer = Peer::connect(cport);
    storer.say("STORE g 1");
    assert_eq!(storer.hear(), "STORE_TO 9");
    drop(controller);
    [silent, remover, storer].into_iter().for_each(Peer::expect_end);
}

/// A rebalance waits for a silent Dstore's list, and a request and a join wait for the rebalance.
fn a_line_at_the_gate() {
    let (controller, cport) = start_controller(1);
    let mut silent = Peer::connect(cport);
    silent.say("JOIN 9");
    assert_eq!(silent.hear(), "LIST");
    let mut client = Peer::connect(cport);
    client.say("STORE f 1");
    let mut newcomer = Peer::connect(cport);
    newcomer.say("JOIN 10");
    drop(controller);
    [silent, client, newcomer].into_iter().for_each(Peer::expect_end);
}

/// A Dstore waits for content from a client that sends none.
fn a_transfer_in_progress() {
    let (controller, cport) = start_controller(1);
    let folder = TempFolder::new();
    let dstore = start_dstore(cport, &folder);
    settle(&controller, 1);
    let mut client = Peer::connect(dstore.address().to_string().parse().unwrap());
    client.say("STORE f 1000000");
    assert_eq!(client.hear(), "ACK");
    client.say("only a little of it");
    drop(dstore);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing half-written stays");
    client.expect_end();
    drop(controller);
}

/// A Dstore sends a copy to a peer that never answers.
fn a_copy_in_progress() {
    let controller = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = TempFolder::new();
    let dstore = start_dstore(controller.local_addr().unwrap().port(), &folder);
    let mut controller = Peer::new(controller.accept().unwrap().0);
    assert!(controller.hear().starts_with("JOIN "));
    fs::write(folder.path().join("f"), "content").unwrap();
    controller.say(&format!("REBALANCE 1 f 1 {} 0", peer.local_addr().unwrap().port()));
    let mut receiver = Peer::new(peer.accept().unwrap().0);
    assert_eq!(receiver.hear(), "REBALANCE_STORE f 7");
    controller.say("LIST"); // waits for the order to end
    drop(dstore);
    [controller, receiver].into_iter().for_each(Peer::expect_end);
}

/// A Dstore with a file that the test, as its Controller, has told it to send to `port`.
fn dstore_that_sends(folder: &TempFolder, size: u64, port: u16) -> (dstore::Handle, Peer) {
    let controller = TcpListener::bind("127.0.0.1:0").unwrap();
    let dstore = start_dstore(controller.local_addr().unwrap().port(), folder);
    let mut controller = Peer::new(controller.accept().unwrap().0);
    assert!(controller.hear().starts_with("JOIN "));
    fs::File::create(folder.path().join("f")).unwrap().set_len(size).unwrap();
    controller.say(&format!("REBALANCE 1 f 1 {port} 0"));
    (dstore, controller)
}

/// A Dstore sends a copy to a peer that takes none of it, and to one that takes all of it and does not close.
fn copies_that_stall() {
    for (size, taken) in [(50 << 20, 0), (1000, 1000)] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let folder = TempFolder::new();
        let (dstore, controller) = dstore_that_sends(&folder, size, listener.local_addr().unwrap().port());
        let mut receiver = Peer::new(listener.accept().unwrap().0);
        assert_eq!(receiver.hear(), format!("REBALANCE_STORE f {size}"));
        receiver.say("ACK");
        receiver.0.read_exact(&mut vec![0; taken]).unwrap();
        drop(dstore);
        [controller, receiver].into_iter().for_each(Peer::expect_end);
    }
}

/// A Dstore waits for a connection to a peer that accepts none.
fn a_connection_in_progress() {
    let (_full, port) = full_listener();
    let folder = TempFolder::new();
    let (dstore, controller) = dstore_that_sends(&folder, 1000, port);
    eventually("it connects", || is_connecting_to(port));
    drop(dstore);
    controller.expect_end();
}

/// The Controller has more to say to a Dstore and to a client than they, and the sockets, take.
fn peers_that_read_nothing() {
    let (controller, cport) = start_controller(1);
    let mut dstore = Peer::connect(cport);
    dstore.say("JOIN 9");
    assert_eq!(dstore.hear(), "LIST");
    dstore.say("LIST");
    settle(&controller, 1);
    let mut client = Peer::connect(cport);
    client.say(&format!("STORE {} 1", "x".repeat(255)));
    assert_eq!(client.hear(), "STORE_TO 9");
    dstore.say(&format!("STORE_ACK {}", "x".repeat(255)));
    assert_eq!(client.hear(), "STORE_COMPLETE");
    client.say(&vec!["LIST"; 100_000].join("\n"));
    assert!(client.0.get_ref().peek(&mut [0]).unwrap() > 0);

    // Another one joins, with so many files to be removed that the order does not fit.
    let mut newcomer = Peer::connect(cport);
    newcomer.say("JOIN 10");
    assert_eq!([dstore.hear(), newcomer.hear()], ["LIST", "LIST"]);
    let orphans: Vec<_> = (0..50_000).map(|number| format!("{number:0255}")).collect();
    newcomer.say(&format!("LIST {}", orphans.join(" ")));
    dstore.say(&format!("LIST {}", "x".repeat(255)));
    assert_eq!(dstore.hear(), "REBALANCE 0 0");
    assert!(newcomer.0.get_ref().peek(&mut [0]).unwrap() > 0);
    drop(controller);
    [dstore, client, newcomer].into_iter().for_each(Peer::expect_end);
}

/// The Controller has gone first.
fn an_orphaned_dstore() {
    let (controller, cport) = start_controller(1);
    let folder = TempFolder::new();
    let dstore = start_dstore(cport, &folder);
    settle(&controller, 1);
    drop(controller);
    dstore.wait_for_controllers_end();
    drop(dstore);
}

/// A Dstore that finds no Controller.
fn a_dstore_that_cannot_start() {
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let folder = TempFolder::new();
    assert!(dstore::start(dstore::Config::new(unused, folder.path())).is_err());
}

#[test]
fn a_dropped_handle_leaves_no_thread_and_no_descriptor() {
    let cases: [(&str, fn()); 10] = [
        ("idle connections", idle_connections),
        ("operations in progress", operations_in_progress),
        ("a line at the gate", a_line_at_the_gate),
        ("a transfer in progress", a_transfer_in_progress),
        ("a copy in progress", a_copy_in_progress),
        ("copies that stall", copies_that_stall),
        ("a connection in progress", a_connection_in_progress),
        ("peers that read nothing", peers_that_read_nothing),
        ("an orphaned Dstore", an_orphaned_dstore),
        ("a Dstore that cannot start", a_dstore_that_cannot_start),
    ];
    for (name, case) in cases {
        let before = census();
        let begun = Instant::now();
        case();
        assert!(begun.elapsed() < TIMEOUT / 2, "{name}: waited for a timeout");
        // The kernel may list a thread for a while after it has been joined.
        while census() != before && begun.elapsed() < PROMPT {
            thread::yield_now();
        }
        let after = census();
        println!("{name}: threads and descriptors {before:?} before, {after:?} after, {:?}", begun.elapsed());
        assert_eq!(after, before, "{name}");
    }
}
