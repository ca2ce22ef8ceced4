//! What a run has shown, for programs. Times are in milliseconds unless their names say otherwise.

use serde_json::{Map, Value, json};

use crate::mix::Kind;
use crate::record::{ByKind, Measures};
use crate::report::{Process, QUANTILES, Report, ms};

/// All of it.
pub fn json(report: &Report) -> Value {
    let setup: Map<_, _> = report.setup.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let errors = report.totals.errors.iter().map(|((kind, trouble), errors)| {
        json!({"kind": kind.to_string(), "error": trouble, "count": errors.count, "first": errors.first})
    });
    let timeline = report.window.intervals().zip(&report.totals.intervals).map(|((begin, length), measures)| {
        let kinds = each_kind(measures, |measures| {
            json!({
                "operations": measures.count(), "bytes": measures.bytes,
                "p50": ms(measures.quantile(0.5)), "p99": ms(measures.quantile(0.99)),
            })
        });
        json!({"begin_s": begin.as_secs_f64(), "length_s": length.as_secs_f64(), "kinds": kinds})
    });
    json!({
        "setup": setup,
        "seconds": report.seconds(),
        "clients": report.clients,
        "busy_clients": report.busy_clients(),
        "operations": report.operations(),
        "operations_per_s": report.operations() as f64 / report.seconds(),
        "kinds": each_kind(&report.totals.whole, |measures| of_a_kind(report, measures)),
        "errors": errors.collect::<Vec<_>>(),
        "processes": report.processes.iter().map(|process| of_a_process(report, process)).collect::<Vec<_>>(),
        "files_left": report.left,
        "timeline": timeline.collect::<Vec<_>>(),
        "failure": report.failure(),
    })
}

fn of_a_kind(report: &Report, measures: &Measures) -> Value {
    let bars = measures.histogram().into_iter();
    let bars = bars.map(|(from, to, count)| json!({"from": ms(from), "to": ms(to), "count": count}));
    let mut value = json!({
        "operations": measures.count(), "operations_per_s": report.rate(measures),
        "bytes": measures.bytes, "mb_per_s": report.megabytes(measures),
        "mean": ms(measures.mean()), "max": ms(measures.max()),
        "histogram": bars.collect::<Vec<_>>(),
    });
    for (name, fraction) in QUANTILES {
        value[name] = json!(ms(measures.quantile(fraction)));
    }
    value
}

fn of_a_process(report: &Report, process: &Process) -> Value {
    json!({
        "pid": process.pid,
        "name": process.before.name,
        "cpu_s": process.cpu().map(|cpu| cpu.as_secs_f64()),
        "cpu_us_per_operation": report.micros_per_operation(process),
        "resident_bytes_before": process.before.resident,
        "resident_bytes_after": process.after.as_ref().map(|usage| usage.resident),
    })
}

/// Those that there were operations of, by name.
fn each_kind(measures: &ByKind, value: impl Fn(&Measures) -> Value) -> Map<String, Value> {
    let kinds = Kind::ALL.into_iter().map(|kind| (kind, &measures[kind.index()]));
    kinds
        .filter(|(_, measures)| measures.count() > 0)
        .map(|(kind, measures)| (kind.to_string(), value(measures)))
        .collect()
}
