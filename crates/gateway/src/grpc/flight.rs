//! An answer on its way, until the client has taken it.
//!
//! A client of HTTP/2 can hold an answer up in two ways: it grants no more window, or it does not read from its connection. What was
//! handed to the library waits there meanwhile, and for as long as the client likes, since it may answer pings all the while.
//!
//! So each part of an answer is counted from the moment it is handed over until the library has written it to the socket, which is
//! when the library drops it.
//!
//! ```text
//!   service ──▶ Answer ──▶ part, part, part ──▶ library ──▶ socket
//!                 ▲            counted: at most AHEAD    │
//!                 └──── room again; the client earns ◀───┘ dropped
//! ```
//!
//! The client's time runs, by the same pace as over HTTP (`server/pace.rs`), while parts wait, and while the service has something
//! that is not asked for. It stands while the client waits for the service. When it has run out, the connection
//! is cut: nothing else makes the library drop what waits, since it does not look at an answer that has no window. The call's place
//! is taken until all of it has gone.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::timeout;
use tonic::body::Body;
use tonic::{Code, Status};

use super::called::{Called, code_in};
use super::socket::Connection;
use crate::server::pace::Pace;

/// So many bytes of an answer are handed over before the first of them were written.
const AHEAD: usize = 256 << 10;

/// A part has at most so many bytes: a slow client earns time with each.
const PART: usize = 16 << 10;

/// An answer's body that is handed over in parts. See the module.
pub(super) struct Answer {
    body: Body,
    /// What the body gave that was not handed over yet.
    rest: Bytes,
    flight: Arc<Flight>,
}

struct Flight {
    state: Mutex<State>,
    /// Told when the client's time begins to run, or to stand.
    changed: Notify,
}

struct State {
    /// Bytes that were handed over and not written.
    waiting: usize,
    /// The client waits for the service.
    is_idle: bool,
    /// No more is handed over.
    is_over: bool,
    /// How the call has ended, as it was said behind the answer.
    code: Option<Code>,
    /// So many bytes were written.
    written: u64,
    /// Since when the client's time runs, or the last time that some of its bytes were written.
    since: Option<Instant>,
    pace: Pace,
    /// The answer, if it waits for room.
    answer: Option<Waker>,
}

/// A part, which is counted until it is dropped.
struct Part {
    bytes: Bytes,
    flight: Arc<Flight>,
}

impl Answer {
    /// The body as it is to be sent. The call's place is given back once the client has taken all of it, and the call is noted;
    /// `connection` is cut if it takes it too slowly.
    pub(super) fn new(
        body: Body,
        pace: Pace,
        (place, mut called): (OwnedSemaphorePermit, Called),
        connection: Option<Connection>,
    ) -> Self {
        let since = Some(Instant::now());
        let (waiting, written, code, answer) = (0, 0, None, None);
        let state = State { waiting, is_idle: false, is_over: false, code, written, since, pace, answer };
        let flight = Arc::new(Flight { state: Mutex::new(state), changed: Notify::new() });
        let watched = Arc::clone(&flight);
        tokio::spawn(async move {
            if !watched.is_taken().await
                && let Some(connection) = connection
            {
                connection.cut();
            }
            {
                let state = watched.state.lock();
                called.ends(state.code.unwrap_or(Code::Cancelled), state.written);
            }
            drop((place, called));
        });
        Self { body, rest: Bytes::new(), flight }
    }
}

impl Flight {
    /// Waits until all is over and written; false once the client's time has run out.
    async fn is_taken(&self) -> bool {
        loop {
            let left = {
                let state = self.state.lock();
                match state.since {
                    Some(since) => Some(state.pace.left().saturating_sub(since.elapsed())),
                    None if state.is_over => return true,
                    None => None,
                }
            };
            match left {
                Some(Duration::ZERO) => return false,
                Some(left) => drop(timeout(left, self.changed.notified()).await),
                None => self.changed.notified().await,
            }
        }
    }

    /// Whether another part may be handed over; if not, the task is woken when it may.
    fn has_room(&self, context: &mut Context<'_>) -> bool {
        let mut state = self.state.lock();
        let has_room = state.waiting < AHEAD;
        state.answer = (!has_room).then(|| context.waker().clone());
        has_room
    }

    fn part(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        self.change(|state| state.waiting += bytes.len());
        Bytes::from_owner(Part { bytes, flight: Arc::clone(self) })
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        let did_run = state.since.is_some();
        change(&mut state);
        let runs = state.waiting > 0 || !(state.is_idle || state.is_over);
        match state.since {
            None if runs => state.since = Some(Instant::now()),
            Some(since) if !runs => {
                state.pace.spend(since.elapsed());
                state.since = None;
            }
            _ => {}
        }
        drop(state);
        if runs != did_run {
            self.changed.notify_one();
        }
    }
}

