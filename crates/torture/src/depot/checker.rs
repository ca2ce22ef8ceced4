//! Whether one order of all operations explains what every client saw. (depot 1.2)
//!
//! The store itself names the order: each change has a number, which the client is told, and `watch` tells all of them.
//! So nothing needs to be searched. The checker plays the changes in this order on a map of its own and demands that
//!
//! - every acknowledged change is among them, under the number that the client was told, and every other one is a change
//!   whose outcome its client does not know;
//! - each finds what it asked for: a move its source, a put with a condition the version that it named;
//! - a change that began after another was acknowledged has the larger number;
//! - whatever a client saw was so at some time while it waited for the answer, and no client saw a state that is older than
//!   one that was seen before it asked.
//!
//! Where two changes whose outcomes are not known look the same to `watch`, the file may have the content of either, until
//! a reader sees which.

use std::collections::{BTreeMap, HashMap};

use depot::client::ChangeEvent;

use super::history::{Change, Content, Look, Made, Name, Outcome, Seen, Sequence, Sight, Wanted, Wrong, name_of};

/// A file, as the checker knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct File {
    /// What it may have.
    contents: Vec<Content>,
    version: Sequence,
    changed: Sequence,
}

impl File {
    fn is_like(&self, look: &Look) -> bool {
        self.contents.contains(&look.content) && (self.version, self.changed) == (look.version, look.changed)
    }
}

type State = BTreeMap<Name, File>;

/// What the checker knows of the store.
#[derive(Default)]
pub struct Checker {
    state: State,
    /// The last change that was played.
    last: Sequence,
    /// Changes that may still come.
    unknown: Vec<Change>,
    /// How many observations were explained.
    pub checked: u64,
}

impl Checker {
    /// Plays the changes behind the last one, and explains what was seen meanwhile. All operations have ended.
    pub fn check(&mut self, made: &[Made], seen: &[Seen], events: &[ChangeEvent]) -> Result<(), Wrong> {
        let mut acknowledged = HashMap::new();
        for change in made {
            match change.outcome {
                Outcome::Done(sequence) => {
                    if let Some(other) = acknowledged.insert(sequence, change) {
                        return Err(format!("two changes have the number {sequence}: {other:?} and {change:?}"));
                    }
                }
                Outcome::Unknown => self.unknown.push(change.change.clone()),
                Outcome::NotDone => {}
            }
        }
        let mut states = vec![(self.last, self.state.clone())];
        for event in events {
            let sequence = event.version.sequence;
            let names: Option<Vec<Name>> = event.paths.iter().map(|path| name_of(path.as_str())).collect();
            let told = (event.verb.as_str(), names.ok_or_else(|| format!("a change that no client made: {event:?}"))?);
            if sequence <= self.last {
                return Err(format!("change {sequence} is told after change {}", self.last));
            }
            match acknowledged.remove(&sequence) {
                Some(made) if made.change.event() == told => self.play(sequence, std::slice::from_ref(&made.change))?,
                Some(made) => {
                    return Err(format!("change {sequence} was acknowledged as {made:?}, and is told as {event:?}"));
                }
                None => {
                    let alike: Vec<Change> =
                        self.unknown.iter().filter(|change| change.event() == told).cloned().collect();
                    let Some(first) = alike.first() else {
                        return Err(format!("a change that no client made, or was told to have failed: {event:?}"));
                    };
                    self.play(sequence, &alike)?;
                    // One of them it was. Which one matters only for the content, and others like it may come.
                    if alike.len() == 1 {
                        let at = self.unknown.iter().position(|change| change == first);
                        self.unknown.remove(at.expect("it is in there"));
                    }
                }
            }
            self.last = sequence;
            states.push((sequence, self.state.clone()));
        }
        if let Some((sequence, lost)) = acknowledged.iter().min_by_key(|(sequence, _)| **sequence) {
            return Err(format!("change {sequence} was acknowledged, and is lost: {lost:?}"));
        }
        in_the_order_of_time(made)?;
        self.explain(made, seen, &states)
    }

    /// What the store must have now.
    pub fn files(&self) -> BTreeMap<Name, Vec<Content>> {
        self.state.iter().map(|(name, file)| (*name, file.contents.clone())).collect()
    }

