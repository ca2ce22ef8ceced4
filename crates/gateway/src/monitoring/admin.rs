//! A server for metrics and health alone: for processes without a gateway, and for networks that keep such things apart.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use hyper::{Method, Response, StatusCode, header};

use super::Monitor;
use crate::http::admit;
use crate::server::{self, Limits, Reply, Request, Server};

/// Watching programs are few, and ask for little.
const LIMITS: Limits = Limits {
    connections: 32,
    head_bytes: 8 << 10,
    head: Duration::from_secs(10),
    idle: Duration::from_secs(75),
    stall: Duration::from_secs(10),
    slowest_rate: 1 << 10,
};

/// A server that runs until it is dropped.
pub struct Admin {
    server: Server,
    address: SocketAddr,
}

struct Pages {
    monitor: Monitor,
    /// Only this machine can reach it.
    is_private: bool,
}

impl Admin {
    /// Starts to answer for what a monitor watches: `GET /metrics`, `/healthz` and `/readyz`.
    pub fn start(listener: TcpListener, monitor: Monitor) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let pages = Arc::new(Pages { monitor, is_private: address.ip().is_loopback() });
        Ok(Self { server: Server::start(listener, None, LIMITS, pages)?, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more requests. What it watches is not looked at any more when this returns.
    pub fn stop(self) {
        self.server.stop(Duration::ZERO);
    }
}

impl server::Facade for Pages {
    fn serve(&self, request: Request, reply: Reply) {
        let Request { head, .. } = request;
        let text = Response::builder().header(header::CONTENT_TYPE, "text/plain; charset=utf-8");
        if let Err(problem) = admit(&head, self.is_private) {
            return reply.send(text.status(problem.status), format!("{}\n", problem.message));
        }
        if !matches!(head.method, Method::GET | Method::HEAD) {
            let answer = text.status(StatusCode::METHOD_NOT_ALLOWED).header(header::ALLOW, "GET, HEAD");
            return reply.send(answer, "GET and HEAD are known here\n");
        }
        let name = head.uri.path().strip_prefix('/').unwrap_or_default();
        match self.monitor.page(name, head.headers.get(header::ACCEPT)) {
            Some(page) => {
                let (status, head, text) = page.parts(head.method == Method::HEAD);
                reply.send(head.status(status), text);
            }
            None => reply.send(text.status(StatusCode::NOT_FOUND), "there are /metrics, /healthz and /readyz\n"),
        }
    }
}
