//! Calls on threads of their own, and the messages between a thread and the wire.
//!
//! ```text
//!   tasks (tokio: never block)                        a thread of the call (may block)
//!
//!   client ─▶ paced body ─▶ pump ─▶ [two messages] ─▶ Messages::next ─▶ store.put()
//!   client ◀─ Answers ◀──── pump ◀─ [two messages] ◀─ Outgoing::send ◀─ store.get()
//! ```
//!
//! Both channels are bounded: a client that sends faster than the store takes is not read from any more, and HTTP/2's flow
//! control stops it, and no other call of its connection. The thread never touches the runtime. When the runtime ends, it drops
//! the tasks, and with them the far ends of the channels: the thread sees that, and ends.
//!
//! A stream has an end of its own in both directions. A channel that closes without one was cut off, and nothing that is cut off
//! is ever taken for the whole: not what is put, and not what a client is sent.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use stevedore::server::ThreadGroup;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use crate::server::Limits;
use crate::server::pace::Pace;

/// So many messages wait between a thread and its pump.
const WAITING: usize = 2;

/// Threads for calls that block: a bounded number, and an orderly queue before them.
pub(crate) struct Calls {
    threads: Arc<ThreadGroup>,
    turns: Arc<Semaphore>,
    limits: Limits,
}

impl Calls {
    /// At most so many threads at a time. The number that waits for one is bounded by the guard.
    pub(crate) fn new(most: usize, limits: Limits) -> Self {
        Self { threads: ThreadGroup::new("grpc-call"), turns: Arc::new(Semaphore::new(most)), limits }
    }

    /// Runs `job` on a thread, as soon as it is this call's turn.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let turn = self.turn().await?;
        let (tell, told) = oneshot::channel();
        self.start(turn, move || {
            let _ = tell.send(job()); // a client that has gone is told nothing
        })?;
        told.await.unwrap_or_else(|_| Err(Status::internal("the call has ended without an answer")))
    }

    /// The same for a job that reads what the client streams. Its turn comes after the first message. A job that has an answer
    /// before it has read to the end is not kept waiting for the rest.
    pub(crate) async fn run_reading<M: Send + 'static, T: Send + 'static>(
        &self,
        mut stream: impl Stream<Item = Result<M, Status>> + Unpin + Send + 'static,
        job: impl FnOnce(Messages<M>) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let (to, messages) = mpsc::channel(WAITING);
        let first = stream.next().await.transpose()?;
        let is_over = first.is_none();
        let _ = to.try_send(Ok(first)); // there is room
        let mut pump = JoinSet::new(); // aborted when it is dropped
        if !is_over {
            pump.spawn(async move {
                loop {
                    let message = stream.next().await.transpose();
                    let is_last = !matches!(message, Ok(Some(_)));
                    if to.send(message).await.is_err() || is_last {
                        return;
                    }
                }
            });
        }
        self.run(move || job(Messages { from: messages, is_over: false })).await
    }

    /// The same for a job that streams to the client. It comes back when the job begins; what the job ends with is the end of
    /// the stream. A client that takes it too slowly is cut off. `weigh` is how many bytes one of them has.
    pub(crate) async fn run_writing<T: Send + 'static>(
        &self,
        weigh: fn(&T) -> usize,
        job: impl FnOnce(&Outgoing<T>) -> Result<(), Status> + Send + 'static,
    ) -> Result<Answers<T>, Status> {
        let turn = self.turn().await?;
        let (to_pump, mut from_job) = mpsc::channel::<Option<Result<T, Status>>>(WAITING);
        let (to_wire, from_pump) = mpsc::channel(1);
        let mut pace = Pace::new(self.limits.stall, self.limits.slowest_rate);
        tokio::spawn(async move {
            while let Some(item) = from_job.recv().await {
                let bytes = match &item {
                    Some(Ok(item)) => weigh(item),
                    _ => 0,
                };
                let since = Instant::now();
                let Ok(Ok(())) = timeout(pace.left(), to_wire.send(item)).await else { return };
                pace.spend(since.elapsed());
                pace.earn(bytes as u64);
            }
        });
        self.start(turn, move || {
            let outgoing = Outgoing { to: to_pump };
            let last = job(&outgoing).err().map(Err);
            let is_error = last.is_some();
            if outgoing.to.blocking_send(last).is_ok() && is_error {
                let _ = outgoing.to.blocking_send(None);
            }
        })?;
        Ok(Answers { from: from_pump, is_over: false })
    }

    /// Waits until a thread may be started.
    async fn turn(&self) -> Result<OwnedSemaphorePermit, Status> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        turn.map_err(|_| Status::unavailable("the gateway is about to end"))
    }

    fn start(&self, turn: OwnedSemaphorePermit, job: impl FnOnce() + Send + 'static) -> Result<(), Status> {
        let job = move || {
            let _turn = turn; // kept until the job has ended, also by a panic
            job();
        };
        self.threads.spawn(job).map_err(|error| Status::unavailable(format!("no thread can be had for it: {error}")))
    }

    /// Waits for all threads to end: what they read from and write to must have been closed.
    pub(super) fn stop(&self) {
        self.turns.close();
        self.threads.stop();
    }
}

