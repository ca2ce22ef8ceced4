//! A list of names, as Python prints it: clients of Fluffy show it as it comes.

/// A list as it is printed: `['a', "it's"]`.
#[derive(Default)]
pub(super) struct Printed {
    /// Without what begins and ends it.
    text: String,
}

impl Printed {
    /// One more name.
    pub(super) fn push(&mut self, name: &str) {
        let comma = if self.text.is_empty() { "" } else { ", " };
        self.text.extend([comma, &quoted(name)]);
    }

    /// The bytes that it has so far.
    pub(super) fn len(&self) -> usize {
        self.text.len() + "[]".len()
    }

    pub(super) fn text(&self) -> String {
        format!("[{}]", self.text)
    }
}

/// As Python's `repr` has it: between double quotes only if there are single ones in it and no double ones.
fn quoted(name: &str) -> String {
    let quote = if name.contains('\'') && !name.contains('"') { '"' } else { '\'' };
    let mut text = String::from(quote);
    for character in name.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            _ if character == quote => text.extend(['\\', quote]),
            _ if is_printable(character) => text.push(character),
            _ => text.push_str(&match u32::from(character) {
                code @ ..=0xff => format!("\\x{code:02x}"),
                code @ ..=0xffff => format!("\\u{code:04x}"),
                code => format!("\\U{code:08x}"),
            }),
        }
    }
    text.push(quote);
    text
}

/// Rust's `Debug` escapes the same characters as Python's `repr`: those that Unicode says are controls, separators but for the
/// blank, or nothing. Behind another character it does not look at what combines.
fn is_printable(character: char) -> bool {
    !format!("x{character}").escape_debug().skip(1).collect::<String>().starts_with("\\u") && !character.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(names: &[String]) -> String {
        let mut list = Printed::default();
        names.iter().for_each(|name| list.push(name));
        assert_eq!(list.len(), list.text().len());
        list.text()
    }

    #[test]
    fn a_list_looks_as_python_prints_it() {
        // Each as `print([name])` in Python 3.11 has it.
        for (name, expected) in [
            ("a.txt", r"['a.txt']"),
            ("it's", r#"["it's"]"#),
            ("\"q\"", r#"['"q"']"#),
            ("'\"", r#"['\'"']"#),
            ("a\\b", r"['a\\b']"),
            ("\n\r\t", r"['\n\r\t']"),
            ("\0\x1b\x7f\u{80}\u{a0}\u{ad}", r"['\x00\x1b\x7f\x80\xa0\xad']"),
            ("naïve 日本 e\u{301}", "['naïve 日本 e\u{301}']"),
            ("\u{301}", "['\u{301}']"),
            ("\u{200b}\u{2028}\u{e000}", r"['\u200b\u2028\ue000']"),
            ("\u{1f600}\u{10ffff}", "['\u{1f600}\\U0010ffff']"),
            ("", "['']"),
        ] {
            assert_eq!(printed(&[name.to_owned()]), expected, "{name:?}");
        }
        assert_eq!(printed(&[]), "[]");
        assert_eq!(printed(&["a".into(), "b".into()]), "['a', 'b']");
    }
}
