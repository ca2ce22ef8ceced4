//! A Controller, a client, and Dstores that do what a test tells them to.
#![allow(dead_code, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use depot::checksum::Checksum;
use depot::client::{Cluster, ClusterOptions, SEARCH};
use depot::controller::{BACKUP_PERIOD, Beginning, Handle, HealingOptions, Options};
use depot::identity::{ClusterId, DiskId, DstoreId, Epoch, History, Key, Position, Version};
use depot::log::{ReplicaOptions, SyncMode};
use depot::namespace::change::{Replicas, Settings};
use depot::pack::Announced;
use depot::wire::message::{
    Answer, CopyChange, CopyReport, Failure, Grants, Load, ObjectAnswer, ObjectRequest, Order, Report, Request,
};
use depot::wire::{Access, Address, ClientId, Connection, Role, Secret, accept, connect};
use kit::TempFolder;
use parking_lot::{Condvar, Mutex};
use stevedore::server::{Server, ThreadGroup};
use stevedore::socket::Wait;

pub const CLUSTER: ClusterId = ClusterId(0xc1);
pub const SOON: Duration = Duration::from_secs(20);
pub const BLOCK: usize = 64 << 10;

/// One Controller on a folder of its own.
pub struct Store {
    pub folder: TempFolder,
    pub secret: Secret,
    pub address: Address,
    pub settings: Settings,
    pub sync: SyncMode,
    pub settling: Duration,
    pub backup_period: Duration,
    pub healing: HealingOptions,
    controller: Option<Handle>,
}

impl Store {
    pub fn new(replicas: u8) -> Self {
        Self::that_waits_for_dstores(replicas, Duration::from_secs(10))
    }

    /// One that has requests wait so long after its start for Dstores that are not there.
    pub fn that_waits_for_dstores(replicas: u8, settling: Duration) -> Self {
        let settings = Settings { replicas: Replicas::Number(replicas), ..Settings::default() };
        let secret = Secret::draw().unwrap();
        let address = "127.0.0.1:1".parse().unwrap();
        let folder = TempFolder::new();
        let (sync, backup_period) = (SyncMode::Never, BACKUP_PERIOD);
        let healing = HealingOptions::default();
        let mut store =
            Self { folder, secret, address, settings, sync, settling, backup_period, healing, controller: None };
        store.start();
        store
    }

    /// One that heals as it is told, and waits for no Dstore.
    pub fn that_heals(replicas: u8, healing: HealingOptions) -> Self {
        let mut store = Self::that_waits_for_dstores(replicas, Duration::ZERO);
        store.stop();
        store.healing = healing;
        store.start();
        store
    }

    /// Starts the Controller, on a port that is free.
    pub fn start(&mut self) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        self.address = listener.local_addr().unwrap().into();
        let mut replica = ReplicaOptions { sync: self.sync, ..ReplicaOptions::default() };
        replica.log.ballast_bytes = 0;
        let options = Options {
            data: self.folder.path().join("log"),
            cluster: CLUSTER,
            name: "test".into(),
            settings: self.settings.clone(),
            secret: self.secret.clone(),
            listener,
            address: self.address.clone(),
            replica,
            settling: self.settling,
            backup_period: self.backup_period,
            beginning: Beginning::alone(),
            healing: self.healing,
        };
        self.controller = Some(Handle::start(options).unwrap());
    }

    pub fn stop(&mut self) {
        self.controller.take().unwrap().stop().unwrap();
    }

    pub fn controller(&self) -> &Handle {
        self.controller.as_ref().unwrap()
    }

    pub fn client(&self) -> Cluster {
        let client = ClientId(7);
        let key = self.secret.client_key(client);
        Cluster::new(ClusterOptions {
            controllers: vec![self.address.clone()],
            cluster: CLUSTER,
            client,
            key,
            search: SEARCH,
        })
    }

    /// A connection of a client, to say lines by hand.
    pub fn dial(&self) -> Connection {
        let access = Access::Client { id: ClientId(7), key: self.secret.client_key(ClientId(7)) };
        connect(&self.address, &access, CLUSTER, Role::Controller, SOON, |_| ()).unwrap()
    }
}

