//! Bugs put into Stevedore on purpose. The torture has to find each of them.
//!
//! `cargo run --release -p torture -- mutants` copies the workspace, breaks the copy in one way after another, builds it, and
//! tortures it with a few seeds until something is found wrong.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use stevedore::program::{Failure, output::say};

/// This many seeds are tried with each mutant before it counts as one that survives.
const SEEDS: u64 = 8;

/// One bug.
struct Mutant {
    name: &'static str,
    /// What it breaks.
    breaks: &'static str,
    /// What to change: in which file, a text that occurs there once, and what to put in its place.
    edits: &'static [(&'static str, &'static str, &'static str)],
    /// What it is tortured with.
    options: &'static [&'static str],
    /// Why it is not found, where that is known: here the torture is weak.
    survives: Option<&'static str>,
}

const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "one-ack-too-few",
        breaks: "spec 4.2: a store completes on R-1 acknowledgements",
        edits: &[("src/index/mod.rs", "if !storing.awaited.is_empty() {", "if storing.awaited.len() > 1 {")],
        options: &[],
        survives: None,
    },
    Mutant {
        name: "no-temporary-name",
        breaks: "spec 7.11: content is written under the file's own name from the first byte",
        edits: &[
            ("src/dstore/folder.rs", "self.path.join(format!(\"{INCOMING}{arrival}\"))", "self.path.join(name)"),
            ("src/dstore/folder.rs", ".create_new(true)", ".create(true).truncate(true)"),
        ],
        options: &[],
        survives: None,
    },
    Mutant {
        name: "plan-is-believed",
        breaks: "spec 4.6.6: the index is updated although a Dstore has not reported",
        edits: &[("src/index/rebalance/orders.rs", "reported.contains(dstore))", "reported.contains(dstore) || true)")],
        options: &["--replicas", "1", "--dstores", "4", "--names", "60", "--clients", "24"],
        survives: None,
    },
    Mutant {
        name: "unsent-is-removed",
        breaks: "spec 7.17: a rebalance removes a copy that it could not send",
        edits: &[("src/dstore/rebalancer.rs", "if unsent.contains(name) {", "if unsent.len() > usize::MAX / 2 {")],
        options: &["--replicas", "1", "--dstores", "4", "--names", "60", "--clients", "20", "--period-ms", "100"],
        survives: None,
    },
    Mutant {
        name: "receiver-is-not-awaited",
        breaks: "spec 7.18: a sender does not wait until the receiver has stored the copy",
        edits: &[("src/dstore/rebalancer.rs", "connection.wait_for_end(dstore.timeout)", "Ok(())")],
        options: &["--replicas", "1", "--dstores", "4", "--names", "60", "--clients", "20", "--period-ms", "100"],
        survives: None,
    },
    Mutant {
        name: "half-is-listed",
        breaks: "spec 3.2, 4.5: LIST shows stores in progress",
        edits: &[(
            "src/index/mod.rs",
            "matches!(file.state, State::Stored { .. })",
            "!matches!(file.state, State::Removing(_))",
        )],
        options: &[],
        survives: None,
    },
    Mutant {
        name: "one-remove-is-enough",
        breaks: "spec 4.4: a remove completes on the first acknowledgement",
        edits: &[("src/index/mod.rs", "let is_complete = removing.awaited.is_empty();", "let is_complete = true;")],
        options: &[],
        survives: Some("the other REMOVEs are under way all the same, and what they miss goes with the next rebalance"),
    },
    Mutant {
        name: "late-transfer-wins",
        breaks: "a transfer that a newer one has overtaken is kept all the same",
        edits: &[("src/dstore/folder.rs", "if !self.is_newest(&state) {", "if state.newest.len() > usize::MAX / 2 {")],
        options: &["--names", "3"],
        survives: Some("clients that stop in time hardly ever leave a transfer behind that a newer one could overtake"),
    },
    Mutant {
        name: "cut-content-is-kept",
        breaks: "spec 2.3, 7.11: a transfer that ends early is stored as if it were whole",
        edits: &[(
            "src/dstore/transfers.rs",
            "copy(size, &mut content, &mut |bytes| incoming.write_all(bytes))?;",
            "let _ = copy(size, &mut content, &mut |bytes| incoming.write_all(bytes));",
        )],
        options: &[],
        survives: None,
    },
    Mutant {
        name: "silence-is-loss",
        breaks: "spec 7.16: the copies of a Dstore that does not answer count as gone",
        edits: &[("src/index/reconcile.rs", "if is_silent(dstore) {", "if is_silent(dstore) && false {")],
        options: &["--replicas", "1", "--dstores", "4"],
        survives: None,
    },
    Mutant {
        name: "debris-is-trusted",
        breaks: "spec 4.6.2: copies that a failed store has left count as the file's",
        edits: &[
            ("src/index/reconcile.rs", "if has_trusted {", "if false {"),
            ("src/index/reconcile.rs", "if replicas.iter().all(is_untrusted) {", "{"),
            (
                "src/index/reconcile.rs",
                "*replicas = untrusted.into_iter().map(Replica::certain).collect();",
                "replicas.extend(untrusted.into_iter().map(Replica::certain));",
            ),
        ],
        options: &["--names", "4", "--period-ms", "2000"],
        survives: Some(
            "debris and a file of the same name and size must meet within a period, or a load goes elsewhere",
        ),
    },
    Mutant {
        name: "tried-is-forgotten",
        breaks: "spec 4.3: a RELOAD may be offered a Dstore that has been tried",
        edits: &[(
            "src/controller/session/client.rs",
            "Some((loading, tried)) if loading == name => tried,",
            "Some((loading, _)) if loading == name => Vec::new(),",
        )],
        options: &[],
        survives: None,
    },
    Mutant {
        name: "failed-store-stays",
        breaks: "spec 4.2: a store that is not acknowledged in time stays in the index",
        edits: &[("src/controller/state.rs", "self.index.abandon_store(name);", "")],
        options: &[],
        survives: None,
    },
    Mutant {
        name: "rebalance-does-not-wait",
        breaks: "spec 4.6: a rebalance begins while stores and removes are in progress",
        edits: &[(
            "src/controller/gate.rs",
            "while state.door == Door::Closing && !state.is_empty() {",
            "while state.door == Door::Closing && state.inside > usize::MAX / 2 {",
        )],
        options: &[],
        survives: None,
    },
    Mutant {
        name: "late-line-is-taken",
        breaks: "spec 6.1: our client takes a late answer for that to its next request",
        edits: &[("src/client/mod.rs", "self.connection = None;\n        Err(failure)", "Err(failure)")],
        options: &[],
        survives: None,
    },
    Mutant {
        name: "depot-change-made-twice",
        breaks: "depot 3.5: a change that is sent again, as its answer was lost, is made again",
        edits: &[("crates/depot/src/namespace/sessions.rs", "return Standing::Made(*outcome);", "let _ = outcome;")],
        options: &["depot"],
        survives: None,
    },
    Mutant {
        name: "depot-unknown-is-failure",
        breaks: "depot 3.5: a change whose outcome is unknown is said to have had no effect",
        edits: &[(
            "crates/depot/src/client/cluster.rs",
            "Err(Unanswered { error: Error::Unavailable(why), attempts }) if attempts > 1 => {",
            "Err(Unanswered { error: Error::Unavailable(why), attempts }) if attempts > 1_000_000 => {",
        )],
        options: &["depot"],
        survives: None,
    },
    Mutant {
        name: "depot-one-copy-is-enough",
        breaks: "depot 5.1: a put succeeds with one copy, whatever W is",
        edits: &[
            ("crates/depot/src/controller/requests.rs", "if holders.len() < quorum {", "if holders.is_empty() {"),
            (
                "crates/depot/src/controller/requests.rs",
                "write_quorum: quorum as u32, ..Grants::default() };",
                "write_quorum: 1, ..Grants::default() };",
            ),
        ],
        options: &["depot", "--dstores", "3"],
        survives: Some("the one copy must be damaged in the half second before the others are made"),
    },
    Mutant {
        name: "depot-condition-is-forgotten",
        breaks: "depot 3.4: the condition of a put is not checked",
        edits: &[(
            "crates/depot/src/namespace/apply.rs",
            "self.check(condition, &spot)?;\n        match spot.found {",
            "let _ = condition;\n        match spot.found {",
        )],
        options: &["depot"],
        survives: None,
    },
    Mutant {
        name: "depot-log-is-forgotten",
        breaks: "depot 4.2: a Controller that starts takes the snapshot for all there is",
        edits: &[(
            "crates/depot/src/log/replica.rs",
            "if entry.index > meta.sequence {",
            "if entry.index < meta.sequence {",
        )],
        options: &["depot"],
        survives: None,
    },
    Mutant {
        name: "depot-refused-is-told",
        breaks: "depot 3.4: watch tells changes that had no effect",
        edits: &[(
            "crates/depot/src/controller/requests.rs",
            "changes.iter().filter(|(sequence, _)| namespace.was_effective(*sequence));",
            "changes.iter().filter(|(sequence, _)| namespace.was_effective(*sequence) || true);",
        )],
        options: &["depot"],
        survives: None,
    },
    Mutant {
        name: "depot-leased-is-collected",
        breaks: "depot 5.3: an object is collected although its key is leased",
        edits: &[(
            "crates/depot/src/controller/healing/collection.rs",
            "if state.is_leased(key, epoch) {",
            "if false && state.is_leased(key, epoch) {",
        )],
        options: &["depot", "--hasty"],
        survives: None,
    },
    Mutant {
        name: "depot-lease-is-not-needed",
        breaks: "depot 5.3: a put is accepted although the lease of its keys has ended",
        edits: &[(
            "crates/depot/src/controller/requests.rs",
            "if !state.keys.propose(client, &numbers, change) {",
            "if !state.keys.propose(client, &numbers, change) && numbers.is_empty() {",
        )],
        options: &["depot", "--hasty"],
        survives: None,
    },
    Mutant {
        name: "depot-damage-counts",
        breaks: "depot 6.3: a damaged copy counts as a good one, and is not healed",
        edits: &[(
            "crates/depot/src/placement/plan.rs",
            "copy.state == CopyState::Certain && presence(copy.dstore) == Presence::Known",
            "copy.state != CopyState::Claimed && presence(copy.dstore) == Presence::Known",
        )],
        options: &["depot"],
        survives: None,
    },
    Mutant {
        name: "depot-damage-is-served",
        breaks: "depot 1.3: neither the Dstore nor the client verifies what is read",
        edits: &[
            ("crates/depot/src/pack/read.rs", "if good < wanted.len() {", "if good > wanted.len() {"),
            (
                "crates/depot/src/client/download.rs",
                "if sums.get((at / BLOCK) as usize) != Some(&Checksum::of(bytes)) {",
                "if sums.is_empty() && Checksum::of(bytes).0 == 1 {",
            ),
        ],
        options: &["depot"],
        survives: None,
    },
    Mutant {
        name: "depot-range-is-cut-wrong",
        breaks: "depot 5.5: a read that goes on with another holder repeats what it has handed over",
        edits: &[(
            "crates/depot/src/client/download.rs",
            "let wanted = position.saturating_sub(at)",
            "let wanted = (if *position > at { 0 } else { position.saturating_sub(at) })",
        )],
        options: &["depot"],
        survives: None,
    },
    Mutant {
        name: "depot-copy-goes-too-early",
        breaks: "depot 5.4: the damaged copy, the only one left, is removed",
        edits: &[
            (
                "crates/depot/src/placement/plan.rs",
                "|| counted.len() < need.wanted || need.wanted == 0 {",
                "|| need.wanted == 0 {",
            ),
            ("crates/depot/src/placement/plan.rs", "if missing > 0 || need.is_guarded", "if need.is_guarded"),
        ],
        options: &["depot"],
        survives: None,
    },
];

