use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn member(id: u32, host: &str, zone: &str) -> Member {
    Member {
        id: DstoreId(id),
        host: host.into(),
        zone: zone.into(),
        duty: Duty::Active,
        presence: Presence::Known,
        is_away: false,
        used: 0.5,
        load: 0.1,
    }
}

/// Dstores 1 to `count`, each on a machine of its own.
fn members(count: u32) -> Vec<Member> {
    (1..=count).map(|id| member(id, &format!("host-{id}"), "")).collect()
}

fn held(dstore: u32, state: CopyState) -> Held {
    Held { dstore: DstoreId(dstore), state, is_leaving: false, is_verified: false }
}

fn certain(dstores: &[u32]) -> Vec<Held> {
    dstores.iter().map(|dstore| held(*dstore, CopyState::Certain)).collect()
}

fn need(copies: &[Held]) -> Need<'_> {
    Need { wanted: 3, copies, coming: &[], avoided: &[], moving: None, is_guarded: false }
}

fn plan_of(need: &Need<'_>, members: &[Member]) -> Plan {
    plan(need, members, |_| 0)
}

/// Where a plan has copies made.
fn copied_to(plan: &Plan) -> Vec<u32> {
    let mut to = copied_to_in_order(plan);
    to.sort_unstable();
    to
}

fn copied_to_in_order(plan: &Plan) -> Vec<u32> {
    let to = plan.steps.iter().filter_map(|step| match step {
        Step::Copy { to, .. } => Some(to.0),
        _ => None,
    });
    to.collect()
}

const QUIET: Plan = Plan { urgency: None, steps: Vec::new(), missing: 0 };

#[test]
fn enough_copies_need_nothing() {
    assert_eq!(plan_of(&need(&certain(&[1, 2, 3])), &members(5)), QUIET);
}

#[test]
fn a_missing_copy_is_made_from_a_sound_one() {
    let copies = [held(1, CopyState::Damaged), held(2, CopyState::Certain)];
    let plan = plan_of(&need(&copies), &members(4));
    assert_eq!((plan.urgency, plan.missing), (Some(Urgency::LastCopy), 2));
    assert!(copied_to(&plan).contains(&1), "a damaged copy is replaced where it is: {plan:?}");
    let from_2 = |step: &Step| matches!(step, Step::Copy { from: DstoreId(2), purpose: Purpose::Repair, .. });
    assert!(plan.steps.len() == 2 && plan.steps.iter().all(from_2), "{plan:?}");
    assert_eq!(plan_of(&need(&certain(&[1, 3])), &members(4)).urgency, Some(Urgency::TooFew));
    assert!(Urgency::LastCopy < Urgency::TooFew);
    // Neither a copy that its Dstore has not confirmed nor a damaged one is a source.
    let copies = [held(1, CopyState::Damaged)];
    assert_eq!(plan_of(&need(&copies), &members(4)), Plan { missing: 3, ..QUIET });
    let copies = [held(1, CopyState::Claimed)];
    let plan = plan_of(&need(&copies), &members(4));
    assert_eq!(plan.steps, [Step::Verify { at: DstoreId(1) }]);
}

#[test]
fn copies_go_where_there_is_room_and_to_other_machines() {
    let mut all = members(5);
    all[1].host = "host-1".into();
    all[2].used = 0.98;
    assert_eq!(copied_to(&plan_of(&need(&certain(&[1, 4])), &all)), [5]);
    let copies = certain(&[1, 4]);
    let avoided = [DstoreId(5)];
    let need = Need { avoided: &avoided, ..need(&copies) };
    assert_eq!(copied_to(&plan_of(&need, &all)), [2], "the same machine is better than none");
}

