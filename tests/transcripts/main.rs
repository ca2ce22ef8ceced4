//! Wire transcripts: text files to be read beside the spec, and played against the real thing.
//!
//! ```text
//! # A store completes on its last acknowledgement, not before. (spec 4.2)
//! cluster replicas=2 dstores=d1,d2
//! client -> STORE notes.txt 5
//! client <- STORE_TO d1 d2
//! d1 -> STORE_ACK notes.txt
//! client <- (nothing)
//! d2 -> STORE_ACK notes.txt
//! client <- STORE_COMPLETE
//! ```
//!
//! A file holds cases. A *header* begins one; the comment right above it says what is shown, and cites the spec. Each
//! case has a process of its own to talk to; all others are played. Blank lines and further comments may be anywhere.
//!
//! | header | what is real |
//! |---|---|
//! | `cluster replicas=2 dstores=d1,d2` | a Controller. d1 and d2 have joined, one after the other, and answered the LISTs that this caused: a case begins at rest. `timeout=400` in ms (otherwise so long that nothing waits for it), `period=500` in ms (otherwise none) |
//! | `dstore` | a Dstore with a folder of its own, whose JOIN has been heard. `timeout=400` likewise; `leftovers=a,b`: files in the folder before it starts; `join=shown`: the transcript hears the JOIN |
//!
//! A *step* is what one party does. Parties have any names. In a `cluster`, d1, d2 and so on have ports to be found at;
//! in a `dstore`, p1, p2 and so on listen for others to connect to them, like the `controller`, and `dstore` is the
//! real one. A party that says something without a connection first connects to the real process, also after an end.
//! (p1 and the controller take the next connection made to them instead.) A word of a line that is such a name stands
//! for its port, both ways. A list, `d1,d2 <- LIST`, is one step for each.
//!
//! | step | meaning |
//! |---|---|
//! | `client -> LIST` | says this line, with `\n`, in one packet |
//! | `client <- LIST a b` | hears exactly this line; waits for it up to 5 s |
//! | `client -> content "hello"` | says these bytes: nothing is added. Escapes: `\n \r \t \0 \" \\ \xff` |
//! | `client <- content 1000 "ab"` | hears 2000 bytes. `raw` is another word for `content`, with `{d1}` for a port |
//! | `client <- (nothing)` | hears nothing for 80 ms; a list shares one such while |
//! | `client <- (closed)`, `<- (reset)` | hears the orderly end of the stream, or a reset, and nothing before it; ends the connection, too |
//! | `client <- (end)` | hears the orderly end of the stream, and may go on speaking |
//! | `client -> (close)`, `-> (reset)` | ends the connection, orderly or not |
//! | `client -> (end)` | says no more, and may go on hearing |
//! | `client connects`, `connects to ::1` | connects and says nothing; for IPv6 127.0.0.1 stands in where there is none |
//! | `d3 joins`, `d3 leaves` | says JOIN, or closes, and waits until the Controller knows |
//! | `folder: a b`, `folder: (empty)` | the Dstore's folder comes to hold just these |
//! | `dstore ends` | the Dstore has noticed that the Controller is gone |
//!
//! In a line, `{x*255}` is `x` 255 times. A word `{a}` in a `<-` line stands for the Dstore that comes there. It stands
//! for the same Dstore from then on, and no other such name does. So a transcript need not say which Dstore it is where
//! the spec does not. In `{a} <- LIST`, it stands for the party that hears the LIST.
//!
//! After the last step every party must have heard everything. A case fails at a failed step, an unheard line, an end
//! that is not written down, or a connection that was not used. With `UPDATE=1` in the environment the `<-` lines (and
//! `folder:`) are recorded anew, for the diff to be reviewed: `UPDATE=1 cargo test --test transcripts`.

mod peer;
mod script;
mod stage;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use kit::comes_true;
use script::Case;
use stage::{Manner, Outcome};

/// A test for each file of this folder.
macro_rules! transcripts {
    ($($file:ident)*) => {
        const FILES: &[&str] = &[$(concat!(stringify!($file), ".txt")),*];
        $(
            #[test]
            fn $file() {
                run(concat!(stringify!($file), ".txt"));
            }
        )*
    };
}

transcripts! {
    controller_wire
    controller_join
    controller_states
    controller_store
    controller_load
    controller_remove
    controller_rebalance
    controller_rebalance_failures
    controller_official_client
    dstore_wire
    dstore_store
    dstore_load_and_remove
    dstore_rebalance
    dstore_rebalance_store
}

/// Mostly they wait.
const CASES_AT_ONCE: usize = 16;

/// For anything that must come. Generous, as it is no part of what is tested; but shorter than the timeouts are unless a
/// header says otherwise, so that what should happen at once and happens only after a timeout is noticed.
const PATIENCE: Duration = Duration::from_secs(5);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts")
}

