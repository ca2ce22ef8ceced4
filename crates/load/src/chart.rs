//! Throughput and latency over time, as a picture that stands for itself.

use std::fmt::Write as _;
use std::time::Duration;

use crate::mix::Kind;
use crate::record::Measures;
use crate::report::{Report, digits, ms};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 24.0;
const PANEL: f64 = 230.0;
const FIRST_TOP: f64 = 116.0;
const SECOND_TOP: f64 = FIRST_TOP + PANEL + 64.0;
/// The room for the name of a kind.
const LEGEND: f64 = 84.0;
const HEIGHT: f64 = SECOND_TOP + PANEL + 52.0;

/// A colour for each kind. They can be told apart in print, and by people who see colours differently (Okabe and Ito).
const COLOURS: [&str; Kind::ALL.len()] = ["#0072b2", "#009e73", "#d55e00", "#cc79a7"];

/// Draws it, as SVG.
pub fn draw(report: &Report) -> String {
    let kinds: Vec<Kind> = report.kinds().map(|(kind, _)| kind).collect();
    let seconds = report.window.length.as_secs_f64();
    let mut svg = Svg::begin(seconds);
    let rate = grouped(report.operations() as f64 / seconds);
    let bytes: u64 = report.kinds().map(|(_, measures)| measures.bytes).sum();
    let megabytes = digits(bytes as f64 / 1e6 / seconds);
    svg.text(LEFT, 30.0, "start", "title", &format!("{rate} operations and {megabytes} MB a second"));
    let mut setup = String::new();
    let mut line = 52.0;
    for (name, value) in &report.setup {
        if setup.len() + name.len() + value.len() > 125 {
            svg.text(LEFT, line, "start", "note", &setup);
            setup.clear();
            line += 15.0;
        }
        let comma = if setup.is_empty() { "" } else { ", " };
        write!(setup, "{comma}{name} {value}").expect("a String takes all");
    }
    svg.text(LEFT, line, "start", "note", &setup);
    svg.throughput(report, &kinds);
    svg.latency(report, &kinds);
    svg.end()
}

/// A picture in the making.
struct Svg {
    text: String,
    seconds: f64,
}

/// How the values of a panel lie on the paper.
struct Scale {
    top: f64,
    low: f64,
    high: f64,
    is_logarithmic: bool,
}

impl Scale {
    fn y(&self, value: f64) -> f64 {
        let share = if self.is_logarithmic {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.top + PANEL * (1.0 - share.clamp(0.0, 1.0))
    }
}

impl Svg {
    fn begin(seconds: f64) -> Self {
        let text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             width=\"{WIDTH}\" height=\"{HEIGHT}\">\n\
             <style>\n\
             text {{ font: 12px system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif; fill: #444 }}\n\
             .title {{ font-size: 18px; font-weight: 600; fill: #111 }}\n\
             .head {{ font-size: 13px; font-weight: 600; fill: #222 }}\n\
             .note {{ font-size: 11px; fill: #666 }}\n\
             .grid {{ stroke: #e4e4e4; stroke-width: 1 }}\n\
             .axis {{ stroke: #999; stroke-width: 1 }}\n\
             .line {{ fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round }}\n\
             </style>\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
        );
        Self { text, seconds }
    }

    fn throughput(&mut self, report: &Report, kinds: &[Kind]) {
        self.panel_head(FIRST_TOP, "operations per second", kinds);
        let series: Vec<Vec<(f64, f64)>> = kinds
            .iter()
            .map(|&kind| series(report, kind, |measures, length| Some(measures.count() as f64 / length.as_secs_f64())))
            .collect();
        let highest = series.iter().flatten().map(|(_, rate)| *rate).fold(0.0, f64::max);
        let step = round_step(highest / 4.0);
        let ticks = (highest / step).ceil().max(1.0) as u32;
        let scale = Scale { top: FIRST_TOP, low: 0.0, high: step * f64::from(ticks), is_logarithmic: false };
        for tick in 0..=ticks {
            let value = step * f64::from(tick);
            self.horizontal(scale.y(value), &grouped(value));
        }
        self.time_axis(FIRST_TOP);
        for (kind, points) in kinds.iter().zip(&series) {
            self.line(&scale, points, COLOURS[kind.index()], "");
        }
    }

    fn latency(&mut self, report: &Report, kinds: &[Kind]) {
        self.panel_head(SECOND_TOP, "latency in ms: p50 solid, p99 dashed", kinds);
        let quantile = |kind, fraction| {
            series(report, kind, |measures, _| (measures.count() > 0).then(|| ms(measures.quantile(fraction))))
        };
        let series: Vec<_> = kinds.iter().map(|&kind| (kind, quantile(kind, 0.5), quantile(kind, 0.99))).collect();
        let values = || series.iter().flat_map(|(_, p50, p99)| p50.iter().chain(p99)).map(|(_, value)| *value);
        let (least, most) = (values().fold(f64::INFINITY, f64::min), values().fold(0.001, f64::max));
        // A tick at 1, 2 and 5 of each power of ten.
        let tick = |number: i32| [1.0, 2.0, 5.0][number.rem_euclid(3) as usize] * 10_f64.powi(number.div_euclid(3));
        let at_most = |value: f64| (-18..30).rev().find(|&number| tick(number) <= value).unwrap_or(-18);
        let (first, last) = (at_most(least.min(most)), at_most(most * 0.999) + 1);
        let scale = Scale { top: SECOND_TOP, low: tick(first), high: tick(last), is_logarithmic: true };
        for number in first..=last {
            self.horizontal(scale.y(tick(number)), &plain(tick(number)));
        }
        self.time_axis(SECOND_TOP);
        self.text(WIDTH - RIGHT, SECOND_TOP + PANEL + 36.0, "end", "note", "seconds since the end of the warm-up");
        for (kind, p50, p99) in &series {
            let colour = COLOURS[kind.index()];
            self.line(&scale, p99, colour, " stroke-dasharray=\"5 5\" stroke-opacity=\"0.75\"");
            self.line(&scale, p50, colour, "");
        }
    }

