//! Chapter one's protocol in front of the depot: the official client's habits, and our own client. (docs/spec.md)

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use common::{SOON, Served};
use depot::client::memory::Memory;
use depot::client::{Files, PutOptions};
use depot::namespace::change::{Condition, Replicas, Settings};
use depot::path::Path;
use gateway::coursework::Coursework;
use gateway::facade::{Acting, Facade};
use kit::bytes;
use official::Official;
use stevedore::client::{Client, Error};
use stevedore::protocol::{Address, Connection, FileName, Message};

/// The sizes at which other systems have broken.
const SIZES: [usize; 11] =
    [0, 1, 2_047, 2_048, 2_049, 300_000, (4 << 20) - 1, 4 << 20, (4 << 20) + 1, 5_000_000, 100_000_000];

/// A gateway with the façade, in the directory `/box`, and where the façade is.
fn served(timeout: Duration) -> (Served, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let acting = Acting { directory: path("/box"), ..Acting::anonymous(true) };
    let starter = Box::new(move |store, record| Coursework::start(listener, true, timeout, store, record));
    let store = Arc::new(Memory::new("test").unwrap());
    store.set(&Settings { replicas: Replicas::Number(3), ..Settings::default() }).unwrap();
    let served = Served::of(store, |options| options.facades = vec![Facade { name: "Coursework", acting, starter }]);
    (served, address)
}

fn path(text: &str) -> Path {
    text.parse().unwrap()
}

fn name(text: &str) -> FileName {
    text.parse().unwrap()
}

fn ports(answer: Message) -> Vec<Address> {
    match answer {
        Message::StoreTo { dstores } => dstores,
        other => panic!("expected STORE_TO, got {other}"),
    }
}

/// Stores as the official client does: one Dstore after another. (spec 6.4)
fn store(client: &mut Official, file: &str, content: &[u8]) -> Message {
    let (name, size) = (name(file), content.len() as u64);
    let dstores = match client.ask(&Message::Store { name: name.clone(), size }).unwrap() {
        Message::FileAlreadyExists => return Message::FileAlreadyExists,
        answer => ports(answer),
    };
    for dstore in dstores {
        let send = |connection: &Connection| connection.send_content(content);
        client.send_copy(&dstore, &name, size, Instant::now() + SOON, send).unwrap();
    }
    client.answer().unwrap()
}

/// Loads as the official client does, from the first Dstore that it is offered. (spec 6.5)
fn load(client: &mut Official, file: &str) -> Vec<u8> {
    let Message::LoadFrom { dstore, size } = client.ask(&Message::Load { name: name(file) }).unwrap() else {
        panic!("expected LOAD_FROM")
    };
    let mut connection = client.request_copy(&dstore, &name(file)).unwrap();
    let mut content = Vec::new();
    connection.content(size, SOON).read_to_end(&mut content).unwrap();
    content
}

fn list(names: &[&str]) -> Message {
    Message::List { names: names.iter().map(|text| name(text)).collect() }
}

#[test]
fn the_official_client_stores_lists_loads_and_removes() {
    let (served, address) = served(SOON);
    let mut client = Official::new(address, SOON);
    assert_eq!(client.ask(&list(&[])).unwrap(), list(&[]));
    for size in SIZES {
        let content = bytes(size as u64, size);
        assert_eq!(store(&mut client, "a", &content), Message::StoreComplete, "{size}");
        assert!(served.content("/box/a").unwrap() == content, "{size} bytes are another client's, too");
        assert!(load(&mut client, "a") == content, "{size}");
        assert_eq!(client.ask(&Message::Store { name: name("a"), size: 1 }).unwrap(), Message::FileAlreadyExists);
        assert_eq!(client.ask(&list(&[])).unwrap(), list(&["a"]));
        assert_eq!(client.ask(&Message::Remove { name: name("a") }).unwrap(), Message::RemoveComplete, "{size}");
        let missing = Message::FileDoesNotExist { name: None };
        assert_eq!(client.ask(&Message::Load { name: name("a") }).unwrap(), missing);
        assert_eq!(client.ask(&Message::Remove { name: name("a") }).unwrap(), missing);
    }
}

#[test]
fn our_own_client_stores_lists_loads_and_removes() {
    let (served, address) = served(SOON);
    for keeps in [true, false] {
        let mut client = Client::connect(address, SOON).unwrap();
        client.keep_connections(keeps);
        for size in SIZES {
            let content = bytes(size as u64, size);
            client.store_bytes("a", &content).unwrap();
            assert!(client.load_bytes("a").unwrap() == content, "{size}");
            assert!(matches!(client.store_bytes("a", b""), Err(Error::AlreadyExists { .. })), "{size}");
            assert_eq!(client.list().unwrap(), [name("a")]);
            client.remove("a").unwrap();
        }
        for number in 0..50 {
            client.store_bytes(&format!("small{number}"), &bytes(number, 1_000)).unwrap();
        }
        assert_eq!(client.list().unwrap().len(), 50);
        for number in 0..50 {
            assert_eq!(client.load_bytes(&format!("small{number}")).unwrap(), bytes(number, 1_000));
            served.store.remove(&path(&format!("/box/small{number}")), Condition::Any).unwrap();
        }
        assert_eq!(client.list().unwrap(), []);
    }
}