#[test]
fn among_many_dstores_a_copy_goes_to_as_good_a_place() {
    // So many that a place is drawn; in some of these stores hardly any Dstore can take the copy.
    for seed in 0..500 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (hosts, zones, full) = (random.u32(2..80), random.u32(1..5), random.f64());
        let members: Vec<Member> = (1..=100)
            .map(|id| {
                let zone = if zones == 1 { String::new() } else { format!("zone-{}", random.u32(..zones)) };
                let used = if random.f64() < full { 0.99 } else { random.f64() * 0.9 };
                let duty = if random.u8(..4) == 0 { Duty::Draining } else { Duty::Active };
                Member { used, duty, load: random.f64(), ..member(id, &format!("host-{}", random.u32(..hosts)), &zone) }
            })
            .collect();
        let copies: Vec<Held> = [3, 60].iter().map(|id| held(*id, CopyState::Certain)).collect();
        let avoided = [DstoreId(random.u32(1..=100))];
        let need = Need { avoided: &avoided, ..need(&copies) };
        let kept: Vec<&Member> =
            [3, 60].iter().map(|id| &members[id - 1]).filter(|member| member.duty == Duty::Active).collect();
        let shares = |member: &Member| {
            let shares_zone = kept.iter().any(|other| !member.zone.is_empty() && other.zone == member.zone);
            (shares_zone, kept.iter().any(|other| other.host == member.host))
        };
        let is_usable = |member: &&Member| {
            takes(member, Purpose::Repair) && ![3, 60].contains(&member.id.0) && member.id != avoided[0]
        };
        let best = members.iter().filter(is_usable).map(shares).min();
        let plan = plan(&need, &members, |n| random.usize(..n));
        let first = copied_to_in_order(&plan).first().map(|id| &members[*id as usize - 1]);
        assert!(first.as_ref().is_none_or(is_usable), "seed {seed}: {plan:?}");
        assert_eq!(first.map(shares), best, "seed {seed}: {plan:?}");
    }
}

#[test]
fn what_may_be_there_is_not_made_again() {
    for presence in [Presence::Resting, Presence::Unknown, Presence::Gone] {
        let mut all = members(4);
        all[2].presence = presence;
        let plan = plan_of(&need(&certain(&[1, 2, 3])), &all);
        let expected: &[u32] = if presence == Presence::Gone { &[4] } else { &[] };
        assert_eq!(copied_to(&plan), expected, "{presence:?}");
    }
    // After a start: Dstore 3 has not come yet, and may have the copy.
    let mut all = members(4);
    all[2].presence = Presence::Unknown;
    assert_eq!(plan_of(&need(&certain(&[1, 2])), &all), QUIET);
    let (copies, coming) = (certain(&[1, 2]), [DstoreId(4)]);
    assert_eq!(plan_of(&Need { coming: &coming, ..need(&copies) }, &members(4)), QUIET, "on its way");
}

#[test]
fn a_surplus_copy_goes_once_the_others_are_verified() {
    let mut copies = certain(&[1, 2, 3, 4]);
    let all = members(4);
    let first = plan_of(&need(&copies), &all);
    let verify = |id| Step::Verify { at: DstoreId(id) };
    assert_eq!((first.urgency, first.steps), (Some(Urgency::Surplus), vec![verify(1), verify(2), verify(3)]));
    copies[3].is_verified = true;
    assert_eq!(plan_of(&need(&copies), &all).steps, [verify(1), verify(2)], "the verified ones are kept");
    copies[0].is_verified = true;
    copies[1].is_verified = true;
    assert_eq!(plan_of(&need(&copies), &all).steps, [Step::Remove { at: DstoreId(3) }]);
    // One of those that are kept is told to leave, is damaged, or its Dstore is not there: then nothing is removed.
    for change in 0..3 {
        let (mut copies, mut all) = (copies.clone(), all.clone());
        match change {
            0 => copies[0].is_leaving = true,
            1 => copies[0].state = CopyState::Claimed,
            _ => all[0].presence = Presence::Resting,
        }
        let plan = plan_of(&need(&copies), &all);
        assert!(!plan.steps.iter().any(|step| matches!(step, Step::Remove { .. })), "{change}: {plan:?}");
    }
}

#[test]
fn the_copies_that_share_a_machine_are_surplus_first() {
    let mut all = members(4);
    all[0].host = "host-2".into();
    let mut copies = certain(&[1, 2, 3, 4]);
    copies.iter_mut().for_each(|copy| copy.is_verified = true);
    let removed = plan_of(&need(&copies), &all).steps;
    assert!(
        removed == [Step::Remove { at: DstoreId(1) }] || removed == [Step::Remove { at: DstoreId(2) }],
        "{removed:?}"
    );
    // Two zones: one copy in each at least.
    let all = [member(1, "a", "x"), member(2, "b", "x"), member(3, "c", "x"), member(4, "d", "y")];
    assert_ne!(plan_of(&need(&copies), &all).steps, [Step::Remove { at: DstoreId(4) }]);
}

