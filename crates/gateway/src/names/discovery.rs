//! The datagrams by which storages are found: `discovery`, to everyone, and `Alive`, back to the one who asks.
//!
//! Here they say only what is there: which Dstores the store has is in its log.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::DiscoveryOptions;

/// The port on which storages are asked.
pub const DISCOVERY: u16 = 3_501;

/// The port to which they answer.
pub const ANSWERS: u16 = 3_502;

const QUESTION: &[u8] = b"discovery";
const ANSWER: &[u8] = b"Alive";

/// A storage that has not answered so many questions is gone.
const MISSED: u32 = 3;

/// So many storages are listed.
const MOST: usize = 1_000;

/// How often a thread looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);

/// Asks for storages until it is dropped, and lists those that answer in the log.
pub(super) struct Broadcast {
    _thread: Ending,
}

/// Answers for this machine's Dstores until it is dropped.
pub struct Answering {
    address: SocketAddr,
    _thread: Ending,
}

/// A thread that ends when this is dropped.
struct Ending {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ending {
    fn spawn(name: &str, job: impl FnOnce(&AtomicBool) + Send + 'static) -> io::Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let of_thread = Arc::clone(&is_over);
        let thread = thread::Builder::new().name(name.into()).spawn(move || job(&of_thread))?;
        Ok(Self { is_over, thread: Some(thread) })
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Broadcast {
    pub(super) fn start(options: &DiscoveryOptions) -> io::Result<Self> {
        let socket = bind(options.answers, false)?;
        socket.set_broadcast(true)?;
        let (to, period) = (options.to, options.period);
        let thread = Ending::spawn("names-discovery", move |is_over| {
            let mut storages: BTreeMap<IpAddr, Instant> = BTreeMap::new();
            let mut next = Instant::now();
            while !is_over.load(Ordering::Acquire) {
                let now = Instant::now();
                if now >= next {
                    if let Err(error) = socket.send_to(QUESTION, to) {
                        log::debug!("names: {to}: {error}");
                    }
                    next = now + period;
                    storages.retain(|storage, heard| {
                        let is_there = now.duration_since(*heard) < period * MISSED;
                        if !is_there {
                            log::info!("names: the storage {storage} answers no more");
                        }
                        is_there
                    });
                }
                let Some(peer) = receive(&socket, ANSWER) else { continue };
                if storages.len() < MOST && storages.insert(peer.ip(), Instant::now()).is_none() {
                    log::info!("names: the storage {} answers", peer.ip());
                }
            }
        })?;
        Ok(Self { _thread: thread })
    }
}

impl Answering {
    /// Answers questions that come to this port, 0 for any, at the port `answers` of the machine that asks. Several processes of a machine may do so.
    pub fn start(port: u16, answers: u16) -> io::Result<Self> {
        let socket = bind(port, true)?;
        let address = socket.local_addr()?;
        let thread = Ending::spawn("names-answers", move |is_over| {
            while !is_over.load(Ordering::Acquire) {
                let Some(peer) = receive(&socket, QUESTION) else { continue };
                if let Err(error) = socket.send_to(ANSWER, (peer.ip(), answers)) {
                    log::debug!("names: {peer}: {error}");
                }
            }
        })?;
        Ok(Self { address, _thread: thread })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A socket of IPv4, since only that has broadcasts.
fn bind(port: u16, is_shared: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(is_shared)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    socket.set_read_timeout(Some(LOOK))?;
    Ok(socket.into())
}

/// Waits for a datagram, for a moment; its sender, if it is what is expected.
fn receive(socket: &UdpSocket, expected: &[u8]) -> Option<SocketAddr> {
    let mut buffer = [0; 64];
    let (length, peer) = socket.recv_from(&mut buffer).ok()?;
    (buffer[..length] == *expected).then_some(peer)
}
