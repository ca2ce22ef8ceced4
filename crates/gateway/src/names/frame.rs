//! What is said on a session: requests of 2,048 characters, answers of any length, and names as both can say them.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read};

/// Each request has so many characters: not bytes.
const CHARACTERS: usize = 2_048;

/// What follows each field.
const END: &str = "][";

/// One request: fields, each followed by `][`, and blanks behind them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// What is asked for; the answer repeats it.
    pub(super) kind: String,
    /// Up to two.
    pub(super) arguments: Vec<String>,
}

impl Request {
    /// Reads one; `None` if the client has closed the session. Reads no byte of what comes behind it: a character that is missing has
    /// one byte at least.
    pub(super) fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut bytes = Vec::with_capacity(CHARACTERS);
        let mut last = Progress::default();
        loop {
            let missing = match CHARACTERS.checked_sub(last.characters) {
                None => return Err(io::Error::new(ErrorKind::InvalidData, "its last character is cut off")),
                Some(0) if last.open == 0 => break,
                Some(0) => 1,
                Some(missing) => missing,
            };
            let begin = bytes.len();
            bytes.resize(begin + missing, 0);
            let read = from.read(&mut bytes[begin..])?;
            bytes.truncate(begin + read);
            match read {
                0 if begin == 0 => return Ok(None),
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                _ => bytes[begin..].iter().for_each(|byte| last.add(*byte)),
            }
        }
        Self::parse(&String::from_utf8_lossy(&bytes)).map(Some)
    }

    fn parse(text: &str) -> io::Result<Self> {
        let mut fields: Vec<&str> = text.split(END).collect();
        let rest = fields.pop().unwrap_or_default();
        if fields.is_empty() || fields.len() > 3 || !rest.bytes().all(|byte| byte == b' ') {
            let shown: String = text.trim_end().chars().take(60).collect();
            return Err(io::Error::new(ErrorKind::InvalidData, format!("no request: {shown:?}")));
        }
        let mut fields = fields.into_iter().map(str::to_owned);
        Ok(Self { kind: fields.next().expect("there is one"), arguments: fields.collect() })
    }
}

/// How many characters have come, as far as UTF-8 tells.
#[derive(Default)]
struct Progress {
    /// Those that have begun.
    characters: usize,
    /// Bytes that the last one lacks.
    open: usize,
}

impl Progress {
    fn add(&mut self, byte: u8) {
        if self.open > 0 && byte & 0xc0 == 0x80 {
            self.open -= 1;
            return;
        }
        self.characters += 1;
        self.open = match byte {
            0xc2..=0xdf => 1,
            0xe0..=0xef => 2,
            0xf0..=0xf4 => 3,
            _ => 0,
        };
    }
}

/// An answer: `TYPE][LENGTH][BODY`, where LENGTH counts bytes.
pub(super) fn answer(kind: &str, body: &str) -> Vec<u8> {
    format!("{kind}{END}{}{END}{body}", body.len()).into_bytes()
}

/// A name as a session can say it: blanks, control characters and `][` are percent-escaped, and what would be taken for that.
pub(super) fn escaped(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for (at, character) in name.char_indices() {
        let rest = &name[at + character.len_utf8()..];
        let is_escaped = match character {
            ' ' => true,
            ']' => rest.starts_with('['),
            '%' => hexadecimal(rest).is_some(),
            _ => character.is_ascii_control(),
        };
        match is_escaped {
            true => write!(text, "%{:02X}", u32::from(character)).expect("a String takes all"),
            false => text.push(character),
        }
    }
    text
}

/// The name that is meant.
pub(super) fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at + 1..];
        match hexadecimal(rest) {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[2..];
            }
            None => bytes.push(b'%'),
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The byte that two hexadecimal digits at the beginning say.
fn hexadecimal(text: &str) -> Option<u8> {
    let digits = text.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn padded(fields: &str) -> Vec<u8> {
        let blanks = CHARACTERS - fields.chars().count();
        format!("{fields}{}", " ".repeat(blanks)).into_bytes()
    }

    #[test]
    fn a_request_has_2048_characters_however_many_bytes() {
        for fields in [
            "rddir][",
            "rdf][a][",
            "wrf][naïve 日本 𝄞][12][",
            "cpf][a]][[b][",
            "crf][][",
            &format!("crf][{}][", "𝄞".repeat(2_041)),
        ] {
            let mut both = [padded(fields), b"y".to_vec()].concat();
            // However the bytes are cut into pieces.
            for piece in [1, 2, 1_000, 10_000] {
                let mut rest = &both[..];
                let mut reader = Pieces(&mut rest, piece);
                let request = Request::read(&mut reader).unwrap().expect("a request");
                let said: Vec<&str> = fields.strip_suffix(END).unwrap().split(END).collect();
                assert_eq!(request.kind, said[0]);
                assert_eq!(request.arguments, said[1..], "{fields}");
                assert_eq!(rest, b"y", "nothing behind it is taken");
            }
            both.truncate(100);
            assert_eq!(Request::read(&mut &both[..]).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        }
        assert!(Request::read(&mut &b""[..]).unwrap().is_none());
    }

    struct Pieces<'a, 'b>(&'b mut &'a [u8], usize);

    impl Read for Pieces<'_, '_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let most = buffer.len().min(self.1);
            self.0.read(&mut buffer[..most])
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for text in ["", "rdf", "rdf][a", "rdf][a][x", "GET / HTTP/1.1", "a][b][c][d]["] {
            assert_eq!(Request::read(&mut &padded(text)[..]).unwrap_err().kind(), ErrorKind::InvalidData, "{text}");
        }
        // Bytes that are no UTF-8 count as one character each, and are never waited for.
        let mut bytes = padded("crf][x][");
        bytes[5] = 0xff;
        assert_eq!(Request::read(&mut &bytes[..]).unwrap().unwrap().arguments, ["\u{FFFD}"]);
        bytes[2_047] = 0xf0;
        bytes.extend(b"abc");
        assert_eq!(Request::read(&mut &bytes[..]).unwrap_err().kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn an_answer_counts_bytes() {
        assert_eq!(answer("rddir", ""), b"rddir][0][");
        assert_eq!(answer("rddir", "ü\n"), "rddir][3][ü\n".as_bytes());
        assert_eq!(answer("rdf", "0][0"), b"rdf][4][0][0");
    }

    #[test]
    fn each_name_can_be_said_and_comes_back() {
        for (name, said) in [
            ("a.txt", "a.txt"),
            ("two words", "two%20words"),
            ("a][b", "a%5D[b"),
            ("]]", "]]"),
            ("line\nbreak\t\r", "line%0Abreak%09%0D"),
            ("100%", "100%"),
            ("%20", "%2520"),
            ("%2 0", "%2%200"),
            ("%%41", "%%2541"),
            ("naïve", "naïve"),
        ] {
            assert_eq!(escaped(name), said);
            assert_eq!(unescaped(said), name);
        }
        assert_eq!(unescaped("na%C3%AFve"), "naïve");
    }
}