/// Wakes the task of an answer that waits for its service. From then on the client is waited for.
struct Ready {
    flight: Arc<Flight>,
    task: Waker,
}

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        self.flight.change(|state| state.is_idle = false);
        self.task.wake_by_ref();
    }
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let mut answer = None;
        self.flight.change(|state| {
            let now = Instant::now();
            if let Some(since) = state.since.replace(now) {
                state.pace.spend(now.duration_since(since));
            }
            state.pace.earn(self.bytes.len() as u64);
            state.waiting -= self.bytes.len();
            state.written += self.bytes.len() as u64;
            answer = state.answer.take();
        });
        if let Some(answer) = answer {
            answer.wake();
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.flight.change(|state| state.is_over = true);
        // Also where the time stood already.
        self.flight.changed.notify_one();
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if !this.flight.has_room(context) {
            return Poll::Pending;
        }
        while this.rest.is_empty() {
            let waker =
                Waker::from(Arc::new(Ready { flight: Arc::clone(&this.flight), task: context.waker().clone() }));
            // Before it is asked: it may be ready a moment later.
            this.flight.change(|state| state.is_idle = true);
            let frame = ready!(Pin::new(&mut this.body).poll_frame(&mut Context::from_waker(&waker)));
            this.flight.change(|state| state.is_idle = false);
            match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(frame) => {
                        let code = frame.trailers_ref().and_then(code_in);
                        this.flight.change(|state| state.code = code);
                        return Poll::Ready(Some(Ok(frame)));
                    }
                },
                ended => return Poll::Ready(ended),
            }
        }
        let part = this.rest.split_to(this.rest.len().min(PART));
        Poll::Ready(Some(Ok(Frame::data(this.flight.part(part)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.rest.is_empty() { self.body.size_hint() } else { SizeHint::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitoring::Record;
    use std::future::poll_fn;
    use tokio::sync::Semaphore;

    /// An answer of so many bytes, and the places of which it has one.
    fn answer(bytes: usize, stall: Duration) -> (Answer, Arc<Semaphore>) {
        let places = Arc::new(Semaphore::new(1));
        let place = Arc::clone(&places).try_acquire_owned().unwrap();
        let body = Body::new(Whole(Some(Bytes::from(vec![7; bytes]))));
        (Answer::new(body, Pace::new(stall, 1 << 10), (place, called()), None), places)
    }

    fn called() -> Called {
        Called::new(Record::default(), None, "/")
    }

    struct Whole(Option<Bytes>);

    impl HttpBody for Whole {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
        }
    }

    async fn next(answer: &mut Answer) -> Option<Bytes> {
        let frame = poll_fn(|context| Pin::new(&mut *answer).poll_frame(context)).await?;
        Some(frame.unwrap().into_data().unwrap())
    }

    #[test]
    fn no_more_is_handed_over_than_may_wait() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut answer, places) = answer(3 * AHEAD, Duration::from_secs(3_600));
            let mut waiting = Vec::new();
            while waiting.len() < AHEAD / PART {
                waiting.push(next(&mut answer).await.unwrap());
            }
            let mut context = Context::from_waker(Waker::noop());
            assert!(Pin::new(&mut answer).poll_frame(&mut context).is_pending(), "there is no room");
            let mut taken = 0;
            waiting.drain(..).for_each(|part| taken += part.len());
            while let Some(part) = next(&mut answer).await {
                taken += part.len();
                waiting.push(part);
                waiting.truncate(1);
            }
            assert_eq!(taken, 3 * AHEAD);
            drop(answer);
            tokio::task::yield_now().await;
            assert_eq!(places.available_permits(), 0, "a part of it still waits");
            drop(waiting);
            let _given_back = timeout(Duration::from_secs(30), places.acquire()).await.expect("it has left").unwrap();
        });
    }

    #[test]
    fn a_client_that_waits_for_the_service_has_all_the_time() {
        struct Silent(Option<Waker>);
        impl HttpBody for Silent {
            type Data = Bytes;
            type Error = Status;

            fn poll_frame(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
                self.0 = Some(context.waker().clone());
                Poll::Pending
            }
        }
        let flight_of = |answer: &Answer| Arc::clone(&answer.flight);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let places = Arc::new(Semaphore::new(1));
            let place = Arc::clone(&places).try_acquire_owned().unwrap();
            let pace = Pace::new(Duration::from_secs(3_600), 1 << 10);
            let mut silent = Silent(None);
            let mut answer = Answer::new(Body::empty(), pace, (place, called()), None);
            let flight = flight_of(&answer);
            assert!(flight.state.lock().since.is_some(), "nothing asks for it yet");
            let mut context = Context::from_waker(Waker::noop());
            answer.body = Body::new(Silent(None));
            assert!(Pin::new(&mut answer).poll_frame(&mut context).is_pending());
            assert!(flight.state.lock().since.is_none(), "the service has nothing");
            // As the service does when it has something.
            let waker = Waker::from(Arc::new(Ready { flight: Arc::clone(&flight), task: Waker::noop().clone() }));
            assert!(Pin::new(&mut silent).poll_frame(&mut Context::from_waker(&waker)).is_pending());
            silent.0.take().expect("it was polled").wake();
            assert!(flight.state.lock().since.is_some(), "now the client is waited for");
        });
    }

    #[test]
    fn a_place_is_given_back_when_the_clients_time_is_over() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            for taken in 0..2 {
                let (mut answer, places) = answer(AHEAD, Duration::from_millis(1));
                let mut untaken = Vec::new();
                while untaken.len() < taken {
                    untaken.push(next(&mut answer).await);
                }
                let over = timeout(Duration::from_secs(30), places.acquire()).await;
                drop(over.unwrap_or_else(|_| panic!("it goes on after {taken} parts")));
            }
        });
    }
}