/// How a Dstore behaves.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    /// It answers puts with this.
    pub refuses: Option<Failure>,
    /// It says that it has no room.
    pub is_full: bool,
    /// It closes each new connection at once.
    pub is_closed: bool,
    /// It closes the connection when a put comes.
    pub hangs_up: bool,
    /// It answers a put only once this is taken away.
    pub is_stuck: bool,
    /// It sends these blocks with a flipped bit.
    pub flips: BTreeSet<u64>,
    /// It finds these blocks damaged itself.
    pub finds_damaged: BTreeSet<u64>,
    /// It gives nothing that is asked for until this is taken away.
    pub withholds: bool,
    /// It closes the connection after so many blocks of a get.
    pub gives_up_after: Option<u64>,
}

/// A Dstore in memory.
pub struct ScriptedDstore {
    pub disk: DiskId,
    pub address: Address,
    shared: Arc<Shared>,
    server: Option<Server>,
    threads: Arc<ThreadGroup>,
}

struct Shared {
    secret: Secret,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    behaviour: Behaviour,
    objects: BTreeMap<Key, Vec<u8>>,
    position: Position,
    unreported: Vec<CopyChange>,
    number: Option<DstoreId>,
    epoch: Option<Epoch>,
    /// How many bytes were sent to clients.
    sent: u64,
    /// How many requests to put objects there were.
    puts: u64,
    /// How many gets wait, as it withholds what they ask for.
    withheld: usize,
    verify: Vec<Key>,
    /// What it was told to copy: it never does.
    copies: Vec<Key>,
    backups: Vec<Vec<u8>>,
    link: Option<Arc<std::net::TcpStream>>,
    is_stopped: bool,
}

impl ScriptedDstore {
    pub fn new(store: &Store, disk: u128) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().into();
        let state = State {
            behaviour: Behaviour::default(),
            objects: BTreeMap::new(),
            position: Position { start: 1, number: 0 },
            unreported: Vec::new(),
            number: None,
            epoch: None,
            sent: 0,
            puts: 0,
            withheld: 0,
            verify: Vec::new(),
            copies: Vec::new(),
            backups: Vec::new(),
            link: None,
            is_stopped: false,
        };
        let shared =
            Arc::new(Shared { secret: store.secret.clone(), state: Mutex::new(state), changed: Condvar::new() });
        let threads = ThreadGroup::new("scripted-dstore");
        let serving = Arc::clone(&shared);
        let server = Server::start(listener, &threads, None, move |stream| serving.serve(stream)).unwrap();
        let dstore = Self { disk: DiskId(disk), address, shared, server: Some(server), threads };
        dstore.join(store);
        dstore
    }

    /// Connects to the Controller, and waits until it is admitted.
    pub fn join(&self, store: &Store) {
        self.wait(|state| state.link.is_none()); // one to a Controller that was stopped takes a moment to end
        let (shared, disk) = (Arc::clone(&self.shared), self.disk);
        let (controller, address) = (store.address.clone(), self.address.clone());
        // Refused while the Controller has not noticed yet that the last connection ended.
        let join = move || {
            let is_over = || shared.state.lock().is_stopped;
            while !shared.follow(&controller, disk, &address) && !is_over() {
                thread::sleep(Duration::from_millis(10));
            }
        };
        self.threads.spawn(join).unwrap();
        self.wait(|state| state.number.is_some() && state.link.is_some());
    }

    /// Connects to the Controller and returns when the connection ends.
    pub fn try_join(&self, store: &Store) {
        self.shared.follow(&store.address, self.disk, &self.address);
    }

    pub fn number(&self) -> DstoreId {
        self.shared.state.lock().number.unwrap()
    }

    pub fn behave(&self, behaviour: Behaviour) {
        self.shared.state.lock().behaviour = behaviour;
        self.shared.changed.notify_all();
    }

    pub fn objects(&self) -> BTreeMap<Key, Vec<u8>> {
        self.shared.state.lock().objects.clone()
    }

    /// What it was given to keep, the oldest first.
    pub fn backups(&self) -> Vec<Vec<u8>> {
        self.shared.state.lock().backups.clone()
    }

    /// How many requests to put objects there were.
    pub fn puts(&self) -> u64 {
        self.shared.state.lock().puts
    }

    pub fn bytes_sent(&self) -> u64 {
        self.shared.state.lock().sent
    }

    /// Waits until it is asked for something that it withholds.
    pub fn await_withheld(&self) {
        self.wait(|state| state.withheld > 0);
    }

    pub fn is_asked_to_verify(&self, key: Key) -> bool {
        self.shared.state.lock().verify.contains(&key)
    }

    pub fn copies_ordered(&self) -> Vec<Key> {
        self.shared.state.lock().copies.clone()
    }

    /// Has it find an object on its disk, as one that was left there: its next inventory has it.
    pub fn find(&self, key: Key, content: &[u8]) {
        self.shared.state.lock().objects.insert(key, content.to_vec());
    }

    pub fn lose_everything(&self) {
        let mut state = self.shared.state.lock();
        state.objects.clear();
        state.unreported.clear();
    }

    /// Closes the link, and waits until it is gone.
    pub fn cut_link(&self) {
        if let Some(link) = &self.shared.state.lock().link {
            let _ = link.shutdown(std::net::Shutdown::Both);
        }
        self.wait(|state| state.link.is_none());
    }

    fn wait(&self, is_so: impl Fn(&State) -> bool) {
        let deadline = Instant::now() + SOON;
        let mut state = self.shared.state.lock();
        while !is_so(&state) {
            assert!(
                !self.shared.changed.wait_until(&mut state, deadline).timed_out(),
                "the Dstore does not come so far"
            );
        }
    }
}

