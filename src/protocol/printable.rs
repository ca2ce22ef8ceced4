//! What a peer or a user wrote, made safe to show.

use std::fmt::{self, Write as _};

/// Text without the characters that could rewrite a terminal's screen, or make a line read otherwise than it is. These
/// are control characters, characters that change the direction of writing, and separators of lines. Each is shown as
/// Rust would write it: `\u{202e}`. A file name holds no backslash (spec 7.12), so no two names look the same.
pub struct Printable<'a>(pub &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nearly all text is of such bytes.
        if self.0.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
            return f.write_str(self.0);
        }
        for character in self.0.chars() {
            if is_harmful(character) {
                write!(f, "{}", character.escape_default())?;
            } else {
                f.write_char(character)?;
            }
        }
        Ok(())
    }
}

fn is_harmful(character: char) -> bool {
    let is_directional =
        matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let is_separator = matches!(character, '\u{2028}' | '\u{2029}');
    character.is_control() || is_directional || is_separator
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_deceive_a_reader_is_escaped() {
        let table = [
            ("notes.txt", "notes.txt"),
            ("two words", "two words"),
            ("é/ü, 日本, שלום, 👩‍🚀", "é/ü, 日本, שלום, 👩‍🚀"),
            ("clear\u{1b}[2Jscreen", "clear\\u{1b}[2Jscreen"),
            ("next\u{9b}31m", "next\\u{9b}31m"),
            ("a\tb\r\n", "a\\tb\\r\\n"),
            ("cod.\u{202e}gpj.exe", "cod.\\u{202e}gpj.exe"),
            ("\u{2066}isolate\u{2069}", "\\u{2066}isolate\\u{2069}"),
            ("\u{200f}mark\u{61c}", "\\u{200f}mark\\u{61c}"),
            ("line\u{2028}line", "line\\u{2028}line"),
        ];
        for (text, shown) in table {
            assert_eq!(Printable(text).to_string(), shown, "{text:?}");
        }
    }
}
