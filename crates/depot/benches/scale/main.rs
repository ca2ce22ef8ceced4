//! A year of 1,000 Dstores, in virtual time: the real placement, repair and balance, with disks, machines and zones that fail at
//! published rates. (depot 6; docs/scale.md)
//!
//! What is real: `placement::choose` and `plan`, `Balance`, the guard against mass failures, the order of urgency, and the limits
//! on what is under way, which are `controller::healing`'s. What is simulated: time, failures, and copies, which take as long as the
//! rate of a Dstore allows. Verifying and removing a copy takes no time here.
//!
//! Words on the command line choose runs: `cargo bench -p depot --bench scale -- "R = 3"`.

mod events;
mod picture;
mod world;

use std::env;
use std::thread;
use std::time::Instant;

use depot::identity::DstoreId;
use depot::namespace::change::Duty;
use depot::placement::{Balance, CopyState, Held, Member, Need, Presence, Room, plan};

use world::{Outcome, Rates, Shape, World};

fn main() {
    // `cargo bench` passes --bench; a test run does not, and only checks that this still works.
    let is_bench = env::args().any(|arg| arg == "--bench");
    let (shape, days) = if is_bench { (Shape::LARGE, 365.0) } else { (Shape::SMALL, 30.0) };
    let is_wanted =
        |name: &str| env::args().skip(1).filter(|arg| !arg.starts_with("--")).all(|word| name.contains(&word));
    let minute = 60.0;
    let runs = [(2, minute), (3, minute), (2, 60.0 * minute), (3, 60.0 * minute)];
    let runs = runs.map(|(replicas, grace)| (format!("R = {replicas}, grace {} min", grace / minute), replicas, grace));
    let runs: Vec<_> = runs.into_iter().filter(|(name, ..)| is_wanted(name)).collect();
    println!("{shape}, {days} days\n");
    let mut outcomes = Vec::new();
    // Two at a time; each is the same whatever runs beside it.
    for runs in runs.chunks(2) {
        let results: Vec<Outcome> = thread::scope(|scope| {
            let started: Vec<_> = runs
                .iter()
                .map(|(_, replicas, grace)| {
                    scope.spawn(move || World::new(shape, Rates::PUBLISHED, *replicas, *grace, 1).run(days))
                })
                .collect();
            started.into_iter().map(|run| run.join().expect("a run")).collect()
        });
        for ((name, ..), outcome) in runs.iter().zip(results) {
            println!("{name}\n{outcome}");
            outcomes.push((name.clone(), outcome));
        }
    }
    if is_bench && !outcomes.is_empty() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/scale.svg");
        std::fs::write(path, picture::draw(&outcomes)).expect("a folder for what was built");
        println!("picture: target/scale.svg");
    }
    if is_wanted("plans") {
        time_of_a_plan(if is_bench { 20_000 } else { 10 });
    }
}

/// What a leader's processor does for each object: of one that needs nothing, and of one that has lost a copy.
fn time_of_a_plan(rounds: usize) {
    for count in [10, 100, 1_000] {
        let member = |id: u32| Member {
            id: DstoreId(id),
            host: format!("host-{}", id / 2),
            zone: format!("zone-{}", id % 20),
            duty: Duty::Active,
            presence: if id == 3 { Presence::Gone } else { Presence::Known },
            is_away: id == 3,
            used: 0.5,
            load: 0.1,
        };
        let members: Vec<Member> = (1..=count).map(member).collect();
        let held =
            |id: u32| Held { dstore: DstoreId(id), state: CopyState::Certain, is_leaving: false, is_verified: false };
        for (what, copies) in [("nothing to do", [1, 2, 4]), ("a copy lost", [1, 2, 3])] {
            let copies = copies.map(held);
            let need = Need { wanted: 3, copies: &copies, coming: &[], avoided: &[], moving: None, is_guarded: false };
            let mut random = fastrand::Rng::with_seed(1);
            let begun = Instant::now();
            let steps: usize = (0..rounds).map(|_| plan(&need, &members, |n| random.usize(..n)).steps.len()).sum();
            assert_eq!(steps, if what == "a copy lost" { rounds } else { 0 });
            let each = begun.elapsed().as_secs_f64() / rounds as f64 * 1e6;
            println!("plan for an object, {count:5} Dstores, {what:14} {each:7.2} us");
        }
        // Every second Dstore is fuller than the others.
        let room = |id: u32| {
            let used = if id.is_multiple_of(2) { 1 << 40 } else { 1 << 39 };
            Room { id: DstoreId(id), used, free: (2 << 40) - used }
        };
        let mut balance = Balance::of(&(1..=count).map(room).collect::<Vec<Room>>());
        let copies = [2, 4, 6].map(DstoreId);
        let begun = Instant::now();
        let moves = (0..rounds).filter(|_| balance.choose(64 << 10, &copies, &members).is_some()).count();
        assert_eq!(moves, rounds);
        let each = begun.elapsed().as_secs_f64() / rounds as f64 * 1e6;
        println!("move of an object, {count:5} Dstores                {each:7.2} us");
    }
}
