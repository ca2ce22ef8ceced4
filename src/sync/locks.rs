//! A mutex and a condition variable whose waiters sleep at once, with the interface of parking_lot's.

use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;
use std::time::Instant;

use super::base::sync;

/// A lock. A thread that panics while it has it leaves it to the next as it is.
#[derive(Default)]
pub struct Mutex<T>(sync::Mutex<T>);

/// The lock, until it is dropped. Without the inner guard only while it waits or is [unlocked](Self::unlocked).
pub struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    inner: Option<sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    /// Unlocked.
    pub fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    /// Locked.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { mutex: self, inner: Some(self.relock()) }
    }

    fn relock(&self) -> sync::MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> MutexGuard<'_, T> {
    /// Does `work` with the lock free for others.
    pub fn unlocked<U>(guard: &mut Self, work: impl FnOnce() -> U) -> U {
        guard.inner = None;
        let outcome = work();
        guard.inner = Some(guard.mutex.relock());
        outcome
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.inner.as_ref().expect("locked")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.inner.as_mut().expect("locked")
    }
}

/// Something that threads wait for, with the lock free for others meanwhile. A wait may end without a reason.
#[derive(Default)]
pub struct Condvar(sync::Condvar);

impl Condvar {
    /// No thread waits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits to be notified.
    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let inner = guard.inner.take().expect("locked");
        guard.inner = Some(self.0.wait(inner).unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits to be notified, until the deadline at most.
    #[cfg(not(all(test, shuttle)))]
    pub fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, deadline: Instant) -> WaitTimeoutResult {
        let left = deadline.saturating_duration_since(Instant::now());
        let inner = guard.inner.take().expect("locked");
        let (inner, wait) = self.0.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner);
        guard.inner = Some(inner);
        WaitTimeoutResult(wait.timed_out())
    }

    /// shuttle has no clock: lets others go on for a while; then the deadline may have passed, or the thread was woken,
    /// perhaps for nothing.
    #[cfg(all(test, shuttle))]
    pub fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, _deadline: Instant) -> WaitTimeoutResult {
        use shuttle::rand::{Rng, thread_rng};
        MutexGuard::unlocked(guard, super::thread::yield_now);
        WaitTimeoutResult(thread_rng().gen_ratio(1, 4))
    }

    /// Wakes one of the waiting threads.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes all waiting threads.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// How a wait with a deadline has ended.
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// Whether the deadline has passed.
    pub fn timed_out(&self) -> bool {
        self.0
    }
}
