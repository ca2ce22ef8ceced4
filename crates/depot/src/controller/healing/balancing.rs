//! Moves copies from fuller Dstores to emptier ones, when nothing else is to be done. (depot 6.4)
//!
//! ```text
//! rest ──▶ choose: a walk over the objects ──▶ until all that was chosen has moved ─┐
//!   ▲                                                                               │
//!   └────────────────────── Dstores say again how full they are ◀───────────────────┘
//! ```
//!
//! What is chosen rests on what Dstores have said, and on what was chosen before it in the same walk. What a Dstore says is
//! old while copies come and go: so the next walk begins when all of these have, and are in its report.
//!
//! A copy that moves is planned like every other: it goes only once as many others as are wanted are verified. (depot 5.4)

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use super::{BACKSTOP, MOMENT, STEP};
use crate::controller::{Shared, State};
use crate::identity::{DstoreId, Key};
use crate::namespace::Object;
use crate::namespace::change::{DstoreRecord, Duty};
use crate::placement::{Balance, CopyState, Member, Plan, Presence, Relocation, Room};

/// Dstores have said how full they are since a change that was so long ago. They do each second.
const PAUSE: Duration = Duration::from_secs(3);

/// So many copies are chosen in one walk.
const MOST_MOVES: usize = 16_384;

/// How far it is.
#[derive(Debug)]
pub(super) struct Balancing {
    phase: Phase,
    moves: BTreeMap<Key, Relocation>,
    /// By how much shares differed when it was last looked at, if that is too much.
    apart: Option<f64>,
    /// The last walk has found nothing to move.
    is_stuck: bool,
}

#[derive(Debug)]
enum Phase {
    Resting { until: Instant },
    Choosing { after: Option<Key>, balance: Balance, has_found: bool },
    Moving { has_found: bool },
}

impl Balancing {
    pub(super) fn new() -> Self {
        let phase = Phase::Resting { until: Instant::now() + PAUSE };
        Self { phase, moves: BTreeMap::new(), apart: None, is_stuck: false }
    }

    /// The move of an object's copy that is under way.
    pub(super) fn of(&self, key: Key) -> Option<Relocation> {
        self.moves.get(&key).copied()
    }

    /// The object needs nothing more, or cannot be moved.
    pub(super) fn ended(&mut self, key: Key) {
        self.moves.remove(&key);
    }

    /// Something has changed for all objects: what could not be moved may be movable now.
    pub(super) fn look_again(&mut self) {
        if let Phase::Resting { until } = &mut self.phase {
            *until = (*until).min(Instant::now() + PAUSE);
        }
    }

    /// The objects that are being moved.
    pub(super) fn moving(&self) -> impl ExactSizeIterator<Item = &Key> {
        self.moves.keys()
    }

    /// By how many points shares differ, if that is too much, and whether it cannot be helped.
    pub(super) fn unevenness(&self) -> (u64, bool) {
        (self.apart.map_or(0, |apart| (apart * 100.0).round() as u64), self.apart.is_some() && self.is_stuck)
    }

    fn pause(&mut self, pause: Duration) {
        self.moves.clear();
        self.phase = Phase::Resting { until: Instant::now() + pause };
    }
}

impl Shared {
    /// Goes on with it. True if there is more to do at once.
    pub(super) fn balance(&self, records: &[(DstoreId, DstoreRecord)], duties: u64) -> bool {
        let (keys, is_more) = {
            let mut state = self.state.lock();
            let members = state.members(records);
            (state.next_to_balance(&members), matches!(state.healing.balancing.phase, Phase::Choosing { .. }))
        };
        if keys.is_empty() {
            return is_more;
        }
        let named = self.replica.read(|namespace| {
            let wanted = |key: &Key| namespace.wanted(*key).map(|(object, wanted)| (*key, object, wanted));
            keys.iter().filter_map(wanted).collect::<Vec<_>>()
        });
        let Ok(named) = named else { return false };
        let mut named = named.into_iter().peekable();
        while named.peek().is_some() {
            let begun = Instant::now();
            {
                let mut state = self.state.lock();
                if state.healing.duties != duties {
                    break; // the members are of the past
                }
                let members = state.members(records);
                while begun.elapsed() < MOMENT
                    && let Some((key, object, wanted)) = named.next()
                {
                    state.move_if_useful(key, &object, wanted, &members);
                }
            }
            thread::park_timeout(begun.elapsed());
        }
        true
    }
}

