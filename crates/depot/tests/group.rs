//! Several Controllers as one: they agree, take each other's place, come and go. (depot 4.5, 4.7, 4.8)

mod common;

use std::io::{Cursor, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use common::{CLUSTER, SOON};
use depot::checksum::Checksum;
use depot::client::{Cluster, ClusterOptions, ControllerRole, DstoreState, Files, PutOptions, Source, Status};
use depot::controller::{Beginning, Handle, HealingOptions, Options, SETTLING, who_is_at};
use depot::dstore;
use depot::identity::{ControllerId, DstoreId, Key, SessionId};
use depot::log::{ReplicaOptions, SyncMode};
use depot::namespace::change::{Command, Condition, Details, NewObject, NewObjects, Replicas, Settings, Stamp};
use depot::pack;
use depot::path::Path;
use depot::wire::message::{Answer, Failure, ObjectAnswer, ObjectRequest, Request};
use depot::wire::{Access, Address, ClientId, Connection, Role, Secret, connect};
use kit::{TempFolder, eventually};
use parking_lot::{Condvar, Mutex};
use stevedore::server::{Server, ThreadGroup};
use stevedore::socket::Wait;

/// A Controller: its folder, where it listens each time, and where others reach it.
struct Member {
    folder: PathBuf,
    listens: Address,
    address: Address,
    handle: Option<Handle>,
    gate: Option<Gate>,
}

struct Group {
    folder: TempFolder,
    secret: Secret,
    healing: HealingOptions,
    settling: Duration,
    has_gates: bool,
    members: Vec<Member>,
}

impl Group {
    /// So many Controllers. The first one creates the store, the others wait for it.
    fn new(count: usize) -> Self {
        Self::that_heals(count, HealingOptions::default())
    }

    fn that_heals(count: usize, healing: HealingOptions) -> Self {
        Self::with(count, healing, false)
    }

    /// What Dstores say to each of them can be held back.
    fn behind_gates(count: usize) -> Self {
        Self::with(count, HealingOptions::default(), true)
    }

    fn with(count: usize, healing: HealingOptions, has_gates: bool) -> Self {
        let (folder, secret) = (TempFolder::new(), Secret::draw().unwrap());
        let settling = if has_gates { Duration::ZERO } else { SETTLING };
        let mut group = Self { folder, secret, healing, settling, has_gates, members: Vec::new() };
        for _ in 1..count {
            group.join();
        }
        let others = group.members.iter().map(|member| (member.id(), member.address.clone())).collect();
        group.begin(Beginning::Create { others });
        group.members.rotate_right(1);
        eventually("all vote", || {
            let status = group.status();
            let votes = |role| matches!(role, ControllerRole::Leader | ControllerRole::Follower);
            status.controllers.iter().filter(|controller| votes(controller.role)).count() == count
        });
        group
    }

    /// One more, with an empty folder.
    fn join(&mut self) {
        self.begin(Beginning::Join);
    }

    fn begin(&mut self, beginning: Beginning) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let listens: Address = listener.local_addr().unwrap().into();
        let gate = self.has_gates.then(|| Gate::before(listens.clone()));
        let address = gate.as_ref().map_or(&listens, |gate| &gate.address).clone();
        let folder = self.folder.path().join(format!("{}", self.members.len()));
        let handle = Some(self.open(&folder, listener, &address, beginning));
        self.members.push(Member { folder, listens, address, handle, gate });
    }

    fn open(&self, folder: &std::path::Path, listener: TcpListener, address: &Address, beginning: Beginning) -> Handle {
        let mut replica = ReplicaOptions { sync: SyncMode::Never, ..ReplicaOptions::default() };
        replica.log.ballast_bytes = 0;
        Handle::start(Options {
            data: folder.to_owned(),
            cluster: CLUSTER,
            name: "test".into(),
            settings: Settings { replicas: Replicas::Number(2), ..Settings::default() },
            secret: self.secret.clone(),
            address: address.clone(),
            listener,
            replica,
            settling: self.settling,
            backup_period: Duration::from_secs(3600),
            healing: self.healing,
            beginning,
        })
        .unwrap()
    }

    /// Starts one again, where it was.
    fn restart(&mut self, at: usize) {
        let Member { folder, listens, address, .. } = &self.members[at];
        let listener = TcpListener::bind(listens.to_string()).unwrap();
        self.members[at].handle = Some(self.open(folder, listener, address, Beginning::Join));
    }

    fn addresses(&self) -> Vec<Address> {
        self.members.iter().map(|member| member.address.clone()).collect()
    }

    /// A client that knows these Controllers.
    fn client_of(&self, controllers: Vec<Address>) -> Cluster {
        Cluster::new(ClusterOptions {
            controllers,
            cluster: CLUSTER,
            client: ClientId(7),
            key: self.secret.client_key(ClientId(7)),
            search: SOON,
        })
    }

    fn client(&self) -> Cluster {
        self.client_of(self.addresses())
    }

    /// As the leader sees it.
    fn status(&self) -> Status {
        let of_leader = |address: Address| {
            let Ok(Answer::Status { status }) = self.try_ask(&address, &Request::Status) else { return None };
            let ours = |c: &&depot::client::ControllerStatus| c.address == address.to_string();
            status.controllers.iter().find(ours).filter(|c| c.role == ControllerRole::Leader)?;
            Some(*status)
        };
        let mut found = None;
        kit::eventually("a Controller leads", || {
            found = self.addresses().into_iter().find_map(of_leader);
            found.is_some()
        });
        found.expect("it was waited for")
    }

    /// What is wrong with the Controllers.
    fn troubles(&self) -> Vec<String> {
        self.status().problems.into_iter().filter(|problem| problem.contains("Controller")).collect()
    }

    /// Which of the members leads.
    fn leader(&self) -> usize {
        let status = self.status();
        let leader = status.controllers.iter().find(|c| c.role == ControllerRole::Leader).unwrap();
        self.members.iter().position(|member| member.address.to_string() == leader.address).unwrap()
    }

    fn ask(&self, address: &Address, request: &Request) -> Answer {
        self.try_ask(address, request).unwrap()
    }

    fn try_ask(&self, address: &Address, request: &Request) -> Result<Answer, String> {
        let access = Access::Client { id: ClientId(9), key: self.secret.client_key(ClientId(9)) };
        let connection = connect(address, &access, CLUSTER, Role::Controller, SOON, |_| ());
        let mut connection: Connection = connection.map_err(|error| error.to_string())?;
        connection.send(request).map_err(|error| error.to_string())?;
        connection.receive(Wait::deadline(SOON)).map_err(|error| error.to_string())
    }
}

