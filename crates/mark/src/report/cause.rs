//! Failures grouped by cause: what goes wrong once, in a step that many checks take, is told once.
//!
//! A check that is not judged has the cause of the check that its failed step belongs to. Otherwise two failures have one cause if the
//! same part was expected to say the same kind of thing, and the same kind of thing came: file names, numbers and ports do not
//! matter, unless they are all the difference.

use crate::run::{Because, Outcome, Trouble, Verdict};
use crate::scheme::Scheme;

/// Checks that fail, or are not judged, for one cause.
pub struct Group<'a> {
    /// In the checks' order, but the one that shows the cause best comes first.
    pub outcomes: Vec<&'a Outcome>,
    /// The marks that all of them cost together; 0 if none is marked.
    pub costs: f64,
    /// The marks that could not be judged because of it.
    pub open: f64,
}

impl<'a> Group<'a> {
    /// The one that shows the cause best: a failure rather than what it prevents, and the one with the fewest messages.
    pub fn first(&self) -> &'a Outcome {
        self.outcomes[0]
    }

    fn put_the_best_first(&mut self) {
        let rank = |outcome: &Outcome| {
            let messages = outcome.trouble().map_or(0, |trouble| trouble.events.len());
            // One that was not played has no messages, and shows nothing.
            (messages == 0, !matches!(outcome.verdict, Verdict::Fails(_)), messages)
        };
        let best = (0..self.outcomes.len()).min_by_key(|&at| rank(self.outcomes[at])).unwrap_or(0);
        self.outcomes[..=best].rotate_right(1);
    }
}

/// The groups: those that are marked, by what they cost, then those that are not.
pub fn groups<'a>(outcomes: &'a [Outcome], scheme: &Scheme) -> (Vec<Group<'a>>, Vec<Group<'a>>) {
    let (costs, worths) = (scheme.costs(outcomes), scheme.worths(outcomes));
    let mut groups: Vec<(String, bool, Group<'a>)> = Vec::new();
    for (at, outcome) in outcomes.iter().enumerate() {
        let Some(cause) = cause(outcome, outcomes) else { continue };
        let is_marked = scheme.counts(outcome);
        let open = if matches!(outcome.verdict, Verdict::NotJudged { .. }) { worths[at] - costs[at] } else { 0.0 };
        let known = groups.iter().position(|(known, marked, _)| *known == cause && *marked == is_marked);
        let known = known.unwrap_or_else(|| {
            groups.push((cause, is_marked, Group { outcomes: Vec::new(), costs: 0.0, open: 0.0 }));
            groups.len() - 1
        });
        let group = &mut groups[known].2;
        group.outcomes.push(outcome);
        group.costs += costs[at];
        group.open += open;
    }
    groups.iter_mut().for_each(|(.., group)| group.put_the_best_first());
    let (mut marked, mut unmarked): (Vec<_>, Vec<_>) = groups.into_iter().partition(|(_, is_marked, _)| *is_marked);
    marked.sort_by(|(.., a), (.., b)| b.costs.total_cmp(&a.costs).then(b.open.total_cmp(&a.open)));
    unmarked.sort_by_key(|(.., group)| std::cmp::Reverse(group.outcomes.len()));
    let bare = |groups: Vec<(String, bool, Group<'a>)>| groups.into_iter().map(|(.., group)| group).collect();
    (bare(marked), bare(unmarked))
}

/// What an outcome has in common with others of the same cause, unless it passes or was not run.
pub fn cause(outcome: &Outcome, all: &[Outcome]) -> Option<String> {
    let trouble = outcome.trouble()?;
    if let Verdict::NotJudged { because: Because::Step(Some(judge)), .. } = outcome.verdict {
        return Some(format!("see {judge}"));
    }
    let prevents = |other: &Outcome| matches!(&other.verdict, Verdict::NotJudged { because: Because::Step(Some(judge)), .. } if *judge == outcome.check.id);
    match all.iter().any(prevents) {
        true => Some(format!("see {}", outcome.check.id)),
        false => Some(in_general(trouble)),
    }
}

/// What failures of one cause have in common.
fn in_general(trouble: &Trouble) -> String {
    let failure = &trouble.failure;
    let wrong = trouble.events.iter().find(|event| event.is_wrong);
    let parts = wrong.map_or(String::new(), |event| format!("{} to {}", kind(&event.from), kind(&event.to)));
    let (expected, came) = (general(&failure.expected), general(&failure.came));
    match expected == came {
        false => format!("{parts}: {expected}; {came}"),
        true => format!("{parts}: {}; {}", without_numbers(&failure.expected), without_numbers(&failure.came)),
    }
}

/// An actor without its number.
fn kind(actor: &str) -> String {
    without_numbers(actor).trim_end_matches([' ', '#']).to_owned()
}

/// Of every message only its first word, of every number that it is one.
fn general(text: &str) -> String {
    let pieces = text.split('`').enumerate();
    let general = |(at, piece): (usize, &str)| match at % 2 {
        1 => format!("`{}`", piece.split(' ').next().unwrap_or_default()),
        _ => without_numbers(piece),
    };
    pieces.map(general).collect()
}

fn without_numbers(text: &str) -> String {
    let mut general = String::new();
    for c in text.chars() {
        match c {
            '0'..='9' | '.' if general.ends_with('#') => {}
            '0'..='9' => general.push('#'),
            c => general.push(c),
        }
    }
    general
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::failure::Failure;

    fn cause_of(expected: &str, came: &str) -> String {
        in_general(&Trouble { failure: Failure::new(expected, came), events: Vec::new(), printed: Vec::new() })
    }

    #[test]
    fn names_and_numbers_make_no_new_cause() {
        let one = cause_of("a reply to `STORE a 5`", "nothing, for 5.0 s");
        assert_eq!(one, cause_of("a reply to `STORE b 17`", "nothing, for 15.0 s"));
        assert_ne!(one, cause_of("a reply to `LOAD a`", "nothing, for 5.0 s"));
        assert_ne!(one, cause_of("a reply to `STORE a 5`", "the connection was closed"));
    }

    #[test]
    fn what_differs_only_in_its_words_is_told_apart_by_them() {
        assert_ne!(cause_of("`LIST a b`", "`LIST a`"), cause_of("`LIST`", "`LIST a`"));
    }
}