#[test]
fn a_dstore_that_drains_gives_its_copy_before_it_goes() {
    let mut all = members(4);
    all[0].duty = Duty::Draining;
    let mut copies = certain(&[1, 2, 3]);
    let first = plan_of(&need(&copies), &all);
    assert_eq!((first.urgency, copied_to(&first)), (Some(Urgency::Draining), vec![4]));
    copies.push(held(4, CopyState::Certain));
    copies.iter_mut().for_each(|copy| copy.is_verified = true);
    assert_eq!(plan_of(&need(&copies), &all).steps, [Step::Remove { at: DstoreId(1) }]);
}

#[test]
fn after_a_mass_failure_only_last_copies_are_repaired() {
    let mut all = members(6);
    for away in 0..3 {
        assert_eq!(is_mass_failure(&all), away > 2, "{away} of 6 are away");
        all[away].is_away = true;
        all[away].presence = Presence::Gone;
    }
    assert!(is_mass_failure(&all));
    let two = certain(&[4, 5]);
    assert_eq!(plan_of(&Need { is_guarded: true, ..need(&two) }, &all).steps, []);
    let one = certain(&[4]);
    assert_eq!(copied_to(&plan_of(&Need { is_guarded: true, ..need(&one) }, &all)), [5, 6]);
    // All machines of a zone, if it has several.
    let mut all: Vec<Member> =
        (1..=9).map(|id| member(id, &format!("h{id}"), if id < 3 { "x" } else { "y" })).collect();
    all[0].is_away = true;
    assert!(!is_mass_failure(&all));
    all[1].is_away = true;
    assert!(is_mass_failure(&all));
    all[1].host = all[0].host.clone();
    assert!(!is_mass_failure(&all), "it is one machine");
}

#[test]
fn copies_on_one_machine_spread_when_another_comes() {
    let mut all = [member(1, "a", ""), member(2, "a", ""), member(3, "a", ""), member(4, "b", "")];
    let copies = certain(&[1, 2, 3]);
    let plan = plan_of(&need(&copies), &all);
    assert_eq!((plan.urgency, copied_to(&plan)), (Some(Urgency::Spread), vec![4]));
    all[3].used = 0.91;
    assert_eq!(plan_of(&need(&copies), &all), QUIET, "it is too full for what is no repair");
    assert_eq!(plan_of(&need(&copies), &all[..3]), QUIET, "there is no other machine");
}

#[test]
fn a_copy_that_is_to_move_goes_once_the_new_one_is_certain() {
    let all = members(4);
    let moving = Some(Relocation { from: DstoreId(2), to: DstoreId(4) });
    let mut copies = certain(&[1, 2, 3]);
    let first = plan_of(&Need { moving, ..need(&copies) }, &all);
    assert_eq!((first.urgency, copied_to(&first)), (Some(Urgency::Balance), vec![4]));
    assert!(matches!(first.steps[0], Step::Copy { purpose: Purpose::Balance, .. }), "{first:?}");
    copies.push(held(4, CopyState::Certain));
    let verify = |id| Step::Verify { at: DstoreId(id) };
    assert_eq!(plan_of(&Need { moving, ..need(&copies) }, &all).steps, [verify(1), verify(3), verify(4)]);
    copies.iter_mut().for_each(|copy| copy.is_verified = copy.dstore != DstoreId(2));
    assert_eq!(plan_of(&Need { moving, ..need(&copies) }, &all).steps, [Step::Remove { at: DstoreId(2) }]);
    assert_eq!(plan_of(&Need { moving, ..need(&certain(&[1, 3, 4])) }, &all), QUIET);
    // A repair comes first; and what cannot be moved stays.
    let few = certain(&[1, 2]);
    assert_eq!(plan_of(&Need { moving, ..need(&few) }, &all).urgency, Some(Urgency::TooFew));
    let mut full = all.clone();
    full[3].used = 0.9;
    assert_eq!(plan_of(&Need { moving, ..need(&copies[..3]) }, &full), QUIET);
    // The copies that are left would be on fewer machines: the one that is to move is kept.
    let mut shared = all.clone();
    shared[3].host = "host-1".into();
    copies.iter_mut().for_each(|copy| copy.is_verified = true);
    let plan = plan_of(&Need { moving, ..need(&copies) }, &shared);
    assert_ne!(plan.steps, [Step::Remove { at: DstoreId(2) }]);
}

