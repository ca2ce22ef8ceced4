//! What a process tells programs that watch over it: metrics, health, and a log of requests. (docs/monitoring.md)
//!
//! ```text
//!   Controllers, Dstores ── probes ──▶ servers ─┐
//!   the gateway's façades ── one ──▶ journal ───┼──▶ Monitor ──▶ /metrics /healthz /readyz     admin, and the gateway itself
//!        request at a time │                    │
//!                          ├──▶ requests ───────┘
//!                          ├──▶ the console's charts
//!                          └──▶ access_log
//! ```
//!
//! Figures of Controllers and Dstores are taken when they are asked for, from what is in memory already: a Prometheus that asks
//! often costs little, and a store in trouble still says how it is. What is said of healing is counted from what Dstores have
//! reported, never from what was ordered. (depot 6.5)
//!
//! No label is made of a name that a client chooses, so that clients cannot make the metrics grow.
//!
//! | file | what |
//! |---|---|
//! | `servers` | Controllers and Dstores of this process, as metrics |
//! | `process` | the process itself: memory, threads, files |
//! | `requests` | what the gateway was asked for, as metrics |
//! | `journal` | where façades note what they have answered |
//! | `record` | the same for those that do not speak HTTP |
//! | `access_log` | a line for each request, in the common log format |
//! | `admin` | a server for all of it |
//! | `exposition` | the two formats of metrics that Prometheus reads |

mod access_log;
mod admin;
mod exposition;
mod journal;
mod process;
mod record;
mod requests;
mod servers;

use std::fmt;
use std::sync::Arc;

use depot::{controller, dstore};
use hyper::header::HeaderValue;
use hyper::http::response::Builder;
use hyper::{Response, StatusCode, header};
use prometheus_client::registry::Registry;

pub use access_log::AccessLog;
pub use admin::Admin;
pub(crate) use journal::{Answer, Journal};
pub use record::{Noted, Record};
pub(crate) use requests::Facade;

use exposition::Format;

/// What there is to be watched in a process.
#[derive(Default)]
pub struct Watched {
    /// Its Controllers.
    pub controllers: Vec<controller::Probe>,
    /// Its Dstores.
    pub dstores: Vec<dstore::Probe>,
    /// Its gateway.
    pub gateway: Option<GatewayProbe>,
}

/// Looks at a gateway.
#[derive(Clone)]
pub struct GatewayProbe(pub(crate) Arc<Journal>);

/// Says how a process is.
pub struct Monitor {
    registry: Registry,
    servers: Arc<servers::Servers>,
    gateway: Option<Arc<Journal>>,
}

impl Monitor {
    /// Of what there is in this process.
    pub fn new(watched: Watched) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(process::Process::new()));
        let servers = Arc::new(servers::Servers::new(watched.controllers, watched.dstores));
        let ours = registry.sub_registry_with_prefix("stevedore");
        ours.register_collector(Box::new(Arc::clone(&servers)));
        let gateway = watched.gateway.map(|probe| probe.0);
        if let Some(gateway) = &gateway {
            gateway.register(ours);
        }
        Self { registry, servers, gateway }
    }

    /// Why a part of the process has failed for good.
    fn failures(&self) -> Vec<String> {
        self.servers.failures()
    }

    /// Why the process cannot do its work now, a sentence for each part that cannot.
    fn troubles(&self) -> Vec<String> {
        let gateway = self.gateway.iter().filter_map(|gateway| gateway.trouble());
        self.servers.troubles().into_iter().chain(gateway.map(|trouble| format!("gateway: {trouble}"))).collect()
    }

    /// What a page of this name says; `None` if there is none. A client that does not read OpenMetrics gets the older format.
    pub(crate) fn page(&self, name: &str, accept: Option<&HeaderValue>) -> Option<Page> {
        let health = |troubles: Vec<String>, word: &str| {
            let status = if troubles.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            let text = if troubles.is_empty() { word.to_owned() } else { troubles.join("\n") };
            Page { status, kind: "text/plain; charset=utf-8", text: text + "\n" }
        };
        match name {
            "healthz" => Some(health(self.failures(), "ok")),
            "readyz" => Some(health(self.troubles(), "ready")),
            "metrics" => {
                let format = Format::accepted(accept);
                Some(match format.write(&self.registry) {
                    Ok(text) => Page { status: StatusCode::OK, kind: format.kind(), text },
                    Err(fmt::Error) => health(vec!["the metrics cannot be written".into()], ""),
                })
            }
            _ => None,
        }
    }
}

/// An answer that is whole.
pub(crate) struct Page {
    status: StatusCode,
    kind: &'static str,
    text: String,
}

impl Page {
    /// Its status, head and body; without the body for a request that asks for none.
    pub(crate) fn parts(self, is_head: bool) -> (StatusCode, Builder, String) {
        let head = Response::builder()
            .header(header::CONTENT_TYPE, self.kind)
            .header(header::CACHE_CONTROL, "no-store")
            .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        if is_head {
            (self.status, head.header(header::CONTENT_LENGTH, self.text.len()), String::new())
        } else {
            (self.status, head, self.text)
        }
    }
}
