//! Decides whether a history fits the index of spec 3: whether some order of what the Controller may have done explains
//! everything that every client was told, and when.
//!
//! Each name is a register of its own: absent, *store in progress*, *store complete* with some content, *remove in
//! progress*. A STORE and a REMOVE are not instants but two steps each, begin and end, and between them others can see
//! that the name is taken (spec 3.2). An operation of unknown outcome may have taken none of its steps, or the first,
//! or both. Once the Controller must have ended it (spec 2.7, 7.28), no further step is possible. Only the removal of a
//! file that is *remove in progress* may come at any later time (spec 4.4). Every other answer says something about the
//! state at one instant between request and answer.
//!
//! **The algorithm** is Lowe's just-in-time linearisation ("Testing for linearizability", 2017). It carries all
//! possible situations along through time. Where an operation ends, it tries every order of the steps that are still
//! possible, and drops the situations in which the operation cannot have got its answer. If none is left, nothing
//! explains the history. It also drops a situation that leaves the same state as another, with less seen and more used
//! up. This keeps them few, however many outcomes are unknown. It works while the history comes, so that a run may take
//! a day.
//!
//! **Why no published checker:** `stateright`'s tester allows a thread one open operation, searches by plain recursion, and
//! wants the whole history at once; `todc-utils` panics on an operation without an answer; `porcupine` is written in Go; and
//! all take an operation for one step of a deterministic object, where ours has two and may stop between them.
//!
//! **Where it is weak:** a LIST is checked name by name, not as one instant for all of them. ERROR_LOAD is let through
//! wherever the file was complete. A LOAD may be offered one file on a Dstore and find there the content of the next
//! file of that name, if that store began during the LOAD. This is let through if the sizes are the same, as the
//! protocol cannot tell the two apart.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

use crate::history::{Content, Name, Operation, Outcome, Request};

/// The most situations carried along for one name before the checker says that it cannot tell.
const MOST_SITUATIONS: usize = 100_000;

/// How many operations of a counter-example are printed.
const SHOWN: usize = 60;

/// Checks a history that comes in pieces.
pub struct Checker {
    registers: Vec<Register>,
    /// How long the Controller may still take steps of an operation after the client has given it up.
    settle: Duration,
    /// Operations looked at, one for each name they concern.
    pub checked: u64,
}

/// A history that nothing explains.
#[derive(Clone, Debug)]
pub struct CounterExample {
    /// The name that the history is about.
    pub name: Name,
    /// What was possible when the window began.
    pub before: Vec<String>,
    /// The operations since the name's state was last certain, the one that nothing explains last.
    pub window: Vec<Operation>,
    /// What the name's state could have been then.
    pub states: Vec<String>,
}

impl fmt::Display for CounterExample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "nothing explains what clients were told of {}:", crate::workload::file_name(self.name))?;
        writeln!(f, "  at first: {}", self.before.join(" or "))?;
        let unshown = self.window.len().saturating_sub(SHOWN);
        if unshown > 0 {
            writeln!(f, "  ({unshown} operations that began earlier are not shown)")?;
        }
        for operation in &self.window[unshown..] {
            writeln!(f, "  {operation}")?;
        }
        write!(f, "  before the last of these it could be: {}", self.states.join(" or "))
    }
}

impl Checker {
    /// For so many names, all of them absent.
    pub fn new(names: usize, settle: Duration) -> Self {
        Self { registers: (0..names).map(Register::new).collect(), settle, checked: 0 }
    }

    /// Takes the next piece, of operations that have ended. All that begin later must come in a later piece.
    ///
    /// `now` is later than any of them; operations of unknown outcome are settled if it is late enough.
    pub fn check(&mut self, operations: &[Operation], now: Duration) -> Result<(), Box<CounterExample>> {
        for name in 0..self.registers.len() {
            let mine = operations.iter().filter_map(|operation| Some((operation, Step::of(operation, name)?)));
            let (settle, register) = (self.settle, &mut self.registers[name]);
            self.checked += register.check(mine, settle, now)?;
        }
        Ok(())
    }
}

/// What an operation says of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Store { content: Content, end: StoreEnd },
    Remove { is_known: bool },
    Load(Content),
    See(Sight),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StoreEnd {
    Complete,
    Unknown,
    /// It may begin; it cannot complete.
    Incomplete,
}

