//! The system calls of a connection's waiting side: reading, looking, connecting, each with its limit.
//!
//! Knows no protocol: both chapters' connections are built on it.

use std::io::{self, ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockRef;

/// The receiving half of a stream, with the waits that the protocol asks for.
pub struct Incoming {
    stream: Arc<TcpStream>,
    /// How long the reads to come may take.
    pub wait: Wait,
    /// The limit that the kernel was last told, so that it is told only changes.
    kernel_timeout: Option<Duration>,
    /// The last read got less than it had room for: it took all that there was.
    pub was_short: bool,
}

/// How long a read may take.
pub enum Wait {
    /// As long as it takes.
    Forever,
    /// Each read for itself.
    EachRead(Duration),
    /// All reads together.
    Until(Instant),
}

impl Wait {
    /// All reads together, from now on; for ever if that is further away than the clock goes.
    pub fn deadline(timeout: Duration) -> Self {
        Instant::now().checked_add(timeout).map_or(Self::Forever, Self::Until)
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let deadline = match self.wait {
            Wait::Forever => None,
            Wait::EachRead(stall) => Instant::now().checked_add(stall),
            Wait::Until(deadline) => Some(deadline),
        };
        let mut has_waited = false;
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(ErrorKind::TimedOut.into());
            }
            if has_waited {
                self.tell_kernel(left)?;
            } else if !self.is_known_to_kernel(left) {
                // A little less than is left, so that the next wait of the same length needs no new limit.
                self.tell_kernel(left.map(|left| left - left / 8))?;
            }
            match (&*self.stream).read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => has_waited = true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                outcome => {
                    self.was_short = outcome.as_ref().is_ok_and(|&received| received < buffer.len());
                    return outcome;
                }
            }
        }
    }
}

impl Incoming {
    /// Of this stream, and in no hurry.
    pub fn new(stream: Arc<TcpStream>) -> Self {
        Self { stream, wait: Wait::Forever, kernel_timeout: None, was_short: false }
    }

    /// Whether the kernel will end a wait in time. Ending it earlier does no harm: most waits are short, and a longer
    /// one begins again. So hardly any read needs a second call to set its limit.
    fn is_known_to_kernel(&self, left: Option<Duration>) -> bool {
        left.is_none_or(|left| self.kernel_timeout.is_some_and(|timeout| timeout <= left))
    }

    fn tell_kernel(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if timeout != self.kernel_timeout {
            self.stream.set_read_timeout(timeout)?;
            self.kernel_timeout = timeout;
        }
        Ok(())
    }
}

/// Connects a new socket within `timeout`, which then bounds its writes.
#[cfg(target_os = "linux")]
pub fn connect(stream: &TcpStream, address: SocketAddr, timeout: Duration) -> io::Result<()> {
    use rustix::io::Errno;
    // The limit for writes also bounds connecting: one call in place of five.
    stream.set_write_timeout(Some(timeout))?;
    loop {
        let connected = SockRef::from(stream).connect(&address.into());
        return match connected.as_ref().err().and_then(Errno::from_io_error) {
            // Stopped and continued: it goes on connecting.
            Some(Errno::INTR) => continue,
            Some(Errno::INPROGRESS | Errno::ALREADY | Errno::AGAIN) => Err(ErrorKind::TimedOut.into()),
            _ => connected,
        };
    }
}

#[cfg(not(target_os = "linux"))]
pub fn connect(stream: &TcpStream, address: SocketAddr, timeout: Duration) -> io::Result<()> {
    SockRef::from(stream).connect_timeout(&address.into(), timeout)?;
    stream.set_write_timeout(Some(timeout))
}

/// Looks for a byte that has arrived, and leaves it there; `WouldBlock` if there is none.
#[cfg(unix)]
pub fn peek(stream: &TcpStream) -> io::Result<usize> {
    use rustix::net::{RecvFlags, recv};
    // One call, where switching the socket's mode to and fro would take three.
    let (_, received) = recv(stream, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT)?;
    Ok(received)
}

#[cfg(not(unix))]
pub fn peek(stream: &TcpStream) -> io::Result<usize> {
    stream.set_nonblocking(true)?;
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false)?;
    peeked
}
