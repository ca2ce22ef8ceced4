//! Which copies are to move so that Dstores are filled alike. (depot 6.4)
//!
//! The *share* of a Dstore is the part of its space that its objects take. Shares may differ by 5 points. Where they differ by
//! more, there is one band of 5 points for which what Dstores above it have too much is as much as what those below it lack.
//! To bring all Dstores into that band is the least movement that is enough.
//!
//! ```text
//! share     60 %  50 %  48 %  0 % (new)
//!            ▇     ▇     ▇                 gives, gives, gives
//!           ─┼─────┼─────┼─────────────── 41 %
//!            ▇     ▇     ▇     ░                 the band
//!           ─┼─────┼─────┼─────░───────── 36 %
//!            ▇     ▇     ▇     ░           takes
//! ```
//!
//! A copy moves only if the Dstore that gives it stays at least as full as the one that takes it. So each move makes shares more
//! alike, and none is ever taken back.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::plan::{Member, spread, takes};
use crate::identity::DstoreId;
use crate::pack::Purpose;

/// Shares may differ by so much.
const MOST_APART: f64 = 0.05;

/// Halves the band's place is searched with: finer than a byte.
const STEPS: usize = 64;

/// The space of a Dstore that holds objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Its number.
    pub id: DstoreId,
    /// The bytes of its objects.
    pub used: u64,
    /// The bytes that it has left.
    pub free: u64,
}

/// A copy moves from one Dstore to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// It has a copy, which goes once the other one is certain.
    pub from: DstoreId,
    /// It has none yet.
    pub to: DstoreId,
}

/// What Dstores are to give and to take. What is [chosen](Self::choose) counts as done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Balance {
    rooms: BTreeMap<DstoreId, Room>,
    gives: BTreeMap<DstoreId, u64>,
    takes: BTreeMap<DstoreId, u64>,
    /// Those that take, the one that lacks most first: of a thousand, the first few are looked at.
    takers: BTreeSet<(Reverse<u64>, DstoreId)>,
}

impl Room {
    fn capacity(&self) -> f64 {
        (self.used as f64 + self.free as f64).max(1.0)
    }

    fn share(&self) -> f64 {
        self.used as f64 / self.capacity()
    }

    /// So many bytes above a share; none if it is below.
    fn above(&self, share: f64) -> f64 {
        (self.used as f64 - share * self.capacity()).max(0.0)
    }

    /// So many bytes below a share; none if it is above.
    fn below(&self, share: f64) -> f64 {
        (share * self.capacity() - self.used as f64).max(0.0)
    }
}

impl Balance {
    /// What is to move among these Dstores; nothing if their shares are alike enough.
    pub fn of(rooms: &[Room]) -> Self {
        let mut balance = Self { rooms: rooms.iter().map(|room| (room.id, *room)).collect(), ..Self::default() };
        if balance.apart() > MOST_APART {
            let (mut low, mut high) = (0.0, 1.0);
            for _ in 0..STEPS {
                let middle = (low + high) / 2.0;
                let lacking: f64 = rooms.iter().map(|room| room.below(middle)).sum();
                let too_much: f64 = rooms.iter().map(|room| room.above(middle + MOST_APART)).sum();
                if lacking < too_much { low = middle } else { high = middle }
            }
            let some = |bytes: f64| Some(bytes.ceil() as u64).filter(|bytes| *bytes > 0);
            let above = |room: &Room| Some((room.id, some(room.above(low + MOST_APART))?));
            balance.gives = rooms.iter().filter_map(above).collect();
            balance.takes = rooms.iter().filter_map(|room| Some((room.id, some(room.below(low))?))).collect();
            balance.takers = balance.takes.iter().map(|(id, quota)| (Reverse(*quota), *id)).collect();
        }
        balance
    }

