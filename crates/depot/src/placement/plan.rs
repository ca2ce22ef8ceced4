//! What one object needs: another copy, or one fewer. (depot 5.4, 6)
//!
//! Planning is done over and over for one object at a time: each time a report changes what is known of it. A plan has the
//! next steps only, and what they lead to is seen when the Dstores report it. So there is no state to keep, and a step that
//! fails is planned again.
//!
//! ```text
//! wanted 3, Dstore 2 is gone        1 ✓  2 –  3 ✓          copy 1 → 4
//! Dstore 4 reports it               1 ✓  2 –  3 ✓  4 ✓     nothing
//! Dstore 2 returns                  1 ✓  2 ✓  3 ✓  4 ✓     verify at 1, 3, 4
//! each says that its copy is sound                         remove at 2
//! ```
//!
//! A copy *counts* if its Dstore has reported it over the link that is open, is to hold objects, and has not been told to
//! remove it. A copy that *may be there*, at a Dstore that is away for a moment or is still reporting, is not made again, and
//! lets no other one be removed.

use std::collections::BTreeSet;

use super::balance::Relocation;
use super::choose::{Candidate, FAR_ABOVE, choose};
use super::holdings::CopyState;
use crate::identity::DstoreId;
use crate::namespace::change::Duty;
use crate::pack::Purpose;

/// What is known of a Dstore. (depot 6.2)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Presence {
    /// It is there and has reported all that it has.
    Known,
    /// It was, and is away for a moment, or back and still reporting: it has what it reported before.
    Resting,
    /// It has not reported in this leadership, and is not away for long: it may have anything.
    Unknown,
    /// It is away for longer than the grace.
    Gone,
}

/// A Dstore of the store.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its number.
    pub id: DstoreId,
    /// The machine it is on.
    pub host: String,
    /// The zone of that machine; empty for none.
    pub zone: String,
    /// Whether it is to hold objects.
    pub duty: Duty,
    /// Whether it is there.
    pub presence: Presence,
    /// It has no link, whether the grace is over or not.
    pub is_away: bool,
    /// How much of its disk is used, from 0 to 1.
    pub used: f64,
    /// How busy it is, from 0 to 1.
    pub load: f64,
}

/// A copy of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Where.
    pub dstore: DstoreId,
    /// What is known of it.
    pub state: CopyState,
    /// The Dstore has been told to remove it.
    pub is_leaving: bool,
    /// The Dstore has verified it, over the link that is open, so that another copy can be removed.
    pub is_verified: bool,
}

/// The object that is planned for.
#[derive(Clone, Copy, Debug)]
pub struct Need<'a> {
    /// On how many Dstores it should be.
    pub wanted: usize,
    /// Its copies.
    pub copies: &'a [Held],
    /// Dstores that have been told to copy it.
    pub coming: &'a [DstoreId],
    /// Dstores that could not take it a moment ago.
    pub avoided: &'a [DstoreId],
    /// One of its copies is to move, once it needs nothing else. (depot 6.4)
    pub moving: Option<Relocation>,
    /// So many Dstores are away that only last copies are repaired. (depot 6.2)
    pub is_guarded: bool,
}

/// What is to be done next. The most urgent comes first. (depot 6.3)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Urgency {
    /// It has one good copy and should have more.
    LastCopy,
    /// It has fewer good copies than it should.
    TooFew,
    /// It is at a Dstore that is to be emptied.
    Draining,
    /// Something has to be asked.
    Unclear,
    /// It has copies that it does not need.
    Surplus,
    /// Its copies could be on more machines.
    Spread,
    /// One of its Dstores is fuller than others.
    Balance,
}

/// A step of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `to` copies it from `from`.
    Copy {
        /// It has a copy that counts.
        from: DstoreId,
        /// It has none, or a damaged one.
        to: DstoreId,
        /// What the copy is for: a fuller disk takes it for some purposes only.
        purpose: Purpose,
    },
    /// The Dstore reads its copy and says what it finds.
    Verify {
        /// Which Dstore.
        at: DstoreId,
    },
    /// The Dstore removes its copy. As many others as are wanted are certain and verified.
    Remove {
        /// Which Dstore.
        at: DstoreId,
    },
}

/// What one object needs next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// How urgent it is; `None` if nothing is to be done, or nothing can be.
    pub urgency: Option<Urgency>,
    /// In no particular order.
    pub steps: Vec<Step>,
    /// So many copies are missing, those that are on their way not counted, whether a step can be taken or not.
    pub missing: usize,
}

