//! What every call passes before a service sees it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::http::{Request, Response};
use tokio::sync::Semaphore;
use tokio::time::{Sleep, sleep};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;
use tonic::{Code, Status};

use super::called::{Called, code_in};
use super::flight::Answer;
use super::socket::Connection;
use crate::monitoring::Record;
use crate::server::Limits;
use crate::server::pace::Pace;

/// What the calls of one façade share.
pub(super) struct Gate {
    /// One for each call that waits for its turn, is under way, or whose answer the client has not taken.
    places: Arc<Semaphore>,
    limits: Limits,
}

impl Gate {
    pub(super) fn new(most: usize, limits: Limits) -> Self {
        Self { places: Arc::new(Semaphore::new(most)), limits }
    }
}

/// A service behind the gate: a call too many is refused, and a client that sends or takes too slowly is not waited for.
#[derive(Clone)]
pub(super) struct Guarded<S> {
    pub(super) inner: S,
    pub(super) gate: Arc<Gate>,
    pub(super) record: Record,
}

impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let place = Arc::clone(&self.gate.places).try_acquire_owned();
        let limits = &self.gate.limits;
        let pace = Pace::new(limits.stall, limits.slowest_rate);
        let of_answer = Pace::new(limits.stall, limits.slowest_rate);
        let connection = request.extensions().get::<Connection>().cloned();
        let peer = connection.as_ref().map(|connection| connection.ends.1);
        let mut called = Called::new(self.record.clone(), peer, request.uri().path());
        let request = request.map(|body| Body::new(Paced { body, pace, waiting: None }));
        let mut inner = self.inner.clone();
        Box::pin(async move {
            let Ok(place) = place else {
                let refusal = "the gateway has as many calls as it may have: try again soon";
                called.ends(Code::ResourceExhausted, 0);
                return Ok(Status::resource_exhausted(refusal).into_http());
            };
            let response = inner.call(request).await?;
            called.begins();
            if response.body().is_end_stream() {
                called.ends(code_in(response.headers()).unwrap_or(Code::Ok), 0); // a head alone
                return Ok(response);
            }
            Ok(response.map(|body| Body::new(Answer::new(body, of_answer, (place, called), connection))))
        })
    }
}

/// What a client sends, as long as it does so fast enough. Only waiting is counted: while it is not read from, it has all the time.
struct Paced {
    body: Body,
    pace: Pace,
    /// Since when it is waited for, and until when.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) else {
            let left = this.pace.left();
            let (_, until) = this.waiting.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(left))));
            ready!(until.as_mut().poll(context));
            return Poll::Ready(Some(Err(Status::deadline_exceeded("the call was sent too slowly"))));
        };
        if let Some((since, _)) = this.waiting.take() {
            this.pace.spend(since.elapsed());
        }
        // tonic takes a call that the client cancels for one that has ended, and hyper one that it resets without an error. Half a
        // file must not be taken for a whole one.
        let is_cut_off = match &frame {
            Some(Ok(frame)) => {
                this.pace.earn(frame.data_ref().map_or(0, Bytes::len) as u64);
                false
            }
            Some(Err(status)) => status.code() == Code::Cancelled,
            None => !this.body.is_end_stream(),
        };
        if is_cut_off {
            return Poll::Ready(Some(Err(Status::aborted("the client has cut the call off"))));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Never answers.
    #[derive(Clone)]
    struct Stuck;

    impl Service<Request<Body>> for Stuck {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = std::future::Pending<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            std::future::pending()
        }
    }

    #[test]
    fn calls_beyond_the_limit_are_refused_until_others_end() {
        let mut service =
            Guarded { inner: Stuck, gate: Arc::new(Gate::new(2, Limits::default())), record: Record::default() };
        let mut call = || service.call(Request::new(Body::empty()));
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut both = [call(), call()];
        assert!(both.iter_mut().all(|call| call.as_mut().poll(&mut context).is_pending()));
        let Poll::Ready(Ok(refused)) = call().as_mut().poll(&mut context) else { panic!("it waits") };
        assert_eq!(Status::from_header_map(refused.headers()).unwrap().code(), Code::ResourceExhausted);
        drop(both);
        assert!(call().as_mut().poll(&mut context).is_pending(), "there is room again");
    }
}
