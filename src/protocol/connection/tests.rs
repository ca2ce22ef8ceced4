//! The semantics of Java's streams, byte by byte. (spec 2.1 to 2.3, 2.7)

use std::net::{Ipv4Addr, TcpListener};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Instant;

use kit::Rng;

use super::*;
use crate::protocol::content::{CopyError, copy};

/// Long enough for anything that a loaded machine does; waited for only by what fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// Short, for what is not going to come.
const IN_VAIN: Duration = Duration::from_millis(20);

/// A connection, and the bare socket of its peer.
fn pair() -> (Connection, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let connection = Connection::connect(listener.local_addr().unwrap(), PATIENCE).unwrap();
    let (peer, _) = listener.accept().unwrap();
    peer.set_nodelay(true).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    (connection, peer)
}

/// A connection with a peer that has said this and closed.
fn said(bytes: &[u8]) -> Connection {
    let (connection, mut peer) = pair();
    peer.write_all(bytes).unwrap();
    connection
}

/// The next line, as text and not as a message.
fn line(connection: &mut Connection) -> io::Result<Option<String>> {
    connection.reader.get_mut().wait = Wait::deadline(PATIENCE);
    next_text(connection)
}

/// All lines to the end of the stream.
fn lines(connection: &mut Connection) -> Vec<String> {
    std::iter::from_fn(|| line(connection).unwrap()).collect()
}

fn content(connection: &mut Connection, size: usize) -> io::Result<Vec<u8>> {
    let mut content = vec![0; size];
    connection.content(size as u64, PATIENCE).read_exact(&mut content)?;
    Ok(content)
}

fn kind<T: std::fmt::Debug>(outcome: io::Result<T>) -> ErrorKind {
    outcome.unwrap_err().kind()
}

#[test]
fn a_line_ends_at_lf_cr_crlf_or_the_end_of_the_stream() {
    // spec 2.1
    let table: &[(&[u8], &[&str])] = &[
        (b"", &[]),
        (b"a\n", &["a"]),
        (b"a\r", &["a"]),
        (b"a\r\n", &["a"]),
        (b"a", &["a"]),
        (b"\n", &[""]),
        (b"\r", &[""]),
        (b"\r\n", &[""]),
        (b"\n\r", &["", ""]),
        (b"\r\r\n", &["", ""]),
        (b"\r\n\n", &["", ""]),
        (b"\n\n", &["", ""]),
        (b"a\nb\rc\r\nd", &["a", "b", "c", "d"]),
        (b"a\r\rb\n\nc\r\n\r\nd\n\re", &["a", "", "b", "", "c", "", "d", "", "e"]),
        (b" a  b \n", &[" a  b "]),
    ];
    for (bytes, expected) in table {
        assert_eq!(lines(&mut said(bytes)), *expected, "{:?}", bytes.escape_ascii().to_string());
    }
}

#[test]
fn messages_with_any_ending_are_received_after_malformed_ones() {
    // spec 2.1, 2.6
    let mut connection = said(b"LIST\r\nnonsense\rACK\nREBALANCE_COMPLETE");
    assert_eq!(connection.receive().unwrap(), Some(Ok(Message::List { names: vec![] })));
    assert_eq!(connection.receive().unwrap(), Some(Err(ParseError::UnknownVerb("nonsense".into()))));
    assert_eq!(connection.receive().unwrap(), Some(Ok(Message::Ack)));
    assert_eq!(connection.receive().unwrap(), Some(Ok(Message::RebalanceComplete)));
    assert_eq!(connection.receive().unwrap(), None);
}