/// What an answer says of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    /// Not absent. (spec 3.2: the name is taken)
    Taken,
    /// Complete.
    Visible,
    /// Anything but complete.
    Hidden,
}

impl Step {
    /// `None` where it says nothing.
    fn of(operation: &Operation, name: Name) -> Option<Self> {
        let step = match (&operation.request, &operation.outcome) {
            (Request::Store(of, content), outcome) if *of == name => {
                let content = *content;
                match outcome {
                    Outcome::Stored => Self::Store { content, end: StoreEnd::Complete },
                    Outcome::Unknown { .. } => Self::Store { content, end: StoreEnd::Unknown },
                    Outcome::Incomplete { .. } => Self::Store { content, end: StoreEnd::Incomplete },
                    Outcome::AlreadyExists => Self::See(Sight::Taken),
                    _ => return None,
                }
            }
            (Request::Remove(of), outcome) if *of == name => match outcome {
                Outcome::Removed => Self::Remove { is_known: true },
                Outcome::Unknown { .. } => Self::Remove { is_known: false },
                Outcome::DoesNotExist => Self::See(Sight::Hidden),
                _ => return None,
            },
            (Request::Load(of), outcome) if *of == name => match outcome {
                Outcome::Loaded(content) => Self::Load(*content),
                Outcome::LoadFailed => Self::See(Sight::Visible),
                Outcome::DoesNotExist => Self::See(Sight::Hidden),
                _ => return None,
            },
            (Request::List, Outcome::Listed(names)) => {
                Self::See(if names[name] { Sight::Visible } else { Sight::Hidden })
            }
            _ => return None,
        };
        Some(step)
    }

    /// Whether the client knows that it is over.
    fn is_over_at_end(self) -> bool {
        !matches!(
            self,
            Self::Store { end: StoreEnd::Unknown | StoreEnd::Incomplete, .. } | Self::Remove { is_known: false }
        )
    }
}

/// The operations that are open at the same time are numbered, and the numbers used again.
type Slot = usize;
type Slots = u128;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    Absent,
    Storing(Slot),
    Stored(Content),
    /// By a remove that is known to complete. `None`: by one that is not, so that the end may come at any time.
    Removing(Option<Slot>),
}

/// What may have happened so far to the open operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Past {
    /// Stores and removes that have begun.
    begun: Slots,
    /// Operations that have got their answer.
    done: Slots,
    /// Loads that were offered another file of the same size.
    misled: Slots,
}

impl Past {
    /// Everything that can still happen after `other` can happen after this.
    fn allows_all_of(self, other: Self) -> bool {
        self.begun & !other.begun == 0 && other.done & !self.done == 0 && other.misled & !self.misled == 0
    }
}

/// Situations, without those that allow only what another one allows, too.
#[derive(Default)]
struct Situations {
    by_state: HashMap<State, Vec<Past>>,
    len: usize,
}

impl Situations {
    fn insert(&mut self, state: State, past: Past) -> bool {
        let pasts = self.by_state.entry(state).or_default();
        if pasts.iter().any(|other| other.allows_all_of(past)) {
            return false;
        }
        let before = pasts.len();
        pasts.retain(|other| !past.allows_all_of(*other));
        self.len -= before - pasts.len();
        pasts.push(past);
        self.len += 1;
        true
    }

    fn iter(&self) -> impl Iterator<Item = (State, Past)> {
        self.by_state.iter().flat_map(|(state, pasts)| pasts.iter().map(|past| (*state, *past)))
    }
}

/// One name.
struct Register {
    name: Name,
    situations: Situations,
    open: HashMap<Slot, Step>,
    /// When the open removes of unknown outcome settle: of those that could take a step it may as well be the first.
    removes: BTreeSet<(Duration, Slot)>,
    /// Open operations of unknown outcome, and when they settle.
    unsettled: Vec<(Duration, Slot)>,
    /// What has happened since the state was last certain, for the counter-example.
    window: Vec<Operation>,
    before: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Edge {
    Begin,
    End,
    Settle,
}

impl Register {
    fn new(name: Name) -> Self {
        let mut situations = Situations::default();
        situations.insert(State::Absent, Past { begun: 0, done: 0, misled: 0 });
        Self {
            name,
            situations,
            open: HashMap::new(),
            removes: BTreeSet::new(),
            unsettled: Vec::new(),
            window: Vec::new(),
            before: vec!["absent".to_owned()],
        }
    }

