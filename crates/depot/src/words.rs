//! How everything is written down: a line of words. (depot 8)
//!
//! Changes travel on the wire, lie in the log and add up to a snapshot. All three use this one form, so that a person can
//! read each of them and there is one parser to trust. A word is percent-escaped: it holds no blank, no control character
//! and no `%` that does not begin an escape. Two words are special: `%` alone is the empty string, `-` alone is "absent".
//!
//! ```text
//! make-directory /photos/summer%202024 - 1732190000000
//! ```
//!
//! [`Words::write`] is canonical: equal values give equal lines, which the namespace's hash relies on. Reading is lenient
//! in one thing only: any character may come escaped.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Why a line cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// The line ends where another word is due.
    Missing(&'static str),
    /// A word that cannot be what is due.
    Invalid {
        /// What is due.
        expected: &'static str,
        /// What came instead, cut to a length fit for a message.
        word: String,
    },
    /// Words follow after the last one that has a meaning.
    Surplus(String),
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(expected) => write!(f, "the line ends before its {expected}"),
            Self::Invalid { expected, word } => write!(f, "expected a {expected}, got {word:?}"),
            Self::Surplus(word) => write!(f, "{word:?} follows where the line should end"),
        }
    }
}

impl std::error::Error for ParseError {}

/// What can be written as words and read back: `read` is the exact inverse of `write`.
pub trait Words: Sized {
    /// Appends the value to the line.
    fn write(&self, line: &mut Line);

    /// Takes the value from the line.
    fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError>;

    /// The value as a line of its own, without a line end.
    fn to_line(&self) -> String {
        let mut line = Line::default();
        self.write(&mut line);
        line.into_string()
    }

    /// The value that is all of `line`.
    fn from_line(line: &str) -> Result<Self, ParseError> {
        let mut reader = Reader::new(line);
        let value = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(value)
    }
}

/// A line being written. Nearly all that a put costs in user space is lines: so they grow once, and numbers are written
/// without the machinery of `format!`. (docs/performance.md)
#[derive(Clone, Debug)]
pub struct Line(String);

/// Most lines are shorter.
const USUAL_BYTES: usize = 256;

impl Default for Line {
    fn default() -> Self {
        Self(String::with_capacity(USUAL_BYTES))
    }
}

const ABSENT: &str = "-";
const EMPTY: &str = "%";

impl Line {
    /// With room for what will follow it besides.
    pub(crate) fn with_room_for(bytes: usize) -> Self {
        Self(String::with_capacity(USUAL_BYTES + bytes))
    }

    /// Appends a word that needs no escape, as a verb.
    pub fn plain(&mut self, word: &str) {
        self.separate();
        self.0.push_str(word);
    }

    /// Appends a number.
    pub fn number(&mut self, number: impl itoa::Integer) {
        self.plain(itoa::Buffer::new().format(number));
    }

    /// Appends a number in hexadecimal.
    pub fn hexadecimal(&mut self, number: u128) {
        self.separate();
        self.push_hexadecimal(number);
    }

    /// Appends several numbers as one word: the first in hexadecimal, and dots between them.
    pub fn dotted(&mut self, first: u64, others: [u64; 2]) {
        self.separate();
        self.push_hexadecimal(first.into());
        for number in others {
            self.0.push('.');
            self.0.push_str(itoa::Buffer::new().format(number));
        }
    }

    fn push_hexadecimal(&mut self, number: u128) {
        // By halves, as most numbers have one only.
        let (high, low) = ((number >> 64) as u64, number as u64);
        if high > 0 {
            self.push_digits(high, 1);
        }
        self.push_digits(low, if high > 0 { 16 } else { 1 });
    }