impl Member {
    fn id(&self) -> ControllerId {
        self.handle.as_ref().unwrap().id().unwrap()
    }

    fn stop(&mut self) {
        self.handle.take().unwrap().stop().unwrap();
    }

    fn hold_dstores(&self, hold: bool) {
        self.gate.as_ref().unwrap().state.set(|held| held.all = hold);
    }

    /// As if the Dstore with this disk was stopped, or none; and no other, whatever it is told.
    fn hold_dstore(&self, disk: Option<String>) {
        self.gate.as_ref().unwrap().state.set(|held| (held.disk, held.order) = (disk, None));
    }

    /// As if the first Dstore that is told this was stopped just before.
    fn hold_the_one_told(&self, order: &'static str) {
        self.gate.as_ref().unwrap().state.set(|held| held.order = Some(order));
    }

    /// The disk of the Dstore that is held back.
    fn holds_dstore(&self) -> Option<String> {
        self.gate.as_ref().unwrap().state.held.lock().disk.clone()
    }
}

/// What stands before a Controller, and can hold back what Dstores say to it, or all that one of them says and is told. All else
/// passes.
struct Gate {
    address: Address,
    state: Arc<GateState>,
    server: Option<Server>,
    threads: Arc<ThreadGroup>,
}

#[derive(Default)]
struct GateState {
    held: Mutex<Held>,
    changed: Condvar,
}

#[derive(Default)]
struct Held {
    /// What any Dstore says.
    all: bool,
    /// What the Dstore with this disk says, and what it is told.
    disk: Option<String>,
    /// The first Dstore that is told this is held from then on.
    order: Option<&'static str>,
}

impl Gate {
    fn before(controller: Address) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, threads) = (listener.local_addr().unwrap().into(), ThreadGroup::new("gate"));
        let state = Arc::new(GateState::default());
        let passing = Arc::clone(&state);
        let pass = move |near: Arc<TcpStream>| passing.pass(&near, &controller);
        let server = Some(Server::start(listener, &threads, None, pass).unwrap());
        Self { address, state, server, threads }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.state.set(|held| *held = Held::default());
        self.server = None;
        self.threads.stop();
    }
}

impl GateState {
    fn set(&self, change: impl FnOnce(&mut Held)) {
        change(&mut self.held.lock());
        self.changed.notify_all();
    }

