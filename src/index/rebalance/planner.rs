//! Who should hold what: a pure function. (spec 4.6)
//!
//! A plan puts every file on exactly R Dstores, and between floor(RF/N) and ceil(RF/N) of the F
//! files' copies on every Dstore, and no plan that does so sends fewer. It is made in three steps:
//!
//! 1. *Settle*: every file keeps as many of its holders as R allows, and copies that it lacks are
//!    assigned to whoever has least. Balance apart, no layout costs fewer sends.
//! 2. *Move for free*: a copy that must be sent anyway may as well be sent elsewhere, and a file
//!    with holders to spare may keep another of them instead. Chains of such moves lead from full
//!    Dstores to emptier ones; using as many as possible is a maximum flow between Dstores.
//! 3. *Move at a price*: what is still out of balance moves directly, each copy for one more send.
//!    A full Dstore has a file that an emptier one lacks, so a direct move always exists.
//!
//! This is the method of successive shortest paths for flows of minimum cost (Jewell 1958; Ahuja,
//! Magnanti and Orlin, *Network Flows*, 9.7), the length of a path being the sends that it adds. As
//! long as every unit of load takes a shortest path, the cost stays the least for the balance
//! reached so far, and the lengths never decrease. Here they are 0 until step 2 finds no more, and
//! at least 1 from then on; and a direct move is never longer than 1. So step 3 need not search,
//! and what it ends with is optimal.

use std::cmp::Reverse;

use super::{Plan, Removal, Transfer};

/// Which Dstores hold which files, by number: Dstores from 0, files from 0 in the order pushed.
#[derive(Debug, Clone)]
pub struct Holdings {
    dstores: usize,
    /// By Dstore.
    newcomers: Vec<bool>,
    /// File `f` is held by `holders[starts[f]..starts[f + 1]]`.
    starts: Vec<usize>,
    holders: Vec<u32>,
}

impl Holdings {
    /// No files yet, on Dstores 0 to `dstores` - 1.
    pub fn new(dstores: usize) -> Self {
        Self { dstores, newcomers: vec![false; dstores], starts: vec![0], holders: Vec::new() }
    }

    /// From now on `dstore` is one that has just joined: of the plans that are equally good, that is made which leaves as
    /// many files as it can a copy on another. Without newcomers this costs nothing.
    pub fn mark_newcomer(&mut self, dstore: u32) {
        self.newcomers[dstore as usize] = true;
    }

    /// Whether `dstore` has just joined.
    pub fn is_newcomer(&self, dstore: u32) -> bool {
        self.newcomers[dstore as usize]
    }

    fn has_newcomers(&self) -> bool {
        self.newcomers.contains(&true)
    }

    /// Adds the next file. It needs at least one holder, and its holders must be distinct.
    pub fn push(&mut self, holders: impl IntoIterator<Item = u32>) {
        let start = self.holders.len();
        self.holders.extend(holders);
        let added = &self.holders[start..];
        assert!(!added.is_empty(), "a file that nobody holds cannot be sent");
        assert!(added.iter().all(|&d| (d as usize) < self.dstores), "no such Dstore: {added:?}");
        debug_assert!((1..added.len()).all(|i| !added[..i].contains(&added[i])), "{added:?}");
        self.starts.push(self.holders.len());
    }

    /// How many files there are.
    pub fn files(&self) -> usize {
        self.starts.len() - 1
    }

    /// How many Dstores take part, whether or not they hold anything.
    pub fn dstores(&self) -> usize {
        self.dstores
    }

    /// The Dstores that hold `file`, in the order given to [`push`](Self::push).
    pub fn holders(&self, file: usize) -> &[u32] {
        &self.holders[self.starts[file]..self.starts[file + 1]]
    }
}