    /// Appends a number in hexadecimal, with as many digits as it has, and at least so many.
    fn push_digits(&mut self, number: u64, least: u32) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 16];
        for (pair, byte) in text.chunks_exact_mut(2).zip(number.to_be_bytes()) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        let zeros = (number.leading_zeros() / 4).min(16 - least);
        self.0.push_str(str::from_utf8(&text[zeros as usize..]).expect("digits"));
    }

    /// Appends any text as one word.
    pub fn text(&mut self, text: &str) {
        self.separate();
        match text {
            "" => self.0.push_str(EMPTY),
            ABSENT => self.0.push_str("%2D"),
            _ if text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'%') => self.0.push_str(text),
            _ => {
                for character in text.chars() {
                    if character == ' ' || character == '%' || character.is_control() {
                        let mut bytes = [0; 4];
                        for byte in character.encode_utf8(&mut bytes).bytes() {
                            self.0.push('%');
                            self.0.push(char::from(HEX[usize::from(byte >> 4)]));
                            self.0.push(char::from(HEX[usize::from(byte & 15)]));
                        }
                    } else {
                        self.0.push(character);
                    }
                }
            }
        }
    }

    /// The line, without a line end.
    pub fn into_string(self) -> String {
        self.0
    }

    /// The line so far, without a line end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn separate(&mut self) {
        if !self.0.is_empty() {
            self.0.push(' ');
        }
    }
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// A line being read.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    /// From the start of a line, which comes without its line end.
    pub fn new(line: &'a str) -> Self {
        Self { rest: line }
    }

    /// The next word as it is written; `expected` names it in the error.
    pub fn raw(&mut self, expected: &'static str) -> Result<&'a str, ParseError> {
        if self.rest.is_empty() {
            return Err(ParseError::Missing(expected));
        }
        // Words are short: a search made for long texts costs more to begin than this to end.
        let end = self.rest.bytes().position(|byte| byte == b' ');
        let (word, rest) = end.map_or((self.rest, ""), |end| (&self.rest[..end], &self.rest[end + 1..]));
        self.rest = rest;
        if word.is_empty() { Err(invalid(expected, word)) } else { Ok(word) }
    }

    /// The next word, its escapes undone.
    pub fn text(&mut self, expected: &'static str) -> Result<String, ParseError> {
        let word = self.raw(expected)?;
        unescape(word).ok_or_else(|| invalid(expected, word))
    }

    /// The next word as a number, or whatever else parses itself.
    pub fn plain<T: std::str::FromStr>(&mut self, expected: &'static str) -> Result<T, ParseError> {
        let word = self.raw(expected)?;
        // `+5` parses as a number, but is not how one is written.
        let value = if word.starts_with('+') { None } else { word.parse().ok() };
        value.ok_or_else(|| invalid(expected, word))
    }

    /// The next word as a number in hexadecimal.
    pub fn hexadecimal(&mut self, expected: &'static str) -> Result<u128, ParseError> {
        let word = self.raw(expected)?;
        let value = match word.split_at_checked(word.len().saturating_sub(16)) {
            Some(("", low)) => digits(low).map(u128::from), // several times as fast
            Some((high, low)) if high.len() <= 16 => {
                digits(high).zip(digits(low)).map(|(high, low)| u128::from(high) << 64 | u128::from(low))
            }
            _ => None,
        };
        value.ok_or_else(|| invalid(expected, word))
    }

    /// How many items follow, at most `limit`: each needs a word and a blank, so that a count never reserves more than
    /// the line could hold.
    pub fn count(&mut self, expected: &'static str, limit: usize) -> Result<usize, ParseError> {
        let count: usize = self.plain(expected)?;
        if count > limit || count > self.rest.len().div_ceil(2) {
            return Err(invalid(expected, &count.to_string()));
        }
        Ok(count)
    }

    /// Whether the next word says "absent"; if so, it is taken.
    pub fn take_absent(&mut self) -> bool {
        let is_absent = self.rest == ABSENT || self.rest.starts_with("- ");
        if is_absent {
            self.rest = self.rest.get(2..).unwrap_or_default();
        }
        is_absent
    }

    /// Nothing may follow the last word.
    pub fn finish(self) -> Result<(), ParseError> {
        if self.rest.is_empty() { Ok(()) } else { Err(ParseError::Surplus(shortened(self.rest))) }
    }
}

/// A number of at most 16 hexadecimal digits.
fn digits(word: &str) -> Option<u64> {
    word.bytes().try_fold(0, |number, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(digit))
    })
}

/// The error for a word that is not what is `expected`.
pub fn invalid(expected: &'static str, word: &str) -> ParseError {
    ParseError::Invalid { expected, word: shortened(word) }
}