#[test]
fn a_first_line_that_a_browser_has_sent_ends_the_connection() {
    // spec 7.29
    let body = b"\r\nHost: localhost\r\n\r\nREMOVE victim\r\n";
    for first_line in [
        &b"GET / HTTP/1.1"[..],
        b"POST /REMOVE%20victim HTTP/1.0",
        b"OPTIONS * HTTP/1.1",
        b" HTTP/1.1",
        b"STORE f 5 HTTP/1.1",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ] {
        let mut connection = said(&[first_line, body].concat());
        assert_eq!(kind(connection.receive()), ErrorKind::InvalidData, "{:?}", first_line.escape_ascii().to_string());
    }
    for first_line in [&b"GET / HTTP/1.2"[..], b"GET /HTTP/1.1", b"HTTP/1.1 200 OK", b"", b"\0\xff", b"LIST"] {
        let mut connection = said(&[first_line, b"\nGET / HTTP/1.1\nACK\n"].concat());
        let shown = first_line.escape_ascii().to_string();
        assert!(connection.receive().unwrap().is_some(), "{shown:?}");
        assert!(matches!(connection.receive(), Ok(Some(Err(ParseError::UnknownVerb(_))))), "not the first: {shown:?}");
        assert_eq!(connection.receive().unwrap(), Some(Ok(Message::Ack)), "{shown:?}");
    }
}

#[test]
fn after_a_cr_an_lf_is_not_waited_for_but_swallowed_if_it_comes() {
    // spec 2.1
    let (mut connection, mut peer) = pair();
    peer.write_all(b"one\r").unwrap();
    assert_eq!(line(&mut connection).unwrap().as_deref(), Some("one"));
    peer.write_all(b"\n").unwrap();
    peer.write_all(b"two\r").unwrap();
    assert_eq!(line(&mut connection).unwrap().as_deref(), Some("two"));
    peer.write_all(b"three\n").unwrap(); // another peer, whose lines end at \r alone
    assert_eq!(line(&mut connection).unwrap().as_deref(), Some("three"));
    peer.write_all(b"four\r").unwrap();
    assert_eq!(line(&mut connection).unwrap().as_deref(), Some("four"));
    peer.write_all(b"\n").unwrap();
    drop(peer);
    assert_eq!(line(&mut connection).unwrap(), None, "the rest of an ending is no line of its own");
}

#[test]
fn a_line_feed_that_ends_the_line_is_not_taken_for_content() {
    // spec 2.1, 2.3
    for later in [false, true] {
        let (mut connection, mut peer) = pair();
        peer.write_all(b"STORE f 3\r").unwrap();
        if later {
            assert_eq!(line(&mut connection).unwrap().as_deref(), Some("STORE f 3"));
            peer.write_all(b"\n").unwrap();
            peer.write_all(b"\nxyACK\n").unwrap();
        } else {
            peer.write_all(b"\n\nxyACK\n").unwrap();
            assert_eq!(line(&mut connection).unwrap().as_deref(), Some("STORE f 3"));
        }
        assert_eq!(content(&mut connection, 3).unwrap(), b"\nxy");
        assert_eq!(line(&mut connection).unwrap().as_deref(), Some("ACK"));
    }
}

#[test]
fn empty_content_does_not_separate_a_cr_from_its_lf() {
    // spec 2.1, 2.3, 6.4: size 0
    let (mut connection, mut peer) = pair();
    peer.write_all(b"STORE f 0\r").unwrap();
    assert_eq!(line(&mut connection).unwrap().as_deref(), Some("STORE f 0"));
    assert_eq!(content(&mut connection, 0).unwrap(), b"", "nothing is waited for");
    peer.write_all(b"\nACK\n").unwrap();
    assert_eq!(line(&mut connection).unwrap().as_deref(), Some("ACK"));
}

#[test]
fn malformed_utf_8_is_replaced_as_java_does_it() {
    // spec 2.1
    let table: &[(&[u8], &str)] = &[
        (b"na\xc3\xafve\n", "na\u{ef}ve"),
        (b"\xff\n", "\u{fffd}"),
        (b"a\x80b\n", "a\u{fffd}b"),
        (b"cut\xe2\x82\n", "cut\u{fffd}"),
        (b"cut\xf0\x9f\x98", "cut\u{fffd}"),
        (b"\xf0\x9f\x98\x80\n", "\u{1f600}"),
    ];
    for (bytes, expected) in table {
        assert_eq!(lines(&mut said(bytes)), [*expected], "{:?}", bytes.escape_ascii().to_string());
    }
}

