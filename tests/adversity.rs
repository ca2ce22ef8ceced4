//! One mistake or failure, of a peer or of the machine, has consequences that end. (spec 2.6, 4.6, 7.17, 7.21)

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use stevedore::index::{Index, Lists};
use stevedore::protocol::{Address, Connection, FileName, Message, Order, Transfer};
use stevedore::{controller, dstore};

mod common;
use common::{Cluster, PATIENCE, TempFolder, comes_true, eventually, full_listener, is_connecting_to};

fn name(text: &str) -> FileName {
    text.parse().unwrap()
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn receive(connection: &mut Connection) -> Message {
    connection.receive_within(PATIENCE).unwrap().expect("a message").expect("a well-formed one")
}

/// A Controller that rebalances all the time, and a Dstore of the test's own that has joined it as the only one.
fn controller_and_dstore(timeout: Duration) -> (controller::Handle, Connection) {
    let rebalance_period = Some(Duration::from_millis(20));
    let controller =
        controller::start(controller::Config { timeout, rebalance_period, ..controller::Config::new(1) }).unwrap();
    let dstore = Connection::connect(loopback(controller.address().unwrap().port()), PATIENCE).unwrap();
    dstore.send(&Message::Join { address: Address::local(9).unwrap() }).unwrap();
    (controller, dstore)
}

/// A Dstore that has joined a Controller of the test's own.
fn dstore_and_controller(timeout: Duration, folder: &TempFolder) -> (dstore::Handle, Connection) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let dstore = dstore::start(dstore::Config { timeout, ..dstore::Config::new(port, folder.path()) }).unwrap();
    let mut controller = Connection::new(Arc::new(listener.accept().unwrap().0)).unwrap();
    assert!(matches!(receive(&mut controller), Message::Join { .. }));
    (dstore, controller)
}

#[test]
fn one_missing_report_does_not_shift_all_later_reports() {
    // spec 7.17, 7.21: its next report may be taken for the missing one, but not every later report for the one before
    const TIMEOUT: Duration = Duration::from_millis(1500);
    let (_controller, mut dstore) = controller_and_dstore(TIMEOUT);
    let (mut orders, mut waits) = (0, Vec::new());
    let mut reported: Option<Instant> = None;
    while waits.len() < 5 {
        match receive(&mut dstore) {
            Message::List { .. } => {
                waits.extend(reported.take().map(|reported| reported.elapsed()));
                dstore.send(&Message::List { names: vec![name("orphan")] }).unwrap(); // something is always to be done
            }
            Message::Rebalance { .. } => {
                orders += 1;
                if orders > 1 {
                    dstore.send(&Message::RebalanceComplete).unwrap();
                    reported = Some(Instant::now());
                }
            }
            other => panic!("{other:?}"),
        }
    }
    // A report that is understood ends the rebalance. After one that is not, the Controller waits for the timeout.
    assert!(waits[2..].iter().any(|wait| *wait < TIMEOUT * 2 / 3), "from report to next rebalance: {waits:?}");
}

#[test]
fn a_dstore_takes_part_again_after_one_malformed_list() {
    // spec 2.6, 7.21: a malformed answer is ignored, and later answers count for later LISTs
    let (_controller, mut dstore) = controller_and_dstore(Duration::from_millis(500));
    assert_eq!(receive(&mut dstore), Message::List { names: vec![] });
    dstore.send_content(b"LIST two  spaces\n").unwrap();
    let takes_part = (0..6).any(|_| match receive(&mut dstore) {
        Message::Rebalance { .. } => true,
        _ => {
            dstore.send(&Message::List { names: vec![name("orphan")] }).unwrap();
            false
        }
    });
    assert!(takes_part, "after five well-formed answers it still counts as silent");
}

#[test]
fn after_an_unreadable_folder_a_dstore_takes_part_or_leaves() {
    // spec 4.6.1: out of descriptors, a network file system that hesitates
    let config = controller::Config {
        timeout: Duration::from_millis(300),
        rebalance_period: Some(Duration::from_millis(20)),
        ..controller::Config::new(1)
    };
    let controller = controller::start(config).unwrap();
    let folder = TempFolder::new();
    let _dstore = dstore::start(dstore::Config::new(controller.address().unwrap().port(), folder.path())).unwrap();
    controller.wait_until(PATIENCE, |status| status.members.len() == 1 && status.rebalances > 2).unwrap();

    let away = folder.path().with_extension("away");
    fs::rename(folder.path(), &away).unwrap();
    let before = controller.status().rebalances;
    let waited = controller.wait_until(PATIENCE, |status| status.rebalances > before + 2);
    fs::rename(&away, folder.path()).unwrap();
    waited.unwrap();
    fs::write(folder.path().join("orphan"), "").unwrap();
    let has_been_seen = || folder.names().is_empty();
    let has_left = || controller.status().members.is_empty();
    let is_settled = comes_true(Duration::from_secs(10), || has_been_seen() || has_left());
    assert!(is_settled, "it is a member, and no rebalance sees what it has");
}

