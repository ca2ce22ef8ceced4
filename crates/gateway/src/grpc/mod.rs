//! What the façades that speak gRPC share: connections, threads, limits, and an orderly end.
//!
//! gRPC is HTTP/2 with messages in its bodies. One connection carries many calls at a time, so a thread for each connection, as
//! [`server`](crate::server) has it, would not do: a call that waits for a Dstore would hold up all others of that client. So
//! [`tonic`] and its runtime, tokio, read and write the connections, and never block. Each call that asks the store gets a
//! thread of its own for as long as it lasts (`calls`), and is plain code there, as in every other façade.
//!
//! ```text
//!   connection ──▶ tokio, 2 threads ──▶ guard ──▶ service ──▶ queue ──▶ a thread of the call ──▶ store
//!   (socket)       many calls each      (a place, (fluffy,    (512)     (64 at a time)
//!                                        a pace)   tracker)
//! ```
//!
//! # Limits
//!
//! | the client | then |
//! |---|---|
//! | connects and says nothing, or no HTTP/2 | closed after [`Limits::head`], or at once |
//! | is gone without a word | HTTP/2's pings are not answered: closed within 50 s |
//! | keeps a connection for an hour | is asked to come again; its calls have a day to end |
//! | has 32 calls on a connection | further ones wait with the client, as HTTP/2 has it |
//! | calls when 64 calls are under way | waits for its turn |
//! | calls when 512 calls are under way or wait | `RESOURCE_EXHAUSTED` |
//! | sends slowly | `DEADLINE_EXCEEDED`, by the same pace as over HTTP (`server/pace.rs`) |
//! | takes an answer slowly | its connection is closed, by the same pace (`flight`) |
//! | sends a message of more than 4 MiB | refused before the message is read, unless the method says otherwise |
//!
//! So memory is bounded, for each façade that speaks gRPC: 64 calls have at most two messages of 4 MiB each, or four pieces of 256 KiB,
//! and what the store keeps of a put; of an answer that the client has not taken 256 KiB wait, of 512 calls; and what a
//! connection has sent of calls that nothing reads yet is 1 MiB at most.
//!
//! Health and reflection have places of their own, so that a client that watches the one or asks for the other takes none from
//! those that store files. Nor are they counted among the requests that the gateway has answered; all other calls are (`called`).
//!
//! # The end
//!
//! [`Runtime::stop`] takes no more calls and gives those under way some time. Then the runtime ends, which closes all connections
//! and the channels to the threads, and then the threads are joined.
//!
//! Each port also answers for health (`grpc.health.v1`) and for what it offers (reflection, v1 and v1alpha), so that `grpcurl`
//! needs no .proto files.

mod called;
mod calls;
mod flight;
mod guard;
mod pieces;
mod socket;
mod status;
mod upload;

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use hyper::http::{Request, Response};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;
use tonic::service::{Routes, RoutesBuilder};
use tonic::transport::Server;
use tonic_health::ServingStatus;

pub(crate) use calls::{Answers, Calls, Messages, Outgoing};
pub(crate) use pieces::Pieces;
pub(crate) use socket::Connection;
pub(crate) use status::status_of;
pub(crate) use upload::Upload;

use crate::monitoring::Record;
use crate::server::Limits;
use guard::{Gate, Guarded};

/// So many calls use the store at a time.
const THREADS: usize = 64;

/// So many calls are under way, or wait for their turn.
const CALLS: usize = 512;

/// A connection may carry so many calls at a time: one client leaves threads to the others. Its further calls wait with it.
const CALLS_OF_A_CONNECTION: u32 = 32;

/// How often it is looked whether a client is alive, and how long its answer may take.
const PING: Duration = Duration::from_secs(30);
const PING_ANSWER: Duration = Duration::from_secs(20);

/// The age at which a client is asked for a new connection, and how long the calls of the old one may then last.
const AGE: Duration = Duration::from_secs(3_600);
const AGE_GRACE: Duration = Duration::from_secs(24 * 3_600);

/// What runs the calls of one façade: each has its own threads and limits.
pub(crate) struct Runtime {
    /// `None` once stopped.
    tokio: Mutex<Option<tokio::runtime::Runtime>>,
    calls: Arc<Calls>,
    gate: Arc<Gate>,
    connections: Arc<Semaphore>,
    limits: Limits,
    record: Record,
    ports: Mutex<Vec<Port>>,
}

