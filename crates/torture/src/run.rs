//! One run: storms of faults, and after each a calm in which everything is looked at.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kit::Rng;
use parking_lot::RwLock;
use stevedore::program::Failure;

use crate::checker::Checker;
use crate::cluster::{Cluster, PATIENCE, Settings};
use crate::faults::{Faults, Tally};
use crate::history::{Content, Name, Operation, Outcome, Phantom, Recorder, Request};
use crate::official::Official;
use crate::proxy::{Kind, Proxy, Weather};
use crate::stop::{Stop, wrong};
use crate::workload::{self, Seat, Stage, file_name, listed, name_of};

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
    /// How many Dstores.
    pub dstores: usize,
    /// Whether stored copies are damaged.
    pub flips_bits: bool,
    /// Whether clients may send content after the Controller has given up their store.
    pub stalls_clients: bool,
    /// The cluster.
    pub settings: Settings,
}

impl Plan {
    /// A timeout within which the Controller must have answered a client. A request waits for the changes in progress,
    /// for the round of a rebalance (spec 7.28) and for acknowledgements.
    fn patient(&self) -> Duration {
        6 * self.settings.timeout + Duration::from_secs(2)
    }

    /// By then the Controller has ended every request that its client has given up.
    fn settle(&self) -> Duration {
        4 * self.settings.timeout + Duration::from_secs(2)
    }

    /// No client's request takes longer: a patient client's timeout for each answer and each Dstore, tried in up to three
    /// ways (spec 8.2).
    pub fn longest_request(&self) -> Duration {
        3 * self.patient() * (self.settings.replicas as u32 + 2)
    }
}