    /// A title, and what the colours mean.
    fn panel_head(&mut self, top: f64, title: &str, kinds: &[Kind]) {
        self.text(LEFT, top - 14.0, "start", "head", title);
        let begin = WIDTH - RIGHT - LEGEND * kinds.len() as f64;
        for (number, kind) in kinds.iter().enumerate() {
            let x = begin + LEGEND * number as f64;
            let (y, colour) = (top - 20.0, COLOURS[kind.index()]);
            self.add(&format!("<rect x=\"{x}\" y=\"{y}\" width=\"18\" height=\"4\" rx=\"2\" fill=\"{colour}\"/>"));
            self.text(x + 24.0, top - 14.0, "start", "", &kind.to_string());
        }
    }

    fn horizontal(&mut self, y: f64, label: &str) {
        let right = WIDTH - RIGHT;
        self.add(&format!("<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"));
        self.text(LEFT - 8.0, y + 4.0, "end", "", label);
    }

    fn time_axis(&mut self, top: f64) {
        let (bottom, right) = (top + PANEL, WIDTH - RIGHT);
        self.add(&format!("<line class=\"axis\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>"));
        let step = round_step(self.seconds / 8.0);
        for tick in 0..=(self.seconds / step + 1e-9) as u32 {
            let second = step * f64::from(tick);
            let x = self.x(second);
            self.add(&format!(
                "<line class=\"axis\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{bottom}\" y2=\"{}\"/>",
                bottom + 4.0
            ));
            self.text(x, bottom + 18.0, "middle", "", &plain(second));
        }
    }

    fn line(&mut self, scale: &Scale, points: &[(f64, f64)], colour: &str, more: &str) {
        let mut path = String::new();
        for (number, (second, value)) in points.iter().enumerate() {
            let command = if number == 0 { 'M' } else { 'L' };
            write!(path, "{command}{:.1} {:.1}", self.x(*second), scale.y(*value)).expect("a String takes all");
        }
        if points.len() == 1 {
            path.push_str("h0.1"); // a dot
        }
        self.add(&format!("<path class=\"line\" stroke=\"{colour}\"{more} d=\"{path}\"/>"));
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, class: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        self.add(&format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{text}</text>"));
    }

    fn x(&self, second: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * second / self.seconds
    }

    fn add(&mut self, element: &str) {
        self.text.push_str(element);
        self.text.push('\n');
    }

    fn end(mut self) -> String {
        self.add("</svg>");
        self.text
    }
}

/// A value for each interval that has one, at the interval's middle.
fn series(report: &Report, kind: Kind, value: impl Fn(&Measures, Duration) -> Option<f64>) -> Vec<(f64, f64)> {
    let intervals = report.window.intervals().zip(&report.totals.intervals);
    let points = intervals.filter_map(|((begin, length), measures)| {
        let middle = begin + length / 2;
        Some((middle.as_secs_f64(), value(&measures[kind.index()], length)?))
    });
    points.collect()
}

/// The least of 1, 2, 5, 10, 20, ... and their tenths and hundredths that is not below `least`.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.max(1e-3).log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|factor| factor * power).find(|step| *step >= least).unwrap_or(10.0 * power)
}

/// A round number without needless digits.
fn plain(number: f64) -> String {
    let text = format!("{number:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A number with its thousands apart.
fn grouped(number: f64) -> String {
    if number < 100.0 {
        return if number.fract() == 0.0 { plain(number) } else { digits(number) };
    }
    let text = format!("{number:.0}");
    let mut grouped = String::new();
    for (at, digit) in text.chars().enumerate() {
        if at > 0 && (text.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round() {
        for (least, step) in [(1.0, 1.0), (1.1, 2.0), (3.0, 5.0), (7.0, 10.0), (0.03, 0.05), (2_500.0, 5_000.0)] {
            assert!((round_step(least) / step - 1.0_f64).abs() < 1e-9, "{least}: {}", round_step(least));
        }
    }

    #[test]
    fn numbers_are_written_for_readers() {
        let written = |numbers: &[f64]| numbers.iter().map(|number| grouped(*number)).collect::<Vec<_>>().join(" ");
        assert_eq!(
            written(&[0.0, 5.0, 2.5, 99.0, 500.0, 1_000.0, 12_345.6, 1_234_567.0]),
            "0 5 2.50 99 500 1,000 12,346 1,234,567"
        );
        assert_eq!((plain(0.05), plain(10.0), plain(1.5)), ("0.05".into(), "10".into(), "1.5".into()));
    }
}