/// The first characters of a peer's words: as much as belongs into a message.
fn shortened(word: &str) -> String {
    const MOST: usize = 80;
    if word.chars().nth(MOST).is_none() {
        return word.to_owned();
    }
    let mut short: String = word.chars().take(MOST).collect();
    short.push('…');
    short
}

fn unescape(word: &str) -> Option<String> {
    if word == EMPTY {
        return Some(String::new());
    }
    if word.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'%') {
        return Some(word.to_owned());
    }
    if !word.contains('%') {
        return (!word.contains(char::is_control)).then(|| word.to_owned());
    }
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16).map(|digit| digit as u8);
            bytes.push(digit()? << 4 | digit()?);
        } else if byte.is_ascii_control() {
            return None;
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// Implements [`Words`] for a struct, field by field, or for an enum, each variant under its verb.
macro_rules! words {
    (struct $name:ident { $($field:ident),* $(,)? }) => {
        impl $crate::words::Words for $name {
            fn write(&self, line: &mut $crate::words::Line) {
                $($crate::words::Words::write(&self.$field, line);)*
            }

            fn read(reader: &mut $crate::words::Reader<'_>) -> Result<Self, $crate::words::ParseError> {
                Ok(Self { $($field: $crate::words::Words::read(reader)?),* })
            }
        }
    };
    (enum $name:ident, $what:literal { $($verb:literal => $variant:ident $({ $($field:ident),* $(,)? })?),* $(,)? }) => {
        impl $crate::words::Words for $name {
            fn write(&self, line: &mut $crate::words::Line) {
                match self {
                    $(Self::$variant $({ $($field),* })? => {
                        line.plain($verb);
                        $($($crate::words::Words::write($field, line);)*)?
                    })*
                }
            }

            fn read(reader: &mut $crate::words::Reader<'_>) -> Result<Self, $crate::words::ParseError> {
                match reader.raw($what)? {
                    $($verb => Ok(Self::$variant $({ $($field: $crate::words::Words::read(reader)?),* })?),)*
                    other => Err($crate::words::invalid($what, other)),
                }
            }
        }
    };
}
pub(crate) use words;

/// A new type around a number, written in hexadecimal.
macro_rules! hexadecimal_word {
    ($name:ident, $number:ty, $what:literal) => {
        impl $crate::words::Words for $name {
            fn write(&self, line: &mut $crate::words::Line) {
                line.hexadecimal(self.0.into());
            }

            fn read(reader: &mut $crate::words::Reader<'_>) -> Result<Self, $crate::words::ParseError> {
                let number = reader.hexadecimal($what)?;
                let number = <$number>::try_from(number);
                number.map(Self).map_err(|_| $crate::words::invalid($what, "a number that is too large"))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{:x}", self.0)
            }
        }
    };
}
pub(crate) use hexadecimal_word;

macro_rules! plain_words {
    ($($number:ty, $what:literal);*) => {
        $(impl Words for $number {
            fn write(&self, line: &mut Line) {
                line.number(*self);
            }

            fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
                reader.plain($what)
            }
        })*
    };
}
plain_words!(u8, "small number"; u32, "number"; u64, "number"; i64, "number"; usize, "number");

/// In milliseconds.
impl Words for Duration {
    fn write(&self, line: &mut Line) {
        line.number(self.as_millis());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        reader.plain("duration in milliseconds").map(Self::from_millis)
    }
}

impl<T: Words> Words for Box<T> {
    fn write(&self, line: &mut Line) {
        T::write(self, line);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        T::read(reader).map(Self::new)
    }
}

impl Words for bool {
    fn write(&self, line: &mut Line) {
        line.plain(if *self { "yes" } else { "no" });
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        match reader.raw("yes or no")? {
            "yes" => Ok(true),
            "no" => Ok(false),
            other => Err(invalid("yes or no", other)),
        }
    }
}

impl Words for String {
    fn write(&self, line: &mut Line) {
        line.text(self);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        reader.text("text")
    }
}