    fn pass(&self, near: &TcpStream, controller: &Address) {
        let Ok(far) = TcpStream::connect(controller.to_string()) else { return };
        // Which Dstore it is, once that has said so.
        let (is_dstore, disk) = (AtomicBool::new(false), Mutex::new(None));
        let is_of = |held: &Held| held.disk.is_some() && *disk.lock() == held.disk;
        thread::scope(|scope| {
            scope.spawn(|| {
                self.pass_on(&far, near, |held, text| {
                    let disk = disk.lock();
                    if disk.is_some() && held.order.take_if(|order| text.contains(*order)).is_some() {
                        held.disk.clone_from(&disk);
                    }
                    drop(disk);
                    is_of(held)
                });
            });
            self.pass_on(near, &far, |held, text| {
                // The first line says the role, and a Dstore's first report its disk.
                if text.starts_with("DEPOT ") && text.split(' ').nth(3) == Some("dstore") {
                    is_dstore.store(true, Ordering::Relaxed);
                }
                if is_dstore.load(Ordering::Relaxed)
                    && let Some((_, join)) = text.split_once("JOIN ")
                {
                    *disk.lock() = join.split(' ').next().map(str::to_owned);
                }
                is_dstore.load(Ordering::Relaxed) && held.all || is_of(held)
            });
        });
    }

    /// Passes bytes on in one direction until the end. `is_held` is asked about each piece, again whenever that may have changed.
    fn pass_on(&self, mut from: &TcpStream, mut to: &TcpStream, is_held: impl Fn(&mut Held, &str) -> bool) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..count]);
            self.changed.wait_while(&mut self.held.lock(), |held| is_held(held, &text));
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
}

fn path(text: &str) -> Path {
    text.parse().unwrap()
}

fn make(client: &Cluster, at: &str) {
    client.make_directory(&path(at), false, &Details::default(), None).unwrap();
}

#[test]
fn another_controller_takes_the_place_of_a_leader_that_stops() {
    let mut group = Group::new(3);
    let client = group.client();
    make(&client, "/before");
    for round in 0..3 {
        let leader = group.leader();
        group.members[leader].stop();
        make(&client, &format!("/without-{round}"));
        assert!(client.stat(&path("/before")).is_ok());
        group.restart(leader);
        eventually("it has caught up", || group.troubles().is_empty());
    }
    // Each of them has all of it.
    for address in group.addresses() {
        for name in ["/before", "/without-0", "/without-1", "/without-2"] {
            assert!(matches!(group.ask(&address, &Request::Stat { path: path(name) }), Answer::Stat { .. }), "{name}");
        }
    }
    // They know it of each other, and the leader has seen them come and go.
    eventually("all are equal", || {
        let status = group.status();
        status.controllers.iter().all(|one| one.agreed == Some(status.version.sequence))
    });
    let status = group.status();
    let leader = status.controllers.iter().find(|one| one.role == ControllerRole::Leader).unwrap();
    let last = status.elections.last().unwrap();
    assert_eq!((last.leader, last.term), (leader.id, leader.epoch.term));
    assert!(last.gap.is_some_and(|gap| gap < SOON), "it knew the one before: {last:?}");
    assert!(status.elections.is_sorted_by_key(|election| election.term), "{:?}", status.elections);
}

#[test]
fn a_minority_changes_nothing_and_answers_no_read() {
    // depot 4.5
    let mut group = Group::new(3);
    make(&group.client(), "/before");
    let (left, born) = (group.leader(), group.status().version);
    let others = [(left + 1) % 3, (left + 2) % 3];
    others.iter().for_each(|other| group.members[*other].stop());
    // It led, and may not know yet that it is alone. Another leader may have removed what a put must not find.
    let address = group.members[left].address.clone();
    let (condition, parents) = (Condition::Absent, false);
    let places = Request::Places { path: path("/before"), condition, parents, replicas: None, objects: 1 };
    let answer = group.ask(&address, &places);
    assert!(matches!(answer, Answer::Error { failure: Failure::NotLeader { .. } }), "{answer:?}");
    for number in 1..=3 {
        let stamp = Stamp { session: SessionId(1), born, number, done_below: number };
        let (path, details) = (path("/alone"), Details::default());
        let command = Command::MakeDirectory { path: path.clone(), parents: false, details, modified_ms: None };
        let change = Request::Change { stamp, more: 0, command: Box::new(command) };
        let Answer::Error { failure } = group.ask(&address, &change) else { panic!("it changes something alone") };
        assert!(matches!(failure, Failure::NotLeader { .. } | Failure::OutcomeUnknown { .. }), "{failure}");
        let answer = group.ask(&address, &Request::Stat { path });
        assert!(matches!(answer, Answer::Error { failure: Failure::NotLeader { .. } }), "{answer:?}");
    }
    others.iter().for_each(|other| group.restart(*other));
    make(&group.client(), "/after");
    assert!(group.client().stat(&path("/before")).is_ok());
}

