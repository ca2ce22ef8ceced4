//! How long a store is without service when its leader goes, over and over, under load. (depot 4.5, 11)
//!
//! Clients put small files, one after another, all the time. When the leader is killed, the time is taken until a put that began
//! afterwards is acknowledged. When it hands over in order, because that is asked of it or because it is to end, it may go on
//! serving for a while; so the longest time without an acknowledgement is taken, from the request until a put that began after
//! the answer is acknowledged. In the end every acknowledged file has to be there with its bytes.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use depot::client::{Cluster, ControllerRole, Files, PutOptions, Source};
use depot::namespace::change::Condition;
use depot::path::Path;
use kit::Rng;
use parking_lot::{Condvar, Mutex};
use stevedore::program::Failure;

use super::servers::Servers;
use super::{Plan, is_there, wait_for};
use crate::proxy::Weather;
use crate::stop::Stop;

/// Each file has so many bytes.
const FILE: usize = 1000;

/// Each client puts its files under so many names.
const NAMES: u64 = 50;

/// A Controller that lacks no more changes than this keeps up with the others. Under load none has all of them for long.
const KEEPS_UP: u64 = 1_000;

/// How a leader goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By `kill -9`.
    Kill,
    /// It is asked to hand over, and goes on as a follower.
    HandOver,
    /// By SIGTERM: it hands over, and ends.
    End,
}

/// What came of it.
pub struct Figures {
    /// For each time that a leader went, in order.
    pub gaps: Vec<(Way, Duration)>,
    /// Acknowledged puts.
    pub puts: u64,
    /// Puts that failed, or whose outcome is unknown.
    pub failures: u64,
    /// What the last of these said.
    pub last_failure: String,
    /// The longest that any put took.
    pub longest: Duration,
}

impl Figures {
    /// The gap that so large a part of all of this kind do not exceed.
    pub fn quantile(&self, way: Way, part: f64) -> Duration {
        let mut gaps: Vec<Duration> = self.gaps.iter().filter(|gap| gap.0 == way).map(|gap| gap.1).collect();
        gaps.sort();
        gaps.get(((gaps.len() as f64 * part).ceil() as usize).saturating_sub(1)).copied().unwrap_or_default()
    }
}

/// What the clients share.
#[derive(Default)]
struct Load {
    seen: Mutex<Seen>,
    /// Signalled with every acknowledgement.
    acknowledged: Condvar,
    is_over: AtomicBool,
}

#[derive(Default)]
struct Seen {
    /// The put that began last among those that are acknowledged: when, and when it was.
    last: Option<(Instant, Instant)>,
    /// The longest time without an acknowledgement since the measurement began, and when the last one came.
    silence: (Duration, Option<Instant>),
    puts: u64,
    failures: u64,
    last_failure: String,
    longest: Duration,
    /// What is in each file, as far as that is known.
    files: BTreeMap<String, Option<u64>>,
}

/// Has the leader go so often, in each of these ways in turn.
pub fn run(plan: &Plan, ways: &[Way], times: usize, mut progress: impl FnMut(usize)) -> Result<Figures, Failure> {
    match measure(plan, ways, times, &mut progress) {
        Ok(figures) => Ok(figures),
        Err(Stop::Wrong(what)) => Err(Failure::new(format!("WRONG: {what}"))),
        Err(Stop::Failed(failure)) => Err(failure),
    }
}

fn measure(plan: &Plan, ways: &[Way], times: usize, progress: &mut impl FnMut(usize)) -> Result<Figures, Stop> {
    let weather = Weather::new(Rng::stream(plan.seed, 1));
    let mut servers = Servers::start(plan, &weather)?;
    let search = Duration::from_secs(5);
    let inspector = servers.client(search);
    wait_for(&inspector, |status| is_there(status, plan, 0)).map_err(Stop::Wrong)?;
    let clients: Vec<Cluster> = (0..plan.clients).map(|_| servers.client(search)).collect();
    let load = Load::default();
    let gaps = thread::scope(|scope| {
        let end = EndOf(&load);
        for (number, client) in clients.iter().enumerate() {
            let load = &load;
            scope.spawn(move || put_until_over(client, number, load));
        }
        let ways = ways.iter().copied().cycle().take(times);
        let gaps = depose(&mut servers, &inspector, plan, ways, &load, progress);
        drop(end);
        gaps
    })?;
    let Seen { puts, failures, last_failure, longest, files, .. } = load.seen.into_inner();
    for (name, number) in files {
        let Some(number) = number else { continue };
        let mut content = Vec::new();
        let read = inspector.get(&path(&name), Condition::Any);
        let read = read.and_then(|mut file| file.copy_to(0..u64::MAX, &mut content));
        if read.is_err() || content != kit::bytes(number, FILE) {
            return Err(Stop::Wrong(format!("{name} is not what was acknowledged: {read:?}")));
        }
    }
    Ok(Figures { gaps, puts, failures, last_failure, longest })
}

