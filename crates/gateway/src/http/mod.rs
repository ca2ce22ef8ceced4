//! Files and folders over plain HTTP, as `curl`, `wget` and browsers speak it.
//!
//! | request | does |
//! |---|---|
//! | `GET`, `HEAD` of a file | its content, or one range of it; `304` if the client has it already |
//! | `GET`, `HEAD` of a folder | a page of its entries: as JSON if `Accept` asks for that, else for people |
//! | `PUT`, `POST` of a file | creates it, or replaces its content |
//! | `PUT`, `POST` of a path that ends in `/` | makes a folder |
//! | `DELETE` of a file | removes it |
//! | `DELETE` of a path that ends in `/` | removes a folder with all that is in it |
//!
//! A file's ETag is its version, so it never returns for other content, not even after a restore (depot 2.1). Conditions are
//! evaluated twice: here, so that a client is refused before it sends a body, and again by the store, at the instant of the
//! change. What was found to hold the first time is what the store then insists on: a version, or that there is nothing.
//!
//! An upload that is interrupted leaves nothing, since a put takes effect by its last step only. An answer that cannot be made
//! whole is cut off, so that the client sees it; all that can be known before its first byte is said by the status.
//!
//! A browser may be made to send requests by any page that it shows. So a request that changes something is refused if it
//! comes from another site's page, and a gateway that only this machine can reach answers only to names that no other site can
//! take for itself (`guard`). Content that could run scripts is given an origin of its own.
//!
//! | file | what |
//! |---|---|
//! | `target` | which path a request is about |
//! | `guard` | which requests are not answered at all |
//! | `conditions`, `range` | what the client has already, and which part it wants |
//! | `problem` | what went wrong, as status and JSON |
//! | `read`, `listing` | GET and HEAD of files, and of folders |
//! | `sink` | a file's bytes on their way to the client |
//! | `change` | PUT, POST, DELETE |
//! | `budget` | how much memory uploads may take |

mod budget;
mod change;
mod conditions;
mod guard;
mod listing;
mod problem;
mod range;
mod read;
mod sink;
mod target;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use depot::client::Files;
use depot::path::Path;
use hyper::header::HeaderValue;
use hyper::http::response::Builder;
use hyper::{Method, Response, StatusCode, header};

use crate::access::{Access, Caller, Right};
use crate::console::{self, Console};
use crate::dav;
use crate::locks::Locks;
use crate::monitoring::{self, GatewayProbe, Journal, Monitor, Watched};
use crate::server::{Answer, Body, Facade, Head, Reply, Request};
pub(crate) use budget::{Budget, Share};
pub(crate) use change::{CHUNK, PATIENCE, no_parent};
pub(crate) use conditions::{Conditions, Verdict, etag, last_modified};
pub(crate) use guard::{admit, host};
pub(crate) use listing::{entry_json, href};
pub(crate) use problem::Problem;
pub(crate) use range::{Wanted, wanted};
pub(crate) use read::{SANDBOX, can_run_scripts, changed, content_type_of, prefers_page};
pub(crate) use sink::Sink;
pub(crate) use target::{RESERVED, Target, is_reserved, query};

/// What can be said of how the façade works.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only this machine can reach it: it answers to no name that another site could have.
    pub is_private: bool,
}

/// The façade. See the module.
pub struct Http {
    pub(crate) store: Arc<dyn Files>,
    access: Arc<Access>,
    pub(crate) locks: Arc<Locks>,
    options: Options,
    uploads: Arc<Budget>,
    console: Arc<Console>,
    journal: Arc<Journal>,
    monitor: Monitor,
}

impl Http {
    /// A façade of this store, for those that `access` lets in, and beside it the console. What uploads keep in memory is taken
    /// from `uploads`.
    pub(crate) fn new(
        store: Arc<dyn Files>,
        access: Arc<Access>,
        locks: Arc<Locks>,
        console: Arc<Console>,
        journal: Arc<Journal>,
        uploads: Arc<Budget>,
        options: Options,
    ) -> Self {
        let gateway = Some(GatewayProbe(Arc::clone(&journal)));
        let monitor = Monitor::new(Watched { gateway, ..Watched::default() });
        Self { store, access, locks, options, uploads, console, journal, monitor }
    }
}

/// A request that is being answered.
pub(crate) struct Exchange {
    /// All of it but the body.
    pub(crate) head: Head,
    /// What follows the head.
    pub(crate) body: Body,
    /// `None` once it was answered, or an answer has begun.
    reply: Option<Reply>,
    /// The user that sends it, if it names one.
    pub(crate) caller: Caller,
    /// What was answered, for the log.
    status: StatusCode,
    /// When it came.
    came: Instant,
    /// How long it took until its answer began.
    waited: Duration,
}

impl Exchange {
    /// Answers.
    pub(crate) fn send(&mut self, status: StatusCode, head: Builder, body: impl Into<Bytes>) {
        self.status = status;
        self.waited = self.came.elapsed();
        if let Some(reply) = self.reply.take() {
            reply.send(head.status(status), body);
        }
    }

