//! Numbers that look random and depend on the seed alone: splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom
//! number generators", 2014).

use std::time::Duration;

/// A source of numbers: `Rng(seed)`. Equal seeds give equal numbers, on every machine.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    /// The `stream`-th source of a seed. The numbers of two streams have nothing to do with each other.
    pub fn stream(seed: u64, stream: u64) -> Self {
        let mut rng = Self(seed ^ stream.wrapping_mul(0xd6e8_feb8_6659_fd93));
        rng.next();
        rng
    }

    /// Any number.
    #[expect(clippy::should_implement_trait, reason = "it never ends, and `rng.next()` is what reads best")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// A number from 0 to 1, without 1.
    pub fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True in so many of a hundred cases.
    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of `choices`, of which there is at least one.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    /// A time from `least` to `most`.
    pub fn duration(&mut self, least: Duration, most: Duration) -> Duration {
        least + Duration::from_micros(self.next() % (most.saturating_sub(least).as_micros() as u64).max(1))
    }

    /// So many bytes.
    pub fn bytes(&mut self, size: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..size.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).collect();
        bytes.truncate(size);
        bytes
    }
}

/// One number that stands for all of these, in this order.
pub fn hash(words: &[u64]) -> u64 {
    words.iter().fold(0, |so_far, word| Rng(so_far ^ word).next())
}

/// `size` bytes that are the same for the same seed.
pub fn bytes(seed: u64, size: usize) -> Vec<u8> {
    Rng(seed).bytes(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_splitmix64() {
        // As the authors' own program gives them for the seed 1234567.
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        let mut rng = Rng(1_234_567);
        assert_eq!([rng.next(), rng.next(), rng.next()], expected);
    }

    #[test]
    fn what_is_drawn_is_within_its_bounds() {
        let mut rng = Rng::stream(1, 2);
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        for _ in 0..1000 {
            assert!(rng.below(3) < 3);
            assert!((0.0..1.0).contains(&rng.fraction()));
            assert!((second..=minute).contains(&rng.duration(second, minute)));
            assert!(!rng.percent(0) && rng.percent(100));
        }
        assert_eq!(rng.duration(second, second), second);
        assert_eq!([0, 1, 8, 13].map(|size| bytes(7, size).len()), [0, 1, 8, 13]);
        assert_eq!(bytes(7, 13)[..8], bytes(7, 8));
    }
}