/// The plan with the fewest sends that puts every file on `replicas` Dstores and balances them.
///
/// The same arguments always give the same plan; a layout that needs no change gets an empty one.
/// `replicas` must be at least 1 and at most the number of Dstores. (spec 3.3)
pub fn plan(holdings: &Holdings, replicas: usize) -> Plan {
    assert!(replicas >= 1, "a file on no Dstore is lost");
    assert!(replicas <= holdings.dstores(), "R different Dstores need at least R of them");
    let copies = holdings.files() * replicas;
    let low = copies / holdings.dstores();
    let high = copies.div_ceil(holdings.dstores());

    let mut layout = Layout::settle(holdings, replicas);
    layout.move_for_free(high, high);
    layout.move_for_free(low, low);
    // From too full to too empty first: such a move mends both for one send.
    layout.move_at_a_price(high, low);
    layout.move_at_a_price(high, high);
    layout.move_at_a_price(low, low);
    layout.into_plan()
}

/// Where the copies are to be when the plan has been carried out.
struct Layout<'a> {
    holdings: &'a Holdings,
    replicas: usize,
    /// `replicas` Dstores for each file, one file after the other.
    slots: Vec<u32>,
    /// How many copies each Dstore is to have.
    loads: Vec<usize>,
}

/// Free moves that shift load from Dstores with more than `above` copies to others with fewer than
/// `below`, as a maximum flow by shortest paths (Dinic 1970): in each round Dstores are layered by
/// their distance from those that give, and every move leads one layer further down.
struct FreeMoves<'l, 'a> {
    layout: &'l mut Layout<'a>,
    above: usize,
    below: usize,
    /// For each Dstore, the files whose copy there could move for free.
    loose: Vec<Vec<u32>>,
    /// For each Dstore, how many of its loose files are known to lead nowhere in this round.
    cursors: Vec<usize>,
    /// For each Dstore, its layer; `NO_LAYER` if it is out of reach or leads nowhere.
    depths: Vec<usize>,
    /// The Dstores of each layer. Those that give are the first, and one that takes is in the last.
    layers: Vec<Vec<u32>>,
}

const NO_LAYER: usize = usize::MAX;

impl<'a> Layout<'a> {
    /// The cheapest layout with `replicas` copies of each file, only roughly balanced.
    fn settle(holdings: &'a Holdings, replicas: usize) -> Self {
        let mut loads = vec![0; holdings.dstores()];
        for &dstore in &holdings.holders {
            loads[dstore as usize] += 1;
        }
        let mut slots = Vec::with_capacity(holdings.files() * replicas);
        for file in 0..holdings.files() {
            let start = slots.len();
            slots.extend_from_slice(holdings.holders(file));
            let kept = &mut slots[start..];
            if kept.len() > replicas {
                kept.sort_unstable_by_key(|&d| (loads[d as usize], d));
                // One that has not just joined is kept before all others.
                if let Some(at) = kept.iter().position(|&d| !holdings.is_newcomer(d)) {
                    kept[..=at].rotate_right(1);
                }
                for &dropped in &kept[replicas..] {
                    loads[dropped as usize] -= 1;
                }
            }
            slots.resize(start + replicas, 0);
        }
        let mut layout = Self { holdings, replicas, slots, loads };
        layout.fill();
        layout
    }

    /// Assigns the copies that files lack to the Dstores that have the fewest.
    fn fill(&mut self) {
        let loads = &mut self.loads;
        let mut by_load: Vec<u32> = (0..self.holdings.dstores() as u32).collect();
        by_load.sort_by_key(|&d| loads[d as usize]);
        for file in 0..self.holdings.files() {
            let slots = &mut self.slots[file * self.replicas..][..self.replicas];
            for slot in self.holdings.holders(file).len()..self.replicas {
                let place = by_load.iter().position(|d| !slots[..slot].contains(d));
                let place = place.expect("R is at most N");
                let dstore = by_load[place];
                slots[slot] = dstore;
                // The order stays true if the last of its equals is the one to grow.
                let load = loads[dstore as usize];
                let last = by_load.partition_point(|&d| loads[d as usize] <= load) - 1;
                by_load.swap(place, last);
                loads[dstore as usize] += 1;
            }
        }
    }

