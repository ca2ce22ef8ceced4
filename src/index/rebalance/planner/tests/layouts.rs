//! The layouts that the tests plan for.

use kit::Rng;

use super::{Holdings, apply, plan};

/// Every layout of up to 4 files on up to 3 Dstores and up to 3 files on 4, with every R.
pub fn tiny_holdings() -> impl Iterator<Item = (Holdings, usize)> {
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
pub fn arbitrary_holdings(rng: &mut Rng, most_dstores: usize, most_files: usize) -> (Holdings, usize) {
    let dstores = 1 + rng.below(most_dstores);
    let replicas = 1 + rng.below(dstores);
    let crowded = if rng.below(2) == 0 { dstores } else { 1 + rng.below(dstores) };
    let most_copies = 1 + rng.below(dstores);
    let mut holdings = Holdings::new(dstores);
    for _ in 0..rng.below(most_files + 1) {
        let width = if rng.below(4) == 0 { dstores } else { crowded };
        let copies = 1 + rng.below(most_copies.min(width));
        holdings.push(distinct(rng, copies, width));
    }
    let newcomers = if rng.below(2) == 0 { 0 } else { rng.below(dstores) };
    distinct(rng, newcomers, dstores).into_iter().for_each(|dstore| holdings.mark_newcomer(dstore));
    (holdings, replicas)
}

/// Some hundred files, balanced over more Dstores than R, which is at least 2.
pub fn balanced_holdings(rng: &mut Rng) -> (Holdings, usize) {
    let dstores = 3 + rng.below(6);
    let replicas = 2 + rng.below(dstores - 2);
    let mut holdings = Holdings::new(dstores);
    for _ in 0..200 + rng.below(100) {
        holdings.push(distinct(rng, replicas, dstores));
    }
    (apply(&holdings, &plan(&holdings, replicas)), replicas)
}

/// The same files among `dstores` Dstores, where `renumber` gives each its new number, or says that it has gone.
pub fn with_dstores(before: &Holdings, dstores: usize, renumber: impl Fn(u32) -> Option<u32>) -> Holdings {
    let mut after = Holdings::new(dstores);
    for file in 0..before.files() {
        after.push(before.holders(file).iter().copied().filter_map(&renumber));
    }
    after
}

/// That many different Dstores among the first `width`, in any order.
pub fn distinct(rng: &mut Rng, copies: usize, width: usize) -> Vec<u32> {
    let mut dstores: Vec<u32> = (0..width as u32).collect();
    for place in 0..copies {
        dstores.swap(place, place + rng.below(width - place));
    }
    dstores.truncate(copies);
    dstores
}