/// One object on a few Dstores, as it is and as it is known.
struct World {
    members: Vec<Member>,
    /// What is on the disks: true if it is good.
    disks: BTreeMap<DstoreId, bool>,
    /// What holdings say.
    held: BTreeMap<DstoreId, Held>,
    coming: BTreeSet<DstoreId>,
    wanted: usize,
    /// A copy is to move: the store is being balanced.
    moving: Option<Relocation>,
}

impl World {
    fn new(random: &mut fastrand::Rng) -> Self {
        let hosts = random.usize(1..6);
        let zones = random.usize(1..4);
        let members: Vec<Member> = (1..=random.u32(1..9))
            .map(|id| {
                let host = random.usize(..hosts);
                let zone = if zones == 1 { String::new() } else { format!("zone-{}", host % zones) };
                member(id, &format!("host-{host}"), &zone)
            })
            .collect();
        let wanted = random.usize(1..5);
        let (disks, held, coming, moving) = Default::default();
        let mut world = Self { members, disks, held, coming, wanted, moving };
        for member in 0..random.usize(1..=world.members.len()) {
            let id = world.members[member].id;
            world.disks.insert(id, true);
            world.report(id);
        }
        world
    }

    /// The Dstore reports what it has, over a link of its own.
    fn report(&mut self, id: DstoreId) {
        self.held.remove(&id);
        if self.disks.contains_key(&id) {
            self.held.insert(id, held(id.0, CopyState::Certain));
        }
        self.coming.remove(&id);
    }

    fn plan(&self, random: &mut fastrand::Rng) -> Plan {
        let copies: Vec<Held> = self.held.values().copied().collect();
        let coming: Vec<DstoreId> = self.coming.iter().copied().collect();
        let need = Need { coming: &coming, wanted: self.wanted, moving: self.moving, ..need(&copies) };
        plan(&need, &self.members, |n| random.usize(..n))
    }

    fn is_known(&self, id: DstoreId) -> bool {
        self.members.iter().any(|member| member.id == id && member.presence == Presence::Known)
    }

    /// Good copies at Dstores that are there and hold objects, other than one.
    fn good_beside(&self, but: DstoreId) -> usize {
        let is_active = |id: DstoreId| {
            self.members
                .iter()
                .any(|member| member.id == id && member.presence == Presence::Known && member.duty == Duty::Active)
        };
        self.disks.iter().filter(|(id, is_good)| **is_good && **id != but && is_active(**id)).count()
    }

    fn give(&mut self, step: Step, seed: u64) {
        match step {
            Step::Copy { to, from, .. } => {
                assert!(self.is_known(from) && self.is_known(to), "seed {seed}");
                assert!(self.coming.insert(to), "seed {seed}: ordered twice");
            }
            Step::Remove { at } => {
                let others = self.good_beside(at);
                assert!(others >= self.wanted, "seed {seed}: {others} good ones are left of {}", self.wanted);
                self.held.get_mut(&at).expect("it is held").is_leaving = true;
            }
            Step::Verify { .. } => {}
        }
    }

    /// The Dstore has carried an order out, or failed.
    fn carry_out(&mut self, step: Step, random: &mut fastrand::Rng) {
        match step {
            Step::Copy { from, to, .. } => {
                self.coming.remove(&to);
                match self.disks.get(&from).copied() {
                    _ if !self.is_known(from) || !self.is_known(to) || random.u8(..10) == 0 => {}
                    Some(true) => {
                        self.disks.insert(to, true);
                        self.held.insert(to, held(to.0, CopyState::Certain));
                    }
                    Some(false) => self.find_damaged(from),
                    None => {}
                }
            }
            Step::Verify { at } if self.is_known(at) => match self.disks.get(&at) {
                Some(true) => {
                    if let Some(copy) = self.held.get_mut(&at) {
                        (copy.is_verified, copy.state) = (true, CopyState::Certain);
                    }
                }
                Some(false) => self.find_damaged(at),
                None => drop(self.held.remove(&at)),
            },
            Step::Remove { at } if self.is_known(at) => {
                self.disks.remove(&at);
                self.held.remove(&at);
            }
            _ => {}
        }
    }

    fn find_damaged(&mut self, at: DstoreId) {
        if let Some(copy) = self.held.get_mut(&at) {
            copy.state = CopyState::Damaged;
        }
    }