#[test]
fn a_follower_reads_what_was_just_written_and_names_the_leader() {
    let group = Group::new(3);
    let client = group.client();
    let leader = group.leader();
    let follower = &group.members[(leader + 1) % 3].address;
    for number in 0..50 {
        make(&client, &format!("/{number}"));
        let stat = Request::Stat { path: path(&format!("/{number}")) };
        assert!(matches!(group.ask(follower, &stat), Answer::Stat { .. }));
    }
    let places =
        Request::Places { path: path("/x"), condition: Condition::Any, parents: false, replicas: None, objects: 1 };
    let Answer::Error { failure: Failure::NotLeader { leader: named } } = group.ask(follower, &places) else {
        panic!("a follower grants keys")
    };
    assert_eq!(named.as_ref(), Some(&group.members[leader].address));
    let Answer::Controllers { leader: named, controllers } = group.ask(follower, &Request::Controllers) else {
        panic!("it does not say where the Controllers are")
    };
    assert_eq!(named, Some(group.members[leader].id()));
    let mut known: Vec<Address> = controllers.into_iter().map(|(_, address)| address).collect();
    let mut all = group.addresses();
    known.sort();
    all.sort();
    assert_eq!(known, all);
}

#[test]
fn a_group_grows_from_one_to_three_and_shrinks_again() {
    let mut group = Group::new(1);
    let client = group.client();
    make(&client, "/one");
    for _ in 0..2 {
        group.join();
        let address = group.members.last().unwrap().address.clone();
        let leader = group.leader();
        let add = Request::AddController { address };
        assert_eq!(group.ask(&group.members[leader].address, &add), Answer::Ok);
        make(&client, &format!("/{}", group.members.len()));
    }
    assert_eq!(group.status().controllers.len(), 3);
    // The leader is among those that go.
    for _ in 0..2 {
        let leader = group.leader();
        let (id, address) = (group.members[leader].id(), group.members[leader].address.clone());
        let others: Vec<Address> = group.addresses().into_iter().filter(|other| *other != address).collect();
        let remove = Request::RemoveController { controller: id };
        let answer = group.ask(&address, &remove);
        assert!(matches!(answer, Answer::Error { failure: Failure::NotLeader { .. } }), "it hands over: {answer:?}");
        eventually("the next leader removes it", || {
            others.iter().any(|address| group.ask(address, &remove) == Answer::Ok)
        });
        let client = group.client_of(others);
        make(&client, &format!("/without-{id}"));
        let mut gone = group.members.remove(leader);
        eventually("it knows that it was removed", || gone.handle.as_ref().unwrap().failure().is_some());
        // A client that asks it first, as one in two of these does, is answered by another one.
        for _ in 0..10 {
            let known = vec![address.clone(), group.members[0].address.clone()];
            group.client_of(known).stat(&path("/one")).unwrap();
        }
        gone.stop();
    }
    assert_eq!(group.status().controllers.len(), 1);
    let last = &group.members[0];
    let remove = Request::RemoveController { controller: last.id() };
    assert!(matches!(group.ask(&last.address, &remove), Answer::Error { .. }), "there must be one");
    for name in ["/one", "/2", "/3"] {
        assert!(group.client().stat(&path(name)).is_ok(), "{name}");
    }
}

#[test]
fn a_controller_that_was_away_follows_a_leader_that_it_does_not_know() {
    // depot 4.7: it was added meanwhile, and leads. If it was refused, two of three would have no majority.
    let mut group = Group::new(3);
    let client = group.client();
    let leader = group.leader();
    let [away, other] = [(leader + 1) % 3, (leader + 2) % 3];
    group.members[away].stop();
    make(&client, "/meanwhile");
    group.join();
    let add = Request::AddController { address: group.members[3].address.clone() };
    assert_eq!(group.ask(&group.members[leader].address, &add), Answer::Ok);
    let to = Some(group.members[3].id());
    assert_eq!(group.ask(&group.members[leader].address, &Request::HandOver { to }), Answer::Ok);
    eventually("the new one leads", || group.leader() == 3);
    let remove = Request::RemoveController { controller: group.members[leader].id() };
    assert_eq!(group.ask(&group.members[3].address, &remove), Answer::Ok);
    // Now there are three again, and the one that returns knows one of the two others only.
    group.members[other].stop();
    group.restart(away);
    make(&client, "/again");
    assert_eq!(group.leader(), 3);
    eventually("it has all", || {
        matches!(
            group.try_ask(&group.members[away].address, &Request::Stat { path: path("/again") }),
            Ok(Answer::Stat { .. })
        )
    });
}