#[test]
fn content_in_the_same_packet_as_its_line_is_not_lost() {
    // spec 2.3
    let mut connection = said(b"STORE f 5\nhelloLOAD_DATA f\n");
    assert_eq!(line(&mut connection).unwrap().as_deref(), Some("STORE f 5"));
    assert_eq!(content(&mut connection, 5).unwrap(), b"hello");
    assert_eq!(line(&mut connection).unwrap().as_deref(), Some("LOAD_DATA f"));
}

#[test]
fn content_cut_short_and_stalled_content_are_different_errors() {
    // spec 2.3, 2.7, 7.11
    let mut connection = said(b"STORE f 5\nhell");
    line(&mut connection).unwrap();
    assert_eq!(kind(content(&mut connection, 5)), ErrorKind::UnexpectedEof);

    let (mut connection, mut peer) = pair();
    peer.write_all(b"STORE f 5\nhell").unwrap();
    line(&mut connection).unwrap();
    let mut received = Vec::new();
    let stalled = copy(5, &mut connection.content(5, IN_VAIN), &mut |bytes| {
        received.extend_from_slice(bytes);
        Ok(())
    });
    assert!(matches!(stalled, Err(CopyError::Source(error)) if error.kind() == ErrorKind::TimedOut));
    assert_eq!(received, b"hell");
}

#[test]
fn lines_and_content_are_read_as_in_java_whatever_the_packets() {
    // spec 2.1, 2.3
    for seed in 1..=150 {
        let (bytes, steps) = arbitrary_stream(&mut Rng(seed));
        let expected = java(&bytes, &steps);
        let (mut connection, mut peer) = pair();
        let mut rng = Rng(seed ^ 0xFEED);
        let actual = thread::scope(|scope| {
            let packets = packets(&bytes, &mut rng);
            scope.spawn(move || {
                for packet in packets {
                    peer.write_all(packet).unwrap();
                    thread::yield_now();
                }
                // The peer is dropped here: the end of the stream.
            });
            read_all(&mut connection, &steps, PATIENCE, || panic!("seed {seed}: waited in vain"))
        });
        assert_eq!(actual, expected, "seed {seed}: {:?} {steps:?}", bytes.escape_ascii().to_string());
    }
}

#[test]
fn a_timeout_in_the_middle_of_anything_loses_nothing() {
    // spec 2.7: one packet is sent each time that the one before has been read in vain
    for seed in 1..=25 {
        let (bytes, steps) = arbitrary_stream(&mut Rng(seed));
        let expected = java(&bytes, &steps);
        let (mut connection, peer) = pair();
        let mut rng = Rng(seed ^ 0xFEED);
        let mut packets = packets(&bytes, &mut rng).into_iter();
        let mut peer = Some(peer);
        let actual = read_all(&mut connection, &steps, Duration::from_millis(1), || match packets.next() {
            Some(packet) => peer.as_mut().expect("packets are left").write_all(packet).unwrap(),
            None => drop(peer.take()),
        });
        assert_eq!(actual, expected, "seed {seed}: {:?} {steps:?}", bytes.escape_ascii().to_string());
    }
}

/// What a reader does next with a stream.
#[derive(Clone, Copy, Debug)]
enum Step {
    Line,
    Content(usize),
}

/// What comes of it.
#[derive(Debug, PartialEq)]
enum Taken {
    Line(String),
    Content(Vec<u8>),
    End,
    CutShort(Vec<u8>),
}

/// The next line as text; `None` at the end of the stream.
fn next_text(connection: &mut Connection) -> io::Result<Option<String>> {
    Ok(connection.read_line()?.then(|| take_text(&mut connection.line, str::to_owned)))
}

