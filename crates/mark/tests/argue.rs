//! How to argue with the harness: `mark explain` and `mark replay`. (docs/marking.md)

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const CHECK: &str = "controller/store/completes-on-the-last-acknowledgement";

fn mark(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mark")).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat()
}

#[test]
fn a_check_is_explained_by_clause_sentence_play_and_hand() {
    let output = mark(&["explain", "store/completes-on-the-last"]);
    let explanation = said(&output);
    assert!(output.status.success(), "{explanation}");
    for part in [
        CHECK,
        "Coursework, 2021 to 2025: ",
        "each Dstore -> Controller | sent once the content is stored", // the clause
        "controller -> client: STORE_TO ",                             // what is played
        "completes a store on R-1 acknowledgements",                   // a fault that fails it
        "java Controller ",                                            // by hand
        "nc 127.0.0.1 ",
    ] {
        assert!(explanation.contains(part), "no {part:?} in:\n{explanation}");
    }
}

#[test]
fn a_part_of_an_id_that_many_checks_have_is_refused() {
    let output = mark(&["explain", "controller/store"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains(CHECK), "{}", said(&output));
    assert_eq!(mark(&["explain", "no-such-check"]).status.code(), Some(2));
}

#[test]
fn a_replay_shows_what_comes_now_beside_what_came_then() {
    let json = env::temp_dir().join(format!("mark-argue-{}.json", std::process::id()));
    let file = json.to_str().unwrap();
    let faulty =
        format!("{} controller --fault completes-early {{cport}} {{r}} {{timeout}} {{period}}", faulty().display());
    let output = mark(&["--controller", &faulty, "--only", CHECK, "--json", file]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));

    let again = said(&mark(&["replay", file, CHECK]));
    let end = again.split("=>").nth(1).unwrap_or_else(|| panic!("{again}"));
    assert!(end.contains("controller -> client: STORE_COMPLETE") && end.contains("now: the same"), "{again}");
    assert!(again.contains("then: expected nothing"), "{again}");

    let mended = faulty.replace("--fault completes-early ", "");
    let mended = said(&mark(&["replay", file, "--controller", &mended, "--patience", "1"]));
    let end = mended.split("=>").nth(1).unwrap_or_else(|| panic!("{mended}"));
    assert!(end.contains("now: (nothing, for 1 s)"), "{mended}");
    fs::remove_file(&json).unwrap();
}

#[test]
fn a_replay_of_what_is_no_report_makes_no_sense() {
    let output = mark(&["replay", env!("CARGO_MANIFEST_PATH")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("no report of mark"), "{}", said(&output));
}

/// Builds the fixture, which is another package's program.
fn faulty() -> PathBuf {
    let built = Command::new(env!("CARGO")).args(["build", "--quiet", "-p", "faulty"]).status().unwrap();
    assert!(built.success());
    let mark = Path::new(env!("CARGO_BIN_EXE_mark"));
    mark.ancestors().nth(2).unwrap().join("debug/faulty")
}