/// Plays a file, or records it anew.
fn run(file: &str) {
    let path = folder().join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let update = std::env::var("UPDATE").is_ok_and(|value| value == "1");
    let Performance { text: recorded, failures } = perform(file, &text, Manner { update, patience: PATIENCE });
    if recorded != text {
        fs::write(&path, recorded).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    assert!(failures.is_empty(), "\n{}\n{} of the cases failed", failures.join("\n"), failures.len());
}

struct Performance {
    /// The file as it should be; changed only by an update.
    text: String,
    failures: Vec<String>,
}

fn perform(file: &str, text: &str, manner: Manner) -> Performance {
    let cases = match script::parse(text) {
        Ok(cases) => cases,
        Err(error) => return Performance { text: text.to_owned(), failures: vec![format!("{file}:{error}")] },
    };
    if cases.is_empty() {
        return Performance { text: text.to_owned(), failures: vec![format!("{file}: there is no case in it")] };
    }
    let mut lines: Vec<Vec<String>> = text.lines().map(|line| vec![line.to_owned()]).collect();
    let mut failures = Vec::new();
    for (case, outcome) in cases.iter().zip(play_all(&cases, manner)) {
        for (line, came) in outcome.edits {
            lines[line - 1] = came;
        }
        lines[case.last_line - 1].extend(outcome.additions);
        if let Some(failure) = outcome.failure {
            let problem = failure.problem.replace('\n', "\n    ");
            let log = failure.log.join("\n      ");
            failures.push(format!("{file}:{}: {}\n    {problem}\n    so far:\n      {log}", failure.line, case.title));
        }
    }
    let text = lines.concat().iter().flat_map(|line| [line, "\n"]).collect();
    Performance { text, failures }
}

/// The outcomes in the order of the cases.
fn play_all(cases: &[Case], manner: Manner) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let outcomes: Vec<Mutex<Option<Outcome>>> = cases.iter().map(|_| Mutex::new(None)).collect();
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(case) = cases.get(at) else { return };
            *outcomes[at].lock().expect("no thread panics with it") = Some(stage::play(case, manner));
        }
    };
    thread::scope(|scope| {
        for _ in 0..CASES_AT_ONCE.min(cases.len()) {
            scope.spawn(work);
        }
    });
    let outcome = |slot: Mutex<Option<_>>| slot.into_inner().ok().flatten().expect("every case is played");
    outcomes.into_iter().map(outcome).collect()
}

mod tests {
    use super::*;

    /// Shorter than for real: much of what is waited for here does not come.
    const CHECK: Manner = Manner { update: false, patience: Duration::from_secs(1) };
    const UPDATE: Manner = Manner { update: true, ..CHECK };

    /// Plays a case of which only the steps matter.
    fn steps(header: &str, steps: &[&str], manner: Manner) -> Performance {
        perform("a.txt", &format!("# A case. (spec 2.1)\n{header}\n{}\n", steps.join("\n")), manner)
    }

    fn failure(header: &str, lines: &[&str]) -> String {
        let Performance { failures, .. } = steps(header, lines, CHECK);
        assert_eq!(failures.len(), 1, "{failures:?}");
        failures.concat()
    }

    fn assert_passes(header: &str, lines: &[&str]) {
        let Performance { failures, .. } = steps(header, lines, CHECK);
        assert!(failures.is_empty(), "{}", failures.concat());
    }

    const CLUSTER: &str = "cluster replicas=1 dstores=d1,d2";

