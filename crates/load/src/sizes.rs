//! How large the files are.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use kit::Rng;

/// A distribution of sizes: a few ranges, each with a weight.
///
/// Within a range, sizes are spread evenly over its orders of magnitude, as those of files are: of 1k to 1M, a third of
/// them is below 10k.
#[derive(Clone, Debug, PartialEq)]
pub struct Sizes {
    parts: Vec<Part>,
    /// As it was written.
    text: String,
}

#[derive(Clone, Debug, PartialEq)]
struct Part {
    range: RangeInclusive<u64>,
    weight: f64,
}

impl Sizes {
    /// A size, the same for the same `key`.
    pub fn draw(&self, key: u64) -> u64 {
        let mut rng = Rng(key);
        let mut number = rng.fraction() * self.parts.iter().map(|part| part.weight).sum::<f64>();
        for part in &self.parts {
            number -= part.weight;
            if number < 0.0 {
                return part.draw(&mut rng);
            }
        }
        self.parts.last().expect("at least one").draw(&mut rng) // rounding
    }
}

impl Part {
    fn draw(&self, rng: &mut Rng) -> u64 {
        let (&least, &most) = (self.range.start(), self.range.end());
        if least == most {
            return least;
        }
        // One more, so that a range may begin with nothing and its end is drawn like the rest.
        let (low, high) = ((least as f64 + 1.0).ln(), (most as f64 + 2.0).ln());
        let size = (low + (high - low) * rng.fraction()).exp() - 1.0;
        (size as u64).clamp(least, most)
    }
}

impl FromStr for Sizes {
    type Err = String;

    /// As in `1k`, `1k-64k` or `1k:90,1M-8M:10`.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split(',').map(Part::from_str).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { parts, text: text.to_owned() })
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (range, weight) = text.split_once(':').unwrap_or((text, "1"));
        let weight: f64 = weight
            .parse()
            .ok()
            .filter(|weight| *weight > 0.0 && *weight < 1e9)
            .ok_or_else(|| format!("expected a weight, got {weight:?}"))?;
        let (least, most) = range.split_once('-').unwrap_or((range, range));
        let range = bytes(least)?..=bytes(most)?;
        if range.is_empty() {
            return Err(format!("{least} is more than {most}"));
        }
        Ok(Self { range, weight })
    }
}

/// A number of bytes, with k, M or G for thousands, Ki, Mi or Gi for 1024s.
fn bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 6] =
        [("Ki", 1 << 10), ("Mi", 1 << 20), ("Gi", 1 << 30), ("k", 1_000), ("M", 1_000_000), ("G", 1_000_000_000)];
    /// Enough for any test, and far from where sums of sizes would overflow.
    const MOST: u64 = 1 << 50;
    let unit = UNITS.iter().find_map(|(unit, factor)| text.strip_suffix(unit).map(|number| (number, *factor)));
    let (number, factor) = unit.unwrap_or((text, 1));
    let size = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    size.filter(|&size| size <= MOST).ok_or_else(|| format!("expected a size such as 1000, 64Ki or 10M, got {text:?}"))
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        let drawn = |text: &str| text.parse::<Sizes>().unwrap().draw(7);
        assert_eq!(drawn("0"), 0);
        assert_eq!(drawn("1000"), 1000);
        assert_eq!(drawn("3k"), 3000);
        assert_eq!(drawn("64Ki"), 65_536);
        assert_eq!(drawn("1Gi-1Gi"), 1 << 30);
        let reasons = [
            ("", "expected a size such as 1000, 64Ki or 10M, got \"\""),
            ("5x", "expected a size such as 1000, 64Ki or 10M, got \"5x\""),
            ("-5", "expected a size such as 1000, 64Ki or 10M, got \"\""),
            ("99999999999G", "expected a size such as 1000, 64Ki or 10M, got \"99999999999G\""),
            ("2k-1k", "2k is more than 1k"),
            ("1k:0", "expected a weight, got \"0\""),
            ("1k,", "expected a size such as 1000, 64Ki or 10M, got \"\""),
        ];
        for (text, reason) in reasons {
            assert_eq!(text.parse::<Sizes>().unwrap_err(), reason);
        }
    }

    #[test]
    fn a_range_is_spread_over_its_magnitudes_and_reaches_both_ends() {
        let sizes: Sizes = "1k-1M".parse().unwrap();
        let drawn: Vec<_> = (0..30_000).map(|key| sizes.draw(key)).collect();
        assert!(drawn.iter().all(|size| (1_000..=1_000_000).contains(size)));
        let small = drawn.iter().filter(|&&size| size < 10_000).count();
        assert!((9_500..=10_500).contains(&small), "{small}");
        let few: Sizes = "0-2".parse().unwrap();
        assert!((0..=2).all(|size| (0..1_000).any(|key| few.draw(key) == size)));
        assert!((0..1_000).all(|key| few.draw(key) <= 2));
    }

    #[test]
    fn parts_are_drawn_by_their_weights() {
        let sizes: Sizes = "1k:90,1M-2M:10".parse().unwrap();
        let large = (0..10_000).filter(|&key| sizes.draw(key) > 1_000).count();
        assert!((900..=1_100).contains(&large), "{large}");
    }
}