    /// One of these changes has happened; they differ in nothing but content.
    fn play(&mut self, sequence: Sequence, alike: &[Change]) -> Result<(), Wrong> {
        let change = &alike[0];
        let impossible = |why: &str| format!("change {sequence} has happened, {change:?}, though {why}");
        let new = |contents: Vec<Content>| File { contents, version: sequence, changed: sequence };
        let is_sure = alike.len() == 1;
        match change {
            Change::Put(name, _, wanted) => {
                let there = self.state.get(name);
                match wanted {
                    Wanted::Absent if is_sure && there.is_some() => return Err(impossible("the name is taken")),
                    Wanted::Version(version) if is_sure && there.is_none_or(|file| file.version != *version) => {
                        return Err(impossible(&format!("it has {there:?}")));
                    }
                    _ => {}
                }
                self.state.insert(*name, new(contents_of(alike)));
            }
            Change::Move(from, to) => {
                let file = self.state.remove(from).ok_or_else(|| impossible("nothing was there to be moved"))?;
                self.state.insert(*to, File { changed: sequence, ..file });
            }
            Change::Copy(from, to) => {
                let file = self.state.get(from).ok_or_else(|| impossible("nothing was there to be copied"))?;
                let contents = file.contents.clone();
                self.state.insert(*to, new(contents));
            }
            Change::Remove(name) => {
                self.state.remove(name).ok_or_else(|| impossible("nothing was there to be removed"))?;
            }
            Change::Compose { target, sources, removes, .. } => {
                for (name, version) in sources.iter().filter(|_| is_sure) {
                    if self.state.get(name).is_none_or(|file| file.version != *version) {
                        return Err(impossible("a source has another version"));
                    }
                }
                if *removes && is_sure {
                    sources.iter().for_each(|(name, _)| drop(self.state.remove(name)));
                }
                self.state.insert(*target, new(contents_of(alike)));
            }
        }
        Ok(())
    }

    /// Finds a time for each observation, and does not go back in time.
    fn explain(&mut self, made: &[Made], seen: &[Seen], states: &[(Sequence, State)]) -> Result<(), Wrong> {
        let done = |made: &Made| match made.outcome {
            Outcome::Done(sequence) => Some(sequence),
            _ => None,
        };
        let mut by_end: Vec<_> = made.iter().filter_map(|made| Some((made.end, done(made)?))).collect();
        by_end.sort_unstable();
        let mut by_begin: Vec<_> = made.iter().filter_map(|made| Some((made.begin, done(made)?))).collect();
        by_begin.sort_unstable();
        // The smallest number of those that begin then or later.
        let mut least = u64::MAX;
        for (_, sequence) in by_begin.iter_mut().rev() {
            least = least.min(*sequence);
            *sequence = least;
        }
        let mut seen: Vec<&Seen> = seen.iter().collect();
        seen.sort_by_key(|seen| seen.begin);
        // What is known to be over, in the order of its end: changes, then observations as they get their times.
        let mut over = 0;
        let mut floor = states.first().map_or(0, |(sequence, _)| *sequence);
        let mut placed: Vec<(std::time::Duration, Sequence)> = Vec::new();
        for seen in seen {
            while let Some((_, sequence)) = by_end.get(over).filter(|(end, _)| *end <= seen.begin) {
                floor = floor.max(*sequence);
                over += 1;
            }
            let earlier = placed.iter().filter(|(end, _)| *end <= seen.begin).map(|(_, at)| *at).max().unwrap_or(0);
            let from = floor.max(earlier);
            let next = by_begin.partition_point(|(begin, _)| *begin < seen.end);
            let before = by_begin.get(next).map_or(u64::MAX, |(_, sequence)| *sequence);
            let first = states.partition_point(|(sequence, _)| *sequence <= from).saturating_sub(1);
            let possible = states[first..].iter().take_while(|(sequence, _)| *sequence < before);
            let Some((at, _)) = possible.clone().find(|(_, state)| is_so(&seen.sight, state)) else {
                let name = match &seen.sight {
                    Sight::File(name, _) | Sight::Taken(name) | Sight::NotVersion(name, _) => Some(name),
                    Sight::All(_) | Sight::AnyNotVersion(_) => None,
                };
                let had: Vec<_> = possible.map(|(at, state)| (at, name.map(|name| state.get(name)))).take(20).collect();
                return Err(format!(
                    "no time explains what a client saw: {seen:?}\n  between changes {from} and {before} it had {had:?}"
                ));
            };
            // Those that ended long ago are summed up, so that looking stays cheap.
            placed.push((seen.end, from.max(*at)));
            if placed.len() > 256 {
                let settled = |(end, _): &(std::time::Duration, Sequence)| *end <= seen.begin;
                floor = placed.iter().filter(|placed| settled(placed)).map(|(_, at)| *at).fold(floor, u64::max);
                placed.retain(|placed| !settled(placed));
            }
            self.checked += 1;
        }
        Ok(())
    }
}

