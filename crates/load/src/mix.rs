//! Which operations are done, how often each.

use std::fmt;
use std::str::FromStr;

use kit::Rng;

/// A kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// spec 4.2
    Store,
    /// spec 4.3
    Load,
    /// spec 4.4
    Remove,
    /// spec 4.5
    List,
}

impl Kind {
    /// All of them, in the order in which they are shown and in which [`Kind::index`] counts them.
    pub const ALL: [Self; 4] = [Self::Store, Self::Load, Self::Remove, Self::List];

    /// Its place in an array with one entry for each kind.
    pub fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Store => "store",
            Self::Load => "load",
            Self::Remove => "remove",
            Self::List => "list",
        })
    }
}

/// How many per cent of the operations are of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix([u8; Kind::ALL.len()]);

impl Mix {
    /// The share of a kind, in per cent.
    pub fn percent(&self, kind: Kind) -> u8 {
        self.0[kind.index()]
    }

    /// What to do next.
    pub fn draw(&self, rng: &mut Rng) -> Kind {
        let mut number = rng.below(100) as u8;
        for kind in Kind::ALL {
            match number.checked_sub(self.percent(kind)) {
                None => return kind,
                Some(rest) => number = rest,
            }
        }
        unreachable!("the shares sum to 100")
    }

    /// How much of its names, in per cent, a client stores before the clock starts: loads and removes must find
    /// something from the first on, and stores must find room.
    pub fn fill(&self) -> usize {
        let stores = self.percent(Kind::Store) > 0;
        let needs_files = self.percent(Kind::Load) > 0 || self.percent(Kind::Remove) > 0 || !stores;
        match (stores, needs_files) {
            (true, true) => 50,
            (true, false) => 0,
            (false, _) => 100,
        }
    }
}

impl FromStr for Mix {
    type Err = String;

    /// As in `store:30,load:70`; kinds that are not named are not done.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut shares = [0_u8; Kind::ALL.len()];
        for part in text.split(',') {
            let (name, share) = part.split_once(':').ok_or_else(|| format!("expected KIND:PERCENT, got {part:?}"))?;
            let kind = Kind::ALL.into_iter().find(|kind| kind.to_string() == name);
            let kind = kind.ok_or_else(|| format!("expected store, load, remove or list, got {name:?}"))?;
            shares[kind.index()] = share.parse().map_err(|_| format!("expected a percentage, got {share:?}"))?;
        }
        match shares.iter().map(|&share| u32::from(share)).sum() {
            100 => Ok(Self(shares)),
            sum => Err(format!("the mix sums to {sum}, not to 100")),
        }
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Kind::ALL.into_iter().filter(|&kind| self.percent(kind) > 0);
        for (number, kind) in named.enumerate() {
            let comma = if number > 0 { "," } else { "" };
            write!(f, "{comma}{kind}:{}", self.percent(kind))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_read_and_written() {
        for text in ["store:100", "store:30,load:40,remove:29,list:1", "load:50,list:50"] {
            assert_eq!(text.parse::<Mix>().unwrap().to_string(), text);
        }
        let reasons = [
            ("", "expected KIND:PERCENT, got \"\""),
            ("store", "expected KIND:PERCENT, got \"store\""),
            ("rebalance:100", "expected store, load, remove or list, got \"rebalance\""),
            ("store:-1,load:101", "expected a percentage, got \"-1\""),
            ("store:50,load:49", "the mix sums to 99, not to 100"),
            ("store:255,load:255", "the mix sums to 510, not to 100"),
        ];
        for (text, reason) in reasons {
            assert_eq!(text.parse::<Mix>().unwrap_err(), reason);
        }
    }

    #[test]
    fn kinds_are_drawn_as_often_as_asked_for() {
        let mix: Mix = "store:5,load:80,remove:15".parse().unwrap();
        let mut rng = Rng(1);
        let mut drawn = [0; Kind::ALL.len()];
        for _ in 0..100_000 {
            drawn[mix.draw(&mut rng).index()] += 1;
        }
        for kind in Kind::ALL {
            let expected = i32::from(mix.percent(kind)) * 1000;
            assert!((drawn[kind.index()] - expected).abs() <= 500, "{kind}: {drawn:?}");
        }
        assert_eq!(drawn[Kind::List.index()], 0);
    }
}