impl Plan {
    fn of(urgency: Urgency, steps: Vec<Step>, missing: usize) -> Self {
        Self { urgency: (!steps.is_empty()).then_some(urgency), steps, missing }
    }
}

/// Whether so many Dstores are away that something else than their disks must be the matter: a third of all, or all of a
/// zone that has several machines. (depot 6.2)
pub fn is_mass_failure(members: &[Member]) -> bool {
    let members = || members.iter().filter(|member| member.duty != Duty::Removed);
    let away = members().filter(|member| member.is_away).count();
    let zones: BTreeSet<&str> = members().map(|member| member.zone.as_str()).filter(|zone| !zone.is_empty()).collect();
    let lost_zone = zones.into_iter().any(|zone| {
        let of_zone = || members().filter(|member| member.zone == zone);
        let hosts: BTreeSet<&str> = of_zone().map(|member| member.host.as_str()).collect();
        hosts.len() > 1 && of_zone().all(|member| member.is_away)
    });
    3 * away > members().count() || lost_zone
}

/// What an object needs next. Members are in the order of their numbers. `random(n)` draws from 0 to n - 1.
pub fn plan(need: &Need<'_>, members: &[Member], mut random: impl FnMut(usize) -> usize) -> Plan {
    let member = |id: DstoreId| members.binary_search_by_key(&id, |member| member.id).ok().map(|at| &members[at]);
    let is_active = |id: DstoreId| member(id).is_some_and(|member| member.duty == Duty::Active);
    let presence = |id: DstoreId| match member(id) {
        Some(member) if member.duty != Duty::Removed => member.presence,
        _ => Presence::Gone,
    };

    let staying = || need.copies.iter().filter(|copy| !copy.is_leaving);
    let sound: Vec<&Held> =
        staying().filter(|copy| copy.state == CopyState::Certain && presence(copy.dstore) == Presence::Known).collect();
    let counted: Vec<&Held> = sound.iter().copied().filter(|copy| is_active(copy.dstore)).collect();
    // A claim at a Dstore that has reported: the reports will show it, unless something is wrong.
    let unclear: Vec<DstoreId> = staying()
        .filter(|copy| copy.state == CopyState::Claimed && presence(copy.dstore) == Presence::Known)
        .map(|copy| copy.dstore)
        .collect();
    let resting = staying().filter(|copy| {
        let may_be_there = matches!(presence(copy.dstore), Presence::Resting | Presence::Unknown);
        copy.state != CopyState::Damaged && may_be_there
    });
    let mut expected: Vec<DstoreId> = counted.iter().map(|copy| copy.dstore).collect();
    expected.extend(unclear.iter().copied().filter(|id| is_active(*id)));
    expected.extend(resting.map(|copy| copy.dstore).filter(|id| is_active(*id)));
    expected.extend(need.coming.iter().copied().filter(|id| is_active(*id)));
    expected.sort_unstable();
    expected.dedup();
    let unknown = members
        .iter()
        .filter(|member| member.duty == Duty::Active && member.presence == Presence::Unknown)
        .filter(|member| !expected.contains(&member.id))
        .count();

    let missing = need.wanted.saturating_sub(expected.len() + unknown);
    let is_held_back = need.is_guarded && sound.len() != 1;
    if missing > 0 && !is_held_back && !sound.is_empty() {
        let targets = targets(need, members, &expected, missing, &mut random);
        let mut from = sound[random(sound.len())].dstore;
        let copies = targets.into_iter().map(|to| {
            // Several at a time come from different ones, as far as there are.
            let at = sound.iter().position(|copy| copy.dstore == from).unwrap_or(0);
            from = sound[(at + 1) % sound.len()].dstore;
            Step::Copy { from, to, purpose: Purpose::Repair }
        });
        let urgency = match sound.len() {
            1 => Urgency::LastCopy,
            _ if sound.len() < need.wanted => Urgency::TooFew,
            _ => Urgency::Draining,
        };
        let plan = Plan::of(urgency, copies.collect(), missing);
        if plan.urgency.is_some() {
            return plan;
        }
    }
    if !unclear.is_empty() {
        return Plan::of(Urgency::Unclear, unclear.into_iter().map(|at| Step::Verify { at }).collect(), missing);
    }
    if missing > 0 || need.is_guarded || counted.len() < need.wanted || need.wanted == 0 {
        return Plan { missing, ..Plan::default() };
    }

    let leaving = need.moving.map(|relocation| relocation.from);
    let keepers = keepers(&counted, need.wanted, leaving, &member);
    let is_surplus = |copy: &&Held| {
        let is_kept = keepers.iter().any(|keeper| keeper.dstore == copy.dstore);
        !is_kept && presence(copy.dstore) == Presence::Known && copy.state != CopyState::Claimed
    };
    let surplus: Vec<DstoreId> = staying().filter(is_surplus).map(|copy| copy.dstore).collect();
    if !surplus.is_empty() {
        let unverified: Vec<Step> = keepers
            .iter()
            .filter(|keeper| !keeper.is_verified)
            .map(|keeper| Step::Verify { at: keeper.dstore })
            .collect();
        let removals = surplus.into_iter().map(|at| Step::Remove { at }).collect();
        return Plan::of(Urgency::Surplus, if unverified.is_empty() { removals } else { unverified }, 0);
    }

    let is_settled = need.coming.is_empty()
        && members.iter().all(|member| matches!(member.presence, Presence::Known | Presence::Gone));
    if is_settled && let Some(to) = better_place(need, members, &keepers, &member) {
        let from = keepers[random(keepers.len())].dstore;
        return Plan::of(Urgency::Spread, vec![Step::Copy { from, to, purpose: Purpose::Balance }], 0);
    }
    if is_settled && let Some(Relocation { from, to }) = need.moving {
        let is_held = |id: DstoreId| need.copies.iter().any(|copy| copy.dstore == id);
        let can_take = member(to).is_some_and(|member| takes(member, Purpose::Balance)) && !need.avoided.contains(&to);
        if is_held(from) && !is_held(to) && can_take {
            let from = keepers[random(keepers.len())].dstore;
            return Plan::of(Urgency::Balance, vec![Step::Copy { from, to, purpose: Purpose::Balance }], 0);
        }
    }
    Plan::default()
}