#[test]
fn a_controller_without_its_disk_is_refused_and_told_what_to_do() {
    let mut group = Group::new(3);
    let client = group.client();
    let lost = (group.leader() + 1) % 3;
    let old = group.members[lost].id();
    group.members[lost].stop();
    std::fs::remove_dir_all(&group.members[lost].folder).unwrap();
    group.restart(lost);
    let address = group.members[lost].address.clone();
    let new = who_is_at(&address, CLUSTER, &group.secret).unwrap();
    assert!(new.waits && new.id != old, "{new:?}");
    // Clients that ask it are sent to a member that it knows, as those of one process are told of each other.
    let member = &group.members[(lost + 1) % 3];
    group.members[lost].handle.as_ref().unwrap().introduce(member.id(), member.address.clone());
    let answer = group.ask(&address, &Request::Status);
    let named = Answer::Error { failure: Failure::NotLeader { leader: Some(member.address.clone()) } };
    assert_eq!(answer, named);
    eventually("the leader says what to do", || {
        let says = |problem: &String| problem.contains(&format!("stevedore controllers replace {old}"));
        group.status().problems.iter().any(says)
    });
    let leader = group.members[group.leader()].address.clone();
    let add = Request::AddController { address };
    let Answer::Error { failure } = group.ask(&leader, &add) else { panic!("it is added beside itself") };
    assert!(failure.to_string().contains(&format!("controllers replace {old}")), "{failure}");
    assert_eq!(group.ask(&leader, &Request::RemoveController { controller: old }), Answer::Ok);
    assert_eq!(group.ask(&leader, &add), Answer::Ok);
    make(&client, "/after");
    assert_eq!(group.troubles(), Vec::<String>::new());
}

#[test]
fn a_controller_that_moves_is_found_again() {
    let mut group = Group::new(3);
    let client = group.client();
    let moved = (group.leader() + 1) % 3;
    group.members[moved].stop();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    group.members[moved].address = listener.local_addr().unwrap().into();
    let Member { folder, address, .. } = &group.members[moved];
    group.members[moved].handle = Some(group.open(folder, listener, address, Beginning::Join));
    let address = group.members[moved].address.to_string();
    eventually("it is entered there", || {
        let status = group.status();
        group.troubles().is_empty() && status.controllers.iter().any(|controller| controller.address == address)
    });
    make(&client, "/after");
}

fn dstore(group: &Group, folder: &TempFolder) -> dstore::Handle {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let options = dstore::Options {
        data: folder.path().to_owned(),
        cluster: CLUSTER,
        secret: group.secret.clone(),
        address: listener.local_addr().unwrap().into(),
        listener,
        controllers: group.addresses(),
        host: "host".into(),
        zone: String::new(),
        disk: pack::Options { sync: SyncMode::Never, ..pack::Options::default() },
        scrub_period: dstore::SCRUB_PERIOD,
        gives_up_after: dstore::GIVES_UP_AFTER,
        copy_rate: dstore::COPY_RATE,
    };
    dstore::Handle::start(options).unwrap()
}

/// Until so many Dstores are there.
fn wait_for_dstores(group: &Group, count: usize) {
    let is_there = |status: &Status| status.dstores.iter().all(|dstore| dstore.state == DstoreState::Present);
    eventually("all Dstores are there", || {
        let status = group.status();
        status.dstores.len() == count && is_there(&status)
    });
}

fn put(client: &Cluster, at: &str, content: &[u8]) {
    client.put(&path(at), Source::Once(&mut Cursor::new(content)), &PutOptions::default()).unwrap();
}

fn get(client: &Cluster, at: &str) -> Vec<u8> {
    let mut file = client.get(&path(at), Condition::Any).unwrap();
    let (size, mut all) = (file.size(), Vec::new());
    file.copy_to(0..size, &mut all).unwrap();
    all
}