impl Drop for ScriptedDstore {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.is_stopped = true;
        if let Some(link) = &state.link {
            let _ = link.shutdown(std::net::Shutdown::Both);
        }
        drop(state);
        self.shared.changed.notify_all();
        self.server = None;
        self.threads.stop();
    }
}

impl Shared {
    fn serve(&self, stream: Arc<std::net::TcpStream>) {
        let Ok(mut connection) = Connection::new(stream) else { return };
        if self.state.lock().behaviour.is_closed
            || accept(&mut connection, Role::Dstore, CLUSTER, &self.secret).is_err()
        {
            return;
        }
        while let Ok(request) = connection.receive(Wait::Forever) {
            let goes_on = match request {
                ObjectRequest::Put { key, length, checksum } => {
                    self.put(&mut connection, &[Announced { key, length, checksum }])
                }
                ObjectRequest::PutMany { objects } => self.put(&mut connection, &objects),
                ObjectRequest::Get { key, from, length } => self.get(&connection, key, from, length),
                ObjectRequest::Backup { length, .. } => {
                    let mut bytes = vec![0; length as usize];
                    let is_read = connection.content(length, SOON).read_exact(&mut bytes).is_ok();
                    self.state.lock().backups.push(bytes);
                    is_read && connection.send(&ObjectAnswer::Kept).is_ok()
                }
                ObjectRequest::Check { keys, .. } => {
                    let copies = keys.iter().map(|_| None).collect();
                    connection.send(&ObjectAnswer::Checked { copies }).is_ok()
                }
                ObjectRequest::Locate { keys } => {
                    let places = keys.iter().map(|_| Some(("memory".to_owned(), 5))).collect();
                    connection.send(&ObjectAnswer::Located { places }).is_ok()
                }
            };
            if !goes_on {
                return;
            }
        }
    }

    fn put(&self, connection: &mut Connection, announced: &[Announced]) -> bool {
        if self.state.lock().behaviour.hangs_up {
            return false;
        }
        let mut contents = Vec::new();
        for Announced { length, .. } in announced {
            let mut bytes = vec![0; *length as usize];
            if connection.content(*length, SOON).read_exact(&mut bytes).is_err() {
                return false;
            }
            contents.push(bytes);
        }
        let mut state = self.state.lock();
        state.puts += 1;
        while state.behaviour.is_stuck && !state.is_stopped {
            self.changed.wait(&mut state);
        }
        if let Some(failure) = state.behaviour.refuses.clone() {
            drop(state);
            return connection.send(&ObjectAnswer::Error { failure }).is_ok();
        }
        if announced.iter().zip(&contents).any(|(announced, bytes)| Checksum::of(bytes) != announced.checksum) {
            drop(state);
            return connection.send(&ObjectAnswer::Error { failure: Failure::Mismatch }).is_ok();
        }
        for (Announced { key, length, checksum }, bytes) in announced.iter().copied().zip(contents) {
            state.objects.insert(key, bytes);
            state.position.number += 1;
            let copy = CopyReport { key, length, checksum, is_damaged: false };
            state.unreported.push(CopyChange::Stored { copy });
        }
        let position = state.position;
        drop(state);
        self.changed.notify_all();
        connection.send(&ObjectAnswer::Stored { position }).is_ok()
    }

