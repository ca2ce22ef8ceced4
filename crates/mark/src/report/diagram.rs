//! A failed check as a sequence diagram: each message with its sender, receiver and time, and which arrow is the wrong one. Drawn as SVG.

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
const WIDTH: usize = 1_060;

/// Between the lines of a label that takes several.
const LINE: usize = 14;

/// Where things are in one diagram.
struct Frame {
    column: usize,
    width: usize,
    actors: Vec<String>,
}

impl Frame {
    fn new(actors: Vec<String>) -> Self {
        let columns = actors.len().max(1);
        let column = ((WIDTH - LEFT - 20) / columns).clamp(120, 210);
        Self { column, width: (LEFT + column * columns + 20).max(380), actors }
    }

    fn centre(&self, actor: &str) -> usize {
        let at = self.actors.iter().position(|known| known == actor).unwrap_or(0);
        LEFT + self.column * at + self.column / 2
    }

    /// How many characters a line of the event's label may have. A row holds one label, which may be wider than its arrow,
    /// but not than a telephone.
    fn characters(&self, event: &Event) -> usize {
        let span = self.centre(&event.from).abs_diff(self.centre(&event.to));
        let room = (self.width - LEFT - 30) / CHARACTER;
        (span / CHARACTER).clamp(44, 90).min(room)
    }

    /// Where a label's middle is: over its arrow, as far as all of it is in the picture.
    fn middle(&self, wanted: usize, characters: usize) -> usize {
        let half = characters * CHARACTER / 2;
        wanted.max(LEFT + half).min((self.width - 10).saturating_sub(half).max(LEFT + half))
    }
}

/// The whole diagram: one `svg` element with the actors' names, and one with what they say.
pub fn svg(events: &[Event]) -> String {
    let shown = shown(events, IN_A_FILE);
    let frame = Frame::new(actors(&shown));
    let (width, column) = (frame.width, frame.column);
    let mut heads = String::new();
    let mut arrows = String::new();
    let mut y = 0;
    let mut last_shown_time = String::new();
    for event in &shown {
        let label = label(event, frame.characters(event));
        y += ROW + LINE * (label.len() - 1);
        let time = format!("{:.3}", event.at.as_secs_f64());
        if time != last_shown_time {
            let _ = writeln!(arrows, "<text class=\"time\" x=\"{}\" y=\"{}\">{time}</text>", LEFT - 14, y + 4);
        }
        arrows += &arrow(event, &label, y, &frame);
        last_shown_time = time;
    }
    let height = y + ROW + 10;
    let mut svg = format!(
        "<svg class=\"diagram\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"sequence diagram\">\n"
    );
    for actor in &frame.actors {
        let (x, name, kind) = (frame.centre(actor), escape(actor), kind(actor));
        let (box_left, box_width) = (x - column / 2 + 6, column - 12);
        let _ = writeln!(
            heads,
            "<rect class=\"actor {kind}\" x=\"{box_left}\" y=\"6\" width=\"{box_width}\" height=\"28\" rx=\"6\"/>\
             <text class=\"name\" x=\"{x}\" y=\"25\">{name}</text>",
        );
        let _ = writeln!(svg, "<line class=\"life\" x1=\"{x}\" y1=\"0\" x2=\"{x}\" y2=\"{height}\"/>");
    }
    format!("<svg class=\"diagram heads\" width=\"{width}\" height=\"{HEAD}\">\n{heads}</svg>\n{svg}{arrows}</svg>\n")
}

/// What stands over an arrow. What is wrong is shown whole, on several lines if need be; of the rest, so much as fits
/// on one: the whole is in the tooltip.
fn label(event: &Event, characters: usize) -> Vec<String> {
    if !event.is_wrong {
        return vec![cut(&event.what.text(), characters)];
    }
    let text = event.what.whole_text();
    let mut lines = vec![String::from("✗")];
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        while !word.is_empty() {
            let line = lines.last_mut().expect("one at least");
            let used = line.chars().count();
            if used + 1 + word.len() <= characters {
                line.push(' ');
                line.extend(word.drain(..));
            } else if used > 1 {
                lines.push(String::new());
            } else {
                // A word longer than a line is broken.
                let fits = word.len().min(characters - used - 1);
                line.push(' ');
                line.extend(word.drain(..fits));
            }
        }
    }
    lines
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

fn arrow(event: &Event, label: &[String], y: usize, frame: &Frame) -> String {
    let text = event.what.text();
    let wrong = if event.is_wrong { " wrong" } else { "" };
    let title = format!(
        "<title>{:.3} s, {} → {}: {}</title>",
        event.at.as_secs_f64(),
        escape(&event.from),
        escape(&event.to),
        escape(&text)
    );
    let longest = label.iter().map(|line| line.chars().count()).max().unwrap_or(0);
    let more = LINE * (label.len() - 1);
    let lines = |x: usize, last: usize| -> String {
        let line = |(number, line): (usize, &String)| {
            let y = last - LINE * (label.len() - 1 - number);
            format!("<text x=\"{x}\" y=\"{y}\">{}</text>", escape(line))
        };
        label.iter().enumerate().map(line).collect()
    };
    if event.from == "mark" || event.to == "mark" {
        // A line that no party said: what `mark` looked at, or concludes.
        return format!(
            "<g class=\"band{wrong}\">{title}<rect x=\"{LEFT}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"4\"/>{}</g>\n",
            y - 13 - more,
            frame.width - LEFT - 10,
            20 + more,
            lines(LEFT + 8, y + 1),
        );
    }
    let (from, to) = (frame.centre(&event.from), frame.centre(&event.to));
    if from == to {
        let width = (longest * CHARACTER + 20).max(frame.column - 60);
        let middle = frame.middle(from, longest + 3);
        return format!(
            "<g class=\"note{wrong}\">{title}<rect x=\"{}\" y=\"{}\" width=\"{width}\" height=\"{}\" rx=\"10\"/>{}</g>\n",
            middle.saturating_sub(width / 2),
            y - 13 - more,
            20 + more,
            lines(middle, y + 1),
        );
    }
    let class = match event.what {
        What::Line(_) | What::Bytes(_) => "line",
        What::Content(_) => "content",
        What::Note(_) | What::Starts(_) | What::Connects | What::Leaves => "aside",
    };
    // The head is drawn, not a marker: it takes the arrow's colour everywhere.
    let (tip, back) = if from < to { (to - 2, to - 10) } else { (to + 2, to + 10) };
    format!(
        "<g class=\"{class}{wrong}\">{title}<line x1=\"{from}\" y1=\"{y}\" x2=\"{tip}\" y2=\"{y}\"/>\
         <polygon points=\"{tip},{y} {back},{} {back},{}\"/>{}</g>\n",
        y - 4,
        y + 4,
        lines(frame.middle(from.midpoint(to), longest), y - 5),
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
            connection: None,
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

    #[test]
    fn what_is_wrong_is_shown_whole_however_long() {
        let long = (0..60).map(|number| format!("word{number}")).collect::<Vec<_>>().join(" ") + &"x".repeat(100);
        let event = |is_wrong| Event {
            at: Duration::ZERO,
            connection: None,
            from: "controller".into(),
            to: "client".into(),
            what: What::Line(long.clone()),
            is_wrong,
        };
        let shown = |is_wrong| label(&event(is_wrong), 40);
        assert!(shown(true).iter().all(|line| line.chars().count() <= 40), "{:?}", shown(true));
        let whole: String = shown(true).concat().replace([' ', '✗'], "");
        assert_eq!(whole, long.replace(' ', ""));
        assert_eq!(shown(false).len(), 1);
    }
}