#[test]
fn dstores_obey_the_new_leader_over_the_links_they_have() {
    let mut group = Group::new(3);
    let folders = [TempFolder::new(), TempFolder::new()];
    let dstores = folders.each_ref().map(|folder| dstore(&group, folder));
    let client = group.client();
    wait_for_dstores(&group, 2);
    for round in 0..3 {
        let at = format!("/{round}");
        put(&client, &at, format!("content of {round}").as_bytes());
        let leader = group.leader();
        let answer = group.ask(&group.members[leader].address.clone(), &Request::HandOver { to: None });
        assert_eq!(answer, Answer::Ok);
        assert_ne!(group.leader(), leader);
        for earlier in 0..=round {
            assert_eq!(get(&client, &format!("/{earlier}")), format!("content of {earlier}").as_bytes());
        }
    }
    let leader = group.leader();
    group.members[leader].stop();
    put(&client, "/last", b"last");
    assert_eq!(get(&client, "/last"), b"last");
    drop(dstores);
}

#[test]
fn a_follower_offers_copies_that_it_has_not_heard_of() {
    // depot 4.6: Dstores' reports are delayed. It knows the copies from the change that commits the file.
    let mut group = Group::behind_gates(3);
    let folders = [TempFolder::new(), TempFolder::new()];
    let _dstores = folders.each_ref().map(|folder| dstore(&group, folder));
    let leader = group.leader();
    let follower = (leader + 1) % 3;
    let (address, client) = (group.members[follower].address.clone(), group.client());
    let holders = |at: &str| match group.ask(&address, &Request::Open { path: path(at), condition: Condition::Any }) {
        Answer::File { objects, .. } => objects[0].holders.len(),
        other => panic!("{other:?}"),
    };
    wait_for_dstores(&group, 2);
    put(&client, "/before", b"/before");
    eventually("both report to it", || holders("/before") == 2);
    group.members[follower].hold_dstores(true);
    for number in 0..10 {
        let at = format!("/{number}");
        put(&client, &at, at.as_bytes());
        assert_eq!(holders(&at), 2, "{at}");
        assert_eq!(get(&group.client_of(vec![address.clone()]), &at), at.as_bytes());
    }
    // One that no Dstore has reached yet knows of no copy: its clients ask the leader.
    group.members[follower].stop();
    group.restart(follower);
    eventually("it has caught up", || group.troubles().is_empty());
    for number in 0..10 {
        let at = format!("/{number}");
        assert_eq!(get(&group.client_of(vec![address.clone()]), &at), at.as_bytes());
    }
    group.members[follower].hold_dstores(false);
}

/// Has the leader hand over; the next one.
fn hand_over(group: &Group) -> usize {
    let leader = group.leader();
    assert_eq!(group.ask(&group.members[leader].address, &Request::HandOver { to: None }), Answer::Ok);
    group.leader()
}

/// A leader collects so long after it has begun to lead.
fn collects_after(margin: Duration) -> HealingOptions {
    let (after_put, keep_removed) = (Duration::ZERO, Duration::ZERO);
    HealingOptions { after_put, margin, keep_removed, ..HealingOptions::default() }
}

/// Stores an object under a key that the leader grants, and commits nothing.
fn store_object(group: &Group, at: &str, content: &[u8]) -> NewObjects {
    let leader = group.members[group.leader()].address.clone();
    let places =
        Request::Places { path: path(at), condition: Condition::Any, parents: false, replicas: None, objects: 1 };
    let Answer::Granted { grants } = group.ask(&leader, &places) else { panic!("no grants") };
    let (number, checksum, length) = (grants.objects[0].number, Checksum::of(content), content.len() as u64);
    let key = Key { history: grants.history, term: grants.term, number };
    let mut object = NewObject { term: grants.term, number, length, checksum, holders: Vec::new() };
    for place in &grants.objects[0].places {
        let (_, address) = grants.addresses.iter().find(|(id, _)| id == place).unwrap();
        let access = Access::Client { id: ClientId(9), key: group.secret.client_key(ClientId(9)) };
        let mut dstore = connect(address, &access, CLUSTER, Role::Dstore, SOON, |_| ()).unwrap();
        dstore.send_with_content(&ObjectRequest::Put { key, length, checksum }, content).unwrap();
        match dstore.receive(Wait::deadline(SOON)).unwrap() {
            ObjectAnswer::Stored { position } => object.holders.push((*place, position)),
            other => panic!("{other:?}"),
        }
    }
    NewObjects { history: grants.history, objects: vec![object] }
}

