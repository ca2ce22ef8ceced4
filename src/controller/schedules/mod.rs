//! No thread waits for ever, whatever comes first: the Controller's own code under thousands of schedules.
//!
//! Built with the feature `shuttle` only; README says how to run it. Everything of the Controller but its sockets is here as it
//! is in the program: gate, state, index, requests, joins, departures, coordinator, shutdown. What a socket would carry,
//! a test's Dstores and clients hand over themselves, by the same calls as the threads that read from sockets. A thread that
//! waits when all others wait or have ended is a deadlock, which shuttle reports with the schedule that led there.

mod primitives;
mod rebalances;
mod requests;
mod shutdown;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config as Shuttle, MaxSteps, Runner};

use super::Config;
use super::gate::Request;
use super::link::{DstoreLink, Outbox};
use super::shared::{Controller, Running};
use crate::index::DstoreId;
use crate::protocol::connection::{CLIENT_LINE_LIMIT, LineLimit};
use crate::protocol::{Address, FileName, Message, Order};
use crate::sync::thread;

/// A timeout that never comes: a thread that is not woken waits for ever, and is found.
const NEVER: Duration = Duration::MAX;

/// A timeout that comes at any moment.
const ANY_TIME: Duration = Duration::from_secs(1);

/// How many schedules of each kind a test tries, unless the environment says `SCHEDULES`.
const SCHEDULES: usize = 1_000;

/// Where the random schedules begin, unless the environment says `SHUTTLE_RANDOM_SEED`.
const SEED: u64 = 4;

/// Of all tests of this run.
static TRIED: AtomicUsize = AtomicUsize::new(0);

/// Plays `scenario` under random schedules of two kinds: each thread is as likely as any other to take the next step; or
/// one goes on as long as it can, and is interrupted at few points (PCT), which leaves others behind much farther.
fn explore(scenario: impl Fn() + Send + Sync + 'static) {
    let schedules = number("SCHEDULES").map_or(SCHEDULES, |schedules| schedules as usize);
    let seed = number("SHUTTLE_RANDOM_SEED").unwrap_or(SEED);
    let scenario = Arc::new(scenario);
    run(&format!("random, seed {seed}"), RandomScheduler::new_from_seed(seed, schedules), &scenario);
    run(&format!("PCT, seed {seed}"), PctScheduler::new_from_seed(seed, 3, schedules), &scenario);
}