/// Carries out `steps` until the stream ends; `more` is called after each wait of `timeout` in vain.
fn read_all(connection: &mut Connection, steps: &[Step], timeout: Duration, mut more: impl FnMut()) -> Vec<Taken> {
    let mut all = Vec::new();
    for step in steps {
        let read = match *step {
            Step::Line => loop {
                connection.reader.get_mut().wait = Wait::deadline(timeout);
                match next_text(connection) {
                    Ok(line) => break line.map_or(Taken::End, Taken::Line),
                    Err(error) if error.kind() == ErrorKind::TimedOut => more(),
                    Err(error) => panic!("{error}"),
                }
            },
            Step::Content(size) => {
                let mut received = Vec::new();
                loop {
                    let left = size - received.len();
                    let copied = copy(left as u64, &mut connection.content(left as u64, timeout), &mut |bytes| {
                        received.extend_from_slice(bytes);
                        Ok(())
                    });
                    match copied.map_err(io::Error::from) {
                        Ok(()) => break Taken::Content(received),
                        Err(error) if error.kind() == ErrorKind::TimedOut => more(),
                        Err(error) if error.kind() == ErrorKind::UnexpectedEof => break Taken::CutShort(received),
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        };
        let is_last = matches!(read, Taken::End | Taken::CutShort(_));
        all.push(read);
        if is_last {
            break;
        }
    }
    all
}

/// The same, with the whole stream at hand: Java's `BufferedReader.readLine` and `InputStream.readNBytes`.
fn java(mut bytes: &[u8], steps: &[Step]) -> Vec<Taken> {
    let mut all = Vec::new();
    let mut skips_line_feed = false;
    for step in steps {
        let wants_anything = !matches!(step, Step::Content(0));
        if skips_line_feed && wants_anything {
            skips_line_feed = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        match *step {
            Step::Line if bytes.is_empty() => all.push(Taken::End),
            Step::Line => {
                let end = bytes.iter().position(|byte| b"\n\r".contains(byte)).unwrap_or(bytes.len());
                all.push(Taken::Line(String::from_utf8_lossy(&bytes[..end]).into_owned()));
                skips_line_feed = bytes.get(end) == Some(&b'\r');
                bytes = bytes.get(end + 1..).unwrap_or_default();
            }
            Step::Content(size) if size > bytes.len() => all.push(Taken::CutShort(bytes.to_vec())),
            Step::Content(size) => {
                all.push(Taken::Content(bytes[..size].to_vec()));
                bytes = &bytes[size..];
            }
        }
        if matches!(all.last(), Some(Taken::End | Taken::CutShort(_))) {
            break;
        }
    }
    all
}

/// A stream of lines and content, and how to read it. A `\r` that a `\n` happens to follow makes the two come apart,
/// which is just as good a case.
fn arbitrary_stream(rng: &mut Rng) -> (Vec<u8>, Vec<Step>) {
    let mut bytes = Vec::new();
    let mut steps = Vec::new();
    for _ in 0..rng.below(12) {
        if rng.below(3) > 0 {
            steps.push(Step::Line);
            for _ in 0..rng.below(8) {
                match rng.below(5) {
                    0 => bytes.extend("\u{1f600}".bytes()),
                    1 => bytes.extend("é".bytes()),
                    2 => bytes.push(0x80 | rng.below(0x80) as u8),
                    _ => bytes.push(b' ' + rng.below(95) as u8),
                }
            }
            bytes.extend_from_slice([&b"\n"[..], b"\r", b"\r\n"][rng.below(3)]);
        } else {
            // Now and then more than is read ahead.
            let size = if rng.below(8) == 0 { READ_AHEAD + rng.below(READ_AHEAD) } else { rng.below(12) };
            steps.push(Step::Content(size));
            bytes.extend((0..size).map(|_| b"\n\rabc"[rng.below(5)]));
        }
    }
    if rng.below(2) == 0 {
        bytes.extend_from_slice(b"unfinished");
    }
    steps.extend([Step::Line; 4]);
    (bytes, steps)
}

fn packets<'a>(bytes: &'a [u8], rng: &mut Rng) -> Vec<&'a [u8]> {
    let mut rest = bytes;
    let mut packets = Vec::new();
    while !rest.is_empty() {
        let most = if rest.len() > 100 { rest.len() } else { 6 };
        let (packet, left) = rest.split_at((1 + rng.below(most)).min(rest.len()));
        packets.push(packet);
        rest = left;
    }
    packets
}

#[test]
fn a_line_may_reach_the_limit_not_counting_its_ending() {
    for ending in ["\n", "\r", "\r\n", ""] {
        for length in [9, 10, 11, 12, 30] {
            let (mut connection, mut peer) = pair();
            connection.limit_lines(10);
            // In two packets, and after another line, neither of which may change the count.
            peer.write_all(b"0123456789\r\n01234").unwrap();
            assert_eq!(line(&mut connection).unwrap().as_deref(), Some("0123456789"));
            peer.write_all(format!("{}{ending}", "x".repeat(length - 5)).as_bytes()).unwrap();
            drop(peer);
            let second = line(&mut connection);
            if length <= 10 {
                assert_eq!(second.unwrap().unwrap().len(), length, "{ending:?}");
                assert_eq!(line(&mut connection).unwrap(), None, "{ending:?}");
            } else {
                assert_eq!(kind(second), ErrorKind::InvalidData, "{length} {ending:?}");
            }
        }
    }
}

#[test]
fn a_line_over_the_limit_is_refused_before_it_ends() {
    let (mut connection, mut peer) = pair();
    connection.limit_lines(100_000);
    peer.write_all(&[b'x'; 100_001]).unwrap();
    assert_eq!(kind(connection.receive_within(PATIENCE)), ErrorKind::InvalidData);
}

#[test]
fn receive_within_gives_up_in_time_and_keeps_what_had_come() {
    // spec 2.7
    let (mut connection, mut peer) = pair();
    peer.write_all(b"LI").unwrap();
    let begun = Instant::now();
    assert_eq!(kind(connection.receive_within(IN_VAIN)), ErrorKind::TimedOut);
    assert!(begun.elapsed() >= IN_VAIN / 2); // the kernel counts in ticks
    peer.write_all(b"ST").unwrap();
    assert_eq!(kind(connection.receive_within(IN_VAIN)), ErrorKind::TimedOut);
    assert_eq!(kind(connection.receive_within(Duration::ZERO)), ErrorKind::TimedOut);
    peer.write_all(b"\n").unwrap();
    assert_eq!(connection.receive().unwrap(), Some(Ok(Message::List { names: vec![] })));
}

#[test]
fn receive_within_bounds_the_whole_line_not_each_piece_of_it() {
    // spec 2.7: a peer that dribbles does not hold the reader up
    let (mut connection, mut peer) = pair();
    let (stop, stopped) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let end = Instant::now() + PATIENCE;
            let goes_on = || stopped.recv_timeout(Duration::from_millis(2)) == Err(RecvTimeoutError::Timeout);
            while goes_on() && Instant::now() < end && peer.write_all(b"x").is_ok() {}
        });
        assert_eq!(kind(connection.receive_within(Duration::from_millis(50))), ErrorKind::TimedOut);
        drop(stop);
    });
}