fn depose(
    servers: &mut Servers,
    inspector: &Cluster,
    plan: &Plan,
    ways: impl Iterator<Item = Way>,
    load: &Load,
    progress: &mut impl FnMut(usize),
) -> Result<Vec<(Way, Duration)>, Stop> {
    let mut rng = Rng::stream(plan.seed, 2);
    let mut gaps = Vec::new();
    for way in ways {
        let at = loop {
            let status = wait_for(inspector, |status| is_there(status, plan, KEEPS_UP)).map_err(Stop::Wrong)?;
            thread::sleep(rng.duration(Duration::ZERO, Duration::from_millis(500)));
            let leader = status.controllers.iter().find(|one| one.role == ControllerRole::Leader);
            let at =
                leader.and_then(|leader| servers.controllers.iter().position(|one| one.address() == leader.address));
            if let Some(at) = at {
                break at; // else one is being elected
            }
        };
        let leader = &mut servers.controllers[at];
        let begun = Instant::now();
        load.listen(begun);
        match way {
            Way::Kill => leader.kill(),
            Way::HandOver => {
                inspector.hand_over(None).map_err(|error| Stop::Wrong(format!("no hand-over: {error}")))?
            }
            Way::End => {
                let ended = leader.end()?;
                if !ended.success() {
                    return Err(Stop::Wrong(format!("a leader that is to end does not end in order: {ended}")));
                }
            }
        }
        let gap = match way {
            Way::Kill => load.wait_for_service(begun)? - begun,
            Way::HandOver | Way::End => {
                load.wait_for_service(Instant::now())?;
                load.longest_silence()
            }
        };
        gaps.push((way, gap));
        leader.recover()?;
        if let Some(casualty) = servers.casualty() {
            return Err(Stop::Wrong(casualty));
        }
        progress(gaps.len());
    }
    Ok(gaps)
}

impl Load {
    /// From now on it is noted how long no put is acknowledged.
    fn listen(&self, begun: Instant) {
        self.seen.lock().silence = (Duration::ZERO, Some(begun));
    }

    fn longest_silence(&self) -> Duration {
        self.seen.lock().silence.0
    }

    /// Waits until a put that began later is acknowledged: when it was.
    fn wait_for_service(&self, since: Instant) -> Result<Instant, Stop> {
        let deadline = since + super::PATIENCE;
        let mut seen = self.seen.lock();
        loop {
            if let Some((begin, end)) = seen.last
                && begin > since
            {
                return Ok(end);
            }
            if self.acknowledged.wait_until(&mut seen, deadline).timed_out() {
                return Err(Stop::Wrong(format!(
                    "no put was acknowledged for {:?} after a leader went",
                    super::PATIENCE
                )));
            }
        }
    }
}

/// Ends the clients, whatever happens.
struct EndOf<'a>(&'a Load);

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

fn path(name: &str) -> Path {
    name.parse().expect("a path")
}

fn put_until_over(client: &Cluster, number: usize, load: &Load) {
    let options = PutOptions { parents: true, ..PutOptions::default() };
    let mut turn = 0;
    while !load.is_over.load(Ordering::Relaxed) {
        turn += 1;
        let content = turn * 1000 + number as u64;
        let name = format!("/{number}/{}", turn % NAMES);
        let begin = Instant::now();
        let bytes = kit::bytes(content, FILE);
        let result = client.put(&path(&name), Source::Once(&mut Cursor::new(bytes)), &options);
        let end = Instant::now();
        let mut seen = load.seen.lock();
        seen.longest = seen.longest.max(end - begin);
        match result {
            Ok(_) => {
                seen.puts += 1;
                if let (longest, Some(last)) = seen.silence {
                    seen.silence = (longest.max(end.saturating_duration_since(last)), Some(end.max(last)));
                }
                seen.files.insert(name, Some(content));
                if seen.last.is_none_or(|(last, _)| last < begin) {
                    seen.last = Some((begin, end));
                }
                load.acknowledged.notify_all();
            }
            Err(error) => {
                seen.failures += 1;
                seen.last_failure = error.to_string();
                seen.files.insert(name, None);
            }
        }
    }
}