fn contents_of(alike: &[Change]) -> Vec<Content> {
    let content = |change: &Change| match change {
        Change::Put(_, content, _) | Change::Compose { content, .. } => Some(*content),
        _ => None,
    };
    let mut contents: Vec<Content> = alike.iter().filter_map(content).collect();
    contents.sort_unstable();
    contents.dedup();
    contents
}

/// A change that began after another was acknowledged has the larger number.
fn in_the_order_of_time(made: &[Made]) -> Result<(), Wrong> {
    let number = |made: &&Made| match made.outcome {
        Outcome::Done(sequence) => Some(sequence),
        _ => None,
    };
    let mut by_end: Vec<_> = made.iter().filter(|made| number(made).is_some()).collect();
    let mut by_begin = by_end.clone();
    by_end.sort_by_key(|made| made.end);
    by_begin.sort_by_key(|made| made.begin);
    let mut over = by_end.into_iter().peekable();
    let mut last: Option<&Made> = None;
    for made in by_begin {
        while let Some(ended) = over.next_if(|ended| ended.end <= made.begin) {
            if last.is_none_or(|last| number(&last) < number(&ended)) {
                last = Some(ended);
            }
        }
        if let Some(last) = last.filter(|last| number(last) > number(&made)) {
            return Err(format!("a change was acknowledged before another began, and comes later: {last:?}, {made:?}"));
        }
    }
    Ok(())
}