/// Tries the mutants, or some of them, with `seconds` for each seed; fails if one survives. Works in `work`, which need not
/// be there; left there, it makes the next hunt faster.
pub fn hunt(chosen: &[String], seconds: u64, work: &Path) -> Result<(), Failure> {
    let root = workspace()?;
    let is_chosen = |mutant: &&Mutant| chosen.is_empty() || chosen.iter().any(|name| name == mutant.name);
    let mutants: Vec<_> = MUTANTS.iter().filter(is_chosen).collect();
    if mutants.len() < chosen.len() {
        let names: Vec<_> = MUTANTS.iter().map(|mutant| mutant.name).collect();
        return Err(Failure::usage(format!("the mutants are: {}", names.join(" "))));
    }
    let mut survivors = Vec::new();
    for mutant in &mutants {
        say(format_args!("{}: {}", mutant.name, mutant.breaks))?;
        let failed = |error: io::Error| Failure::new(format!("{}: {error}", mutant.name));
        let program = build(&root, work, mutant).map_err(failed)?;
        match torture(&program, mutant, seconds).map_err(failed)? {
            Some((seed, took, found)) => say(format_args!("  found after {took:.0?} (seed {seed}): {found}\n"))?,
            None => {
                say(format_args!("  NOT FOUND with {SEEDS} seeds of {seconds} s"))?;
                match mutant.survives {
                    Some(reason) => say(format_args!("  as is known: {reason}\n"))?,
                    None => survivors.push(mutant.name),
                }
            }
        }
    }
    let count = mutants.len();
    match survivors.len() {
        0 => say(format_args!("all {count} mutants are found, or known to survive")),
        _ => Err(Failure::new(format!("{} of {count} mutants survive: {}", survivors.len(), survivors.join(" ")))),
    }
}

