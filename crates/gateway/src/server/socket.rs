//! A socket that hyper can poll, and a thread can wait for.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::tls::Session;

/// So much is read from a socket at a time.
const PIECE: usize = 64 << 10;

/// A connection's socket, which never blocks. Hyper has one half of it, a [`Stream`]; this one knows what hyper waits for.
///
/// One thread uses both halves. They are atomic only because that thread may be another one from time to time: a store may read
/// a body on a thread of its own.
pub(super) struct Socket {
    stream: Arc<TcpStream>,
    wants_read: AtomicBool,
    wants_write: AtomicBool,
    received: AtomicU64,
    sent: AtomicU64,
}

/// The half that hyper reads and writes.
pub(super) struct Stream {
    socket: Arc<Socket>,
    tls: Option<Session>,
    /// Where bytes are received. Without memory while the connection waits for a request.
    buffer: Vec<u8>,
}

impl Socket {
    pub(super) fn new(stream: Arc<TcpStream>) -> io::Result<Arc<Self>> {
        stream.set_nonblocking(true)?;
        // An answer is written in few pieces, each of which should leave at once.
        stream.set_nodelay(true)?;
        let (wants_read, wants_write) = Default::default();
        let (received, sent) = Default::default();
        Ok(Arc::new(Self { stream, wants_read, wants_write, received, sent }))
    }

    /// The other half, with TLS or without.
    pub(super) fn stream(self: &Arc<Self>, tls: Option<Session>) -> Stream {
        Stream { socket: Arc::clone(self), tls, buffer: Vec::new() }
    }

    /// How many bytes have come.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// How many bytes have come or gone.
    pub(super) fn moved(&self) -> u64 {
        self.received() + self.sent.load(Ordering::Relaxed)
    }

    /// Whether hyper waits until it can write.
    pub(super) fn wants_write(&self) -> bool {
        self.wants_write.load(Ordering::Relaxed)
    }

    /// Forgets what hyper waits for: it is about to be polled, and says it again.
    pub(super) fn forget_wants(&self) {
        self.wants_read.store(false, Ordering::Relaxed);
        self.wants_write.store(false, Ordering::Relaxed);
    }

    /// Does what has to be sent before hyper goes on.
    fn sent(&self, send: impl FnOnce(&TcpStream) -> io::Result<()>) -> Poll<io::Result<()>> {
        match send(&self.stream) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                self.wants_write.store(true, Ordering::Relaxed);
                Poll::Pending
            }
            outcome => Poll::Ready(outcome),
        }
    }

    /// Waits until the socket can do what hyper waits for, or has ended; false if that is not within `timeout`.
    pub(super) fn wait(&self, timeout: Duration) -> io::Result<bool> {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, self.wants_read.load(Ordering::Relaxed));
        flags.set(PollFlags::OUT, self.wants_write());
        if flags.is_empty() {
            return Err(io::Error::other("hyper waits for nothing"));
        }
        wait_for(&self.stream, flags, timeout)
    }
}

fn wait_for(stream: &TcpStream, flags: PollFlags, timeout: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(stream, flags)], Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reads and drops what comes, until the stream ends, is silent for too long, or has been read for too long.
pub(super) fn discard(mut stream: &TcpStream, silence: Duration, in_all: Duration) {
    let deadline = Instant::now() + in_all;
    let mut buffer = [0; 16 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let left = deadline.saturating_duration_since(Instant::now()).min(silence);
                if left.is_zero() || !wait_for(stream, PollFlags::IN, left).unwrap_or(false) {
                    return;
                }
            }
            Err(_) => return,
        }
        if Instant::now() >= deadline {
            return;
        }
    }
}

/// What a call came to that may have to wait: then hyper is told, and `wants` says for what.
fn outcome(result: io::Result<usize>, wants: &AtomicBool, moved: &AtomicU64) -> Option<Poll<io::Result<usize>>> {
    match result {
        Ok(bytes) => {
            moved.fetch_add(bytes as u64, Ordering::Relaxed);
            Some(Poll::Ready(Ok(bytes)))
        }
        Err(error) if error.kind() == ErrorKind::Interrupted => None,
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            wants.store(true, Ordering::Relaxed);
            Some(Poll::Pending)
        }
        Err(error) => Some(Poll::Ready(Err(error))),
    }
}

impl rt::Read for Stream {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, mut cursor: rt::ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let Self { socket, tls, buffer } = self.get_mut();
        buffer.resize(cursor.remaining().min(PIECE), 0);
        loop {
            let received = match tls {
                Some(tls) => tls.read(&socket.stream, buffer),
                None => (&*socket.stream).read(buffer),
            };
            match outcome(received, &socket.wants_read, &socket.received) {
                Some(Poll::Ready(Ok(received))) => {
                    cursor.put_slice(&buffer[..received]);
                    return Poll::Ready(Ok(()));
                }
                Some(Poll::Ready(Err(error))) => return Poll::Ready(Err(error)),
                Some(Poll::Pending) => {
                    *buffer = Vec::new();
                    return Poll::Pending;
                }
                None => {}
            }
        }
    }
}

impl rt::Write for Stream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { socket, tls, .. } = self.get_mut();
        loop {
            let sent = match tls {
                Some(tls) => tls.write(&socket.stream, bytes),
                None => (&*socket.stream).write(bytes),
            };
            if let Some(outcome) = outcome(sent, &socket.wants_write, &socket.sent) {
                return outcome;
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let socket = &self.socket;
        loop {
            let sent = (&*socket.stream).write_vectored(pieces);
            if let Some(outcome) = outcome(sent, &socket.wants_write, &socket.sent) {
                return outcome;
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_none() // hyper then hands over all pieces as one
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { socket, tls, .. } = self.get_mut();
        tls.as_mut().map_or(Poll::Ready(Ok(())), |tls| socket.sent(|stream| tls.send(stream)))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { socket, tls, .. } = self.get_mut();
        if let Some(tls) = tls {
            ready!(socket.sent(|stream| tls.close(stream)))?;
        }
        Poll::Ready(socket.stream.shutdown(std::net::Shutdown::Write))
    }
}