/// What a client streams, for a thread that blocks.
pub(crate) struct Messages<M> {
    from: mpsc::Receiver<Result<Option<M>, Status>>,
    /// Whether the stream's own end has come.
    is_over: bool,
}

impl<M> Messages<M> {
    /// The next one; `None` at the stream's own end, and from then on.
    pub(crate) fn next(&mut self) -> Result<Option<M>, Status> {
        if self.is_over {
            return Ok(None);
        }
        let next = self.from.blocking_recv().unwrap_or_else(|| Err(Status::cancelled("the upload was cut off")));
        self.is_over = matches!(next, Ok(None));
        next
    }

    /// These, and the end of the stream.
    #[cfg(test)]
    pub(crate) fn of(messages: impl IntoIterator<Item = M>) -> Self {
        let all: Vec<_> = messages.into_iter().map(Some).chain([None]).collect();
        let (to, from) = mpsc::channel(all.len());
        for message in all {
            assert!(to.try_send(Ok(message)).is_ok(), "there is room");
        }
        Self { from, is_over: false }
    }
}

/// Where a thread sends what the client is to be streamed.
pub(crate) struct Outgoing<T> {
    to: mpsc::Sender<Option<Result<T, Status>>>,
}

impl<T> Outgoing<T> {
    /// Waits until there is room; false if the client takes no more.
    pub(crate) fn send(&self, item: T) -> bool {
        self.to.blocking_send(Some(Ok(item))).is_ok()
    }
}

/// What a client is streamed.
pub(crate) struct Answers<T> {
    from: mpsc::Receiver<Option<Result<T, Status>>>,
    is_over: bool,
}

impl<T> Stream for Answers<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        self.from.poll_recv(context).map(|received| match received {
            Some(Some(item)) => Some(item),
            Some(None) => {
                self.is_over = true;
                None
            }
            None => {
                self.is_over = true;
                Some(Err(Status::aborted("cut off: it was taken too slowly, or the gateway ends")))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn calls_wait_for_their_turn_and_all_succeed() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let calls = Arc::new(Calls::new(3, Limits::default()));
        let (running, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let all: Vec<_> = (0..50)
            .map(|number| {
                let (calls, running, most) = (Arc::clone(&calls), Arc::clone(&running), Arc::clone(&most));
                runtime.spawn(async move {
                    let job = move || {
                        most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        running.fetch_sub(1, Ordering::SeqCst);
                        Ok(number)
                    };
                    calls.run(job).await
                })
            })
            .collect();
        for (number, call) in all.into_iter().enumerate() {
            assert_eq!(runtime.block_on(call).unwrap().unwrap(), number);
        }
        assert!((1..=3).contains(&most.load(Ordering::SeqCst)), "{most:?} at a time");
        // A call that panics gives its turn back, and its client hears of it.
        for _ in 0..4 {
            let failed = runtime.block_on(calls.run::<()>(|| panic!("on purpose")));
            assert_eq!(failed.unwrap_err().code(), tonic::Code::Internal);
        }
        assert!(runtime.block_on(calls.run(|| Ok(()))).is_ok());
    }

    #[test]
    fn a_stream_without_its_own_end_is_cut_off() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let calls = Calls::new(1, Limits::default());
        let received = |job: fn(&Outgoing<u8>) -> Result<(), Status>| {
            runtime.block_on(async {
                let answers = calls.run_writing(|_| 1, job).await.unwrap();
                answers
                    .collect::<Vec<_>>()
                    .await
                    .into_iter()
                    .map(|item| item.map_err(|status| status.code()))
                    .collect::<Vec<_>>()
            })
        };
        use tonic::Code;
        assert_eq!(
            received(|to| {
                to.send(7);
                Ok(())
            }),
            [Ok(7)]
        );
        assert_eq!(
            received(|to| {
                to.send(7);
                Err(Status::data_loss("x"))
            }),
            [Ok(7), Err(Code::DataLoss)]
        );
        assert_eq!(
            received(|to| {
                to.send(7);
                panic!("on purpose")
            }),
            [Ok(7), Err(Code::Aborted)]
        );
        let (to, from) = mpsc::channel(1);
        drop(to);
        assert!(Messages::<u8> { from, is_over: false }.next().is_err());
        let mut ended = Messages::of([7]);
        assert_eq!([ended.next().unwrap(), ended.next().unwrap(), ended.next().unwrap()], [Some(7), None, None]);
    }
}
