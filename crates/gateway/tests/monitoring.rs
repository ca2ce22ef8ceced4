//! What programs that watch over a gateway are told: metrics, health, and a log of requests.

mod common;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use common::Served;
use gateway::access::{ANONYMOUS, Right, User, Users};
use gateway::monitoring::{AccessLog, Admin, Monitor, Watched};
use kit::{TempFolder, eventually};

const METRICS: &str = "GET /.stevedore/metrics";

/// The values of the samples whose lines begin so.
fn values(metrics: &str, beginning: &str) -> Vec<f64> {
    let lines = metrics.lines().filter(|line| line.starts_with(beginning));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse().expect("a number")).collect()
}

fn admin_of(served: &Served) -> Admin {
    let watched = Watched { gateway: Some(served.gateway.probe()), ..Watched::default() };
    Admin::start(TcpListener::bind("127.0.0.1:0").unwrap(), Monitor::new(watched)).unwrap()
}

#[test]
fn each_answer_is_counted_under_labels_that_clients_cannot_make_grow() {
    let served = Served::new();
    served.ask(&["PUT /a"], &[7; 1_000]);
    served.ask(&["GET /a"], b"");
    served.ask(&["GET /none"], b"");
    served.ask(&["GET /.stevedore/api/me"], b"");
    for k in 0..50 {
        served.ask(&[&format!("METHOD{k} /{k}")], b"");
    }
    let mut text = String::new();
    // A client may have its answer before it is counted.
    eventually("all are counted", || {
        text = served.ask(&[METRICS], b"").text().to_owned();
        values(&text, "stevedore_gateway_requests_total{facade=\"http\",method=\"other\",code=\"405\"}") == [50.0]
    });
    for (labels, count) in [
        ("facade=\"http\",method=\"PUT\",code=\"201\"", 1.0),
        ("facade=\"http\",method=\"GET\",code=\"200\"", 1.0),
        ("facade=\"http\",method=\"GET\",code=\"404\"", 1.0),
        ("facade=\"console\",method=\"GET\",code=\"200\"", 1.0),
    ] {
        assert_eq!(
            values(&text, &format!("stevedore_gateway_requests_total{{{labels}}}")),
            [count],
            "{labels}\n{text}"
        );
    }
    assert_eq!(values(&text, "stevedore_gateway_request_seconds_count{facade=\"http\"}"), [53.0]);
    assert_eq!(values(&text, "stevedore_gateway_received_bytes_total"), [1_000.0]);
    assert_eq!(values(&text, "stevedore_gateway_sent_bytes_total"), [1_000.0]);
    assert!(values(&text, "process_resident_memory_bytes")[0] > 1e6);
    assert!(!text.contains("METHOD"), "{text}");
}

#[test]
fn metrics_are_what_prometheus_reads() {
    let served = Served::new();
    served.ask(&["PUT /a"], b"x");
    let open = served.ask(&[METRICS, "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5"], b"");
    assert!(open.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    assert!(open.text().ends_with("# EOF\n"));
    let text = served.ask(&[METRICS], b"");
    assert_eq!(text.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let head = served.ask(&["HEAD /.stevedore/metrics"], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    if !kit::has_tools(&["promtool"]) {
        return;
    }
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = command.spawn().unwrap();
    promtool.stdin.take().unwrap().write_all(&text.body).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}\n{}", text.text());
}

#[test]
fn metrics_are_for_those_who_may_read_all_and_health_is_for_all() {
    let served = Served::with(|options| options.is_open = false);
    let mut anonymous = User::new(ANONYMOUS).unwrap();
    anonymous.rights.insert("/public".parse().unwrap(), Right::Read);
    Users::of(&*served.store).insert(&anonymous).unwrap();
    eventually("the rights are known", || served.ask(&[METRICS], b"").status == 401);
    let mut reader = User::new("prometheus").unwrap();
    reader.set_password("secret").unwrap();
    reader.rights.insert("/".parse().unwrap(), Right::Read);
    Users::of(&*served.store).insert(&reader).unwrap();
    let login = "Authorization: Basic cHJvbWV0aGV1czpzZWNyZXQ="; // prometheus:secret
    eventually("the user is known", || served.ask(&[METRICS, login], b"").status == 200);
    for page in ["healthz", "readyz"] {
        eventually("it is ready", || served.ask(&[&format!("GET /.stevedore/{page}")], b"").status == 200);
        assert_eq!(served.ask(&[&format!("PUT /.stevedore/{page}")], b"x").status, 404);
    }
}

#[test]
fn the_server_for_monitoring_alone_says_the_same_and_no_more() {
    let served = Served::new();
    let admin = admin_of(&served);
    let ask = |request: &str, line: &str| {
        let stream = TcpStream::connect(admin.address()).unwrap();
        let mut client = common::Client::of(stream);
        client.send(&[request, line], b"");
        client.reply(request.starts_with("HEAD"))
    };
    eventually("the store was asked", || ask("GET /readyz", "Host: localhost").status == 200);
    assert_eq!(ask("GET /readyz", "Host: localhost").text(), "ready\n");
    for (request, line, status) in [
        ("GET /metrics", "Host: localhost", 200),
        ("HEAD /metrics", "Host: localhost", 200),
        ("GET /healthz", "Host: localhost", 200),
        ("GET /", "Host: localhost", 404),
        ("GET /metrics/", "Host: localhost", 404),
        ("GET /a", "Host: localhost", 404),
        ("POST /metrics", "Host: localhost", 405),
        ("OPTIONS *", "Host: localhost", 405),
        ("GET /metrics", "Host: other.example", 421),
    ] {
        assert_eq!(ask(request, line).status, status, "{request} {line}");
    }
}

#[test]
fn each_request_is_a_line_of_the_access_log() {
    let folder = TempFolder::new();
    let path = folder.path().join("access.log");
    let served = Served::with(|options| options.access_log = Some(AccessLog::to_file(&path).unwrap()));
    served.ask(&["PUT /a"], b"twelve bytes");
    served.ask(&["GET /a?x=%22"], b"");
    let mut log = String::new();
    eventually("both are logged", || {
        log = std::fs::read_to_string(&path).unwrap();
        log.lines().count() == 2
    });
    let lines: Vec<&str> = log.lines().collect();
    assert!(lines[0].starts_with("127.0.0.1 - - [") && lines[0].contains("] \"PUT /a HTTP/1.1\" 201 "), "{log}");
    assert!(lines[1].ends_with("] \"GET /a?x=%22 HTTP/1.1\" 200 12"), "{log}");
}