    /// Begins an answer that is written bit by bit, of this length if that is known; `None` if there was one already.
    pub(crate) fn begin(&mut self, status: StatusCode, head: Builder, length: Option<u64>) -> Option<Answer> {
        self.status = status;
        self.waited = self.came.elapsed();
        Some(self.reply.take()?.begin(head.status(status), length))
    }

    /// A header field, if it is text.
    pub(crate) fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    /// Whether the client wants only the head of the answer.
    pub(crate) fn is_head(&self) -> bool {
        self.head.method == Method::HEAD
    }
}

/// Which of the gateway's pages for monitoring a request is for. No file can have such a path.
fn monitoring_page(head: &Head) -> Option<&str> {
    let name = head.uri.path().strip_prefix("/.stevedore/")?;
    matches!(name, "metrics" | "healthz" | "readyz").then_some(name)
}

/// The methods that there are, but for WebDAV's own.
const ALLOWED: &str = "GET, HEAD, PUT, POST, DELETE, OPTIONS";

/// All methods that there are.
fn allowed() -> String {
    format!("{ALLOWED}, {}", dav::METHODS)
}

impl Facade for Http {
    fn serve(&self, request: Request, reply: Reply) {
        let Request { head, body, peer } = request;
        let (caller, status) = (Caller::Stranger, StatusCode::OK);
        let (came, waited) = (Instant::now(), Duration::ZERO);
        let sent = reply.sent();
        let mut exchange = Exchange { head, body, reply: Some(reply), caller, status, came, waited };
        if let Err(problem) = self.answer(&mut exchange, peer.ip()) {
            problem.send(&mut exchange);
        }
        let Exchange { head, caller, status, waited, .. } = &exchange;
        let (user, sent) = (caller.name(), sent.load(Ordering::Relaxed));
        let facade = match () {
            () if monitoring_page(head).is_some() => monitoring::Facade::Monitoring,
            () if console::is_asked(head) => monitoring::Facade::Console,
            () => monitoring::Facade::Http,
        };
        self.journal.note_http(
            facade,
            (peer, user),
            head,
            monitoring::Answer { status: *status, sent, waited: *waited },
        );
    }
}

impl Http {
    fn answer(&self, exchange: &mut Exchange, peer: IpAddr) -> Result<(), Problem> {
        admit(&exchange.head, self.options.is_private)?;
        if exchange.head.method == Method::OPTIONS {
            // Windows looks for the third line before it speaks WebDAV.
            let head = Response::builder()
                .header(header::ALLOW, allowed())
                .header("DAV", dav::CLASSES)
                .header("MS-Author-Via", "DAV");
            exchange.send(StatusCode::NO_CONTENT, head, "");
            return Ok(());
        }
        if let Some(name) = monitoring_page(&exchange.head) {
            let name = name.to_owned();
            return self.monitoring(exchange, &name, peer);
        }
        let is_for_console = console::is_asked(&exchange.head);
        if is_for_console && !console::needs_caller(&exchange.head) {
            return self.console.answer(exchange);
        }
        let target = if is_for_console { None } else { Some(Target::of(&exchange.head.uri)?) };
        exchange.caller = self.caller(exchange, peer)?;
        let Some(target) = target else { return self.console.answer(exchange) };
        if let Some(answered) = self.answer_dav(exchange, &target) {
            return answered;
        }
        let caller = &exchange.caller;
        match exchange.head.method.as_str() {
            "GET" | "HEAD" => {
                caller.check(Right::Read, &target.path)?;
                self.read(exchange, &target)
            }
            "PUT" | "POST" => {
                caller.check(Right::Write, &target.path)?;
                self.put(exchange, &target)
            }
            "DELETE" => {
                caller.check(Right::Write, &target.path)?;
                self.delete(exchange, &target)
            }
            method => {
                let problem = Problem::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "method-not-allowed",
                    format!("{method} is not known here: {} are", allowed()),
                );
                Err(problem.with(header::ALLOW, allowed()))
            }
        }
    }

    fn caller(&self, exchange: &Exchange, peer: IpAddr) -> Result<Caller, Problem> {
        let authorization = exchange.head.headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        Ok(self.access.caller(authorization, peer)?)
    }

    /// Metrics are for callers who may know all of the store; health is asked for by programs that have no user.
    fn monitoring(&self, exchange: &mut Exchange, name: &str, peer: IpAddr) -> Result<(), Problem> {
        if name == "metrics" {
            exchange.caller = self.caller(exchange, peer)?;
            exchange.caller.check(Right::Read, &Path::root())?;
        }
        let page = match exchange.head.method {
            Method::GET | Method::HEAD => self.monitor.page(name, exchange.head.headers.get(header::ACCEPT)),
            _ => None,
        };
        let Some(page) = page else {
            let message = format!("{} {}: there is no such page", exchange.head.method, exchange.head.uri.path());
            return Err(Problem::new(StatusCode::NOT_FOUND, "not-found", message));
        };
        let (status, head, text) = page.parts(exchange.is_head());
        exchange.send(status, head, text);
        Ok(())
    }
}
