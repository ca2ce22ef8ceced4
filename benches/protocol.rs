//! How fast is a message read and printed, and a line received?
//!
//! Floors: splitting the same line into words and copying them; copying the printed line; the standard library's
//! `read_line` on the same bytes over loopback.
//!
//! Parts: `messages`, `long`, `receive`, `round trip`.

mod common;

use std::hint::black_box;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::{Names, Rng, Run, Size, Table, digits, measure};
use stevedore::protocol::connection::DSTORE_LINE_LIMIT;
use stevedore::protocol::{Address, Connection, Message, Order, Transfer};

const SEED: u64 = 1;
const ROUNDS: Size<usize> = Size { full: 9, tiny: 1 };
/// Short messages of each kind in a round.
const MESSAGES: Size<usize> = Size { full: 20_000, tiny: 10 };
/// How many of them differ: with one name only, the processor would learn it by heart.
const VARIANTS: usize = 1_000;
/// Names in the long messages.
const NAMES: Size<&[usize]> = Size { full: &[1_000, 10_000, 100_000, 1_000_000], tiny: &[10] };
/// Names in all repetitions of a long message in a round, at least.
const NAMES_A_ROUND: Size<usize> = Size { full: 100_000, tiny: 10 };
/// Lines received in a round.
const LINES: Size<usize> = Size { full: 200_000, tiny: 100 };
/// Names in the one long line.
const NAMES_IN_A_LINE: Size<usize> = Size { full: 1_000_000, tiny: 1_000 };
/// Round trips in a round.
const ROUND_TRIPS: Size<usize> = Size { full: 4_000, tiny: 10 };
const PATIENCE: Duration = Duration::from_secs(30);

/// Stands for a name, a different one in each message.
const NAME: &str = "<name>";
/// Every kind of message; a name is 20 bytes.
const KINDS: [&str; 24] = [
    "JOIN 4001",
    "STORE <name> 1048576",
    "STORE_TO 4001 4002 4003",
    "ACK",
    "STORE_ACK <name>",
    "STORE_COMPLETE",
    "LOAD <name>",
    "RELOAD <name>",
    "LOAD_FROM 4001 1048576",
    "LOAD_DATA <name>",
    "REMOVE <name>",
    "REMOVE_ACK <name>",
    "REMOVE_COMPLETE",
    "LIST",
    "LIST <name> <name>",
    "REBALANCE 2 <name> 2 4001 4002 <name> 1 4003 2 <name> <name>",
    "REBALANCE_STORE <name> 1048576",
    "REBALANCE_COMPLETE",
    "ERROR_NOT_ENOUGH_DSTORES",
    "ERROR_FILE_ALREADY_EXISTS",
    "ERROR_FILE_DOES_NOT_EXIST",
    "ERROR_FILE_DOES_NOT_EXIST <name>",
    "ERROR_LOAD",
    "KEEP_ALIVE",
];

fn main() -> io::Result<()> {
    let run = Run::new();
    if run.wants("messages") {
        short_messages(&run);
    }
    if run.wants("long") {
        long_messages(&run);
    }
    if run.wants("receive") {
        receive_lines(&run)?;
    }
    if run.wants("round trip") {
        round_trips(&run)?;
    }
    Ok(())
}

/// A message's memory is given back on the clock, as it is in service.
fn short_messages(run: &Run) {
    let count = run.size(MESSAGES);
    let mut rng = Rng(SEED);
    let heads = ["message", "parse ns", "/ split+copy", "print ns", "/ copy"];
    let mut table = Table::new("Messages, each read and printed", &heads);
    for kind in KINDS {
        let mut word = |word: &str| if word == NAME { rng.name().to_string() } else { word.to_owned() };
        let mut line = || kind.split(' ').map(&mut word).collect::<Vec<_>>().join(" ");
        let lines: Vec<String> = (0..VARIANTS).map(|_| line()).collect();
        let messages: Vec<_> = lines.iter().map(|line| Message::parse(line).expect("every kind is one")).collect();
        assert!(messages.iter().map(Message::to_string).eq(lines.iter().cloned()), "what is read is printed");
        let mut words = Vec::new();
        let figures = measure(run.size(ROUNDS), |clock| {
            let lines = || lines.iter().cycle().take(count);
            let messages = || messages.iter().cycle().take(count);
            clock.time_each("parse", count, || {
                lines().for_each(|line| drop(black_box(Message::parse(black_box(line)))))
            });
            clock.time_each("split", count, || lines().for_each(|line| split_and_copy(black_box(line), &mut words)));
            clock.time_each("print", count, || messages().for_each(|message| drop(black_box(message.to_string()))));
            clock.time_each("copy", count, || lines().for_each(|line| drop(black_box(black_box(line).clone()))));
        });
        table.row([
            kind.to_owned(),
            figures["parse"].parts(1e9).to_string(),
            figures["parse"].over(&figures["split"]).brief(),
            figures["print"].parts(1e9).to_string(),
            figures["print"].over(&figures["copy"]).brief(),
        ]);
    }
    table.print();
}

