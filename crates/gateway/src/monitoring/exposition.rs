//! The two formats of metrics that Prometheus reads.
//!
//! OpenMetrics, and the older text format, which programs other than Prometheus often know only. They differ little: in the older
//! one a counter's family has the name of its sample, and there is no mark at the end.

use std::fmt;

use hyper::header::HeaderValue;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    OpenMetrics,
    Text,
}

impl Format {
    /// What a client reads that says this in `Accept`.
    pub(super) fn accepted(accept: Option<&HeaderValue>) -> Self {
        let accept = accept.and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Text }
    }

    /// Its media type.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// All metrics.
    pub(super) fn write(self, registry: &Registry) -> Result<String, fmt::Error> {
        let mut open = String::new();
        text::encode(&mut open, registry)?;
        Ok(match self {
            Self::OpenMetrics => open,
            Self::Text => in_older_format(&open),
        })
    }
}

fn in_older_format(open: &str) -> String {
    let mut text = String::with_capacity(open.len());
    let mut help = None;
    for line in open.lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            // The name that it gets depends on the type, which follows.
            ["#", "HELP", ..] => help = Some(line),
            ["#", "TYPE", name, kind] => {
                let suffix = if kind == "counter" { "_total" } else { "" };
                let said = help.take().and_then(|help| help.splitn(4, ' ').nth(3)).unwrap_or_default();
                text.push_str(&format!("# HELP {name}{suffix} {said}\n# TYPE {name}{suffix} {kind}\n"));
            }
            ["#", "EOF" | "UNIT", ..] => {}
            _ => text.extend([line, "\n"]),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_called_as_its_sample_in_the_older_format() {
        let open = "# HELP a_puts Puts that were done.\n# TYPE a_puts counter\na_puts_total{x=\"EOF #\"} 3\n\
                    # HELP b B.\n# TYPE b gauge\nb 1.5\n# EOF\n";
        let text = "# HELP a_puts_total Puts that were done.\n# TYPE a_puts_total counter\na_puts_total{x=\"EOF #\"} 3\n\
                    # HELP b B.\n# TYPE b gauge\nb 1.5\n";
        assert_eq!(in_older_format(open), text);
    }

    #[test]
    fn openmetrics_is_for_clients_that_ask_for_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let of = |accept| Format::accepted(Some(&HeaderValue::from_static(accept)));
        assert_eq!(of(prometheus), Format::OpenMetrics);
        assert_eq!(of("*/*"), Format::Text);
        assert_eq!(Format::accepted(None), Format::Text);
    }
}
