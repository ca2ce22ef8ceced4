//! Clients of Fluffy, over a whole store of real processes. (docs/wires.md, section 2)
//!
//! `python/fluffy.py` speaks as the original's clients do, by stubs that are made of `python/fluffy.proto` when it starts.

mod common;

use common::{Gateway, Whole, python, run_script, wait_for_dstores};

/// Runs checks of the script against a gateway over three Dstores.
fn check(checks: &[&str]) {
    let Some(python) = python("grpc_tools") else { return };
    let store = Whole::start(3, "never");
    wait_for_dstores(&store.user, 3);
    let mut gateway = Gateway::start(&store.user, &["--fluffy", "0"]);
    let address = gateway.place("Fluffy");
    run_script(&python, "fluffy.py", &[&[&*address], checks].concat());
    // What was stored is whole, on as many Dstores as it should be.
    kit::eventually("all is as it should be", || store.user.run(&["check", "--deep"]).status.success());
}

#[test]
fn every_method_answers_as_clients_of_fluffy_know_it() {
    check(&["refusals", "users", "statistics", "reflected"]);
}

#[test]
fn files_of_any_size_go_through_fluffy() {
    check(&["sizes"]);
}

#[test]
fn fifty_clients_of_fluffy_at_once_all_succeed() {
    check(&["crowd"]);
}

#[test]
fn a_download_is_of_one_version_while_updates_go_on() {
    check(&["replaced"]);
}

#[test]
fn an_upload_that_is_cut_off_leaves_nothing() {
    check(&["cut_off"]);
}