/// Where this package's workspace is. Cargo tells the program that it runs.
fn workspace() -> Result<PathBuf, Failure> {
    let package = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let root = package.and_then(|package| Some(package.parent()?.parent()?.to_owned()));
    root.ok_or_else(|| Failure::usage("the sources are needed: cargo run --release -p torture -- mutants"))
}

/// Copies the workspace, breaks the copy, and builds its torture.
fn build(root: &Path, work: &Path, mutant: &Mutant) -> io::Result<PathBuf> {
    let copy = work.join("workspace");
    let _ = fs::remove_dir_all(&copy);
    copy_folder(root, &copy)?;
    for (file, text, replacement) in mutant.edits {
        let path = copy.join(file);
        let source = fs::read_to_string(&path)?;
        if source.matches(text).count() != 1 {
            return Err(io::Error::other(format!("{file} does not contain exactly once: {text}")));
        }
        fs::write(path, source.replace(text, replacement))?;
    }
    let target = work.join("target");
    let built = Command::new("cargo")
        .args(["build", "--release", "--quiet", "-p", "torture"])
        .env("CARGO_TARGET_DIR", &target)
        .current_dir(&copy)
        .output()?;
    if built.status.success() {
        Ok(target.join("release/torture"))
    } else {
        Err(io::Error::other(String::from_utf8_lossy(&built.stderr)))
    }
}