/// What a run has come to.
#[derive(Default)]
pub struct Report {
    /// By request and outcome.
    pub operations: BTreeMap<(&'static str, &'static str), u64>,
    /// By kind.
    pub faults: Tally,
    /// Storms, each with its calm.
    pub storms: u64,
    /// Rounds of rebalances.
    pub rebalances: u64,
    /// What the checker has looked at, an operation counted for each name that it concerns.
    pub checked: u64,
    /// Copies compared with what was stored.
    pub copies: u64,
    /// Files looked at in folders while all this went on.
    pub looks: u64,
    /// The longest that a client has had to wait for the end of an operation.
    pub longest: Duration,
    /// From the end of the faults to R copies of everything, at most.
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
    let stage = Arc::new(Stage {
        recorder: Recorder::new(),
        watcher: Arc::default(),
        names: plan.names,
        turn: RwLock::new(()),
        is_over: AtomicBool::new(false),
    });
    let outcome = Run::start(plan, &stage).and_then(|mut run| {
        let end = begun + plan.duration;
        let outcome = run.storms(end, &mut report, &mut progress);
        stage.is_over.store(true, Ordering::Relaxed);
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
    stage: &'a Arc<Stage>,
    weather: Arc<Weather>,
    cluster: Cluster,
    faults: Faults,
    checker: Checker,
    /// Looks at everything in the calm.
    inspector: Official,
    _proxy: Proxy,
}

impl<'a> Run<'a> {
    /// Starts the cluster, and then the clients.
    fn start(plan: &'a Plan, stage: &'a Arc<Stage>) -> Result<Self, Stop> {
        let Settings { replicas, timeout, .. } = plan.settings;
        stage.watcher.start(&plan.settings.folder)?;
        let weather = Weather::new(Rng::stream(plan.seed, 1));
        let mut cluster = Cluster::start(plan.settings.clone(), &weather, &stage.watcher)?;
        let mut faults = Faults::new(Rng::stream(plan.seed, 2), replicas, plan.dstores, timeout, plan.flips_bits);
        for _ in 0..plan.dstores {
            faults.join(&mut cluster)?;
        }
        if !cluster.wait_until(PATIENCE, |status| status.members.len() == plan.dstores) {
            return wrong("not all Dstores have joined");
        }
        faults.notice_joins(&cluster, &stage.recorder);
        let target = Arc::new(AtomicUsize::new(cluster.port.into()));
        let proxy = Proxy::start(target, Kind::Controller, &weather)?;
        for client in 0..plan.clients {
            let is_direct = client % 4 < 2;
            let is_official = client % 2 == 0;
            // Our own client has one timeout for the Controller and for Dstores.
            let is_patient = client % 8 < 4 && (is_official || plan.stalls_clients);
            let seat = Seat {
                client,
                is_official,
                controller: if is_direct { cluster.port } else { proxy.port },
                is_direct,
                timeout: match (is_patient, is_official || plan.stalls_clients) {
                    (true, _) => plan.patient(),
                    (false, true) => timeout * 3 / 2,
                    (false, false) => timeout * 2 / 5,
                },
                promptness: if plan.stalls_clients { PATIENCE } else { timeout * 4 / 5 },
                is_patient,
            };
            workload::start(stage, seat, Rng::stream(plan.seed, 10 + client as u64))?;
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, cluster.port));
        Ok(Self {
            plan,
            stage,
            weather,
            cluster,
            faults,
            checker: Checker::new(plan.names, plan.settle()),
            inspector: Official::new(address, PATIENCE, PATIENCE),
            _proxy: proxy,
        })
    }

    fn storms(&mut self, end: Instant, report: &mut Report, progress: &mut impl FnMut(&Report)) -> Result<(), Stop> {
        let begun = Instant::now();
        while report.storms == 0 || Instant::now() < end {
            self.faults.storm(&mut self.cluster, &self.weather, self.stage, end)?;
            let outcome = self.calm(report);
            report.storms += 1;
            report.faults = self.faults.tally.clone();
            report.faults.insert("connections cut in the middle", self.weather.cuts.load(Ordering::Relaxed));
            report.rebalances = self.cluster.status().rebalances;
            report.checked = self.checker.checked;
            report.looks = self.stage.watcher.looks.load(Ordering::Relaxed);
            report.took = begun.elapsed();
            outcome?;
            progress(report);
        }
        Ok(())
    }

    /// Ends all faults, waits for the cluster to heal, and compares everything with everything.
    fn calm(&mut self, report: &mut Report) -> Result<(), Stop> {
        self.faults.calm(&mut self.cluster, &self.weather)?;
        let Some(_turn) = self.stage.turn.try_write_for(self.plan.longest_request()) else {
            return wrong(format!("a client's request has not ended within {:?}", self.plan.longest_request()));
        };
        let stopped = Instant::now();
        let healed = self.heal();
        report.longest_healing = report.longest_healing.max(stopped.elapsed());
        // If something went wrong before, it explains more than a failed healing.
        let operations = self.stage.recorder.take();
        self.account(&operations, report)?;
        self.check(&operations)?;
        if let Some(found) = self.stage.watcher.found() {
            return wrong(found);
        }
        healed?;
        self.faults.notice_joins(&self.cluster, &self.stage.recorder);
        thread::sleep((stopped + self.plan.settle()).saturating_duration_since(Instant::now()));
        let files = self.inspect(report)?;
        let operations = self.stage.recorder.take();
        self.account(&operations, report)?;
        self.check(&operations)?;
        self.faults.forget_membership();
        // The damaged copies of dead Dstores go with their folders.
        self.cluster.bury()?;
        self.stage.watcher.excuse_nobody();
        self.stage.watcher.forget_all_but(&files);
        Ok(())
    }

    /// Waits until every file lies on exactly R Dstores, evenly spread, and nothing else lies anywhere. (spec 4.6)
    fn heal(&mut self) -> Result<(), Stop> {
        let before = self.cluster.status().rebalances;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(casualty) = self.cluster.casualty() {
                return wrong(casualty);
            }
            let Err(reason) = self.is_at_rest(before) else { return Ok(()) };
            if Instant::now() > deadline {
                return wrong(format!("not healed {PATIENCE:?} after the last fault: {reason}"));
            }
            if self.plan.flips_bits {
                self.read_all_copies();
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Has every copy read, so that a Dstore can notice what it would not have looked at.
    fn read_all_copies(&mut self) {
        for name in 0..self.plan.names {
            let file = file_name(name).parse().expect("a proper name");
            let _ = self.inspector.load_from_all(&file);
        }
    }

    fn is_at_rest(&self, rebalances_before: u64) -> Result<(), String> {
        let status = self.cluster.status();
        let mut alive: Vec<u16> = self.cluster.dstores.iter().map(|dstore| dstore.port).collect();
        let mut members = status.members.clone();
        alive.sort_unstable();
        members.sort_unstable();
        if alive != members {
            return Err(format!("the living Dstores are {alive:?}, the members {members:?}"));
        }
        if status.rebalances < rebalances_before + 2 {
            return Err("no two rebalances have ended since".to_owned());
        }
        let contents = self.cluster.contents().map_err(|error| error.to_string())?;
        let files = examine(&contents, self.plan.settings.replicas)?;
        if files.len() != status.files {
            return Err(format!("the index has {} files, the folders have {}", status.files, files.len()));
        }
        Ok(())
    }

    /// Lists, loads every file from every holder, and compares with the folders. (spec 4.3, 4.5)
    fn inspect(&mut self, report: &mut Report) -> Result<BTreeMap<Name, Content>, Stop> {
        let contents = self.cluster.contents()?;
        let files = match examine(&contents, self.plan.settings.replicas) {
            Ok(files) => files,
            Err(reason) => return wrong(format!("it had healed, and now {reason}")),
        };
        let begin = self.stage.recorder.now();
        let outcome = match self.inspector.list() {
            Ok(names) => listed(&names, self.plan.names),
            Err(outcome) => outcome,
        };
        self.record(begin, Request::List, outcome.clone());
        let expected: Vec<bool> = (0..self.plan.names).map(|name| files.contains_key(&name)).collect();
        if outcome != Outcome::Listed(expected) {
            let names: Vec<_> = files.keys().map(|name| file_name(*name)).collect();
            return wrong(format!("LIST gives {outcome:?}, and in the folders are {names:?}"));
        }
        for name in 0..self.plan.names {
            let begin = self.stage.recorder.now();
            let file = file_name(name).parse().expect("a proper name");
            let (loaded, last) = self.inspector.load_from_all(&file);
            self.record(begin, Request::Load(name), last.clone());
            let stored = files.get(&name);
            // After all holders there is none left to offer.
            let expected = if stored.is_some() { Outcome::LoadFailed } else { Outcome::DoesNotExist };
            if last != expected {
                return wrong(format!("LOAD {file} gives {last:?}, and in the folders is {stored:?}"));
            }
            if stored.is_some() && loaded.len() != self.plan.settings.replicas {
                return wrong(format!("{file} is offered from {} Dstores", loaded.len()));
            }
            for content in loaded {
                match content {
                    Ok(content) if Some(&content) == stored => {
                        self.record(begin, Request::Load(name), Outcome::Loaded(content));
                        report.copies += 1;
                    }
                    other => {
                        return wrong(format!("a holder of {file} gives {other:?}, and in the folders is {stored:?}"));
                    }
                }
            }
        }
        Ok(files)
    }

    fn record(&self, begin: Duration, request: Request, outcome: Outcome) {
        let (client, end) = (self.plan.clients, self.stage.recorder.now());
        self.stage.recorder.record(Operation { client, begin, end, request, outcome });
    }

    /// Counts, and looks for what no order of events explains.
    fn account(&mut self, operations: &[Operation], report: &mut Report) -> Result<(), Stop> {
        for operation in operations {
            *report.operations.entry((operation.request.kind(), operation.outcome.kind())).or_default() += 1;
            report.longest = report.longest.max(operation.end - operation.begin);
        }
        if report.longest > self.plan.longest_request() {
            return wrong(format!("a request has taken {:?}", report.longest));
        }
        for operation in operations {
            match &operation.outcome {
                Outcome::Wrong { reason } => return wrong(format!("{reason}\n  {operation}")),
                Outcome::NotEnoughDstores if !self.faults.may_lack_dstores(operation.begin, operation.end) => {
                    return wrong(format!("ERROR_NOT_ENOUGH_DSTORES with R Dstores or more\n  {operation}"));
                }
                _ => {}
            }
        }
        for phantom in self.stage.recorder.take_suspected() {
            if !operations.iter().any(|operation| phantom.is_explained_by(operation, self.plan.settle())) {
                let Phantom { name, port, begin, end } = phantom;
                let (begin, end, file) = (begin.as_secs_f64(), end.as_secs_f64(), file_name(name));
                return wrong(format!(
                    "{file} was offered from Dstore {port}, which had none\n  {begin:.4} to {end:.4} s: no copy, and no client changed the file"
                ));
            }
        }
        Ok(())
    }

    fn check(&mut self, operations: &[Operation]) -> Result<(), Stop> {
        let now = self.stage.recorder.now();
        self.checker.check(operations, now).or_else(wrong)
    }
}

/// The files in the folders, if each lies whole and alike on exactly R of them, evenly spread, and nothing else does.
fn examine(contents: &[BTreeMap<String, Vec<u8>>], replicas: usize) -> Result<BTreeMap<usize, Content>, String> {
    let mut copies: BTreeMap<usize, Vec<Content>> = BTreeMap::new();
    for (number, files) in contents.iter().enumerate() {
        for (file, bytes) in files {
            let Some(name) = name_of(file) else { return Err(format!("Dstore {number} of the living has {file:?}")) };
            copies.entry(name).or_default().push(Content::of(bytes));
        }
    }
    for (name, copies) in &copies {
        if copies.len() != replicas || copies.iter().any(|copy| *copy != copies[0]) {
            return Err(format!("the copies of {} are {copies:?}", file_name(*name)));
        }
    }
    let all = copies.len() * replicas;
    let share = all / contents.len()..=all.div_ceil(contents.len());
    let loads: Vec<usize> = contents.iter().map(BTreeMap::len).collect();
    if !loads.iter().all(|load| share.contains(load)) {
        return Err(format!("{} files are spread as {loads:?}", copies.len()));
    }
    Ok(copies.into_iter().map(|(name, copies)| (name, copies[0])).collect())
}
