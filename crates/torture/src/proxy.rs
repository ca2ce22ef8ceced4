//! A network that fails: passes connections on, and cuts some of them in the middle of a message or of content.
//!
//! It passes a reset on as a reset, and an orderly end as an orderly end, as the protocol tells them apart (spec 7.18).
//! A cut that may fall into a line is a reset. At an orderly end an unfinished line counts as a line (spec 2.1): half
//! of `LOAD_FROM 4001 1234` would then be a lie told by the network, not by Stevedore.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kit::Rng;
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;

/// How often a proxy looks whether it is to stop.
const TICK: Duration = Duration::from_millis(20);

/// How long to wait for a message on a link that is to be cut in the middle of one.
const CUT_PATIENCE: Duration = Duration::from_millis(300);

/// How bad the network is; shared by all proxies, and changed while they run.
pub struct Weather {
    /// How many connections of a hundred are cut.
    percent: AtomicUsize,
    rng: Mutex<Rng>,
    /// Connections cut so far.
    pub cuts: AtomicU64,
}

impl Weather {
    /// Fair at first.
    pub fn new(rng: Rng) -> Arc<Self> {
        Arc::new(Self { percent: AtomicUsize::new(0), rng: Mutex::new(rng), cuts: AtomicU64::new(0) })
    }

    /// From now on so many connections of a hundred are cut. In fair weather, none: not even those that were to be.
    pub fn set(&self, percent: usize) {
        self.percent.store(percent, Ordering::Relaxed);
    }

    fn plan(&self, kind: Kind) -> Option<Cut> {
        let mut rng = self.rng.lock();
        if !rng.percent(self.percent.load(Ordering::Relaxed)) {
            return None;
        }
        // Most lines are shorter than 64 bytes; most content is longer.
        let bytes = match rng.below(3) {
            0 => 1 + rng.below(60),
            1 => 1 + rng.below(5_000),
            _ => 1 + rng.below(100_000),
        } as u64;
        let is_orderly = kind == Kind::Dstore && bytes > 100 && rng.percent(50);
        Some(Cut { to_server: rng.percent(60), bytes, is_orderly })
    }
}

/// An end of a connection through a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    /// A server, by the port of its proxy.
    Server(u16),
    /// A client of the depot, by its id.
    Client(u64),
}

/// Whose bytes do not reach which others for now: they arrive late, when the gate is opened, unless the connection is given up
/// before.
#[derive(Default)]
pub struct Gates {
    /// From, to.
    closed: Mutex<BTreeSet<(Party, Party)>>,
}

impl Gates {
    /// Within a moment these are closed, and no others.
    pub fn set(&self, closed: BTreeSet<(Party, Party)>) {
        *self.closed.lock() = closed;
    }

    fn is_closed(&self, from: Party, to: Party) -> bool {
        self.closed.lock().contains(&(from, to))
    }
}

/// Which server or client has opened a connection, as its first lines say. `PEER` and `JOIN` name the address where a server
/// listens itself; the first line of a client ends with its id.
#[derive(Default)]
struct Caller {
    party: Option<Party>,
    /// What it has said so far, until that is known.
    said: Vec<u8>,
}

impl Caller {
    fn hear(&mut self, bytes: &[u8]) {
        const MOST_HEARD: usize = 4096;
        if self.party.is_some() || self.said.len() >= MOST_HEARD {
            return;
        }
        self.said.extend_from_slice(bytes);
        let said = String::from_utf8_lossy(&self.said);
        self.party = said.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).find_map(|line| {
            let mut words = line.split(' ');
            match words.next()? {
                "PEER" | "JOIN" => {
                    words.find_map(|word| word.strip_prefix("127.0.0.1:")?.parse().ok()).map(Party::Server)
                }
                "DEPOT" if words.nth(2) == Some("client") => {
                    u64::from_str_radix(words.next_back()?, 16).ok().map(Party::Client)
                }
                _ => None,
            }
        });
    }
}

/// The kind of program behind a proxy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The Controller, for clients.
    Controller,
    /// A Dstore, for clients and other Dstores.
    Dstore,
}

struct Cut {
    to_server: bool,
    bytes: u64,
    is_orderly: bool,
}