/// Where missing copies go: in place of damaged ones, and then as a new object's.
fn targets(
    need: &Need<'_>,
    members: &[Member],
    expected: &[DstoreId],
    missing: usize,
    random: &mut impl FnMut(usize) -> usize,
) -> Vec<DstoreId> {
    let member = |id: &DstoreId| members.binary_search_by_key(id, |member| member.id).ok().map(|at| &members[at]);
    let held = |id: DstoreId| need.copies.iter().find(|copy| copy.dstore == id);
    let is_usable = |member: &Member| {
        takes(member, Purpose::Repair)
            && !need.avoided.contains(&member.id)
            && !expected.contains(&member.id)
            && !held(member.id).is_some_and(|copy| copy.is_leaving)
    };
    let damaged = need.copies.iter().filter(|copy| copy.state == CopyState::Damaged).map(|copy| copy.dstore);
    let mut targets: Vec<DstoreId> = damaged.filter(|id| member(id).is_some_and(is_usable)).take(missing).collect();
    let mut taken: Vec<&Member> = expected.iter().chain(&targets).filter_map(member).collect();
    while members.len() >= MANY && targets.len() < missing {
        let is_free = |member: &Member| is_usable(member) && taken.iter().all(|other| other.id != member.id);
        let Some(found) = draw_place(members, is_free, &taken, random) else { break };
        targets.push(found.id);
        taken.push(found);
    }
    if targets.len() == missing {
        return targets;
    }
    let is_taken = |member: &&Member| taken.iter().any(|other| other.id == member.id);
    let others = members.iter().filter(|member| is_usable(member) && !is_taken(member));
    let candidates: Vec<Candidate<'_>> = taken
        .iter()
        .copied()
        .chain(others)
        .map(|member| Candidate {
            id: member.id,
            host: &member.host,
            zone: &member.zone,
            used: member.used,
            load: member.load,
            times: 0,
        })
        .collect();
    let taken: Vec<DstoreId> = expected.iter().chain(&targets).copied().collect();
    targets.extend(choose(&candidates, &taken, missing - targets.len(), random));
    targets
}

/// Among so many Dstores a place is drawn before all are compared: that would take most of the time of a plan.
const MANY: usize = 32;

/// So often it is tried to draw one.
const DRAWS: usize = 16;

