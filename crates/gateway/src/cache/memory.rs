//! Small objects in this process's memory.
//!
//! What is read once makes no room at the expense of what is read often (`quick_cache`, S3-FIFO).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use depot::client::ObjectCache;
use depot::identity::Key;
use quick_cache::Weighter;

use super::{Cache, Figures, LARGEST};

/// What an entry takes besides its bytes, about.
const OVERHEAD: u64 = 128;

/// A cache in memory.
pub struct Memory {
    objects: quick_cache::sync::Cache<Key, Arc<[u8]>, ByLength>,
    largest: u64,
    hits: AtomicU64,
    misses: AtomicU64,
}

#[derive(Clone)]
struct ByLength;

impl Weighter<Key, Arc<[u8]>> for ByLength {
    fn weight(&self, _: &Key, bytes: &Arc<[u8]>) -> u64 {
        bytes.len() as u64 + OVERHEAD
    }
}

impl Memory {
    /// Of so many bytes of memory.
    pub fn new(bytes: u64) -> Self {
        /// What small files have, about; the cache grows beyond that.
        const USUAL: u64 = 16 << 10;
        let objects = quick_cache::sync::Cache::with_weighter((bytes / USUAL) as usize, bytes, ByLength);
        // A part of it has to hold several.
        let largest = LARGEST.min(objects.shard_capacity() / 4);
        Self { objects, largest, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }
}

impl ObjectCache for Memory {
    fn largest(&self) -> u64 {
        self.largest
    }

    fn get(&self, key: &Key) -> Option<Arc<[u8]>> {
        let found = self.objects.get(key);
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    fn keep(&self, key: Key, bytes: Arc<[u8]>) {
        self.objects.insert(key, bytes);
    }
}

impl Cache for Memory {
    fn figures(&self) -> Figures {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Figures { hits: of(&self.hits), misses: of(&self.misses), bytes: self.objects.weight(), failures: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> Key {
        Key { number, ..Key::default() }
    }

    #[test]
    fn it_takes_no_more_memory_than_it_was_given() {
        let cache = Memory::new(10 << 20);
        for number in 0..1_000 {
            let length = 1 + (number * 7_919) % cache.largest();
            cache.keep(key(number), vec![0; length as usize].into());
            assert!(cache.figures().bytes <= 10 << 20, "{} bytes after {number}", cache.figures().bytes);
        }
        assert!(cache.figures().bytes > 5 << 20, "it is used: {} bytes", cache.figures().bytes);
    }

    #[test]
    fn what_is_read_often_outlives_what_is_read_once() {
        let cache = Memory::new(16 << 20);
        let often: Vec<Key> = (0..100).map(key).collect();
        let bytes: Arc<[u8]> = vec![0; 10_000].into();
        for key in &often {
            cache.keep(*key, Arc::clone(&bytes));
            assert!(cache.get(key).is_some() && cache.get(key).is_some());
        }
        for number in 1_000..11_000 {
            cache.keep(key(number), Arc::clone(&bytes));
        }
        let left = often.iter().filter(|key| cache.get(key).is_some()).count();
        assert!(left >= 90, "{left} of 100");
        let Figures { hits, misses, .. } = cache.figures();
        assert_eq!((hits, misses), (200 + left as u64, 100 - left as u64));
    }
}
