//! The client library against real clusters, and against peers that are not ours. (spec 4.2 to 4.5, 6.1, 8.2)

use std::collections::HashMap;
use std::fs;
use std::io::{self, Cursor, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, Once};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use stevedore::client::{Client, Error};
use stevedore::controller;
use stevedore::protocol::connection::MESSAGE_LOG;
use stevedore::protocol::content::copy;
use stevedore::protocol::{Address, Connection, FileName, Message, Outgoing};

mod common;
use common::{Cluster, PATIENCE, TempFolder, bytes, eventually};

fn name(text: &str) -> FileName {
    text.parse().unwrap()
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn accept(listener: &TcpListener) -> Connection {
    listener.set_nonblocking(true).unwrap();
    let mut accepted = None;
    eventually("a peer connects", || {
        accepted = listener.accept().ok();
        accepted.is_some()
    });
    let (stream, _) = accepted.expect("just awaited");
    stream.set_nonblocking(false).unwrap();
    Connection::new(Arc::new(stream)).unwrap()
}

fn receive(connection: &mut Connection) -> Message {
    connection.receive_within(PATIENCE).unwrap().expect("a message").expect("a well-formed one")
}

// What is stored is what is loaded.

#[test]
fn content_of_any_size_lies_on_r_dstores_and_loads_unchanged() {
    // spec 1.2, 4.2, 4.3, 6.4, 7.13: around the sizes of our buffers
    let cluster = Cluster::start(2, 3);
    let mut client = cluster.client();
    let sizes = [0, 1, 8191, 8192, 8193, 65535, 65536, 65537, 262143, 262144, 262145, 5_000_000];
    for size in sizes {
        let (file, content) = (format!("file-{size}"), bytes(size as u64, size));
        client.store_bytes(&file, &content).unwrap();
        assert!(client.load_bytes(&file).unwrap() == content, "{size} bytes come back different");
        let copies = cluster.copies(&file);
        assert_eq!(copies.len(), 2, "copies of {size} bytes");
        assert!(copies.iter().all(|copy| *copy == content), "a copy of {size} bytes is different");
    }
    assert_eq!(client.list().unwrap().len(), sizes.len());
    for size in sizes {
        client.remove(&format!("file-{size}")).unwrap();
    }
    assert_eq!(client.list().unwrap(), []);
    for dstore in cluster.dstores() {
        assert_eq!(dstore.folder.names(), [""; 0], "nothing else lies there between operations"); // spec 5.1
    }
}

#[test]
fn files_readers_and_writers_are_as_good_as_bytes() {
    let cluster = Cluster::start(1, 1);
    let mut client = cluster.client();
    let folder = TempFolder::new();
    let content = bytes(1, 300_000);
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));

    fs::write(&from, &content).unwrap();
    client.store_file("file", &from).unwrap();
    fs::write(&to, "replaced").unwrap();
    assert_eq!(client.load_file("file", &to).unwrap(), 300_000);
    assert!(fs::read(&to).unwrap() == content);
    assert_eq!(folder.names(), ["from", "to"], "nothing temporary is left");

    client.store("reader", 300_000, &mut Dribble(Cursor::new(&content))).unwrap();
    let mut written = Vec::new();
    assert_eq!(client.load_into("reader", &mut Cursor::new(&mut written)).unwrap(), 300_000);
    assert!(written == content);

    client.store("cut", 1000, &mut &content[..]).unwrap();
    assert!(client.load_bytes("cut").unwrap() == content[..1000], "a longer source is cut at the size");
}

/// A source that gives a few bytes at a time.
struct Dribble<R>(R);

impl<R: Read> Read for Dribble<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(777);
        self.0.read(&mut buffer[..most])
    }
}

/// It refuses them without asking the Controller.
#[test]
fn the_client_takes_every_valid_name_and_refuses_all_others() {
    // spec 2.2, 7.12
    let cluster = Cluster::start(1, 1);
    let mut client = cluster.client();
    let longest = "x".repeat(255);
    for name in ["a", ".hidden", "...", "naïve", "100%", "-", "*", "\u{1f600}", &longest] {
        client.store_bytes(name, name.as_bytes()).unwrap();
        assert_eq!(client.load_bytes(name).unwrap(), name.as_bytes());
        assert_eq!(client.list().unwrap(), [self::name(name)]);
        client.remove(name).unwrap();
    }
    let folder = TempFolder::new();
    let too_long = "x".repeat(256);
    for name in ["", ".", "..", "a b", "a/b", "../a", "a\\b", "a\nb", "a\0", &too_long] {
        assert!(matches!(client.store_bytes(name, b""), Err(Error::Name(_))), "{name:?}");
        assert!(matches!(client.load_bytes(name), Err(Error::Name(_))), "{name:?}");
        assert!(matches!(client.load_file(name, &folder.path().join("f")), Err(Error::Name(_))), "{name:?}");
        assert!(matches!(client.remove(name), Err(Error::Name(_))), "{name:?}");
    }
    assert_eq!(folder.names(), [""; 0]);
    assert_eq!(client.list().unwrap(), [], "and the client goes on");
}

// Errors have types.

#[test]
fn missing_and_existing_files_have_errors_of_their_own() {
    // spec 3.2
    let cluster = Cluster::start(1, 1);
    let mut client = cluster.client();
    assert!(matches!(client.load_bytes("f"), Err(Error::DoesNotExist(f)) if f == name("f")));
    assert!(matches!(client.remove("f"), Err(Error::DoesNotExist(f)) if f == name("f")));
    client.store_bytes("f", b"first").unwrap();
    assert!(matches!(client.store_bytes("f", b"second"), Err(Error::AlreadyExists(f)) if f == name("f")));
    assert_eq!(client.load_bytes("f").unwrap(), b"first");
    client.remove("f").unwrap();
    assert!(matches!(client.load_bytes("f"), Err(Error::DoesNotExist(_))));
    client.store_bytes("f", b"third").unwrap();
    assert_eq!(client.load_bytes("f").unwrap(), b"third");
}

