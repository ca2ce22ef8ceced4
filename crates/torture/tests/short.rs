//! A few seconds of torture, to see that it works and that nothing is wrong at once. `.ci/run` has more of it,
//! `.ci/nightly` hours.

use std::process::Command;

/// Runs the program, and expects it to have found nothing.
fn torture(arguments: &[&str]) {
    let seed = kit::hunt::seed().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_torture"));
    let output = command.args(arguments).args(["--seconds", "4", "--seed", &seed]).output().expect("it starts");
    let [said, log] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(output.status.success() && said.contains("nothing lost, nothing altered"), "{said}\n{log}");
}

#[test]
fn a_short_torture_finds_nothing_wrong() {
    torture(&["--clients", "6"]);
}

#[test]
fn a_short_torture_of_the_depot_finds_nothing_wrong() {
    torture(&["depot", "--clients", "6"]);
}
