//! A whole store is killed with -9 in the middle of puts, moves and removals, and started again: everything that was
//! acknowledged is there, byte for byte, and nothing is there by halves. (depot 1.1, 1.3)
//!
//! Clients each work on names of their own. What was under way when the store was killed may have happened or not; what
//! came before must have. A few kills for each run; many with `STEVEDORE_LONG`, or as many as `KILLS` says.

mod common;

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use cli::cluster::ClientFile;
use common::{User, Whole};
use depot::client::{Cluster, ClusterOptions, Error, Files, MoveOptions, PutOptions, Source};
use depot::namespace::change::{Condition, Refusal};
use depot::path::Path;
use kit::{Rng, bytes, hunt};

const CLIENTS: u64 = 4;
/// Names of each client.
const NAMES: usize = 5;

/// What a client knows of its names: which content each has, by its number. One that is missing is not in it.
type Known = BTreeMap<usize, u64>;

/// A client's work: what is acknowledged, and what may have happened besides.
#[derive(Clone, Debug, Default)]
struct Work {
    known: Known,
    /// What the names have if the change that was under way was made.
    or_else: Option<Known>,
}

fn path(client: u64, name: usize) -> Path {
    format!("/client {client}/deep/{name}").parse().expect("a path")
}

/// The content of a number: most are small, some fill blocks, some are objects of their own.
fn content(number: u64) -> Vec<u8> {
    let size = match number % 8 {
        0 => 3_000_000,
        1 => 70_000,
        2 => 0,
        _ => 1 + number as usize % 5_000,
    };
    bytes(number, size)
}

fn connect(user: &User) -> Cluster {
    let file = ClientFile::read(&user.cluster).expect("readable").expect("there");
    let ClientFile { cluster, controllers, client, key, .. } = file;
    // It is killed for good as far as these clients are concerned: they do not look for it for long.
    Cluster::new(ClusterOptions { controllers, cluster, client, key, search: Duration::ZERO })
}

/// Puts, moves and removes until told to stop, or until something fails.
fn work(cluster: &Cluster, client: u64, work: &mut Work, random: &mut Rng, made: &AtomicU64, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let mut after = work.known.clone();
        let (name, other) = (random.below(NAMES), random.below(NAMES));
        let result = match random.below(10) {
            0 => {
                after.remove(&name);
                cluster.remove(&path(client, name), Condition::Any).map(drop)
            }
            1 if name != other && work.known.contains_key(&name) => {
                let number = after.remove(&name).expect("it is there");
                after.insert(other, number);
                let options = MoveOptions { replace: true, ..MoveOptions::default() };
                cluster.rename(&path(client, name), &path(client, other), &options).map(drop)
            }
            _ => {
                let number = random.next();
                after.insert(name, number);
                let options = PutOptions { parents: true, ..PutOptions::default() };
                let content = content(number);
                cluster.put(&path(client, name), Source::Once(&mut Cursor::new(content)), &options).map(drop)
            }
        };
        match result {
            Ok(()) => work.known = after,
            Err(Error::Refused(Refusal::NotFound)) => assert!(!work.known.contains_key(&name), "{name} is gone"),
            Err(Error::Refused(refusal)) => panic!("client {client}: {refusal}"),
            Err(_) => {
                // The store was killed.
                work.or_else = Some(after);
                return;
            }
        }
        made.fetch_add(1, Ordering::Relaxed);
    }
}

/// Reads all of a client's names back; what they have must be what is known, or what may be.
fn check(cluster: &Cluster, client: u64, work: &mut Work, context: &str) {
    let is_there = |known: &Known| {
        (0..NAMES).try_for_each(|name| {
            let mut read = Vec::new();
            let got = cluster.get(&path(client, name), Condition::Any).and_then(|mut file| {
                file.copy_to(0..u64::MAX, &mut read)?;
                Ok(())
            });
            match (got, known.get(&name)) {
                (Ok(()), Some(number)) if read == content(*number) => Ok(()),
                (Err(Error::Refused(Refusal::NotFound)), None) => Ok(()),
                (Ok(()), wanted) => Err(format!("name {name} has {} other bytes, wanted {wanted:?}", read.len())),
                (Err(error), wanted) => Err(format!("name {name}, wanted {wanted:?}: {error}")),
            }
        })
    };
    match is_there(&work.known) {
        Ok(()) => {}
        Err(why) => {
            let other = work.or_else.as_ref().unwrap_or_else(|| panic!("{context}, client {client}: {why}"));
            is_there(other).unwrap_or_else(|or| panic!("{context}, client {client}: {why}; or {or}"));
            work.known = other.clone();
        }
    }
    work.or_else = None;
}

#[test]
fn a_store_that_is_killed_has_all_that_it_acknowledged() {
    let kills = hunt::number("KILLS").unwrap_or(if hunt::is_long() { 200 } else { 3 });
    let seed = hunt::seed();
    let mut random = Rng(seed);
    let mut store = Whole::start(3, "always");
    let mut works: Vec<Work> = vec![Work::default(); CLIENTS as usize];
    let made = AtomicU64::new(0);
    for kill in 1..=kills {
        let stop = AtomicBool::new(false);
        let delay = random.duration(Duration::ZERO, Duration::from_millis(1500));
        let before = made.load(Ordering::Relaxed);
        thread::scope(|scope| {
            for (client, own) in (0..).zip(&mut works) {
                let (cluster, made, stop) = (connect(&store.user), &made, &stop);
                let mut random = Rng::stream(seed, kill * CLIENTS + client);
                scope.spawn(move || work(&cluster, client, own, &mut random, made, stop));
            }
            // Not before something was acknowledged: then the time between is the kill's own.
            kit::eventually("a change is made", || made.load(Ordering::Relaxed) > before);
            // Time is under test: the kill comes at any instant.
            thread::sleep(delay);
            store.server.kill();
            stop.store(true, Ordering::Relaxed);
        });
        store.kill_and_start();
        let cluster = connect(&store.user);
        for (client, own) in (0..).zip(&mut works) {
            check(&cluster, client, own, &format!("kill {kill}, seed {seed}"));
        }
    }
    println!("{kills} kills, {} changes acknowledged: nothing lost", made.load(Ordering::Relaxed));
}