#[test]
fn every_request_is_refused_until_there_are_enough_dstores() {
    // spec 1.5, 3.3
    let mut cluster = Cluster::start(2, 1);
    let mut client = cluster.client();
    let folder = TempFolder::new();
    assert!(matches!(client.store_bytes("f", b"x"), Err(Error::NotEnoughDstores)));
    assert!(matches!(client.load_bytes("f"), Err(Error::NotEnoughDstores)));
    assert!(matches!(client.load_file("f", &folder.path().join("f")), Err(Error::NotEnoughDstores)));
    assert!(matches!(client.remove("f"), Err(Error::NotEnoughDstores)));
    assert!(matches!(client.list(), Err(Error::NotEnoughDstores)));
    assert_eq!(folder.names(), [""; 0]);
    cluster.join(PATIENCE);
    client.store_bytes("f", b"x").unwrap();
    cluster.kill(0);
    assert!(matches!(client.load_bytes("f"), Err(Error::NotEnoughDstores)));
}

#[test]
fn a_source_ending_early_stores_nothing_and_the_client_goes_on() {
    // spec 2.3, 7.11
    let cluster = Cluster::start(2, 2);
    // The Controller waits for acknowledgements for longer than this client would wait for it.
    let mut client = Client::connect(cluster.address(), PATIENCE / 3).unwrap();
    for (file, has, promised) in [("empty", 0, 1), ("short", 9_999, 10_000), ("long", 2_000_000, 5_000_000)] {
        let error = client.store(file, promised, &mut &bytes(1, has)[..]).unwrap_err();
        assert!(matches!(&error, Error::Local(error) if error.kind() == io::ErrorKind::UnexpectedEof), "{error:?}");
        assert_eq!(client.list().unwrap(), []);
        assert!(matches!(client.load_bytes(file), Err(Error::DoesNotExist(_))));
    }
    for dstore in cluster.dstores() {
        eventually("nothing of it is left", || dstore.folder.names().is_empty());
    }
    client.store_bytes("whole", b"whole").unwrap();
    assert_eq!(client.load_bytes("whole").unwrap(), b"whole");
}

#[test]
fn a_source_that_fails_or_is_missing_is_a_local_error() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("broken"))
        }
    }
    let cluster = Cluster::start(1, 1);
    let mut client = cluster.client();
    let folder = TempFolder::new();
    assert!(matches!(client.store("f", 5, &mut Broken), Err(Error::Local(error)) if error.to_string() == "broken"));
    let missing = client.store_file("g", &folder.path().join("missing"));
    assert!(matches!(missing, Err(Error::Local(error)) if error.kind() == io::ErrorKind::NotFound));
    let nowhere = client.load_file("h", &folder.path().join("missing/h"));
    assert!(matches!(nowhere, Err(Error::Local(error)) if error.kind() == io::ErrorKind::NotFound));
    // spec 7.13
    let too_large = client.store("i", 1 << 63, &mut io::repeat(0));
    assert!(matches!(too_large, Err(Error::TooLarge { size }) if size == 1 << 63));
    client.store_bytes("g", b"g").unwrap();
}

#[test]
fn a_controller_that_cannot_be_reached_is_named() {
    // Bound and not listening: no other program can listen there meanwhile.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&loopback(0).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let Err(error) = Client::connect(address, PATIENCE) else { panic!("connected") };
    assert!(matches!(&error, Error::Controller { address: named, .. } if *named == address), "{error:?}");

    let cluster = Cluster::start(1, 1);
    let mut client = cluster.client();
    client.list().unwrap();
    drop(cluster);
    for _ in 0..2 {
        assert!(matches!(client.list(), Err(Error::Controller { .. })));
    }
}

#[test]
fn a_silent_controller_is_given_up_after_the_timeout() {
    // spec 2.7
    const TIMEOUT: Duration = Duration::from_millis(100);
    let (_listener, port) = listen(); // the kernel accepts, and no program answers
    let mut client = Client::connect(loopback(port), TIMEOUT).unwrap();
    let begun = Instant::now();
    let given_up = |error| matches!(error, Error::NoReply { timeout: TIMEOUT, .. });
    assert!(client.list().is_err_and(given_up));
    assert!(client.store_bytes("f", b"x").is_err_and(given_up));
    assert!(client.load_bytes("f").is_err_and(given_up));
    assert!(client.remove("f").is_err_and(given_up));
    assert!(begun.elapsed() >= 4 * TIMEOUT / 2); // the kernel counts in ticks
}

#[test]
fn a_store_is_stopped_once_the_controller_has_given_it_up() {
    // spec 4.2: the Controller's timeout bounds a whole store
    const LIMIT: Duration = Duration::from_millis(50);
    const SIZE: u64 = 1 << 30; // it takes longer than that on any machine
    struct Endless(u64);
    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 += buffer.len() as u64;
            Ok(buffer.len())
        }
    }
    let cluster = Cluster::start(1, 1);
    let mut client = cluster.client();
    client.limit_stores(LIMIT);
    let mut source = Endless(0);
    let begun = Instant::now();
    let stored = client.store("f", SIZE, &mut source);
    let Err(Error::StoreOverdue { size: SIZE, sent, limit: LIMIT, .. }) = stored else { panic!("{stored:?}") };
    assert!(begun.elapsed() >= LIMIT);
    assert!(sent <= source.0 && source.0 < SIZE);
    assert!(client.list().unwrap().is_empty());
    client.limit_stores(PATIENCE);
    client.store_bytes("g", &bytes(1, 1_000_000)).unwrap();
}

