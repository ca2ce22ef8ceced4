//! What a million files cost a Controller: memory, changes, listings, a snapshot, and reading it back. (depot 4.1, 11)

use std::env;
use std::fs;
use std::time::Instant;

use depot::checksum::Checksum;
use depot::glob::Pattern;
use depot::identity::{ClusterId, DstoreId, Epoch, History, Key, Position};
use depot::namespace::Namespace;
use depot::namespace::change::{Change, Command, Condition, Details, NewObject, NewObjects, Settings};
use depot::namespace::listing::Query;
use depot::namespace::snapshot::Restore;
use depot::path::Path;
use depot::placement::Holdings;
use depot::wire::message::CopyReport;
use depot::words::Words;

/// Of 20 bytes, as the promise says.
fn name(number: u64) -> String {
    format!("file-{number:015}")
}

fn put(directory: u64, number: u64) -> Change {
    let holders = (1..=3).map(|dstore| (DstoreId(dstore), Position { start: 1, number })).collect();
    let object = NewObject { term: 3, number, length: 1000, checksum: Checksum(number), holders };
    let command = Command::Put {
        path: format!("/{directory}/{}", name(number)).parse().expect("a path"),
        condition: Condition::Any,
        parents: true,
        objects: NewObjects { history: History(0x1234_5678_9abc_def0), objects: vec![object] },
        checksum: Checksum(number),
        modified_ms: None,
        details: Details::default(),
    };
    Change { now_ms: 1_732_190_000_000, stamp: None, command }
}

fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = status.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    pages * 4096
}

fn main() {
    // `cargo bench` passes --bench; a test run does not, and only checks that this still works.
    let (files, per_directory) =
        if env::args().any(|arg| arg == "--bench") { (1_000_000, 1_000) } else { (2_000, 100) };
    let mut namespace = Namespace::new();
    let settings = Settings::default();
    let first = [
        Command::Create { cluster: ClusterId(1), name: "bench".into(), settings },
        Command::Lead { epoch: Epoch { history: History(0x1234_5678_9abc_def0), term: 3, nonce: 1 } },
    ];
    for (sequence, command) in (1..).zip(first) {
        namespace.apply(sequence, &Change { now_ms: 0, stamp: None, command }).outcome.expect("accepted");
    }
    let before = resident_bytes();
    let mut seconds = 0.0;
    for number in 0..files {
        let line = put(number / per_directory, number).to_line();
        let begun = Instant::now();
        let change = Change::from_line(&line).expect("a change");
        namespace.apply(number + 3, &change).outcome.expect("accepted");
        seconds += begun.elapsed().as_secs_f64();
    }
    let bytes = resident_bytes().saturating_sub(before);
    println!("{files} files, {per_directory} to a directory, one object each");
    let before = resident_bytes();
    let mut holdings = Holdings::default();
    (1..=3).map(DstoreId).for_each(|dstore| holdings.connected(dstore));
    for object in 0..files {
        let key = Key { history: History(0x1234_5678_9abc_def0), term: 3, number: object };
        let copy = CopyReport { key, length: 1000, checksum: Checksum(object), is_damaged: false };
        (1..=3).map(DstoreId).for_each(|dstore| holdings.reported(dstore, &copy));
    }
    let of_holdings = resident_bytes().saturating_sub(before);
    let a_file = |bytes: u64| bytes as f64 / files as f64;
    println!("memory               {:8.0} bytes a file", a_file(bytes + of_holdings));
    println!("  of it, holdings    {:8.0} bytes, 3 copies", a_file(of_holdings));
    println!("parse and apply      {:8.2} us a put", seconds / files as f64 * 1e6);

    let wide = (files..2 * files).map(|number| put(u64::MAX, number));
    for (sequence, change) in (namespace.sequence() + 1..).zip(wide) {
        namespace.apply(sequence, &change).outcome.expect("accepted");
    }
    let directory: Path = format!("/{}", u64::MAX).parse().expect("a path");
    let (begun, mut pages, mut after) = (Instant::now(), 0, String::new());
    loop {
        let page =
            namespace.list(&directory, Query { after: &after, ..Query::default() }, 1000, |_| true).expect("there");
        pages += 1;
        match page.after {
            Some(next) => after = next,
            None => break,
        }
    }
    println!("list 1,000 of {files} {:8.3} ms", begun.elapsed().as_secs_f64() * 1e3 / f64::from(pages));

    let (begun, mut found, mut after) = (Instant::now(), 0, String::new());
    let pattern = Pattern::new("*77*");
    loop {
        let query = Query { after: &after, is_recursive: true, ..Query::default() };
        let matches = |entry: &str| pattern.matches_last_component(entry);
        let page = namespace.list(&Path::root(), query, 1000, matches).expect("there");
        found += page.entries.len();
        match page.after {
            Some(next) => after = next,
            None => break,
        }
    }
    println!("find among {}    {:8.2} s, {found} found", 2 * files, begun.elapsed().as_secs_f64());

    let begun = Instant::now();
    let beginning = namespace.begin_walk();
    let mut lines = Vec::new();
    let mut longest = 0.0_f64;
    loop {
        let begun = Instant::now();
        let step = namespace.walk_on(1000);
        longest = longest.max(begun.elapsed().as_secs_f64());
        if step.is_empty() {
            break;
        }
        lines.extend(step);
    }
    println!(
        "walk {} records {:8.2} s, longest step {:.2} ms",
        lines.len(),
        begun.elapsed().as_secs_f64(),
        longest * 1e3
    );
    let begun = Instant::now();
    let mut restore = Restore::new(beginning);
    lines.iter().for_each(|line| restore.enter(line).expect("a record"));
    let restored = restore.finish().expect("all records");
    println!("read them back       {:8.2} s", begun.elapsed().as_secs_f64());
    assert_eq!((restored.hash(), restored.entry_count()), (namespace.hash(), namespace.entry_count()));
}