    fn check<'a>(
        &mut self,
        operations: impl Iterator<Item = (&'a Operation, Step)>,
        settle: Duration,
        now: Duration,
    ) -> Result<u64, Box<CounterExample>> {
        let operations: Vec<_> = operations.collect();
        let mut edges = Vec::with_capacity(2 * operations.len());
        for (number, (operation, step)) in operations.iter().enumerate() {
            edges.push((operation.begin, Edge::Begin, number));
            edges.push(match step.is_over_at_end() {
                true => (operation.end, Edge::End, number),
                false => (operation.end + settle, Edge::Settle, number),
            });
        }
        // Those of the pieces before have no number any more.
        const EARLIER: usize = usize::MAX;
        edges.extend(self.unsettled.iter().map(|(time, _)| (*time, Edge::Settle, EARLIER)));
        let mut earlier: Vec<_> = std::mem::take(&mut self.unsettled);
        earlier.sort_unstable();
        let mut earlier = earlier.into_iter();
        edges.sort_unstable();
        let mut slots = vec![None; operations.len()];
        for (time, edge, number) in edges {
            match edge {
                Edge::Begin => {
                    let (operation, step) = operations[number];
                    slots[number] = Some(self.open(step, operation.end + settle));
                    self.window.push(operations[number].0.clone());
                }
                Edge::End => {
                    let slot = slots[number].expect("it has begun");
                    self.end(slot, operations[number].0)?;
                }
                Edge::Settle if time > now => {
                    let slot = if number == EARLIER { earlier.next().map(|(_, slot)| slot) } else { slots[number] };
                    self.unsettled.push((time, slot.expect("it has begun")));
                }
                Edge::Settle => {
                    let slot = if number == EARLIER { earlier.next().map(|(_, slot)| slot) } else { slots[number] };
                    self.settle(slot.expect("it has begun"));
                }
            }
        }
        Ok(operations.len() as u64)
    }

    fn open(&mut self, step: Step, settles: Duration) -> Slot {
        let slot = (0..Slots::BITS as usize).find(|slot| !self.open.contains_key(slot));
        let slot = slot.expect("fewer than 128 operations on one name at a time: use more names or fewer clients");
        self.open.insert(slot, step);
        if step == (Step::Remove { is_known: false }) {
            self.removes.insert((settles, slot));
        }
        slot
    }

    /// The client has its answer: only what explains it is possible.
    fn end(&mut self, slot: Slot, operation: &Operation) -> Result<(), Box<CounterExample>> {
        self.explore();
        let possible = std::mem::take(&mut self.situations);
        for (state, past) in possible.iter().filter(|(_, past)| past.done & bit(slot) != 0) {
            self.situations.insert(state, forget(past, slot));
        }
        self.open.remove(&slot);
        if self.situations.len == 0 {
            let is_last = |other: &Operation| (other.client, other.begin) == (operation.client, operation.begin);
            self.window.retain(|other| !is_last(other));
            self.window.push(operation.clone());
            let mut states: Vec<_> = possible.by_state.keys().map(|state| describe(*state)).collect();
            states.sort();
            states.dedup();
            return Err(Box::new(CounterExample {
                name: self.name,
                before: self.before.clone(),
                window: std::mem::take(&mut self.window),
                states,
            }));
        }
        self.shorten_window();
        Ok(())
    }

    /// The operation takes no further step.
    fn settle(&mut self, slot: Slot) {
        self.explore();
        let possible = std::mem::take(&mut self.situations);
        for (state, past) in possible.iter().filter(|(state, _)| *state != State::Storing(slot)) {
            self.situations.insert(state, forget(past, slot));
        }
        self.open.remove(&slot);
        self.removes.retain(|(_, other)| *other != slot);
        self.shorten_window();
    }

    /// With one possible state, and no open operation that could matter, the past explains no more.
    fn shorten_window(&mut self) {
        if self.open.is_empty() && self.situations.by_state.len() == 1 {
            self.window.clear();
            self.before = self.situations.by_state.keys().map(|state| describe(*state)).collect();
        }
    }

