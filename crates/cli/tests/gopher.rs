//! The façade of `examples/gopher.rs`, as its clients see it.

#[expect(dead_code, reason = "its main serves a store that runs elsewhere")]
#[path = "../examples/gopher.rs"]
mod gopher;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;

use depot::client::memory::Memory;
use depot::client::{Files, PutOptions, Source};
use gateway::access::{Right, User, Users};
use gateway::facade::{Acting, Facade};
use gateway::{Gateway, Options};
use kit::bytes;

/// A gateway with the façade, in the directory `/docs`; where that is reached.
fn served(store: &Arc<dyn Files>) -> (Gateway, String) {
    let options = PutOptions { parents: true, ..PutOptions::default() };
    for (path, content) in
        [("/docs/notes.txt", b"hello".to_vec()), ("/docs/a b/large", bytes(1, 300_000)), ("/x", vec![])]
    {
        store.put(&path.parse().unwrap(), Source::Once(&mut &*content), &options).unwrap();
    }
    let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
    let listener = listen();
    let acting = Acting { directory: "/docs".parse().unwrap(), ..Acting::anonymous(true) };
    let facade =
        Facade { name: "Gopher", acting, starter: Box::new(|store, _| gopher::Gopher::start(listener, store)) };
    let options = Options { facades: vec![facade], ..Options::new(listen()) };
    let gateway = Gateway::start(options, Arc::clone(store)).unwrap();
    let (name, address) = gateway.facades().next().expect("there is one");
    assert_eq!(name, "Gopher");
    (gateway, address)
}

fn ask(address: &str, selector: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(format!("{selector}\r\n").as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

#[test]
fn a_facade_by_one_offers_a_directory_and_no_more() {
    let store: Arc<dyn Files> = Arc::new(Memory::new("test").unwrap());
    let (gateway, address) = served(&store);
    let (host, port) = address.split_once(':').unwrap();
    let menu = format!("1a b\t/a b\t{host}\t{port}\r\n9notes.txt\t/notes.txt\t{host}\t{port}\r\n.\r\n");
    assert_eq!(String::from_utf8(ask(&address, "")).unwrap(), menu);
    assert_eq!(ask(&address, "/notes.txt"), b"hello");
    assert!(ask(&address, "/a b/large") == bytes(1, 300_000));
    for selector in ["/x", "/docs/notes.txt", "/../x", "x", "/.stevedore/users"] {
        assert_eq!(ask(&address, selector)[0], b'3', "{selector}");
    }
    let mut anonymous = User::new("anonymous").unwrap();
    anonymous.rights.insert("/docs/a b".parse().unwrap(), Right::Read);
    Users::of(&*store).insert(&anonymous).unwrap();
    kit::eventually("the user's rights hold", || ask(&address, "/notes.txt")[0] == b'3');
    assert!(ask(&address, "/a b/large") == bytes(1, 300_000));
    gateway.stop(std::time::Duration::ZERO);
    assert!(TcpStream::connect(&address).is_err(), "it has ended");
}

#[test]
fn curl_reads_a_store_over_gopher() {
    let speaks_gopher = |version: &std::process::Output| String::from_utf8_lossy(&version.stdout).contains("gopher");
    if !kit::has_tools(&["curl"])
        || !Command::new("curl").arg("-V").output().is_ok_and(|version| speaks_gopher(&version))
    {
        println!("skipped: there is no curl that speaks Gopher");
        return;
    }
    let store: Arc<dyn Files> = Arc::new(Memory::new("test").unwrap());
    let (_gateway, address) = served(&store);
    let curl = Command::new("curl").args(["-sS", &format!("gopher://{address}/9/a%20b/large")]).output().unwrap();
    assert!(curl.stdout == bytes(1, 300_000), "{}", String::from_utf8_lossy(&curl.stderr));
}