    /// Something happens to a Dstore.
    fn disturb(&mut self, random: &mut fastrand::Rng) {
        let at = random.usize(..self.members.len());
        let id = self.members[at].id;
        match random.u8(..10) {
            0..=3 if self.members[at].presence == Presence::Known => {
                self.members[at].presence = if random.bool() { Presence::Resting } else { Presence::Gone };
                self.members[at].is_away = true;
                self.coming.remove(&id);
            }
            0..=6 => {
                self.members[at].presence = Presence::Known;
                self.members[at].is_away = false;
                self.report(id);
            }
            7 => self.members[at].duty = Duty::Draining,
            // One good copy is left somewhere: of nothing, nothing can be made. And a copy may rot between its verification
            // and the removal of another: only a scrub finds that.
            8 if self.disks.values().filter(|is_good| **is_good).count() > 1
                && self.held.values().all(|copy| !copy.is_leaving) =>
            {
                if let Some(is_good) = self.disks.get_mut(&id) {
                    *is_good = false;
                    // What rots after it was verified is found by the next scrub.
                    if let Some(copy) = self.held.get_mut(&id) {
                        copy.is_verified = false;
                    }
                }
            }
            _ => {}
        }
    }
}

#[test]
fn plans_lead_to_enough_good_copies_and_then_rest() {
    for seed in 0..1_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = World::new(&mut random);
        let mut under_way: Vec<Step> = Vec::new();
        for round in 0..200 {
            if round < 40 && random.bool() {
                world.disturb(&mut random);
                let some = |random: &mut fastrand::Rng| world.members[random.usize(..world.members.len())].id;
                let (from, to) = (some(&mut random), some(&mut random));
                world.moving = random.bool().then_some(Relocation { from, to });
            }
            if round == 40 {
                // All come back; nothing happens to them any more.
                world.moving = None;
                for at in 0..world.members.len() {
                    world.members[at].presence = Presence::Known;
                    world.members[at].is_away = false;
                }
                under_way.clear(); // links have ended, and with them their orders
                world.coming.clear();
                (0..world.members.len()).for_each(|at| world.report(world.members[at].id));
            }
            for step in world.plan(&mut random).steps {
                if !under_way.contains(&step) {
                    world.give(step, seed);
                    under_way.push(step);
                }
            }
            random.shuffle(&mut under_way);
            for step in under_way.split_off(under_way.len() / 2) {
                world.carry_out(step, &mut random);
            }
        }
        let able = world.members.iter().filter(|member| member.duty == Duty::Active).count();
        let expected = world.wanted.min(able);
        // What rots unseen is no concern of a plan; what is known is right.
        let known: Vec<&Held> = world.held.values().filter(|copy| copy.state == CopyState::Certain).collect();
        assert_eq!(world.plan(&mut random).steps, [], "seed {seed}: not at rest");
        if able >= world.wanted {
            assert_eq!(known.len(), expected, "seed {seed}: {known:?}");
            assert!(
                known.iter().all(|copy| world.members.iter().any(|m| m.id == copy.dstore && m.duty == Duty::Active))
            );
            let members = known.iter().filter_map(|copy| world.members.iter().find(|m| m.id == copy.dstore));
            let found = spread(members);
            let active = || world.members.iter().filter(|member| member.duty == Duty::Active);
            let (zones, hosts) = spread(active());
            let (zones, hosts) = (zones.min(expected), hosts.min(expected));
            assert_eq!(found, (zones, hosts), "seed {seed}: {known:?} of {:?}", world.members);
        }
        assert!(world.disks.values().any(|is_good| *is_good), "seed {seed}: the object is lost");
    }
}

#[test]
fn a_plan_for_a_store_at_rest_costs_no_order() {
    for seed in 0..1_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = World::new(&mut random);
        for _ in 0..30 {
            for step in world.plan(&mut random).steps {
                world.give(step, seed);
                world.carry_out(step, &mut random);
            }
        }
        if world.plan(&mut random).steps.is_empty() {
            let before = world.held.clone();
            for at in 0..world.members.len() {
                // A short absence.
                for presence in [Presence::Resting, Presence::Unknown, Presence::Known] {
                    world.members[at].presence = presence;
                    assert_eq!(world.plan(&mut random).steps, [], "seed {seed}: Dstore {} is {presence:?}", at + 1);
                }
            }
            assert_eq!(world.held, before);
        } else {
            panic!("seed {seed}: not at rest after 30 rounds");
        }
    }
}
