//! A file goes in through each way there is, and comes out of each other. (docs/wires.md)

mod common;

use std::path::PathBuf;

use common::{STEVEDORE, Whole, python, run_script, spawn, text, wait_for_dstores};
use kit::eventually;
use serde_json::json;

/// As many ports as the transfers of a name server's shell need here: it is offered none twice.
const PORTS: u16 = 400;

#[test]
fn what_goes_in_through_one_way_comes_out_of_each_other() {
    if !kit::has_tools(&["python3"]) {
        return;
    }
    let with_grpc = python("grpc_tools");
    let store = Whole::start(3, "never");
    wait_for_dstores(&store.user, 3);
    let user = &store.user;
    user.with_input(&["user", "add", "alice", "--password-stdin"], b"of no use here\n");
    user.ok(&["user", "grant", "alice", "write", "/"]);
    let key = user.json(&["user", "key", "add", "--json", "alice"]);
    user.ok(&["user", "add", "anonymous"]);
    user.ok(&["user", "grant", "anonymous", "write", "/users"]);
    user.ok(&["mkdir", "-p", "/users/box"]);
    let ports = kit::free_ports(PORTS);
    let ports = format!("{}-{}", ports.start(), ports.end());
    let mut words = vec!["gateway", "--cluster", text(&user.cluster), "--http", "0", "--s3", "0"];
    words.extend(["--names", "0", "--names-in", "/users/box", "--names-ports", &ports, "--period", "0"]);
    words.extend(["--coursework", "0", "--coursework-in", "/users/box", "--coursework-timeout", "30000"]);
    words.extend(["--tracker", "0", "--tracker-in", "/users/box", "--tracker-keepers", "0", "--fluffy", "0"]);
    let mut gateway = spawn(&words);
    gateway.wait_for_log("In another terminal");
    let log = gateway.log_so_far().to_vec();
    let place = |name: &str| {
        let line = log.iter().find_map(|line| line.split_once(&format!("  {name} "))).expect("it is said");
        let place = line.1.trim().trim_start_matches("http://").trim_end_matches('/');
        place.split(',').next().expect("a place").to_owned()
    };
    let mut places = json!({
        "stevedore": STEVEDORE,
        "cluster": text(&user.cluster),
        "key": key["access_key"],
        "secret": key["secret"],
        "http": place("HTTP"),
        "s3": place("S3"),
        "names": place("Names"),
        "coursework": place("Coursework"),
    });
    if with_grpc.is_some() {
        places["tracker"] = place("Tracker").into();
        places["fluffy"] = place("Fluffy").into();
    }
    let python = with_grpc.clone().unwrap_or_else(|| PathBuf::from("python3"));
    let said = run_script(&python, "matrix.py", &[&places.to_string()]);
    assert_eq!(said.trim(), if with_grpc.is_some() { "8 ways" } else { "6 ways" });
    // What was stored is whole, on as many Dstores as it should be.
    eventually("all is as it should be", || store.user.run(&["check", "--deep"]).status.success());
}
