//! HTTPS, as curl speaks it, and as those do who do not.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use common::Served;
use gateway::server::Tls;
use kit::{TempFolder, bytes, eventually};

/// A limit that is soon over.
const SHORT: Duration = Duration::from_millis(300);

fn tool(name: &str, words: &[&str]) -> Output {
    Command::new(name).args(words).output().unwrap_or_else(|error| panic!("{name} is not installed: {error}"))
}

/// A certificate for 127.0.0.1 and its key.
fn certificate(folder: &Path) -> [String; 2] {
    let [certificate, key] = ["cert.pem", "key.pem"].map(|name| folder.join(name).to_str().unwrap().to_owned());
    let words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    let names = ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", &key, "-out", &certificate];
    let made = tool("openssl", &[&words[..], &names].concat());
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    [certificate, key]
}

#[test]
fn files_of_any_size_come_and_go_over_tls() {
    if !kit::has_tools(&["curl", "openssl"]) {
        return;
    }
    let folder = TempFolder::new();
    let [certificate, key] = certificate(folder.path());
    let served =
        Served::with(|options| options.tls = Some(Tls::from_files(certificate.as_ref(), key.as_ref()).unwrap()));
    let [from, to] = ["from", "to"].map(|name| folder.path().join(name).to_str().unwrap().to_owned());
    for (version, size) in [("1.2", 0), ("1.3", 1), ("1.2", 100_000), ("1.3", 20 << 20), ("1.2", 20 << 20)] {
        let content = bytes(size as u64, size);
        fs::write(&from, &content).unwrap();
        let url = served.url("/a").replace("http", "https");
        let with = ["-sS", "-f", "--cacert", &certificate, "--tls-max", version];
        // Twice, on one connection.
        let put = tool("curl", &[&with[..], &["-T", &from, &url, "-T", &from, &url]].concat());
        assert!(put.status.success(), "{}", String::from_utf8_lossy(&put.stderr));
        let got = tool("curl", &[&with[..], &["-o", &to, &url, "-o", &to, &url]].concat());
        assert!(got.status.success(), "{}", String::from_utf8_lossy(&got.stderr));
        assert!(fs::read(&to).unwrap() == content && served.content("/a").unwrap() == content, "{size} over {version}");
    }
}

#[test]
fn what_speaks_no_tls_or_only_begins_to_is_let_go() {
    if !kit::has_tools(&["curl", "openssl"]) {
        return;
    }
    let folder = TempFolder::new();
    let [certificate, key] = certificate(folder.path());
    let served = Served::with(|options| {
        options.tls = Some(Tls::from_files(certificate.as_ref(), key.as_ref()).unwrap());
        options.limits.idle = SHORT;
        options.limits.stall = SHORT;
        options.limits.connections = 1;
    });
    let mut plain = served.dial();
    plain.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let alert = plain.end();
    assert!(!alert.starts_with(b"HTTP") && alert.len() < 100, "{alert:?}");
    // The first bytes of a hello, and no more.
    let mut begun = served.dial();
    begun.write(b"\x16\x03\x01\x02\x00\x01\x00");
    begun.end();
    // One that takes nothing of what it has asked for, until it is told to go on.
    served.put("/large", &vec![0; 32 << 20]);
    let address = served.gateway.address();
    let words = ["-c", SLOW, &address.ip().to_string(), &address.port().to_string()];
    let mut slow = Command::new("python3").args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(slow.stdout.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "begun");
    let look = ["-sS", "-f", "--cacert", &certificate, "-I", &served.url("/large").replace("http", "https")];
    eventually("there is room for another one", || tool("curl", &look).status.success());
    drop(slow.stdin.take());
    let received: usize = said.next().unwrap().unwrap().parse().unwrap();
    assert!(received < 32 << 20, "it was cut off");
    slow.wait().unwrap();
}

/// Asks for a file, takes a byte of it, and the rest when its stdin ends; prints how much that was.
const SLOW: &str = r#"
import socket, ssl, sys
context = ssl._create_unverified_context()
tls = context.wrap_socket(socket.create_connection((sys.argv[1], int(sys.argv[2]))))
tls.sendall(b'GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n')
received = len(tls.recv(1))
print('begun', flush=True)
sys.stdin.read()
try:
    while piece := tls.recv(1 << 16):
        received += len(piece)
except OSError:
    pass
print(received)
"#;