#[test]
fn a_senseless_answer_is_an_error_and_the_client_connects_anew() {
    let (listener, port) = listen();
    thread::scope(|scope| {
        scope.spawn(|| {
            for answer in [Message::Ack, Message::StoreComplete] {
                let mut confused = accept(&listener);
                receive(&mut confused);
                confused.send(&answer).unwrap();
                assert_eq!(confused.receive_within(PATIENCE).unwrap(), None, "it is given up");
            }
            let mut garbled = accept(&listener);
            receive(&mut garbled);
            garbled.send_content(b"LIST  two  spaces\n").unwrap();
            let mut sober = accept(&listener);
            receive(&mut sober);
            sober.send(&Message::List { names: vec![name("f")] }).unwrap();
        });
        let mut client = Client::connect(loopback(port), PATIENCE).unwrap();
        assert!(matches!(client.list(), Err(Error::Unexpected { reply }) if reply == "ACK"));
        assert!(matches!(client.load_bytes("f"), Err(Error::Unexpected { reply }) if reply == "STORE_COMPLETE"));
        assert!(matches!(client.list(), Err(Error::Unexpected { .. })));
        assert_eq!(client.list().unwrap(), [name("f")]);
    });
}

#[test]
fn a_late_reply_is_not_taken_for_that_to_the_next_request() {
    // spec 6.1: what the official client gets wrong
    let (listener, port) = listen();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut first = accept(&listener);
            receive(&mut first);
            let mut second = accept(&listener); // the client has given up the first request, and asks another
            let request = receive(&mut second);
            let _ = first.send(&Message::List { names: vec![name("late")] });
            assert_eq!(request, Message::List { names: vec![] });
            second.send(&Message::List { names: vec![name("in-time")] }).unwrap();
        });
        let mut client = Client::connect(loopback(port), Duration::from_millis(500)).unwrap();
        assert!(matches!(client.remove("f"), Err(Error::NoReply { .. })));
        // The other side may take long to accept: the kernel connects, and the client waits for the answer.
        let answer = (0..100).find_map(|_| client.list().ok());
        assert_eq!(answer, Some(vec![name("in-time")]));
    });
}

#[test]
fn a_store_never_acknowledged_is_an_error_and_leaves_no_file() {
    // spec 4.2: nothing is sent to the client, and the entry is removed
    let config = controller::Config { timeout: Duration::from_millis(200), ..controller::Config::new(1) };
    let controller = controller::start(config).unwrap();
    let foreign = ForeignDstore::join(&controller, Habit { acknowledges: false, ..Habit::default() });
    let address = loopback(controller.address().unwrap().port());
    let mut client = Client::connect(address, Duration::from_secs(1)).unwrap();
    assert!(matches!(client.store_bytes("f", b"hello"), Err(Error::NoReply { .. })));
    assert_eq!(client.list().unwrap(), []);
    foreign.change(|habit| habit.acknowledges = true);
    client.store_bytes("f", b"hello").unwrap();
}

// Loads fall over to the next holder.

#[test]
fn a_load_that_is_cut_off_starts_again_at_the_next_holder() {
    // spec 4.3
    let content = bytes(7, 400_000);
    for cut_at in [0, 1, 8192, 65536, 200_000, 399_999] {
        let controller = controller::start(controller::Config::new(2)).unwrap();
        let cutter = ForeignDstore::join(&controller, Habit { cuts_at: Some(cut_at), ..Habit::default() });
        let _whole = ForeignDstore::join(&controller, Habit::default());
        let mut client = client_of(&controller);
        client.store_bytes("f", &content).unwrap();
        let folder = TempFolder::new();
        let path = folder.path().join("f");
        // The holders take turns (spec 7.22): of every two loads one begins with the one that cuts.
        for _ in 0..2 {
            assert!(client.load_bytes("f").unwrap() == content, "cut at {cut_at}");
            assert_eq!(client.load_file("f", &path).unwrap(), 400_000);
            assert!(fs::read(&path).unwrap() == content, "cut at {cut_at}");
        }
        assert!(cutter.loads() > 0, "it was never asked");
        assert_eq!(folder.names(), ["f"]);
    }
}

