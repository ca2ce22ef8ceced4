//! What programs that watch over a gateway are told: metrics, health, and a log of requests.

mod common;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use common::Served;
use gateway::access::{ANONYMOUS, Right, User, Users};
use gateway::coursework::Coursework;
use gateway::facade::{Acting, Facade, Starter};
use gateway::fluffy;
use gateway::monitoring::{AccessLog, Admin, Monitor, Watched};
use gateway::names::Names;
use gateway::server::Limits;
use kit::{TempFolder, eventually};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

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

/// Each façade is counted under its own name, and logged, whatever protocol it speaks.
#[test]
fn the_other_facades_are_counted_and_logged_as_http_is() {
    let folder = TempFolder::new();
    let path = folder.path().join("access.log");
    let listener = || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    };
    let ((of_names, names), (of_coursework, coursework), (of_fluffy, fluffy)) = (listener(), listener(), listener());
    let facade = |name, starter: Starter| Facade { name, acting: Acting::anonymous(true), starter };
    let served = Served::with(|options| {
        options.access_log = Some(AccessLog::to_file(&path).unwrap());
        let without = gateway::names::Options { discovery: None, ..gateway::names::Options::default() };
        options.facades = vec![
            facade("Names", Box::new(move |store, record| Names::start(of_names, without, store, record))),
            facade(
                "Coursework",
                Box::new(move |store, record| {
                    Coursework::start(of_coursework, true, gateway::coursework::TIMEOUT, store, record)
                }),
            ),
            facade("Fluffy", Box::new(move |store, record| fluffy::start(of_fluffy, store, Limits::default(), record))),
        ];
    });
    let mut session = TcpStream::connect(names).unwrap();
    for request in ["crf][a][", "inf][none][", "what][a][", "exit]["] {
        session.write_all(format!("{request:2048}").as_bytes()).unwrap();
    }
    let mut client = TcpStream::connect(coursework).unwrap();
    client.write_all(b"LIST\nLOAD none\n").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for method in ["getLeaderInfo", "notAMethod"] {
        let answer = runtime.block_on(async {
            let channel = Endpoint::from_shared(format!("http://{fluffy}")).unwrap().connect().await.unwrap();
            let mut client = tonic::client::Grpc::new(channel);
            client.ready().await.unwrap();
            let path = PathAndQuery::try_from(format!("/fileservice.Fileservice/{method}")).unwrap();
            client.unary::<(), (), _>(tonic::Request::new(()), path, ProstCodec::default()).await
        });
        assert_eq!(answer.is_ok(), method == "getLeaderInfo", "{answer:?}");
    }
    for labels in [
        "facade=\"names\",method=\"crf\",code=\"200\"",
        "facade=\"names\",method=\"inf\",code=\"404\"",
        "facade=\"names\",method=\"other\",code=\"500\"",
        "facade=\"coursework\",method=\"LIST\",code=\"200\"",
        "facade=\"coursework\",method=\"LOAD\",code=\"404\"",
        "facade=\"fluffy\",method=\"getLeaderInfo\",code=\"200\"",
        "facade=\"fluffy\",method=\"other\",code=\"501\"",
    ] {
        let beginning = format!("stevedore_gateway_requests_total{{{labels}}}");
        eventually(labels, || values(served.ask(&[METRICS], b"").text(), &beginning) == [1.0]);
    }
    let log = std::fs::read_to_string(&path).unwrap();
    for line in [
        "] \"crf a NAMES\" 200 12",
        "] \"inf none NAMES\" 404 18",
        "] \"LIST - COURSEWORK\" 200 0",
        "] \"LOAD none COURSEWORK\" 404 0",
        "] \"POST /fileservice.Fileservice/getLeaderInfo HTTP/2.0\" 200 ",
        "] \"POST /fileservice.Fileservice/notAMethod HTTP/2.0\" 501 0",
    ] {
        assert!(
            log.lines().any(|logged| logged.starts_with("127.0.0.1 - - [") && logged.contains(line)),
            "{line}: {log}"
        );
    }
    assert!(!served.ask(&[METRICS], b"").text().contains("notAMethod"), "no label is a client's word");
}