    /// By how much shares differ, from 0 to 1.
    pub fn apart(&self) -> f64 {
        let shares = || self.rooms.values().map(Room::share);
        (shares().fold(0.0, f64::max) - shares().fold(1.0, f64::min)).max(0.0)
    }

    /// Whether nothing is to move, or nothing more.
    pub fn is_done(&self) -> bool {
        self.gives.is_empty() || self.takes.is_empty()
    }

    /// Whether this Dstore is to give copies away.
    pub fn gives(&self, dstore: DstoreId) -> bool {
        self.gives.contains_key(&dstore)
    }

    /// A copy of an object that is to move, if one is: from the Dstore that has most to give to the one that lacks most, so that
    /// the copies stay in as many zones and on as many machines.
    ///
    /// `copies` are the Dstores that have it: as many as should. Members are in the order of their numbers.
    pub fn choose(&mut self, length: u64, copies: &[DstoreId], members: &[Member]) -> Option<Relocation> {
        let member = |id: DstoreId| members.binary_search_by_key(&id, |member| member.id).ok().map(|at| &members[at]);
        let has_copy = |id: &DstoreId| copies.contains(id);
        let can_take = |id: &DstoreId| {
            let room = &self.rooms[id];
            let rest = room.free.saturating_sub(length) as f64 / room.capacity();
            let least = 1.0 - f64::from(Purpose::Balance.most_percent()) / 100.0;
            !has_copy(id) && rest > least && member(*id).is_some_and(|member| takes(member, Purpose::Balance))
        };
        let stays_fuller = |relocation: &Relocation| {
            let (from, to) = (&self.rooms[&relocation.from], &self.rooms[&relocation.to]);
            let (given, taken) = (from.used.saturating_sub(length) as f64, (to.used + length) as f64);
            given / from.capacity() >= taken / to.capacity()
        };
        let places = |ids: &[DstoreId]| spread(ids.iter().filter_map(|id| member(*id)));
        let now = places(copies);
        let stays_spread = |relocation: &Relocation| {
            let after = |id: &DstoreId| if *id == relocation.from { relocation.to } else { *id };
            places(&copies.iter().map(after).collect::<Vec<_>>()) >= now
        };
        let givers = copies.iter().filter_map(|id| Some((Reverse(*self.gives.get(id)?), *id)));
        let mut givers: Vec<(Reverse<u64>, DstoreId)> = givers.collect();
        givers.sort_unstable();
        let targets = || self.takers.iter().map(|(_, id)| *id).filter(can_take);
        let found = givers
            .iter()
            .flat_map(|(_, from)| targets().map(|to| Relocation { from: *from, to }))
            .find(|relocation| stays_fuller(relocation) && stays_spread(relocation))?;
        self.count(found, length);
        Some(found)
    }

    fn count(&mut self, relocation: Relocation, length: u64) {
        let Relocation { from, to } = relocation;
        if let Some(room) = self.rooms.get_mut(&from) {
            room.used = room.used.saturating_sub(length);
            room.free += length;
        }
        if let Some(room) = self.rooms.get_mut(&to) {
            room.used += length;
            room.free = room.free.saturating_sub(length);
        }
        lessen(&mut self.gives, from, length);
        if let Some((before, after)) = lessen(&mut self.takes, to, length) {
            self.takers.remove(&(Reverse(before), to));
            if after > 0 {
                self.takers.insert((Reverse(after), to));
            }
        }
    }
}

