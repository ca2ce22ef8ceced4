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
const FAR_ABOVE: f64 = 0.5;

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
    let mut used: Vec<&Candidate<'_>> = candidates.iter().filter(|candidate| taken.contains(&candidate.id)).collect();
    let mut chosen = Vec::new();
    for _ in 0..count {
        let shares_zone = |candidate: &Candidate<'_>| {
            !candidate.zone.is_empty() && used.iter().any(|other| other.zone == candidate.zone)
        };
        let shares_host = |candidate: &Candidate<'_>| used.iter().any(|other| other.host == candidate.host);
        let rank = |candidate: &Candidate<'_>| {
            let is_too_busy = candidate.load > mean + FAR_ABOVE;
            (shares_zone(candidate), shares_host(candidate), is_too_busy, candidate.times)
        };
        let free = candidates.iter().filter(|candidate| !used.iter().any(|other| other.id == candidate.id));
        let Some(best) = free.clone().map(rank).min() else { break };
        let best: Vec<&Candidate<'_>> = free.filter(|candidate| rank(candidate) == best).collect();
        let (one, other) = (best[random(best.len())], best[random(best.len())]);
        let is_better = (one.used, one.load) <= (other.used, other.load);
        let winner = if is_better { one } else { other };
        used.push(winner);
        chosen.push(winner.id);
    }
    chosen
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
