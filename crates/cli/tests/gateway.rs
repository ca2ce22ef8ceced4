//! The gateway as people's own tools use it: curl, wget, Python; over a whole store of real processes.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::{Gateway, Lone, User, Whole, spawn, text, wait_for_dstores};
use kit::{Program, bytes};
use serde_json::Value;

/// Where a server says that HTTP is.
fn url(server: &mut Program) -> String {
    server.wait_for_log("  HTTP");
    let line = server.log_so_far().iter().find(|line| line.contains("  HTTP")).expect("it was logged").clone();
    line.split_whitespace().next_back().expect("a URL").trim_end_matches('/').to_owned()
}

/// Runs a tool to its end.
fn tool(name: &str, words: &[&str]) -> Output {
    let mut command = Command::new(name);
    command.args(words).stdin(Stdio::null()).env_remove("http_proxy").env_remove("HTTP_PROXY");
    command.output().unwrap_or_else(|error| panic!("{name} is not installed: {error}"))
}

/// What curl prints: the body, and the status behind it.
#[track_caller]
fn curl(words: &[&str]) -> (String, u16) {
    let output = tool("curl", &[&["-sS", "-w", "%{stderr}%{http_code}"], words].concat());
    let status = String::from_utf8_lossy(&output.stderr).into_owned();
    let status = status.trim().parse().unwrap_or_else(|_| panic!("{words:?}: {status}"));
    (String::from_utf8_lossy(&output.stdout).into_owned(), status)
}

fn error(body: &str) -> String {
    let json: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"));
    json["error"].as_str().expect("a code").to_owned()
}

#[test]
fn curl_puts_and_gets_files_of_any_size() {
    if !kit::has_tools(&["curl"]) {
        return;
    }
    let mut store = Whole::with_gateway(3);
    let url = url(&mut store.server);
    let (from, to) = (store.local("from"), store.local("to"));
    for (seed, size) in [(1, 0), (2, 1), (3, 65_536), (4, 9 << 20), (5, 40 << 20)] {
        let content = bytes(seed, size);
        fs::write(&from, &content).unwrap();
        let file = format!("{url}/{size}");
        assert_eq!(curl(&["-T", text(&from), &file]).1, 201, "{size}");
        assert_eq!(curl(&["-o", text(&to), &file]).1, 200, "{size}");
        assert!(fs::read(&to).unwrap() == content, "{size} bytes have changed on their way");
        assert!(
            store.user.run(&["cat", &format!("/{size}")]).stdout == content,
            "the store's own client sees the same"
        );
    }
    let content = fs::read(&from).unwrap();
    let file = format!("{url}/{}", 40 << 20);
    // From a pipe, of a length that is not known.
    let mut command = Command::new("curl");
    command.args(["-sS", "-f", "-T", "-", &file]).stdin(fs::File::open(&from).unwrap());
    assert!(command.status().unwrap().success());
    // A download that was cut off goes on where it was.
    fs::write(&to, &content[..12_345_678]).unwrap();
    assert_eq!(curl(&["-C", "-", "-o", text(&to), &file]).1, 206);
    assert!(fs::read(&to).unwrap() == content);
    assert_eq!(curl(&["-r", "8388600-8388615", "-o", text(&to), &file]).1, 206);
    assert!(fs::read(&to).unwrap() == content[8_388_600..8_388_616]);
    let etag = store.local("etag");
    let with_etag = ["--etag-save", text(&etag), "--etag-compare", text(&etag), "-o", text(&to), &file];
    fs::write(&etag, "").unwrap();
    assert_eq!([curl(&with_etag).1, curl(&with_etag).1], [200, 304]);
    assert_eq!(curl(&["-T", text(&from), "-H", "If-None-Match: *", &file]).1, 412);
    assert_eq!(curl(&["-X", "DELETE", &file]).1, 204);
    let (body, status) = curl(&[&file]);
    assert_eq!((status, &*error(&body)), (404, "not-found"));
    let status = store.user.json(&["status", "--json"]);
    assert_eq!(status["problems"].as_array().map(Vec::len), Some(0), "{status}");
}

