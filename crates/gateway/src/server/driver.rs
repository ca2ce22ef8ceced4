//! Hyper, polled by code that blocks.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};
use std::{fmt, mem};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::{Request, Response, StatusCode};
use parking_lot::Mutex;

use super::Limits;
use super::connections::Entry;
use super::exchange::Head;
use super::pace::Pace;
use super::socket::{Socket, Stream};
use super::tls::Session;

/// What hyper keeps of an answer until the client takes it, and of what a client sends before it is asked for, is limited to
/// this: many connections are slow.
const BUFFER: usize = 64 << 10;

/// Why no further request comes on a connection, or why the exchange that was under way cannot go on.
#[derive(Debug)]
pub(super) enum End {
    /// In order: the client has closed it, or either side has said that it would.
    Ended,
    /// The client was silent between requests for too long, or the server stops.
    Idle,
    /// A head did not come in time.
    SlowHead,
    /// The client sends or takes too slowly.
    TooSlow,
    /// What came is no HTTP, or was cut off, or cannot be sent.
    Broken(hyper::Error),
    /// The socket failed.
    Io(io::Error),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended => f.write_str("the client has closed the connection"),
            Self::Idle => f.write_str("the client was silent for too long"),
            Self::SlowHead => f.write_str("the head of a request did not come in time"),
            Self::TooSlow => f.write_str("the client sends or takes too slowly"),
            Self::Broken(error) => match std::error::Error::source(error) {
                Some(source) => write!(f, "{error}: {source}"),
                None => write!(f, "{error}"),
            },
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl From<End> for io::Error {
    fn from(end: End) -> Self {
        let kind = match end {
            End::TooSlow | End::SlowHead | End::Idle => io::ErrorKind::TimedOut,
            End::Ended | End::Broken(_) => io::ErrorKind::ConnectionAborted,
            End::Io(error) => return error,
        };
        Self::new(kind, end.to_string())
    }
}

/// Where hyper and the thread of a connection lay down what is for the other.
#[derive(Default)]
pub(super) struct Desk {
    /// From hyper: a request.
    request: Option<Request<Incoming>>,
    /// For hyper: the answer to it.
    answer: Option<Response<Outgoing>>,
    /// For hyper: what comes next of the answer's body.
    piece: Piece,
}

/// A part of an answer's body.
#[derive(Default)]
enum Piece {
    /// It is to be made.
    #[default]
    Awaited,
    /// It is to be sent.
    Bytes(Bytes),
    /// There is none after the last one.
    End,
    /// It cannot be made. The client must see that the body is not whole.
    Aborted,
}

/// A connection: hyper, its socket, and what both wait for.
pub(super) struct Driver {
    http: Pin<Box<http1::Connection<Stream, Service>>>,
    desk: Arc<Mutex<Desk>>,
    socket: Arc<Socket>,
    entry: Entry,
    limits: Limits,
    pace: Pace,
    woken: Arc<Woken>,
    /// Why hyper must not be polled again.
    has_ended: bool,
    /// A request was handed over, and is to be answered.
    owes_answer: bool,
    pause: Pause,
}

/// The time between two exchanges.
struct Pause {
    /// Since when there was nothing left to send.
    since: Instant,
    /// How many bytes had come when the last exchange was over.
    received: u64,
    /// Since when more have come: a head has begun.
    head_since: Option<Instant>,
}

/// What a wait is for.
#[derive(Clone, Copy)]
enum Wait {
    /// The next request.
    Request,
    /// Bytes of an exchange that is under way.
    Exchange,
}

impl Driver {
    pub(super) fn new(socket: Arc<Socket>, tls: Option<Session>, entry: Entry, limits: Limits) -> Self {
        let desk = Arc::<Mutex<Desk>>::default();
        let service = Service { desk: Arc::clone(&desk) };
        let http = http1::Builder::new()
            .header_read_timeout(None) // see `deadline`
            .half_close(true)
            .max_header_size(limits.head_bytes)
            .max_buf_size(BUFFER.max(limits.head_bytes))
            .serve_connection(socket.stream(tls), service);
        let pace = Pace::new(limits.stall, limits.slowest_rate);
        Self {
            http: Box::pin(http),
            desk,
            socket,
            entry,
            limits,
            pace,
            woken: Arc::default(),
            has_ended: false,
            owes_answer: false,
            pause: Pause { since: Instant::now(), received: 0, head_since: None },
        }
    }

