//! A year as a picture: copies that are missing, and how far shares of used space are apart.

use std::fmt::Write as _;

use crate::world::Outcome;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 24.0;
const PANEL: f64 = 200.0;
const TOPS: [f64; 2] = [80.0, 350.0];
const HEIGHT: f64 = 600.0;

/// They can be told apart in print, and by people who see colours differently (Okabe and Ito).
const COLOURS: [&str; 4] = ["#d55e00", "#0072b2", "#cc79a7", "#009e73"];

/// One diagram: a line for each run, and what is written at its left edge.
struct Panel {
    title: &'static str,
    lines: Vec<Vec<(f64, f64)>>,
    ticks: Vec<(f64, String)>,
}

/// Draws it, as SVG.
pub fn draw(runs: &[(String, Outcome)]) -> String {
    let mut svg = String::new();
    let days = runs.iter().map(|(_, outcome)| outcome.days).fold(1.0, f64::max);
    let x = |day: f64| LEFT + day / days * (WIDTH - LEFT - RIGHT);
    let mut put = |text: String| svg.push_str(&text);
    put(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\">\n"
    ));
    put(format!("<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"));
    let mut legend = LEFT;
    for ((name, _), colour) in runs.iter().zip(COLOURS) {
        put(format!("<rect x=\"{legend}\" y=\"18\" width=\"12\" height=\"12\" fill=\"{colour}\"/>"));
        put(format!("<text x=\"{}\" y=\"29\">{name}</text>\n", legend + 18.0));
        legend += 200.0;
    }
    let missing = |value: u64| (value.max(1) as f64).log10();
    let panels = [
        Panel {
            title: "Copies missing on disks, the most of each day",
            lines: runs.iter().map(|(_, outcome)| daily(outcome, |(_, count, _)| missing(*count))).collect(),
            ticks: (0..=5).map(|power| (f64::from(power), format!("{}", 10_u64.pow(power as u32)))).collect(),
        },
        Panel {
            title: "Points between the fullest and the emptiest disk, the most of each day",
            lines: runs.iter().map(|(_, outcome)| daily(outcome, |(.., apart)| *apart)).collect(),
            ticks: (0..=6).map(|step| (f64::from(step) * 10.0, format!("{}", step * 10))).collect(),
        },
    ];
    for (Panel { title, lines, ticks }, top) in panels.into_iter().zip(TOPS) {
        let most = ticks.last().map_or(1.0, |(value, _)| *value);
        let y = |value: f64| top + PANEL - value.min(most) / most * PANEL;
        put(format!("<text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{title}</text>\n", top - 12.0));
        for (value, label) in ticks {
            let at = y(value);
            put(format!("<path d=\"M{LEFT} {at:.1}H{}\" stroke=\"#ddd\"/>", WIDTH - RIGHT));
            put(format!("<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>\n", LEFT - 8.0, at + 4.0));
        }
        for (line, colour) in lines.into_iter().zip(COLOURS) {
            let mut path = String::new();
            for (at, (day, value)) in line.into_iter().enumerate() {
                let verb = if at == 0 { 'M' } else { 'L' };
                write!(path, "{verb}{:.1} {:.1}", x(day), y(value)).expect("a String takes all");
            }
            put(format!("<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>\n"));
        }
        for month in 0..=12 {
            let day = f64::from(month) * days / 12.0;
            let (at, bottom) = (x(day), top + PANEL + 18.0);
            put(format!("<text x=\"{at:.1}\" y=\"{bottom}\" text-anchor=\"middle\">{day:.0}</text>"));
        }
    }
    put(format!("\n<text x=\"{}\" y=\"{}\" text-anchor=\"end\">day</text>\n</svg>\n", WIDTH - RIGHT, HEIGHT - 8.0));
    svg
}

/// The most of each day.
fn daily(outcome: &Outcome, value: impl Fn(&(f64, u64, f64)) -> f64) -> Vec<(f64, f64)> {
    let days = outcome.samples.chunk_by(|one, other| one.0.floor() == other.0.floor());
    days.map(|day| (day[0].0.floor(), day.iter().map(&value).fold(0.0, f64::max))).collect()
}