#[test]
fn no_dstore_is_told_to_remove_what_it_is_about_to_be_sent() {
    // spec 4.6.3, 4.6.4: chance would decide whether the new copy or the debris is removed
    let mut index = Index::new(2);
    let [first, second, third] = [1, 2, 3].map(|port| index.join(Address::local(port).unwrap()));
    // A store of x fails after its copy on the first has arrived: an orphan there.
    index.begin_store(&name("x"), 1).unwrap();
    index.acknowledge_store("x", first);
    index.abandon_store("x");
    index.acknowledge_store("x", second); // too late to count, but a sign of life
    for (file, holders) in [("a", [first, second]), ("b", [third, first]), ("x", [second, third])] {
        index.begin_store(&name(file), 1).unwrap();
        for holder in holders {
            index.acknowledge_store(file, holder);
        }
    }
    assert_eq!(index.list().unwrap(), [name("a"), name("b"), name("x")]);
    index.leave(third);
    // Now x needs another holder, and the only other Dstore has the orphan.
    let lists = BTreeMap::from([(first, vec![name("a"), name("b"), name("x")]), (second, vec![name("a"), name("x")])]);
    let inventory = index.reconcile(&Lists::new(lists));
    let orders = inventory.orders(&inventory.plan(2));
    for ((dstore, address), order) in inventory.dstores.iter().zip(&orders) {
        for removed in &order.removes {
            let mut sends = orders.iter().flat_map(|order| &order.sends);
            let is_sent = sends.any(|send| send.name == *removed && send.to.contains(address));
            assert!(!is_sent, "{removed} is to be sent to {dstore:?}, which is to remove it: {orders:?}");
        }
    }
}

#[test]
fn a_dstore_stops_at_once_while_it_connects_to_a_full_listener() {
    // spec 4.6.5; design: whatever a thread waits for, dropping its owner ends it
    let (_full, port) = full_listener();
    let full = Address::local(port).unwrap();
    let folder = TempFolder::new();
    let (dstore, controller) = dstore_and_controller(PATIENCE, &folder);
    fs::write(folder.path().join("f"), "content").unwrap();
    let sends = vec![Transfer { name: name("f"), to: vec![full] }];
    controller.send(&Message::Rebalance { order: Order { sends, removes: vec![] } }).unwrap();
    eventually("it connects", || is_connecting_to(port));
    let (stopped, has_stopped) = channel();
    thread::spawn(move || {
        drop(dstore);
        stopped.send(()).unwrap();
    });
    assert!(has_stopped.recv_timeout(Duration::from_secs(5)).is_ok(), "it waits for the timeout of {PATIENCE:?}");
}

#[test]
fn a_dstore_answers_list_in_time_despite_a_receiver_that_hangs() {
    // spec 4.6.1, 7.16: otherwise it is silent in the next rebalances, for as long as it tries file after file
    const TIMEOUT: Duration = Duration::from_millis(500);
    const FILES: usize = 40;
    let hanging = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(); // the kernel accepts, and no program answers
    let to = vec![Address::local(hanging.local_addr().unwrap().port()).unwrap()];
    let folder = TempFolder::new();
    let (_dstore, mut controller) = dstore_and_controller(TIMEOUT, &folder);
    let sends: Vec<_> =
        (0..FILES).map(|number| Transfer { name: name(&format!("f{number}")), to: to.clone() }).collect();
    for Transfer { name, .. } in &sends {
        fs::write(folder.path().join(name), "content").unwrap();
    }
    controller.send(&Message::Rebalance { order: Order { sends, removes: vec![] } }).unwrap();
    controller.send(&Message::List { names: vec![] }).unwrap();
    let begun = Instant::now();
    assert!(matches!(receive(&mut controller), Message::List { names } if names.len() == FILES));
    assert!(begun.elapsed() < 4 * TIMEOUT, "{FILES} copies that no Dstore took have cost it {:?}", begun.elapsed());
}