#[test]
fn the_wait_for_the_end_tells_an_orderly_end_from_anything_else() {
    // spec 7.18
    let (mut connection, peer) = pair();
    drop(peer);
    connection.wait_for_end(PATIENCE).unwrap();

    let (mut connection, mut peer) = pair();
    peer.write_all(b"x").unwrap();
    assert_eq!(kind(connection.wait_for_end(PATIENCE)), ErrorKind::InvalidData);

    let (mut connection, _peer) = pair();
    assert_eq!(kind(connection.wait_for_end(IN_VAIN)), ErrorKind::TimedOut);

    let (mut connection, peer) = pair();
    SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
    assert_eq!(kind(connection.wait_for_end(PATIENCE)), ErrorKind::ConnectionReset);
}

#[test]
fn wait_for_end_ignores_the_rest_of_the_last_lines_ending() {
    // spec 2.1, 7.18: a receiver whose lines end at \r\n
    for later in [false, true] {
        let (mut connection, mut peer) = pair();
        peer.write_all(if later { b"ACK\r" } else { b"ACK\r\n" }).unwrap();
        assert_eq!(connection.receive_within(PATIENCE).unwrap(), Some(Ok(Message::Ack)));
        if later {
            peer.write_all(b"\n").unwrap();
        }
        drop(peer);
        connection.wait_for_end(PATIENCE).unwrap_or_else(|error| panic!("later: {later}: {error}"));
    }
}

