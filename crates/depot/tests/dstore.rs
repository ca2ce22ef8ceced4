//! A Dstore, its clients, and a Controller that says what a test wants. (depot 2.2, 5.2, 5.6)
#![allow(missing_docs)]

mod common;

use std::collections::VecDeque;
use std::io::Read;
use std::net::{Shutdown, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::{BLOCK, CLUSTER, SOON, Store};
use depot::checksum::Checksum;
use depot::client::{Files, PutOptions, Source};
use depot::disk::RealFolder;
use depot::dstore::{COPY_RATE, GIVES_UP_AFTER, Handle, Options, SCRUB_PERIOD, StartError};
use depot::identity::{ClusterId, ControllerId, DiskId, DstoreId, Epoch, History, Key, Position};
use depot::log::SyncMode;
use depot::log::backup::verify;
use depot::namespace::change::{Condition, Details};
use depot::pack::{self, Announced, Disk, OpenError, Purpose};
use depot::wire::message::{
    CopyChange, CopyOrder, CopyReport, Failure, Load, ObjectAnswer, ObjectRequest, Order, OrderKind, OrderOutcome,
    Report,
};
use depot::wire::{Access, Address, ClientId, Connection, ReceiveError, Role, Secret, accept, connect};
use kit::TempFolder;
use stevedore::socket::Wait;

const EPOCH: Epoch = Epoch { history: History(5), term: 3, nonce: 9 };

fn key(number: u64) -> Key {
    Key { history: History(5), term: 3, number }
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

/// Starts a Dstore on a folder.
fn start(folder: &Path, secret: &Secret, controllers: Vec<Address>) -> Result<(Handle, Address), StartError> {
    start_with(folder, secret, controllers, |_| ())
}

/// The same, with other options than most tests have.
fn start_with(
    folder: &Path,
    secret: &Secret,
    controllers: Vec<Address>,
    choose: impl FnOnce(&mut Options),
) -> Result<(Handle, Address), StartError> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: Address = listener.local_addr().unwrap().into();
    let mut options = Options {
        data: folder.to_owned(),
        cluster: CLUSTER,
        secret: secret.clone(),
        listener,
        address: address.clone(),
        controllers,
        host: "host".into(),
        zone: "zone".into(),
        disk: pack::Options { sync: SyncMode::Never, ..pack::Options::default() },
        scrub_period: SCRUB_PERIOD,
        gives_up_after: GIVES_UP_AFTER,
        copy_rate: COPY_RATE,
    };
    choose(&mut options);
    Handle::start(options).map(|handle| (handle, address))
}

/// A connection of a client to a Dstore.
fn dial(address: &Address, secret: &Secret) -> Connection {
    let access = Access::Client { id: ClientId(7), key: secret.client_key(ClientId(7)) };
    connect(address, &access, CLUSTER, Role::Dstore, SOON, |_| ()).unwrap()
}

fn receive(connection: &mut Connection) -> ObjectAnswer {
    connection.receive(Wait::deadline(SOON)).unwrap()
}

fn put(connection: &mut Connection, key: Key, bytes: &[u8]) -> ObjectAnswer {
    let put = ObjectRequest::Put { key, length: bytes.len() as u64, checksum: Checksum::of(bytes) };
    connection.send_with_content(&put, bytes).unwrap();
    receive(connection)
}

/// What a get brings, and how it ends if not well.
fn get(connection: &mut Connection, key: Key, from: u64, length: u64) -> (Vec<u8>, Option<Failure>) {
    connection.send(&ObjectRequest::Get { key, from, length }).unwrap();
    let sums = match receive(connection) {
        ObjectAnswer::Object { sums, .. } => sums,
        ObjectAnswer::Error { failure } => return (Vec::new(), Some(failure)),
        other => panic!("{other:?}"),
    };
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < length {
        match receive(connection) {
            ObjectAnswer::Data { length } => {
                connection.content(length, SOON).read_to_end(&mut bytes).unwrap();
            }
            ObjectAnswer::Error { failure } => return (bytes, Some(failure)),
            other => panic!("{other:?}"),
        }
    }
    let found: Vec<_> = bytes.chunks(BLOCK).map(Checksum::of).collect();
    let first = from as usize / BLOCK;
    assert_eq!(found, sums[first..first + found.len()]);
    (bytes, None)
}

/// A Controller that does what a test says.
struct ScriptedController {
    listener: TcpListener,
    secret: Secret,
}

/// Its end of a Dstore's link.
struct Joined {
    connection: Connection,
    disk: DiskId,
    number: Option<DstoreId>,
    start: u64,
    epoch: Option<Epoch>,
    /// What became of orders so far.
    outcomes: Vec<(OrderKind, Key, Option<Failure>)>,
    /// Reports that came before the answer to a leadership.
    pending: VecDeque<Report>,
}

impl ScriptedController {
    fn new() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").unwrap(), secret: Secret::draw().unwrap() }
    }

    fn address(&self) -> Address {
        self.listener.local_addr().unwrap().into()
    }

    /// Waits for the Dstore's next connection, up to its JOIN.
    fn join(&self) -> Joined {
        let (stream, _) = self.listener.accept().unwrap();
        let mut connection = Connection::new(Arc::new(stream)).unwrap();
        assert_eq!(accept(&mut connection, Role::Controller, CLUSTER, &self.secret).unwrap(), Role::Dstore);
        match connection.receive(Wait::deadline(SOON)).unwrap() {
            Report::Join { disk, format: 1, number, start, epoch, host, zone, sync: SyncMode::Never, .. } => {
                assert_eq!((host.as_str(), zone.as_str()), ("host", "zone"));
                Joined { connection, disk, number, start, epoch, outcomes: Vec::new(), pending: VecDeque::new() }
            }
            other => panic!("{other:?}"),
        }
    }

    /// The same, and admits it.
    fn admit(&self, epoch: Epoch) -> Joined {
        let mut joined = self.join();
        joined.admit(epoch, 7, true, &[epoch.history]);
        joined.is_fenced(epoch);
        joined
    }
}

impl Joined {
    fn admit(&self, epoch: Epoch, after: u64, has_yours: bool, lineage: &[History]) {
        self.follow();
        let known = self.epoch.filter(|_| has_yours);
        self.lead(epoch, after, known, lineage);
    }

