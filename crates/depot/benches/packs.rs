//! What a million objects cost a Dstore: memory, puts, the time to open the disk, and gets. (depot 5.6, 11)

use std::env;
use std::fs;
use std::sync::Arc;
use std::time::Instant;

use depot::checksum::Checksum;
use depot::disk::RealFolder;
use depot::identity::{History, Key};
use depot::log::SyncMode;
use depot::pack::{Disk, Options, Purpose};

const OBJECT_BYTES: usize = 1000;

fn key(number: u64) -> Key {
    Key { history: History(0x1234_5678_9abc_def0), term: 3, number }
}

fn content(number: u64) -> Vec<u8> {
    let mut bytes = vec![0; OBJECT_BYTES];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = status.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    pages * 4096
}

/// Syncs shared by threads, in a folder of its own.
fn synced(folder: &RealFolder, threads: u64, each: u64) -> f64 {
    let (disk, _) = Disk::open(Arc::new(folder.clone()), Options::default()).expect("a new disk");
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let disk = &disk;
            scope.spawn(move || {
                for number in thread * each..(thread + 1) * each {
                    let bytes = content(number);
                    disk.put(key(number), OBJECT_BYTES as u64, Checksum::of(&bytes), &mut &bytes[..], Purpose::Put)
                        .expect("stored");
                }
            });
        }
    });
    (threads * each) as f64 / begun.elapsed().as_secs_f64()
}

fn main() {
    // `cargo bench` passes --bench; a test run does not, and only checks that this still works.
    let is_bench = env::args().any(|arg| arg == "--bench");
    let (objects, gets, each) = if is_bench { (1_000_000, 100_000, 200) } else { (500, 100, 2) };
    let path = env::temp_dir().join(format!("stevedore-bench-packs-{}", std::process::id()));
    let folder = RealFolder::new(&path.join("many")).expect("a folder");
    let options = Options { sync: SyncMode::Never, ..Options::default() };
    let open = || Disk::open(Arc::new(folder.clone()), options).expect("the disk opens");

    let (disk, _) = open();
    let before = resident_bytes();
    let mut seconds = 0.0;
    for number in 0..objects {
        let bytes = content(number);
        let checksum = Checksum::of(&bytes);
        let begun = Instant::now();
        disk.put(key(number), OBJECT_BYTES as u64, checksum, &mut &bytes[..], Purpose::Put).expect("stored");
        seconds += begun.elapsed().as_secs_f64();
    }
    let memory = resident_bytes().saturating_sub(before);
    println!("{objects} objects of {OBJECT_BYTES} bytes");
    println!("memory           {:8.0} bytes an object, while they were put", memory as f64 / objects as f64);
    println!("put, not synced  {:8.2} us", seconds / objects as f64 * 1e6);
    drop(disk);

    let begun = Instant::now();
    let (disk, recovered) = open();
    println!("open             {:8.2} s", begun.elapsed().as_secs_f64());
    assert_eq!((recovered.objects, recovered.damaged, recovered.lost_bytes), (objects, 0, 0));
    let (mut random, mut buffer) = (fastrand::Rng::with_seed(1), Vec::new());
    let begun = Instant::now();
    for _ in 0..gets {
        let number = random.u64(..objects);
        disk.open_object(&key(number)).expect("there").read(0..1, &mut buffer).expect("sound");
        assert_eq!(buffer[..8], number.to_le_bytes());
    }
    println!("get              {:8.2} us", begun.elapsed().as_secs_f64() / gets as f64 * 1e6);
    let begun = Instant::now();
    let (mut after, mut listed) = (None, 0);
    loop {
        let page = disk.inventory(after, 1000).expect("a page");
        listed += page.objects.len() as u64;
        after = page.objects.last().map(|(key, _)| *key);
        if page.is_last {
            break;
        }
    }
    assert_eq!(listed, objects);
    println!("inventory        {:8.2} s", begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    for number in (0..objects).filter(|number| number % 4 > 0) {
        disk.remove(&key(number)).expect("removed");
    }
    println!("remove           {:8.2} us", begun.elapsed().as_secs_f64() / (objects as f64 * 0.75) * 1e6);
    let begun = Instant::now();
    let (mut freed, mut moved) = (0, 0);
    while let Some(done) = disk.compact_if_due(&mut |_| Ok(())).expect("it works") {
        freed += done.freed_bytes;
        moved += done.moved_bytes;
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "compaction       {seconds:8.2} s, {:.0} MB moved, {:.0} MB free again",
        moved as f64 / 1e6,
        freed as f64 / 1e6
    );
    assert_eq!(disk.usage().expect("told").objects, objects.div_ceil(4));
    drop(disk);

    for threads in [1, 8, 32] {
        let folder = RealFolder::new(&path.join(format!("synced-{threads}"))).expect("a folder");
        println!("put, synced      {:8.0} a second with {threads} threads", synced(&folder, threads, each));
    }
    fs::remove_dir_all(&path).expect("removed");
}
