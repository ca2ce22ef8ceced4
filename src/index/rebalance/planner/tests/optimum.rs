//! How good a plan could be: by brute force, and by looking for an improvement.

use std::collections::BTreeMap;

use super::{Holdings, loads};

/// The least number of sends, by trying every set of Dstores for every file and remembering the
/// cheapest way to every combination of loads.
pub fn fewest_sends(before: &Holdings, replicas: usize) -> usize {
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
pub fn saving_chain(before: &Holdings, after: &Holdings) -> Option<usize> {
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
