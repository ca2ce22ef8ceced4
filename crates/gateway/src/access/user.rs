//! A user: name, password, rights; as attributes and back.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::str::FromStr;

use depot::path::Path;

use super::password;

/// The user that requests without a user are of.
pub const ANONYMOUS: &str = "anonymous";

/// The longest name in bytes.
const LONGEST_NAME: usize = 64;

/// The longest password in bytes: hashing takes longer the longer it is.
const LONGEST_PASSWORD: usize = 1_024;

/// What may be done at a path. Each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// To see what is there.
    Read,
    /// To change it.
    Write,
    /// To change users and their rights, and to end their locks.
    Admin,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        })
    }
}

impl FromStr for Right {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        [Self::Read, Self::Write, Self::Admin]
            .into_iter()
            .find(|right| right.to_string() == word)
            .ok_or_else(|| "expected read, write or admin".into())
    }
}

/// What no user can be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidName;

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a user's name has letters a to z, digits, and . _ - @ + (not first), {LONGEST_NAME} of them at most")
    }
}

impl std::error::Error for InvalidName {}

/// Refuses what no user can be called: a name is part of a path, and of a line with `:` behind it.
pub(super) fn check_name(name: &str) -> Result<&str, InvalidName> {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-@+".contains(&byte));
    let begins_well = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if is_plain && begins_well && name.len() <= LONGEST_NAME { Ok(name) } else { Err(InvalidName) }
}

/// The secret of an access key: what requests over S3 are signed with, so it cannot be kept as a hash. Debug output hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// As it was drawn.
    pub fn of(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// As it is typed.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// What it is called.
    pub name: String,
    /// The password's hash; `None` if none lets it in.
    pub password: Option<String>,
    /// Its access keys for S3, with the secret of each.
    pub keys: BTreeMap<String, Secret>,
    /// What it may, by path: there and below.
    pub rights: BTreeMap<Path, Right>,
}

/// The most access keys of a user: all of them are in one record.
pub const MOST_KEYS: usize = 32;

const PASSWORD: &str = "password";
const KEY: &str = "key:";
const RIGHT: &str = "right:";

impl User {
    /// One without password and rights.
    pub fn new(name: &str) -> Result<Self, InvalidName> {
        Ok(Self { name: check_name(name)?.to_owned(), password: None, keys: BTreeMap::new(), rights: BTreeMap::new() })
    }

    /// Gives it one more access key: a name that no other key has, and a secret of 200 random bits.
    pub fn add_key(&mut self) -> io::Result<(String, Secret)> {
        if self.keys.len() >= MOST_KEYS {
            return Err(io::Error::other(format!("a user has at most {MOST_KEYS} keys: remove one first")));
        }
        let key = format!("SV{}", password::random_letters::<18>()?.to_ascii_uppercase());
        let secret = Secret(password::random_letters::<40>()?);
        self.keys.insert(key.clone(), secret.clone());
        Ok((key, secret))
    }

    /// Gives it another password.
    pub fn set_password(&mut self, password: &str) -> io::Result<()> {
        if password.is_empty() || password.len() > LONGEST_PASSWORD {
            return Err(io::Error::other(format!("a password has 1 to {LONGEST_PASSWORD} bytes")));
        }
        self.password = Some(password::hash(password)?);
        Ok(())
    }

    /// The greatest right that it has at a path.
    pub fn right_at(&self, path: &Path) -> Option<Right> {
        self.rights.iter().filter(|(prefix, _)| path.is_within(prefix)).map(|(_, right)| *right).max()
    }

    /// As it is kept.
    pub(super) fn attributes(&self) -> BTreeMap<String, String> {
        let password = self.password.iter().map(|hash| (PASSWORD.to_owned(), hash.clone()));
        let keys = self.keys.iter().map(|(key, secret)| (format!("{KEY}{key}"), secret.0.clone()));
        let rights = self.rights.iter().map(|(prefix, right)| (format!("{RIGHT}{prefix}"), right.to_string()));
        password.chain(keys).chain(rights).collect()
    }