#[test]
fn a_client_that_waits_to_continue_is_told_that_there_is_no_room() {
    let mut store = Whole::with_gateway(1);
    let address = url(&mut store.server).trim_start_matches("http://").to_owned();
    let begin = || {
        let mut client = TcpStream::connect(&address).unwrap();
        client
            .write_all(b"PUT /a HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n")
            .unwrap();
        let mut answer = [0; 12];
        client.read_exact(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    };
    assert_eq!(begin(), "HTTP/1.1 100");
    store.user.ok(&["set", "most-entries", "0"]);
    assert_eq!(begin(), "HTTP/1.1 507");
    store.user.ok(&["set", "read-only", "on"]);
    assert_eq!(begin(), "HTTP/1.1 503");
}

#[test]
fn wget_copies_a_tree_with_awkward_names() {
    if !kit::has_tools(&["wget"]) {
        return;
    }
    let mut store = Whole::with_gateway(1);
    let url = url(&mut store.server);
    let (from, to) = (store.local("from"), store.local("to"));
    fs::create_dir_all(from.join("sub dir/deeper")).unwrap();
    for (seed, name) in ["a.txt", "100%", "sub dir/naïve 日本", "sub dir/deeper/<b>&\"x", "q?a=b#c"].iter().enumerate()
    {
        fs::write(from.join(name), bytes(seed as u64, 100_000)).unwrap();
    }
    store.user.ok(&["put", "-r", text(&from), "/tree"]);
    let words = ["-q", "-r", "-np", "-nH", "--restrict-file-names=unix,nocontrol", "-P", text(&to)];
    let output = tool("wget", &[&words[..], &[&format!("{url}/tree/")]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for name in ["a.txt", "100%", "sub dir/naïve 日本", "sub dir/deeper/<b>&\"x", "q?a=b#c"] {
        let got = fs::read(to.join("tree").join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(got == fs::read(from.join(name)).unwrap(), "{name}");
    }
}

/// What a program does with no more than its language's library: a folder, a file, its listing, a change under a condition.
const PYTHON: &str = r#"
import json, sys, urllib.error, urllib.request
base = sys.argv[1]
def ask(method, path, body=None, **headers):
    request = urllib.request.Request(base + path, body, {k.replace('_', '-'): v for k, v in headers.items()}, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()
assert ask('PUT', '/box/')[0] == 201
status, headers, _ = ask('PUT', '/box/a', b'x' * 10_000_000, Content_Type='image/png')
assert status == 201, status
etag = headers['ETag']
status, headers, body = ask('GET', '/box/a')
assert (status, headers['ETag'], headers['Content-Type'], len(body)) == (200, etag, 'image/png', 10_000_000)
listing = json.loads(ask('GET', '/box/', Accept='application/json')[2])
assert [(e['name'], e['size'], e['etag']) for e in listing['entries']] == [('a', 10_000_000, etag)], listing
assert ask('PUT', '/box/a', b'new', If_Match=etag)[0] == 200
status, _, body = ask('PUT', '/box/a', b'y' * 30_000_000, If_Match=etag)
assert (status, json.loads(body)['error']) == (412, 'condition-failed'), (status, body)
assert ask('GET', '/box/a')[2] == b'new'
assert ask('DELETE', '/box/')[0] == 204
assert ask('GET', '/box/a')[0] == 404
"#;

#[test]
fn python_keeps_files_with_its_own_library() {
    if !kit::has_tools(&["python3"]) {
        return;
    }
    let mut store = Whole::with_gateway(1);
    let url = url(&mut store.server);
    let output = tool("python3", &["-c", PYTHON, &url]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn gateways_of_one_store_agree_and_outlive_its_absence() {
    if !kit::has_tools(&["curl"]) {
        return;
    }
    let lone = Lone::start();
    let cluster = text(&lone.user.cluster).to_owned();
    let start = || spawn(&["gateway", "--cluster", &cluster, "--http", "0"]);
    let (mut one, mut two) = (start(), start());
    let (first, second) = (url(&mut one), url(&mut two));
    assert_eq!(curl(&["-X", "PUT", &format!("{first}/a/")]).1, 201);
    let listed = ["-H", "Accept: application/json", &format!("{second}/")];
    let page: Value = serde_json::from_str(&curl(&listed).0).unwrap();
    assert_eq!((&page["entries"][0]["name"], &page["entries"][0]["kind"]), (&"a".into(), &"folder".into()));
    drop(lone.server);
    let (body, status) = curl(&listed);
    assert_eq!((status, &*error(&body)), (503, "unavailable"));
    let head = tool("curl", &["-sI", &format!("{second}/a")]);
    assert!(String::from_utf8_lossy(&head.stdout).to_lowercase().contains("retry-after:"));
    for mut gateway in [one, two] {
        gateway.signal("TERM");
        assert!(gateway.wait_for_exit().success(), "it ends in order");
    }
}

/// The folder of a store's first server, and words that start one there on free ports.
/// How many requests each Dstore of this process has had.
fn requests(metrics: &str) -> Vec<u64> {
    let (page, _) = curl(&[metrics]);
    let of_dstores = page.lines().filter(|line| line.starts_with("stevedore_dstore_requests_total{"));
    of_dstores.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().expect("a number") as u64).collect()
}

#[test]
fn two_gateways_spread_reads_over_all_holders() {
    if !kit::has_tools(&["curl"]) {
        return;
    }
    let mut store = Whole::with(3, 1, &["--no-gateway", "--admin", "0"]);
    wait_for_dstores(&store.user, 3);
    let log = store.server.log_so_far();
    let metrics =
        log.iter().find_map(|line| line.split_once("http://")?.1.split_once("/metrics")).expect("it is said").0;
    let metrics = format!("http://{metrics}/metrics");
    let mut gateways = [(); 2].map(|()| Gateway::start(&store.user, &["--cache", "0"]));
    let urls = gateways.each_mut().map(|gateway| gateway.place("HTTP"));
    let local = store.local("from");
    fs::write(&local, bytes(1, 10_000)).unwrap();
    for number in 0..20 {
        assert_eq!(curl(&["-T", text(&local), &format!("{}{number}", urls[0])]).1, 201);
    }
    let before = requests(&metrics);
    // Each 20 files 30 times by each gateway, on one connection.
    for url in &urls {
        let files = format!("{url}[0-19]?[1-30]");
        let output = tool("curl", &["-sS", "-f", "-o", "/dev/null", &files]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let after = requests(&metrics);
    let reads: Vec<u64> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
    let average = reads.iter().sum::<u64>() / 3;
    assert!(average >= 400, "each file is read of one of them: {reads:?}");
    assert!(reads.iter().all(|count| count.abs_diff(average) * 5 <= average), "within 20%: {reads:?}");
}

fn words<'a>(folder: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    [&["serve", "--controller-port", "0", "--dstore-port", "0"], more, &[text(folder)]].concat()
}

#[test]
fn a_port_that_is_taken_is_named_with_what_mends_it() {
    let folder = kit::TempFolder::new();
    let data = folder.path().join("data");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let mut refused = spawn(&words(&data, &["--http", &port]));
    assert_eq!(refused.wait_for_exit().code(), Some(1));
    assert!(refused.comes_to_log(&port) && refused.comes_to_log("--http 0"), "{:?}", refused.log_so_far());
    // The usual port was not asked for: the store starts all the same. It is taken by this or by any other process.
    let _usual = TcpListener::bind("127.0.0.1:8080");
    let mut second = spawn(&words(&data, &[]));
    second.wait_for_log("HTTP        none");
    second.wait_for_log("--http PORT takes another one");
    second.wait_for_log("  stevedore status");
    assert_eq!(User { cluster: data.clone() }.ok(&["ls"]), "");
    drop(second);
    let mut without = spawn(&words(&data, &["--no-gateway"]));
    without.wait_for_log("  stevedore status");
    assert!(!without.log_so_far().iter().any(|line| line.contains("HTTP")), "{:?}", without.log_so_far());
}

#[test]
fn nothing_listens_beyond_this_machine_unless_users_can_log_in() {
    if !kit::has_tools(&["curl"]) {
        return;
    }
    let lone = Lone::start();
    let cluster = text(&lone.user.cluster).to_owned();
    let beyond = ["gateway", "--cluster", &cluster, "--http", "0", "--listen", "0.0.0.0"];
    let mut refused = spawn(&beyond);
    assert_eq!(refused.wait_for_exit().code(), Some(2));
    assert!(refused.comes_to_log("--open") && refused.comes_to_log("user add"), "{:?}", refused.log_so_far());
    let mut open = spawn(&[&beyond[..], &["--open"]].concat());
    let open_url = format!("{}/", url(&mut open));
    assert_eq!(curl(&["-H", "Host: files.example", &open_url]).1, 200, "it answers to any name");
    let password = lone.user.ok(&["user", "add", "alice"]);
    let mut closed = spawn(&beyond);
    let closed_url = format!("{}/a/", url(&mut closed));
    let alice = format!("alice:{}", password.trim());
    assert_eq!(curl(&["-X", "PUT", &closed_url]).1, 401);
    assert_eq!(curl(&["-u", &alice, "-X", "PUT", &closed_url]).1, 403);
    lone.user.ok(&["user", "grant", "alice", "write", "/a"]);
    kit::eventually("it holds", || curl(&["-u", &alice, "-X", "PUT", &closed_url]).1 < 300);
    lone.user.ok(&["user", "remove", "alice"]);
    kit::eventually("nor does it any more", || curl(&["-u", &alice, &closed_url]).1 == 401);
    let folder = kit::TempFolder::new();
    let data = folder.path().join("data");
    let elsewhere = ["serve", "--listen", "0.0.0.0", "--advertise", "127.0.0.1", "--http", "0"];
    let ports = ["--controller-port", "0", "--dstore-port", "0", text(&data)];
    let mut store = spawn(&[&elsewhere[..], &ports].concat());
    let private = format!("{}/", url(&mut store));
    store.wait_for_log("on this machine only");
    assert_eq!(curl(&["-H", "Host: files.example", &private]).1, 421, "HTTP is on this machine only");
}

#[test]
fn https_is_spoken_with_a_certificate() {
    if !kit::has_tools(&["curl"]) {
        return;
    }
    let mut store = Lone::start();
    let folder = store.folder.path().join("certs");
    let file = |name: &str| text(&folder.join(name)).to_owned();
    let [authority, certificate, key] = ["ca.pem", "server.pem", "server-key.pem"].map(file);
    store.user.ok(&["certs", text(&folder), "elsewhere.example"]);
    let first = fs::read(&authority).unwrap();
    store.user.ok(&["certs", text(&folder), "127.0.0.1"]);
    assert!(fs::read(&authority).unwrap() == first, "clients go on trusting the same authority");
    for (name, mode) in [("ca-key.pem", 0o600), ("server-key.pem", 0o600), ("ca.pem", 0o644), ("server.pem", 0o644)] {
        assert_eq!(fs::metadata(file(name)).unwrap().permissions().mode() & 0o777, mode, "{name}");
    }
    assert_eq!(store.user.fails(&["certs", text(&folder), "http://a"]).0, 2);
    let half = text(&store.folder.path().join("half")).to_owned();
    fs::create_dir(&half).unwrap();
    fs::copy(&authority, format!("{half}/ca.pem")).unwrap();
    assert!(store.user.fails(&["certs", &half]).1.contains("bring the key back"), "no other authority takes its name");
    let cluster = text(&store.user.cluster).to_owned();
    let start = ["gateway", "--cluster", &cluster, "--http", "0"];
    let mut half = spawn(&[&start[..], &["--tls-cert", &certificate]].concat());
    assert_eq!(half.wait_for_exit().code(), Some(2));
    let mut wrong = spawn(&[&start[..], &["--tls-cert", &key, "--tls-key", &certificate]].concat());
    assert_eq!(wrong.wait_for_exit().code(), Some(1));
    assert!(
        wrong.comes_to_log("server-key.pem: there is no certificate"),
        "it says which file: {:?}",
        wrong.log_so_far()
    );
    let mut gateway = spawn(&[&start[..], &["--tls-cert", &certificate, "--tls-key", &key]].concat());
    let url = url(&mut gateway);
    assert!(url.starts_with("https://"), "{url}");
    for version in ["1.2", "1.3"] {
        let with = ["--cacert", &authority, "--tls-max", version];
        let folder = format!("{url}/{version}/");
        assert_eq!(curl(&[&with[..], &["-X", "PUT", &folder]].concat()).1, 201);
        // Two requests on one connection, one of them with an answer of some length.
        let listed = tool("curl", &[&["-sS"][..], &with, &[&folder, &format!("{url}/")]].concat());
        assert!(String::from_utf8_lossy(&listed.stdout).contains(&format!("<h1>/{version}/</h1>")));
    }
    let plain = tool("curl", &["-sS", &url.replace("https", "http")]);
    assert!(!plain.status.success(), "no HTTP is spoken there");
    let stranger = tool("curl", &["-sS", &format!("{url}/")]);
    assert_eq!(stranger.status.code(), Some(60), "curl does not know who signed the certificate");
    store.server.kill();
}

#[test]
fn a_new_store_says_once_how_to_log_in() {
    if !kit::has_tools(&["curl"]) {
        return;
    }
    let mut store = Whole::with_gateway(1);
    let gateway = url(&mut store.server);
    let line = |store: &mut Whole| {
        let log = store.server.log_so_far();
        log.iter().find_map(|line| Some(line.split_once("user admin, password ")?.1.split(':').next()?.to_owned()))
    };
    let login = format!("admin:{}", line(&mut store).expect("it is said"));
    store.user.ok(&["user", "grant", "anonymous", "none", "/"]);
    let made = format!("{gateway}/a/");
    kit::eventually("a user is needed", || curl(&[&format!("{gateway}/")]).1 == 401);
    assert_eq!(curl(&["-u", &login, "-X", "PUT", &made]).1, 201);
    let listed = store.user.ok(&["user", "list"]);
    assert_eq!(listed, "admin\n  admin  /\nanonymous\n");
    store.end_and_start();
    let gateway = url(&mut store.server);
    assert_eq!(line(&mut store), None, "it is not said again");
    assert_eq!(curl(&["-u", &login, "-X", "DELETE", &format!("{gateway}/a/")]).1, 204);
    let new = store.user.with_input(&["user", "password", "--password-stdin", "admin"], b"new one\n");
    assert!(new.status.success());
    kit::eventually("it is changed", || curl(&["-u", "admin:new one", &format!("{gateway}/")]).1 == 200);
    assert_eq!(curl(&["-u", &login, &format!("{gateway}/")]).1, 401);
}

#[test]
fn users_are_told_apart_and_mistakes_named() {
    let lone = Lone::start();
    let user = &lone.user;
    assert_eq!(user.ok(&["user", "add", "bob"]).trim().len(), 23, "a password is drawn");
    user.ok(&["user", "grant", "bob", "read", "/"]);
    user.ok(&["user", "grant", "bob", "write", "/home/bob/"]);
    user.ok(&["user", "grant", "bob", "none", "/"]);
    let listed = user.json_lines(&["user", "list", "--json"]);
    assert_eq!(listed.len(), 1);
    assert_eq!((&listed[0]["name"], &listed[0]["has_password"]), (&"bob".into(), &true.into()));
    assert_eq!(listed[0]["rights"], serde_json::json!([{ "path": "/home/bob", "right": "write" }]));
    assert_eq!(user.ok(&["ls"]), "", "users are not listed as files");
    for (words, code, says) in [
        (&["user", "add", "bob"][..], 4, "already"),
        (&["user", "remove", "eve"], 3, "no such user"),
        (&["user", "grant", "eve", "read", "/"], 3, "no such user"),
        (&["user", "grant", "bob", "all", "/"], 2, "read, write, admin or none"),
        (&["user", "grant", "bob", "read", "home"], 2, "begins with /"),
        (&["user", "add", "a/b"], 2, "letters"),
        (&["user", "password", "anonymous"], 2, "no password"),
    ] {
        let (found, said) = user.fails(words);
        assert!(found == code && said.contains(says), "{words:?}: {found} {said}");
    }
}