    /// Shifts load from Dstores with more than `above` copies to others with fewer than `below`, as
    /// far as that takes no more sends.
    fn move_for_free(&mut self, above: usize, below: usize) {
        let dstores = self.holdings.dstores();
        let mut loose = vec![Vec::new(); dstores];
        for file in 0..self.holdings.files() {
            let holders = self.holdings.holders(file);
            if holders.len() != self.replicas {
                for dstore in self.slots(file) {
                    if self.has_spare_holders(file) || !holders.contains(dstore) {
                        loose[*dstore as usize].push(file as u32);
                    }
                }
            }
        }
        if self.holdings.has_newcomers() {
            // A file's last copy on a Dstore that is no newcomer is tried last.
            for (dstore, files) in (0..).zip(&mut loose) {
                files.sort_by_key(|&file| self.is_last_of_old(file as usize, dstore));
            }
        }
        let cursors = vec![0; dstores];
        let depths = vec![NO_LAYER; dstores];
        FreeMoves { layout: self, above, below, loose, cursors, depths, layers: Vec::new() }.run();
    }

    /// Moves copies from Dstores with more than `above` to others with fewer than `below`, until
    /// there are none of the former or none of the latter. `below` is at most `above`.
    ///
    /// One pass is enough: it leaves a copy on a Dstore that has too many only if every Dstore that
    /// wants more has one too. If that held for all its copies, the others would have as many.
    /// Where there are newcomers, another pass before it leaves out each file's last copy elsewhere.
    fn move_at_a_price(&mut self, above: usize, below: usize) {
        if self.holdings.has_newcomers() {
            self.pass_along(above, below, true);
        }
        self.pass_along(above, below, false);
    }

    /// One pass; with `is_careful` no file's last copy on a Dstore that is no newcomer is moved to one.
    fn pass_along(&mut self, above: usize, below: usize, is_careful: bool) {
        let dstores = 0..self.holdings.dstores() as u32;
        let mut takers: Vec<u32> = dstores.filter(|&d| self.loads[d as usize] < below).collect();
        for file in 0..self.holdings.files() {
            if takers.is_empty() {
                return;
            }
            if is_careful {
                // From the fullest first: each of the older Dstores then keeps the last copy of some files.
                let slots = &mut self.slots[file * self.replicas..][..self.replicas];
                slots.sort_by_key(|&d| Reverse(self.loads[d as usize]));
            }
            for slot in 0..self.replicas {
                let from = self.slots(file)[slot];
                if self.loads[from as usize] <= above {
                    continue;
                }
                let is_last = is_careful && self.is_last_of_old(file, from);
                let is_refused = |d: u32| self.slots(file).contains(&d) || is_last && self.holdings.is_newcomer(d);
                if let Some(turn) = takers.iter().position(|&d| !is_refused(d)) {
                    let to = takers.remove(turn);
                    self.relocate(file, from, to);
                    // They take turns, so that no part of the plan waits for a single receiver.
                    if self.loads[to as usize] < below {
                        takers.push(to);
                    }
                }
            }
        }
    }

    /// Whether the copy of `file` on `dstore` is the only one that is not on a newcomer.
    fn is_last_of_old(&self, file: usize, dstore: u32) -> bool {
        let is_old = |&d: &u32| !self.holdings.is_newcomer(d);
        is_old(&dstore) && self.slots(file).iter().copied().filter(is_old).all(|d| d == dstore)
    }

    /// How to get from the holdings to this layout.
    fn into_plan(self) -> Plan {
        let mut plan = Plan::default();
        let mut sent = vec![0_usize; self.holdings.dstores()];
        let mut losers = Vec::new();
        let mut receivers = Vec::new();
        for file in 0..self.holdings.files() {
            let (holders, slots) = (self.holdings.holders(file), self.slots(file));
            losers.clear();
            losers.extend(holders.iter().copied().filter(|d| !slots.contains(d)));
            receivers.clear();
            receivers.extend(slots.iter().copied().filter(|d| !holders.contains(d)));

            // Each copy that goes is sent to one that comes, by the Dstore that loses it: if the
            // send fails, the old copy is still there. (spec 7.17) Copies that go beyond those are
            // more than R, and nobody relies on them.
            losers.sort_by_key(|&d| sent[d as usize]);
            for (i, &to) in receivers.iter().enumerate() {
                let idlest = || holders.iter().copied().min_by_key(|&d| sent[d as usize]);
                let from = losers.get(i).copied().or_else(idlest).expect("a file has a holder");
                sent[from as usize] += 1;
                plan.transfers.push(Transfer { file: file as u32, from, to });
            }
            plan.removals.extend(losers.iter().map(|&from| Removal { file: file as u32, from }));
        }
        plan
    }

