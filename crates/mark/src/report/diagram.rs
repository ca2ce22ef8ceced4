//! A failed check as a sequence diagram: who said what to whom, when, and which arrow is the wrong one. Drawn as SVG.

use std::fmt::Write;

use super::junit::escape;
use super::{IN_A_FILE, shown};
use crate::stage::recorder::{Event, What};

const LEFT: usize = 74;
/// Of the actors' names, which stay in sight when the rest is scrolled.
const HEAD: usize = 40;
const ROW: usize = 26;

/// How wide a character of a label is taken to be.
const CHARACTER: usize = 7;

/// How wide a diagram may be before it has to be scrolled sideways.
const WIDTH: usize = 1_120;

/// The whole diagram: one `svg` element with the actors' names, and one with what they say.
pub fn svg(events: &[Event]) -> String {
    let shown = shown(events, IN_A_FILE);
    let actors = actors(&shown);
    let column = ((WIDTH - LEFT - 20) / actors.len().max(1)).clamp(150, 250);
    let (width, height) = (LEFT + column * actors.len().max(1) + 20, ROW * (shown.len() + 1) + 10);
    let centre = |actor: &str| {
        let at = actors.iter().position(|known| known == actor).unwrap_or(0);
        LEFT + column * at + column / 2
    };
    let mut heads = String::new();
    let mut svg = format!(
        "<svg class=\"diagram\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"sequence diagram\">\n"
    );
    for actor in &actors {
        let (x, name, kind) = (centre(actor), escape(actor), kind(actor));
        let (box_left, box_width) = (x - column / 2 + 8, column - 16);
        let _ = writeln!(
            heads,
            "<rect class=\"actor {kind}\" x=\"{box_left}\" y=\"6\" width=\"{box_width}\" height=\"28\" rx=\"6\"/>\
             <text class=\"name\" x=\"{x}\" y=\"25\">{name}</text>",
        );
        let _ = writeln!(svg, "<line class=\"life\" x1=\"{x}\" y1=\"0\" x2=\"{x}\" y2=\"{height}\"/>");
    }
    let mut last_shown_time = String::new();
    for (row, event) in shown.iter().enumerate() {
        let y = ROW * (row + 1);
        let time = format!("{:.3}", event.at.as_secs_f64());
        if time != last_shown_time {
            let _ = writeln!(svg, "<text class=\"time\" x=\"{}\" y=\"{}\">{time}</text>", LEFT - 14, y + 4);
        }
        svg += &arrow(event, y, column, width, &centre);
        last_shown_time = time;
    }
    format!("<svg class=\"diagram heads\" width=\"{width}\" height=\"{HEAD}\">\n{heads}</svg>\n{svg}</svg>\n")
}

/// Clients, the Controller, Dstores: each as it appears, from left to right.
fn actors(events: &[&Event]) -> Vec<String> {
    let mut actors: Vec<String> = Vec::new();
    for name in events.iter().flat_map(|event| [&event.from, &event.to]) {
        if !actors.contains(name) && name != "mark" {
            actors.push(name.clone());
        }
    }
    // Stable: within a kind the order is that of appearance.
    actors.sort_by_key(|actor| match kind(actor) {
        "client" => 0,
        "controller" => 1,
        _ => 2,
    });
    actors
}

fn kind(actor: &str) -> &'static str {
    match actor {
        "controller" => "controller",
        _ if actor.contains("dstore") || actor == "newer" => "dstore",
        _ => "client",
    }
}

fn arrow(event: &Event, y: usize, column: usize, width: usize, centre: &impl Fn(&str) -> usize) -> String {
    let text = event.what.text();
    let wrong = if event.is_wrong { " wrong" } else { "" };
    let title = format!(
        "<title>{:.3} s, {} → {}: {}</title>",
        event.at.as_secs_f64(),
        escape(&event.from),
        escape(&event.to),
        escape(&text)
    );
    if event.from == "mark" || event.to == "mark" {
        // Nobody's line: what `mark` looked at, or concludes.
        let fits = (width - LEFT - 24) / CHARACTER;
        return format!(
            "<g class=\"band{wrong}\">{title}<rect x=\"{LEFT}\" y=\"{}\" width=\"{}\" height=\"20\" rx=\"4\"/>\
             <text x=\"{}\" y=\"{}\">{}</text></g>\n",
            y - 13,
            width - LEFT - 20,
            LEFT + 10,
            y + 1,
            escape(&cut(&text, fits)),
        );
    }
    let (from, to) = (centre(&event.from), centre(&event.to));
    if from == to {
        return format!(
            "<g class=\"note{wrong}\">{title}<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"20\" rx=\"10\"/>\
             <text x=\"{from}\" y=\"{}\">{}</text></g>\n",
            from - column / 2 + 30,
            y - 13,
            column - 60,
            y + 1,
            escape(&cut(&text, (column - 70) / CHARACTER)),
        );
    }
    let class = match event.what {
        What::Line(_) => "line",
        What::Content(_) => "content",
        What::Note(_) => "aside",
    };
    // The head is drawn, not a marker: it takes the arrow's colour everywhere.
    let (tip, back) = if from < to { (to - 2, to - 10) } else { (to + 2, to + 10) };
    let fits = from.abs_diff(to).saturating_sub(16) / CHARACTER;
    let mark = if event.is_wrong { "✗ " } else { "" };
    format!(
        "<g class=\"{class}{wrong}\">{title}<line x1=\"{from}\" y1=\"{y}\" x2=\"{tip}\" y2=\"{y}\"/>\
         <polygon points=\"{tip},{y} {back},{} {back},{}\"/>\
         <text x=\"{}\" y=\"{}\">{mark}{}</text></g>\n",
        y - 4,
        y + 4,
        from.midpoint(to),
        y - 5,
        escape(&cut(&text, fits.saturating_sub(mark.len()))),
    )
}

/// So much of a text as fits; the whole is in the tooltip.
fn cut(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some(_) => text.chars().take(characters.saturating_sub(1)).chain(['…']).collect(),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_diagram_has_every_actor_and_marks_the_wrong_arrow() {
        let event = |from: &str, to: &str, line: &str, is_wrong| Event {
            at: Duration::from_millis(5),
            from: from.into(),
            to: to.into(),
            what: What::Line(line.into()),
            is_wrong,
        };
        let events =
            [event("dstore 1", "controller", "JOIN 1", false), event("controller", "client", "LIST <a> & b", true)];
        let svg = svg(&events);
        let boxes: Vec<usize> = ["client", "controller", "dstore 1"]
            .map(|actor| svg.find(&format!(">{actor}</text>")).expect(actor))
            .into();
        assert!(boxes.is_sorted(), "clients, the Controller, Dstores");
        assert_eq!(svg.matches("wrong").count(), 1);
        assert!(svg.contains("LIST &lt;a&gt; &amp; b") && !svg.contains("<a>"));
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    }
}
