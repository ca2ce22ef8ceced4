//! The name server's frames, byte for byte, and a client that is as careless as the original.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::{SOON, Served};
use depot::client::memory::Memory;
use gateway::facade::{Acting, Facade};
use gateway::names::{Answering, DiscoveryOptions, Names, Options};
use kit::{TempFolder, bytes, free_ports};

/// No client is offered a port twice in a test.
const LONG: Duration = Duration::from_secs(3_600);

/// A gateway with the façade, in the directory `/box`, and where the façade is.
fn served(change: impl FnOnce(&mut Options)) -> (Served, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut options = Options { ports: free_ports(60), rest: LONG, discovery: None, ..Options::default() };
    change(&mut options);
    let acting = Acting { directory: "/box".parse().unwrap(), ..Acting::anonymous(true) };
    let starter = Box::new(move |store, record| Names::start(listener, options, store, record));
    let facades = vec![Facade { name: "Names", acting, starter }];
    let served = Served::of(Arc::new(Memory::new("test").unwrap()), |options| options.facades = facades);
    (served, address)
}

/// A session, spoken by hand.
struct Session(TcpStream);

impl Session {
    fn of(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        Self(stream)
    }

    fn ask(&mut self, fields: &str) {
        let blanks = 2_048 - fields.chars().count();
        self.0.write_all(format!("{fields}{}", " ".repeat(blanks)).as_bytes()).unwrap();
    }

    /// Receives exactly this.
    #[track_caller]
    fn hears(&mut self, expected: &str) {
        let mut heard = vec![0; expected.len()];
        self.0.read_exact(&mut heard).unwrap();
        assert_eq!(String::from_utf8_lossy(&heard), expected);
    }

    /// Receives an answer to `rdf`: port and size.
    fn hears_of_port(&mut self) -> (u16, u64) {
        let mut text = String::new();
        let mut left = None;
        while left != Some(0) {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            text.push(char::from(byte[0]));
            let fields: Vec<&str> = text.split("][").collect();
            left = match &fields[..] {
                [_, length, rest @ ..] if !rest.is_empty() => {
                    length.parse().ok().map(|l: usize| l - rest.join("][").len())
                }
                _ => None,
            };
        }
        let fields: Vec<&str> = text.split("][").collect();
        (fields[2].parse().unwrap(), fields[3].parse().unwrap())
    }
}

