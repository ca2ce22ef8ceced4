//! What a submission may do to the marker: nothing. (docs/marking.md)

use std::env;
use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

/// Marks something that is no Dstore, with little patience.
fn mark(name: &str, dstore: &str, only: &str) -> (Output, Value) {
    let json = env::temp_dir().join(format!("mark-safety-{}-{name}.json", std::process::id()));
    let mut mark = Command::new(env!("CARGO_BIN_EXE_mark"));
    mark.args(["--dstore", dstore, "--only", only, "--patience", "2", "--json"]).arg(&json);
    let output = mark.output().unwrap();
    let report = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    fs::remove_file(&json).unwrap();
    (output, report)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether a process with this argument is alive.
fn is_running(argument: &str) -> bool {
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        command.split(|&byte| byte == 0).any(|word| word == argument.as_bytes())
    })
}

#[test]
fn a_missing_program_fails_its_checks_and_nothing_else() {
    let (output, report) = mark("absent", "no-such-program {port} {cport} {timeout} {folder}", "dstore/list");
    assert_eq!(output.status.code(), Some(1));
    let checks = report["checks"].as_array().unwrap();
    assert!(checks.len() > 1 && checks.iter().all(|check| check["passed"] == false));
    assert!(checks[0]["came"].as_str().unwrap().contains("no-such-program"), "it says why");
    assert_eq!(report["marks"], 0.0);
}

#[test]
fn processes_that_leave_their_group_are_killed_and_reported() {
    let program = "sh -c 'setsid sleep 98765431 & exit 0' {port} {cport} {timeout} {folder}";
    let (output, report) = mark("daemon", program, "dstore/start/joins-first");
    assert!(!is_running("98765431"));
    assert!(report["checks"][0]["remarks"][0].as_str().unwrap().contains("had left its group"), "{}", said(&output));
}

#[test]
fn processes_that_hide_are_killed_and_reported() {
    let program = "sh -c 'env -i setsid -f sleep 98765432; exit 0' {port} {cport} {timeout} {folder}";
    let (output, _) = mark("hidden", program, "dstore/start/joins-first");
    assert!(!is_running("98765432"));
    assert!(said(&output).contains("had hidden from its check"), "{}", said(&output));
}

#[test]
fn a_flood_of_output_is_read_and_forgotten() {
    let program = "sh -c 'yes flood & yes flood >&2; wait' {port} {cport} {timeout} {folder}";
    let (output, report) = mark("flood", program, "dstore/start/joins-first");
    assert_eq!(output.status.code(), Some(1));
    assert!(report.to_string().len() < 100_000);
}

#[test]
fn a_disk_is_not_filled() {
    let program = "sh -c 'head -c 3G /dev/zero > {folder}/zeros; sleep 1000' {port} {cport} {timeout}";
    let (output, _) = mark("disk", program, "dstore/start/joins-first");
    assert_eq!(output.status.code(), Some(1));
    assert!(!said(&output).contains("cannot be killed"));
}

#[test]
fn a_command_without_a_place_for_the_port_makes_no_sense() {
    let output = Command::new(env!("CARGO_BIN_EXE_mark")).args(["--dstore", "java Dstore"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("{port}"));
}

#[test]
fn the_exit_code_is_of_the_marked_checks_only() {
    let scheme = env::temp_dir().join(format!("mark-scheme-{}.toml", std::process::id()));
    fs::write(&scheme, "[marks]\nsequential = 1\n[weights]\n\"dstore/start/joins-first\" = 0\n").unwrap();
    let mark = |arguments: &[&str]| {
        let mut mark = Command::new(env!("CARGO_BIN_EXE_mark"));
        mark.args(["--dstore", "false {port} {cport} {timeout} {folder}", "--only", "dstore/start/joins-first"]);
        mark.args(arguments).output().unwrap().status.code()
    };
    assert_eq!(mark(&[]), Some(1));
    assert_eq!(mark(&["--scheme", scheme.to_str().unwrap()]), Some(0));
    fs::remove_file(scheme).unwrap();
}