/// Takes some bytes from what a Dstore is to give or to take, which has an end with the last. What it was, and what it is.
fn lessen(quotas: &mut BTreeMap<DstoreId, u64>, id: DstoreId, length: u64) -> Option<(u64, u64)> {
    let quota = quotas.get_mut(&id)?;
    let before = *quota;
    let after = before.saturating_sub(length);
    *quota = after;
    if after == 0 {
        quotas.remove(&id);
    }
    Some((before, after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::change::Duty;
    use crate::placement::Presence;

    fn room(id: u32, used: u64, free: u64) -> Room {
        Room { id: DstoreId(id), used, free }
    }

    fn member(id: u32, host: &str, zone: &str) -> Member {
        Member {
            id: DstoreId(id),
            host: host.into(),
            zone: zone.into(),
            duty: Duty::Active,
            presence: Presence::Known,
            is_away: false,
            used: 0.5,
            load: 0.0,
        }
    }

    fn members(count: u32) -> Vec<Member> {
        (1..=count).map(|id| member(id, &format!("host-{id}"), "")).collect()
    }

    fn ids(numbers: &[u32]) -> Vec<DstoreId> {
        numbers.iter().copied().map(DstoreId).collect()
    }

    #[test]
    fn shares_that_are_alike_enough_are_left() {
        assert!(Balance::of(&[]).is_done());
        assert!(Balance::of(&[room(1, 90, 10)]).is_done());
        assert!(Balance::of(&[room(1, 500, 500), room(2, 46, 54), room(3, 0, 0)]).apart() > 0.05, "3 is empty");
        let even = Balance::of(&[room(1, 500, 500), room(2, 46, 54)]);
        assert!(even.is_done() && even.apart() < 0.05, "{even:?}");
    }

    #[test]
    fn what_is_above_the_band_goes_where_it_is_lacking() {
        // Two of a thousand bytes each. With a band from 22.5 % to 27.5 %, 225 bytes move.
        let balance = Balance::of(&[room(1, 500, 500), room(2, 0, 1000)]);
        let (gives, takes) = (balance.gives[&DstoreId(1)], balance.takes[&DstoreId(2)]);
        assert!((224..=226).contains(&gives) && (224..=226).contains(&takes), "{balance:?}");
        // One within the band takes no part; a small disk gives as much of its share as a large one.
        let balance = Balance::of(&[room(1, 600, 400), room(2, 6000, 4000), room(3, 400, 600), room(4, 0, 10_000)]);
        assert!(balance.gives(DstoreId(1)) && balance.gives(DstoreId(2)) && !balance.gives(DstoreId(4)), "{balance:?}");
        let ratio = balance.gives[&DstoreId(2)] as f64 / balance.gives[&DstoreId(1)] as f64;
        assert!((9.9..10.1).contains(&ratio), "{balance:?}");
    }

    #[test]
    fn a_copy_moves_only_where_it_is_as_safe() {
        let rooms = [room(1, 900, 100), room(2, 900, 100), room(3, 0, 1000), room(4, 0, 1000)];
        let pick = |members: &[Member]| Balance::of(&rooms).choose(1, &ids(&[1, 2]), members);
        let all = members(4);
        assert_eq!(pick(&all), Some(Relocation { from: DstoreId(1), to: DstoreId(3) }));
        // 3 is on the machine of 2: then the copy of 2 goes there, or that of 1 to 4.
        let mut shared = all.clone();
        shared[2].host = "host-2".into();
        let found = Balance::of(&rooms[..3]).choose(1, &ids(&[1, 2]), &shared);
        assert_eq!(found, Some(Relocation { from: DstoreId(2), to: DstoreId(3) }));
        let zones = [member(1, "a", "x"), member(2, "b", "y"), member(3, "c", "y"), member(4, "d", "y")];
        assert_eq!(pick(&zones).map(|found| found.from), Some(DstoreId(2)), "one stays in zone x");
        // Neither where there is a copy, nor where there is no room, nor where none may be put.
        assert_eq!(Balance::of(&rooms).choose(1, &ids(&[1, 2, 3, 4]), &all), None);
        let nearly_full = [room(1, 990, 10), room(2, 880, 120)];
        assert!(Balance::of(&nearly_full).choose(10, &ids(&[1]), &all).is_some());
        assert_eq!(Balance::of(&nearly_full).choose(30, &ids(&[1]), &all), None, "a disk would be over 90 % full");
        let mut full = all.clone();
        (full[2].used, full[3].duty) = (0.91, Duty::Draining);
        assert_eq!(pick(&full), None);
        assert_eq!(Balance::of(&rooms).choose(460, &ids(&[1, 2]), &all), None, "3 would be fuller than 1 then");
    }

    /// Objects on Dstores of many sizes, on some machines and in some zones. Batches of moves are chosen and carried out until
    /// there are none.
    #[test]
    fn moves_even_shares_out_with_little_movement_and_end() {
        for seed in 0..500 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (count, hosts, zones) = (random.u32(2..10), random.u32(1..10), random.u32(1..4));
            let members: Vec<Member> = (1..=count)
                .map(|id| {
                    let host = random.u32(..hosts);
                    let zone = if zones == 1 { String::new() } else { format!("zone-{}", host % zones) };
                    member(id, &format!("host-{host}"), &zone)
                })
                .collect();
            let capacities: Vec<u64> = members.iter().map(|_| random.u64(4_000..20_000)).collect();
            // The last Dstore may be new, and there are more than one at times.
            let old = random.u32(1..=count);
            let copies_of_each = random.usize(1..=3.min(old as usize));
            let mut objects: Vec<(u64, Vec<DstoreId>)> = Vec::new();
            for _ in 0..random.usize(1..200) {
                let mut places: Vec<u32> = (1..=old).collect();
                random.shuffle(&mut places);
                objects.push((random.u64(1..60), ids(&places[..copies_of_each])));
            }
            let rooms = |objects: &[(u64, Vec<DstoreId>)]| -> Vec<Room> {
                let used = |id: DstoreId| {
                    objects.iter().filter(|(_, copies)| copies.contains(&id)).map(|(length, _)| length).sum()
                };
                let room = |(member, capacity): (&Member, &u64)| {
                    let used: u64 = used(member.id);
                    Room { id: member.id, used, free: capacity - used.min(*capacity) }
                };
                members.iter().zip(&capacities).map(room).collect()
            };
            let of = |copies: &[DstoreId]| spread(copies.iter().map(|id| &members[id.0 as usize - 1]));
            let first = Balance::of(&rooms(&objects));
            let enough: u64 = first.gives.values().sum();
            let (mut moved, mut apart) = (0, first.apart());
            loop {
                let mut balance = Balance::of(&rooms(&objects));
                assert!(balance.apart() <= apart + 1e-9, "seed {seed}: shares differ by more than before");
                apart = balance.apart();
                let mut has_moved = false;
                for (length, copies) in &mut objects {
                    if random.u8(..4) == 0 {
                        continue; // something else is done with it just now
                    }
                    let Some(Relocation { from, to }) = balance.choose(*length, copies, &members) else { continue };
                    assert!(!copies.contains(&to), "seed {seed}");
                    let before = of(copies);
                    *copies.iter_mut().find(|id| **id == from).expect("it has a copy") = to;
                    assert!(of(copies) >= before, "seed {seed}: {from} to {to}");
                    moved += *length;
                    has_moved = true;
                }
                if !has_moved {
                    // What was passed over may be what could move.
                    let mut rest = Balance::of(&rooms(&objects));
                    let can_move =
                        objects.iter().any(|(length, copies)| rest.choose(*length, copies, &members).is_some());
                    if !can_move {
                        break;
                    }
                }
            }
            // Each batch may end with a part of an object more than its quota, at each Dstore that gives.
            let most = enough + 60 * u64::from(count) * 3;
            assert!(moved <= most, "seed {seed}: {moved} bytes moved, {enough} were enough");
            let is_free = hosts > 5 && zones == 1 && copies_of_each == 1;
            let hosts_differ = (1..=count)
                .all(|id| members.iter().filter(|member| member.host == members[id as usize - 1].host).count() == 1);
            if is_free && hosts_differ {
                assert!(apart <= MOST_APART + 0.02, "seed {seed}: {apart}, though nothing is in the way");
            }
        }
    }
}