/// Plays `scenario` under every schedule there is.
fn exhaust(scenario: impl Fn() + Send + Sync + 'static) {
    run("all there are", DfsScheduler::new(None, false), &Arc::new(scenario));
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

fn run(kind: &str, scheduler: impl Scheduler + 'static, scenario: &Arc<impl Fn() + Send + Sync + 'static>) {
    let mut config = Shuttle::new();
    config.stack_size = 256 << 10;
    config.max_steps = MaxSteps::FailAfter(100_000); // far more than any needs that ends at all
    let scenario = Arc::clone(scenario);
    let begun = std::time::Instant::now();
    let tried = Runner::new(scheduler, config).run(move || scenario());
    let (took, total) = (begun.elapsed().as_secs_f32(), TRIED.fetch_add(tried, Ordering::Relaxed) + tried);
    println!("{tried} schedules ({kind}) in {took:.1} s; {total} so far");
}

/// A Controller, and the peers that are connected to it.
struct Stage {
    running: Running,
    cast: Cast,
    dstores: Vec<thread::JoinHandle<()>>,
    clients: Vec<thread::JoinHandle<()>>,
}

/// What all on the stage know.
#[derive(Clone)]
struct Cast {
    controller: Arc<Controller>,
    /// What each Dstore has on its disk.
    folders: Arc<Mutex<BTreeMap<Address, BTreeSet<FileName>>>>,
    /// What each connection's other end reads. Closing it cuts the connection.
    wires: Arc<Mutex<Vec<Arc<Outbox>>>>,
}

/// How a Dstore behaves.
#[derive(Clone, Copy)]
enum Manner {
    /// It does everything it is told.
    Diligent,
    /// It reads everything and says nothing.
    Mute,
    /// It does the first so many things it is told, and leaves at the next.
    QuitsAfter(usize),
}

impl Stage {
    /// With the coordinator at work.
    fn new(replicas: usize, timeout: Duration) -> Self {
        Self::started(Config { timeout, ..Config::new(replicas) })
    }

    fn started(config: Config) -> Self {
        Self::with(Running::start(config).unwrap())
    }

    /// Without rebalances.
    fn at_rest(replicas: usize, timeout: Duration) -> Self {
        let (controller, _, stop) = Controller::new(Config { timeout, ..Config::new(replicas) });
        Self::with(Running { controller, coordinator: None, stop: Some(stop) })
    }

    fn with(running: Running) -> Self {
        let controller = Arc::clone(&running.controller);
        let cast = Cast { controller, folders: Arc::default(), wires: Arc::default() };
        Self { running, cast, dstores: Vec::new(), clients: Vec::new() }
    }

    /// A Dstore that has joined already.
    fn dstore(&mut self, port: u16, manner: Manner) {
        let dstore = TestDstore::new(&self.cast, port, manner);
        let id = dstore.join().expect("the Controller runs");
        self.dstores.push(thread::spawn(move || dstore.serve(id)));
    }

    /// A Dstore that joins at some time.
    fn late_dstore(&mut self, port: u16, manner: Manner) {
        let dstore = TestDstore::new(&self.cast, port, manner);
        self.dstores.push(thread::spawn(move || {
            if let Some(id) = dstore.join() {
                dstore.serve(id);
            }
        }));
    }

    /// A client that does this.
    fn client(&mut self, act: impl FnOnce(&Cast) + Send + 'static) {
        let cast = self.cast.clone();
        self.clients.push(thread::spawn(move || act(&cast)));
    }

    /// Waits for every client to end, and for the cluster to settle; then nothing must be left over.
    fn end(mut self) {
        self.join_clients();
        if self.running.coordinator.is_some() {
            self.cast.settle(0);
        }
        // Even if another rebalance runs, the gate opens again.
        drop(self.cast.controller.gate.enter(Request::Change, || ()).expect("the Controller runs"));
        self.stop();
    }

    /// Ends the Controller as its handle does; then all threads must end, and nothing be left over.
    fn stop(mut self) {
        drop(self.running);
        // Whatever the Dstores do: no request needs them to end.
        for client in self.clients.drain(..) {
            client.join().unwrap();
        }
        // Here the group of threads would shut the sockets down.
        let wires = std::mem::take(&mut *self.cast.wires.lock().unwrap());
        wires.iter().for_each(|wire| wire.close());
        for dstore in self.dstores.drain(..) {
            dstore.join().unwrap();
        }
        self.cast.assert_no_thread_waits();
        assert!(self.cast.controller.links.all().is_empty());
        assert!(self.cast.controller.gate.is_left());
    }

    fn join_clients(&mut self) {
        for client in self.clients.drain(..) {
            client.join().unwrap();
        }
        self.cast.assert_no_thread_waits();
    }
}

impl Cast {
    /// STORE, with the content sent to every Dstore that is named.
    fn store(&self, file: &str) -> io::Result<Option<Message>> {
        self.controller.store(&name(file), 1, |dstores| {
            for address in dstores {
                self.tell(&address, Message::Store { name: name(file), size: 1 });
            }
            Ok(())
        })
    }

    fn remove(&self, file: &str) -> Option<Message> {
        self.controller.remove(&name(file)).expect("the Controller runs")
    }

    fn list(&self) -> Vec<String> {
        let line = self.controller.list().expect("the Controller runs");
        match Message::parse(&line.to_string()).expect("a message") {
            Message::List { names } => names.iter().map(|name| name.to_string()).collect(),
            other => panic!("{other}"),
        }
    }

    /// Between operations: no thread waits for one, and what is kept twice agrees.
    fn assert_no_thread_waits(&self) {
        let state = self.controller.state.lock();
        assert!(!state.is_any_thread_waiting());
        state.index.assert_consistent();
        let members = state.index.members().into_iter().map(|member| member.dstore);
        assert!(members.eq(self.controller.links.all().into_iter().map(|(dstore, _)| dstore)));
    }

    /// Waits until at least so many Dstores have joined, and a rebalance has seen them.
    fn settle(&self, dstores: usize) {
        let mut state = self.controller.state.lock();
        while state.index.members().len() < dstores || state.is_unsettled {
            self.controller.changed.wait(&mut state);
        }
    }

    /// What a client or another Dstore would say to a Dstore.
    fn tell(&self, address: &Address, message: Message) {
        let member = self.controller.state.lock().index.member_at(address);
        if let Some(dstore) = member {
            self.controller.links.send(dstore, message);
        }
    }

    fn holders(&self, file: &str) -> Vec<Address> {
        let folders = self.folders.lock().unwrap();
        folders.iter().filter(|(_, files)| files.contains(file)).map(|(address, _)| address.clone()).collect()
    }
}

/// A Dstore as the Controller knows it: the connection's two threads and what is behind them are one here.
struct TestDstore {
    cast: Cast,
    address: Address,
    manner: Manner,
    link: Arc<DstoreLink>,
    wire: Arc<Outbox>,
}

impl TestDstore {
    fn new(cast: &Cast, port: u16, manner: Manner) -> Self {
        let wire = Arc::new(Outbox::new());
        cast.wires.lock().unwrap().push(Arc::clone(&wire));
        let hang_up = {
            let wire = Arc::clone(&wire);
            move |_: &str| wire.close()
        };
        let link = DstoreLink::new(&wire, hang_up, LineLimit::new(CLIENT_LINE_LIMIT));
        Self { cast: cast.clone(), address: Address::local(port).unwrap(), manner, link: Arc::new(link), wire }
    }

    /// `None` if it is refused, or the Controller stops.
    fn join(&self) -> Option<DstoreId> {
        let (dstore, _pass) = self.cast.controller.admit(&self.address, &self.link).ok()?;
        self.cast.folders.lock().unwrap().insert(self.address.clone(), BTreeSet::new());
        Some(dstore)
    }

    /// Until its connection ends, or it leaves.
    fn serve(self, dstore: DstoreId) {
        let mut done = 0;
        while let Some(message) = self.wire.next() {
            match self.manner {
                Manner::Mute => continue,
                Manner::QuitsAfter(most) if done == most => break,
                Manner::QuitsAfter(_) | Manner::Diligent => done += 1,
            }
            let answer = self.obey(message);
            assert!(self.cast.controller.hear(dstore, &self.link, answer, None), "the answer was not asked for");
        }
        self.cast.controller.leave(dstore, &self.link);
    }

    fn obey(&self, message: Message) -> Message {
        let mut folders = self.cast.folders.lock().unwrap();
        let own = folders.get_mut(&self.address).expect("joined");
        match message {
            Message::Store { name, .. } => {
                own.insert(name.clone());
                Message::StoreAck { name }
            }
            Message::Remove { name } if own.remove(&name) => Message::RemoveAck { name },
            Message::Remove { name } => Message::FileDoesNotExist { name: Some(name) },
            Message::List { .. } => Message::List { names: own.iter().cloned().collect() },
            Message::Rebalance { order: Order { sends, removes } } => {
                for name in removes {
                    own.remove(&name);
                }
                for transfer in sends {
                    for address in transfer.to {
                        folders.entry(address).or_default().insert(transfer.name.clone());
                    }
                }
                Message::RebalanceComplete
            }
            other => panic!("a Dstore is told {other}"),
        }
    }
}

fn name(text: &str) -> FileName {
    text.parse().unwrap()
}
