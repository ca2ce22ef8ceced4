//! Where a new object goes. (depot 6.1)

use crate::identity::DstoreId;

/// A Dstore that may get an object: it is there, is not to be emptied, and has room.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// Its number.
    pub id: DstoreId,
    /// The machine it is on.
    pub host: &'a str,
    /// The zone of that machine; empty for none.
    pub zone: &'a str,
    /// How much of its space is used, from 0 to 1.
    pub used: f64,
    /// How busy it is, from 0 to 1.
    pub load: f64,
    /// How many objects of the same file it has been chosen for already.
    pub times: usize,
}

/// A Dstore this much busier than the mean of all comes last.
pub(super) const FAR_ABOVE: f64 = 0.5;

/// Up to `count` Dstores for one object, none twice: in zones and on hosts that have no copy yet as far as there are such;
/// of these, those that have no other object of the same file; of these, the emptier of two that `random` draws. The last
/// resort is a Dstore that is far busier than the others.
///
/// `taken` are Dstores that have, or are to get, other copies of the same object. `random(n)` draws from 0 to n - 1.
pub fn choose(
    candidates: &[Candidate<'_>],
    taken: &[DstoreId],
    count: usize,
    mut random: impl FnMut(usize) -> usize,
) -> Vec<DstoreId> {
    let mean = candidates.iter().map(|candidate| candidate.load).sum::<f64>() / candidates.len().max(1) as f64;
    let is_taken = |candidate: &&Candidate<'_>| taken.contains(&candidate.id);
    let mut free: Vec<Free<'_>> = candidates
        .iter()
        .filter(|candidate| !is_taken(candidate))
        .map(|candidate| Free {
            candidate,
            rank: Rank {
                shares_zone: false,
                shares_host: false,
                is_too_busy: candidate.load > mean + FAR_ABOVE,
                times: candidate.times,
            },
        })
        .collect();
    for candidate in candidates.iter().filter(is_taken) {
        free.iter_mut().for_each(|free| free.beside(candidate));
    }
    let mut chosen = Vec::new();
    for _ in 0..count {
        let Some(best) = free.iter().map(|free| free.rank).min() else { break };
        let best: Vec<usize> = (0..free.len()).filter(|at| free[*at].rank == best).collect();
        let (one, other) = (best[random(best.len())], best[random(best.len())]);
        let fullness = |at: usize| (free[at].candidate.used, free[at].candidate.load);
        let winner = free.remove(if fullness(one) <= fullness(other) { one } else { other }).candidate;
        free.iter_mut().for_each(|free| free.beside(winner));
        chosen.push(winner.id);
    }
    chosen
}

/// How well a Dstore suits; the least is the best.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    shares_zone: bool,
    shares_host: bool,
    is_too_busy: bool,
    times: usize,
}

/// A Dstore that can still be chosen. Its rank is kept, as comparing names with those of a thousand others is what takes time.
struct Free<'a> {
    candidate: &'a Candidate<'a>,
    rank: Rank,
}

impl Free<'_> {
    /// Another Dstore has a copy, or gets one.
    fn beside(&mut self, other: &Candidate<'_>) {
        let Candidate { zone, host, .. } = self.candidate;
        self.rank.shares_zone |= !zone.is_empty() && *zone == other.zone;
        self.rank.shares_host |= *host == other.host;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(id: u32, host: &'static str, zone: &'static str) -> Candidate<'static> {
        Candidate { id: DstoreId(id), host, zone, used: 0.5, load: 0.1, times: 0 }
    }

    fn ids(numbers: &[u32]) -> Vec<DstoreId> {
        numbers.iter().copied().map(DstoreId).collect()
    }

    #[test]
    fn copies_go_to_different_zones_then_hosts() {
        let candidates =
            [candidate(1, "a", "x"), candidate(2, "a", "x"), candidate(3, "b", "x"), candidate(4, "c", "y")];
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let chosen = choose(&candidates, &[], 3, |n| random.usize(..n));
            assert!(chosen.contains(&DstoreId(4)), "seed {seed}: zone y is left out: {chosen:?}");
            assert!(chosen.contains(&DstoreId(3)), "seed {seed}: host b is left out: {chosen:?}");
        }
        let mut random = fastrand::Rng::with_seed(1);
        assert_eq!(choose(&candidates, &ids(&[4, 3]), 1, |n| random.usize(..n)).len(), 1);
        assert_eq!(choose(&candidates, &[], 9, |n| random.usize(..n)).len(), 4, "none twice");
        assert!(choose(&[], &[], 3, |_| 0).is_empty());
    }

    #[test]
    fn no_dstore_gets_a_second_chunk_while_another_has_none() {
        let mut candidates: Vec<Candidate<'_>> =
            ["a", "b", "c", "d", "e"].iter().zip(1..).map(|(host, id)| candidate(id, host, "")).collect();
        let mut random = fastrand::Rng::with_seed(1);
        for round in 0..10 {
            for _ in 0..5 {
                let chosen = choose(&candidates, &[], 1, |n| random.usize(..n));
                let winner = candidates.iter_mut().find(|candidate| candidate.id == chosen[0]).expect("chosen");
                winner.times += 1;
            }
            assert!(candidates.iter().all(|candidate| candidate.times == round + 1), "{candidates:?}");
        }
    }

    #[test]
    fn the_emptier_of_two_wins_and_the_overloaded_comes_last() {
        let mut candidates =
            ["a", "b", "c"].iter().zip(1..).map(|(host, id)| candidate(id, host, "")).collect::<Vec<_>>();
        candidates[0].used = 0.1;
        let mut counts = [0; 4];
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..3000 {
            counts[choose(&candidates, &[], 1, |n| random.usize(..n))[0].0 as usize] += 1;
        }
        // It is one of the two that are drawn in five of nine cases.
        assert!((1500..1850).contains(&counts[1]), "{counts:?}");
        candidates[0].load = 1.0;
        for _ in 0..100 {
            assert_eq!(choose(&candidates, &[], 3, |n| random.usize(..n))[2], DstoreId(1), "busy comes last");
        }
    }
}
