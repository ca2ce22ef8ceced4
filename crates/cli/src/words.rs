//! What words of a command line mean before any command sees them, and how a line at the prompt is cut into words.

/// Stands for a `-` among the words that argh reads: it takes `-` for an option. No word of a command line holds NUL.
pub const STANDARD_STREAM: &str = "\0";

/// The options that may stand before and behind the command.
const ANYWHERE: [&str; 2] = ["--cluster", "--discover"];

/// Makes of the words of a command line what argh reads: `-` becomes [`STANDARD_STREAM`], `--cluster` and `--discover` come first, and
/// `dstore remove` is one command, as `dstore` alone runs one.
pub fn prepare(words: Vec<String>) -> Vec<String> {
    let mut first = Vec::new();
    let mut others = Vec::new();
    let mut rest = words.into_iter();
    while let Some(word) = rest.next() {
        if word == "--" {
            others.push(word);
            others.extend(rest);
            break;
        }
        let option = ANYWHERE.iter().find_map(|option| Some((option, word.strip_prefix(option)?)));
        match option {
            Some((_, "")) => {
                first.push(word);
                first.extend(rest.next());
            }
            Some((option, value)) if value.starts_with('=') => {
                first.extend([(*option).to_owned(), value[1..].to_owned()]);
            }
            _ if word == "-" => others.push(STANDARD_STREAM.to_owned()),
            _ => others.push(word),
        }
    }
    if let [dstore, remove, ..] = &mut others[..]
        && (dstore.as_str(), remove.as_str()) == ("dstore", "remove")
    {
        "dstore-remove".clone_into(dstore);
        others.remove(1);
    }
    first.extend(others);
    first
}

/// A word of a line at the prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// What it means: without quotes and backslashes.
    pub text: String,
    /// Where it begins in the line, in bytes.
    pub start: usize,
}

/// Words between white space. Double quotes keep white space in a word; a backslash takes the meaning of what follows it.
pub fn split(line: &str) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut is_open = false;
    let mut is_quoted = false;
    let mut characters = line.char_indices();
    while let Some((at, character)) = characters.next() {
        if character.is_whitespace() && !is_quoted {
            is_open = false;
            continue;
        }
        if !is_open {
            words.push(Word { text: String::new(), start: at });
            is_open = true;
        }
        let word = words.last_mut().expect("one is open");
        match character {
            '"' => is_quoted = !is_quoted,
            '\\' => word.text.extend(characters.next().map(|(_, escaped)| escaped)),
            other => word.text.push(other),
        }
    }
    words
}

/// The word under a cursor at the line's end: the last one, or an empty one behind white space.
pub fn last(line: &str) -> Word {
    let open = split(line).pop();
    // Something that cannot end a word is added: if the last word takes it, the cursor is still in that word.
    let is_within = split(&format!("{line}x")).len() == split(line).len();
    open.filter(|_| is_within).unwrap_or(Word { text: String::new(), start: line.len() })
}

/// The text as a word that [`split`] reads back.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_whitespace() || matches!(character, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> Vec<String> {
        split(line).into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn quotes_and_backslashes_keep_a_word_together() {
        let table: &[(&str, &[&str])] = &[
            ("", &[]),
            ("  ls  ", &["ls"]),
            ("get a.txt b", &["get", "a.txt", "b"]),
            ("get \"my file\" x", &["get", "my file", "x"]),
            (r"get my\ file", &["get", "my file"]),
            (r#"a\"b "c\"d" \\"#, &["a\"b", "c\"d", "\\"]),
            ("x \"\"", &["x", ""]),
        ];
        for (line, expected) in table {
            assert_eq!(texts(line), *expected, "{line:?}");
        }
    }

    #[test]
    fn what_is_quoted_is_read_back() {
        for text in ["a", "a b", "a\"b", "back\\slash", "tab\there", "naïve 日本", " "] {
            assert_eq!(texts(&format!("x {} y", quote(text))), ["x", text, "y"]);
        }
    }

    #[test]
    fn the_last_word_is_the_one_under_the_cursor() {
        let table =
            [("", "", 0), ("ls", "ls", 0), ("ls ", "", 3), (r"ls my\ fi", "my fi", 3), ("ls \"my fi", "my fi", 3)];
        for (line, text, start) in table {
            assert_eq!(last(line), Word { text: text.into(), start }, "{line:?}");
        }
    }

    #[test]
    fn the_cluster_may_be_named_behind_the_command() {
        let prepared = |line: &str| prepare(line.split(' ').map(str::to_owned).collect()).join(" ");
        assert_eq!(prepared("ls --cluster x /a"), "--cluster x ls /a");
        assert_eq!(prepared("ls /a --cluster=x"), "--cluster x ls /a");
        assert_eq!(prepared("dstore /a --discover depot --port 0"), "--discover depot dstore /a --port 0");
        assert_eq!(prepared("ls --discover=depot --cluster x"), "--discover depot --cluster x ls");
        assert_eq!(prepared("put - /a"), "put \0 /a");
        assert_eq!(prepared("dstore remove --cluster x 3 --lost"), "--cluster x dstore-remove 3 --lost");
        assert_eq!(prepared("dstore --data remove"), "dstore --data remove");
        assert_eq!(prepared("put -- - --cluster"), "put -- - --cluster");
    }
}
