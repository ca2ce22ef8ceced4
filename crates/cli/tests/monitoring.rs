//! What servers tell programs that watch over them, as real processes do.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use common::{Lone, Whole, spawn, text};
use kit::{Program, TempFolder, eventually};

/// Where a server says that its metrics are.
fn admin(server: &mut Program) -> String {
    server.wait_for_log("  Metrics");
    let line = server.log_so_far().iter().find(|line| line.contains("  Metrics")).expect("it was logged").clone();
    let (_, url) = line.split_once("http://").expect("a URL");
    url.split('/').next().expect("an address").to_owned()
}

/// The status and the body of a page.
fn page(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// The value of the sample whose line begins so; `None` if there is none.
fn value(address: &str, beginning: &str) -> Option<f64> {
    let (status, metrics) = page(address, "/metrics");
    assert_eq!(status, 200, "{metrics}");
    let line =
        metrics.lines().find(|line| line.strip_prefix(beginning).is_some_and(|rest| rest.starts_with([' ', '{'])))?;
    Some(line.rsplit(' ').next().unwrap().parse().expect("a number"))
}

#[test]
fn each_server_tells_its_figures_and_whether_it_is_ready() {
    let folder = TempFolder::new();
    let data = |name: &str| text(&folder.path().join(name)).to_owned();
    let (of_controller, of_dstore) = (data("controller"), data("dstore"));
    let mut controller =
        spawn(&["controller", "--data", &of_controller, "--port", "0", "--admin", "0", "--replicas", "1"]);
    let at_controller = admin(&mut controller);
    controller.wait_for_log("  stevedore status");
    assert_eq!(page(&at_controller, "/healthz"), (200, "ok\n".into()));
    eventually("it leads", || page(&at_controller, "/readyz") == (200, "ready\n".into()));
    assert_eq!(value(&at_controller, "stevedore_controller_is_leader"), Some(1.0));
    fs::create_dir(&of_dstore).unwrap();
    fs::copy(format!("{of_controller}/cluster.toml"), format!("{of_dstore}/cluster.toml")).unwrap();
    let start = || spawn(&["dstore", "--data", &of_dstore, "--port", "0", "--admin", "0"]);
    let mut dstore = start();
    let at_dstore = admin(&mut dstore);
    eventually("it is admitted", || page(&at_dstore, "/readyz").0 == 200);
    eventually("it is seen", || value(&at_controller, "stevedore_dstores{state=\"present\"}") == Some(1.0));
    let user = common::User { cluster: folder.path().join("controller") };
    let file = data("file");
    fs::write(&file, vec![7; 100_000]).unwrap();
    user.ok(&["put", &file, "/a"]);
    user.ok(&["cat", "/a"]);
    assert_eq!(value(&at_controller, "stevedore_entries"), Some(1.0));
    for (name, expected) in [
        ("stevedore_dstore_objects", 1.0),
        ("stevedore_dstore_bytes", 100_000.0),
        ("stevedore_dstore_received_bytes_total", 100_000.0),
        ("stevedore_dstore_sent_bytes_total", 100_000.0),
        ("stevedore_dstore_damaged_objects", 0.0),
        ("stevedore_dstore_links", 1.0),
    ] {
        assert_eq!(value(&at_dstore, name), Some(expected), "{name}");
    }
    assert!(value(&at_dstore, "stevedore_dstore_free_bytes").unwrap() > 1e6);
    // Each says what it misses when the other one is gone.
    drop(dstore);
    eventually("it is missed", || value(&at_controller, "stevedore_dstores{state=\"away\"}") == Some(1.0));
    assert!(value(&at_controller, "stevedore_problems") >= Some(1.0));
    let mut dstore = start();
    let at_dstore = admin(&mut dstore);
    eventually("it is admitted again", || page(&at_dstore, "/readyz").0 == 200);
    drop(controller);
    eventually("it has no Controller", || page(&at_dstore, "/readyz").0 == 503);
    assert_eq!(page(&at_dstore, "/readyz").1, "Dstore 1: no Controller has admitted it\n");
    assert_eq!(page(&at_dstore, "/healthz").0, 200, "it would not help to restart it");
}

#[test]
fn a_process_with_a_whole_store_tells_of_all_in_it() {
    let mut store = Whole::with(3, 3, &["--http", "0", "--admin", "0"]);
    let at = admin(&mut store.server);
    eventually("all is ready", || page(&at, "/readyz").0 == 200);
    let (_, metrics) = page(&at, "/metrics");
    for (beginning, lines) in [
        ("stevedore_controller_term{", 3),
        ("stevedore_controller_lag{", 3),
        ("stevedore_healing_objects{", 1),
        ("stevedore_dstore_objects{", 3),
        ("stevedore_gateway_sent_bytes_total", 1),
        ("process_open_fds", 1),
    ] {
        assert_eq!(metrics.lines().filter(|line| line.starts_with(beginning)).count(), lines, "{beginning}\n{metrics}");
    }
    let leaders =
        metrics.lines().filter(|line| line.starts_with("stevedore_controller_is_leader{") && line.ends_with(" 1.0"));
    assert_eq!(leaders.count(), 1, "{metrics}");
    store.server.signal("TERM");
    assert!(store.server.wait_for_exit().success(), "it ends in order");
}

#[test]
fn small_files_that_are_read_again_come_from_memory_and_are_never_stale() {
    let mut store = Whole::with(3, 1, &["--http", "0", "--admin", "0"]);
    let at = admin(&mut store.server);
    let line = store.server.log_so_far().iter().find(|line| line.contains("  HTTP")).expect("it was logged").clone();
    let http = line.split_once("http://").expect("a URL").1.trim_end_matches('/').to_owned();
    let counts = || {
        ["hits", "misses"].map(|name| value(&at, &format!("stevedore_gateway_cache_{name}_total")).expect("a count"))
    };
    let put = |text: &str| store.user.with_input(&["put", "-", "/a"], text.as_bytes());
    assert!(put("one").status.success());
    for (hits, misses) in [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0)] {
        assert_eq!(page(&http, "/a"), (200, "one".into()));
        assert_eq!(counts(), [hits, misses]);
    }
    assert!(put("two").status.success());
    for (hits, misses) in [(2.0, 2.0), (3.0, 2.0)] {
        assert_eq!(page(&http, "/a"), (200, "two".into()));
        assert_eq!(counts(), [hits, misses]);
    }
    // Another name for the same object, and a part of it.
    store.user.ok(&["cp", "/a", "/b"]);
    assert_eq!(page(&http, "/b"), (200, "two".into()));
    assert_eq!(counts(), [4.0, 2.0]);
    store.user.ok(&["rm", "/a"]);
    assert_eq!(page(&http, "/a").0, 404);
    assert!(value(&at, "stevedore_gateway_cache_bytes").unwrap() < 1_000.0);
}

#[test]
fn a_gateway_without_its_store_is_not_ready_and_says_why() {
    let lone = Lone::start();
    let mut gateway = spawn(&["gateway", "--cluster", text(&lone.user.cluster), "--http", "0", "--admin", "0"]);
    let at = admin(&mut gateway);
    eventually("it is ready", || page(&at, "/readyz").0 == 200);
    drop(lone.server);
    eventually("it is not ready", || page(&at, "/readyz").0 == 503);
    assert!(page(&at, "/readyz").1.starts_with("gateway: "), "{}", page(&at, "/readyz").1);
    assert_eq!(page(&at, "/healthz").0, 200, "it would not help to restart it");
}

#[test]
fn a_place_for_metrics_that_is_none_or_taken_is_named() {
    let folder = TempFolder::new();
    let data = text(&folder.path().join("data")).to_owned();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (place, code, words) in [(&*port, 1, "--admin 0"), ("everywhere", 2, "as in 7900")] {
        let mut refused = spawn(&["controller", "--data", &data, "--port", "0", "--admin", place]);
        assert_eq!(refused.wait_for_exit().code(), Some(code), "{place}");
        assert!(refused.comes_to_log(words), "{place}: {:?}", refused.log_so_far());
    }
}
