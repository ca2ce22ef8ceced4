//! Which part of a file a client wants. (RFC 9110, section 14)

use std::ops::Range;

/// What `Range` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All of it: there is no range, or none that this server knows, which is then as good as none.
    Whole,
    /// These bytes.
    Part(Range<u64>),
    /// Nothing that there is.
    Nothing,
}

/// Reads a `Range` for a file of this size. Several ranges get the whole file: the RFC leaves that to the server.
pub(crate) fn wanted(range: Option<&str>, size: u64) -> Wanted {
    let Some((unit, set)) = range.and_then(|text| text.split_once('=')) else { return Wanted::Whole };
    let Some((first, last)) = set.trim().split_once('-') else { return Wanted::Whole };
    let number = |text: &str| match text {
        "" => Some(None),
        // More digits than a number has are as good as the largest number.
        _ if text.bytes().all(|byte| byte.is_ascii_digit()) => Some(Some(text.parse().unwrap_or(u64::MAX))),
        _ => None,
    };
    let (Some(first), Some(last)) = (number(first.trim()), number(last.trim())) else { return Wanted::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Wanted::Whole;
    }
    match (first, last) {
        (None, None) => Wanted::Whole,
        (Some(first), Some(last)) if first > last => Wanted::Whole,
        (Some(first), _) if first >= size => Wanted::Nothing,
        (Some(first), last) => Wanted::Part(first..last.map_or(size, |last| last.saturating_add(1).min(size))),
        (None, Some(0)) => Wanted::Nothing,
        (None, Some(_)) if size == 0 => Wanted::Nothing,
        (None, Some(count)) => Wanted::Part(size.saturating_sub(count)..size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_understood_and_cut_to_the_size() {
        use Wanted::{Nothing, Part, Whole};
        for (text, size, expected) in [
            ("bytes=0-0", 10, Part(0..1)),
            ("bytes=2-5", 10, Part(2..6)),
            ("Bytes = 2 - 5", 10, Part(2..6)),
            ("bytes=9-", 10, Part(9..10)),
            ("bytes=0-", 10, Part(0..10)),
            ("bytes=5-99", 10, Part(5..10)),
            ("bytes=5-99999999999999999999999", 10, Part(5..10)),
            ("bytes=-3", 10, Part(7..10)),
            ("bytes=-99", 10, Part(0..10)),
            ("bytes=10-", 10, Nothing),
            ("bytes=10-12", 10, Nothing),
            ("bytes=99999999999999999999999-", 10, Nothing),
            ("bytes=-0", 10, Nothing),
            ("bytes=0-", 0, Nothing),
            ("bytes=-1", 0, Nothing),
            ("bytes=5-2", 10, Whole),
            ("bytes=-", 10, Whole),
            ("bytes=", 10, Whole),
            ("bytes=a-b", 10, Whole),
            ("bytes=+1-2", 10, Whole),
            ("bytes=1-2,4-5", 10, Whole),
            ("bytes=--1", 10, Whole),
            ("lines=1-2", 10, Whole),
            ("1-2", 10, Whole),
        ] {
            assert_eq!(wanted(Some(text), size), expected, "{text} of {size}");
        }
        assert_eq!(wanted(None, 10), Whole);
    }
}
