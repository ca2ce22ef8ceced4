//! Tortures the depot: storms of faults, and after each a calm in which everything is looked at. (depot 1)
//!
//! Clients of the library put, replace, get, get ranges, move, copy, remove, list and compose on a few names, all at once.
//! Meanwhile Controller and Dstores are killed with -9, one by one or all together, and started again on their data; they are
//! stopped; their disks are full; connections are cut; bytes on the disk of one Dstore are changed. Controllers of three and more
//! are added, removed, and lose their disks. After each storm there has to be one order of all operations that explains every
//! answer, and every file has to be there with its bytes.
//!
//! | module | is |
//! |---|---|
//! | [`servers`] | the processes under torture, and the network between them |
//! | [`faults`] | what is done to them |
//! | [`operator`] | which Controllers there are, and how that changes |
//! | [`clients`] | what they are asked for |
//! | [`history`] | what the clients saw |
//! | [`checker`] | whether anything explains it |
//! | [`failover`] | how long a store is without service when its leader is killed |

mod checker;
mod clients;
pub mod failover;
mod faults;
mod history;
mod operator;
mod servers;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use depot::client::{ChangeEvent, Cluster, ControllerRole, ControllerStatus, DstoreState, Files, Status};
use depot::identity::Version;
use depot::namespace::change::Condition;
use depot::path::Path;
use kit::Rng;
use parking_lot::{Mutex, RwLock};
use stevedore::program::Failure;

use crate::proxy::Weather;
use crate::stop::{Stop, wrong};
use checker::Checker;
use clients::Stage;
use faults::Faults;
use history::{Content, Recorder, Sight, path_of};
use operator::Operator;
use servers::Servers;

pub use servers::play;

/// Longer than anything takes on a loaded machine. Only what fails waits for all of it.
const PATIENCE: Duration = Duration::from_secs(90);

/// How long clients look for a Controller: one that gives up early often does not know what became of its change.
const SEARCHES: [Duration; 3] = [Duration::from_secs(5), Duration::from_millis(200), Duration::from_secs(1)];

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides everything but the interleaving of threads and processes.
    pub seed: u64,
    /// How long faults happen; the last calm comes on top.
    pub duration: Duration,
    /// How many clients.
    pub clients: usize,
    /// How many names they share.
    pub names: usize,
    /// How many Controllers.
    pub controllers: usize,
    /// How many Dstores.
    pub dstores: usize,
    /// R.
    pub replicas: u8,
    /// Whether stored copies are damaged.
    pub flips_bits: bool,
    /// How long what can wait does.
    pub pace: Pace,
    /// Where everything is.
    pub folder: PathBuf,
}

/// How long a store waits before it heals and collects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As long as every store does unless told otherwise.
    Usual,
    /// So short that it happens in a storm.
    Quick,
    /// Not at all: every delay is 0 that only affects availability and space. (depot 1.7)
    Hasty,
}

/// What a run has come to.
#[derive(Default)]
pub struct Report {
    /// By kind and outcome.
    pub operations: BTreeMap<(&'static str, String), u64>,
    /// By kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Storms, each with its calm.
    pub storms: u64,
    /// Changes in the order of the store.
    pub changes: u64,
    /// Observations that were explained.
    pub checked: u64,
    /// Files read in full and compared, in the calms.
    pub files: u64,
    /// From the end of the faults to a store without a problem, at most.
    pub longest_healing: Duration,
    /// How long it took.
    pub took: Duration,
    /// What is wrong; `None` if nothing is.
    pub wrong: Option<String>,
}

/// Runs, tells `progress` after every storm, and reports.
pub fn run(plan: &Plan, mut progress: impl FnMut(&Report)) -> Result<Report, Failure> {
    let mut report = Report::default();
    let begun = Instant::now();
    let outcome = Run::start(plan).and_then(|mut run| {
        let outcome = run.storms(begun + plan.duration, &mut report, &mut progress);
        run.stage.is_over.store(true, Ordering::Relaxed);
        outcome
    });
    report.took = begun.elapsed();
    match outcome {
        Ok(()) => Ok(report),
        Err(Stop::Wrong(what)) => {
            report.wrong = Some(what);
            Ok(report)
        }
        Err(Stop::Failed(failure)) => Err(failure),
    }
}

struct Run<'a> {
    plan: &'a Plan,
    stage: Arc<Stage>,
    weather: Arc<Weather>,
    servers: Servers,
    faults: Faults,
    operator: Operator,
    checker: Checker,
    /// Looks at everything in the calm.
    inspector: Cluster,
    watch: Arc<Watch>,
}