    /// The Dstores that `file` is to be on.
    fn slots(&self, file: usize) -> &[u32] {
        &self.slots[file * self.replicas..][..self.replicas]
    }

    /// Whether `file` has more holders than it may keep; if not, it keeps all of them until step 3.
    fn has_spare_holders(&self, file: usize) -> bool {
        self.holdings.holders(file).len() > self.replicas
    }

    /// Moves the copy of `file` that was to be on `from` to `to`.
    fn relocate(&mut self, file: usize, from: u32, to: u32) {
        let slots = &mut self.slots[file * self.replicas..][..self.replicas];
        let slot = slots.iter_mut().find(|slot| **slot == from);
        *slot.expect("only a copy that is there moves") = to;
        self.loads[from as usize] -= 1;
        self.loads[to as usize] += 1;
    }
}

impl FreeMoves<'_, '_> {
    fn run(&mut self) {
        while self.find_layers() {
            self.cursors.fill(0);
            for giver in self.layers[0].clone() {
                while self.layout.loads[giver as usize] > self.above && self.give(giver) {}
            }
        }
    }

    /// Layers the Dstores down to the first layer with one that takes; false if none is in reach.
    fn find_layers(&mut self) -> bool {
        let loads = &self.layout.loads;
        let dstores = 0..self.layout.holdings.dstores() as u32;
        let (givers, mut unreached): (Vec<u32>, Vec<u32>) = dstores.partition(|&d| loads[d as usize] > self.above);
        self.depths.fill(NO_LAYER);
        for &giver in &givers {
            self.depths[giver as usize] = 0;
        }
        self.layers = vec![givers];
        loop {
            let depth = self.layers.len();
            let mut layer = Vec::new();
            for &from in &self.layers[depth - 1] {
                for &file in &self.loose[from as usize] {
                    let file = file as usize;
                    let slots = self.layout.slots(file);
                    let mut is_reached = |to: &u32| {
                        let known = &mut self.depths[*to as usize];
                        if *known == NO_LAYER && !slots.contains(to) {
                            *known = depth;
                            layer.push(*to);
                        }
                        *known != NO_LAYER
                    };
                    if self.layout.has_spare_holders(file) {
                        for to in self.layout.holdings.holders(file) {
                            is_reached(to);
                        }
                    } else {
                        unreached.retain(|to| !is_reached(to));
                    }
                }
            }
            if layer.is_empty() {
                return false;
            }
            let is_last = layer.iter().any(|&d| loads[d as usize] < self.below);
            self.layers.push(layer);
            if is_last {
                return true;
            }
        }
    }

    /// Passes a unit of load on from `from`, layer by layer, to a Dstore that takes it; false if no
    /// way down is left in this round.
    fn give(&mut self, from: u32) -> bool {
        let depth = self.depths[from as usize] + 1;
        while let Some(&file) = self.loose[from as usize].get(self.cursors[from as usize]) {
            while let Some(to) = self.next_stop(file as usize, depth) {
                if self.layout.loads[to as usize] < self.below || self.give(to) {
                    self.layout.relocate(file as usize, from, to);
                    self.loose[from as usize].swap_remove(self.cursors[from as usize]);
                    self.loose[to as usize].push(file);
                    return true;
                }
            }
            self.cursors[from as usize] += 1;
        }
        self.depths[from as usize] = NO_LAYER;
        self.layers[depth - 1].retain(|&d| d != from);
        false
    }