/// A client that says what it likes.
struct Raw(Connection);

impl Raw {
    fn of(address: SocketAddr) -> Self {
        Self(Connection::connect(address, SOON).unwrap())
    }

    fn say(&self, lines: &str) {
        self.0.send_content(lines.as_bytes()).unwrap();
    }

    #[track_caller]
    fn hears(&mut self, expected: &str) {
        assert_eq!(self.0.receive_within(SOON).unwrap().expect("an answer").unwrap().to_string(), expected);
    }

    fn hears_of_dstores(&mut self) -> Vec<Address> {
        ports(self.0.receive_within(SOON).unwrap().expect("an answer").unwrap())
    }
}

#[test]
fn a_store_without_transfers_gets_no_answer_and_leaves_nothing() {
    // spec 6.6: the official client's testing call
    let (served, address) = served(SOON);
    let mut client = Raw::of(address);
    for size in [100, 0] {
        client.say(&format!("STORE a {size}\n"));
        assert_eq!(client.hears_of_dstores().len(), 3);
        let mut other = Raw::of(address);
        other.say("STORE a 1\nLOAD a\nREMOVE a\nLIST\n");
        other.hears("ERROR_FILE_ALREADY_EXISTS");
        other.hears("ERROR_FILE_DOES_NOT_EXIST");
        other.hears("ERROR_FILE_DOES_NOT_EXIST");
        other.hears("LIST");
        // What is heard next is the answer to this, so nothing else was said.
        client.say("LIST\n");
        client.hears("LIST");
        client.say("LOAD a\n");
        client.hears("ERROR_FILE_DOES_NOT_EXIST");
    }
    assert!(served.content("/box/a").is_none());
}

#[test]
fn a_client_that_goes_on_gets_no_late_answer() {
    // spec 6.1
    let (served, address) = served(SOON);
    let mut client = Raw::of(address);
    let content = |dstore: &Address| {
        let copy = Raw(Connection::connect(dstore.socket(), SOON).unwrap());
        copy.say("STORE a 5\n");
        copy
    };
    client.say("STORE a 5\n");
    let dstores = client.hears_of_dstores();
    let mut first = content(&dstores[0]);
    first.hears("ACK");
    first.say("hello");
    client.say("LIST\n");
    client.hears("LIST");
    // What still comes is not wanted.
    for dstore in &dstores[1..] {
        assert!(content(dstore).0.receive_within(SOON).is_ok_and(|line| line.is_none()), "refused");
    }
    client.say("LIST\nSTORE a 0\n");
    client.hears("LIST");
    assert_eq!(client.hears_of_dstores().len(), 3, "the name is free");
    assert!(served.content("/box/a").is_none());
}

#[test]
fn copies_that_differ_are_not_kept() {
    let (served, address) = served(SOON);
    let mut client = Raw::of(address);
    client.say("STORE a 5\n");
    for (dstore, content) in client.hears_of_dstores().iter().zip(["hello", "hello", "jello"]) {
        let mut copy = Raw(Connection::connect(dstore.socket(), SOON).unwrap());
        copy.say("STORE a 5\n");
        copy.hears("ACK");
        copy.say(content);
    }
    let mut other = Raw::of(address);
    kit::eventually("the store is over", || {
        other.say("STORE a 0\n");
        matches!(other.0.receive_within(SOON).unwrap().expect("an answer").unwrap(), Message::StoreTo { .. })
    });
    client.say("LIST\n");
    client.hears("LIST");
    assert!(served.content("/box/a").is_none());
}

#[test]
fn after_all_dstores_were_offered_a_load_fails() {
    // spec 4.3, 6.6, 7.4, 7.23
    let (served, address) = served(SOON);
    served.put("/box/a", b"hello");
    let mut client = Raw::of(address);
    let mut ask = |line: &str| {
        client.say(line);
        client.0.receive_within(SOON).unwrap().expect("an answer").unwrap().to_string()
    };
    for first in ["LOAD a\n", "RELOAD a\n"] {
        let mut offered = [first, "RELOAD a\n", "RELOAD a\n"].map(&mut ask).to_vec();
        offered.sort();
        offered.dedup();
        assert_eq!(offered.len(), 3, "three different ones: {offered:?}");
        assert!(offered.iter().all(|answer| answer.starts_with("LOAD_FROM ") && answer.ends_with(" 5")), "{offered:?}");
        assert_eq!(["RELOAD a\n"; 2].map(&mut ask), ["ERROR_LOAD"; 2]);
        assert!(ask("LOAD a\n").starts_with("LOAD_FROM "));
        assert_eq!(ask("LIST\n"), "LIST a");
    }
}