fn is_so(sight: &Sight, state: &State) -> bool {
    let has_version = |name, version| state.get(name).is_some_and(|file| file.version == version);
    match sight {
        Sight::File(name, None) => !state.contains_key(name),
        Sight::File(name, Some(look)) => state.get(name).is_some_and(|file| file.is_like(look)),
        Sight::All(looks) => {
            looks.len() == state.len()
                && looks.iter().all(|(name, look)| state.get(name).is_some_and(|file| file.is_like(look)))
        }
        Sight::Taken(name) => state.contains_key(name),
        Sight::NotVersion(name, version) => !has_version(name, *version),
        Sight::AnyNotVersion(all) => all.iter().any(|(name, version)| !has_version(name, *version)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use depot::identity::{History, Version};

    use super::super::history::path_of;
    use super::*;

    const A: Content = Content { size: 1, checksum: 10 };
    const B: Content = Content { size: 2, checksum: 20 };

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn done(begin: u64, end: u64, change: Change, sequence: Sequence) -> Made {
        Made { begin: at(begin), end: at(end), change, outcome: Outcome::Done(sequence) }
    }

    fn unknown(begin: u64, end: u64, change: Change) -> Made {
        Made { begin: at(begin), end: at(end), change, outcome: Outcome::Unknown }
    }

    fn put(name: Name, content: Content) -> Change {
        Change::Put(name, content, Wanted::Anything)
    }

    fn event(sequence: Sequence, change: &Change) -> ChangeEvent {
        let (verb, names) = change.event();
        ChangeEvent {
            version: Version { history: History(1), sequence },
            now_ms: 0,
            verb: verb.into(),
            paths: names.into_iter().map(path_of).collect(),
        }
    }

    fn saw(begin: u64, end: u64, look: Option<(Content, Sequence, Sequence)>) -> Seen {
        let look = look.map(|(content, version, changed)| Look { content, version, changed });
        Seen { begin: at(begin), end: at(end), sight: Sight::File(1, look) }
    }

    /// Whether an order explains these changes of names 1 and 2, and what was seen of name 1.
    fn check(made: &[Made], seen: &[Seen], events: &[ChangeEvent]) -> Result<(), Wrong> {
        Checker::default().check(made, seen, events)
    }

    #[test]
    fn what_was_so_meanwhile_is_explained_and_nothing_else() {
        let (first, second) = (put(1, A), Change::Move(1, 2));
        let made = [done(10, 20, first.clone(), 5), done(30, 40, second.clone(), 6)];
        let events = [event(5, &first), event(6, &second)];
        let table = [
            (saw(0, 9, None), true),
            (saw(0, 9, Some((A, 5, 5))), false), // from the future
            (saw(0, 15, Some((A, 5, 5))), true),
            (saw(15, 16, None), true),
            (saw(21, 25, None), false), // it was acknowledged
            (saw(21, 25, Some((A, 5, 5))), true),
            (saw(21, 25, Some((B, 5, 5))), false),
            (saw(21, 25, Some((A, 5, 6))), false),
            (saw(35, 36, None), true),
            (saw(35, 36, Some((A, 5, 5))), true),
            (saw(41, 50, Some((A, 5, 5))), false), // it has moved
        ];
        for (seen, is_explained) in table {
            let result = check(&made, std::slice::from_ref(&seen), &events);
            assert_eq!(result.is_ok(), is_explained, "{seen:?}: {result:?}");
        }
    }

    #[test]
    fn nobody_sees_an_older_state_than_one_seen_before() {
        let first = put(1, A);
        let made = [done(10, 100, first.clone(), 5)];
        let both = |earlier, later| check(&made, &[earlier, later], &[event(5, &first)]);
        assert!(both(saw(20, 30, None), saw(40, 50, Some((A, 5, 5)))).is_ok());
        assert!(both(saw(20, 30, Some((A, 5, 5))), saw(40, 50, None)).is_err(), "it went back");
        assert!(both(saw(20, 45, Some((A, 5, 5))), saw(40, 50, None)).is_ok(), "they overlap");
    }

    #[test]
    fn acknowledged_changes_are_all_there_once_and_in_order() {
        let (first, second) = (put(1, A), put(1, B));
        let made = [done(10, 20, first.clone(), 5), done(30, 40, second.clone(), 6)];
        assert!(check(&made, &[], &[event(5, &first), event(6, &second)]).is_ok());
        assert!(check(&made, &[], &[event(5, &first)]).is_err(), "one is lost");
        assert!(check(&made[..1], &[], &[event(5, &first), event(6, &second)]).is_err(), "one comes from nowhere");
        assert!(check(&made, &[], &[event(5, &first), event(6, &Change::Remove(1))]).is_err(), "it is another one");
        let swapped = [done(10, 20, first.clone(), 6), done(30, 40, second.clone(), 5)];
        assert!(check(&swapped, &[], &[event(5, &second), event(6, &first)]).is_err(), "the later one comes first");
        let twice = [done(10, 20, first.clone(), 5), done(11, 21, second, 5)];
        assert!(check(&twice, &[], &[event(5, &first)]).is_err(), "one number for two");
    }

    #[test]
    fn a_change_finds_what_it_asked_for() {
        let sources = vec![(1, 5)];
        let compose = Change::Compose { target: 2, content: A, sources, removes: true };
        for change in [Change::Move(1, 2), Change::Copy(1, 2), Change::Remove(1), compose] {
            let there = [done(1, 2, put(1, A), 5), done(3, 4, change.clone(), 6)];
            assert!(check(&there, &[], &[event(5, &put(1, A)), event(6, &change)]).is_ok(), "{change:?}");
            let missing = [done(3, 4, change.clone(), 6)];
            assert!(check(&missing, &[], &[event(6, &change)]).is_err(), "{change:?}");
        }
        let conditional = [
            (Change::Put(1, B, Wanted::Absent), false),
            (Change::Put(2, B, Wanted::Absent), true),
            (Change::Put(1, B, Wanted::Version(5)), true),
            (Change::Put(1, B, Wanted::Version(4)), false),
        ];
        for (change, is_possible) in conditional {
            let made = [done(1, 2, put(1, A), 5), done(3, 4, change.clone(), 6)];
            let result = check(&made, &[], &[event(5, &put(1, A)), event(6, &change)]);
            assert_eq!(result.is_ok(), is_possible, "{change:?}");
        }
    }

    #[test]
    fn a_change_of_unknown_outcome_may_happen_late_or_never() {
        let mut checker = Checker::default();
        let change = put(1, A);
        checker.check(&[unknown(1, 2, change.clone())], &[saw(3, 4, None)], &[]).unwrap();
        checker.check(&[], &[saw(10, 11, None), saw(12, 13, Some((A, 5, 5)))], &[event(5, &change)]).unwrap();
        assert!(checker.check(&[], &[], &[event(6, &change)]).is_err(), "not twice");
        // Of two that look the same to a watch, it may be either.
        let made = [unknown(1, 2, put(1, A)), unknown(1, 2, put(1, B))];
        for content in [A, B] {
            check(&made, &[saw(3, 4, Some((content, 5, 5)))], &[event(5, &put(1, A))]).unwrap();
        }
    }
}
