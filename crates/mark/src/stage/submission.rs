//! What is marked: the command lines of a Controller and a Dstore.

use std::fmt;
use std::path::{Path, PathBuf};

use super::process::MARK_ITSELF;
use crate::checks::published::Edition;

/// A command line with `{port}`-like places to fill in.
#[derive(Clone, Debug)]
pub struct Template {
    words: Vec<String>,
}

/// What goes into a template's places.
pub type Values<'a> = &'a [(&'a str, String)];

/// How a report names our own program.
pub const OURS: &str = "Stevedore's own, built into mark";

impl Template {
    /// Splits at spaces, except within quotes. Nothing else of a shell: no shell stands between `mark` and the program.
    pub fn parse(text: &str, needed: &[&str]) -> Result<Self, String> {
        let mut words = vec![];
        let mut word: Option<String> = None;
        let mut quote = None;
        for c in text.chars() {
            match (c, quote) {
                ('"' | '\'', None) => {
                    quote = Some(c);
                    word.get_or_insert_default();
                }
                (c, Some(open)) if c == open => quote = None,
                (c, None) if c.is_whitespace() => words.extend(word.take()),
                (c, _) => word.get_or_insert_default().push(c),
            }
        }
        words.extend(word);
        if quote.is_some() {
            return Err(format!("a quote is not closed: {text}"));
        }
        if words.is_empty() {
            return Err("an empty command".into());
        }
        match needed.iter().find(|place| !words.iter().any(|word| word.contains(**place))) {
            Some(missing) => Err(format!("the command has no {missing}: {text}")),
            None => Ok(Self { words }),
        }
    }

    /// `mark` itself in one of its hidden roles.
    fn own(role: &str, places: &str) -> Self {
        let words = [MARK_ITSELF, role].into_iter().chain(places.split(' ')).map(str::to_owned).collect();
        Self { words }
    }

    /// The command, with every place filled in. Paths that lead out of the folder where `mark` was started (`../lib`)
    /// are made absolute; those within are found by the links that each run's folder has to all that is there.
    pub fn fill(&self, values: Values, home: &Path) -> Vec<String> {
        let fill = |word: &String| {
            let filled = values.iter().fold(word.clone(), |word, (place, value)| word.replace(place, value));
            let outward = |piece: &str| match piece.starts_with("..") {
                true => home.join(piece).to_string_lossy().into_owned(),
                false => piece.to_owned(),
            };
            filled.split(':').map(outward).collect::<Vec<_>>().join(":")
        };
        self.words.iter().map(fill).collect()
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.words.get(1) {
            Some(role) if role.starts_with("own-") => f.write_str(OURS),
            _ => f.write_str(&self.words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")),
        }
    }
}

/// A word as [`Template::parse`] takes it for one.
fn quoted(word: &str) -> String {
    let is_plain = |word: &str| !word.is_empty() && !word.contains(|c: char| c.is_whitespace() || "'\"".contains(c));
    let pieces = word.split_inclusive('\'').map(|piece| match piece.strip_suffix('\'') {
        _ if is_plain(piece) => piece.to_owned(),
        Some("") => "\"'\"".into(),
        Some(before) => format!("'{before}'\"'\""),
        None => format!("'{piece}'"),
    });
    if word.is_empty() { "''".into() } else { pieces.collect() }
}

/// The two roles' commands.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The Controller's; ours where only a Dstore is marked.
    pub controller: Template,
    /// The Dstore's; ours where only a Controller is marked.
    pub dstore: Template,
    /// Whether the Controller is to be marked.
    pub marks_controller: bool,
    /// Whether the Dstore is to be marked.
    pub marks_dstore: bool,
    /// Where the commands are meant to be run.
    pub home: PathBuf,
    /// The edition by which they are marked.
    pub edition: Edition,
}

impl Submission {
    /// With neither template: our own programs, which are built into `mark`.
    pub fn new(controller: Option<&str>, dstore: Option<&str>, home: PathBuf) -> Result<Self, String> {
        let both = controller.is_none() && dstore.is_none();
        let parsed = |text: Option<&str>, needed: &[&str]| text.map(|text| Template::parse(text, needed)).transpose();
        let own_controller = || Template::own("own-controller", "{cport} {r} {timeout} {period}");
        let own_dstore = || Template::own("own-dstore", "{port} {cport} {timeout} {folder}");
        Ok(Self {
            marks_controller: both || controller.is_some(),
            marks_dstore: both || dstore.is_some(),
            controller: parsed(controller, &["{cport}", "{r}", "{timeout}", "{period}"])?
                .unwrap_or_else(own_controller),
            dstore: parsed(dstore, &["{port}", "{cport}", "{timeout}", "{folder}"])?.unwrap_or_else(own_dstore),
            home,
            edition: Edition::default(),
        })
    }

    /// The same, marked by an edition.
    pub fn by(self, edition: Edition) -> Self {
        Self { edition, ..self }
    }

    /// A rebalance period of so many seconds, in the unit that the Controller wants.
    pub fn period(&self, seconds: u64) -> u64 {
        if self.edition.has_period_in_milliseconds() { seconds * 1_000 } else { seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_words_with_places() {
        let template = Template::parse("java -cp 'a b':../c:d Dstore {port}", &["{port}"]).unwrap();
        let filled = template.fill(&[("{port}", "7".into())], Path::new("/home"));
        assert_eq!(filled, ["java", "-cp", "a b:/home/../c:d", "Dstore", "7"]);
        assert!(Template::parse("java Dstore", &["{port}"]).unwrap_err().contains("{port}"));
        assert!(Template::parse("java 'Dstore", &[]).is_err());
    }

    #[test]
    fn a_template_shown_is_the_template_again() {
        for text in ["java Dstore {port}", "sh -c 'exec \"$0\"; a' ''", "a \"it's\" b", "a \"'\""] {
            let template = Template::parse(text, &[]).unwrap();
            assert_eq!(Template::parse(&template.to_string(), &[]).unwrap().words, template.words, "{template}");
        }
    }
}
