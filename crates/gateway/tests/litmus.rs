//! litmus: what others have come to expect of a WebDAV server.

mod common;

use std::process::{Command, Stdio};

use common::Served;

/// The suites of litmus.
const SUITES: [&str; 5] = ["basic", "copymove", "props", "locks", "http"];

#[test]
fn litmus_passes_in_full() {
    if !kit::has_tools(&["litmus"]) {
        return;
    }
    let served = Served::new();
    let folder = kit::TempFolder::new();
    for suite in SUITES {
        let mut litmus = Command::new("litmus");
        litmus.args(["-k", &served.url("/")]).env("TESTS", suite).current_dir(folder.path()).stdin(Stdio::null());
        let output = litmus.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let summary = said.lines().find(|line| line.contains("tests run:")).unwrap_or_default();
        said.lines()
            .filter(|line| line.contains("WARNING") || line.contains("SKIP"))
            .for_each(|line| println!("{suite}: {line}"));
        println!("{suite}: {summary}");
        assert!(output.status.success() && summary.contains(" 0 failed"), "{said}");
    }
}
