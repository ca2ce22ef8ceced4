//! The built program against a cluster in this process.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, Socket, Type};
use stevedore::client::Client;
use stevedore::controller;
use stevedore::program::cluster::{Cluster, Config, ShutdownHandle};

fn cluster() -> Cluster {
    let mut controller = controller::Config::new(2);
    controller.timeout = Duration::from_secs(30);
    let shutdown = ShutdownHandle::default();
    Cluster::start(Config { dstores: 3, controller, first_dstore_port: 0, folder: None, shutdown })
        .unwrap_or_else(|failure| panic!("{}", failure.message))
}

fn load(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_load")).args(words).output().expect("it starts")
}

/// The program's JSON; it has to have succeeded.
fn measured(words: &[&str]) -> Value {
    let output = load(words);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{words:?}: {out}{err}");
    assert_eq!(err, "", "{words:?}: progress is for terminals, and nothing was wrong");
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{words:?}: {error}: {out}"))
}

/// spec 4.2 to 4.5, 6.4, 6.5, 8.2
#[test]
fn each_style_works_is_verified_and_leaves_nothing_behind() {
    let cluster = cluster();
    let address = cluster.controller_address().unwrap().to_string();
    let svg = std::env::temp_dir().join(format!("stevedore-load-{}.svg", std::process::id()));
    let pid = std::process::id().to_string();
    let styles: [&[&str]; 3] =
        [&["--style", "official"], &["--style", "pipelined"], &["--style", "pipelined", "--keep-alive"]];
    for style in styles {
        let words = "--clients 3 --names 60 --size 0-100k --mix store:30,load:40,remove:20,list:10 --verify --json \
                     --duration 1 --warm-up 0.1 --timeout 30000";
        let mut words: Vec<_> = words.split_whitespace().collect();
        words.extend(style);
        words.extend(["--controller", &address, "--svg", svg.to_str().unwrap(), "--pids", &pid]);
        let json = measured(&words);
        assert!(json["operations"].as_u64().unwrap() > 0, "{json:#}");
        assert_eq!(json["errors"], Value::Array(Vec::new()), "{json:#}");
        assert_eq!(json["files_left"], 0, "{json:#}");
        assert_eq!(json["processes"][1]["pid"].to_string(), pid, "{json:#}");
        assert_consistent(&json);
        let drawn = fs::read_to_string(&svg).unwrap();
        assert!(drawn.starts_with("<svg ") && drawn.ends_with("</svg>\n"), "{drawn}");
        fs::remove_file(&svg).unwrap();

        let mut client = Client::connect(cluster.controller_address().unwrap(), Duration::from_secs(30)).unwrap();
        assert_eq!(client.list().unwrap(), [], "{style:?}");
    }
}

/// What is said in two ways is the same.
fn assert_consistent(json: &Value) {
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{value} is no number: {json:#}"));
    let seconds = number(&json["seconds"]);
    let (mut operations, mut busy) = (0.0, 0.0);
    for (kind, measures) in json["kinds"].as_object().unwrap() {
        let count = number(&measures["operations"]);
        operations += count;
        busy += count * number(&measures["mean"]) / 1e3 / seconds;
        let bars = measures["histogram"].as_array().unwrap().iter().map(|bar| number(&bar["count"])).sum::<f64>();
        let in_time =
            json["timeline"].as_array().unwrap().iter().map(|interval| &interval["kinds"][kind]["operations"]);
        let in_time = in_time.filter(|count| !count.is_null()).map(number).sum::<f64>();
        assert_eq!((bars, in_time), (count, count), "{kind}: {json:#}");
        assert!((number(&measures["mb_per_s"]) * seconds * 1e6 - number(&measures["bytes"])).abs() < 1.0, "{json:#}");
        let quantiles = ["p50", "p90", "p99", "p99.9", "max"].map(|name| number(&measures[name]));
        assert!(quantiles.is_sorted(), "{kind}: {json:#}");
    }
    assert_eq!(operations, number(&json["operations"]), "{json:#}");
    assert!((busy - number(&json["busy_clients"])).abs() < 0.01, "{json:#}");
    // An operation that was begun before the start may add up to a latency for each client.
    let most = number(&json["clients"]) * 2.0;
    assert!(busy > 0.0 && busy < most, "Little's law: {busy} clients busy: {json:#}");
}

#[test]
fn with_keep_the_files_stay() {
    let cluster = cluster();
    let address = cluster.controller_address().unwrap().to_string();
    let words = "--clients 2 --names 10 --mix load:100 --json --duration 1 --warm-up 0 --seed 7 --keep --controller";
    let mut words: Vec<_> = words.split_whitespace().collect();
    words.push(&address);
    let json = measured(&words);
    assert_eq!(json["files_left"], Value::Null);
    let mut client = Client::connect(cluster.controller_address().unwrap(), Duration::from_secs(30)).unwrap();
    let names = client.list().unwrap();
    assert_eq!(names.len(), 10);
    assert!(names.iter().all(|name| name.starts_with("load-7-")), "{names:?}");
}

#[test]
fn where_nothing_works_it_says_so_and_fails() {
    // R = 2, and no Dstore has joined. (spec 3.3)
    let controller = controller::start(controller::Config::new(2)).unwrap();
    let port = controller.address().unwrap().port().to_string();
    let output = load(&["--controller", &port, "--mix", "store:100", "--duration", "0.2", "--warm-up", "0"]);
    assert_eq!(output.status.code(), Some(1));
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(out.contains("store: not enough Dstores"), "{out}");
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(err.starts_with("load: nothing has worked: store: not enough Dstores"), "{err}");

    // No program listens here, and none can.
    let taken = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    taken.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let port = taken.local_addr().unwrap().as_socket().unwrap().port().to_string();
    let output = load(&["--controller", &port, "--duration", "0.2"]);
    assert_eq!(output.status.code(), Some(1));
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(err.starts_with(&format!("load: the Controller at 127.0.0.1:{port}: Connection refused")), "{err}");
    assert_eq!(load(&["--cluster", "2,3"]).status.code(), Some(2));
    let folder = PathBuf::from("/no such folder/x.svg");
    let words = ["--cluster", "1,1", "--duration", "0.1", "--warm-up", "0", "--svg", folder.to_str().unwrap()];
    let output = load(&words);
    assert_eq!(output.status.code(), Some(1));
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(err.starts_with("load: cannot write /no such folder/x.svg: "), "{err}");
}
