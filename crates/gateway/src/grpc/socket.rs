//! Connections: how they come, and how long one may be silent before it speaks HTTP/2.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Sleep, sleep};
use tonic::transport::server::Connected;

/// What a client of HTTP/2 says first (RFC 9113, section 3.4) has so many bytes.
const PREFACE: usize = 24;

/// Before it is tried again to take a connection that could not be had.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection. Until it has said its preface it may take `head`; after that HTTP/2's own pings find out whether it is alive.
pub(super) struct Socket {
    stream: TcpStream,
    missing: usize,
    until: Option<Pin<Box<Sleep>>>,
    connection: Connection,
    _entry: OwnedSemaphorePermit,
}

/// A connection, as its calls know it: each request carries it among its extensions.
#[derive(Clone)]
pub(crate) struct Connection {
    /// Where it came to, and where it came from.
    pub(crate) ends: (SocketAddr, SocketAddr),
    cut: Arc<Mutex<Cut>>,
}

#[derive(Default)]
struct Cut {
    is_cut: bool,
    /// The task that reads from the connection.
    reader: Option<Waker>,
}

impl Connection {
    /// Ends it, and with it all its calls.
    pub(super) fn cut(&self) {
        let reader = {
            let mut cut = self.cut.lock();
            cut.is_cut = true;
            cut.reader.take()
        };
        log::info!("{}: closed: its client takes what it has asked for too slowly", self.ends.1);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Whether it was cut; if not, the task is woken when it is.
    fn is_cut(&self, context: &mut Context<'_>) -> bool {
        let mut cut = self.cut.lock();
        match &mut cut.reader {
            Some(reader) => reader.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        cut.is_cut
    }
}

/// Takes connections until the task is aborted, or there is no server for them. When there are as many as there may be, further ones are closed.
pub(super) async fn accept(
    listener: TcpListener,
    entries: Arc<Semaphore>,
    head: Duration,
    to: mpsc::Sender<io::Result<Socket>>,
) {
    let mut is_in_trouble = false;
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if !is_in_trouble {
                    log::warn!("a connection cannot be taken: {error}");
                }
                is_in_trouble = true;
                sleep(PAUSE).await;
                continue;
            }
        };
        is_in_trouble = false;
        let Ok(entry) = Arc::clone(&entries).try_acquire_owned() else {
            log::info!("{peer}: closed: there are as many connections as there may be");
            continue;
        };
        let _ = stream.set_nodelay(true); // an error means that it has ended already
        let Ok(local) = stream.local_addr() else { continue }; // it has ended already
        let connection = Connection { ends: (local, peer), cut: Arc::default() };
        let until = Some(Box::pin(sleep(head)));
        let socket = Socket { stream, missing: PREFACE, until, connection, _entry: entry };
        if to.send(Ok(socket)).await.is_err() {
            return;
        }
    }
}

impl Connected for Socket {
    type ConnectInfo = Connection;

    fn connect_info(&self) -> Connection {
        self.connection.clone()
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.connection.is_cut(context) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if let Some(until) = &mut this.until
            && until.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = into.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, into))?;
        this.missing = this.missing.saturating_sub(into.filled().len() - before);
        if this.missing == 0 {
            this.until = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
