mod layouts;
mod optimum;

use std::collections::BTreeSet;

use kit::Rng;

use super::{Holdings, Plan, plan};
use layouts::{arbitrary_holdings, balanced_holdings, distinct, tiny_holdings, with_dstores};
use optimum::{fewest_sends, saving_chain};

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
        let left =
            with_dstores(&before, before.dstores() - 1, |d| (d != lost).then_some(if d > lost { d - 1 } else { d }));
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
        before.push(distinct(&mut rng, copies, width));
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
#[should_panic(expected = "without a holder")]
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
    (0..before.dstores() as u32).filter(|&d| before.is_newcomer(d)).for_each(|d| after.mark_newcomer(d));
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
