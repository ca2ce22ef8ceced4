//! How busy the machine is: a thread that only sleeps and looks at the clock.
//!
//! What a check times is timed on a machine that does other things, too. Where this thread wakes up late, so may the submission, and
//! so may `mark`: a check that failed meanwhile is played again in a fresh set-up.

use std::collections::VecDeque;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long the thread sleeps at a time.
const NAP: Duration = Duration::from_millis(5);

/// A nap that is longer than this by so much is a stall. The shortest time that any check counts on is 100 ms.
const STALL: Duration = Duration::from_millis(10);

/// So many stalls are remembered.
const KEPT: usize = 10_000;

/// When each stall ended, and how long it was.
type Stalls = Mutex<VecDeque<(Instant, Duration)>>;

static STALLS: OnceLock<Stalls> = OnceLock::new();

/// The longest stall that has ended since, if there was one. The first call starts the thread, which never ends.
pub fn longest_since(start: Instant) -> Option<Duration> {
    let stalls = stalls().lock();
    stalls.iter().rev().take_while(|(end, _)| *end >= start).map(|(_, length)| *length).max()
}

fn stalls() -> &'static Stalls {
    STALLS.get_or_init(|| {
        let watching = thread::Builder::new().name("stall-watch".into()).spawn(watch);
        watching.expect("a thread can be started");
        Stalls::default()
    })
}

fn watch() {
    loop {
        let start = Instant::now();
        thread::sleep(NAP);
        note(stalls(), start.elapsed().saturating_sub(NAP));
    }
}

fn note(stalls: &Stalls, late: Duration) {
    if late >= STALL {
        let mut stalls = stalls.lock();
        stalls.push_back((Instant::now(), late));
        let surplus = stalls.len().saturating_sub(KEPT);
        stalls.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_long_is_a_stall() {
        let stalls = Stalls::default();
        note(&stalls, STALL - Duration::from_millis(1));
        assert!(stalls.lock().is_empty());
        for _ in 0..KEPT + 5 {
            note(&stalls, STALL);
        }
        assert_eq!(stalls.lock().len(), KEPT);
    }
}