/// What `watch` has told. It is followed all the time: a Controller that is sent a snapshot has no older changes any more, and in
/// a storm that may happen to one after the other.
struct Watch {
    told: Mutex<Told>,
}

/// See [`Watch`].
struct Told {
    /// Not checked yet.
    events: Vec<ChangeEvent>,
    cursor: Version,
    /// Why the last answer was none.
    failure: String,
}

impl Watch {
    /// Follows it from here on, until the run is over.
    fn start(store: Cluster, cursor: Version, stage: &Arc<Stage>) -> std::io::Result<Arc<Self>> {
        const ROUND: Duration = Duration::from_millis(500);
        let told = Told { events: Vec::new(), cursor, failure: String::new() };
        let watch = Arc::new(Self { told: Mutex::new(told) });
        let (following, stage) = (Arc::clone(&watch), Arc::clone(stage));
        let follow = move || {
            while !stage.is_over.load(Ordering::Relaxed) {
                let cursor = following.told.lock().cursor;
                let page = store.watch(Some(cursor), ROUND);
                let mut told = following.told.lock();
                match page {
                    Ok(page) => {
                        told.events.extend(page.events);
                        told.cursor = page.next;
                    }
                    // Those that have the changes may not be reached just now.
                    Err(error) => {
                        told.failure = error.to_string();
                        drop(told);
                        thread::sleep(ROUND / 10);
                    }
                }
            }
        };
        thread::Builder::new().name("watch".into()).spawn(follow)?;
        Ok(watch)
    }

