//! What `find` looks for: a glob, or a part of the name. (depot 3.4)

/// A pattern for names. `*` stands for any characters, `?` for one, `[a-z]` for one of these, `[!a-z]` for one that is none
/// of these; a `[` that no `]` ends is itself. A pattern without any of them matches each name that contains it.
#[derive(Clone, Debug)]
pub struct Pattern {
    tokens: Vec<Token>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Character(char),
    AnyCharacter,
    AnyText,
    OneOf { ranges: Vec<(char, char)>, is_negated: bool },
}

impl Pattern {
    /// Reads a pattern. Any text is one.
    pub fn new(text: &str) -> Self {
        let characters: Vec<char> = text.chars().collect();
        let mut tokens = Vec::new();
        let mut rest = &characters[..];
        while let [first, tail @ ..] = rest {
            let (token, tail) = match first {
                '*' => (Token::AnyText, tail),
                '?' => (Token::AnyCharacter, tail),
                '[' => one_of(tail).unwrap_or((Token::Character('['), tail)),
                other => (Token::Character(*other), tail),
            };
            tokens.push(token);
            rest = tail;
        }
        if tokens.iter().all(|token| matches!(token, Token::Character(_))) {
            tokens.insert(0, Token::AnyText);
            tokens.push(Token::AnyText);
        }
        Self { tokens }
    }

    /// Whether all of `name` is as the pattern says. Takes at most the product of both lengths.
    pub fn matches(&self, name: &str) -> bool {
        let mut tokens = &self.tokens[..];
        let mut rest = name.chars();
        // Where the last `*` was met: it takes one character more each time the rest does not match.
        let mut retry: Option<(&[Token], std::str::Chars<'_>)> = None;
        loop {
            let before = rest.clone();
            match (tokens, rest.next()) {
                ([Token::AnyText, others @ ..], _) => {
                    rest = before.clone();
                    retry = Some((others, before));
                    tokens = others;
                }
                ([], None) => return true,
                ([token, others @ ..], Some(character)) if token.takes(character) => tokens = others,
                _ => {
                    let Some((after_star, from)) = &mut retry else { return false };
                    if from.next().is_none() {
                        return false;
                    }
                    (tokens, rest) = (after_star, from.clone());
                }
            }
        }
    }

    /// Whether the last component of an entry's path matches; a directory's path ends in `/`.
    pub fn matches_last_component(&self, entry: &str) -> bool {
        self.matches(entry.trim_end_matches('/').rsplit('/').next().unwrap_or_default())
    }
}

impl Token {
    fn takes(&self, character: char) -> bool {
        match self {
            Self::Character(own) => *own == character,
            Self::AnyCharacter => true,
            Self::AnyText => false,
            Self::OneOf { ranges, is_negated } => {
                ranges.iter().any(|(first, last)| (first..=last).contains(&&character)) != *is_negated
            }
        }
    }
}

/// What follows a `[`, up to and with its `]`, which may be the first character as itself.
fn one_of(text: &[char]) -> Option<(Token, &[char])> {
    let (is_negated, text) = match text {
        ['!' | '^', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let end = 1 + text.iter().skip(1).position(|character| *character == ']')?;
    let (mut inner, rest) = (&text[..end], &text[end + 1..]);
    let mut ranges = Vec::new();
    loop {
        inner = match inner {
            [] => return Some((Token::OneOf { ranges, is_negated }, rest)),
            [first, '-', last, tail @ ..] => {
                ranges.push((*first, *last));
                tail
            }
            [only, tail @ ..] => {
                ranges.push((*only, *only));
                tail
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_matches_a_glob_as_in_a_shell() {
        let table = [
            ("*", "anything", true),
            ("*", "", true),
            ("*.txt", "a.txt", true),
            ("*.txt", "a.txt.gz", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "acb", false),
            ("?", "é", true),
            ("?", "", false),
            ("??", "a", false),
            ("[a-c]x", "bx", true),
            ("[a-c]x", "dx", false),
            ("[!a-c]x", "dx", true),
            ("[^a-c]x", "ax", false),
            ("[]]", "]", true),
            ("[-a]", "-", true),
            ("[a-]", "-", true),
            ("[é-ü]*", "ö.txt", true),
            ("[open*", "[opened", true),
            ("*[", "x[", true),
        ];
        for (pattern, name, expected) in table {
            assert_eq!(Pattern::new(pattern).matches(name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_without_wildcards_may_be_anywhere_in_the_name() {
        for (pattern, name, expected) in [
            ("ote", "notes", true),
            ("notes", "notes", true),
            ("Note", "notes", false),
            ("", "x", true),
            ("]", "a]b", true),
        ] {
            assert_eq!(Pattern::new(pattern).matches(name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn only_the_last_component_counts() {
        let pattern = Pattern::new("a*");
        for (entry, expected) in [("x/ab", true), ("ab/x", false), ("x/ab/", true), ("ab", true)] {
            assert_eq!(pattern.matches_last_component(entry), expected, "{entry}");
        }
    }

    #[test]
    fn many_stars_do_not_take_for_ever() {
        let pattern = Pattern::new(&"*a".repeat(500));
        assert!(!pattern.matches(&"a".repeat(499)));
        assert!(!pattern.matches(&format!("{}b", "a".repeat(2_000))));
    }
}