    /// A Dstore in layer `depth` to which a loose copy of `file` can move for free.
    fn next_stop(&self, file: usize, depth: usize) -> Option<u32> {
        let stops = if self.layout.has_spare_holders(file) {
            self.layout.holdings.holders(file)
        } else {
            self.layers.get(depth)?
        };
        let slots = self.layout.slots(file);
        stops.iter().copied().find(|d| self.depths[*d as usize] == depth && !slots.contains(d))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn a_plan_restores_replication_and_balance_and_then_rests() {
        for seed in 1..=3_000 {
            let (before, replicas) = arbitrary_holdings(&mut Rng(seed), 8, 40);
            let plan = plan(&before, replicas);
            let after = apply(&before, &plan);
            let context = || format!("seed {seed}, R {replicas}: {before:?} {plan:?}");
            assert_meets_the_spec(&after, replicas, context);
            assert_eq!(super::plan(&after, replicas), Plan::default(), "{}", context());
        }
    }

    #[test]
    fn a_balanced_layout_gets_an_empty_plan() {
        for (dstores, files, replicas) in [(1, 5, 1), (4, 0, 3), (4, 7, 1), (5, 12, 3), (6, 20, 6)] {
            let mut holdings = Holdings::new(dstores);
            for file in 0..files {
                let next = |copy| ((file * replicas + copy) % dstores) as u32;
                holdings.push((0..replicas).map(next));
            }
            assert_meets_the_spec(&holdings, replicas, || "round robin".to_owned());
            assert_eq!(plan(&holdings, replicas), Plan::default(), "{holdings:?}");
        }
    }

    #[test]
    fn a_dstore_that_joins_gets_its_share_and_nothing_else_moves() {
        for seed in 1..=300 {
            let (before, replicas) = balanced_holdings(&mut Rng(seed));
            let joined = with_dstores(&before, before.dstores() + 1, Some);
            let plan = plan(&joined, replicas);
            assert_meets_the_spec(&apply(&joined, &plan), replicas, || format!("seed {seed}"));
            let newcomer = before.dstores() as u32;
            assert!(plan.transfers.iter().all(|send| send.to == newcomer), "seed {seed}: {plan:?}");
        }
    }

    #[test]
    fn when_a_dstore_is_lost_only_its_copies_are_sent_again() {
        for seed in 1..=300 {
            let mut rng = Rng(seed);
            let (before, replicas) = balanced_holdings(&mut rng);
            let lost = rng.below(before.dstores()) as u32;
            let left = with_dstores(&before, before.dstores() - 1, |d| {
                (d != lost).then_some(if d > lost { d - 1 } else { d })
            });
            let plan = plan(&left, replicas);
            assert_meets_the_spec(&apply(&left, &plan), replicas, || format!("seed {seed}"));
            assert_eq!(plan.transfers.len(), loads(&before)[lost as usize], "seed {seed}: {plan:?}");
            assert_eq!(plan.removals, [], "seed {seed}");
        }
    }

    #[test]
    fn holders_take_turns_to_send() {
        let mut holdings = Holdings::new(3);
        for _ in 0..11 {
            holdings.push([0, 1]);
        }
        let plan = plan(&holdings, 3);
        let sent = |from| plan.transfers.iter().filter(|send| send.from == from).count();
        assert_eq!((sent(0), sent(1)), (6, 5));
    }

    #[test]
    fn receivers_take_turns_too() {
        let mut holdings = Holdings::new(3);
        for _ in 0..6 {
            holdings.push([0]);
        }
        let receivers = plan(&holdings, 1).transfers.into_iter().map(|send| send.to);
        assert_eq!(receivers.collect::<Vec<_>>(), [1, 2, 1, 2]);
    }

    #[test]
    fn no_other_plan_sends_fewer_copies() {
        for seed in 1..=4_000 {
            let (before, replicas) = arbitrary_holdings(&mut Rng(seed), 4, 5);
            let sends = plan(&before, replicas).transfers.len();
            let fewest = fewest_sends(&before, replicas);
            assert_eq!(sends, fewest, "seed {seed}, R {replicas}: {before:?}");
        }
    }

    #[test]
    fn no_other_plan_sends_fewer_copies_in_any_tiny_layout() {
        for (before, replicas) in tiny_holdings() {
            let sends = plan(&before, replicas).transfers.len();
            assert_eq!(sends, fewest_sends(&before, replicas), "R {replicas}: {before:?}");
        }
    }

    #[test]
    fn no_chain_of_moves_would_save_a_send() {
        for seed in 1..=1_000 {
            let (before, replicas) = arbitrary_holdings(&mut Rng(seed), 8, 40);
            let after = apply(&before, &plan(&before, replicas));
            let saving = saving_chain(&before, &after);
            assert_eq!(saving, None, "seed {seed}, R {replicas}: {before:?}");
        }
    }

    #[test]
    fn a_large_lopsided_layout_is_planned_as_well_as_a_small_one() {
        let mut rng = Rng(1);
        let mut before = Holdings::new(50);
        for file in 0..20_000 {
            let width = if file % 2 == 0 { 50 } else { 8 };
            let copies = 1 + rng.below(5);
            before.push(rng.distinct(copies, width));
        }
        let plan = plan(&before, 3);
        let after = apply(&before, &plan);
        assert_meets_the_spec(&after, 3, || "large".to_owned());
        assert_eq!(saving_chain(&before, &after), None);
        assert_eq!(super::plan(&after, 3), Plan::default());
    }

    #[test]
    fn failed_sends_cost_no_file_a_copy_it_needs() {
        for seed in 1..=3_000 {
            let mut rng = Rng(seed);
            let (before, replicas) = arbitrary_holdings(&mut rng, 8, 40);
            let plan = plan(&before, replicas);
            let percent = rng.below(101);
            let failed: Vec<bool> = plan.transfers.iter().map(|_| rng.below(100) < percent).collect();
            assert_no_copy_is_missed(&before, replicas, &plan, &failed);
        }
    }

    #[test]
    fn no_combination_of_failed_sends_costs_a_file_a_copy_it_needs() {
        for (before, replicas) in tiny_holdings() {
            let plan = plan(&before, replicas);
            for combination in 0..1_u32 << plan.transfers.len() {
                let failed = (0..plan.transfers.len()).map(|send| combination >> send & 1 == 1);
                assert_no_copy_is_missed(&before, replicas, &plan, &failed.collect::<Vec<_>>());
            }
        }
    }

    #[test]
    #[should_panic(expected = "at least R of them")]
    fn fewer_dstores_than_replicas_are_refused() {
        plan(&Holdings::new(2), 3);
    }

    #[test]
    #[should_panic(expected = "nobody holds")]
    fn a_file_without_holders_is_refused() {
        Holdings::new(2).push([]);
    }

    /// Exactly R copies of each file, and no Dstore above or below its share. (spec 4.6)
    fn assert_meets_the_spec(after: &Holdings, replicas: usize, context: impl Fn() -> String) {
        let copies = after.files() * replicas;
        let share = copies / after.dstores()..=copies.div_ceil(after.dstores());
        let mut files = 0..after.files();
        assert!(files.all(|file| after.holders(file).len() == replicas), "{}", context());
        assert!(loads(after).iter().all(|load| share.contains(load)), "{}", context());
    }

    /// Every file still has R copies after these failures, or all it had before. (spec 7.17)
    fn assert_no_copy_is_missed(before: &Holdings, replicas: usize, plan: &Plan, failed: &[bool]) {
        for (file, holders) in outcome(before, plan, failed).iter().enumerate() {
            let needed = replicas.min(before.holders(file).len());
            assert!(holders.len() >= needed, "{file} R {replicas}: {before:?} {plan:?} {failed:?}");
        }
    }

    /// The holdings after a plan of which nothing has failed.
    fn apply(before: &Holdings, plan: &Plan) -> Holdings {
        let mut after = Holdings::new(before.dstores());
        for holders in outcome(before, plan, &vec![false; plan.transfers.len()]) {
            after.push(holders);
        }
        after.newcomers.clone_from(&before.newcomers);
        after
    }

    /// The holders of each file after a plan of which these sends have failed, so that the senders
    /// keep the file. Panics if a plan asks for what cannot be done.
    fn outcome(before: &Holdings, plan: &Plan, failed: &[bool]) -> Vec<BTreeSet<u32>> {
        assert!(plan.transfers.is_sorted_by_key(|send| send.file), "{plan:?}");
        assert!(plan.removals.is_sorted_by_key(|remove| remove.file), "{plan:?}");
        let held = |file: usize| before.holders(file).iter().copied().collect();
        let mut after: Vec<BTreeSet<u32>> = (0..before.files()).map(held).collect();
        let mut kept = BTreeSet::new();
        for (send, &has_failed) in plan.transfers.iter().zip(failed) {
            let holders = before.holders(send.file as usize);
            assert!(holders.contains(&send.from), "{send:?} sends what it lacks: {before:?}");
            assert!(!holders.contains(&send.to), "{send:?} sends what is there: {before:?}");
            if has_failed {
                kept.insert((send.file, send.from));
            } else {
                assert!(after[send.file as usize].insert(send.to), "{send:?} twice: {plan:?}");
            }
        }
        for remove in &plan.removals {
            assert!(before.holders(remove.file as usize).contains(&remove.from), "{remove:?}");
            if !kept.contains(&(remove.file, remove.from)) {
                assert!(after[remove.file as usize].remove(&remove.from), "{remove:?} twice");
            }
        }
        after
    }

    /// How many copies each Dstore holds.
    fn loads(holdings: &Holdings) -> Vec<usize> {
        let mut loads = vec![0; holdings.dstores()];
        for file in 0..holdings.files() {
            for &dstore in holdings.holders(file) {
                loads[dstore as usize] += 1;
            }
        }
        loads
    }

    /// The least number of sends, by trying every set of Dstores for every file and remembering the
    /// cheapest way to every combination of loads.
    fn fewest_sends(before: &Holdings, replicas: usize) -> usize {
        let dstores = before.dstores();
        let mut cheapest = BTreeMap::from([(vec![0; dstores], 0)]);
        for file in 0..before.files() {
            let mut next = BTreeMap::new();
            for set in (0..1_u32 << dstores).filter(|set| set.count_ones() as usize == replicas) {
                let chosen: Vec<u32> = (0..dstores as u32).filter(|d| set >> d & 1 == 1).collect();
                let holders = before.holders(file);
                let cost = chosen.iter().filter(|d| !holders.contains(d)).count();
                for (loads, sends) in &cheapest {
                    let mut loads = loads.clone();
                    chosen.iter().for_each(|&d| loads[d as usize] += 1);
                    let best = next.entry(loads).or_insert(usize::MAX);
                    *best = (*best).min(sends + cost);
                }
            }
            cheapest = next;
        }
        let copies = before.files() * replicas;
        let share = copies / dstores..=copies.div_ceil(dstores);
        let balanced = cheapest.into_iter().filter(|(loads, _)| loads.iter().all(|n| share.contains(n)));
        balanced.map(|(_, sends)| sends).min().expect("R is at most N")
    }

    /// A Dstore on a ring of moves that keeps all loads in bounds and saves sends, if there is one.
    ///
    /// A layout is optimal exactly if there is none (Klein 1967), so brute force is not needed.
    fn saving_chain(before: &Holdings, after: &Holdings) -> Option<usize> {
        const NO_MOVE: i32 = i32::MAX / 2;
        let dstores = after.dstores();
        // One node more, the hub, stands for a copy more here and a copy fewer there.
        let mut cost = vec![vec![NO_MOVE; dstores + 1]; dstores + 1];
        for file in 0..after.files() {
            let (held, holders) = (before.holders(file), after.holders(file));
            let sends = |d: usize| i32::from(!held.contains(&(d as u32)));
            for to in (0..dstores).filter(|&d| !holders.contains(&(d as u32))) {
                for from in holders.iter().map(|&d| d as usize) {
                    cost[from][to] = cost[from][to].min(sends(to) - sends(from));
                }
            }
        }
        let loads = loads(after);
        let copies: usize = loads.iter().sum();
        for (dstore, &load) in loads.iter().enumerate() {
            if load < copies.div_ceil(dstores) {
                cost[dstore][dstores] = 0;
            }
            if load > copies / dstores {
                cost[dstores][dstore] = 0;
            }
        }
        for via in 0..=dstores {
            for from in 0..=dstores {
                for to in 0..=dstores {
                    let detour = cost[from][via] + cost[via][to];
                    if cost[from][via] < NO_MOVE && cost[via][to] < NO_MOVE {
                        cost[from][to] = cost[from][to].min(detour);
                    }
                }
            }
        }
        (0..=dstores).find(|&d| cost[d][d] < 0)
    }

    /// Every layout of up to 4 files on up to 3 Dstores and up to 3 files on 4, with every R.
    fn tiny_holdings() -> impl Iterator<Item = (Holdings, usize)> {
        let sizes = (1..=4).flat_map(|n| (0..=if n < 4 { 4 } else { 3 }).map(move |files| (n, files)));
        sizes.flat_map(|(dstores, files)| {
            let sets = (1_u32 << dstores) - 1; // of holders, the empty one left out
            (0..sets.pow(files)).flat_map(move |layout| {
                let mut holdings = Holdings::new(dstores);
                for file in 0..files {
                    let set = layout / sets.pow(file) % sets + 1;
                    holdings.push((0..dstores as u32).filter(|d| set >> d & 1 == 1));
                }
                (1..=dstores).map(move |replicas| (holdings.clone(), replicas))
            })
        })
    }

    /// Up to so many Dstores and files; half of the layouts crowd some of the files on few Dstores.
    fn arbitrary_holdings(rng: &mut Rng, most_dstores: usize, most_files: usize) -> (Holdings, usize) {
        let dstores = 1 + rng.below(most_dstores);
        let replicas = 1 + rng.below(dstores);
        let crowded = if rng.below(2) == 0 { dstores } else { 1 + rng.below(dstores) };
        let most_copies = 1 + rng.below(dstores);
        let mut holdings = Holdings::new(dstores);
        for _ in 0..rng.below(most_files + 1) {
            let width = if rng.below(4) == 0 { dstores } else { crowded };
            let copies = 1 + rng.below(most_copies.min(width));
            holdings.push(rng.distinct(copies, width));
        }
        let newcomers = if rng.below(2) == 0 { 0 } else { rng.below(dstores) };
        rng.distinct(newcomers, dstores).into_iter().for_each(|dstore| holdings.mark_newcomer(dstore));
        (holdings, replicas)
    }

    /// Some hundred files, balanced over more Dstores than R, which is at least 2.
    fn balanced_holdings(rng: &mut Rng) -> (Holdings, usize) {
        let dstores = 3 + rng.below(6);
        let replicas = 2 + rng.below(dstores - 2);
        let mut holdings = Holdings::new(dstores);
        for _ in 0..200 + rng.below(100) {
            holdings.push(rng.distinct(replicas, dstores));
        }
        (apply(&holdings, &plan(&holdings, replicas)), replicas)
    }

    /// The same files among `dstores` Dstores, where `renumber` says who is who and who has gone.
    fn with_dstores(before: &Holdings, dstores: usize, renumber: impl Fn(u32) -> Option<u32>) -> Holdings {
        let mut after = Holdings::new(dstores);
        for file in 0..before.files() {
            after.push(before.holders(file).iter().copied().filter_map(&renumber));
        }
        after
    }

    /// Numbers that look random and depend on the seed alone (splitmix64).
    struct Rng(u64);

    impl Rng {
        fn below(&mut self, bound: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) % bound as u64) as usize
        }

        /// That many different Dstores among the first `width`, in any order.
        fn distinct(&mut self, copies: usize, width: usize) -> Vec<u32> {
            let mut dstores: Vec<u32> = (0..width as u32).collect();
            for place in 0..copies {
                dstores.swap(place, place + self.below(width - place));
            }
            dstores.truncate(copies);
            dstores
        }
    }
}