/// A proxy for any number of connections. Those that there are outlive it.
pub struct Proxy {
    /// Where it listens.
    pub port: u16,
    stop: Arc<AtomicBool>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Proxy {
    /// Passes connections on to the port in `target`. While that is 0 no program listens yet, and connections are
    /// closed.
    pub fn start(target: Arc<AtomicUsize>, kind: Kind, weather: &Arc<Weather>) -> io::Result<Self> {
        Self::start_with_gates(target, kind, weather, &Arc::default())
    }

    /// The same, between servers that may not reach each other for a while.
    pub fn start_with_gates(
        target: Arc<AtomicUsize>,
        kind: Kind,
        weather: &Arc<Weather>,
        gates: &Arc<Gates>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, weather, gates) = (Arc::clone(&stop), Arc::clone(weather), Arc::clone(gates));
        thread::Builder::new().name("proxy".into()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let Ok((client, _)) = listener.accept() else {
                    let _ = poll(&mut [PollFd::new(&listener, PollFlags::IN)], Some(&timespec(TICK)));
                    continue;
                };
                let target = loopback(target.load(Ordering::Relaxed) as u16);
                let (weather, gates) = (Arc::clone(&weather), Arc::clone(&gates));
                let _ = thread::Builder::new().name("relay".into()).spawn(move || {
                    let plan = weather.plan(kind);
                    let Ok(server) = TcpStream::connect(target) else { return reset(&client) };
                    let relay = Relay::new(client, server);
                    if relay.client.set_nonblocking(false).is_ok() && relay.run(plan, &weather, &gates, port) {
                        weather.cuts.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        })?;
        Ok(Self { port, stop })
    }
}

/// The one connection from a Dstore to the Controller, which can be cut.
pub struct Link {
    /// Where the Dstore finds its Controller.
    pub port: u16,
    cut: Arc<AtomicBool>,
}

impl Link {
    /// Waits for the Dstore, and tells the Controller that it listens on `front`; where it really does goes to `target`.
    pub fn start(controller: u16, front: u16, target: Arc<AtomicUsize>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let cut = Arc::new(AtomicBool::new(false));
        let is_cut = Arc::clone(&cut);
        thread::Builder::new().name("link".into()).spawn(move || {
            let join = || -> io::Result<(TcpStream, TcpStream)> {
                let (mut dstore, _) = listener.accept()?;
                let mut controller = TcpStream::connect(loopback(controller))?;
                let mut line = Vec::new();
                while line.last() != Some(&b'\n') {
                    let mut byte = [0];
                    dstore.read_exact(&mut byte)?;
                    line.push(byte[0]);
                }
                let real =
                    String::from_utf8_lossy(&line).trim().strip_prefix("JOIN ").and_then(|port| port.parse().ok());
                target.store(real.ok_or(ErrorKind::InvalidData)?, Ordering::Relaxed);
                controller.write_all(format!("JOIN {front}\n").as_bytes())?;
                Ok((dstore, controller))
            };
            if let Ok((dstore, controller)) = join() {
                Relay::new(dstore, controller).run_until(&is_cut);
            }
        })?;
        Ok(Self { port, cut })
    }

    /// Cuts it in the middle of the next message, in either direction.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }
}

/// Both ends of a connection, of which one thread takes care.
struct Relay {
    client: TcpStream,
    server: TcpStream,
    client_ended: bool,
    server_ended: bool,
}

enum Passed {
    /// This much has come; it is not passed on yet.
    Bytes(usize),
    Nothing,
    /// Both ends have ended in order.
    Ended,
}

impl Relay {
    fn new(client: TcpStream, server: TcpStream) -> Self {
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        Self { client, server, client_ended: false, server_ended: false }
    }

    /// Passes on until the end, or the cut; true for the latter.
    fn run(mut self, mut cut: Option<Cut>, weather: &Weather, gates: &Gates, port: u16) -> bool {
        let mut buffer = vec![0; 64 << 10];
        let mut caller = Caller::default();
        let server = Party::Server(port);
        loop {
            for to_server in [true, false] {
                let is_closed = caller.party.is_some_and(|caller| {
                    let (from, to) = if to_server { (caller, server) } else { (server, caller) };
                    gates.is_closed(from, to)
                });
                if is_closed {
                    if to_server {
                        thread::sleep(TICK); // in place of waiting for bytes
                    }
                    continue;
                }
                let received = match self.receive(to_server, &mut buffer, to_server) {
                    Ok(Passed::Bytes(received)) => {
                        if to_server {
                            caller.hear(&buffer[..received]);
                        }
                        received as u64
                    }
                    Ok(Passed::Nothing) => continue,
                    Ok(Passed::Ended) => return false,
                    Err(_) => return self.reset(false),
                };
                if weather.percent.load(Ordering::Relaxed) == 0 {
                    cut = None;
                }
                let due = cut.as_mut().filter(|cut| cut.to_server == to_server);
                if let Some(Cut { bytes, is_orderly, .. }) = due {
                    if *bytes <= received {
                        let sent = self.other(to_server).write_all(&buffer[..*bytes as usize]);
                        // Closed with bytes unread, the other end sees a reset in any case.
                        return if *is_orderly && sent.is_ok() { true } else { self.reset(true) };
                    }
                    *bytes -= received;
                }
                if self.other(to_server).write_all(&buffer[..received as usize]).is_err() {
                    return self.reset(false);
                }
            }
        }
    }

    /// Passes on until the end, or until it is to be cut: then in the middle of what comes next.
    fn run_until(mut self, is_cut: &AtomicBool) {
        let mut buffer = vec![0; 64 << 10];
        let mut deadline = None;
        loop {
            for to_server in [true, false] {
                let is_due = is_cut.load(Ordering::Relaxed);
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + CUT_PATIENCE);
                match self.receive(to_server, &mut buffer, to_server) {
                    Ok(Passed::Bytes(received)) => {
                        let passed = if is_due { received / 2 } else { received };
                        if self.other(to_server).write_all(&buffer[..passed]).is_err() || is_due {
                            self.reset(true);
                            return;
                        }
                    }
                    Ok(Passed::Nothing) if is_due && Instant::now() > deadline => {
                        self.reset(true);
                        return;
                    }
                    Ok(Passed::Nothing) => {}
                    Ok(Passed::Ended) => return,
                    Err(_) => {
                        self.reset(false);
                        return;
                    }
                }
            }
            if !is_cut.load(Ordering::Relaxed) {
                deadline = None;
            }
        }
    }

    /// Takes what there is for one direction; waits for either, for a tick, if `waits`.
    fn receive(&mut self, to_server: bool, buffer: &mut [u8], waits: bool) -> io::Result<Passed> {
        let flags = |ended| if ended { PollFlags::empty() } else { PollFlags::IN };
        let mut fds =
            [PollFd::new(&self.client, flags(self.client_ended)), PollFd::new(&self.server, flags(self.server_ended))];
        poll(&mut fds, Some(&timespec(if waits { TICK } else { Duration::ZERO })))?;
        let seen = fds[usize::from(!to_server)].revents();
        let ended = if to_server { self.client_ended } else { self.server_ended };
        if seen.contains(PollFlags::ERR) {
            return Err(ErrorKind::ConnectionReset.into());
        }
        if ended || !seen.intersects(PollFlags::IN | PollFlags::HUP) {
            return Ok(Passed::Nothing);
        }
        let mut from = if to_server { &self.client } else { &self.server };
        match from.read(buffer)? {
            0 => {
                let _ = self.other(to_server).shutdown(Shutdown::Write);
                *(if to_server { &mut self.client_ended } else { &mut self.server_ended }) = true;
                Ok(if self.client_ended && self.server_ended { Passed::Ended } else { Passed::Nothing })
            }
            received => Ok(Passed::Bytes(received)),
        }
    }

    fn other(&self, to_server: bool) -> &TcpStream {
        if to_server { &self.server } else { &self.client }
    }

    fn reset(&self, was_cut: bool) -> bool {
        reset(&self.client);
        reset(&self.server);
        was_cut
    }
}

/// Makes it end in a reset once it is dropped.
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: duration.subsec_nanos().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A proxy in such weather, and a connection through it: the client's end and the server's.
    fn connection(percent: usize, seed: u64) -> (Proxy, Arc<Weather>, TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let target = Arc::new(AtomicUsize::new(listener.local_addr().unwrap().port().into()));
        let weather = Weather::new(Rng::stream(seed, 0));
        weather.set(percent);
        let proxy = Proxy::start(target, Kind::Dstore, &weather).unwrap();
        let client = TcpStream::connect(loopback(proxy.port)).unwrap();
        let (server, _) = listener.accept().unwrap();
        (proxy, weather, client, server)
    }