    /// Sends what is left of the last answer, and waits for the next request.
    pub(super) fn next_request(&mut self) -> Result<(Head, Incoming), End> {
        if mem::take(&mut self.owes_answer) {
            self.answer(Response::builder().status(StatusCode::INTERNAL_SERVER_ERROR), Bytes::new());
        }
        let desk = Arc::clone(&self.desk);
        self.pause = Pause { since: Instant::now(), received: self.socket.received(), head_since: None };
        let request = self.drive(Wait::Request, |_| match desk.lock().request.take() {
            Some(request) => Poll::Ready(request),
            None => Poll::Pending,
        })?;
        self.pace.refill();
        self.owes_answer = true;
        Ok(request.into_parts())
    }

    /// The next piece of a request's body; `None` after the last.
    pub(super) fn receive(&mut self, body: &mut Incoming) -> Result<Option<Bytes>, End> {
        loop {
            let frame = self.drive(Wait::Exchange, |context| Pin::new(&mut *body).poll_frame(context))?;
            match frame.transpose().map_err(End::Broken)?.map(Frame::into_data) {
                None => return Ok(None),
                Some(Ok(bytes)) => return Ok(Some(bytes)),
                Some(Err(_)) => {} // trailers, which nothing here has a use for
            }
        }
    }

    /// Answers with a whole body. It leaves when the next request is waited for.
    pub(super) fn answer(&mut self, head: hyper::http::response::Builder, body: Bytes) {
        let length = body.len() as u64;
        self.begin(head, Some(length));
        self.desk.lock().piece = if length > 0 { Piece::Bytes(body) } else { Piece::End };
    }

    /// Begins to answer, with a body of this length if that is known.
    pub(super) fn begin(&mut self, head: hyper::http::response::Builder, length: Option<u64>) {
        self.owes_answer = false;
        if self.entry.is_stopping() && !self.has_ended {
            self.http.as_mut().graceful_shutdown();
        }
        let outgoing = Outgoing { desk: Arc::clone(&self.desk), left: length };
        let answer = head.body(outgoing).unwrap_or_else(|error| {
            log::error!("a head that cannot be sent: {error}");
            let mut answer = Response::new(Outgoing { desk: Arc::clone(&self.desk), left: Some(0) });
            *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            answer
        });
        let mut desk = self.desk.lock();
        desk.answer = Some(answer);
        desk.piece = Piece::Awaited;
    }

    /// Sends more of the body. Returns when hyper has taken it, which it does when there is room in its buffer.
    pub(super) fn send(&mut self, bytes: Bytes) -> Result<(), End> {
        let desk = Arc::clone(&self.desk);
        desk.lock().piece = Piece::Bytes(bytes);
        self.drive(Wait::Exchange, |_| match desk.lock().piece {
            Piece::Awaited => Poll::Ready(()),
            _ => Poll::Pending,
        })
    }

    /// Says that the body is whole, or that it cannot become so.
    pub(super) fn end_body(&mut self, is_whole: bool) {
        self.desk.lock().piece = if is_whole { Piece::End } else { Piece::Aborted };
    }

