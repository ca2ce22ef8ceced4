//! What the gateway was asked for, as metrics.

use std::fmt;
use std::time::Duration;

use hyper::{Method, StatusCode};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// What a request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Facade {
    /// Files and folders over plain HTTP.
    Http,
    /// Buckets and objects.
    S3,
    /// The console and its API.
    Console,
    /// Metrics and health.
    Monitoring,
    /// A further one, as people call it.
    Named(&'static str),
}

/// Counts of answers. Each label has few values, whatever clients send.
pub(super) struct Requests {
    answers: Family<AnswerLabels, Counter>,
    seconds: Family<FacadeLabel, Histogram, fn() -> Histogram>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabels {
    facade: Facade,
    method: String,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FacadeLabel {
    facade: Facade,
}

impl EncodeLabelValue for Facade {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        match self {
            Self::Http => "http".encode(encoder),
            Self::S3 => "s3".encode(encoder),
            Self::Console => "console".encode(encoder),
            Self::Monitoring => "monitoring".encode(encoder),
            Self::Named(name) => name.to_lowercase().encode(encoder),
        }
    }
}

impl Requests {
    pub(super) fn new() -> Self {
        // From half a millisecond to eight seconds.
        let histogram: fn() -> Histogram = || Histogram::new(exponential_buckets(0.000_5, 2.0, 15));
        Self { answers: Family::default(), seconds: Family::new_with_constructor(histogram) }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("gateway_requests", "Requests that were answered", self.answers.clone());
        let help = "Time from a request's head to the beginning of its answer";
        registry.register("gateway_request_seconds", help, self.seconds.clone());
    }

    /// A request was answered, and its answer began after so long.
    pub(super) fn count(&self, facade: Facade, label: &str, status: StatusCode, waited: Duration) {
        let labels = AnswerLabels { facade, method: label.to_owned(), code: status.as_u16() };
        self.answers.get_or_create(&labels).inc();
        self.seconds.get_or_create(&FacadeLabel { facade }).observe(waited.as_secs_f64());
    }
}

/// The method's name, if it is one that some façade of HTTP knows.
pub(super) fn known(method: &Method) -> &'static str {
    const KNOWN: &[&str] = &[
        "GET",
        "HEAD",
        "PUT",
        "POST",
        "DELETE",
        "OPTIONS",
        "PROPFIND",
        "PROPPATCH",
        "MKCOL",
        "COPY",
        "MOVE",
        "LOCK",
        "UNLOCK",
    ];
    KNOWN.iter().find(|known| **known == method.as_str()).unwrap_or(&"other")
}