#[test]
fn a_file_that_was_replaced_is_offered_anew() {
    let (served, address) = served(SOON);
    served.put("/box/a", b"hello");
    let mut client = Raw::of(address);
    let mut ask = |line: &str| {
        client.say(line);
        match client.0.receive_within(SOON).unwrap().expect("an answer").unwrap() {
            Message::LoadFrom { dstore, size } => (dstore, size),
            other => panic!("{other}"),
        }
    };
    let fetch = |dstore: &Address| {
        let mut copy = TcpStream::connect(dstore.socket()).unwrap();
        copy.write_all(b"LOAD_DATA a\n").unwrap();
        let mut content = Vec::new();
        copy.read_to_end(&mut content).unwrap();
        content
    };
    let (dstore, size) = ask("LOAD a\n");
    served.put("/box/a", b"hello, world");
    assert_eq!((size, &*fetch(&dstore)), (5, &b""[..]), "no part of what it was not told of");
    let (dstore, size) = ask("RELOAD a\n");
    assert_eq!((size, &*fetch(&dstore)), (12, &b"hello, world"[..]));
}

#[test]
fn what_is_no_request_gets_no_answer() {
    // spec 2.1, 2.6, 6.2; and no JOIN is served
    let (_served, address) = served(SOON);
    let mut client = Raw::of(address);
    client.say(
        "JOIN 4001\nstore a 1\nSTORE a\nSTORE a -1\nSTORE a/b 1\nLOAD\n\nSTORE_ACK a\nREBALANCE_COMPLETE\nLIST\r\n",
    );
    client.hears("LIST");
    client.say("\nLIST\r");
    client.hears("LIST");
    let mut browser = Raw::of(address);
    browser.say("POST / HTTP/1.1\r\nSTORE a 0\r\n");
    assert!(browser.0.receive_within(SOON).is_ok_and(|line| line.is_none()), "spec 7.29");
}

#[test]
fn lines_sent_ahead_are_answered_in_their_order() {
    let (_served, address) = served(Duration::from_millis(50));
    let mut client = Raw::of(address);
    client.say("STORE a 5\nLIST\n");
    assert_eq!(client.hears_of_dstores().len(), 3);
    client.hears("LIST");
}

#[test]
fn only_what_the_official_client_can_say_is_told() {
    let (served, address) = served(SOON);
    for name in ["a", "ü", "two words", "back\\slash"] {
        served.put(&format!("/box/{name}"), b"x");
    }
    served.put("/box/folder/b", b"x");
    // Of 2^31 bytes and of one less: parts of the same content.
    let [part, last] = [("/box/part", 8 << 20), ("/box/last", (8 << 20) - 1)].map(|(name, size)| {
        served.put(name, &vec![0; size]);
        (path(name), served.store.stat(&path(name)).unwrap().version)
    });
    let mut sources = vec![part; 255];
    sources.push(last);
    let compose = |to, sources: &[_]| served.store.compose(&path(to), sources, false, &PutOptions::default()).unwrap();
    compose("/box/largest", &sources);
    sources[255] = sources[0].clone();
    compose("/box/too-large", &sources);
    let mut client = Raw::of(address);
    client.say("LIST\nLOAD largest\nLOAD too-large\nLOAD folder\nREMOVE folder\nSTORE folder 1\nSTORE too-large 1\n");
    client.hears("LIST a largest last part ü");
    let offer = client.0.receive_within(SOON).unwrap().expect("an answer").unwrap();
    assert!(matches!(offer, Message::LoadFrom { size: 2_147_483_647, .. }), "{offer}");
    for _ in 0..3 {
        client.hears("ERROR_FILE_DOES_NOT_EXIST");
    }
    client.hears("ERROR_FILE_ALREADY_EXISTS");
    client.hears("ERROR_FILE_ALREADY_EXISTS");
}

#[test]
fn a_gateway_ends_while_a_store_waits() {
    let (served, address) = served(SOON);
    let mut client = Raw::of(address);
    client.say("STORE a 5\n");
    let dstores = client.hears_of_dstores();
    let mut copy = Raw(Connection::connect(dstores[0].socket(), SOON).unwrap());
    copy.say("STORE a 5\nhello");
    copy.hears("ACK");
    served.gateway.stop(Duration::ZERO);
    assert!(client.0.receive_within(SOON).is_ok_and(|line| line.is_none()));
    assert!(served.store.stat(&path("/box/a")).is_err());
}

#[test]
fn of_clients_that_store_the_same_name_at_once_one_does() {
    // spec 3.2
    let (_served, address) = served(SOON);
    let mut clients: Vec<Official> = (0..10).map(|_| Official::new(address, SOON)).collect();
    for round in 0..200 {
        let same = format!("same{round}");
        let start = Barrier::new(clients.len());
        let store_twice = |client: &mut Official| {
            start.wait();
            [store(client, &same, b""), store(client, &same, b"")]
        };
        let answers: Vec<[Message; 2]> = thread::scope(|scope| {
            let each = clients.iter_mut().map(|client| scope.spawn(|| store_twice(client)));
            let threads: Vec<_> = each.collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let count = |wanted| answers.iter().flatten().filter(|answer| **answer == wanted).count();
        assert_eq!((count(Message::StoreComplete), count(Message::FileAlreadyExists)), (1, 19), "round {round}");
    }
}