/// A port that is served.
struct Port {
    address: SocketAddr,
    /// Takes connections until it is aborted.
    acceptor: JoinHandle<()>,
    /// Dropped to take no more calls.
    end: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

impl Port {
    /// Takes no more connections and calls; calls under way go on.
    fn close(&mut self) {
        self.acceptor.abort();
        self.end = None;
    }
}

impl Runtime {
    /// Serves nothing yet.
    pub(crate) fn start(limits: Limits, record: Record) -> io::Result<Self> {
        let mut tokio = tokio::runtime::Builder::new_multi_thread();
        let tokio = tokio.worker_threads(2).thread_name("grpc").enable_io().enable_time().build()?;
        Ok(Self {
            tokio: Mutex::new(Some(tokio)),
            calls: Arc::new(Calls::new(THREADS)),
            gate: Arc::new(Gate::new(CALLS, limits.clone())),
            connections: Arc::new(Semaphore::new(limits.connections)),
            limits,
            record,
            ports: Mutex::default(),
        })
    }

    /// Threads for calls that block.
    pub(crate) fn calls(&self) -> Arc<Calls> {
        Arc::clone(&self.calls)
    }

    /// Services for a port, none yet; `descriptors` are those of their .proto files.
    pub(crate) fn services(&self, descriptors: &'static [u8]) -> Services {
        let (gate, limits, record) = (Arc::clone(&self.gate), self.limits.clone(), self.record.clone());
        Services { gate, limits, record, routes: Routes::builder(), names: Vec::new(), descriptors }
    }

    /// Serves a port from now on.
    pub(crate) fn serve(&self, listener: TcpListener, services: Services) -> io::Result<()> {
        let tokio = self.tokio.lock();
        let Some(tokio) = &*tokio else { return Err(io::Error::other("stopped")) };
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let _inside = tokio.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (to_server, incoming) = mpsc::channel(16);
        let (entries, head) = (Arc::clone(&self.connections), self.limits.head);
        let acceptor = tokio.spawn(socket::accept(listener, entries, head, to_server));
        let (end, ended) = oneshot::channel::<()>();
        let routes = tokio.block_on(services.finish()).map_err(io::Error::other)?;
        let server = Server::builder()
            .max_concurrent_streams(CALLS_OF_A_CONNECTION)
            .http2_keepalive_interval(Some(PING))
            .http2_keepalive_timeout(Some(PING_ANSWER))
            .http2_max_header_list_size(16 << 10)
            .max_connection_age(AGE)
            .max_connection_age_grace(AGE_GRACE)
            .add_routes(routes);
        let server = tokio.spawn(async move {
            let is_over = async {
                let _ = ended.await; // the other end is dropped
            };
            if let Err(error) = server.serve_with_incoming_shutdown(ReceiverStream::new(incoming), is_over).await {
                log::error!("{address}: gRPC is served no more: {error}");
            }
        });
        let mut ports = self.ports.lock();
        ports.retain(|port| !port.server.is_finished());
        ports.push(Port { address, acceptor, end: Some(end), server });
        Ok(())
    }

    /// Takes no more calls at this port, and lets those under way end.
    pub(crate) fn close(&self, address: SocketAddr) {
        self.ports.lock().iter_mut().filter(|port| port.address == address).for_each(Port::close);
    }

    /// Takes no more calls, and gives those under way `grace` to end.
    pub(crate) fn stop(&self, grace: Duration) {
        self.end(grace);
    }

    fn end(&self, grace: Duration) {
        let Some(tokio) = self.tokio.lock().take() else { return };
        let mut ports = std::mem::take(&mut *self.ports.lock());
        ports.iter_mut().for_each(Port::close);
        tokio.block_on(async {
            let all = async {
                for port in ports {
                    let _ = port.server.await; // an error is a panic, which was logged
                }
            };
            let _ = tokio::time::timeout(grace, all).await;
        });
        tokio.shutdown_background();
        self.calls.stop();
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

/// The services of one port.
pub(crate) struct Services {
    gate: Arc<Gate>,
    limits: Limits,
    record: Record,
    routes: RoutesBuilder,
    names: Vec<&'static str>,
    descriptors: &'static [u8],
}

impl Services {
    /// One more.
    pub(crate) fn with<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send,
    {
        self.names.push(S::NAME);
        self.routes.add_service(Guarded { inner: service, gate: Arc::clone(&self.gate), record: self.record.clone() });
        self
    }

    /// With health and reflection.
    async fn finish(mut self) -> Result<Routes, tonic_reflection::server::Error> {
        let (health, health_service) = tonic_health::server::health_reporter();
        for name in &self.names {
            health.set_service_status(*name, ServingStatus::Serving).await;
        }
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(self.descriptors)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let (v1, v1alpha) = (reflection().build_v1()?, reflection().build_v1alpha()?);
        self.gate = Arc::new(Gate::new(CALLS, self.limits.clone()));
        self.record = Record::default();
        Ok(self.with(health_service).with(v1).with(v1alpha).routes.routes())
    }
}