/// The memory of the many names is given back off the clock.
fn long_messages(run: &Run) {
    let heads = ["message", "names", "MB", "parse MB/s", "ns a name", "/ split+copy", "print MB/s", "/ copy"];
    let mut table = Table::new("Long messages, with names of 20 bytes", &heads);
    for (kind, compose) in [("LIST", list as fn(usize) -> Message), ("REBALANCE", rebalance)] {
        for &names in run.size(NAMES) {
            let message = compose(names);
            let line = message.to_string();
            assert_eq!(Message::parse(&line).as_ref(), Ok(&message), "what is printed is read");
            let repeats = (run.size(NAMES_A_ROUND) / names).max(1);
            let megabytes = line.len() as f64 / 1e6;
            let mut words = Vec::new();
            let figures = measure(run.size(ROUNDS), |clock| {
                let parse = || (0..repeats).map(|_| Message::parse(black_box(&line))).collect::<Vec<_>>();
                drop(clock.time_each("parse", repeats, parse));
                clock.time_each("split", repeats, || {
                    (0..repeats).for_each(|_| split_and_copy(black_box(&line), &mut words))
                });
                let print = || (0..repeats).map(|_| black_box(&message).to_string()).collect::<Vec<_>>();
                drop(clock.time_each("print", repeats, print));
                let copy = || (0..repeats).map(|_| black_box(&line).clone()).collect::<Vec<_>>();
                drop(clock.time_each("copy", repeats, copy));
            });
            table.row([
                kind.to_owned(),
                names.to_string(),
                digits(megabytes),
                figures["parse"].rate(megabytes).to_string(),
                figures["parse"].parts(1e9 / names as f64).brief(),
                figures["parse"].over(&figures["split"]).brief(),
                figures["print"].rate(megabytes).to_string(),
                figures["print"].over(&figures["copy"]).brief(),
            ]);
        }
    }
    table.print();
}

fn list(names: usize) -> Message {
    let mut rng = Rng(SEED);
    Message::List { names: (0..names).map(|_| rng.name()).collect() }
}

/// Half of the names to be sent to one Dstore each, half to be removed.
fn rebalance(names: usize) -> Message {
    let mut rng = Rng(SEED);
    let address = Address::local(4001).expect("not 0");
    let sends = (0..names / 2).map(|_| Transfer { name: rng.name(), to: vec![address.clone()] }).collect();
    Message::Rebalance { order: Order { sends, removes: (names / 2..names).map(|_| rng.name()).collect() } }
}

/// What reading a line cannot do without.
fn split_and_copy(line: &str, words: &mut Vec<u8>) {
    words.clear();
    line.split(' ').for_each(|word| words.extend_from_slice(word.as_bytes()));
    black_box(words);
}