#[test]
fn the_work_of_a_dstore_that_joins_between_rounds_is_finished() {
    // spec 4.6, 7.10, 7.19: the new Dstore brings more work, and only its JOIN can start a rebalance for that work
    let config = controller::Config { timeout: Duration::from_secs(2), ..controller::Config::new(1) };
    let controller = controller::start(config).unwrap();
    let port = controller.address().unwrap().port();
    // More than fits a round, which is a step in every second millisecond of the timeout to begin with.
    let (ordered, has_been_ordered) = channel();
    let first = Debris::join(port, 9, 20_000, move || {
        let _ = ordered.send(());
    });
    has_been_ordered.recv_timeout(PATIENCE).unwrap();
    let second = Debris::join(port, 10, 50_000, || ());
    eventually("all debris is removed", || first.is_removed() && second.is_removed());
}

/// A Dstore that holds nothing but files that the index does not know.
struct Debris(Arc<Mutex<BTreeSet<FileName>>>);

impl Debris {
    /// Has it join as `port`, and call `on_order` before it carries out an order.
    fn join(controller: u16, port: u16, files: usize, on_order: impl Fn() + Send + 'static) -> Self {
        let files = Arc::new(Mutex::new((0..files).map(|number| name(&format!("f{number}"))).collect()));
        let mut link = Connection::connect(loopback(controller), PATIENCE).unwrap();
        link.limit_lines(64 << 20);
        link.send(&Message::Join { address: Address::local(port).unwrap() }).unwrap();
        let debris = Self(Arc::clone(&files));
        thread::spawn(move || {
            while let Ok(Some(Ok(message))) = link.receive() {
                let answer = match message {
                    Message::List { .. } => Message::List { names: files.lock().unwrap().iter().cloned().collect() },
                    Message::Rebalance { order } => {
                        on_order();
                        let mut files = files.lock().unwrap();
                        for name in &order.removes {
                            files.remove(name);
                        }
                        Message::RebalanceComplete
                    }
                    other => panic!("{other:?}"),
                };
                link.send(&answer).unwrap();
            }
        });
        debris
    }

    fn is_removed(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }
}

/// Two Dstores that both have `f`: "content".
fn cluster_with_f() -> Cluster {
    let cluster = Cluster::start(2, 2);
    cluster.client().store_bytes("f", b"content").unwrap();
    cluster
}

/// Says `message` to each Dstore as a stranger would, and expects to be refused.
fn assert_is_refused(cluster: &Cluster, message: &Message) {
    for dstore in cluster.dstores() {
        let mut stranger = Connection::connect(loopback(dstore.port), PATIENCE).unwrap();
        stranger.send(message).unwrap();
        let answer = stranger.receive_within(PATIENCE);
        assert!(matches!(answer, Ok(None) | Err(_)), "{message}: {answer:?}");
    }
}

#[test]
fn a_stranger_cannot_replace_what_is_stored() {
    // spec 7.30, 8.4: STORE and REBALANCE_STORE carry only a name and a size, and any process can say them
    let cluster = cluster_with_f();
    for size in [7, 5, 0] {
        assert_is_refused(&cluster, &Message::Store { name: name("f"), size });
        assert_is_refused(&cluster, &Message::RebalanceStore { name: name("f"), size });
    }
    assert_eq!(cluster.copies("f"), [b"content", b"content"]);
    assert_eq!(cluster.client().load_bytes("f").unwrap(), b"content");
}

#[test]
fn what_a_failed_store_has_left_is_replaced_by_a_new_store() {
    // spec 4.2, 8.4: the Controller does not know of it
    let cluster = Cluster::start(2, 2);
    for dstore in cluster.dstores() {
        fs::write(dstore.folder.path().join("f"), "left over").unwrap();
    }
    cluster.client().store_bytes("f", b"content").unwrap();
    assert_eq!(cluster.copies("f"), [b"content", b"content"]);
}

#[test]
fn a_copy_whose_size_is_not_the_indexs_is_bad() {
    // spec 8.4: the answer that refuses a STORE tells the right size
    let mut cluster = cluster_with_f();
    fs::write(cluster.dstores()[0].folder.path().join("f"), "short").unwrap();
    assert_is_refused(&cluster, &Message::Store { name: name("f"), size: 5 });
    assert_eq!(cluster.copies("f"), [b"content"]);
    cluster.join(PATIENCE);
    assert_eq!(cluster.copies("f"), [b"content", b"content"], "and the next rebalance replaces it");
}