    fn get(&self, connection: &Connection, key: Key, from: u64, length: u64) -> bool {
        let (bytes, behaviour) = {
            let mut state = self.state.lock();
            state.withheld += 1;
            self.changed.notify_all();
            self.changed.wait_while(&mut state, |state| state.behaviour.withholds && !state.is_stopped);
            state.withheld -= 1;
            (state.objects.get(&key).cloned(), state.behaviour.clone())
        };
        let Some(bytes) = bytes else {
            return connection.send(&ObjectAnswer::Error { failure: Failure::NotHere }).is_ok();
        };
        let sums = bytes.chunks(BLOCK).map(Checksum::of).collect();
        if connection.send(&ObjectAnswer::Object { length: bytes.len() as u64, sums }).is_err() {
            return false;
        }
        let wanted = &bytes[from as usize..(from + length) as usize];
        for (at, block) in (from / BLOCK as u64..).zip(wanted.chunks(BLOCK)) {
            if behaviour.gives_up_after.is_some_and(|blocks| at >= from / BLOCK as u64 + blocks) {
                return false;
            }
            if behaviour.finds_damaged.contains(&at) {
                let failure = Failure::Damaged { what: format!("block {at}") };
                return connection.send(&ObjectAnswer::Error { failure }).is_ok();
            }
            let mut block = block.to_vec();
            if behaviour.flips.contains(&at) {
                block[0] ^= 1;
            }
            let data = ObjectAnswer::Data { length: block.len() as u64 };
            self.state.lock().sent += block.len() as u64;
            if connection.send_with_content(&data, &block).is_err() {
                return false;
            }
        }
        true
    }