impl State {
    /// The objects to look at next: those of which a Dstore has a copy that is to give some.
    fn next_to_balance(&mut self, members: &[Member]) -> Vec<Key> {
        let is_calm = |member: &Member| matches!(member.presence, Presence::Known | Presence::Gone);
        let healing = &mut self.healing;
        if healing.is_guarded || healing.backlog.objects > 0 || !members.iter().all(is_calm) {
            healing.balancing.pause(PAUSE);
            return Vec::new();
        }
        match &mut healing.balancing.phase {
            Phase::Resting { until } => {
                if Instant::now() >= *until {
                    self.begin_walk(members);
                }
                Vec::new()
            }
            Phase::Choosing { balance, has_found, .. }
                if balance.is_done() || healing.balancing.moves.len() >= MOST_MOVES =>
            {
                healing.balancing.phase = Phase::Moving { has_found: *has_found };
                Vec::new()
            }
            Phase::Choosing { after, balance, has_found } => {
                let keys = self.holdings.keys(*after, STEP);
                *after = keys.last().copied();
                let holds = |key: &Key| self.holdings.holders(*key).iter().any(|(id, _)| balance.gives(*id));
                let some: Vec<Key> = keys.iter().copied().filter(holds).collect();
                if some.is_empty() && keys.len() < STEP {
                    healing.balancing.phase = Phase::Moving { has_found: *has_found };
                }
                some
            }
            Phase::Moving { has_found } => {
                if healing.balancing.moves.is_empty() {
                    let has_found = *has_found;
                    healing.balancing.is_stuck = !has_found;
                    healing.balancing.pause(if has_found { PAUSE } else { BACKSTOP });
                }
                Vec::new()
            }
        }
    }

    fn begin_walk(&mut self, members: &[Member]) {
        let takes_part = |member: &&Member| member.duty == Duty::Active && member.presence == Presence::Known;
        let room = |member: &Member| {
            let load = self.links.get(&member.id)?.load;
            (load.total_bytes > 0).then_some(Room { id: member.id, used: load.used_bytes, free: load.free_bytes })
        };
        let rooms: Vec<Room> = members.iter().filter(takes_part).filter_map(room).collect();
        let balance = Balance::of(&rooms);
        let balancing = &mut self.healing.balancing;
        if balance.is_done() {
            (balancing.apart, balancing.is_stuck) = (None, false);
            return balancing.pause(PAUSE);
        }
        balancing.apart = Some(balance.apart());
        balancing.phase = Phase::Choosing { after: None, balance, has_found: false };
    }

    /// Has a copy of an object move, if it needs nothing else and that helps.
    fn move_if_useful(&mut self, key: Key, object: &Object, wanted: usize, members: &[Member]) {
        let healing = &self.healing;
        let is_busy = healing.agenda.contains(key)
            || healing.backlog.entries.contains_key(&key)
            || healing.balancing.moves.contains_key(&key)
            || healing.under_way.of(key).next().is_some();
        let holders = self.holdings.holders(key);
        let is_known =
            |id: DstoreId| members.iter().any(|member| member.id == id && member.presence == Presence::Known);
        let all_certain = holders.iter().all(|(id, state)| *state == CopyState::Certain && is_known(*id));
        if is_busy || !all_certain || holders.len() != wanted || self.plan(key, wanted, members) != Plan::default() {
            return;
        }
        let copies: Vec<DstoreId> = holders.into_iter().map(|(id, _)| id).collect();
        let balancing = &mut self.healing.balancing;
        let Phase::Choosing { balance, has_found, .. } = &mut balancing.phase else { return };
        if let Some(relocation) = balance.choose(object.length, &copies, members) {
            *has_found = true;
            balancing.moves.insert(key, relocation);
            self.healing.look_at(key);
        }
    }
}