    /// As it was kept. What is not understood gives no right.
    pub(super) fn of_attributes(name: &str, attributes: &BTreeMap<String, String>) -> Self {
        let right =
            |(name, right): (&String, &String)| Some((name.strip_prefix(RIGHT)?.parse().ok()?, right.parse().ok()?));
        let key =
            |(name, secret): (&String, &String)| Some((name.strip_prefix(KEY)?.to_owned(), Secret(secret.clone())));
        Self {
            name: name.to_owned(),
            password: attributes.get(PASSWORD).cloned(),
            keys: attributes.iter().filter_map(key).collect(),
            rights: attributes.iter().filter_map(right).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Path {
        text.parse().unwrap()
    }

    fn user(rights: &[(&str, Right)]) -> User {
        let rights = rights.iter().map(|(prefix, right)| (path(prefix), *right)).collect();
        User { name: "alice".into(), password: Some("$hash".into()), keys: BTreeMap::new(), rights }
    }

    #[test]
    fn the_greatest_right_above_a_path_counts() {
        let alice = user(&[("/", Right::Read), ("/home/alice", Right::Write), ("/home/alice/x", Right::Read)]);
        for (at, expected) in [
            ("/", Right::Read),
            ("/home", Right::Read),
            ("/home/alic", Right::Read),
            ("/home/alice", Right::Write),
            ("/home/alice/a/b", Right::Write),
            ("/home/alice/x/y", Right::Write),
            ("/home/alice2", Right::Read),
            ("/home/alice ", Right::Read),
            ("/home/Alice", Right::Read),
            ("/x/home/alice", Right::Read),
        ] {
            assert_eq!(alice.right_at(&path(at)), Some(expected), "{at}");
        }
        let bob = user(&[("/home/bob", Right::Admin)]);
        for at in ["/", "/home", "/home/bobby", "/home/bo", "/home/alice"] {
            assert_eq!(bob.right_at(&path(at)), None, "{at}");
        }
        assert_eq!(user(&[]).right_at(&path("/")), None);
    }

    #[test]
    fn each_right_includes_those_before_it() {
        assert!(Some(Right::Admin) > Some(Right::Write) && Some(Right::Write) > Some(Right::Read));
        assert!(Some(Right::Read) > None);
    }

    #[test]
    fn a_user_comes_back_from_its_attributes() {
        let mut alice = user(&[("/", Right::Read), ("/a b/ü:c", Right::Admin)]);
        alice.add_key().unwrap();
        alice.add_key().unwrap();
        assert_eq!(User::of_attributes("alice", &alice.attributes()), alice);
        let mut damaged = alice.attributes();
        for (name, value) in [("right:/x", "all"), ("right:x", "admin"), ("right:/../", "admin"), ("Right:/y", "admin")]
        {
            damaged.insert(name.into(), value.into());
        }
        assert_eq!(User::of_attributes("alice", &damaged), alice, "what is not understood gives nothing");
    }

    #[test]
    fn a_key_is_drawn_and_its_secret_is_not_shown_by_accident() {
        let mut alice = user(&[]);
        let (key, secret) = alice.add_key().unwrap();
        assert_eq!((key.len(), secret.as_str().len()), (20, 40));
        assert!(key.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()), "{key}");
        assert!(!format!("{alice:?}").contains(secret.as_str()));
        for _ in 1..MOST_KEYS {
            alice.add_key().unwrap();
        }
        assert_eq!(alice.keys.len(), MOST_KEYS, "no two are the same");
        assert!(alice.add_key().is_err());
    }

    #[test]
    fn a_name_is_plain() {
        let long = "x".repeat(65);
        for name in ["alice", "Bob", "a.b-c_d@example.org", "x+y", "7"] {
            assert_eq!(check_name(name), Ok(name));
        }
        for name in ["", ".", "..", ".a", "a/b", "a:b", "a b", "ü", "a\n", "-rf", "*", &long] {
            assert_eq!(check_name(name), Err(InvalidName), "{name:?}");
        }
    }
}
