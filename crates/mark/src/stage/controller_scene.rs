//! A Controller under test among scripted Dstores and clients.
//!
//! A scripted Dstore holds no content. It knows which files it would have, answers LIST, REMOVE and REBALANCE
//! by itself as its habits are, and says STORE_ACK when the check wants it to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use stevedore::protocol::{FileName, Message, Order, Transfer};

use super::client::{self, Client, NotServed, OF_A_CONTROLLER};
use super::failure::{Failure, Verdict, claim, given};
use super::recorder::Recorder;
use super::wire::{Heard, Sender, Wire, begins};
use super::{REACTION, SETTLING, Setup, Stage, dstore_name, task, wait_until, wait_until_calm};

/// How a scripted Dstore behaves. The default is the spec's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Habits {
    /// What it does when it gets LIST.
    pub list: OnList,
    /// What it does when it gets REMOVE.
    pub remove: OnRemove,
    /// What it does when it gets REBALANCE.
    pub rebalance: OnRebalance,
}

/// What a scripted Dstore does when it gets LIST.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnList {
    /// Lists what it has.
    #[default]
    Truth,
    /// Lists nothing, ever, or until the check does.
    Silence,
}

/// What a scripted Dstore does when it gets REMOVE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRemove {
    /// Acknowledges, or says that it has no such file.
    #[default]
    Answer,
    /// Says nothing, ever, or until the check does.
    Silence,
}

/// What a scripted Dstore does when it gets REBALANCE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRebalance {
    /// Does what it is told, and reports.
    #[default]
    CarryOut,
    /// Does nothing and says nothing.
    Silence,
    /// Sends what it is told to, and then hangs: removes nothing and says nothing.
    HalfWay,
}

/// What all scripted Dstores of a scene know.
#[derive(Default)]
struct World {
    /// Of those that have not left.
    files: BTreeMap<u16, BTreeSet<String>>,
    /// All that ever joined.
    joined: BTreeSet<u16>,
    /// What the Controller has done that it may not.
    complaints: Vec<String>,
    /// Orders in the sequence in which they were received.
    orders: Vec<(u16, Order)>,
}

/// A scripted Dstore that has joined.
pub struct FakeDstore {
    /// Where it listens.
    pub port: u16,
    shared: Arc<Shared>,
    sender: Sender,
    patience: Duration,
    /// Keeps the port; no connection is expected.
    listener: TcpListener,
}

struct Shared {
    name: String,
    port: u16,
    habits: Mutex<Habits>,
    heard: Mutex<Vec<String>>,
    news: Condvar,
    world: Arc<Mutex<World>>,
    recorder: Recorder,
}

/// So many lines from the Controller are remembered for each Dstore.
const KEPT_LINES: usize = 20_000;

impl FakeDstore {
    /// Changes what it does from now on.
    pub fn behave(&self, habits: Habits) {
        *self.shared.habits.lock() = habits;
    }

    /// Says a line to the Controller, as soon as a Dstore may.
    pub fn send(&self, line: &str) {
        thread::sleep(REACTION);
        self.sender.send(line);
    }

    /// Has a file from now on, and says so. (spec 4.2)
    pub fn acknowledge_store(&self, name: &str) {
        self.gets(name);
        self.send(&format!("STORE_ACK {name}"));
    }

    /// Has a file from now on.
    pub fn gets(&self, name: &str) {
        self.shared.world.lock().files.entry(self.port).or_default().insert(name.into());
    }

    /// Loses a file.
    pub fn loses(&self, name: &str) {
        self.shared.world.lock().files.entry(self.port).or_default().remove(name);
    }

    /// The files that it has.
    pub fn files(&self) -> BTreeSet<String> {
        self.shared.world.lock().files.get(&self.port).cloned().unwrap_or_default()
    }

    /// Says LIST and what it has.
    pub fn list(&self) {
        self.sender.send(&listing(&self.files()));
    }

    /// Drops dead: its connection closes, its files are gone.
    pub fn leave(&self) {
        self.sender.close();
        self.shared.world.lock().files.remove(&self.port);
    }

    /// How many lines it has heard so far: a point to wait from.
    pub fn now(&self) -> usize {
        self.shared.heard.lock().len()
    }

    /// What it has heard since.
    pub fn heard_since(&self, start: usize) -> Vec<String> {
        self.shared.heard.lock()[start..].to_vec()
    }

