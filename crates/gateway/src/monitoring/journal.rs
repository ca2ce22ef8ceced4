//! Where the gateway's façades note what they have answered.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::access_log::AccessLog;
use super::requests::{Facade, Requests, known};
use crate::cache::Cache;
use crate::console::{Console, Statistics};
use crate::server::Head;

/// What all façades of a gateway note.
pub(crate) struct Journal {
    console: Arc<Console>,
    requests: Requests,
    log: Option<AccessLog>,
    cache: Option<Arc<dyn Cache>>,
}

/// A request that was answered.
pub(crate) struct Answered<'a> {
    pub(crate) facade: Facade,
    pub(crate) peer: SocketAddr,
    /// The user's name.
    pub(crate) user: &'a str,
    /// What was asked for: one of few words, whatever clients say.
    pub(crate) label: &'a str,
    /// The same as clients say it: method, target and protocol.
    pub(crate) request: (&'a str, &'a str, &'a str),
    pub(crate) status: StatusCode,
    /// So many bytes of the answer's body were taken by the client.
    pub(crate) sent: u64,
    /// So long after its head the answer began.
    pub(crate) waited: Duration,
}

/// How a request of HTTP was answered: as in [`Answered`].
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) sent: u64,
    pub(crate) waited: Duration,
}

impl Journal {
    pub(crate) fn new(console: Arc<Console>, log: Option<AccessLog>, cache: Option<Arc<dyn Cache>>) -> Self {
        Self { console, requests: Requests::new(), log, cache }
    }

    /// Notes that a request was answered.
    pub(crate) fn note(&self, answered: &Answered<'_>) {
        let Answered { facade, peer, user, label, request: (method, target, _), status, waited, .. } = answered;
        self.requests.count(*facade, label, *status, *waited);
        if !matches!(facade, Facade::Console | Facade::Monitoring) {
            self.console.statistics.answered(status.is_server_error(), *waited);
        }
        if let Some(log) = &self.log {
            log.write(answered);
        }
        log::info!("{peer} {user}: {method} {target}: {}", status.as_u16());
    }

    /// Notes that a request of HTTP was answered.
    pub(crate) fn note_http(&self, facade: Facade, (peer, user): (SocketAddr, &str), head: &Head, answer: Answer) {
        let Answer { status, sent, waited } = answer;
        let (target, protocol) = (target(head), format!("{:?}", head.version));
        let request = (head.method.as_str(), &*target, &*protocol);
        self.note(&Answered { facade, peer, user, label: known(&head.method), request, status, sent, waited });
    }

    /// Where bytes that move are counted.
    pub(crate) fn statistics(&self) -> &Arc<Statistics> {
        &self.console.statistics
    }

    /// Why the gateway cannot do its work now.
    pub(super) fn trouble(&self) -> Option<String> {
        self.console.trouble()
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        self.requests.register(registry);
        let (statistics, cache) = (Arc::clone(&self.console.statistics), self.cache.clone());
        registry.register_collector(Box::new(Totals { statistics, cache }));
    }
}

/// What a request is about, for a log: a signed URL is as good as the key that has signed it until it expires, so its query is left
/// out, whichever façade it was sent to.
fn target(head: &Head) -> String {
    let is_signed = head.uri.query().is_some_and(|query| query.to_ascii_lowercase().contains("signature"));
    if is_signed { head.uri.path().to_owned() } else { head.uri.to_string() }
}

/// What is counted elsewhere.
struct Totals {
    statistics: Arc<Statistics>,
    cache: Option<Arc<dyn Cache>>,
}

impl fmt::Debug for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Totals").finish_non_exhaustive()
    }
}

impl Collector for Totals {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut count = |name, help, total: u64| {
            let counter = ConstCounter::new(total);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)
        };
        let (received, sent) = self.statistics.moved();
        count("gateway_received_bytes", "Bytes of content that clients have sent", received)?;
        count("gateway_sent_bytes", "Bytes of content that clients have taken", sent)?;
        let Some(cache) = &self.cache else { return Ok(()) };
        let figures = cache.figures();
        count("gateway_cache_hits", "Small objects that were found in the cache", figures.hits)?;
        count("gateway_cache_misses", "Small objects that a Dstore was asked for", figures.misses)?;
        count("gateway_cache_failures", "Times that the cache could not be asked", figures.failures)?;
        let bytes = ConstGauge::new(figures.bytes);
        bytes.encode(encoder.encode_descriptor(
            "gateway_cache_bytes",
            "Memory of the cache",
            None,
            bytes.metric_type(),
        )?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_signs_a_url_is_not_logged() {
        let of = |uri: &str| target(&hyper::Request::builder().uri(uri).body(()).unwrap().into_parts().0);
        assert_eq!(of("/b/k?X-Amz-Date=1&x-amz-Signature=f0&x=%zz"), "/b/k");
        assert_eq!(of("/a%20b?x=1"), "/a%20b?x=1");
    }
}