    /// Admits the Dstore at a Controller that does not lead.
    fn follow(&self) {
        self.connection.send(&Order::Admitted { number: DstoreId(4) }).unwrap();
    }

    /// Begins to lead, with a namespace that contains another leadership, too.
    fn lead(&self, epoch: Epoch, after: u64, known: Option<Epoch>, lineage: &[History]) {
        let known = known.into_iter().chain([epoch]).collect();
        self.connection.send(&Order::Leads { epoch, after, known, lineage: lineage.to_vec() }).unwrap();
    }

    /// What the Dstore says to a leadership: reports that come before are kept.
    fn answer(&mut self) -> Report {
        loop {
            match self.connection.receive(Wait::deadline(SOON)).unwrap() {
                report @ (Report::Fenced { .. } | Report::Refuse { .. }) => return report,
                report => self.pending.push_back(report),
            }
        }
    }

    fn is_fenced(&mut self, epoch: Epoch) -> Position {
        match self.answer() {
            Report::Fenced { epoch: fenced, position } if fenced == epoch => position,
            other => panic!("{other:?}"),
        }
    }

    /// The next report.
    fn receive(&mut self) -> Report {
        self.pending.pop_front().unwrap_or_else(|| self.connection.receive(Wait::deadline(SOON)).unwrap())
    }

    /// The next report that is no heartbeat, and not about orders.
    fn report(&mut self) -> Report {
        let deadline = Instant::now() + SOON;
        loop {
            assert!(Instant::now() < deadline, "nothing but heartbeats; of orders: {:?}", self.outcomes);
            match self.receive() {
                Report::Done { outcomes, .. } => {
                    self.outcomes.extend(outcomes.into_iter().map(|o| (o.kind, o.key, o.failure)));
                }
                Report::Heartbeat { load } => {
                    assert!(load.total_bytes > load.free_bytes && load.free_bytes > 0, "{load:?}");
                }
                report => return report,
            }
        }
    }

    /// What became of the next so many orders that have no other effect.
    fn outcomes(&mut self, count: usize) -> Vec<(OrderKind, Key, Option<Failure>)> {
        let deadline = Instant::now() + SOON;
        while self.outcomes.len() < count {
            assert!(Instant::now() < deadline, "{:?}", self.outcomes);
            match self.receive() {
                Report::Heartbeat { .. } => {}
                Report::Done { outcomes, .. } => {
                    self.outcomes.extend(outcomes.into_iter().map(|o| (o.kind, o.key, o.failure)));
                }
                other => panic!("{other:?}"),
            }
        }
        self.outcomes.drain(..).collect()
    }