/// A place that is as good as any: in a zone and on a host without a copy, and not busy; the emptier of two, as [`choose`] would
/// find it. `None` if there seem to be few of that kind.
fn draw_place<'m>(
    members: &'m [Member],
    is_free: impl Fn(&Member) -> bool,
    taken: &[&Member],
    random: &mut impl FnMut(usize) -> usize,
) -> Option<&'m Member> {
    let shares = |member: &Member, other: &Member| {
        member.host == other.host || !member.zone.is_empty() && member.zone == other.zone
    };
    let is_good = |member: &Member| {
        member.load <= FAR_ABOVE && is_free(member) && !taken.iter().any(|other| shares(member, other))
    };
    let mut draw = || (0..DRAWS).map(|_| &members[random(members.len())]).find(|member| is_good(member));
    let (one, other) = (draw()?, draw()?);
    Some(if (one.used, one.load) <= (other.used, other.load) { one } else { other })
}

/// Whether a Dstore takes copies for this purpose.
pub(super) fn takes(member: &Member, purpose: Purpose) -> bool {
    member.duty == Duty::Active
        && member.presence == Presence::Known
        && member.used < f64::from(purpose.most_percent()) / 100.0
}

/// The copies to keep: in as many zones and on as many machines as can be; the one that is to move last; those first that are
/// verified already, so that the choice stays the same from one plan to the next.
fn keepers<'a, 'm>(
    counted: &[&'a Held],
    wanted: usize,
    leaving: Option<DstoreId>,
    member: &impl Fn(DstoreId) -> Option<&'m Member>,
) -> Vec<&'a Held> {
    let mut left: Vec<(&Held, &Member)> =
        counted.iter().filter_map(|copy| Some((*copy, member(copy.dstore)?))).collect();
    let mut kept: Vec<(&Held, &Member)> = Vec::new();
    while kept.len() < wanted && !left.is_empty() {
        let rank = |(copy, member): &(&Held, &Member)| {
            let shares_zone = !member.zone.is_empty() && kept.iter().any(|(_, other)| other.zone == member.zone);
            let shares_host = kept.iter().any(|(_, other)| other.host == member.host);
            let is_leaving = leaving == Some(copy.dstore);
            (shares_zone, shares_host, is_leaving, !copy.is_verified, (member.used * 20.0) as u32, copy.dstore)
        };
        let Some(best) = left.iter().map(rank).min() else { break };
        let at = left.iter().position(|copy| rank(copy) == best).expect("it is one of them");
        kept.push(left.swap_remove(at));
    }
    kept.into_iter().map(|(copy, _)| copy).collect()
}

/// In how many zones, and on how many machines, these are. A Dstore without a zone shares none.
pub(super) fn spread<'m>(of: impl Iterator<Item = &'m Member> + Clone) -> (usize, usize) {
    let zones: BTreeSet<&str> = of.clone().map(|member| member.zone.as_str()).filter(|zone| !zone.is_empty()).collect();
    let without = of.clone().filter(|member| member.zone.is_empty()).count();
    let hosts: BTreeSet<&str> = of.map(|member| member.host.as_str()).collect();
    (zones.len() + without, hosts.len())
}

/// A Dstore that, in place of one of the copies, would have them in more zones or on more machines.
fn better_place<'m>(
    need: &Need<'_>,
    members: &'m [Member],
    keepers: &[&Held],
    member: &impl Fn(DstoreId) -> Option<&'m Member>,
) -> Option<DstoreId> {
    let kept: Vec<&Member> = keepers.iter().filter_map(|copy| member(copy.dstore)).collect();
    let now = spread(kept.iter().copied());
    if now == (kept.len(), kept.len()) {
        return None; // it cannot be better
    }
    let is_free = |member: &&Member| {
        takes(member, Purpose::Balance)
            && !need.avoided.contains(&member.id)
            && !need.copies.iter().any(|copy| copy.dstore == member.id)
    };
    let better = members.iter().filter(is_free).filter_map(|candidate| {
        let without = |out: usize| kept.iter().enumerate().filter(move |(at, _)| *at != out).map(|(_, member)| *member);
        let best = (0..kept.len()).map(|out| spread(without(out).chain(std::iter::once(candidate)))).max()?;
        (best > now).then_some((best, std::cmp::Reverse((candidate.used * 20.0) as u32), candidate.id))
    });
    better.max().map(|(_, _, id)| id)
}

#[cfg(test)]
mod tests;