    /// Adds every situation that the steps of open operations can lead to.
    fn explore(&mut self) {
        let mut found = Situations::default();
        let mut todo: Vec<_> = self.situations.iter().collect();
        while let Some((state, past)) = todo.pop() {
            let past = self.see(state, past);
            if !found.insert(state, past) {
                continue;
            }
            assert!(found.len < MOST_SITUATIONS, "too many outcomes are unknown: use more names or fewer faults");
            match state {
                State::Absent => self.each_unbegun(past, |slot, step| {
                    if let Step::Store { .. } = step {
                        todo.push((State::Storing(slot), Past { begun: past.begun | bit(slot), ..past }));
                    }
                }),
                State::Storing(slot) => {
                    let Some(Step::Store { content, end }) = self.open.get(&slot) else { continue };
                    let done = Past { done: past.done | bit(slot), ..past };
                    match end {
                        StoreEnd::Complete => todo.push((State::Stored(*content), done)),
                        StoreEnd::Unknown => todo.extend([(State::Stored(*content), past), (State::Absent, past)]),
                        StoreEnd::Incomplete => todo.push((State::Absent, past)),
                    }
                }
                State::Stored(_) => {
                    self.each_unbegun(past, |slot, step| {
                        if step == (Step::Remove { is_known: true }) {
                            todo.push((State::Removing(Some(slot)), Past { begun: past.begun | bit(slot), ..past }));
                        }
                    });
                    if let Some((_, slot)) = self.removes.iter().find(|(_, slot)| past.begun & bit(*slot) == 0) {
                        todo.push((State::Removing(None), Past { begun: past.begun | bit(*slot), ..past }));
                    }
                }
                State::Removing(by) => {
                    todo.push((State::Absent, Past { done: past.done | by.map_or(0, bit), ..past }));
                }
            }
        }
        self.situations = found;
    }

    fn each_unbegun(&self, past: Past, mut see: impl FnMut(Slot, Step)) {
        for (&slot, &step) in self.open.iter().filter(|(slot, _)| past.begun & bit(**slot) == 0) {
            see(slot, step);
        }
    }

