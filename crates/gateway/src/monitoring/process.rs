//! The process itself, by the names that Prometheus' own libraries use.

use std::fmt;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;

/// Reads it off `/proc`; where there is none, little is said.
#[derive(Debug)]
pub(super) struct Process {
    started: f64,
}

impl Process {
    /// It is taken to have been started just now.
    pub(super) fn new() -> Self {
        Self { started: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let files = fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as f64);
        for (name, help, value) in [
            ("process_start_time_seconds", "When the process was started, in seconds since 1970", Some(self.started)),
            ("process_resident_memory_bytes", "Memory of the process", line(&status, "VmRSS:").map(|kib| kib * 1024.0)),
            ("process_threads", "Threads of the process", line(&status, "Threads:")),
            ("process_open_fds", "Open files and sockets", files),
        ] {
            if let Some(value) = value {
                let value = ConstGauge::new(value);
                value.encode(encoder.encode_descriptor(name, help, None, value.metric_type())?)?;
            }
        }
        Ok(())
    }
}

/// `VmRSS:     16384 kB`
fn line(status: &str, name: &str) -> Option<f64> {
    status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}