#[test]
fn a_commit_after_a_hand_over_is_kept_or_refused() {
    // depot 5.3: the next leader has collected the object before, or leases its key again.
    for margin in [Duration::ZERO, Duration::from_secs(600)] {
        let group = Group::that_heals(3, collects_after(margin));
        let folders = [TempFolder::new(), TempFolder::new()];
        let _dstores = folders.each_ref().map(|folder| dstore(&group, folder));
        wait_for_dstores(&group, 2);
        let objects = store_object(&group, "/late", b"late");
        let (key, checksum) = (objects.key(&objects.objects[0]), objects.objects[0].checksum);
        let next = group.members[hand_over(&group)].address.clone();
        let kept = || -> u64 { group.status().dstores.iter().map(|dstore| dstore.objects).sum() };
        let renewed = group.ask(&next, &Request::Renew { keys: vec![key] });
        if margin.is_zero() {
            assert_eq!(renewed, Answer::Error { failure: Failure::NoLease });
            eventually("its object is collected", || kept() == 0);
        } else {
            assert_eq!(renewed, Answer::Ok);
        }
        let Answer::Session { born, .. } = group.ask(&next, &Request::Session) else { panic!("no session") };
        let stamp = Stamp { session: SessionId(1), born, number: 1, done_below: 1 };
        let (condition, parents, modified_ms, details) = (Condition::Any, false, None, Details::default());
        let command = Command::Put { path: path("/late"), condition, parents, objects, checksum, modified_ms, details };
        let done = group.ask(&next, &Request::Change { stamp, more: 0, command: Box::new(command) });
        if margin.is_zero() {
            assert_eq!(done, Answer::Error { failure: Failure::NoLease });
        } else {
            assert!(matches!(done, Answer::Done { .. }), "{done:?}");
            assert_eq!(get(&group.client(), "/late"), b"late");
        }
    }
}

#[test]
fn files_that_are_put_while_leaders_change_keep_their_objects() {
    // depot 5.3: each leader collects at once what no file names and no lease of its own covers.
    let group = Group::that_heals(3, collects_after(Duration::ZERO));
    let folders = [TempFolder::new(), TempFolder::new()];
    let _dstores = folders.each_ref().map(|folder| dstore(&group, folder));
    let client = group.client();
    wait_for_dstores(&group, 2);
    let count = AtomicUsize::new(0);
    let acknowledged = thread::scope(|scope| {
        let putting = scope.spawn(|| {
            let mut acknowledged = Vec::new();
            for at in (0..5000).map(|number| format!("/{number}")) {
                let source = Source::Once(&mut Cursor::new(at.as_bytes()));
                // A put may be refused, as its objects may have been collected; never half a file.
                match client.put(&path(&at), source, &PutOptions::default()) {
                    Ok(_) => acknowledged.push(at),
                    Err(error) => assert!(client.stat(&path(&at)).is_err(), "{at}: {error}"),
                }
                count.store(acknowledged.len(), Ordering::Relaxed);
                if acknowledged.len() == 50 {
                    break;
                }
            }
            acknowledged
        });
        while !putting.is_finished() {
            let before = count.load(Ordering::Relaxed);
            hand_over(&group);
            kit::eventually("puts go on", || count.load(Ordering::Relaxed) >= before + 5 || putting.is_finished());
        }
        putting.join().unwrap()
    });
    assert_eq!(acknowledged.len(), 50);
    let kept = || -> u64 { group.status().dstores.iter().map(|dstore| dstore.objects).sum() };
    eventually("all others are collected", || kept() == 2 * acknowledged.len() as u64);
    for at in &acknowledged {
        assert_eq!(get(&client, at), at.as_bytes());
    }
}