    /// What the open operations see of this state. Having seen it is never a disadvantage.
    fn see(&self, state: State, mut past: Past) -> Past {
        for (&slot, step) in &self.open {
            match step {
                Step::See(sight) => {
                    let is_seen = match sight {
                        Sight::Taken => state != State::Absent,
                        Sight::Visible => matches!(state, State::Stored(_)),
                        Sight::Hidden => !matches!(state, State::Stored(_)),
                    };
                    past.done |= if is_seen { bit(slot) } else { 0 };
                }
                Step::Load(loaded) => match state {
                    State::Stored(content) if content == *loaded => past.done |= bit(slot),
                    // It is told a holder of this file, and what it finds there may be the next of that name.
                    State::Stored(content) if content.size == loaded.size => past.misled |= bit(slot),
                    State::Storing(store) if past.misled & bit(slot) != 0 => {
                        if matches!(self.open.get(&store), Some(Step::Store { content, .. }) if content == loaded) {
                            past.done |= bit(slot);
                        }
                    }
                    _ => {}
                },
                Step::Store { .. } | Step::Remove { .. } => {}
            }
        }
        past
    }
}

fn bit(slot: Slot) -> Slots {
    1 << slot
}

fn forget(past: Past, slot: Slot) -> Past {
    let Past { begun, done, misled } = past;
    Past { begun: begun & !bit(slot), done: done & !bit(slot), misled: misled & !bit(slot) }
}

fn describe(state: State) -> String {
    match state {
        State::Absent => "absent".to_owned(),
        State::Storing(_) => "store in progress".to_owned(),
        State::Stored(content) => format!("complete ({content})"),
        State::Removing(_) => "remove in progress".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One history a line: `store a 1-3 ok` is STORE of content `a` from 1 to 3 s, and so on. All of one name.
    fn check(history: &str) -> Result<(), Box<CounterExample>> {
        check_pieces([history])
    }

    /// In pieces that are cut wherever no operation is open.
    fn check_piecewise(history: &str) -> Result<(), Box<CounterExample>> {
        let operations: Vec<&str> = history.split("; ").collect();
        let end_of = |so_far: &[&str]| so_far.iter().map(|line| parse(line).end).max();
        let begin_of = |rest: &[&str]| rest.iter().map(|line| parse(line).begin).min();
        let is_cut = |at: &usize| end_of(&operations[..*at]) < begin_of(&operations[*at..]);
        let cuts: Vec<usize> = (1..operations.len()).filter(is_cut).chain([operations.len()]).collect();
        let starts = [0].into_iter().chain(cuts.iter().copied());
        let pieces: Vec<String> = starts.zip(&cuts).map(|(from, to)| operations[from..*to].join("; ")).collect();
        check_pieces(pieces.iter().map(String::as_str))
    }

    fn check_pieces<'a>(pieces: impl IntoIterator<Item = &'a str>) -> Result<(), Box<CounterExample>> {
        let mut checker = Checker::new(1, Duration::from_secs(10));
        for piece in pieces {
            let operations: Vec<_> = piece.split("; ").map(parse).collect();
            checker.check(&operations, operations.iter().map(|operation| operation.end).max().unwrap())?;
        }
        checker.check(&[], Duration::from_secs(1000))
    }

    fn parse(line: &str) -> Operation {
        let words: Vec<&str> = line.split(' ').collect();
        let content =
            |letter: &str| Content { size: 1 + u64::from(letter == "big"), hash: letter.as_bytes()[0].into() };
        let (request, rest) = match words[0] {
            "store" => (Request::Store(0, content(words[1])), &words[2..]),
            "load" => (Request::Load(0), &words[1..]),
            "remove" => (Request::Remove(0), &words[1..]),
            "list" => (Request::List, &words[1..]),
            word => panic!("{word}"),
        };
        let (begin, end) = rest[0].split_once('-').unwrap();
        let outcome = match (&request, rest[1]) {
            (Request::Store(..), "ok") => Outcome::Stored,
            (Request::Remove(_), "ok") => Outcome::Removed,
            (Request::List, seen) => Outcome::Listed(vec![seen == "shown"]),
            (_, "?") => Outcome::Unknown { reason: String::new() },
            (_, "incomplete") => Outcome::Incomplete { reason: String::new() },
            (_, "exists") => Outcome::AlreadyExists,
            (_, "missing") => Outcome::DoesNotExist,
            (_, "failed") => Outcome::LoadFailed,
            (Request::Load(_), letter) => Outcome::Loaded(content(letter)),
            other => panic!("{other:?}"),
        };
        let time = |word: &str| Duration::from_secs(word.parse().unwrap());
        Operation { client: 0, begin: time(begin), end: time(end), request, outcome }
    }

    #[test]
    fn histories_that_the_index_explains_are_accepted() {
        // spec 3.1, 3.2, 4.2 to 4.5
        for history in [
            "load 0-1 missing; list 2-3 hidden; remove 4-5 missing",
            "store a 1-2 ok; load 3-4 a; list 5-6 shown; remove 7-8 ok; load 9-10 missing",
            "store a 1-2 ok; store b 3-4 exists; load 5-6 a",
            // of two at once one is accepted, and the name is taken before the file is seen
            "store a 1-9 ok; store b 1-9 exists",
            "store a 1-9 ok; store b 2-3 exists; load 4-5 missing; list 5-6 hidden; load 7-8 a",
            "store a 1-9 ok; remove 2-3 missing",
            // during a remove it is taken and hidden
            "store a 1-2 ok; remove 3-9 ok; load 4-5 missing; store b 6-7 exists",
            "store a 1-2 ok; remove 3-9 ok; load 4-5 a; load 6-7 missing",
            "store a 1-2 ok; remove 3-9 ok; store b 4-8 ok; load 9-10 b",
            // unknown outcomes: none of it, all of it, at any time until it has settled
            "store a 1-2 ?; load 3-4 missing; load 5-6 a",
            "store a 1-2 ?; load 3-4 missing; store b 5-6 ok; load 7-8 b",
            "store a 1-2 ?; store b 3-4 exists; store b 5-6 ok",
            "store a 1-2 ?; store b 3-4 exists; load 20-21 missing",
            "store a 1-2 ?; load 20-21 a; load 30-31 a",
            "store a 1-2 ok; remove 3-4 ?; load 5-6 a; load 7-8 missing; store b 9-10 exists; store b 20-21 ok",
            "store a 1-2 ok; remove 3-4 ?; load 20-21 a",
            // a failed remove may end whenever a rebalance comes (spec 4.4)
            "store a 1-2 ok; remove 3-4 ?; load 20-21 missing; store b 30-31 exists; store b 40-41 ok; load 42-43 b",
            "store a 1-2 incomplete; store b 3-4 exists; store b 5-6 ok",
            "store a 1-2 ok; load 3-4 failed",
            // offered a, and found b, just begun, on the same Dstore
            "store a 1-2 ok; load 3-9 b; remove 4-5 ok; store b 6-7 ?; load 20-21 missing",
            "store a 1-2 ?; store b 1-2 ?; store c 1-2 ?; load 5-6 c; remove 7-8 ok; load 9-10 a",
        ] {
            for outcome in [check(history), check_piecewise(history)] {
                assert!(outcome.is_ok(), "{history}\n{}", outcome.unwrap_err());
            }
        }
    }

    #[test]
    fn histories_that_nothing_explains_are_rejected() {
        // spec 3.2, 4.2 to 4.5
        for history in [
            "load 0-1 a",
            "list 0-1 shown",
            "remove 0-1 ok",
            "store a 0-1 exists",
            "load 0-1 failed",
            // lost, altered, never there
            "store a 1-2 ok; load 3-4 missing",
            "store a 1-2 ok; list 3-4 hidden",
            "store a 1-2 ok; load 3-4 b",
            "store a 1-2 ok; load 3-4 a; remove 5-6 missing",
            // twice at once
            "store a 1-2 ok; store b 3-4 ok",
            "store a 1-9 ok; store b 1-9 ok",
            // seen before it is complete, or after it was removed
            "store a 3-9 ok; load 1-2 a",
            "store a 1-9 ok; load 2-3 a; load 4-5 missing",
            "store a 1-9 ok; list 2-3 shown; list 4-5 hidden",
            "store a 1-2 ok; remove 3-4 ok; load 5-6 a",
            "store a 1-2 ok; remove 3-4 ok; store b 5-6 exists",
            "store a 1-2 ok; remove 3-4 ok; remove 5-6 ok",
            "store a 1-2 ok; remove 3-9 ok; load 4-5 missing; load 6-7 a",
            "store a 1-2 ok; remove 3-9 ok; remove 3-9 ok",
            // unknown: but not twice, not both ways, not for ever, not what was never stored
            "store a 1-2 ?; load 3-4 a; load 5-6 missing",
            "store a 1-2 ?; load 3-4 a; remove 5-6 ok; load 7-8 a",
            "store a 1-2 ?; load 20-21 missing; load 22-23 a",
            "store a 1-2 ?; store b 20-21 exists; load 22-23 missing",
            "store a 1-2 ?; load 3-4 b",
            "store a 1-2 ok; remove 3-4 ?; load 20-21 a; load 30-31 missing",
            "store a 1-2 ok; remove 3-4 ?; load 5-6 missing; load 7-8 a",
            // acknowledged without R copies
            "store a 1-2 incomplete; load 3-4 a",
            "store a 1-2 incomplete; list 3-4 shown",
            "store a 1-2 incomplete; store b 20-21 exists",
            // of another size: a loader would have noticed
            "store big 1-2 ok; load 3-9 b; remove 4-5 ok; store c 6-7 ?",
        ] {
            assert!(check(history).is_err(), "{history}");
            assert!(check_piecewise(history).is_err(), "in pieces: {history}");
        }
    }

    /// It ends with the answer that nothing explains.
    #[test]
    fn a_counter_example_begins_at_the_last_certain_state() {
        // spec 3.2
        let history = "store a 1-2 ok; remove 3-4 ok; store b 5-6 ok; store c 7-9 exists; load 8-9 missing";
        let example = check(history).unwrap_err();
        assert_eq!(example.before.len(), 1);
        assert!(example.before[0].starts_with("complete"), "{example}");
        assert_eq!(example.window.last().unwrap().request, Request::Load(0));
        assert!(example.window.len() <= 2, "{example}");
    }

    #[test]
    fn many_unknown_outcomes_at_once_are_no_burden() {
        // spec 4.2: nothing is said to the client
        let mut history: Vec<String> = (0..20).map(|n| format!("store {} 1-2 ?", char::from(b'a' + n))).collect();
        history.extend((0..15).map(|n| format!("remove {}-{} ?", 3 + n % 3, 6 + n % 4)));
        history.push("load 7-8 q; list 7-8 shown; remove 8-9 ok; load 10-11 missing".to_owned());
        assert!(check(&history.join("; ")).is_ok());
        history.push("load 30-31 b; remove 32-33 missing".to_owned());
        assert!(check(&history.join("; ")).is_err());
    }
}