#[test]
fn a_load_into_a_writer_fails_only_once_something_is_written() {
    let content = bytes(7, 200_000);
    for (cut_at, failures) in [(0, 0), (1, 1), (100_000, 1)] {
        let controller = controller::start(controller::Config::new(2)).unwrap();
        let _cutter = ForeignDstore::join(&controller, Habit { cuts_at: Some(cut_at), ..Habit::default() });
        let _whole = ForeignDstore::join(&controller, Habit::default());
        let mut client = client_of(&controller);
        client.store_bytes("f", &content).unwrap();
        let mut failed = 0;
        for _ in 0..2 {
            let mut written = Vec::new();
            match client.load_into("f", &mut Cursor::new(&mut written)) {
                Ok(size) => assert!(size == 200_000 && written == content, "cut at {cut_at}"),
                Err(Error::Local(_)) => {
                    failed += 1;
                    assert!(written == content[..written.len()] && written.len() == cut_at, "cut at {cut_at}");
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(failed, failures, "cut at {cut_at}");
        assert_eq!(client.list().unwrap(), [name("f")], "and the client goes on");
    }
}

#[test]
fn a_failed_load_leaves_the_old_file_and_nothing_half_written() {
    let controller = controller::start(controller::Config::new(2)).unwrap();
    let cutters =
        [60_000, 150_000].map(|at| ForeignDstore::join(&controller, Habit { cuts_at: Some(at), ..Habit::default() }));
    let mut client = client_of(&controller);
    client.store_bytes("f", &bytes(7, 200_000)).unwrap();
    let folder = TempFolder::new();
    let path = folder.path().join("f");
    let is_load_failure = |error| matches!(error, Error::LoadFailed { last_failure: Some(_), .. });

    assert!(client.load_file("f", &path).is_err_and(is_load_failure));
    assert_eq!(folder.names(), [""; 0]);
    fs::write(&path, "before").unwrap();
    assert!(client.load_file("f", &path).is_err_and(is_load_failure));
    assert_eq!(folder.names(), ["f"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "before");
    assert!(matches!(client.load_file("missing", &path), Err(Error::DoesNotExist(_))));
    assert_eq!(fs::read_to_string(&path).unwrap(), "before");
    assert!(client.load_bytes("f").is_err_and(is_load_failure));
    assert_eq!(cutters.each_ref().map(ForeignDstore::loads), [3, 3], "each holder is tried once in each load");

    cutters[1].change(|habit| habit.cuts_at = None);
    assert_eq!(client.load_file("f", &path).unwrap(), 200_000);
}

#[test]
fn a_load_into_an_unwritable_target_tries_no_other_holder() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let cluster = Cluster::start(2, 2);
    let mut client = cluster.client();
    client.store_bytes("f", b"hello").unwrap();
    let outcome = client.load_into("f", &mut Full);
    assert!(matches!(outcome, Err(Error::Local(error)) if error.kind() == io::ErrorKind::StorageFull));
    assert_eq!(client.load_bytes("f").unwrap(), b"hello");
}

#[test]
fn loads_go_on_while_a_dstore_dies() {
    // spec 4.3
    let mut cluster = Cluster::start(2, 3);
    let content = bytes(3, 3_000_000);
    cluster.client().store_bytes("f", &content).unwrap();
    let holder = cluster.dstores().iter().position(|dstore| dstore.folder.path().join("f").exists()).unwrap();
    let loads = AtomicUsize::new(0);
    let address = cluster.address();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut client = Client::connect(address, PATIENCE).unwrap();
                for _ in 0..12 {
                    assert!(client.load_bytes("f").unwrap() == content);
                    loads.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        eventually("the loads have begun", || loads.load(Ordering::SeqCst) >= 4);
        cluster.kill(holder);
    });
}

// Many at once.

#[test]
fn of_many_clients_that_store_one_name_exactly_one_wins() {
    // spec 3.2
    const CLIENTS: u64 = 12;
    let cluster = Cluster::start(2, 3);
    for round in 0..5 {
        let file = format!("f{round}");
        let start = Barrier::new(CLIENTS as usize);
        let winners: Vec<u64> = thread::scope(|scope| {
            let (cluster, file, start) = (&cluster, &file, &start);
            let store = |client: u64| {
                let mut connection = cluster.client();
                start.wait();
                match connection.store_bytes(file, &bytes(client, 50_000)) {
                    Ok(()) => Some(client),
                    Err(Error::AlreadyExists(_)) => None,
                    Err(error) => panic!("{error}"),
                }
            };
            let threads: Vec<_> = (1..=CLIENTS).map(|client| scope.spawn(move || store(client))).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(winners.len(), 1, "round {round}: {winners:?}");
        assert!(cluster.client().load_bytes(file.as_str()).unwrap() == bytes(winners[0], 50_000), "round {round}");
    }
}

#[test]
fn many_clients_work_side_by_side_through_joins_and_departures() {
    // spec 4.6: none is refused or lost
    const CLIENTS: u64 = 10;
    let mut cluster = Cluster::start(2, 3);
    let (address, work) = (cluster.address(), AtomicUsize::new(0));
    thread::scope(|scope| {
        for client in 1..=CLIENTS {
            let work = &work;
            scope.spawn(move || {
                let mut connection = Client::connect(address, PATIENCE).unwrap();
                for turn in 0..15 {
                    let file = format!("{client}-{turn}");
                    let content = bytes(client * 100 + turn, 10_000);
                    connection.store_bytes(&file, &content).unwrap();
                    assert!(connection.load_bytes(&file).unwrap() == content);
                    if turn % 2 == 0 {
                        connection.remove(&file).unwrap();
                    }
                    work.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for joins in 1..=2 {
            eventually("the work goes on", || work.load(Ordering::SeqCst) >= 40 * joins);
            cluster.join(PATIENCE);
        }
    });
    assert_eq!(cluster.client().list().unwrap().len(), 7 * CLIENTS as usize);
    let copies: usize = cluster.dstores().iter().map(|dstore| dstore.folder.names().len()).sum();
    assert_eq!(copies, 2 * 7 * CLIENTS as usize, "R copies of each file and nothing else");
}

// Connections to Dstores.

#[test]
fn connections_to_dstores_are_reused_unless_that_is_unwanted() {
    // spec 2.5, 8.2
    capture_the_log();
    let cluster = Cluster::start(2, 2);
    let mut client = cluster.client();
    let work = |client: &mut Client, round: u32| {
        for turn in 0..5 {
            let file = format!("{round}-{turn}");
            client.store_bytes(&file, &bytes(1, 60_000)).unwrap();
            client.load_bytes(&file).unwrap();
        }
    };
    // Every connection that is to be kept says so in its first line.
    let greetings = |cluster: &Cluster| -> Vec<usize> {
        let count = |port: u16| logged(|line| line.starts_with(&format!("[{port}<-")) && line.ends_with(" KEEP_ALIVE"));
        cluster.dstores().iter().map(|dstore| count(dstore.port).len()).collect()
    };
    work(&mut client, 1);
    assert_eq!(greetings(&cluster), [1, 1]);
    work(&mut client, 2);
    assert_eq!(greetings(&cluster), [1, 1]);
    client.keep_connections(false);
    work(&mut client, 3);
    assert_eq!(greetings(&cluster), [1, 1], "without it a Dstore serves one transfer and closes");
    client.keep_connections(true);
    work(&mut client, 4);
    assert_eq!(greetings(&cluster), [2, 2]);
}

#[test]
fn the_client_works_with_any_dstore_and_remembers_its_habits() {
    // spec 8.2: how many connections two stores and two loads take, in turn
    let table = [
        ("knows KEEP_ALIVE", Habit { on_keep_alive: OnKeepAlive::Know, ..Habit::default() }, 1),
        ("ignores it, and closes after a transfer", Habit::default(), 4),
        ("ignores it, and goes on anyway", Habit { after_transfer: AfterTransfer::GoOn, ..Habit::default() }, 1),
        ("ignores it, and just stops", Habit { after_transfer: AfterTransfer::Hang, ..Habit::default() }, 4),
        ("closes at once", Habit { on_keep_alive: OnKeepAlive::Close, ..Habit::default() }, 5),
        ("hangs", Habit { on_keep_alive: OnKeepAlive::Hang, ..Habit::default() }, 5),
    ];
    thread::scope(|scope| {
        for (what, habit, connections) in table {
            scope.spawn(move || {
                let config = controller::Config { timeout: PATIENCE, ..controller::Config::new(1) };
                let controller = controller::start(config).unwrap();
                let dstore = ForeignDstore::join(&controller, habit);
                let address = loopback(controller.address().unwrap().port());
                let mut client = Client::connect(address, Duration::from_secs(4)).unwrap();
                for file in ["f", "g"] {
                    let content = bytes(1, 60_000);
                    client.store_bytes(file, &content).unwrap_or_else(|error| panic!("{what}: store: {error}"));
                    let loaded = client.load_bytes(file).unwrap_or_else(|error| panic!("{what}: load: {error}"));
                    assert!(loaded == content, "{what}");
                }
                assert_eq!(dstore.connections(), connections, "{what}");
            });
        }
    });
}

#[test]
fn content_is_sent_ahead_of_ack_only_where_the_dstore_allows_it() {
    // spec 8.3: stores of which content came ahead, and connections that four stores take
    let keeps = Habit { on_keep_alive: OnKeepAlive::Know, ..Habit::default() };
    let table = [
        ("knows SEND_AHEAD", Habit { on_send_ahead: OnKeepAlive::Know, ..keeps }, 1_000, 2, 1),
        ("knows it, but the file is large", Habit { on_send_ahead: OnKeepAlive::Know, ..keeps }, 100_000, 0, 1),
        ("ignores it", keeps, 1_000, 0, 1),
        ("closes", Habit { on_send_ahead: OnKeepAlive::Close, ..keeps }, 1_000, 0, 2),
        ("hangs", Habit { on_send_ahead: OnKeepAlive::Hang, ..keeps }, 1_000, 0, 2),
        ("does not know KEEP_ALIVE", Habit { on_send_ahead: OnKeepAlive::Know, ..Habit::default() }, 1_000, 0, 4),
    ];
    thread::scope(|scope| {
        for (what, habit, size, ahead, connections) in table {
            scope.spawn(move || {
                let config = controller::Config { timeout: PATIENCE, ..controller::Config::new(1) };
                let controller = controller::start(config).unwrap();
                let dstore = ForeignDstore::join(&controller, habit);
                let address = loopback(controller.address().unwrap().port());
                let mut client = Client::connect(address, Duration::from_secs(4)).unwrap();
                let content = bytes(1, size);
                for file in ["a", "b", "c", "d"] {
                    client.store_bytes(file, &content).unwrap_or_else(|error| panic!("{what}: store: {error}"));
                }
                assert_eq!((dstore.stores_ahead(), dstore.connections()), (ahead, connections), "{what}");
                assert!(client.load_bytes("d").unwrap() == content, "{what}");
            });
        }
    });
}

/// A client, with the one Dstore that it has sent a file's content ahead to.
fn sending_ahead() -> (controller::Handle, ForeignDstore, Client) {
    let controller = controller::start(controller::Config { timeout: PATIENCE, ..controller::Config::new(1) }).unwrap();
    let habit = Habit { on_keep_alive: OnKeepAlive::Know, on_send_ahead: OnKeepAlive::Know, ..Habit::default() };
    let dstore = ForeignDstore::join(&controller, habit);
    let mut client = client_of(&controller);
    for file in ["first", "asks", "ahead"] {
        client.store_bytes(file, b"hello").unwrap();
    }
    (controller, dstore, client)
}

#[test]
fn a_client_that_has_sent_ahead_closes_its_connections_in_order() {
    // spec 8.3: its last ACK is read by then, or the Dstore would see a reset
    let (_controller, dstore, client) = sending_ahead();
    drop(client);
    let ended = || [0, 1].map(|how| dstore.shared.ended[how].load(Ordering::SeqCst));
    let deadline = Instant::now() + PATIENCE;
    while ended() == [0, 0] && Instant::now() < deadline {
        thread::yield_now();
    }
    assert_eq!((dstore.stores_ahead(), ended()), (1, [1, 0]));
}

#[test]
fn content_sent_ahead_on_a_closed_connection_is_sent_again() {
    // spec 8.2, 8.3: the client finds out when the Controller says nothing
    let (_controller, dstore, mut client) = sending_ahead();
    dstore.change(|habit| *habit = Habit { on_keep_alive: OnKeepAlive::Ignore, ..*habit });
    client.store_bytes("last", b"hello").unwrap(); // after which the Dstore closes
    for file in ["again", "and again"] {
        client.store_bytes(&file.replace(' ', "-"), b"hello").unwrap();
    }
    assert_eq!(dstore.stores_ahead(), 2);
    for file in ["last", "again", "and-again"] {
        assert_eq!(client.load_bytes(file).unwrap(), b"hello");
    }
}

#[test]
fn a_store_succeeds_with_r_dstores_that_do_not_know_keep_alive() {
    // spec 4.2, 8.2: all timeouts are the same, and the client finds out about R Dstores in the first store
    const TIMEOUT: Duration = Duration::from_secs(2);
    let table = [
        ("hangs", Habit { on_keep_alive: OnKeepAlive::Hang, ..Habit::default() }),
        ("closes at once", Habit { on_keep_alive: OnKeepAlive::Close, ..Habit::default() }),
        ("ignores it, and just stops", Habit { after_transfer: AfterTransfer::Hang, ..Habit::default() }),
    ];
    let failures: Vec<_> = thread::scope(|scope| {
        let run = |what: &'static str, habit: Habit| {
            let controller =
                controller::start(controller::Config { timeout: TIMEOUT, ..controller::Config::new(3) }).unwrap();
            let _dstores: Vec<_> = (0..3).map(|_| ForeignDstore::join(&controller, habit)).collect();
            let address = loopback(controller.address().unwrap().port());
            let mut client = Client::connect(address, TIMEOUT).unwrap();
            let store = |file| client.store_bytes(file, b"hello").err().map(|error| format!("{what}: {file}: {error}"));
            ["first", "second"].map(store)
        };
        let threads: Vec<_> = table.into_iter().map(|(what, habit)| scope.spawn(move || run(what, habit))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).flatten().collect()
    });
    assert_eq!(failures, [""; 0]);
}

#[test]
fn a_dstore_that_never_closes_costs_loads_at_most_one_timeout() {
    // spec 2.5, 6.5, 8.2: all of the content is there; any further wait is the client's own wish
    const TIMEOUT: Duration = Duration::from_secs(2);
    let controller = controller::start(controller::Config { timeout: PATIENCE, ..controller::Config::new(1) }).unwrap();
    let _dstore = ForeignDstore::join(&controller, Habit { after_transfer: AfterTransfer::Sleep, ..Habit::default() });
    let content = bytes(1, 200_000);
    client_of(&controller).store_bytes("f", &content).unwrap();
    let mut client = Client::connect(loopback(controller.address().unwrap().port()), TIMEOUT).unwrap();
    let begun = Instant::now();
    for _ in 0..5 {
        assert!(client.load_bytes("f").unwrap() == content);
    }
    assert!(begun.elapsed() < TIMEOUT * 3, "five loads have taken {:?}", begun.elapsed());
}

#[test]
fn one_hanging_dstore_does_not_keep_content_from_the_others() {
    // spec 2.7, 8.2: the others wait for their content meanwhile, and not for longer than the timeout
    const TIMEOUT: Duration = Duration::from_secs(2);
    let cluster = Cluster::start_with(controller::Config { timeout: TIMEOUT, ..controller::Config::new(2) }, 1);
    let habit = Habit { on_keep_alive: OnKeepAlive::Hang, ..Habit::default() };
    let _foreign = ForeignDstore::join(&cluster.controller, habit);
    let mut client = Client::connect(cluster.address(), TIMEOUT).unwrap();
    client.store_bytes("f", &bytes(1, 60_000)).unwrap();
    assert_eq!(cluster.copies("f").len(), 1);
}

#[test]
fn content_goes_to_all_dstores_at_the_same_time() {
    // spec 4.2; the official client sends it to one after another (spec 6.4)
    const SIZE: u64 = 20 << 20; // more than the sockets on the way can hold
    let (listener, port) = listen();
    let dstores: Vec<_> = (0..3).map(|_| listen()).collect();
    let together = Barrier::new(3);
    thread::scope(|scope| {
        for (dstore, _) in &dstores {
            let together = &together;
            scope.spawn(move || {
                let mut connection = accept(dstore);
                let mut request = receive(&mut connection);
                if request == Message::KeepAlive {
                    request = receive(&mut connection);
                }
                assert_eq!(request, Message::Store { name: name("f"), size: SIZE });
                together.wait(); // no Dstore says ACK before all have been asked
                connection.send(&Message::Ack).unwrap();
                let mut content = connection.content(SIZE, PATIENCE);
                content.read_exact(&mut [0]).unwrap();
                together.wait(); // no Dstore takes the rest before all have got some
                copy(SIZE - 1, &mut content, &mut |_| Ok(())).unwrap();
            });
        }
        scope.spawn(|| {
            let mut client = accept(&listener);
            receive(&mut client);
            let dstores = dstores.iter().map(|(_, port)| Address::local(*port).unwrap()).collect();
            client.send(&Message::StoreTo { dstores }).unwrap();
            client.send(&Message::StoreComplete).unwrap();
        });
        Client::connect(loopback(port), PATIENCE).unwrap().store("f", SIZE, &mut io::repeat(7)).unwrap();
    });
}

#[test]
fn partial_files_of_crashed_clients_do_not_stop_a_load() {
    // In a container every client has the same process number, and numbers its files from 0.
    let cluster = Cluster::start(1, 1);
    let mut client = cluster.client();
    client.store_bytes("f", b"hello").unwrap();
    let folder = TempFolder::new();
    for number in 0..300 {
        let debris = format!(".stevedore-{}-{number}.part", std::process::id());
        fs::write(folder.path().join(debris), "half").unwrap();
    }
    client.load_file("f", &folder.path().join("f")).unwrap();
    assert_eq!(fs::read(folder.path().join("f")).unwrap(), b"hello");
}

/// What is too much is not taken for the beginning of the next file.
#[test]
fn a_file_longer_than_announced_is_an_error_and_spoils_no_other() {
    // spec 2.3, 8.2: a client told the Controller one size and the Dstore another, or the file was replaced in between
    for size in [125, 200_000] {
        let cluster = Cluster::start(1, 1);
        let mut client = cluster.client();
        client.store_bytes("good", &bytes(1, 1000)).unwrap();
        let (mut liar, dstore) = (Connection::connect(cluster.address(), PATIENCE).unwrap(), &cluster.dstores()[0]);
        liar.send(&Message::Store { name: name("evil"), size: size - 120 }).unwrap();
        assert!(matches!(receive(&mut liar), Message::StoreTo { .. }));
        let mut transfer = Connection::connect(loopback(dstore.port), PATIENCE).unwrap();
        transfer.send(&Message::Store { name: name("evil"), size }).unwrap();
        assert_eq!(receive(&mut transfer), Message::Ack);
        transfer.send_content(&bytes(2, size as usize)).unwrap();
        assert_eq!(receive(&mut liar), Message::StoreComplete);
        assert!(matches!(client.load_bytes("evil"), Err(Error::LoadFailed { .. })), "{size}");
        assert!(client.load_bytes("good").unwrap() == bytes(1, 1000), "{size}");
    }
}

// The log.

#[test]
fn every_message_is_logged_in_the_2021_form_and_no_content_is() {
    // spec 5.2, 5.4
    capture_the_log();
    let cluster = Cluster::start(1, 1);
    let (controller, dstore) = (cluster.address().port(), cluster.dstores()[0].port);
    let mut client = cluster.client();
    client.store_bytes("the-logged-one", b"SECRET\nSECRET\n").unwrap();
    client.load_bytes("the-logged-one").unwrap();

    let joined = logged(|line| line.starts_with(&format!("[New Dstore {dstore} {controller}<-")));
    assert_eq!(joined.len(), 1);
    let request = logged(|line| line.ends_with("] STORE the-logged-one 14"));
    let port =
        |line: &str| -> u16 { line.split(['[', '-', '<', '>', ']']).find_map(|word| word.parse().ok()).unwrap() };
    let client_ports: Vec<_> =
        request.iter().map(|line| port(line)).filter(|p| ![controller, dstore].contains(p)).collect();
    let [to_controller, to_dstore] = client_ports[..] else { panic!("{request:?}") };
    let expected = [
        format!("[{to_controller}->{controller}] STORE the-logged-one 14"),
        format!("[{controller}<-{to_controller}] STORE the-logged-one 14"),
        format!("[{controller}->{to_controller}] STORE_TO {dstore}"),
        format!("[{to_controller}<-{controller}] STORE_TO {dstore}"),
        format!("[{to_dstore}->{dstore}] STORE the-logged-one 14"),
        format!("[{dstore}<-{to_dstore}] STORE the-logged-one 14"),
        format!("[{dstore}->{to_dstore}] ACK"),
        format!("[{to_dstore}<-{dstore}] ACK"),
        format!("[{controller}->{to_controller}] STORE_COMPLETE"),
        format!("[{to_controller}<-{controller}] LOAD_FROM {dstore} 14"),
        format!("[{dstore}<-{to_dstore}] LOAD_DATA the-logged-one"),
    ];
    for line in expected {
        assert_eq!(logged(|logged| logged == line).len(), 1, "{line}");
    }
    assert_eq!(logged(|line| line.contains("SECRET")), [""; 0]);
}

static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps what is logged of messages from now on, by any test of this program.
fn capture_the_log() {
    struct Capture;
    impl log::Log for Capture {
        fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
            metadata.target() == MESSAGE_LOG
        }
        fn log(&self, record: &log::Record<'_>) {
            if self.enabled(record.metadata()) {
                LOG.lock().unwrap().push(record.args().to_string());
            }
        }
        fn flush(&self) {}
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Capture).unwrap();
        log::set_max_level(log::LevelFilter::Info);
    });
}

fn logged(is_wanted: impl Fn(&str) -> bool) -> Vec<String> {
    LOG.lock().unwrap().iter().filter(|line| is_wanted(line)).cloned().collect()
}

// Dstores that are not ours.

fn client_of(controller: &controller::Handle) -> Client {
    Client::connect(loopback(controller.address().unwrap().port()), PATIENCE).unwrap()
}

/// A Dstore of another implementation: keeps files in memory, and has habits.
struct ForeignDstore {
    shared: Arc<Shared>,
}

struct Shared {
    habit: Mutex<Habit>,
    files: Mutex<HashMap<FileName, Vec<u8>>>,
    controller: Outgoing,
    connections: AtomicUsize,
    loads: AtomicUsize,
    /// Stores with content that had come before the ACK was sent.
    ahead: AtomicUsize,
    /// Connections that the client has ended: in order, and otherwise.
    ended: [AtomicUsize; 2],
}

#[derive(Clone, Copy)]
struct Habit {
    on_keep_alive: OnKeepAlive,
    on_send_ahead: OnKeepAlive,
    after_transfer: AfterTransfer,
    /// Sends STORE_ACK.
    acknowledges: bool,
    /// Closes a load's connection after so many bytes.
    cuts_at: Option<usize>,
}

#[derive(Clone, Copy, PartialEq)]
enum OnKeepAlive {
    Know,
    Ignore,
    Close,
    Hang,
}

#[derive(Clone, Copy, PartialEq)]
enum AfterTransfer {
    Close,
    GoOn,
    /// Does nothing more, until the client closes.
    Hang,
    /// Does nothing more, whatever the client does.
    Sleep,
}

/// What a Dstore that follows the coursework to the letter does.
impl Default for Habit {
    fn default() -> Self {
        Self {
            on_keep_alive: OnKeepAlive::Ignore,
            on_send_ahead: OnKeepAlive::Ignore,
            after_transfer: AfterTransfer::Close,
            acknowledges: true,
            cuts_at: None,
        }
    }
}

impl ForeignDstore {
    /// Starts one, and waits until it has joined and the rebalance that this causes has ended.
    fn join(controller: &controller::Handle, habit: Habit) -> Self {
        let (listener, port) = listen();
        let address = Address::local(port).unwrap();
        let mut link = Connection::connect(loopback(controller.address().unwrap().port()), PATIENCE).unwrap();
        let shared = Arc::new(Shared {
            habit: Mutex::new(habit),
            files: Mutex::default(),
            controller: link.outgoing().clone(),
            connections: AtomicUsize::new(0),
            loads: AtomicUsize::new(0),
            ahead: AtomicUsize::new(0),
            ended: Default::default(),
        });
        // The threads end with the process: nothing here waits for them.
        thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                while let Ok((stream, _)) = listener.accept() {
                    let (shared, connection) = (Arc::clone(&shared), Connection::new(Arc::new(stream)).unwrap());
                    shared.connections.fetch_add(1, Ordering::SeqCst);
                    thread::spawn(move || shared.serve(connection));
                }
            }
        });
        link.send(&Message::Join { address: address.clone() }).unwrap();
        thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                while let Ok(Some(Ok(message))) = link.receive() {
                    shared.obey(message);
                }
            }
        });
        let has_joined = |status: &controller::Status| {
            status.is_at_rest && status.members.iter().any(|member| member.address == address)
        };
        controller.wait_until(PATIENCE, has_joined).expect("the Dstore joins");
        Self { shared }
    }

    fn change(&self, change: impl FnOnce(&mut Habit)) {
        change(&mut self.shared.habit.lock().unwrap());
    }

    fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    fn stores_ahead(&self) -> usize {
        self.shared.ahead.load(Ordering::SeqCst)
    }

    fn loads(&self) -> usize {
        self.shared.loads.load(Ordering::SeqCst)
    }
}