    #[test]
    fn every_file_of_the_folder_is_played() {
        let files = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut found: Vec<_> = files.filter(|name| name.ends_with(".txt")).collect();
        let mut expected = FILES.to_vec();
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_wrong_expectation_fails_and_says_what_came() {
        let failure = failure(CLUSTER, &["client -> STORE a 5", "client <- STORE_TO d2"]);
        for part in ["a.txt:4: A case.", "expected: client <- STORE_TO d2", "came:     client <- STORE_TO d1"] {
            assert!(failure.contains(part), "{part}: {failure}");
        }
        assert!(failure.contains("client -> STORE a 5\n"), "the log: {failure}");
    }

    #[test]
    fn a_line_must_be_as_written_to_the_last_byte() {
        assert_passes(CLUSTER, &["client -> LIST", "client <- raw \"LIST\\n\""]);
        for wrong in ["LIST a", "LIS", "raw \"LIST \\n\"", "(closed)"] {
            let failure = failure(CLUSTER, &["client -> LIST", &format!("client <- {wrong}")]);
            assert!(failure.contains("client <- "), "{failure}");
        }
    }

    #[test]
    fn nothing_means_that_nothing_comes() {
        let failure = failure(CLUSTER, &["client -> LIST", "client <- (nothing)"]);
        assert!(failure.contains("came:     client <- LIST"), "{failure}");
        assert_passes("dstore", &["client connects", "client,p1,controller <- (nothing)"]);
    }

    #[test]
    fn what_is_not_heard_fails() {
        // A left-over line is seen only if it comes soon after the last step: on a busy machine perhaps not the first
        // time.
        let failure = |header, lines: &[&str]| {
            let mut failures = Vec::new();
            let fails = comes_true(kit::PATIENCE, || {
                failures = steps(header, lines, CHECK).failures;
                !failures.is_empty()
            });
            assert!(fails, "it passes");
            failures.concat()
        };
        let line = failure(CLUSTER, &["client -> LIST"]);
        assert!(line.contains("more has come than is written:\n              client <- LIST"), "{line}");
        let end = failure("dstore", &["client -> LOAD_DATA absent"]);
        assert!(end.contains("client <- (closed)"), "{end}");
        let send = ["client -> STORE f 0", "client <- ACK", "client <- (closed)", "controller <- STORE_ACK f"];
        let connection = failure("dstore", &[send.as_slice(), &["controller -> REBALANCE 1 f 1 p1 0"]].concat());
        assert!(connection.contains("p1 <- REBALANCE_STORE f 0"), "{connection}");
    }

    #[test]
    fn ends_are_told_apart() {
        let send = ["client -> STORE f 0", "client <- ACK", "client <- (closed)", "controller <- STORE_ACK f"];
        assert_passes("dstore", &send);
        let failed = ["client -> REBALANCE_STORE f 5", "client <- ACK", "client -> (end)"];
        assert_passes("dstore", &[failed.as_slice(), &["client <- (reset)"]].concat());
        let wrong = failure("dstore", &[failed.as_slice(), &["client <- (closed)"]].concat());
        assert!(wrong.contains("came:     client <- (reset)"), "{wrong}");
    }

    #[test]
    fn variables_stand_for_different_dstores_each_for_one() {
        let header = "cluster replicas=2 dstores=d1,d2";
        let store = ["client -> STORE a 1", "client <- STORE_TO {x} {y}", "{y},{x} -> STORE_ACK a"];
        assert_passes(header, &[store.as_slice(), &["{who} <- STORE_COMPLETE"]].concat());
        for wrong in ["STORE_TO {x} {x}", "STORE_TO {x}", "STORE_TO d2 {x}", "STORE_TO {x} 4"] {
            failure(header, &["client -> STORE a 1", &format!("client <- {wrong}")]);
        }
        let nobody = failure(CLUSTER, &["client -> LIST", "{who} <- LIST a"]);
        assert!(nobody.contains("client <- LIST") && nobody.contains("d1 <- (nothing)"), "{nobody}");
    }

    #[test]
    fn an_update_records_what_came() {
        let written = ["client -> STORE a 1", "client <- (nothing)", "d1 -> STORE_ACK a", "client -> LIST"];
        let Performance { text, failures } = steps(CLUSTER, &written, UPDATE);
        assert_eq!(failures, [""; 0]);
        let recorded = "# A case. (spec 2.1)\n\
            cluster replicas=1 dstores=d1,d2\n\
            client -> STORE a 1\n\
            client <- STORE_TO d1\n\
            d1 -> STORE_ACK a\n\
            client -> LIST\n\
            client <- STORE_COMPLETE\n\
            client <- LIST a\n";
        assert_eq!(text, recorded);
        let Performance { text, failures } = perform("a.txt", recorded, UPDATE);
        assert_eq!((text.as_str(), failures.len()), (recorded, 0), "what is right stays");
        let folder = steps("dstore leftovers=old", &["folder: old"], UPDATE);
        assert!(folder.text.ends_with("folder: (empty)\n"), "{}", folder.text);
    }

    #[test]
    fn without_an_update_a_file_stays_as_it_is() {
        let text = "# A case. (spec 2.1)\ncluster replicas=1\nclient -> LIST\nclient <- LIST\n";
        assert_eq!(perform("a.txt", text, CHECK).text, text);
    }

    #[test]
    fn a_mistake_in_a_file_is_named() {
        let header = "# A case. (spec 2.1)\ncluster replicas=1\n";
        let cases = [
            ("client -> LIST\n", "a.txt:1: a step before the first header"),
            ("cluster replicas=1\n", "a.txt:1: the comment above a header"),
            ("# A case.\ncluster replicas=1\n", "a.txt:2: the comment above a header"),
            ("# A case. (spec 2.1)\ncluster\n", "a.txt:2: cluster without replicas="),
            ("# A case. (spec 2.1)\ncluster replicas=1 dstore=d1\n", "a.txt:2: no option of cluster is called dstore"),
            (&format!("{header}client says LIST\n"), "a.txt:3: not a step"),
            (&format!("{header}client <- (silence)\n"), "a.txt:3: what is (silence)?"),
            (&format!("{header}client -> raw \"\\q\"\n"), "a.txt:3: an unknown escape"),
            (&format!("{header}client <- LIST\n"), "client is not connected"),
            (&format!("{header}client -> (close)\n"), "client is not connected"),
            (&format!("{header}{{a}} -> LIST\n"), "who is {a}?"),
            (&format!("{header}folder: a\n"), "there is no folder"),
        ];
        for (text, expected) in cases {
            let Performance { failures, .. } = perform("a.txt", text, CHECK);
            assert!(failures.concat().contains(expected), "{text}: {failures:?}");
        }
    }
}