/// The words of a `T` never begin with the word `-`.
impl<T: Words> Words for Option<T> {
    fn write(&self, line: &mut Line) {
        match self {
            Some(value) => value.write(line),
            None => line.plain(ABSENT),
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        if reader.take_absent() { Ok(None) } else { T::read(reader).map(Some) }
    }
}

/// More items than any value of ours has: 65,536 objects in a file. (depot 12)
const MOST_ITEMS: usize = 1 << 16;

impl<T: Words> Words for Vec<T> {
    fn write(&self, line: &mut Line) {
        line.number(self.len());
        self.iter().for_each(|item| item.write(line));
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        let count = reader.count("count", MOST_ITEMS)?;
        (0..count).map(|_| T::read(reader)).collect()
    }
}

impl<A: Words, B: Words> Words for (A, B) {
    fn write(&self, line: &mut Line) {
        self.0.write(line);
        self.1.write(line);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        Ok((A::read(reader)?, B::read(reader)?))
    }
}

impl<A: Words, B: Words, C: Words> Words for (A, B, C) {
    fn write(&self, line: &mut Line) {
        self.0.write(line);
        self.1.write(line);
        self.2.write(line);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        Ok((A::read(reader)?, B::read(reader)?, C::read(reader)?))
    }
}

/// Sorted by key, each key once; any other order is refused, as it is not canonical.
impl<V: Words> Words for BTreeMap<String, V> {
    fn write(&self, line: &mut Line) {
        line.number(self.len());
        for (key, value) in self {
            line.text(key);
            value.write(line);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        let count = reader.count("count", MOST_ITEMS)?;
        let mut map = Self::new();
        for _ in 0..count {
            let key = reader.text("name")?;
            if map.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return Err(invalid("name after the one before", &key));
            }
            map.insert(key, V::read(reader)?);
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_is_one_word_and_comes_back() {
        let texts =
            ["", "-", "--", "%", "a b", "100%", "tab\there", "line\nend", "\r", "naïve", "日本", "\u{85}", "\0", "a"];
        for text in texts {
            let line = text.to_owned().to_line();
            assert!(!line.is_empty() && !line.contains([' ', '\n', '\r', '\t']), "{text:?} is written as {line:?}");
            assert_eq!(String::from_line(&line).as_deref(), Ok(text), "by way of {line:?}");
            let absent: Option<String> = Some(text.to_owned());
            assert_eq!(Option::<String>::from_line(&absent.to_line()), Ok(absent), "beside absent");
        }
    }

    #[test]
    fn malformed_lines_are_refused_with_the_reason() {
        let missing = |expected| Err(ParseError::Missing(expected));
        assert_eq!(u64::from_line(""), missing("number"));
        for word in ["x", "+1", "-1", "18446744073709551616", "", " ", "1 "] {
            assert!(u64::from_line(word).is_err() || word == "1 ", "{word:?}");
        }
        assert_eq!(u64::from_line("1 2"), Err(ParseError::Surplus("2".into())));
        for word in ["%4", "%zz", "%ff", "a%", "a\nb"] {
            assert!(String::from_line(word).is_err(), "{word:?}");
        }
        assert!(Vec::<u64>::from_line("99999 1 2").is_err(), "a count beyond the line");
        assert!(BTreeMap::<String, u64>::from_line("2 b 1 a 2").is_err(), "keys in the wrong order");
        assert!(BTreeMap::<String, u64>::from_line("2 a 1 a 2").is_err(), "a key twice");
    }

    #[test]
    fn numbers_are_written_as_they_are_displayed() {
        let whole = [0, 1, 9, 10, 15, 16, 0xfff, 0x1000, u64::MAX.into(), 1 << 64, (1 << 64) + 15, u128::MAX];
        for number in whole.into_iter().chain((0..128).map(|bit| 1 << bit)) {
            let mut line = Line::default();
            line.hexadecimal(number);
            line.number(number as i64);
            line.dotted(number as u64, [number as u64, 7]);
            let expected = format!("{number:x} {} {:x}.{}.7", number as i64, number as u64, number as u64);
            assert_eq!(line.as_str(), expected);
            assert_eq!(Reader::new(line.as_str()).hexadecimal("number"), Ok(number));
        }
    }

    #[test]
    fn a_long_word_is_cut_in_the_message_about_it() {
        let Err(ParseError::Invalid { word, .. }) = u64::from_line(&"é".repeat(1000)) else { panic!("no number") };
        assert_eq!(word.chars().count(), 81);
    }
}