    /// All that was told up to this change and not taken before.
    fn take_up_to(&self, version: Version) -> Result<Vec<ChangeEvent>, Stop> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut told = self.told.lock();
            if told.cursor.sequence >= version.sequence {
                return Ok(std::mem::take(&mut told.events));
            }
            if Instant::now() > deadline {
                let Told { cursor, failure, .. } = &*told;
                return wrong(format!(
                    "watch is at {cursor:?} in the calm, the store at {version:?}; it last failed: {failure}"
                ));
            }
            drop(told);
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl<'a> Run<'a> {
    /// Starts the store, and then the clients.
    fn start(plan: &'a Plan) -> Result<Self, Stop> {
        let weather = Weather::new(Rng::stream(plan.seed, 1));
        let mut servers = Servers::start(plan, &weather)?;
        let inspector = servers.client(SEARCHES[0]);
        let operator = Operator::new(servers.client(SEARCHES[0]));
        let status = wait_for(&inspector, |status| is_complete(status, plan))
            .map_err(|reason| Stop::Wrong(format!("the store does not start: {reason}")))?;
        let stage = Arc::new(Stage {
            recorder: Recorder::new(),
            names: plan.names,
            history: status.version.history,
            turn: RwLock::new(()),
            is_over: AtomicBool::new(false),
        });
        let first = servers.last_client() + 1;
        for number in 0..plan.clients {
            let client = servers.client(SEARCHES[number % SEARCHES.len()]);
            clients::start(&stage, number, client, Rng::stream(plan.seed, 10 + number as u64))?;
        }
        let clients = first..=servers.last_client();
        let faults = Faults::new(Rng::stream(plan.seed, 2), plan.flips_bits, clients);
        let watch = Watch::start(servers.client(SEARCHES[0]), status.version, &stage)?;
        let checker = Checker::default();
        Ok(Self { plan, stage, weather, servers, faults, operator, checker, inspector, watch })
    }

    fn storms(&mut self, end: Instant, report: &mut Report, progress: &mut impl FnMut(&Report)) -> Result<(), Stop> {
        let begun = Instant::now();
        while report.storms == 0 || Instant::now() < end {
            let Self { faults, servers, operator, inspector, weather, plan, .. } = self;
            faults.storm(servers, operator, inspector, plan.names, weather, end)?;
            let outcome = self.calm(report);
            report.storms += 1;
            report.faults = self.faults.tally.clone();
            report.faults.insert("connections cut in the middle", self.weather.cuts.load(Ordering::Relaxed));
            report.operations = self.stage.recorder.tally();
            report.checked = self.checker.checked;
            report.took = begun.elapsed();
            outcome?;
            progress(report);
        }
        Ok(())
    }

    /// Ends all faults, waits for the store to heal, and compares everything with everything.
    fn calm(&mut self, report: &mut Report) -> Result<(), Stop> {
        self.faults.calm(&mut self.servers, &self.weather)?;
        let finished = self.operator.finish(&mut self.servers, PATIENCE);
        if let Some(casualty) = self.servers.casualty() {
            return wrong(casualty);
        }
        if let Some(wrong) = self.stage.recorder.first_wrong() {
            return Err(Stop::Wrong(wrong));
        }
        finished?;
        let stage = Arc::clone(&self.stage);
        let Some(_turn) = stage.turn.try_write_for(PATIENCE) else {
            return wrong(format!("a client's request has not ended within {PATIENCE:?}"));
        };
        self.faults.leave_damage(&self.servers, &self.inspector, self.plan.names)?;
        let stopped = Instant::now();
        let plan = self.plan;
        let healed = wait_for(&self.inspector, |status| {
            is_complete(status, plan) && is_whole(status, plan.replicas) && is_agreed(status)
        });
        report.longest_healing = report.longest_healing.max(stopped.elapsed());
        // What was said wrong before explains more than a store that does not heal.
        if let Some(wrong) = stage.recorder.first_wrong() {
            return Err(Stop::Wrong(wrong));
        }
        if let Some(casualty) = self.servers.casualty() {
            return wrong(casualty);
        }
        let status = healed.map_err(|reason| Stop::Wrong(format!("not healed after {PATIENCE:?}: {reason}")))?;
        self.follow(&status, report)?;
        self.read_all(report)?;
        if self.plan.pace == Pace::Hasty { Ok(()) } else { self.put_slowly(report.storms) }
    }

    /// Objects that wait for their file are kept for as long as their client holds a lease. (depot 5.3)
    fn put_slowly(&self, storm: u64) -> Result<(), Stop> {
        let begun = Instant::now();
        let number = kit::hash(&[self.plan.seed, storm]);
        match clients::put_slowly(&self.inspector, &self.stage, self.plan.names, number, servers::KEEP_REMOVED * 3 / 2)
        {
            // The machine was so slow that the lease has ended.
            Err(_) if begun.elapsed() > servers::LEASE => Ok(()),
            result => result.map_err(|error| Stop::Wrong(format!("a slow put fails in the calm: {error}"))),
        }
    }

    /// Checks all that happened up to this status.
    fn follow(&mut self, status: &Status, report: &mut Report) -> Result<(), Stop> {
        let events = self.watch.take_up_to(status.version)?;
        report.changes += events.len() as u64;
        let (made, seen) = self.stage.recorder.take();
        self.checker.check(&made, &seen, &events).map_err(Stop::Wrong)
    }

    /// Every file is there with its bytes, and no other, whichever Controller is asked.
    fn read_all(&mut self, report: &mut Report) -> Result<(), Stop> {
        let recorder = &self.stage.recorder;
        let expected = self.checker.files();
        let mut looks = BTreeMap::new();
        for witness in self.servers.client_of_each() {
            let begin = recorder.now();
            looks = match clients::list(&witness, &self.stage) {
                Some(looks) => looks,
                None => return wrong("the files cannot be listed in the calm"),
            };
            recorder.seen(begin, Sight::All(looks.clone()));
            let matches = |contents: &Vec<Content>, name| {
                looks.get(name).is_some_and(|look: &history::Look| contents.contains(&look.content))
            };
            if looks.len() != expected.len() || !expected.iter().all(|(name, contents)| matches(contents, name)) {
                return wrong(format!("after the storm there should be {expected:?}, and there is {looks:?}"));
            }
        }
        for (name, look) in &looks {
            let mut read = Vec::new();
            let result = self.inspector.get(&path_of(*name), Condition::Any);
            let result = result.and_then(|mut file| file.copy_to(0..u64::MAX, &mut read));
            if let Err(error) = result {
                return wrong(format!("name {name} cannot be read in the calm: {error}"));
            }
            clients::compare(recorder, look.content, 0, look.content.size, &read);
            report.files += 1;
        }
        self.check_copies()?;
        recorder.first_wrong().map_or(Ok(()), |what| Err(Stop::Wrong(what)))
    }
}

impl Run<'_> {
    /// A check of every byte of every copy finds nothing. What no reader and no scrub has come upon, it finds and has healed: then
    /// the next one finds nothing. (depot 6.5)
    fn check_copies(&self) -> Result<(), Stop> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut faults = Vec::new();
            let checked = self.inspector.check(&Path::root(), true, &mut |object| faults.push(format!("{object:?}")));
            match checked {
                Ok(_) if faults.is_empty() => return Ok(()),
                Ok(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(100)),
                Ok(_) => return wrong(format!("checks find, and do not have healed: {faults:?}")),
                Err(error) => return wrong(format!("a check fails in the calm: {error}")),
            }
        }
    }
}