/// The seed that finds something wrong, after how long, and what.
fn torture(program: &Path, mutant: &Mutant, seconds: u64) -> io::Result<Option<(u64, Duration, String)>> {
    let begun = Instant::now();
    for seed in 1..=SEEDS {
        let output = Command::new(program)
            .args(["--seconds", &seconds.to_string(), "--seed", &seed.to_string()])
            .args(mutant.options)
            .stderr(Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        if let Some((_, found)) = said.split_once("WRONG: ") {
            return Ok(Some((seed, begun.elapsed(), found.lines().next().unwrap_or_default().to_owned())));
        }
        if !output.status.success() {
            return Err(io::Error::other(format!("it fails with seed {seed}, and says nothing of the reason")));
        }
    }
    Ok(None)
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (name, target) = (entry.file_name(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            if name != "target" && !name.to_string_lossy().starts_with('.') {
                copy_folder(&entry.path(), &target)?;
            }
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutant_still_finds_the_text_that_it_changes() {
        let root = workspace().unwrap();
        for Mutant { name, edits, .. } in MUTANTS {
            for (file, text, replacement) in *edits {
                let source = fs::read_to_string(root.join(file)).unwrap();
                assert_eq!(source.matches(text).count(), 1, "{name}: {file} should contain exactly once: {text}");
                assert_ne!(text, replacement, "{name}");
            }
        }
    }

    #[test]
    fn no_two_mutants_have_one_name() {
        let names: std::collections::BTreeSet<_> = MUTANTS.iter().map(|mutant| mutant.name).collect();
        assert_eq!(names.len(), MUTANTS.len());
    }
}
