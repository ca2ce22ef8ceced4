//! Datagrams of IPv4: a socket, and a thread that hears what comes to it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// The longest that is understood: what fits one packet.
pub(crate) const MOST_BYTES: usize = 1_400;

/// How long a thread waits for one before it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);

/// A thread that hears datagrams until this is dropped.
pub struct Listening {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listening {
    /// Calls `hear` for each datagram that comes to the socket, with its sender, and without one in each moment in which none comes.
    pub fn start(
        thread: &str,
        socket: UdpSocket,
        mut hear: impl FnMut(&UdpSocket, Option<(&[u8], SocketAddr)>) + Send + 'static,
    ) -> io::Result<Self> {
        let address = socket.local_addr()?;
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&is_over);
        let listen = move || {
            while !ends.load(Ordering::Acquire) {
                let mut buffer = [0; MOST_BYTES];
                let received = receive(&socket, &mut buffer);
                hear(&socket, received);
            }
        };
        let thread = thread::Builder::new().name(thread.into()).spawn(listen)?;
        Ok(Self { address, is_over, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A socket on this port of all addresses, 0 for any, which several may share if all say so. It waits for datagrams a moment at a time.
pub fn bind(port: u16, is_shared: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(is_shared)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    socket.set_read_timeout(Some(LOOK))?;
    Ok(socket.into())
}

/// Waits for a datagram, for a moment.
pub(crate) fn receive<'a>(socket: &UdpSocket, buffer: &'a mut [u8]) -> Option<(&'a [u8], SocketAddr)> {
    let (length, peer) = socket.recv_from(buffer).ok()?;
    Some((&buffer[..length], peer))
}
