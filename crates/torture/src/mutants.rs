//! Bugs put into Stevedore on purpose. The torture has to find each of them.
//!
//! `cargo run --release -p torture -- mutants` copies the workspace, breaks the copy in one way after another, builds it, and
//! tortures it with a few seeds until something is found wrong. What a group of Controllers keeps through power cuts and elections,
//! no kill of a process shows: bugs there are for the simulation of such a group, in the tests of `depot`.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use stevedore::program::{Failure, output::say};

/// This many seeds are tried with each mutant before it counts as one that survives.
const SEEDS: u64 = 8;

/// The same, of the simulation.
const SIMULATIONS: u64 = 1000;

/// One bug.
struct Mutant {
    name: &'static str,
    /// What it breaks.
    breaks: &'static str,
    /// What to change: in which file, a text that occurs there once, and what to put in its place.
    edits: &'static [(&'static str, &'static str, &'static str)],
    /// What is to find it.
    hunt: Hunt,
    /// Why it is not found, where that is known: here the torture is weak.
    survives: Option<&'static str>,
}

/// See [`Mutant::hunt`].
enum Hunt {
    /// Torture with these options.
    Storms(&'static [&'static str]),
    /// The simulation of a group of Controllers.
    Simulation,
}

use Hunt::{Simulation, Storms};