    /// All that the Dstore has, and up to where.
    fn inventory(&mut self) -> (Vec<CopyReport>, Position) {
        let mut all = Vec::new();
        loop {
            match self.report() {
                Report::Inventory { copies } => all.extend(copies),
                Report::InventoryEnd { position } => return (all, position),
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next so many changes, and up to where they go.
    fn changes(&mut self, count: usize) -> (Vec<CopyChange>, Position) {
        let mut all = Vec::new();
        loop {
            match self.report() {
                Report::Changes { changes, position } => {
                    all.extend(changes);
                    if all.len() >= count {
                        return (all, position);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

fn copy(key: Key, bytes: &[u8]) -> CopyReport {
    CopyReport { key, length: bytes.len() as u64, checksum: Checksum::of(bytes), is_damaged: false }
}

#[test]
fn objects_are_stored_once_and_come_back_whole_or_in_parts() {
    let (folder, secret) = (TempFolder::new(), Secret::draw().unwrap());
    let (dstore, address) = start(folder.path(), &secret, Vec::new()).unwrap();
    let mut client = dial(&address, &secret);
    // One in a pack, one in a file of its own.
    for (number, length) in [(1, 3 * BLOCK + 100), (2, 20 * BLOCK + 1), (3, 1)] {
        let (key, bytes) = (key(number), bytes(length));
        let ObjectAnswer::Stored { position } = put(&mut client, key, &bytes) else { panic!("not stored") };
        let ObjectAnswer::Have { position: again } = put(&mut client, key, &bytes) else { panic!("not there") };
        assert!(again >= position && position.start == 1);
        assert_eq!(put(&mut client, key, b"other"), ObjectAnswer::Error { failure: Failure::Conflict });
        assert!(get(&mut client, key, 0, length as u64) == (bytes.clone(), None));
        if length > BLOCK {
            let (from, end) = (BLOCK, 2 * BLOCK);
            assert!(get(&mut client, key, from as u64, BLOCK as u64) == (bytes[from..end].to_vec(), None));
            let last = (length - 1) / BLOCK * BLOCK;
            assert!(get(&mut client, key, last as u64, (length - last) as u64) == (bytes[last..].to_vec(), None));
        }
    }
    dstore.stop().unwrap();
}

#[test]
fn a_request_that_fails_leaves_the_connection_usable() {
    let (folder, secret) = (TempFolder::new(), Secret::draw().unwrap());
    let (_dstore, address) = start(folder.path(), &secret, Vec::new()).unwrap();
    let mut client = dial(&address, &secret);
    let content = bytes(2 * BLOCK + 5);
    let length = content.len() as u64;
    for (number, size) in [(8, content.len()), (9, 3 << 20)] {
        let content = bytes(size);
        let lie = ObjectRequest::Put { key: key(number), length: size as u64, checksum: Checksum(1) };
        client.send_with_content(&lie, &content).unwrap();
        assert_eq!(receive(&mut client), ObjectAnswer::Error { failure: Failure::Mismatch });
        assert_eq!(get(&mut client, key(number), 0, 1).1, Some(Failure::NotHere));
    }
    assert!(matches!(put(&mut client, key(1), &content), ObjectAnswer::Stored { .. }));
    for (from, size) in [(1, BLOCK as u64), (0, 7), (0, 0), (0, length + 1), (length, 1), (u64::MAX - 65_535, 65_535)] {
        let (_, failure) = get(&mut client, key(1), from, size);
        assert!(matches!(failure, Some(Failure::BadRequest { .. })), "{from} {size}: {failure:?}");
    }
    assert!(get(&mut client, key(1), 0, length) == (content, None));
    client.send(&ObjectRequest::Locate { keys: vec![key(2), key(1)] }).unwrap();
    let places = vec![None, Some(("pack-0000000001".to_owned(), 8192))];
    assert_eq!(receive(&mut client), ObjectAnswer::Located { places });
}

#[test]
fn objects_that_are_put_together_are_there_or_refused_together() {
    let (folder, secret) = (TempFolder::new(), Secret::draw().unwrap());
    let (_dstore, address) = start(folder.path(), &secret, Vec::new()).unwrap();
    let mut client = dial(&address, &secret);
    let contents: Vec<Vec<u8>> = (1..=100).map(|size| bytes(size * 97)).collect();
    let announced = |from: u64, contents: &[Vec<u8>]| -> Vec<Announced> {
        let keys = (from..).map(key);
        let of = |(key, bytes): (Key, &Vec<u8>)| Announced {
            key,
            length: bytes.len() as u64,
            checksum: Checksum::of(bytes),
        };
        keys.zip(contents).map(of).collect()
    };
    let put = |client: &mut Connection, objects: Vec<Announced>, content: &[u8]| {
        client.send_with_content(&ObjectRequest::PutMany { objects }, content).unwrap();
        receive(client)
    };
    let stored = put(&mut client, announced(1, &contents), &contents.concat());
    assert!(matches!(stored, ObjectAnswer::Stored { position } if position.number == 100), "{stored:?}");
    for (number, bytes) in (1..).zip(&contents) {
        assert!(get(&mut client, key(number), 0, bytes.len() as u64) == (bytes.clone(), None), "object {number}");
    }
    let mut lie = announced(200, &contents);
    lie[50].checksum = Checksum(1);
    let refused = put(&mut client, lie, &contents.concat());
    assert_eq!(refused, ObjectAnswer::Error { failure: Failure::Mismatch });
    assert_eq!(get(&mut client, key(200), 0, 1).1, Some(Failure::NotHere));
    // What is too much, or nothing, is not read.
    let many = vec![announced(300, &contents)[0]; 257];
    let huge = [1 << 20, 1].map(|length| Announced { key: key(300), length, checksum: Checksum(1) });
    let overflowing = [u64::MAX; 2].map(|length| Announced { key: key(300), length, checksum: Checksum(1) });
    let empty = Announced { key: key(300), length: 0, checksum: Checksum::EMPTY };
    for objects in [many, huge.into(), overflowing.into(), vec![empty]] {
        let mut client = dial(&address, &secret);
        let refused = put(&mut client, objects, b"");
        assert!(matches!(refused, ObjectAnswer::Error { failure: Failure::BadRequest { .. } }), "{refused:?}");
        assert!(matches!(client.receive::<ObjectAnswer>(Wait::deadline(SOON)), Err(ReceiveError::Ended)));
    }
    assert!(matches!(put(&mut client, Vec::new(), b""), ObjectAnswer::Stored { .. }));
}

#[test]
fn a_dstore_keeps_backups_for_its_controller_only() {
    // depot 4.9
    let mut store = Store::new(1);
    store.stop();
    store.backup_period = Duration::from_millis(20);
    store.start();
    let folder = TempFolder::new();
    let (dstore, address) = start(folder.path(), &store.secret, vec![store.address.clone()]).unwrap();
    let newest = folder.path().join("backup");
    let sequence = || std::fs::File::open(&newest).ok().map(|file| verify(file).expect("whole").sequence);
    let client = store.client();
    for number in 0..3 {
        let path = format!("/{number}").parse().unwrap();
        let version = client.make_directory(&path, false, &Details::default(), None).unwrap();
        kit::eventually("it is sent a backup", || sequence() >= Some(version.sequence));
    }
    kit::eventually("it keeps the one before", || folder.path().join("backup-before").exists());
    let backup = std::fs::read(&newest).unwrap();
    let mut posing = dial(&address, &store.secret);
    let request = ObjectRequest::Backup { epoch: EPOCH, length: backup.len() as u64 };
    posing.send(&request).unwrap();
    let refused = receive(&mut posing);
    assert!(matches!(refused, ObjectAnswer::Error { failure: Failure::NotPermitted { .. } }), "{refused:?}");
    let access = Access::Server { role: Role::Controller, secret: store.secret.clone() };
    let mut deposed = connect(&address, &access, CLUSTER, Role::Dstore, SOON, |_| ()).unwrap();
    deposed.send_with_content(&request, &backup).unwrap();
    let refused = receive(&mut deposed);
    assert!(matches!(refused, ObjectAnswer::Error { failure: Failure::NotPermitted { .. } }), "{refused:?}");
    // The last change is in the last backup, however late it comes.
    dstore.stop().unwrap();
    store.stop();
    store.backup_period = Duration::from_secs(3600);
    store.start();
    let _dstore = start(folder.path(), &store.secret, vec![store.address.clone()]).unwrap();
    // Answered once the Dstore follows.
    let last = store.client().make_directory(&"/last".parse().unwrap(), false, &Details::default(), None).unwrap();
    store.stop();
    assert!(sequence() >= Some(last.sequence));
}

#[test]
fn a_put_that_breaks_off_leaves_nothing() {
    let (folder, secret) = (TempFolder::new(), Secret::draw().unwrap());
    let (dstore, address) = start(folder.path(), &secret, Vec::new()).unwrap();
    for length in [1000, 3 << 20] {
        let client = dial(&address, &secret);
        let content = bytes(length);
        let put = ObjectRequest::Put { key: key(1), length: length as u64, checksum: Checksum::of(&content) };
        client.send_with_content(&put, &content[..length - 1]).unwrap();
        client.stream().shutdown(Shutdown::Write).unwrap();
        // The Dstore has noticed when it closes its end.
        let mut client = client;
        assert!(client.receive::<ObjectAnswer>(Wait::deadline(SOON)).is_err());
    }
    assert_eq!(get(&mut dial(&address, &secret), key(1), 0, 1).1, Some(Failure::NotHere));
    dstore.stop().unwrap();
    let mut names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["identity", "pack-0000000001", "scrub"]);
}

#[test]
fn a_damaged_block_is_not_sent_and_is_reported() {
    let folder = TempFolder::new();
    let controller = ScriptedController::new();
    let (_dstore, address) = start(folder.path(), &controller.secret, vec![controller.address()]).unwrap();
    let mut joined = controller.admit(EPOCH);
    assert_eq!(joined.inventory().0, []);
    let mut client = dial(&address, &controller.secret);
    let content = bytes(6 * BLOCK);
    put(&mut client, key(1), &content);
    assert_eq!(joined.changes(1).0, [CopyChange::Stored { copy: copy(key(1), &content) }]);

    let pack = folder.path().join("pack-0000000001");
    let mut stored = std::fs::read(&pack).unwrap();
    let start = stored.windows(100).position(|window| window == &content[..100]).unwrap();
    stored[start + 5 * BLOCK + 3] ^= 1;
    std::fs::write(&pack, stored).unwrap();
    let (good, failure) = get(&mut client, key(1), 0, 6 * BLOCK as u64);
    assert!(good == content[..5 * BLOCK], "{} bytes", good.len());
    assert!(matches!(failure, Some(Failure::Damaged { .. })), "{failure:?}");
    let damaged = CopyReport { is_damaged: true, ..copy(key(1), &content) };
    assert_eq!(joined.changes(1).0, [CopyChange::Stored { copy: damaged }]);
    assert!(get(&mut client, key(1), 0, 5 * BLOCK as u64) == (content[..5 * BLOCK].to_vec(), None), "usable");
}

#[test]
fn a_controller_may_ask_to_verify() {
    let folder = TempFolder::new();
    let controller = ScriptedController::new();
    let (_dstore, address) = start(folder.path(), &controller.secret, vec![controller.address()]).unwrap();
    let mut joined = controller.admit(EPOCH);
    joined.inventory();
    let mut client = dial(&address, &controller.secret);
    // Each begins differently: one is looked for in the pack.
    let contents: Vec<_> = (1..4).map(|number| [vec![number], bytes(1000)].concat()).collect();
    for (number, content) in (1..).zip(&contents) {
        put(&mut client, key(number), content);
    }
    joined.changes(3);
    let pack = folder.path().join("pack-0000000001");
    let mut stored = std::fs::read(&pack).unwrap();
    let start = stored.windows(1001).position(|window| window == contents[1]).unwrap();
    stored[start + 500] ^= 1;
    std::fs::write(&pack, stored).unwrap();
    // An order of another leadership is dropped: the damage is found by the second one.
    let older = Epoch { term: 2, ..EPOCH };
    joined.connection.send(&Order::Verify { epoch: older, keys: vec![key(2)] }).unwrap();
    joined.connection.send(&Order::Verify { epoch: EPOCH, keys: vec![key(1), key(3)] }).unwrap();
    put(&mut client, key(9), b"after the orders");
    assert_eq!(joined.changes(1).0, [CopyChange::Stored { copy: copy(key(9), b"after the orders") }]);
    joined.connection.send(&Order::Verify { epoch: EPOCH, keys: vec![key(1), key(2)] }).unwrap();
    let damaged = CopyReport { is_damaged: true, ..copy(key(2), &contents[1]) };
    assert_eq!(joined.changes(1).0, [CopyChange::Stored { copy: damaged }]);
}

/// Flips a byte of what a Dstore has on its disk.
fn damage(folder: &Path, content: &[u8]) {
    let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    for name in names {
        let mut stored = std::fs::read(&name).unwrap();
        if let Some(start) = stored.windows(content.len()).position(|window| window == content) {
            stored[start + content.len() / 2] ^= 1;
            return std::fs::write(&name, stored).unwrap();
        }
    }
    panic!("the content is not there");
}

#[test]
fn a_controller_may_have_objects_copied() {
    let folders = [TempFolder::new(), TempFolder::new()];
    let controller = ScriptedController::new();
    let (_source, from) = start(folders[0].path(), &controller.secret, Vec::new()).unwrap();
    let (_dstore, _) = start(folders[1].path(), &controller.secret, vec![controller.address()]).unwrap();
    let mut joined = controller.admit(EPOCH);
    joined.inventory();
    let mut client = dial(&from, &controller.secret);
    let mut contents: Vec<_> = [1, 1000, 20 * BLOCK + 7, 2 * BLOCK].iter().map(|length| bytes(*length)).collect();
    contents[3].reverse(); // no beginning of another one
    for (number, content) in (1..).zip(&contents) {
        put(&mut client, key(number), content);
    }
    damage(folders[0].path(), &contents[3]);
    let order = |number: u64, content: &[u8]| CopyOrder {
        key: key(number),
        length: content.len() as u64,
        checksum: Checksum::of(content),
        purpose: Purpose::Repair,
        from: from.clone(),
    };
    let orders: Vec<_> = (1..).zip(&contents).map(|(number, content)| order(number, content)).collect();
    let older = Epoch { term: 2, ..EPOCH };
    joined.connection.send(&Order::Copy { epoch: older, copies: orders.clone() }).unwrap();
    joined.connection.send(&Order::Copy { epoch: EPOCH, copies: orders[..3].to_vec() }).unwrap();
    let mut stored = joined.changes(3).0;
    stored.sort_by_key(|change| match change {
        CopyChange::Stored { copy } => copy.key,
        CopyChange::Removed { key } => *key,
    });
    let expected = (1..).zip(&contents[..3]).map(|(number, content)| copy(key(number), content));
    assert_eq!(stored, expected.map(|copy| CopyChange::Stored { copy }).collect::<Vec<_>>());
    let mut done = joined.outcomes(3);
    done.sort_by_key(|(_, key, _)| *key);
    let copied = |number| (OrderKind::Copy, key(number), None);
    assert_eq!(done, [copied(1), copied(2), copied(3)], "the order of another leadership is dropped");

    // What is there is not fetched again; what the source does not have, or not any more, is told.
    let wrong = CopyOrder { checksum: Checksum(1), key: key(9), ..order(2, &contents[1]) };
    let nowhere = CopyOrder { from: "127.0.0.1:1".parse().unwrap(), ..order(8, b"x") };
    let longer = CopyOrder { key: key(1), ..order(2, &contents[1]) };
    put(&mut client, key(9), &contents[1]);
    let copies = vec![order(3, &contents[2]), order(4, &contents[3]), order(7, b"x"), wrong, nowhere, longer];
    for copy in copies {
        joined.connection.send(&Order::Copy { epoch: EPOCH, copies: vec![copy] }).unwrap();
        let (_, key, failure) = joined.outcomes(1).remove(0);
        let is_right = match key.number {
            3 => failure.is_none(),
            4 => matches!(failure, Some(Failure::Damaged { .. })),
            7 => failure == Some(Failure::NotHere),
            8 => matches!(failure, Some(Failure::Unavailable { .. })),
            _ => failure == Some(Failure::Mismatch),
        };
        assert!(is_right, "{key}: {failure:?}");
    }

    // Small ones are copied together: one that is not what was ordered keeps none of the others from being kept.
    (20..23).for_each(|number| drop(put(&mut client, key(number), &contents[1])));
    let of = |number| CopyOrder { key: key(number), ..order(2, &contents[1]) };
    let copies = vec![of(20), CopyOrder { checksum: Checksum(1), ..of(21) }, of(22), of(23)];
    joined.connection.send(&Order::Copy { epoch: EPOCH, copies }).unwrap();
    assert_eq!(joined.changes(2).0.len(), 2, "the good ones are reported");
    let mut outcomes = joined.outcomes(4);
    outcomes.sort_by_key(|(_, key, _)| *key);
    let failures: Vec<Option<Failure>> = outcomes.into_iter().map(|(.., failure)| failure).collect();
    assert_eq!(failures, [None, Some(Failure::Mismatch), None, Some(Failure::NotHere)]);
}

#[test]
fn a_controller_may_have_objects_removed() {
    let folder = TempFolder::new();
    let controller = ScriptedController::new();
    let (_dstore, address) = start(folder.path(), &controller.secret, vec![controller.address()]).unwrap();
    let mut joined = controller.admit(EPOCH);
    joined.inventory();
    let mut client = dial(&address, &controller.secret);
    for number in 1..=3 {
        put(&mut client, key(number), &bytes(if number == 2 { 20 * BLOCK } else { 1000 }));
    }
    joined.changes(3);
    let keys = vec![key(1), key(2), key(7)];
    let older = Epoch { term: 2, ..EPOCH };
    joined.connection.send(&Order::Remove { epoch: older, keys: vec![key(3)] }).unwrap();
    joined.connection.send(&Order::Remove { epoch: EPOCH, keys: keys.clone() }).unwrap();
    assert_eq!(joined.changes(2).0, [CopyChange::Removed { key: key(1) }, CopyChange::Removed { key: key(2) }]);
    assert_eq!(joined.outcomes(3), keys.iter().map(|key| (OrderKind::Remove, *key, None)).collect::<Vec<_>>());
    assert_eq!(get(&mut client, key(2), 0, 1).1, Some(Failure::NotHere));
    assert!(get(&mut client, key(3), 0, 1000).1.is_none(), "the order of another leadership is dropped");
}

#[test]
fn orders_of_a_link_that_ends_have_no_later_effect() {
    // depot 5.2: what the next link reports is what there is.
    let folder = TempFolder::new();
    let controller = ScriptedController::new();
    let (_dstore, address) = start(folder.path(), &controller.secret, vec![controller.address()]).unwrap();
    let mut joined = controller.admit(EPOCH);
    joined.inventory();
    put(&mut dial(&address, &controller.secret), key(1), b"kept");
    joined.changes(1);
    // A copy waits for a Dstore that says nothing; the removal of another object of that key waits for the copy.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let copy = CopyOrder {
        key: key(1),
        length: 4,
        checksum: Checksum::of(b"kept"),
        purpose: Purpose::Repair,
        from: silent.local_addr().unwrap().into(),
    };
    joined.connection.send(&Order::Copy { epoch: EPOCH, copies: vec![copy] }).unwrap();
    let (mut fetching, _) = silent.accept().unwrap();
    joined.connection.send(&Order::Remove { epoch: EPOCH, keys: vec![key(1)] }).unwrap();
    drop(joined);
    let mut joined = controller.admit(EPOCH);
    fetching.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let ended = fetching.read_to_end(&mut Vec::new());
    assert!(ended.is_ok(), "the copy runs while the next link is made: {ended:?}");
    assert_eq!(joined.inventory().0, [self::copy(key(1), b"kept")]);
    // Behind the removal, if that still waited.
    joined.connection.send(&Order::Verify { epoch: EPOCH, keys: vec![key(1)] }).unwrap();
    assert_eq!(joined.outcomes(1), [(OrderKind::Verify, key(1), None)]);
}

#[test]
fn a_newer_leadership_waits_for_orders_that_run() {
    // depot 5.2: what it hears after that, no order of an older one changes.
    let folder = TempFolder::new();
    let old = ScriptedController::new();
    let new = ScriptedController { listener: TcpListener::bind("127.0.0.1:0").unwrap(), secret: old.secret.clone() };
    let (_dstore, address) = start(folder.path(), &old.secret, vec![old.address(), new.address()]).unwrap();
    let mut joined = old.admit(EPOCH);
    joined.inventory();
    put(&mut dial(&address, &old.secret), key(1), b"kept");
    joined.changes(1);
    // A copy runs: its source says nothing. The removal of that object waits for it.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let from: Address = silent.local_addr().unwrap().into();
    let copy = |number| {
        let (length, checksum, purpose, from) = (4, Checksum::of(b"kept"), Purpose::Repair, from.clone());
        CopyOrder { key: key(number), length, checksum, purpose, from }
    };
    joined.connection.send(&Order::Copy { epoch: EPOCH, copies: vec![copy(1)] }).unwrap();
    let (mut fetching, _) = silent.accept().unwrap();
    joined.connection.send(&Order::Remove { epoch: EPOCH, keys: vec![key(1)] }).unwrap();
    let newer = Epoch { term: EPOCH.term + 1, ..EPOCH };
    let mut next = new.join();
    next.admit(newer, 7, true, &[newer.history]);
    next.is_fenced(newer);
    fetching.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let ended = fetching.read_to_end(&mut Vec::new());
    assert!(ended.is_ok(), "the copy still runs when the newer leadership is followed: {ended:?}");
    assert_eq!(next.inventory().0, [self::copy(key(1), b"kept")], "the removal has not begun, and never does");
    // The old leadership's orders are dropped, though its link is open.
    joined.connection.send(&Order::Remove { epoch: EPOCH, keys: vec![key(1)] }).unwrap();
    next.connection.send(&Order::Verify { epoch: newer, keys: vec![key(1)] }).unwrap();
    assert_eq!(next.outcomes(1), [(OrderKind::Verify, key(1), None)]);
}

#[test]
fn so_many_objects_are_checked_at_a_time() {
    let folder = TempFolder::new();
    let secret = Secret::draw().unwrap();
    let (_dstore, address) = start(folder.path(), &secret, Vec::new()).unwrap();
    let mut client = dial(&address, &secret);
    put(&mut client, key(0), b"there");
    let mut check = |count| {
        client.send(&ObjectRequest::Check { deep: true, keys: (0..count).map(key).collect() }).unwrap();
        receive(&mut client)
    };
    let answer = check(1_001);
    assert!(matches!(answer, ObjectAnswer::Error { failure: Failure::BadRequest { .. } }), "{answer:?}");
    let ObjectAnswer::Checked { copies } = check(1_000) else { panic!("it is not checked") };
    assert_eq!((copies.len(), copies[0].is_some(), copies[1].is_some()), (1_000, true, false));
}

#[test]
fn a_dstore_reports_all_it_has_and_remembers_whom_it_followed() {
    let folder = TempFolder::new();
    let controller = ScriptedController::new();
    let (dstore, address) = start(folder.path(), &controller.secret, vec![controller.address()]).unwrap();
    let mut joined = controller.admit(EPOCH);
    assert_eq!((joined.number, joined.start, joined.epoch), (None, 1, None));
    let disk = joined.disk;
    assert_eq!(joined.inventory(), (Vec::new(), Position { start: 1, number: 0 }));
    let mut client = dial(&address, &controller.secret);
    let count = 2500; // more than a line reports
    for number in 0..count {
        put(&mut client, key(number), &bytes(1 + number as usize % 5));
    }
    let (changes, position) = joined.changes(count as usize);
    let expected: Vec<_> = (0..count).map(|number| copy(key(number), &bytes(1 + number as usize % 5))).collect();
    assert_eq!(changes, expected.iter().map(|copy| CopyChange::Stored { copy: *copy }).collect::<Vec<_>>());
    assert_eq!(position, Position { start: 1, number: count });

    // The Controller is restarted: the Dstore comes back by itself, and tells all anew.
    drop(joined);
    let mut joined = controller.admit(EPOCH);
    assert_eq!((joined.number, joined.start, joined.epoch), (Some(DstoreId(4)), 1, Some(EPOCH)));
    assert_eq!(joined.inventory(), (expected.clone(), position));

    // So is the Dstore.
    dstore.stop().unwrap();
    let (dstore, _) = start(folder.path(), &controller.secret, vec![controller.address()]).unwrap();
    let mut joined = controller.admit(EPOCH);
    assert_eq!((joined.disk, joined.number, joined.start, joined.epoch), (disk, Some(DstoreId(4)), 2, Some(EPOCH)));
    assert_eq!(joined.inventory(), (expected, Position { start: 2, number: 0 }));
    assert_eq!(dstore.identity().number, Some(DstoreId(4)));
}

#[test]
fn a_controller_whose_disk_is_an_old_copy_is_refused() {
    let folder = TempFolder::new();
    let controller = ScriptedController::new();
    let (dstore, _) = start(folder.path(), &controller.secret, vec![controller.address()]).unwrap();
    let joined = controller.admit(EPOCH);
    joined.connection.send(&Order::Applied { epoch: EPOCH, sequence: 90 }).unwrap();
    joined.connection.send(&Order::Applied { epoch: EPOCH, sequence: 80 }).unwrap();
    kit::eventually("the Dstore keeps what it has heard of", || dstore.identity().sequence == 90);
    drop(joined);
    let ours = EPOCH.history;
    let other = Epoch { history: History(6), term: 9, nonce: 1 };
    let refused = [
        (Epoch { term: 4, ..EPOCH }, 95, false, vec![ours]), // it lacks what the Dstore has followed
        (Epoch { term: 2, ..EPOCH }, 95, true, vec![ours]),  // it is older
        (Epoch { nonce: 8, ..EPOCH }, 95, true, vec![ours]), // of the same term, and another one
        (Epoch { term: 4, ..EPOCH }, 89, true, vec![ours]),  // it lacks a change that the Dstore has heard of
        (other, 95, true, vec![other.history]),              // a history that does not descend from the Dstore's
    ];
    for (epoch, after, has_yours, lineage) in refused {
        let mut joined = controller.join();
        assert_eq!(joined.epoch, Some(EPOCH));
        joined.admit(epoch, after, has_yours, &lineage);
        let Report::Refuse { why, .. } = joined.answer() else { panic!("{epoch:?} is followed") };
        assert!(why.contains("old copy"), "{why}");
    }
    for (epoch, after, has_yours, lineage) in [
        (Epoch { term: 4, ..EPOCH }, 90, true, vec![ours]),
        (other, 3, false, vec![ours, other.history]), // restored: it descends from the Dstore's
    ] {
        let mut joined = controller.join();
        joined.admit(epoch, after, has_yours, &lineage);
        joined.is_fenced(epoch);
        assert_eq!(dstore.identity().epoch, Some(epoch), "before it is said");
    }
    assert!(dstore.is_alive());
}

#[test]
fn a_dstore_reports_to_all_controllers_and_obeys_the_one_that_leads() {
    let folder = TempFolder::new();
    let [one, other] = [ScriptedController::new(), ScriptedController::new()];
    let other = ScriptedController { secret: one.secret.clone(), ..other };
    let (dstore, address) = start(folder.path(), &one.secret, vec![one.address()]).unwrap();
    put(&mut dial(&address, &one.secret), key(1), b"kept");
    let mut leading = one.admit(EPOCH);
    assert_eq!(leading.inventory().0, [copy(key(1), b"kept")]);
    // It hears of the other one, and reports to it as well, which does not lead.
    let controllers = vec![(ControllerId(1), one.address()), (ControllerId(2), other.address())];
    leading.connection.send(&Order::Controllers { leader: Some(ControllerId(1)), controllers }).unwrap();
    let mut following = other.join();
    assert_eq!(following.epoch, Some(EPOCH));
    following.follow();
    assert_eq!(following.inventory().0, [copy(key(1), b"kept")]);
    put(&mut dial(&address, &one.secret), key(2), b"new");
    assert_eq!(leading.changes(1), following.changes(1));
    // Its orders are dropped, whatever epoch they claim: what it orders later is carried out first.
    following.connection.send(&Order::Remove { epoch: EPOCH, keys: vec![key(1)] }).unwrap();

    // It begins to lead over the link that is open. The older leadership is obeyed no more.
    let next = Epoch { term: EPOCH.term + 1, ..EPOCH };
    following.lead(next, 9, Some(EPOCH), &[EPOCH.history]);
    let fence = following.is_fenced(next);
    assert_eq!((fence.number, dstore.identity().epoch), (2, Some(next)));
    leading.connection.send(&Order::Remove { epoch: EPOCH, keys: vec![key(1)] }).unwrap();
    following.connection.send(&Order::Verify { epoch: next, keys: vec![key(1)] }).unwrap();
    assert_eq!(following.outcomes(1), [(OrderKind::Verify, key(1), None)]);
    // It leads no more, and then anew: outcomes say for which leadership they are.
    following.connection.send(&Order::Follows).unwrap();
    following.connection.send(&Order::Remove { epoch: next, keys: vec![key(1)] }).unwrap();
    let last = Epoch { term: next.term + 1, ..EPOCH };
    following.lead(last, 11, Some(next), &[EPOCH.history]);
    following.is_fenced(last);
    following.connection.send(&Order::Verify { epoch: last, keys: vec![key(1)] }).unwrap();
    let done = std::iter::repeat_with(|| following.receive()).find(|report| matches!(report, Report::Done { .. }));
    let outcome = OrderOutcome { kind: OrderKind::Verify, key: key(1), failure: None };
    assert_eq!(done, Some(Report::Done { epoch: last, outcomes: vec![outcome] }));
    // The older leader, which does not know yet that it was deposed, is told what it lacks.
    leading.lead(EPOCH, 7, None, &[EPOCH.history]);
    assert!(matches!(leading.answer(), Report::Refuse { epoch: EPOCH, .. }));
    assert!(dstore.is_alive());
}

#[test]
fn a_leader_is_asked_about_a_leadership_that_was_followed_since_the_dstore_joined() {
    let folder = TempFolder::new();
    let [one, other] = [ScriptedController::new(), ScriptedController::new()];
    let other = ScriptedController { secret: one.secret.clone(), ..other };
    let controllers = vec![one.address(), other.address()];
    let (dstore, _) = start(folder.path(), &one.secret, controllers).unwrap();
    let following = other.join();
    following.follow();
    let _leading = one.admit(EPOCH);
    // It leads, and does not say whether it knows the leadership that the Dstore has followed meanwhile.
    let next = Epoch { term: EPOCH.term + 1, ..EPOCH };
    following.lead(next, 9, None, &[EPOCH.history]);
    let mut joined = other.join();
    assert_eq!(joined.epoch, Some(EPOCH), "so it is asked");
    joined.admit(next, 9, true, &[EPOCH.history]);
    joined.is_fenced(next);
    assert_eq!(dstore.identity().epoch, Some(next));
}

#[test]
fn a_second_address_of_a_controller_does_no_harm() {
    // It is refused there, as the Dstore is linked already, for longer than one would wait that is admitted nowhere.
    let folder = TempFolder::new();
    let [one, alias] = [ScriptedController::new(), ScriptedController::new()];
    let alias = ScriptedController { secret: one.secret.clone(), ..alias };
    let controllers = vec![one.address()];
    let patience = Duration::from_millis(200);
    let (dstore, _) =
        start_with(folder.path(), &one.secret, controllers, |options| options.gives_up_after = patience).unwrap();
    let mut leading = one.admit(EPOCH);
    leading.inventory();
    let both = |controllers: &[Address]| Order::Controllers {
        leader: None,
        controllers: (1..).map(ControllerId).zip(controllers.iter().cloned()).collect(),
    };
    leading.connection.send(&both(&[one.address(), alias.address()])).unwrap();
    let refused = Failure::NotPermitted { why: "it is there already".into() };
    let begun = Instant::now();
    while begun.elapsed() < 3 * patience {
        alias.join().connection.send(&Order::Error { failure: refused.clone() }).unwrap();
    }
    assert!(dstore.is_alive());
    // It is no Controller's address any more, and is left alone.
    leading.connection.send(&both(&[one.address()])).unwrap();
    leading.connection.send(&Order::Verify { epoch: EPOCH, keys: vec![key(1)] }).unwrap();
    leading.outcomes(1); // it has heard both
    kit::eventually("it is asked no more", || {
        let is_asked = controller_has_a_caller(&alias);
        if is_asked {
            alias.join().connection.send(&Order::Error { failure: refused.clone() }).unwrap();
        }
        !is_asked && begun.elapsed() > Duration::from_secs(4) // longer than from one attempt to the next
    });
}

#[test]
fn a_dstore_that_is_not_admitted_gives_up_and_says_why() {
    let folder = TempFolder::new();
    let controller = ScriptedController::new();
    let controllers = vec![controller.address()];
    let (dstore, address) = start_with(folder.path(), &controller.secret, controllers, |options| {
        options.gives_up_after = Duration::from_millis(300)
    })
    .unwrap();
    put(&mut dial(&address, &controller.secret), key(1), b"kept");
    controller.listener.set_nonblocking(false).unwrap();
    let failure = Failure::NotPermitted { why: "Dstore 4 was removed from this store".into() };
    let mut times = 0;
    let deadline = Instant::now() + SOON;
    while dstore.is_alive() {
        assert!(Instant::now() < deadline);
        if times < 2 || controller_has_a_caller(&controller) {
            controller.join().connection.send(&Order::Error { failure: failure.clone() }).unwrap();
            times += 1;
        }
    }
    assert!(times > 1, "a refusal may be passing: {times}");
    assert!(dstore.failure().unwrap().contains("was removed from this store"), "{:?}", dstore.failure());
    dstore.stop().unwrap();
    // Nothing is deleted.
    let (_dstore, address) = start(folder.path(), &controller.secret, Vec::new()).unwrap();
    assert_eq!(get(&mut dial(&address, &controller.secret), key(1), 0, 4), (b"kept".to_vec(), None));
}

fn controller_has_a_caller(controller: &ScriptedController) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(&controller.listener, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 10_000_000 })).unwrap() > 0
}

#[test]
fn a_disk_of_another_store_or_in_use_is_refused_untouched() {
    let folder = TempFolder::new();
    let controller = ScriptedController::new();
    let (dstore, _) = start(folder.path(), &controller.secret, vec![controller.address()]).unwrap();
    let again = start(folder.path(), &controller.secret, Vec::new());
    assert!(matches!(again.map(|_| ()), Err(StartError::Disk { error: OpenError::InUse, .. })));
    controller.admit(EPOCH).inventory();
    dstore.stop().unwrap();
    let before = std::fs::read(folder.path().join("identity")).unwrap();
    let other = start_with(folder.path(), &controller.secret, Vec::new(), |options| options.cluster = ClusterId(99));
    let Err(error @ StartError::OtherStore { .. }) = other.map(|_| ()) else { panic!("it starts") };
    assert!(error.to_string().contains("another store"), "{error}");
    assert_eq!(std::fs::read(folder.path().join("identity")).unwrap(), before);
}

#[test]
fn a_dstore_that_has_stopped_lets_go_of_its_disk() {
    let folder = TempFolder::new();
    let controller = ScriptedController::new();
    let (dstore, address) = start(folder.path(), &controller.secret, vec![controller.address()]).unwrap();
    let mut joined = controller.admit(EPOCH);
    joined.inventory();
    // Connections are open, one of them in the middle of a put.
    let idle = dial(&address, &controller.secret);
    let busy = dial(&address, &controller.secret);
    busy.send(&ObjectRequest::Put { key: key(1), length: 1000, checksum: Checksum(1) }).unwrap();
    dstore.stop().unwrap();
    // All of its threads have ended: the last one would have kept the lock.
    Disk::open(Arc::new(RealFolder::new(folder.path()).unwrap()), pack::Options::default()).unwrap();
    drop((idle, busy, joined));
}

#[test]
fn heartbeats_say_how_the_dstore_is() {
    let folder = TempFolder::new();
    let controller = ScriptedController::new();
    let (_dstore, address) = start(folder.path(), &controller.secret, vec![controller.address()]).unwrap();
    let mut joined = controller.admit(EPOCH);
    put(&mut dial(&address, &controller.secret), key(1), b"twelve bytes");
    loop {
        let report = joined.connection.receive(Wait::deadline(SOON)).unwrap();
        if let Report::Heartbeat { load: Load { objects: 1, damaged: 0, used_bytes: 12, memory_percent, .. } } = report
        {
            assert!((1..100).contains(&memory_percent), "{memory_percent}");
            return;
        }
    }
}

#[test]
fn a_scrub_that_is_late_is_a_problem_until_it_is_through() {
    // depot 5.4, 5.6
    let (store, folder) = (Store::new(1), TempFolder::new());
    let start = |period| {
        let choose = |options: &mut Options| options.scrub_period = period;
        start_with(folder.path(), &store.secret, vec![store.address.clone()], choose).unwrap().0
    };
    let is_late = || store.client().status().unwrap().problems.iter().any(|problem| problem.contains("40 days ago"));
    drop(start(SCRUB_PERIOD)); // a disk that is new is not late
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let completed = now - 40 * 24 * 3600;
    std::fs::write(folder.path().join("scrub"), format!("scrub 1 - {completed} {completed}\n")).unwrap();
    let dstore = start(SCRUB_PERIOD);
    let path = "/file".parse().unwrap();
    store.client().put(&path, Source::Once(&mut &b"content"[..]), &PutOptions::default()).unwrap();
    kit::eventually("status says that the scrub is late", is_late);
    drop(dstore);
    let _dstore = start(Duration::from_millis(100));
    kit::eventually("the scrub is through", || {
        let kept = std::fs::read_to_string(folder.path().join("scrub")).unwrap();
        kept.trim_end().rsplit(' ').next().unwrap().parse::<u64>().unwrap() >= now
    });
    kit::eventually("status says no more that it is late", || !is_late());
}

#[test]
fn a_store_of_three_dstores_keeps_files_over_restarts() {
    let store = Store::new(3);
    let folders: Vec<_> = (0..3).map(|_| TempFolder::new()).collect();
    let start_all = |store: &Store| {
        let start = |folder: &TempFolder| start(folder.path(), &store.secret, vec![store.address.clone()]).unwrap().0;
        folders.iter().map(start).collect::<Vec<_>>()
    };
    let mut store = store;
    let mut dstores = start_all(&store);
    let files: Vec<(String, Vec<u8>)> =
        [0, 1, 1000, BLOCK, 3 << 20].iter().map(|size| (format!("/d/{size}"), bytes(*size))).collect();
    {
        let client = store.client();
        for (path, content) in &files {
            let options = PutOptions { parents: true, ..PutOptions::default() };
            client.put(&path.parse().unwrap(), Source::Once(&mut &content[..]), &options).unwrap();
        }
    }
    for round in 0..3 {
        let client = store.client();
        for (path, content) in &files {
            let mut read = Vec::new();
            let file = client.get(&path.parse().unwrap(), Condition::Any);
            file.unwrap().copy_to(0..u64::MAX, &mut read).unwrap();
            assert!(read == *content, "{path}, round {round}");
        }
        drop(client);
        match round {
            // One is gone: the others have it all.
            0 => drop(dstores.pop()),
            _ => {
                dstores.drain(..).for_each(|dstore| dstore.stop().unwrap());
                store.stop();
                store.start();
                dstores = start_all(&store);
            }
        }
    }
}
