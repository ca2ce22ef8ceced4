//! Content, on a connection that is dialled towards the client.
//!
//! The client reads blocks of 2,048 bytes with one `recv` each, and takes a shorter one for the end of the file. So each write is one
//! block, and the next one waits until the client's kernel has acknowledged it: then no segment holds parts of two blocks, and
//! none is cut by a window that is full. Where a block fits a segment, as it does on loopback, files of any size come whole.

use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::server::pace::Pace;

/// What the client reads at a time.
const BLOCK: usize = 2_048;

/// So long the client may take to listen.
const LATE: Duration = Duration::from_secs(5);

/// No wait that the kernel is told of is shorter: it takes none for one without end.
const LEAST: Duration = Duration::from_millis(1);

/// Between two attempts to reach it.
const AGAIN: Duration = Duration::from_millis(10);

/// Connects to a client that is about to listen.
pub(super) fn dial(client: IpAddr, port: u16) -> io::Result<TcpStream> {
    let address = SocketAddr::new(client, port);
    let begun = Instant::now();
    loop {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        match socket.connect_timeout(&address.into(), LATE) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused && begun.elapsed() < LATE => {
                thread::sleep(AGAIN)
            }
            Err(error) => return Err(error),
            Ok(()) => {
                let stream = TcpStream::from(socket);
                // Where no program listens yet, the kernel may pick the wanted port for our own end.
                if stream.local_addr()? == address {
                    continue;
                }
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
        }
    }
}

/// Sends content in blocks, as long as the client takes it fast enough. See the module.
pub(super) struct Blocks<'a> {
    stream: &'a TcpStream,
    pace: Pace,
    block: Vec<u8>,
    /// What the client's kernel has.
    pub(super) sent: u64,
}

impl<'a> Blocks<'a> {
    pub(super) fn to(stream: &'a TcpStream, pace: Pace) -> io::Result<Self> {
        // The smallest that the kernel allows: then the stream can be written to only while no block is on its way.
        SockRef::from(stream).set_send_buffer_size(1)?;
        Ok(Self { stream, pace, block: Vec::with_capacity(BLOCK), sent: 0 })
    }

    fn send(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let mut ready = [PollFd::new(&self.stream, PollFlags::OUT)];
        loop {
            let (since, left) = (Instant::now(), self.pace.left());
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            let polled = poll(&mut ready, Some(&timeout));
            self.pace.spend(since.elapsed());
            match polled {
                Ok(0) => return Err(ErrorKind::TimedOut.into()),
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // What can be written to takes all of a block.
        self.stream.set_write_timeout(Some(self.pace.left().max(LEAST)))?;
        self.stream.write_all(&self.block)?;
        self.sent += self.block.len() as u64;
        self.pace.earn(self.block.len() as u64);
        self.block.clear();
        Ok(())
    }

    /// Sends what is left.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.send()
    }
}

impl Write for Blocks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == BLOCK {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
