//! Calls on threads of their own, and the messages between a thread and the wire.
//!
//! ```text
//!   tasks (tokio: never block)                              a thread of the call (may block)
//!
//!   client ─▶ paced body ─▶ pump ─▶ [one message] ────────▶ Messages::next ─▶ store.put()
//!   client ◀─ flight ◀─ Answers ◀── [two pieces] ◀───────── Outgoing::send ◀─ store.get()
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

use stevedore::server::ThreadGroup;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

/// So many messages that a client has sent wait for a thread: each may have 4 MiB.
const MESSAGES: usize = 1;

/// So many pieces of an answer wait for the client: each has 256 KiB.
const PIECES: usize = 2;

/// Threads for calls that block: a bounded number, and an orderly queue before them.
pub(crate) struct Calls {
    threads: Arc<ThreadGroup>,
    turns: Arc<Semaphore>,
}

impl Calls {
    /// At most so many threads at a time. The number that waits for one is bounded by the guard.
    pub(crate) fn new(most: usize) -> Self {
        Self { threads: ThreadGroup::new("grpc-call"), turns: Arc::new(Semaphore::new(most)) }
    }

    /// Runs `job` on a thread, as soon as it is this call's turn.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let turn = self.turn().await?;
        self.run_in(turn, job).await
    }

    /// The same for a job that reads what the client streams. While it waits for its turn nothing is read: the client's messages stay
    /// where HTTP/2's flow control stops them. A job that has an answer before it has read to the end is not kept waiting for the rest.
    pub(crate) async fn run_reading<M: Send + 'static, T: Send + 'static>(
        &self,
        mut stream: impl Stream<Item = Result<M, Status>> + Unpin + Send + 'static,
        job: impl FnOnce(Messages<M>) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let turn = self.turn().await?;
        let (to, messages) = mpsc::channel(MESSAGES);
        let mut pump = JoinSet::new(); // aborted when it is dropped
        pump.spawn(async move {
            // Read only when there is room for it.
            while let Ok(room) = to.reserve().await {
                let message = stream.next().await.transpose();
                let is_last = !matches!(message, Ok(Some(_)));
                room.send(message);
                if is_last {
                    return;
                }
            }
        });
        self.run_in(turn, move || job(Messages { from: messages, is_over: false })).await
    }

    /// The same for a job that streams to the client. It comes back when the job begins; what the job ends with is the end of
    /// the stream. The turn is over when the job is, and the client has taken what it is streamed, or no more of it.
    pub(crate) async fn run_writing<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Outgoing<T>) -> Result<(), Status> + Send + 'static,
    ) -> Result<Answers<T>, Status> {
        let turn = Arc::new(self.turn().await?);
        let (to, from) = mpsc::channel(PIECES);
        let of_job = Arc::clone(&turn);
        self.start(move || {
            let _turn = of_job;
            let outgoing = Outgoing { to };
            let last = job(&outgoing).err().map(Err);
            let is_error = last.is_some();
            if outgoing.to.blocking_send(last).is_ok() && is_error {
                let _ = outgoing.to.blocking_send(None);
            }
        })?;
        Ok(Answers { from, is_over: false, _turn: turn })
    }

    async fn run_in<T: Send + 'static>(
        &self,
        turn: OwnedSemaphorePermit,
        job: impl FnOnce() -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let (tell, told) = oneshot::channel();
        self.start(move || {
            let _turn = turn; // kept until the job has ended, also by a panic
            let _ = tell.send(job()); // a client that has gone is told nothing
        })?;
        told.await.unwrap_or_else(|_| Err(Status::internal("the call has ended without an answer")))
    }

    /// Waits until a thread may be started.
    async fn turn(&self) -> Result<OwnedSemaphorePermit, Status> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        turn.map_err(|_| Status::unavailable("the gateway is about to end"))
    }

    fn start(&self, job: impl FnOnce() + Send + 'static) -> Result<(), Status> {
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
    _turn: Arc<OwnedSemaphorePermit>,
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
                Some(Err(Status::aborted("cut off: the gateway ends, or has failed")))
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
        let calls = Arc::new(Calls::new(3));
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
    fn what_waits_for_its_turn_has_read_nothing() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let calls = Arc::new(Calls::new(1));
        let upload = |read: &Arc<AtomicUsize>, job: fn(Messages<u8>) -> Result<u8, Status>| {
            let (calls, read) = (Arc::clone(&calls), Arc::clone(read));
            let messages = tokio_stream::iter(0..100).map(move |number| {
                read.fetch_add(1, Ordering::SeqCst);
                Ok(number)
            });
            runtime.spawn(async move { calls.run_reading(messages, job).await })
        };
        let (first, second) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let turn = runtime.block_on(calls.turn()).unwrap();
        let waits = [
            upload(&first, |_| Ok(1)),
            upload(&second, |mut all| {
                let mut last = 0;
                while let Some(number) = all.next()? {
                    last = number;
                }
                Ok(last)
            }),
        ];
        // The runtime has one thread: these two come behind what the uploads do before they wait.
        for _ in 0..2 {
            runtime.block_on(runtime.spawn(tokio::task::yield_now())).unwrap();
        }
        assert_eq!([first.load(Ordering::SeqCst), second.load(Ordering::SeqCst)], [0, 0]);
        drop(turn);
        let done = waits.map(|call| runtime.block_on(call).unwrap().unwrap());
        assert_eq!(done, [1, 99]);
        assert!(first.load(Ordering::SeqCst) <= 1 + MESSAGES, "a job that takes nothing has little read for it");
    }

    #[test]
    fn a_stream_without_its_own_end_is_cut_off() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let calls = Calls::new(1);
        let received = |job: fn(&Outgoing<u8>) -> Result<(), Status>| {
            runtime.block_on(async {
                let answers = calls.run_writing(job).await.unwrap();
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
