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

/// Marks a program with a fault by one check, which must fail, and replays that: with the same program what comes where it went wrong is
/// the same again, and with a program that is right it is this.
fn replays([role, fault]: [&str; 2], others: &[&str], check: &str, then: &str, mended: &str) {
    let json = env::temp_dir().join(format!("mark-argue-{}-{fault}.json", std::process::id()));
    let (file, option) = (json.to_str().unwrap(), format!("--{role}"));
    let wrong = command(role, &format!("--fault {fault}"));
    let marked = ["--edition", "2025", "--only", check, "--json", file];
    let output = mark(&[&[option.as_str(), &wrong], others, &marked].concat());
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));

    let again = said(&mark(&["replay", file, check]));
    let end = again.split("=>").nth(1).unwrap_or_else(|| panic!("{again}"));
    assert!(end.contains(then) && end.contains("now: the same"), "{again}");
    assert!(again.contains("then: expected "), "{again}");

    let again = said(&mark(&["replay", file, &option, &command(role, ""), "--patience", "1"]));
    let end = again.split("=>").nth(1).unwrap_or_else(|| panic!("{again}"));
    assert!(end.contains(then) && end.contains(&format!("now: {mended}")), "{again}");
    fs::remove_file(&json).unwrap();
}

#[test]
fn a_replay_shows_what_a_controller_says_now_beside_then() {
    let then = "controller -> client: STORE_COMPLETE";
    replays(["controller", "completes-early"], &[], CHECK, then, "(nothing, for 1 s)");
}

#[test]
fn a_replay_shows_what_a_dstore_says_now_beside_then() {
    let check = "dstore/remove/a-file-that-is-not-there";
    let (then, mended) = ("-> controller: ERROR_FILE_DOES_NOT_EXIST\n", "ERROR_FILE_DOES_NOT_EXIST absent");
    replays(["dstore", "error-without-name"], &[], check, then, mended);
}

#[test]
fn a_replay_of_a_whole_system_waits_until_it_stands() {
    let check = "system/sequential/the-official-clients-wrong-load";
    // They take 300 to 700 ms to start: some may take longer now than then.
    let slow = ["--dstore", &command("dstore", "--habits slow-start")];
    replays(["controller", "error-load-early"], &slow, check, "controller -> client: ERROR_LOAD", "LOAD_FROM ");
}

#[test]
fn a_replay_of_what_is_no_report_makes_no_sense() {
    let output = mark(&["replay", env!("CARGO_MANIFEST_PATH")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("no report of mark"), "{}", said(&output));
}

/// The command of the fixture in a role.
fn command(role: &str, switches: &str) -> String {
    let places =
        if role == "controller" { "{cport} {r} {timeout} {period}" } else { "{port} {cport} {timeout} {folder}" };
    format!("{} {role} {switches} {places}", faulty().display())
}

/// Builds the fixture, which is another package's program.
fn faulty() -> PathBuf {
    let built = Command::new(env!("CARGO")).args(["build", "--quiet", "-p", "faulty"]).status().unwrap();
    assert!(built.success());
    let mark = Path::new(env!("CARGO_BIN_EXE_mark"));
    mark.ancestors().nth(2).unwrap().join("debug/faulty")
}