    /// Waits until it hears a line that begins like this, or has since `start`.
    pub fn wait_for(&self, beginning: &str, start: usize) -> Result<String, Failure> {
        let awaited = format!("{beginning} to a Dstore");
        let wait = |most| self.wait_within(beginning, start, most);
        if let Some(line) = self.shared.recorder.wait_for(&awaited, self.patience, wait) {
            return Ok(line);
        }
        self.shared.recorder.missing("controller", &self.shared.name, &format!("`{beginning}`: missing"));
        let heard = self.heard_since(start);
        let came = if heard.is_empty() { "nothing".into() } else { format!("`{}`", heard.join("`, `")) };
        let waited = self.patience.as_secs_f64();
        Err(Failure::new(format!("{} gets `{beginning}`", self.shared.name), format!("{came}, for {waited:.0} s"))
            .marked())
    }

    /// The same, without making much of it if nothing comes.
    pub fn wait_within(&self, beginning: &str, start: usize, patience: Duration) -> Option<String> {
        let deadline = Instant::now() + patience;
        let mut heard = self.shared.heard.lock();
        loop {
            let matches = |line: &&String| begins(line, beginning);
            if let Some(line) = heard.get(start..).unwrap_or_default().iter().find(matches) {
                return Some(line.clone());
            }
            if self.shared.news.wait_until(&mut heard, deadline).timed_out() {
                return None;
            }
        }
    }

    /// It must have heard no such line since `start`.
    pub fn expect_not_heard(&self, beginning: &str, start: usize, because: &str) -> Verdict {
        match self.wait_within(beginning, start, Duration::ZERO) {
            None => Ok(()),
            Some(line) => {
                self.shared.recorder.mark_wrong("controller", &self.shared.name);
                Err(Failure::new(format!("no `{beginning}` to {}: {because}", self.shared.name), format!("`{line}`"))
                    .marked())
            }
        }
    }
}

impl Shared {
    /// Reads what the Controller says until it closes.
    fn serve(&self, mut wire: Wire) {
        let sender = wire.sender();
        while let Heard::Line(line) = receive(&mut wire) {
            let habits = *self.habits.lock();
            // What it does comes before what others may conclude from its having heard.
            let answer = self.answer(&line, &habits);
            {
                let mut heard = self.heard.lock();
                if heard.len() < KEPT_LINES {
                    heard.push(line);
                }
                self.news.notify_all();
            }
            if let Some(answer) = answer {
                thread::sleep(REACTION);
                sender.send(&answer);
            }
        }
    }

    fn answer(&self, line: &str, habits: &Habits) -> Option<String> {
        let message = match Message::parse(line) {
            Ok(message) => message,
            Err(error) if begins(line, "REBALANCE") => {
                self.complain(&format!("`{line}`, which is malformed: {error}"));
                return None;
            }
            Err(_) => return None,
        };
        match message {
            Message::List { names } if names.is_empty() => match habits.list {
                OnList::Truth => Some(listing(self.world.lock().files.get(&self.port).unwrap_or(&BTreeSet::new()))),
                OnList::Silence => None,
            },
            Message::Remove { name } => {
                if habits.remove == OnRemove::Silence {
                    return None;
                }
                let had = self.world.lock().files.entry(self.port).or_default().remove(name.as_str());
                Some(if had { format!("REMOVE_ACK {name}") } else { format!("ERROR_FILE_DOES_NOT_EXIST {name}") })
            }
            Message::Rebalance { order } => {
                let mut world = self.world.lock();
                world.orders.push((self.port, order.clone()));
                if habits.rebalance == OnRebalance::Silence {
                    return None;
                }
                let is_half_way = habits.rebalance == OnRebalance::HalfWay;
                let removes = if is_half_way { &[] } else { order.removes.as_slice() };
                world.carry_out(self.port, &order.sends, removes);
                if is_half_way {
                    return None;
                }
                Some("REBALANCE_COMPLETE".into())
            }
            _ => None,
        }
    }

    fn complain(&self, what: &str) {
        self.recorder.mark_wrong("controller", &self.name);
        self.world.lock().complaints.push(format!("{} got {what}", self.name));
    }
}

fn receive(wire: &mut Wire) -> Heard {
    loop {
        match wire.receive(Duration::from_secs(3600)) {
            Heard::Nothing(_) => {}
            heard => return heard,
        }
    }
}

fn listing<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    names.into_iter().fold("LIST".into(), |line, name| line + " " + name)
}

impl World {
    fn carry_out(&mut self, port: u16, sends: &[Transfer], removes: &[FileName]) {
        for transfer in sends {
            let name = transfer.name.as_str();
            if !self.files.get(&port).is_some_and(|files| files.contains(name)) {
                self.complaints.push(format!("{} was told to send {name}, which it does not have", dstore_name(port)));
                continue;
            }
            for address in &transfer.to {
                let to = address.socket().port();
                match self.files.get_mut(&to) {
                    Some(_) if to == port => self.complaints.push(format!("{to} was told to send {name} to itself")),
                    Some(files) => _ = files.insert(name.into()),
                    None if self.joined.contains(&to) => {} // it has left, and the Controller may not know yet
                    None => self.complaints.push(format!("{port} was told to send {name} to {to}, which never joined")),
                }
            }
        }
        for name in removes {
            self.files.entry(port).or_default().remove(name.as_str());
        }
    }
}

