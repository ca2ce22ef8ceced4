//! A commit returns after a sync that began after it was asked for, or fails. (spec 4.2: an acknowledgement says
//! that a file is stored)

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use super::*;

/// A disk: what was written before a sync began is safe when that has ended.
#[derive(Default)]
struct Disk {
    written: AtomicU64,
    safe: AtomicU64,
    syncs: AtomicU64,
}

impl Disk {
    /// Writes something; returns what has to be safe for that to be.
    fn write(&self) -> u64 {
        self.written.fetch_add(1, SeqCst) + 1
    }

    fn sync(&self, takes: Duration) -> io::Result<()> {
        self.syncs.fetch_add(1, SeqCst);
        let written = self.written.load(SeqCst);
        thread::sleep(takes);
        self.safe.fetch_max(written, SeqCst);
        Ok(())
    }
}

/// Waits until `waiting` threads have come to wait for a sync to end.
fn come_to_wait(commits: &GroupCommit, waiting: &AtomicU64, expected: u64) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while waiting.load(SeqCst) < expected {
        assert!(Instant::now() < deadline, "{} of {expected} wait", waiting.load(SeqCst));
        thread::yield_now();
    }
    // A thread that has counted itself holds the lock until it waits; the lock is passed on in turn.
    drop(commits.state.lock());
}

#[test]
fn no_commit_returns_before_a_sync_that_began_after_the_write() {
    let (commits, disk) = (GroupCommit::default(), Disk::default());
    thread::scope(|scope| {
        for thread in 0..8 {
            let (commits, disk) = (&commits, &disk);
            scope.spawn(move || {
                for turn in 0..100 {
                    let mine = disk.write();
                    let takes = Duration::from_micros((thread * 37 + turn * 13) % 200);
                    commits.commit(|| disk.sync(takes)).unwrap();
                    assert!(disk.safe.load(SeqCst) >= mine, "thread {thread}, turn {turn}");
                }
            });
        }
    });
    assert!(disk.syncs.load(SeqCst) <= 800);
}

#[test]
fn all_commits_that_come_during_a_sync_share_the_next_one() {
    const SHARING: u64 = 32;
    let (commits, disk) = (GroupCommit::default(), Disk::default());
    let (begun, has_begun) = channel();
    let (go_on, may_go_on) = channel();
    let asking = AtomicU64::new(0);
    thread::scope(|scope| {
        let (commits, disk, asking) = (&commits, &disk, &asking);
        scope.spawn(move || {
            let first = commits.commit(|| {
                begun.send(()).unwrap();
                may_go_on.recv().unwrap();
                disk.sync(Duration::ZERO)
            });
            first.unwrap();
        });
        has_begun.recv().unwrap();
        for _ in 0..SHARING {
            scope.spawn(move || {
                let mine = disk.write();
                asking.fetch_add(1, SeqCst);
                commits.commit(|| disk.sync(Duration::ZERO)).unwrap();
                assert!(disk.safe.load(SeqCst) >= mine);
            });
        }
        come_to_wait(commits, asking, SHARING);
        go_on.send(()).unwrap();
    });
    // All but the threads that had asked and not yet begun to wait when the first one ended.
    let syncs = disk.syncs.load(SeqCst);
    assert!((2..SHARING / 2).contains(&syncs), "{syncs} syncs for {SHARING}");
}

#[test]
fn a_failed_sync_fails_all_waiting_and_all_later_commits() {
    // The kernel reports that it could not write once, and forgets.
    let commits = GroupCommit::default();
    let (begun, has_begun) = channel();
    let (go_on, may_go_on) = channel();
    let asking = AtomicU64::new(0);
    thread::scope(|scope| {
        let (commits, asking) = (&commits, &asking);
        scope.spawn(move || {
            let first = commits.commit(|| {
                begun.send(()).unwrap();
                may_go_on.recv().unwrap();
                Err(io::Error::new(ErrorKind::StorageFull, "no room"))
            });
            assert_eq!(first.unwrap_err().kind(), ErrorKind::StorageFull);
        });
        has_begun.recv().unwrap();
        for _ in 0..8 {
            scope.spawn(move || {
                asking.fetch_add(1, SeqCst);
                let error = commits.commit(|| Ok(())).expect_err("it is not tried again");
                assert_eq!(error.kind(), ErrorKind::StorageFull);
                assert!(error.to_string().contains("no room"), "{error}");
            });
        }
        come_to_wait(commits, asking, 8);
        go_on.send(()).unwrap();
    });
    assert!(commits.commit(|| Ok(())).is_err());
}