#[test]
fn a_dstore_that_is_stopped_across_two_leaders_lets_no_copy_go() {
    // depot 5.4: it was told to remove its copy. Later leaders cannot know whether it has, and remove no other one.
    let at_once = HealingOptions { grace: Duration::ZERO, after_put: Duration::ZERO, ..HealingOptions::default() };
    let group = Group::with(3, at_once, true);
    let folders = [(); 3].map(|()| TempFolder::new());
    let client = group.client();
    let dstores = [0, 1, 2].map(|at| {
        let dstore = dstore(&group, &folders[at]);
        eventually("it is there", || group.status().dstores.len() == at + 1); // they are numbered in this order
        dstore
    });
    wait_for_dstores(&group, dstores.len());
    let set_replicas = |count| {
        let replicas = Replicas::Number(count);
        client.set(&Settings { replicas, ..client.settings().unwrap() }).unwrap();
    };
    let holders = |at: &str| -> Vec<u32> {
        let copies = client.copies(&path(at)).unwrap().remove(0).copies;
        copies.iter().filter(|copy| copy.is_present && copy.is_certain).map(|copy| copy.dstore.0).collect()
    };
    set_replicas(3);
    put(&client, "/a", b"a");
    eventually("it is at all of them", || holders("/a") == [1, 2, 3]);
    // Each of them has one that is at no other.
    let details = Details { replicas: Some(Replicas::Number(1)), ..Details::default() };
    let options = PutOptions { details, ..PutOptions::default() };
    let mut others: [Option<String>; 3] = Default::default();
    for at in (0..).map(|number| format!("/{number}")) {
        client.put(&path(&at), Source::Once(&mut Cursor::new(b"other")), &options).unwrap();
        eventually("it is certain", || holders(&at).len() == 1);
        let holder = holders(&at)[0] as usize;
        others[holder - 1] = Some(at);
        if others.iter().all(Option::is_some) {
            break;
        }
    }
    group.members.iter().for_each(|member| member.hold_the_one_told("REMOVE "));
    set_replicas(2);
    let mut disk = None;
    eventually("one is told to remove its copy", || {
        disk = group.members.iter().find_map(Member::holds_dstore);
        disk.is_some()
    });
    group.members.iter().for_each(|member| member.hold_dstore(disk.clone()));
    let numbered = dstores.iter().position(|dstore| Some(dstore.identity().disk.to_string()) == disk).unwrap();
    let stopped = numbered as u32 + 1;
    for _ in 0..2 {
        hand_over(&group);
    }
    // One of the two others is to be emptied. Once the stopped one counts as away, that is done as far as it can be without it.
    let [emptied, left] = [1, 2, 3].into_iter().filter(|id| *id != stopped).collect::<Vec<u32>>()[..] else { panic!() };
    client.drain(DstoreId(emptied), true).unwrap();
    let other = others[emptied as usize - 1].take().unwrap();
    eventually("what is left can take goes there", || holders(&other) == [left]);
    let both = holders("/a");
    assert!(both.contains(&emptied) && both.contains(&left), "{both:?}");
    group.members.iter().for_each(|member| member.hold_dstore(None));
    let mut staying = [left, stopped];
    staying.sort_unstable();
    eventually("it is at the two others", || holders("/a") == staying);
    assert_eq!(get(&client, "/a"), b"a");
}

#[test]
fn a_leader_whose_majority_came_from_an_old_copy_stops() {
    // depot 2.2: of three, one was behind, and another's disk is an old copy. Together they know nothing of the last change.
    let mut group = Group::behind_gates(3);
    let folder = TempFolder::new();
    let dstore = dstore(&group, &folder);
    let client = group.client();
    make(&client, "/kept");
    let leader = group.leader();
    let [old, behind] = [(leader + 1) % 3, (leader + 2) % 3];
    group.members[old].stop();
    let copy = group.folder.path().join("copy");
    copy_folder(&group.members[old].folder, &copy);
    group.restart(old);
    eventually("it has caught up", || group.troubles().is_empty());
    group.members[behind].stop();
    make(&client, "/lost");
    let lost = client.stat(&path("/lost")).unwrap().version.sequence;
    eventually("the Dstore has heard of it", || dstore.identity().sequence >= lost);
    [leader, old].iter().for_each(|at| group.members[*at].stop());
    std::fs::remove_dir_all(&group.members[old].folder).unwrap();
    std::fs::rename(&copy, &group.members[old].folder).unwrap();
    // Until a Dstore is heard, neither answers: not the leader, and not its follower.
    group.settling = Duration::from_secs(3600);
    [old, behind].iter().for_each(|at| group.members[*at].hold_dstores(true));
    group.restart(old);
    group.restart(behind);
    let [old_address, behind_address] = [old, behind].map(|at| group.members[at].address.clone());
    let leads = |address| {
        let Answer::Controllers { leader, .. } = group.ask(address, &Request::Controllers) else { panic!("no answer") };
        leader
    };
    let mut leading = None;
    eventually("one of them leads", || {
        leading = leads(&old_address).filter(|leader| leads(&behind_address) == Some(*leader));
        leading.is_some()
    });
    let follower = if leading == Some(group.members[old].id()) { &behind_address } else { &old_address };
    let answer = group.ask(follower, &Request::Stat { path: path("/lost") });
    assert!(matches!(answer, Answer::Error { failure: Failure::NotLeader { .. } }), "{answer:?}");
    [old, behind].iter().for_each(|at| group.members[*at].hold_dstores(false));
    eventually("one of them leads, is refused, and stops", || {
        [old, behind].into_iter().any(|at| {
            let failure = group.members[at].handle.as_ref().unwrap().failure();
            failure.is_some_and(|why| why.contains("old copy"))
        })
    });
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