/// Many short lines, and one long one, sent in large pieces by another thread.
fn receive_lines(run: &Run) -> io::Result<()> {
    let mut table = Table::new("Lines received over loopback", &["lines", "by", "us a line", "MB/s", "/ read_line"]);
    let mut rng = Rng(SEED);
    let many: Vec<_> = (0..run.size(LINES)).map(|_| Message::StoreAck { name: rng.name() }).collect();
    let long = list(run.size(NAMES_IN_A_LINE));
    for (what, messages) in [(format!("{} of STORE_ACK", many.len()), many), ("one LIST".to_owned(), vec![long])] {
        let lines = messages.len();
        let text: Arc<str> = messages.iter().map(|message| format!("{message}\n")).collect::<String>().into();
        let mut connection = receiver(&text)?;
        ask(connection.outgoing().socket())?;
        for message in &messages {
            assert_eq!(connection.receive()?.as_ref(), Some(&Ok(message.clone())), "what was sent arrives");
        }
        let figures = measure(run.size(ROUNDS), |clock| {
            let mut connection = receiver(&text).expect("a sender");
            let received = clock.time_each("receive", lines, || -> io::Result<usize> {
                ask(connection.outgoing().socket())?;
                let mut received = 0;
                while let Some(line) = connection.receive()? {
                    received += usize::from(black_box(line).is_ok());
                }
                Ok(received)
            });
            assert_eq!(received.expect("the sender goes on"), lines);
            for (name, parses) in [("read_line", false), ("read_line and parse", true)] {
                let mut reader = BufReader::new(sender(&text).expect("a sender"));
                let read = clock.time_each(name, lines, || -> io::Result<usize> {
                    ask(reader.get_ref())?;
                    let mut line = String::new();
                    let mut read = 0;
                    while reader.read_line(&mut line)? > 0 {
                        read += 1;
                        if parses {
                            drop(black_box(Message::parse(line.trim_end())));
                        }
                        black_box(&line);
                        line.clear();
                    }
                    Ok(read)
                });
                assert_eq!(read.expect("the sender goes on"), lines);
            }
        });
        for name in ["receive", "read_line and parse", "read_line"] {
            table.row([
                what.clone(),
                name.to_owned(),
                figures[name].parts(1e6).to_string(),
                figures[name].rate(text.len() as f64 / lines as f64 / 1e6).brief(),
                figures[name].over(&figures["read_line"]).brief(),
            ]);
        }
    }
    table.print();
    Ok(())
}

fn receiver(text: &Arc<str>) -> io::Result<Connection> {
    let mut connection = Connection::new(Arc::new(sender(text)?))?;
    connection.limit_lines(DSTORE_LINE_LIMIT);
    Ok(connection)
}

/// A connection on which `text` arrives once it is asked for. The sending thread ends with the connection.
fn sender(text: &Arc<str>) -> io::Result<TcpStream> {
    let (near, mut far) = connected()?;
    let text = Arc::clone(text);
    thread::spawn(move || -> io::Result<()> {
        far.read_exact(&mut [0])?;
        far.write_all(text.as_bytes())
    });
    Ok(near)
}

/// Starts the sender; on the clock, so that nothing has arrived before that.
fn ask(mut stream: &TcpStream) -> io::Result<()> {
    stream.write_all(b"!")
}

fn connected() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}

/// One short message there and one back, again and again.
fn round_trips(run: &Run) -> io::Result<()> {
    let trips = run.size(ROUND_TRIPS);
    let load = Message::Load { name: Rng(SEED).name() };
    let offer = Message::parse("LOAD_FROM 4001 1048576").expect("a message");
    let (request, reply) = (format!("{load}\n"), format!("{offer}\n"));

    // Each of the two answering threads ends with its connection.
    let (near, far) = connected()?;
    let (mut asking, mut answering) = (Connection::new(Arc::new(near))?, Connection::new(Arc::new(far))?);
    thread::spawn({
        let offer = offer.clone();
        move || -> io::Result<()> {
            while let Some(line) = answering.receive()? {
                black_box(line).expect("a message");
                answering.send(&offer)?;
            }
            Ok(())
        }
    });
    let (near, far) = connected()?;
    let (mut bare_asking, mut bare_answering) = (BufReader::new(near), BufReader::new(far));
    thread::spawn({
        let reply = reply.clone();
        move || -> io::Result<()> {
            let mut line = String::new();
            while bare_answering.read_line(&mut line)? > 0 {
                line.clear();
                bare_answering.get_mut().write_all(reply.as_bytes())?;
            }
            Ok(())
        }
    });

    let figures = measure(run.size(ROUNDS), |clock| {
        clock.time_each("Connection", trips, || {
            for _ in 0..trips {
                asking.send(&load).expect("the other side reads");
                let received = asking.receive_within(PATIENCE).expect("the other side answers");
                assert_eq!(received.as_ref(), Some(&Ok(offer.clone())));
            }
        });
        clock.time_each("bare", trips, || {
            let mut line = String::new();
            for _ in 0..trips {
                line.clear();
                bare_asking.get_mut().write_all(request.as_bytes()).expect("the other side reads");
                bare_asking.read_line(&mut line).expect("the other side answers");
                assert_eq!(line, reply);
            }
        });
    });
    let heads = ["round trip over loopback, LOAD there and LOAD_FROM back", "ns", "/ bare"];
    let mut table = Table::new("Connection::send and receive_within", &heads);
    for (name, what) in [("Connection", "send and receive_within"), ("bare", "bare write and read_line")] {
        let ratio = figures[name].over(&figures["bare"]);
        table.row([what.to_owned(), figures[name].parts(1e9).to_string(), ratio.brief()]);
    }
    table.print();
    Ok(())
}