/// A Controller under test, with scripted Dstores that have joined it.
pub struct ControllerScene {
    /// Where the Controller listens.
    pub port: u16,
    /// Those that have joined, in order, also those that have left.
    pub dstores: Vec<FakeDstore>,
    setup: Setup,
    world: Arc<Mutex<World>>,
    recorder: Recorder,
    patience: Duration,
    clients: AtomicUsize,
    /// The one that has seen that the Controller serves, until a check takes it.
    first_client: Mutex<Option<Client>>,
}

/// The check of whether the Controller goes on accepting connections.
const STAYS: &str = "controller/wire/clients-come-and-go";

impl Stage {
    /// Starts the Controller and lets the Dstores join.
    pub fn controller(&mut self, setup: Setup) -> Result<ControllerScene, Failure> {
        given(self.controller_as_it_comes(setup))
    }

    fn controller_as_it_comes(&mut self, setup: Setup) -> Result<ControllerScene, Failure> {
        let (_, port) = self.start_controller(setup)?;
        let mut scene = ControllerScene {
            port,
            dstores: Vec::new(),
            setup,
            world: Arc::default(),
            recorder: self.recorder.clone(),
            patience: self.patience,
            clients: AtomicUsize::new(0),
            first_client: Mutex::new(None),
        };
        for _ in 0..setup.dstores {
            scene.join()?;
        }
        scene.settle()?;
        Ok(scene)
    }
}

impl ControllerScene {
    /// One more client.
    pub fn client(&self) -> Result<Client, Failure> {
        if let Some(client) = self.first_client.lock().take() {
            return Ok(client);
        }
        let name = match self.clients.fetch_add(1, Ordering::Relaxed) {
            0 => "client".into(),
            number => format!("client {}", number + 1),
        };
        let client = Client::connect(&name, self.port, &self.recorder, self.patience, &OF_A_CONTROLLER);
        given(client.map_err(|failure| failure.judged_by(STAYS)))
    }

    /// A connection that has not said what it is.
    pub fn connect(&self, name: &str) -> Result<Wire, Failure> {
        given(Wire::connect(name, "controller", self.port, &self.recorder).map_err(|failure| failure.judged_by(STAYS)))
    }

    /// One more Dstore joins; does not wait for what comes of it.
    pub fn join(&mut self) -> Result<usize, Failure> {
        self.join_with(Habits::default(), &[])
    }

    /// One more Dstore joins, with habits and files.
    pub fn join_with(&mut self, habits: Habits, files: &[&str]) -> Result<usize, Failure> {
        let listener = super::ports::listen()?;
        self.join_at(listener, habits, files)
    }

    /// A Dstore that has left joins again, with the same port and nothing in its folder.
    pub fn come_back(&mut self, dstore: usize) -> Result<usize, Failure> {
        let listener = self.dstores[dstore].listener.try_clone().map_err(|error| Failure::new("its port", error))?;
        self.join_at(listener, Habits::default(), &[])
    }