const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "one-ack-too-few",
        breaks: "spec 4.2: a store completes on R-1 acknowledgements",
        edits: &[("src/index/mod.rs", "if !storing.awaited.is_empty() {", "if storing.awaited.len() > 1 {")],
        hunt: Storms(&[]),
        survives: None,
    },
    Mutant {
        name: "no-temporary-name",
        breaks: "spec 7.11: content is written under the file's own name from the first byte",
        edits: &[
            ("src/dstore/folder.rs", "self.path.join(format!(\"{INCOMING}{arrival}\"))", "self.path.join(name)"),
            ("src/dstore/folder.rs", ".create_new(true)", ".create(true).truncate(true)"),
        ],
        hunt: Storms(&[]),
        survives: None,
    },
    Mutant {
        name: "plan-is-believed",
        breaks: "spec 4.6.6: the index is updated although a Dstore has not reported",
        edits: &[("src/index/rebalance/orders.rs", "reported.contains(dstore))", "reported.contains(dstore) || true)")],
        hunt: Storms(&["--replicas", "1", "--dstores", "4", "--names", "60", "--clients", "24"]),
        survives: None,
    },
    Mutant {
        name: "unsent-is-removed",
        breaks: "spec 7.17: a rebalance removes a copy that it could not send",
        edits: &[("src/dstore/rebalancer.rs", "if unsent.contains(name) {", "if unsent.len() > usize::MAX / 2 {")],
        hunt: Storms(&["--replicas", "1", "--dstores", "4", "--names", "60", "--clients", "20", "--period-ms", "100"]),
        survives: None,
    },
    Mutant {
        name: "receiver-is-not-awaited",
        breaks: "spec 7.18: a sender does not wait until the receiver has stored the copy",
        edits: &[("src/dstore/rebalancer.rs", "connection.wait_for_end(dstore.timeout)", "Ok(())")],
        hunt: Storms(&["--replicas", "1", "--dstores", "4", "--names", "60", "--clients", "20", "--period-ms", "100"]),
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
        hunt: Storms(&[]),
        survives: None,
    },
    Mutant {
        name: "one-remove-is-enough",
        breaks: "spec 4.4: a remove completes on the first acknowledgement",
        edits: &[("src/index/mod.rs", "let is_complete = removing.awaited.is_empty();", "let is_complete = true;")],
        hunt: Storms(&[]),
        survives: Some("the other REMOVEs are under way all the same, and what they miss goes with the next rebalance"),
    },
    Mutant {
        name: "late-transfer-wins",
        breaks: "a transfer that a newer one has overtaken is kept all the same",
        edits: &[("src/dstore/folder.rs", "if !self.is_newest(&state) {", "if state.newest.len() > usize::MAX / 2 {")],
        hunt: Storms(&["--names", "3"]),
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
        hunt: Storms(&[]),
        survives: None,
    },
    Mutant {
        name: "silence-is-loss",
        breaks: "spec 7.16: the copies of a Dstore that does not answer count as gone",
        edits: &[("src/index/reconcile.rs", "if is_silent(dstore) {", "if is_silent(dstore) && false {")],
        hunt: Storms(&["--replicas", "1", "--dstores", "4"]),
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
        hunt: Storms(&["--names", "4", "--period-ms", "2000"]),
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
        hunt: Storms(&[]),
        survives: None,
    },
    Mutant {
        name: "failed-store-stays",
        breaks: "spec 4.2: a store that is not acknowledged in time stays in the index",
        edits: &[("src/controller/state.rs", "self.index.abandon_store(name);", "")],
        hunt: Storms(&[]),
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
        hunt: Storms(&[]),
        survives: None,
    },
    Mutant {
        name: "late-line-is-taken",
        breaks: "spec 6.1: our client takes a late answer for that to its next request",
        edits: &[("src/client/mod.rs", "self.connection = None;\n        Err(failure)", "Err(failure)")],
        hunt: Storms(&[]),
        survives: None,
    },
    Mutant {
        name: "depot-change-made-twice",
        breaks: "depot 3.5: a change that is sent again, as its answer was lost, is made again",
        edits: &[("crates/depot/src/namespace/sessions.rs", "return Standing::Made(*outcome);", "let _ = outcome;")],
        hunt: Storms(&["depot"]),
        survives: None,
    },
    Mutant {
        name: "depot-unknown-is-failure",
        breaks: "depot 3.5: a change whose outcome is unknown is said to have had no effect",
        edits: &[(
            "crates/depot/src/client/cluster.rs",
            "Err(Unanswered { why, .. }) if was_sent => {",
            "Err(Unanswered { why, .. }) if was_sent && number == 0 => {",
        )],
        hunt: Storms(&["depot"]),
        survives: None,
    },
    Mutant {
        name: "depot-key-is-issued-twice",
        breaks: "depot 2.1: a Controller that starts again issues the keys that it has issued before",
        edits: &[
            (
                "crates/depot/src/controller/keys.rs",
                "let key = Key { history: epoch.history, term: epoch.term, number: self.last + 1 };",
                "let key = Key { history: epoch.history, term: 1, number: self.last + 1 };",
            ),
            (
                "crates/depot/src/controller/requests.rs",
                "Grants { history: epoch.history, term: epoch.term, write_quorum,",
                "Grants { history: epoch.history, term: 1, write_quorum,",
            ),
        ],
        hunt: Storms(&["depot"]),
        survives: None,
    },
    Mutant {
        name: "depot-condition-is-forgotten",
        breaks: "depot 3.4: the condition of a put is not checked",
        edits: &[(
            "crates/depot/src/namespace/apply.rs",
            "self.check(condition, &spot)?;\n        match spot.found {",
            "let _ = condition;\n        match spot.found {",
        )],
        hunt: Storms(&["depot"]),
        survives: None,
    },
    Mutant {
        name: "depot-log-is-forgotten",
        breaks: "depot 4.2: a Controller that starts takes the snapshot for all there is",
        edits: &[(
            "crates/depot/src/log/replica/open.rs",
            "if entry.index > meta.index {",
            "if entry.index < meta.index {",
        )],
        hunt: Storms(&["depot"]),
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
        hunt: Storms(&["depot"]),
        survives: None,
    },
    Mutant {
        name: "depot-leased-is-collected",
        breaks: "depot 5.3: an object is collected although its key is leased",
        edits: &[
            (
                "crates/depot/src/controller/healing/collection.rs",
                "if state.keys.is_leased(key) {",
                "if false && state.keys.is_leased(key) {",
            ),
            (
                "crates/depot/src/controller/healing/mod.rs",
                "if self.keys.is_leased(key) {",
                "if false && self.keys.is_leased(key) {",
            ),
        ],
        hunt: Storms(&["depot"]),
        survives: None,
    },
    Mutant {
        name: "depot-lease-is-not-needed",
        breaks: "depot 5.3: a put is accepted although the lease of its keys has ended",
        edits: &[(
            "crates/depot/src/controller/changes.rs",
            "if now != epoch || !state.keys.propose(client, &keys, change) {",
            "if now != epoch || !state.keys.propose(client, &keys, change) && keys.is_empty() {",
        )],
        hunt: Storms(&["depot", "--hasty"]),
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
        hunt: Storms(&["depot"]),
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
        hunt: Storms(&["depot"]),
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
        hunt: Storms(&["depot"]),
        survives: None,
    },
    Mutant {
        name: "depot-first-removal-counts",
        breaks: "depot 5.3: an object is given up when the first of several files that name it goes",
        edits: &[("crates/depot/src/namespace/objects.rs", "slot.references -= 1;", "slot.references = 0;")],
        hunt: Storms(&["depot"]),
        survives: None,
    },
    Mutant {
        name: "depot-read-is-not-confirmed",
        breaks: "depot 4.5: a Controller answers reads without asking a majority whether its leader still leads",
        edits: &[(
            "crates/depot/src/log/replica/reads.rs",
            "while core.reads.done < round {",
            "while core.reads.done < round && round == 0 {",
        )],
        hunt: Storms(&["depot", "--controllers", "3"]),
        survives: None,
    },
    Mutant {
        name: "depot-follower-reads-what-it-has",
        breaks: "depot 4.5: a follower answers reads with what it has, and asks no leader",
        edits: &[(
            "crates/depot/src/log/replica/reads.rs",
            "while core.reads.done < round {",
            "while core.reads.done < round && core.leads() {",
        )],
        hunt: Storms(&["depot", "--controllers", "3"]),
        survives: None,
    },
    Mutant {
        name: "depot-deposed-leader-is-obeyed",
        breaks: "depot 5.2: a Dstore carries out what a deposed leader orders",
        edits: &[
            (
                "crates/depot/src/dstore/orders.rs",
                "if epoch != orderer.epoch || self.disk.identity().epoch != Some(epoch) {",
                "if epoch != orderer.epoch {",
            ),
            ("crates/depot/src/dstore/orders.rs", "orders.waiting.retain(|item| item.orderer.epoch == epoch);", ""),
            (
                "crates/depot/src/dstore/orders.rs",
                "while orders.running.iter().any(|(orderer, _)| orderer.epoch != epoch) && !self.is_stopping() {",
                "while orders.running.iter().any(|(orderer, _)| orderer.epoch != epoch) && self.is_stopping() {",
            ),
        ],
        hunt: Storms(&["depot", "--controllers", "3"]),
        survives: Some(
            "it costs one copy, which is healed: to lose a file, two leaders have to take different copies of it; the tests of a \
             Dstore assert the rule",
        ),
    },
    Mutant {
        name: "depot-snapshot-forgets-outcomes",
        breaks: "depot 3.5: a snapshot lacks the table of recent outcomes",
        edits: &[
            (
                "crates/depot/src/namespace/snapshot.rs",
                "self.namespace.enter(line).map_err(",
                "if line.starts_with(\"session \") || line.starts_with(\"outcome \") {\n            return Ok(());\n        }\n        self.namespace.enter(line).map_err(",
            ),
            (
                "crates/depot/src/namespace/records.rs",
                "    XxHash3_128::oneshot(line.as_bytes())\n",
                "    let is_of_table = line.starts_with(\"session \") || line.starts_with(\"outcome \");\n    if is_of_table { 0 } else { XxHash3_128::oneshot(line.as_bytes()) }\n",
            ),
        ],
        hunt: Simulation,
        survives: None,
    },
    Mutant {
        name: "depot-vote-is-not-kept",
        breaks: "depot 2.3: a Controller forgets at a power cut for which other one it has voted",
        edits: &[(
            "crates/depot/src/log/replica/drive.rs",
            "disk.append(&beginning.into_iter().chain(entries).collect::<Vec<_>>(), Some(state))?;",
            "let kept = super::HardState { vote: 0, ..state };\n                        disk.append(&beginning.into_iter().chain(entries).collect::<Vec<_>>(), Some(kept))?;",
        )],
        hunt: Simulation,
        survives: None,
    },
    Mutant {
        name: "depot-learner-counts",
        breaks: "depot 4.7: in a snapshot, a Controller that is to catch up first counts as one that votes",
        edits: &[(
            "crates/depot/src/log/snapshots.rs",
            "Self { voters: members.voters.clone(), learners: members.learners.clone() }",
            "Self { voters: [&members.voters[..], &members.learners].concat(), learners: Vec::new() }",
        )],
        hunt: Simulation,
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
        match find(&root, work, mutant, seconds).map_err(failed)? {
            Some(Found { by, took, what }) => say(format_args!("  found after {took:.0?} ({by}): {what}\n"))?,
            None => {
                let tried = match mutant.hunt {
                    Storms(_) => format!("{SEEDS} seeds of {seconds} s"),
                    Simulation => format!("{SIMULATIONS} simulations"),
                };
                say(format_args!("  NOT FOUND with {tried}"))?;
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

/// What has found a mutant.
struct Found {
    by: String,
    /// From the end of the build on.
    took: Duration,
    what: String,
}

/// Breaks a copy of the workspace, and has it hunted.
fn find(root: &Path, work: &Path, mutant: &Mutant, seconds: u64) -> io::Result<Option<Found>> {
    let copy = break_copy(root, work, mutant)?;
    let target = work.join("target");
    let cargo = |words: &[&str]| {
        let mut command = Command::new("cargo");
        command.args(words).env("CARGO_TARGET_DIR", &target).current_dir(&copy);
        command
    };
    let build = |words: &[&str]| {
        let built = cargo(words).output()?;
        let why = || io::Error::other(String::from_utf8_lossy(&built.stderr).into_owned());
        if built.status.success() { Ok(()) } else { Err(why()) }
    };
    match mutant.hunt {
        Storms(options) => {
            build(&["build", "--release", "--quiet", "-p", "torture"])?;
            torture(&target.join("release/torture"), options, seconds)
        }
        Simulation => {
            let test = ["test", "--release", "--quiet", "-p", "depot", "--lib"];
            build(&[&test[..], &["--no-run"]].concat())?;
            simulate(cargo(&test).arg("simulation::a_group"))
        }
    }
}

/// Copies the workspace, and breaks the copy.
fn break_copy(root: &Path, work: &Path, mutant: &Mutant) -> io::Result<PathBuf> {
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
    Ok(copy)
}

/// What the storms find.
fn torture(program: &Path, options: &[&str], seconds: u64) -> io::Result<Option<Found>> {
    let begun = Instant::now();
    for seed in 1..=SEEDS {
        let output = Command::new(program)
            .args(["--seconds", &seconds.to_string(), "--seed", &seed.to_string()])
            .args(options)
            .stderr(Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        if let Some((_, found)) = said.split_once("WRONG: ") {
            let what = found.lines().next().unwrap_or_default().to_owned();
            return Ok(Some(Found { by: format!("seed {seed}"), took: begun.elapsed(), what }));
        }
        if !output.status.success() {
            return Err(io::Error::other(format!("it fails with seed {seed}, and says nothing of the reason")));
        }
    }
    Ok(None)
}

/// What the simulation finds.
fn simulate(simulation: &mut Command) -> io::Result<Option<Found>> {
    let begun = Instant::now();
    let count = SIMULATIONS.to_string();
    let output = simulation.env("STEVEDORE_SEED", "1").env("SIMULATIONS", count).env("RUST_BACKTRACE", "0").output()?;
    if output.status.success() {
        return Ok(None);
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let what = said.lines().skip_while(|line| !line.contains("panicked at")).nth(1).map(str::to_owned);
    let what =
        what.ok_or_else(|| io::Error::other(format!("the simulation fails, and says nothing of the reason: {said}")))?;
    Ok(Some(Found { by: "the simulation".to_owned(), took: begun.elapsed(), what }))
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