impl Drop for ForeignDstore {
    fn drop(&mut self) {
        self.shared.controller.shut_down();
    }
}

impl Shared {
    /// What the Controller wants.
    fn obey(&self, message: Message) {
        let answer = match message {
            Message::List { .. } => Message::List { names: self.files.lock().unwrap().keys().cloned().collect() },
            Message::Rebalance { order } => {
                assert!(order.sends.is_empty(), "this one sends nothing");
                self.files.lock().unwrap().retain(|name, _| !order.removes.contains(name));
                Message::RebalanceComplete
            }
            Message::Remove { name } => {
                self.files.lock().unwrap().remove(&name);
                Message::RemoveAck { name }
            }
            other => panic!("not for a Dstore: {other:?}"),
        };
        let _ = self.controller.send(&answer);
    }

    fn serve(&self, mut connection: Connection) {
        loop {
            let message = match connection.receive() {
                Ok(Some(Ok(message))) => message,
                end => {
                    self.ended[usize::from(end.is_err())].fetch_add(1, Ordering::SeqCst);
                    return;
                }
            };
            let habit = *self.habit.lock().unwrap();
            match (message, habit.on_keep_alive) {
                (Message::KeepAlive, OnKeepAlive::Know | OnKeepAlive::Ignore) => continue,
                (Message::KeepAlive, OnKeepAlive::Close) => return,
                (Message::KeepAlive, OnKeepAlive::Hang) => return hang(connection),
                (Message::SendAhead, _) => match habit.on_send_ahead {
                    OnKeepAlive::Know => {
                        let _ = connection.send(&Message::SendAhead);
                        continue;
                    }
                    OnKeepAlive::Ignore => continue,
                    OnKeepAlive::Close => return,
                    OnKeepAlive::Hang => return hang(connection),
                },
                (Message::Store { name, size }, _) => {
                    if self.store(&mut connection, name, size, habit).is_err() {
                        return;
                    }
                }
                (Message::LoadData { name }, _) => {
                    self.loads.fetch_add(1, Ordering::SeqCst);
                    let Some(content) = self.files.lock().unwrap().get(&name).cloned() else { return };
                    let sent = habit.cuts_at.unwrap_or(content.len());
                    if connection.send_content(&content[..sent]).is_err() || sent < content.len() {
                        return;
                    }
                }
                _ => continue,
            }
            match habit.after_transfer {
                AfterTransfer::Close if habit.on_keep_alive == OnKeepAlive::Know => {}
                AfterTransfer::Close => return,
                AfterTransfer::GoOn => {}
                AfterTransfer::Hang => return hang(connection),
                AfterTransfer::Sleep => loop {
                    thread::park();
                },
            }
        }
    }

    fn store(&self, connection: &mut Connection, name: FileName, size: u64, habit: Habit) -> io::Result<()> {
        self.ahead.fetch_add(usize::from(connection.has_more()?), Ordering::SeqCst);
        connection.send(&Message::Ack)?;
        let mut content = Vec::new();
        copy(size, &mut connection.content(size, PATIENCE), &mut |bytes| content.write_all(bytes))?;
        self.files.lock().unwrap().insert(name.clone(), content);
        if habit.acknowledges {
            self.controller.send(&Message::StoreAck { name })?;
        }
        Ok(())
    }
}

/// Says nothing more, until the peer closes.
fn hang(mut connection: Connection) {
    while let Ok(Some(_)) = connection.receive() {}
}
