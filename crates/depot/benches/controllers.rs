//! What several Controllers cost, and what they gain: small changes and reads with one, three and five of them in this process,
//! over loopback. (depot 4.2, 4.5)
//!
//! Every change waits for a majority to have it on its disk. A group of several syncs whatever `--sync` says: with `never`, the
//! folders are in memory, so that the rest of the cost shows. Rounds of all groups are interleaved; each figure is the median of
//! the rounds, with the median of the ratios to one Controller in the same round.

mod cluster;

use std::env;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use cluster::{Store, StoreOptions};
use depot::client::{Cluster, Files};
use depot::log::SyncMode;
use depot::namespace::change::Details;
use depot::path::Path;
use kit::TempFolder;

const GROUPS: [usize; 3] = [1, 3, 5];
const CLIENTS: usize = 8;

fn main() {
    // `cargo bench` passes --bench; a test run does not, and only checks that this still works.
    let is_bench = env::args().any(|arg| arg == "--bench");
    let (rounds, changes, reads) = if is_bench { (7, 8_000, 40_000) } else { (1, 40, 40) };
    for (sync, folder) in [(SyncMode::Always, TempFolder::new()), (SyncMode::Never, TempFolder::in_memory())] {
        let stores = GROUPS.map(|controllers| {
            let options = StoreOptions { controllers, dstores: 0, sync, ..StoreOptions::default() };
            Store::start(&folder.path().join(controllers.to_string()), options)
        });
        let writers = stores.each_ref().map(|store| [(); CLIENTS].map(|()| store.client()));
        let readers = [0, 1, 2].map(|at| {
            let reader = |number: usize| stores[at].client_at(number % GROUPS[at]);
            std::array::from_fn::<Cluster, CLIENTS, _>(reader)
        });
        let (mut written, mut read) = (GROUPS.map(|_| Vec::new()), GROUPS.map(|_| Vec::new()));
        for round in 0..=rounds {
            for at in 0..GROUPS.len() {
                let rate = rate(&writers[at], changes, |client, number| make(client, round, number));
                let found = self::rate(&readers[at], reads, |client, number| look(client, round, number % changes));
                // The first round warms up.
                if round > 0 {
                    written[at].push(rate);
                    read[at].push(found);
                }
            }
        }
        verify(&stores, rounds, changes);
        println!("--sync {sync:?}, {CLIENTS} clients");
        report("mkdir", &written);
        report("stat, clients at all Controllers", &read);
    }
}

fn directory(round: u64, number: u64) -> Path {
    format!("/{round}-{number}").parse().expect("a path")
}

fn make(client: &Cluster, round: u64, number: u64) {
    client.make_directory(&directory(round, number), false, &Details::default(), None).expect("it is made");
}

fn look(client: &Cluster, round: u64, number: u64) {
    client.stat(&directory(round, number)).expect("it is there");
}

/// So many operations a second, each client doing one after the other.
fn rate(clients: &[Cluster], operations: u64, operate: impl Fn(&Cluster, u64) + Sync) -> f64 {
    let next = AtomicU64::new(0);
    let begun = Instant::now();
    thread::scope(|scope| {
        for client in clients {
            let (next, operate) = (&next, &operate);
            scope.spawn(move || {
                while let number = next.fetch_add(1, Ordering::Relaxed)
                    && number < operations
                {
                    operate(client, number);
                }
            });
        }
    });
    operations as f64 / begun.elapsed().as_secs_f64()
}

/// Every Controller has every directory.
fn verify(stores: &[Store; 3], rounds: u64, changes: u64) {
    for (store, controllers) in stores.iter().zip(GROUPS) {
        for client in (0..controllers).map(|at| store.client_at(at)) {
            for round in 0..=rounds {
                (0..changes).step_by(97).chain([changes - 1]).for_each(|number| look(&client, round, number));
            }
        }
    }
}

fn report(what: &str, rates: &[Vec<f64>; 3]) {
    for (rates_here, controllers) in rates.iter().zip(GROUPS) {
        let ratios = rates_here.iter().zip(&rates[0]).map(|(here, alone)| here / alone);
        let (least, most) =
            rates_here.iter().fold((f64::MAX, 0.0_f64), |(least, most), rate| (least.min(*rate), most.max(*rate)));
        let (rate, ratio) = (median(rates_here.clone()), median(ratios.collect()));
        println!("  {what}, {controllers} Controllers: {rate:.0} a second ({least:.0}-{most:.0}), ratio {ratio:.2}");
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