#[test]
fn a_reset_is_seen_as_a_reset_and_a_drop_as_an_orderly_end() {
    // spec 7.18
    let (connection, mut peer) = pair();
    connection.reset();
    assert_eq!(kind(peer.read(&mut [0; 9])), ErrorKind::ConnectionReset);

    let (connection, mut peer) = pair();
    connection.send(&Message::Ack).unwrap();
    drop(connection);
    let mut received = String::new();
    peer.read_to_string(&mut received).unwrap();
    assert_eq!(received, "ACK\n");
}

#[test]
fn a_connection_can_be_ended_from_another_thread() {
    let (mut connection, _peer) = pair();
    let outgoing = connection.outgoing().clone();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| connection.receive());
        outgoing.shut_down(); // before or during the wait: both end it
        assert_eq!(waiting.join().unwrap().unwrap(), None);
    });
}

#[test]
fn messages_are_sent_in_order_each_ending_in_a_line_feed() {
    // spec 2.1, 2.2
    let (connection, mut peer) = pair();
    connection.outgoing().send_all(&[Message::KeepAlive, Message::List { names: vec![] }]).unwrap();
    connection.send_content(b"\r\x00\n").unwrap();
    connection.finish_sending().unwrap();
    let mut received = Vec::new();
    peer.read_to_end(&mut received).unwrap();
    assert_eq!(received, b"KEEP_ALIVE\nLIST\n\r\x00\n");
}

#[test]
fn content_that_the_peer_does_not_take_fails_once_it_stalls() {
    let (connection, _peer) = pair();
    connection.outgoing().limit_stalls(IN_VAIN).unwrap();
    let bytes = vec![0; 1 << 20];
    let failure = (0..1000).find_map(|_| connection.send_content(&bytes).err()).expect("no buffer is that large");
    assert!(matches!(failure.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{failure}");
}

#[test]
fn a_connection_to_a_free_port_fails_and_never_reaches_itself() {
    // One of the ports that the kernel may give our own end is the very port that we connect to. In so many attempts
    // the kernel chooses it, unless another process takes the port first: then another port is tried. Linux gives odd
    // ports to listeners and even ones to connecting sockets, as long as there are any. So the port has to be even.
    const ATTEMPTS: usize = 30_000;
    let mut refused = 0;
    while refused < ATTEMPTS {
        let mut free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        free.set_port(free.port() & !1);
        while refused < ATTEMPTS {
            match Connection::connect(free, PATIENCE) {
                Ok(connection) => {
                    assert_ne!(connection.outgoing().local_port(), free.port(), "connected to itself");
                    break; // another process listens there now
                }
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn a_line_that_its_allowance_does_not_cover_is_skipped() {
    // spec 4.6.1: two connections share 100 bytes beyond their limits of 10
    let allowance = Allowance::new(100);
    let list = |bytes: usize| format!("LIST {}\n", "f".repeat(bytes - "LIST ".len()));
    let mut one = said(format!("{}{}ACK\n", list(110), list(111)).as_bytes());
    let mut other = said(format!("{}ACK\n{}", list(11), list(11)).as_bytes());
    for connection in [&mut one, &mut other] {
        connection.extend_lines(&allowance);
        connection.line_limit().set_extensible(10);
    }
    assert!(matches!(one.receive().unwrap().unwrap(), Ok(Message::List { .. })), "all of the allowance");
    let share = one.take_share();
    assert!(matches!(other.receive().unwrap().unwrap(), Err(ParseError::TooLong { .. })));
    assert_eq!(other.receive().unwrap().unwrap(), Ok(Message::Ack), "the next line is read as ever");
    drop(share);
    assert!(matches!(other.receive().unwrap().unwrap(), Ok(Message::List { .. })), "given back");
    drop(other);
    assert!(matches!(one.receive().unwrap().unwrap(), Err(ParseError::TooLong { .. })), "a byte too many");
    one.line_limit().set(10);
    assert_eq!(one.receive().unwrap().unwrap(), Ok(Message::Ack));
}