    #[test]
    fn the_proxy_passes_on_an_orderly_end_of_one_direction_only() {
        // spec 7.18
        let (_proxy, _, mut client, mut server) = connection(0, 1);
        client.write_all(b"hello").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut received = String::new();
        server.read_to_string(&mut received).unwrap();
        assert_eq!(received, "hello");
        server.write_all(b"stored").unwrap();
        drop(server);
        received.clear();
        client.read_to_string(&mut received).unwrap();
        assert_eq!(received, "stored");
    }

    #[test]
    fn a_reset_is_passed_on_as_a_reset_and_never_as_an_orderly_end() {
        // spec 7.18: else a sender would take for stored what was not
        for seed in 0..20 {
            let (_proxy, _, mut client, server) = connection(0, seed);
            client.write_all(b"hello").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            reset(&server);
            drop(server);
            let ended = client.read(&mut [0]);
            assert_eq!(ended.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset), "seed {seed}");
        }
    }

    #[test]
    fn a_closed_gate_holds_back_one_direction() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let target = Arc::new(AtomicUsize::new(listener.local_addr().unwrap().port().into()));
        let gates: Arc<Gates> = Arc::default();
        let weather = Weather::new(Rng::stream(1, 0));
        let proxy = Proxy::start_with_gates(target, Kind::Controller, &weather, &gates).unwrap();
        let mut client = TcpStream::connect(loopback(proxy.port)).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"DEPOT 1\nPEER a 127.0.0.1:7 b\n").unwrap();
        server.read_exact(&mut [0; 29]).unwrap();
        gates.set([(Party::Server(7), Party::Server(proxy.port))].into());
        thread::sleep(3 * TICK); // the relay looks once in a tick
        client.write_all(b"late").unwrap();
        server.write_all(b"ok").unwrap();
        client.read_exact(&mut [0; 2]).unwrap();
        server.set_read_timeout(Some(5 * TICK)).unwrap();
        assert_eq!(server.read(&mut [0; 4]).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
        gates.set(BTreeSet::new());
        server.set_read_timeout(None).unwrap();
        server.read_exact(&mut [0; 4]).unwrap();
    }

    #[test]
    fn a_caller_is_known_by_its_first_lines() {
        let table = [
            ("DEPOT 1 0 client c0ffee 77 1f\n", Some(Party::Client(0x1f))),
            ("DEPOT 1 0 client c0ffee 77 1f", None), // the line has not ended
            ("DEPOT 1 0 dstore c0ffee 77 -\nPROOF 9\nJOIN d 1 - 127.0.0.1:9 h\n", Some(Party::Server(9))),
            ("DEPOT 1 0 controller c0ffee 77 -\nPROOF 9\nPEER a 127.0.0.1:8\n", Some(Party::Server(8))),
        ];
        for (said, party) in table {
            let mut caller = Caller::default();
            said.as_bytes().chunks(5).for_each(|bytes| caller.hear(bytes));
            assert_eq!(caller.party, party, "{said}");
        }
    }

    #[test]
    fn bad_weather_cuts_connections() {
        // spec 7.11
        let cut = |seed| {
            let (_proxy, weather, mut client, mut server) = connection(100, seed);
            let sender = thread::spawn(move || {
                let _ = (client.write_all(&vec![7; 1 << 20]), client.read(&mut [0]));
            });
            let mut received = Vec::new();
            let _ = (server.write_all(&vec![7; 1 << 20]), server.read_to_end(&mut received));
            drop(server);
            sender.join().unwrap();
            received.len() < 1 << 20 || weather.cuts.load(Ordering::Relaxed) > 0
        };
        assert!((0..5).all(cut));
    }
}