/// What is asked, and what is answered, one below the other.
const FRAMES: &str = "
    -> rddir][                              <- rddir][0][
    -> crf][a.txt][                         <- crf][12][File created
    -> crf][a.txt][                         <- crf][19][File already exists
    -> inf][a.txt][                         <- inf][17][size=0 replicas=0
    -> mkdir][sub][                         <- mkdir][4][done
    -> mkdir][sub][                         <- mkdir][4][done
    -> crf][sub][                           <- crf][19][File already exists
    -> crf][none/x][                        <- crf][5][Error
    -> cpf][a.txt][b.txt][                  <- cpf][4][Done
    -> cpf][a.txt][b.txt][                  <- cpf][4][Done
    -> cpf][a.txt][b.txt][                  <- cpf][4][Done
    -> cpf][a.txt][a.txt][                  <- cpf][4][Done
    -> cpf][a.txt][sub/][                   <- cpf][4][Done
    -> cpf][a.txt][sub][                    <- cpf][4][Done
    -> cpf][a.txt][none/][                  <- cpf][5][Error
    -> cpf][none][b][                       <- cpf][18][No such file exist
    -> cpf][sub][b][                        <- cpf][18][No such file exist
    -> rddir][                              <- rddir][51][a(1).txt|a.txt|b(1).txt|b(2).txt|b.txt|sub(1)|sub/|
    -> opdir][sub][                         <- opdir][4][Done
    -> rddir][                              <- rddir][6][a.txt|
    -> mvf][a.txt][..][                     <- mvf][4][Done
    -> rddir][                              <- rddir][0][
    -> opdir][..][                          <- opdir][4][Done
    -> opdir][..][                          <- opdir][17][No such directory
    -> opdir][a.txt][                       <- opdir][17][No such directory
    -> opdir][none][                        <- opdir][17][No such directory
    -> mvf][b.txt][../x][                   <- mvf][5][Error
    -> mvf][b.txt][sub/c.txt][              <- mvf][4][Done
    -> mvf][none][x][                       <- mvf][18][No such file exist
    -> rmdir][sub][                         <- rmdir][22][Directory is not empty
    -> rmf][sub/c.txt][                     <- rmf][4][Done
    -> rmf][sub/c.txt][                     <- rmf][12][No such file
    -> rmf][sub][                           <- rmf][12][No such file
    -> rmdir][sub][                         <- rmdir][4][Done
    -> rmdir][sub][                         <- rmdir][17][No such directory
    -> rmdir][a.txt][                       <- rmdir][17][No such directory
    -> rdf][none][                          <- rdf][4][0][0
    -> wrf][a.txt][5][                      <- 0000
    -> wrf][new][five][                     <- 0000
    -> inf][none][                          <- inf][18][No such file exist
    -> crf][two%20words][                   <- crf][12][File created
    -> crf][ü%5D[x%0A%25][                  <- crf][12][File created
    -> rmf][a(1).txt][                      <- rmf][4][Done
    -> rddir][                              <- rddir][64][a(2).txt|a.txt|b(1).txt|b(2).txt|sub(1)|two%20words|ü%5D[x%0A%|
    -> init][                               <- init][59][Not allowed: the gateway was started without --allow-format
    -> what][                               <- what][5][Error
    -> crf][                                <- crf][5][Error
";

#[test]
fn frames_are_answered_byte_for_byte() {
    let (served, address) = served(|_| ());
    let mut session = Session::of(address);
    for line in FRAMES.lines().filter(|line| !line.is_empty()) {
        let (asked, answer) = line.trim().strip_prefix("-> ").unwrap().split_once(" <- ").unwrap();
        session.ask(asked.trim());
        session.hears(&answer.replace('|', "\n"));
    }
    assert_eq!(served.content("/box/two words").unwrap(), b"");
    assert_eq!(served.content("/box/ü][x\n%").unwrap(), b"");
    session.ask("exit][");
    assert_eq!(session.0.read(&mut [0]).unwrap(), 0, "no answer; it closes");
}

#[test]
fn each_session_has_a_current_directory_of_its_own() {
    let (served, address) = served(|_| ());
    served.put("/box/one/a", b"");
    served.put("/box/two/b", b"");
    let mut sessions: Vec<Session> = (0..30).map(|_| Session::of(address)).collect();
    for (number, session) in sessions.iter_mut().enumerate() {
        session.ask(if number % 2 == 0 { "opdir][one][" } else { "opdir][two][" });
    }
    for (number, session) in sessions.iter_mut().enumerate() {
        session.hears("opdir][4][Done");
        session.ask("rddir][");
        session.hears(if number % 2 == 0 { "rddir][2][a\n" } else { "rddir][2][b\n" });
    }
}

#[test]
fn init_empties_the_directory_if_that_is_allowed() {
    let (served, address) = served(|options| options.allows_format = true);
    served.put("/box/one/a", b"x");
    served.put("/box/b", b"x");
    served.put("/beside", b"x");
    let mut session = Session::of(address);
    session.ask("opdir][one][");
    session.hears("opdir][4][Done");
    session.ask("init][");
    session.hears("init][0]["); // a store in memory has no storage
    session.ask("rddir][");
    session.hears("rddir][0][");
    assert!(served.content("/beside").is_some() && served.content("/box/b").is_none());
}

#[test]
fn a_listing_that_does_not_fit_a_segment_says_so() {
    let (served, address) = served(|_| ());
    for number in 0..5_000 {
        served.put(&format!("/box/a-name-of-some-length-{number:04}"), b"");
    }
    let mut session = Session::of(address);
    session.ask("rddir][");
    let mut heard = vec![0; 200_000];
    let length = session.0.read(&mut heard).unwrap();
    let heard = String::from_utf8(heard[..length].to_vec()).unwrap();
    let fields: Vec<&str> = heard.split("][").collect();
    assert_eq!(fields[1].parse::<usize>().unwrap(), fields[2].len(), "it came at once");
    assert!(fields[2].ends_with("\n... and more\n"));
    session.ask("opdir][..][");
    session.hears("opdir][17][No such directory");
}

#[test]
fn a_transfer_is_dialled_closed_first_and_then_told() {
    let (served, address) = served(|options| (options.ports, options.rest) = (free_ports(1), Duration::ZERO));
    let mut session = Session::of(address);
    for content in [&b""[..], b"hello"] {
        session.ask(&format!("wrf][a][{}][", content.len()));
        let mut port = [0; 4];
        session.0.read_exact(&mut port).unwrap();
        let port: u16 = std::str::from_utf8(&port).unwrap().parse().unwrap();
        session.0.write_all(b"e").unwrap();
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let (mut data, _) = listener.accept().unwrap();
        drop(listener);
        data.write_all(content).unwrap();
        // The server does not wait for the end of the stream, and closes.
        assert_eq!(data.read(&mut [0]).unwrap(), 0);
        session.hears(&format!("wrf][16][{} bytes recieved", content.len()));
        assert_eq!(served.content("/box/a").unwrap(), content);
        session.ask("rdf][a][");
        let (port, size) = session.hears_of_port();
        assert_eq!(size, content.len() as u64);
        session.0.write_all(b"y").unwrap();
        let (mut data, _) = TcpListener::bind(("127.0.0.1", port)).unwrap().accept().unwrap();
        let mut got = Vec::new();
        data.read_to_end(&mut got).unwrap();
        assert_eq!(got, content);
        session.hears(&format!("rdf][12][{} bytes sent", content.len()));
        session.ask("rmf][a][");
        session.hears("rmf][4][Done");
    }
    // An upload that ends early is not kept, and the session goes on.
    session.ask("wrf][a][5][");
    let mut port = [0; 4];
    session.0.read_exact(&mut port).unwrap();
    session.0.write_all(b"e").unwrap();
    let port: u16 = std::str::from_utf8(&port).unwrap().parse().unwrap();
    TcpListener::bind(("127.0.0.1", port)).unwrap().accept().unwrap().0.write_all(b"four").unwrap();
    session.hears("wrf][16][0 bytes recieved");
    session.ask("rddir][");
    session.hears("rddir][0][");
}

/// A transfer has a port of its machine's, and copies of the file are kept open for it: no client has them for as long as it likes.
#[test]
fn content_that_moves_too_slowly_is_given_up() {
    let (served, address) = served(|options| options.limits.stall = Duration::from_millis(300));
    served.put("/box/large", &bytes(1, 30_000_000));
    let mut session = Session::of(address);
    // It comes by a byte now and then, each of them in time.
    session.ask("wrf][a][1000000][");
    let mut port = [0; 4];
    session.0.read_exact(&mut port).unwrap();
    session.0.write_all(b"e").unwrap();
    let port: u16 = std::str::from_utf8(&port).unwrap().parse().unwrap();
    let (mut data, _) = TcpListener::bind(("127.0.0.1", port)).unwrap().accept().unwrap();
    let begun = Instant::now();
    while data.write_all(b"x").is_ok() {
        assert!(begun.elapsed() < SOON, "it is waited for without end");
        thread::sleep(Duration::from_millis(50)); // too slowly on purpose: the pace is under test
    }
    session.hears("wrf][16][0 bytes recieved");
    // It is not taken at all.
    session.ask("rdf][large][");
    let (port, _) = session.hears_of_port();
    session.0.write_all(b"y").unwrap();
    let _untaken = TcpListener::bind(("127.0.0.1", port)).unwrap().accept().unwrap();
    session.hears("rdf][");
}

#[test]
fn a_gateway_ends_while_clients_wait_for_a_port() {
    let (served, address) = served(|options| options.ports = free_ports(1));
    served.put("/box/a", b"hello");
    let mut first = Session::of(address);
    first.ask("rdf][a][");
    first.hears_of_port();
    let mut second = Session::of(address);
    second.ask("rdf][a][");
    served.gateway.stop(Duration::ZERO);
    assert_eq!(second.0.read(&mut [0]).unwrap_or(0), 0, "it was offered none");
}

/// Runs the client on these commands; what it says to each.
fn shell(address: SocketAddr, late: &str, commands: &str) -> Vec<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/names.py");
    let port = address.port().to_string();
    // The client waits without any limit.
    let mut client = Command::new("timeout")
        .args(["-s", "KILL", "600", "python3", script, "127.0.0.1", &port, late])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    client.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
    let output = client.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// The sizes at which other systems have broken.
const SIZES: [usize; 10] = [0, 1, 2_047, 2_048, 2_049, 300_000, (4 << 20) - 1, 4 << 20, (4 << 20) + 1, 5_000_000];

#[test]
fn a_careless_client_gets_files_of_any_size_whole() {
    if !kit::has_tools(&["python3"]) {
        return;
    }
    let (served, address) = served(|_| ());
    let folder = TempFolder::new();
    let local = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let mut commands = String::new();
    let mut expected = Vec::new();
    for size in SIZES.into_iter().chain([100_000_000]) {
        fs::write(local(&format!("from-{size}")), bytes(size as u64, size)).unwrap();
        commands += &format!(
            "write {size} {}\nread {size} {}\ninfo {size}\n",
            local(&format!("from-{size}")),
            local(&format!("to-{size}"))
        );
        let replicas = if size == 0 { 0 } else { 1 };
        expected.extend([
            format!("{size} bytes recieved"),
            format!("{size} bytes sent"),
            format!("size={size} replicas={replicas}"),
        ]);
    }
    commands += &format!("write 1 {}\nread none {}\ndfs_exit\n", local("from-0"), local("none"));
    expected.extend(["File already exists".into(), "No such file".into()]);
    assert_eq!(shell(address, "0", &commands), expected);
    for size in SIZES.into_iter().chain([100_000_000]) {
        let content = bytes(size as u64, size);
        assert!(fs::read(local(&format!("to-{size}"))).unwrap() == content, "{size} bytes that were read");
        assert!(served.content(&format!("/box/{size}")).unwrap() == content, "{size} bytes that were written");
    }
}

#[test]
fn many_careless_clients_that_listen_late_are_served_at_once() {
    if !kit::has_tools(&["python3"]) {
        return;
    }
    let (served, address) = served(|_| ());
    served.put("/box/a", &bytes(1, 300_000));
    let folder = TempFolder::new();
    thread::scope(|scope| {
        for number in 0..8 {
            let to = folder.path().join(number.to_string());
            scope.spawn(move || {
                let commands = format!("read a {0}\nwrite from-{number} {0}\nread a {0}\n", to.display());
                assert_eq!(
                    shell(address, "0.2", &commands),
                    ["300000 bytes sent", "300000 bytes recieved", "300000 bytes sent"]
                );
            });
        }
    });
    for number in 0..8 {
        assert!(served.content(&format!("/box/from-{number}")).unwrap() == bytes(1, 300_000));
    }
}

#[test]
fn storages_are_asked_for_and_answer() {
    let answers = UdpSocket::bind("127.0.0.1:0").unwrap();
    answers.set_read_timeout(Some(SOON)).unwrap();
    let storage = Answering::start(0, answers.local_addr().unwrap().port()).unwrap();
    let to = (std::net::Ipv4Addr::LOCALHOST, storage.address().port());
    answers.send_to(b"what?", to).unwrap();
    answers.send_to(b"discovery", to).unwrap();
    let mut buffer = [0; 64];
    let (length, _) = answers.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"Alive");

    // And the other side: it asks again and again.
    let asked = UdpSocket::bind("127.0.0.1:0").unwrap();
    asked.set_read_timeout(Some(SOON)).unwrap();
    let discovery = DiscoveryOptions { to: asked.local_addr().unwrap(), answers: 0, period: Duration::from_millis(20) };
    let (_served, _) = served(|options| options.discovery = Some(discovery));
    let from: BTreeSet<_> = (0..3)
        .map(|_| {
            let (length, from) = asked.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"discovery");
            asked.send_to(b"Alive", from).unwrap();
            from
        })
        .collect();
    assert_eq!(from.len(), 1, "it asks from the port that answers come to");
}