    fn join_at(&mut self, listener: TcpListener, habits: Habits, files: &[&str]) -> Result<usize, Failure> {
        let port = listener.local_addr().map_or(0, |address| address.port());
        let name = dstore_name(port);
        let wire = self.connect(&name)?;
        let sender = wire.sender();
        {
            let mut world = self.world.lock();
            world.files.insert(port, files.iter().map(ToString::to_string).collect());
            world.joined.insert(port);
        }
        let shared = Arc::new(Shared {
            name,
            port,
            habits: Mutex::new(habits),
            heard: Mutex::default(),
            news: Condvar::new(),
            world: Arc::clone(&self.world),
            recorder: self.recorder.clone(),
        });
        sender.send(&format!("JOIN {port}"));
        thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.serve(wire)
        });
        self.dstores.push(FakeDstore { port, shared, sender, patience: self.patience, listener });
        Ok(self.dstores.len() - 1)
    }

    /// Waits until the joins have been taken note of: every member has been asked for its list, what they are told in these
    /// rebalances has ended, and a client is served. A Controller that does not rebalance when a Dstore joins gets a second and a half,
    /// as the official validation gives it one.
    pub fn settle(&self) -> Verdict {
        if self.dstores.len() < self.setup.replicas {
            return Ok(());
        }
        let deadline = Instant::now() + SETTLING;
        for dstore in &self.dstores {
            dstore.wait_within("LIST", 0, deadline.saturating_duration_since(Instant::now()));
        }
        wait_until_calm(|| self.dstores.iter().map(FakeDstore::now).sum());
        match self.wait_to_be_served() {
            Ok(client) => *self.first_client.lock() = Some(client),
            // A request that is not answered at all is for the checks of that request to find.
            Err(came) if came.is_silence => {}
            Err(came) => return Err(came.failure),
        }
        Ok(())
    }

    /// Waits until enough Dstores have joined, and returns the client that has seen it. Several rebalances may come first.
    pub fn wait_to_be_served(&self) -> Result<Client, NotServed> {
        let served = client::wait_to_be_served(|| self.client(), &self.recorder, self.patience * 2);
        served.map_err(|came| NotServed { failure: came.failure.judged_by(super::SERVES), ..came })
    }

    /// The Dstore that listens on a port, which must be one of ours.
    pub fn dstore(&self, port: u16) -> Result<&FakeDstore, Failure> {
        // The last one, if it has left and come back.
        let found = self.dstores.iter().rfind(|dstore| dstore.port == port);
        found.ok_or_else(|| {
            Failure::new("the port of a Dstore that has joined", port).judged_by(OF_A_CONTROLLER.store_to)
        })
    }

    /// Asks to store, is told members, and lets all of them acknowledge: the file is stored.
    pub fn store(&self, client: &mut Client, name: &str, size: usize) -> Result<Vec<u16>, Failure> {
        let ports = client.begin_store(name, size)?;
        self.acknowledge_all(&ports, name)?;
        client.expect_stored()?;
        Ok(ports)
    }

    /// The Dstores at these ports have the file from now on, and say so, one after another as a client sends it to them.
    pub fn acknowledge_all(&self, ports: &[u16], name: &str) -> Verdict {
        let dstores = ports.iter().map(|&port| self.dstore(port)).collect::<Result<Vec<_>, _>>()?;
        dstores.iter().for_each(|dstore| dstore.acknowledge_store(name));
        Ok(())
    }

    /// How often each file is there, on the Dstores that have not left.
    pub fn copies(&self) -> BTreeMap<String, usize> {
        let mut copies = BTreeMap::new();
        for name in self.world.lock().files.values().flatten() {
            *copies.entry(name.clone()).or_default() += 1;
        }
        copies
    }

    /// How many files each Dstore that has not left has.
    pub fn loads(&self) -> Vec<usize> {
        self.world.lock().files.values().map(BTreeSet::len).collect()
    }

    /// The REBALANCE orders received so far.
    pub fn orders(&self) -> Vec<(u16, Order)> {
        self.world.lock().orders.clone()
    }

    /// What the Controller has told Dstores must have been sensible.
    pub fn expect_no_complaints(&self) -> Verdict {
        match self.world.lock().complaints.first() {
            None => Ok(()),
            Some(complaint) => Err(Failure::new("Dstores are told only what they can do", complaint)),
        }
    }

    /// Waits until `files` are spread as the spec wants them: R copies of each, and each Dstore with between
    /// floor(RF/N) and ceil(RF/N). (spec 4.6.3)
    pub fn expect_spread(&self, files: usize, patience: Duration) -> Verdict {
        let replicas = self.setup.replicas;
        let spread = || {
            let (copies, loads) = (self.copies(), self.loads());
            let (sum, members) = (replicas * files, loads.len());
            let (floor, ceil) = (sum / members, sum.div_ceil(members));
            let is_even = loads.iter().all(|load| (floor..=ceil).contains(load));
            let is_replicated = copies.len() == files && copies.values().all(|&copies| copies == replicas);
            (is_even && is_replicated, copies, loads, floor, ceil)
        };
        let is_spread = || spread().0.then_some(());
        let (_, copies, loads, floor, _) = spread();
        let misses_copies = copies.values().any(|&copies| copies < replicas);
        let awaited = task(misses_copies, loads.iter().any(|&load| load < floor));
        // What is there at once was not waited for.
        let came =
            is_spread().or_else(|| self.recorder.wait_for(awaited, patience, |most| wait_until(most, is_spread)));
        if came.is_some() {
            return self.expect_no_complaints();
        }
        self.expect_no_complaints()?;
        let (_, copies, loads, floor, ceil) = spread();
        self.recorder.missing("controller", "controller", "REBALANCE has not brought the files where they belong");
        claim(
            false,
            format!("{replicas} copies of each of {files} files, and {floor} to {ceil} files on each Dstore"),
            format!("copies {:?}, files on the Dstores {loads:?}", copies.values().collect::<Vec<_>>()),
        )
    }
}