    /// Polls hyper until `ready` has something, and waits for the socket in between.
    fn drive<T>(&mut self, wait: Wait, mut ready: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Result<T, End> {
        let waker = Waker::from(Arc::clone(&self.woken));
        let mut context = Context::from_waker(&waker);
        loop {
            self.woken.0.store(false, Ordering::Relaxed);
            if let Poll::Ready(value) = ready(&mut context) {
                return Ok(value);
            }
            if self.has_ended {
                return Err(End::Ended);
            }
            self.socket.forget_wants();
            let moved = self.socket.moved();
            let polled = self.http.as_mut().poll(&mut context);
            self.pace.earn(self.socket.moved() - moved);
            self.has_ended = polled.is_ready();
            if let Poll::Ready(value) = ready(&mut context) {
                return Ok(value);
            }
            match polled {
                Poll::Ready(Ok(())) => return Err(End::Ended),
                Poll::Ready(Err(error)) => return Err(End::Broken(error)),
                Poll::Pending if self.woken.0.load(Ordering::Relaxed) => {}
                Poll::Pending => self.wait(wait)?,
            }
        }
    }

    /// Waits for the socket, for as long as the client may take.
    fn wait(&mut self, wait: Wait) -> Result<(), End> {
        match wait {
            Wait::Exchange => self.wait_at_pace(),
            Wait::Request if self.socket.wants_write() => {
                self.wait_at_pace()?; // the last answer is still on its way
                self.pause.since = Instant::now();
                Ok(())
            }
            Wait::Request if self.socket.received() > self.pause.received => {
                let since = *self.pause.head_since.get_or_insert_with(Instant::now);
                self.wait_until(since + self.limits.head, End::SlowHead)
            }
            Wait::Request => {
                if !self.entry.waits() {
                    return Err(End::Idle);
                }
                let has_come = self.wait_until(self.pause.since + self.limits.idle, End::Idle);
                self.entry.is_busy();
                has_come
            }
        }
    }

    fn wait_until(&mut self, deadline: Instant, late: End) -> Result<(), End> {
        let left = deadline.saturating_duration_since(Instant::now());
        let is_ready = left > Duration::ZERO && self.socket.wait(left).map_err(End::Io)?;
        if is_ready { Ok(()) } else { Err(late) }
    }

    fn wait_at_pace(&mut self) -> Result<(), End> {
        let left = self.pace.left();
        let begun = Instant::now();
        let is_ready = left > Duration::ZERO && self.socket.wait(left).map_err(End::Io)?;
        self.pace.spend(begun.elapsed());
        if is_ready { Ok(()) } else { Err(End::TooSlow) }
    }
}

/// Lays requests on the desk, for hyper.
struct Service {
    desk: Arc<Mutex<Desk>>,
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Outgoing>;
    type Error = Infallible;
    type Future = AwaitedAnswer;

    fn call(&self, request: Request<Incoming>) -> AwaitedAnswer {
        self.desk.lock().request = Some(request);
        AwaitedAnswer { desk: Arc::clone(&self.desk) }
    }
}

/// Until the answer lies on the desk.
struct AwaitedAnswer {
    desk: Arc<Mutex<Desk>>,
}

impl Future for AwaitedAnswer {
    type Output = Result<Response<Outgoing>, Infallible>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        // The thread that lays it there polls hyper next, so no waker is needed.
        self.desk.lock().answer.take().map_or(Poll::Pending, |answer| Poll::Ready(Ok(answer)))
    }
}

/// The body of an answer, for hyper, which takes it from the desk.
struct Outgoing {
    desk: Arc<Mutex<Desk>>,
    /// So many bytes are still to come; `None` if that is not known.
    left: Option<u64>,
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let mut desk = self.desk.lock();
        match mem::take(&mut desk.piece) {
            Piece::Awaited => Poll::Pending,
            Piece::Bytes(bytes) => {
                drop(desk);
                self.left = self.left.map(|left| left.saturating_sub(bytes.len() as u64));
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Piece::End => Poll::Ready(None),
            Piece::Aborted => Poll::Ready(Some(Err(io::Error::other("the body cannot be sent whole")))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Told when something that hyper waits for has come, other than the socket.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}