    /// The link to the Controller: one thread reads orders, this one reports. False if it was not admitted.
    fn follow(self: &Arc<Self>, controller: &Address, disk: DiskId, address: &Address) -> bool {
        let access = Access::Server { role: Role::Dstore, secret: self.secret.clone() };
        let Ok(mut connection) = connect(controller, &access, CLUSTER, Role::Controller, SOON, |_| ()) else {
            return false;
        };
        let (number, epoch, start) = {
            let state = self.state.lock();
            (state.number, state.epoch, state.position.start)
        };
        let join = Report::Join {
            disk,
            format: 1,
            number,
            start,
            epoch,
            address: address.clone(),
            host: format!("host-{disk}"),
            zone: String::new(),
            sync: SyncMode::Never,
        };
        connection.send(&join).unwrap();
        let Ok(Order::Admitted { number }) = connection.receive(Wait::deadline(SOON)) else { return false };
        let (epoch, known) = loop {
            match connection.receive(Wait::deadline(SOON)) {
                Ok(Order::Leads { epoch, known, .. }) => break (epoch, known),
                Ok(Order::Controllers { .. }) => {}
                _ => return false,
            }
        };
        if self.state.lock().epoch.is_some_and(|followed| !known.contains(&followed)) {
            let _ = connection.send(&Report::Refuse { epoch, why: "its disk is an old copy".into() });
            return false;
        }
        let sender = connection.sender();
        let mut state = self.state.lock();
        (state.number, state.epoch) = (Some(number), Some(epoch));
        state.unreported.clear();
        sender.send(&Report::Fenced { epoch, position: state.position }).unwrap();
        let copies: Vec<CopyReport> = state
            .objects
            .iter()
            .map(|(key, bytes)| CopyReport {
                key: *key,
                length: bytes.len() as u64,
                checksum: Checksum::of(bytes),
                is_damaged: false,
            })
            .collect();
        sender.send(&Report::Inventory { copies }).unwrap();
        sender.send(&Report::InventoryEnd { position: state.position }).unwrap();
        let stream = Arc::clone(connection.stream());
        state.link = Some(Arc::clone(&stream));
        drop(state);
        self.changed.notify_all();
        let reader = {
            let shared = Arc::clone(self);
            thread::spawn(move || {
                while let Ok(order) = connection.receive(Wait::Forever) {
                    let mut state = shared.state.lock();
                    match order {
                        Order::Verify { keys, .. } => state.verify.extend(keys),
                        Order::Copy { copies, .. } => state.copies.extend(copies.iter().map(|copy| copy.key)),
                        Order::Remove { keys, .. } => {
                            for key in keys {
                                if state.objects.remove(&key).is_some() {
                                    state.position.number += 1;
                                    state.unreported.push(CopyChange::Removed { key });
                                }
                            }
                        }
                        _ => {}
                    }
                    drop(state);
                    shared.changed.notify_all();
                }
                shared.state.lock().link = None;
                shared.changed.notify_all();
            })
        };
        let mut last_beat: Option<Instant> = None;
        loop {
            let mut state = self.state.lock();
            // Another link may have been made since: what is unreported is for that one.
            let is_open = state.link.as_ref().is_some_and(|link| Arc::ptr_eq(link, &stream));
            if !is_open || state.is_stopped {
                break;
            }
            if state.unreported.is_empty() {
                self.changed.wait_until(&mut state, Instant::now() + Duration::from_millis(200));
            }
            let changes = std::mem::take(&mut state.unreported);
            let position = state.position;
            let is_full = state.behaviour.is_full;
            drop(state);
            if !changes.is_empty() && sender.send(&Report::Changes { position, changes }).is_err() {
                break;
            }
            if last_beat.is_none_or(|beat| beat.elapsed() > Duration::from_millis(500)) {
                last_beat = Some(Instant::now());
                let free_bytes = if is_full { 0 } else { 1 << 40 };
                let load = Load { free_bytes, total_bytes: 1 << 41, ..Load::default() };
                if sender.send(&Report::Heartbeat { load }).is_err() {
                    break;
                }
            }
        }
        sender.shut_down();
        reader.join().unwrap();
        true
    }
}

/// What a client does at a Controller that answers its changes like this; `None` is no answer, and the connection ends. All
/// answers are asked for.
pub fn at_a_controller_that_answers<T: Send>(answers: &[Option<Answer>], ask: impl FnOnce(&Cluster) -> T + Send) -> T {
    let (listener, secret) = (TcpListener::bind("127.0.0.1:0").unwrap(), Secret::draw().unwrap());
    let address = listener.local_addr().unwrap();
    let client = ClientId(7);
    let options = ClusterOptions {
        controllers: vec![address.into()],
        cluster: CLUSTER,
        client,
        key: secret.client_key(client),
        search: Duration::from_secs(1),
    };
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let controller = scope.spawn(|| {
            let mut answers = answers.iter();
            while answers.len() > 0 {
                let (stream, _) = listener.accept().unwrap();
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                let mut connection = Connection::new(Arc::new(stream)).unwrap();
                accept(&mut connection, Role::Controller, CLUSTER, &secret).unwrap();
                while let Ok(request) = connection.receive(Wait::deadline(SOON)) {
                    let answer = match request {
                        Request::Session => {
                            let born = Version { history: History(3), sequence: 1 };
                            Answer::Session { born, settings: Settings::default() }
                        }
                        Request::Places { .. } => Answer::Granted { grants: Grants::default() },
                        Request::Change { .. } | Request::ChangeMany { .. } => {
                            match answers.next().expect("no more attempts") {
                                Some(answer) => answer.clone(),
                                None => break,
                            }
                        }
                        _ => Answer::Error { failure: Failure::Unavailable { what: "all else".into() } },
                    };
                    connection.send(&answer).unwrap();
                }
            }
            assert_eq!(answers.len(), 0, "all answers are asked for");
        });
        let result = scope.spawn(|| ask(&Cluster::new(options))).join();
        // A client that panics leaves the Controller waiting for it.
        is_over.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(address));
        controller.join().unwrap();
        result.expect("an outcome")
    })
}
