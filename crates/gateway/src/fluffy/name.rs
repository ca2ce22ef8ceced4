//! Users and files as paths.
//!
//! User and file are any text, and a component of a path is not. What a component cannot be or hold is escaped, by `%` and two
//! hexadecimal digits; so is `%` itself. The empty text is a `%` alone, which nothing else becomes. So every text has its own
//! component, and no two pairs meet.

use depot::path::{LONGEST_COMPONENT, Path};

/// Where all users are.
const USERS: &str = "/users";

/// A user's file.
pub(super) struct Name {
    /// As the client says it.
    pub(super) file: String,
    pub(super) path: Path,
}

impl Name {
    /// Fails, with a sentence, for what is too long.
    pub(super) fn new(user: &str, file: &str) -> Result<Self, String> {
        let path = folder(user)?.join(&component("file's name", file)?).map_err(|error| error.to_string())?;
        Ok(Self { file: file.to_owned(), path })
    }
}

/// Where a user's files are. Fails, with a sentence, for a name that is too long.
pub(super) fn folder(user: &str) -> Result<Path, String> {
    format!("{USERS}/{}", component("user's name", user)?)
        .parse()
        .map_err(|error: depot::path::InvalidPath| error.to_string())
}

fn component(what: &str, text: &str) -> Result<String, String> {
    let escaped = escaped(text);
    if escaped.len() > LONGEST_COMPONENT {
        return Err(format!("A {what} has at most {LONGEST_COMPONENT} bytes."));
    }
    Ok(escaped)
}

fn escaped(text: &str) -> String {
    match text {
        "" => "%".into(),
        "." => "%2E".into(),
        ".." => "%2E%2E".into(),
        _ => text.replace('%', "%25").replace('/', "%2F").replace('\0', "%00"),
    }
}

/// What a component says; `None` if it is none of ours.
pub(super) fn unescaped(component: &str) -> Option<String> {
    let text = match component {
        "%" => String::new(),
        "%2E" => ".".into(),
        "%2E%2E" => "..".into(),
        _ => component.replace("%00", "\0").replace("%2F", "/").replace("%25", "%"),
    };
    (escaped(&text) == component).then_some(text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const AWKWARD: [&str; 18] = [
        "", "%", "%25", ".", "..", "...", "%2E", "%2E%2E", "/", "%2F", "a/b", "a%2Fb", "a", "\0", "%00", "%2525",
        "ü\n ", "users",
    ];

    #[test]
    fn no_two_pairs_of_user_and_file_have_one_path() {
        let mut paths = BTreeMap::new();
        for user in AWKWARD {
            for file in AWKWARD {
                let name = Name::new(user, file).unwrap();
                let before = paths.insert(name.path.to_string(), (user, file));
                assert_eq!(before, None, "{} is of {user:?} {file:?}, too", name.path);
                assert_eq!(name.path.components().count(), 3, "{}", name.path);
            }
        }
    }

    #[test]
    fn a_name_comes_back_from_its_component_and_nothing_else_does() {
        for text in AWKWARD {
            assert_eq!(unescaped(&escaped(text)).as_deref(), Some(text));
        }
        for foreign in ["%zz", "a%", "%2e", "%41", "x%2E"] {
            assert_eq!(unescaped(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn what_is_too_long_is_refused_once_it_is_escaped() {
        let (fits, long) = ("x".repeat(1024), "x".repeat(1025));
        assert!(Name::new(&fits, &fits).is_ok());
        assert!(Name::new(&long, "a").is_err() && Name::new("a", &long).is_err());
        assert!(Name::new("a", &"/".repeat(400)).is_err(), "three bytes for each");
    }
}
