//! Searches for a counter-example that take too long for every run of the tests: each run takes a share.
//!
//! A number decides which share, and seeds whatever is drawn: `STEVEDORE_SEED`, or the clock where that is not set. `.ci/run`
//! sets it by the commit, so that the shares take turns, and a failure names it. With `STEVEDORE_LONG` set, as in
//! `.ci/nightly`, a run takes everything.

use std::env;
use std::sync::OnceLock;
use std::time::UNIX_EPOCH;

/// The number that decides what this run tries. Said on stderr, where a failed test shows it.
pub fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    let seed = *SEED.get_or_init(|| {
        let drawn = || UNIX_EPOCH.elapsed().map_or(1, |now| now.as_nanos() as u64) % 1_000_000_007;
        number("STEVEDORE_SEED").unwrap_or_else(drawn)
    });
    eprintln!("to try the same again: STEVEDORE_SEED={seed}{}", if is_long() { " STEVEDORE_LONG=1" } else { "" });
    seed
}

/// Whether this run has all night.
pub fn is_long() -> bool {
    env::var_os("STEVEDORE_LONG").is_some()
}

/// The numbers of the cases that this run is to try, from 0 on and without end: one in `parts`, or all in a long run.
pub fn share(parts: usize) -> impl Iterator<Item = usize> {
    let (first, step) = if is_long() { (0, 1) } else { ((seed() % parts as u64) as usize, parts) };
    (first..).step_by(step)
}

/// A number from the environment. Panics if the variable holds anything else.
pub fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_one_case_in_so_many_or_all_of_them() {
        let mine: Vec<_> = share(3).take_while(|case| *case < 9).collect();
        match is_long() {
            true => assert_eq!(mine, (0..9).collect::<Vec<_>>()),
            false => assert!(mine.len() == 3 && mine.iter().all(|case| case % 3 == mine[0]), "{mine:?}"),
        }
        assert_eq!(seed(), seed(), "drawn once");
    }
}