/// Whether every server is there: each Controller has a vote, and lacks nothing.
fn is_complete(status: &Status, plan: &Plan) -> bool {
    is_there(status, plan, 0)
}

/// The same of Controllers that may lack so many changes.
fn is_there(status: &Status, plan: &Plan, most_lacking: u64) -> bool {
    let votes = |one: &&ControllerStatus| {
        matches!(one.role, ControllerRole::Leader | ControllerRole::Follower) && one.lag <= most_lacking
    };
    present(status) == plan.dstores && status.controllers.iter().filter(votes).count() == plan.controllers
}

/// Whether all Controllers have told each other the same hash of the metadata as they are now. (depot 4.8)
fn is_agreed(status: &Status) -> bool {
    let is_known = |one: &ControllerStatus| one.agreed == Some(status.version.sequence);
    status.controllers.len() < 2 || status.controllers.iter().all(is_known)
}

/// How many Dstores are there.
fn present(status: &Status) -> usize {
    status.dstores.iter().filter(|dstore| dstore.state == DstoreState::Present).count()
}

/// Whether every object has all its copies and no other, and no copy is known to be damaged.
fn is_whole(status: &Status, replicas: u8) -> bool {
    let copies: u64 = status.dstores.iter().map(|dstore| dstore.objects).sum();
    let is_sound = status.dstores.iter().all(|dstore| dstore.damaged == 0);
    (status.no_copy, status.too_few_copies) == (0, 0) && is_sound && copies == status.objects * u64::from(replicas)
}

/// Waits until the store says so; otherwise what it says instead.
fn wait_for(store: &Cluster, is_so: impl Fn(&Status) -> bool) -> Result<Status, String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let said = match store.status() {
            Ok(status) if is_so(&status) => return Ok(status),
            Ok(status) => format!(
                "{:?}, at change {}, Controllers agree up to {:?}, {} of its Dstores are there, {} objects, copies at each {:?}",
                status.problems,
                status.version.sequence,
                status.controllers.iter().map(|one| one.agreed).collect::<Vec<_>>(),
                present(&status),
                status.objects,
                status.dstores.iter().map(|dstore| dstore.objects).collect::<Vec<_>>()
            ),
            Err(error) => error.to_string(),
        };
        if Instant::now() > deadline {
            return Err(said);
        }
        thread::sleep(Duration::from_millis(50));
    }
}
