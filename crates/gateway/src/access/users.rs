//! The users of a store.

use std::collections::BTreeMap;
use std::fmt;

use depot::client::{Error, Files, ListOptions};
use depot::identity::Version;
use depot::namespace::change::{Condition, Details, Refusal, RemovalExtent};
use depot::path::{InvalidPath, Path};

use super::user::{User, check_name};

/// Where they are.
const FOLDER: &str = "/.stevedore/users";

/// So often a change is begun anew because another one came in between.
const ATTEMPTS: usize = 100;

/// The users of a store.
#[derive(Clone, Copy)]
pub struct Users<'a> {
    store: &'a dyn Files,
}

/// Why a user was not changed.
#[derive(Debug)]
pub enum ChangeError {
    /// There is none of that name.
    NoSuchUser,
    /// There is one of that name.
    AlreadyExists,
    /// Others change it all the time.
    Busy,
    /// The store says so.
    Store(Error),
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchUser => f.write_str("there is no such user"),
            Self::AlreadyExists => f.write_str("there is such a user already"),
            Self::Busy => f.write_str("others change the user at the same time"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl From<Error> for ChangeError {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(Refusal::NotFound) => Self::NoSuchUser,
            Error::Refused(Refusal::AlreadyExists) => Self::AlreadyExists,
            error => Self::Store(error),
        }
    }
}

impl<'a> Users<'a> {
    /// Those of this store.
    pub fn of(store: &'a dyn Files) -> Self {
        Self { store }
    }

    /// The user of this name.
    pub fn find(self, name: &str) -> Result<Option<User>, Error> {
        Ok(self.read(name)?.map(|(user, _)| user))
    }

    /// All of them, by name.
    pub fn list(self) -> Result<Vec<User>, Error> {
        let mut users = Vec::new();
        let mut options = ListOptions::default();
        loop {
            let page = match self.store.list(&folder(), &options) {
                Err(Error::Refused(Refusal::NotFound)) => return Ok(users),
                page => page?,
            };
            users.extend(page.entries.iter().filter_map(|entry| {
                let name = check_name(entry.name.trim_end_matches('/')).ok()?;
                Some(User::of_attributes(name, &entry.stat.details.attributes))
            }));
            match page.after {
                Some(after) => options.after = after,
                None => return Ok(users),
            }
        }
    }

    /// Adds one of whom there is none of that name.
    pub fn insert(self, user: &User) -> Result<(), ChangeError> {
        let details = Details { attributes: user.attributes(), ..Details::default() };
        self.store.make_directory(&place(&user.name)?, true, &details, None)?;
        Ok(())
    }

    /// Changes one: `change` gets it as it is now, and may be called again if another change comes in between.
    pub fn change(self, name: &str, mut change: impl FnMut(&mut User)) -> Result<User, ChangeError> {
        for _ in 0..ATTEMPTS {
            let (before, version) = self.read(name)?.ok_or(ChangeError::NoSuchUser)?;
            let mut user = before.clone();
            change(&mut user);
            let mut attributes: BTreeMap<_, _> = before.attributes().into_keys().map(|name| (name, None)).collect();
            attributes.extend(user.attributes().into_iter().map(|(name, value)| (name, Some(value))));
            let condition = Condition::Changed { version };
            match self.store.set_attributes(&place(name)?, condition, &attributes, None, None) {
                Err(Error::Refused(Refusal::ConditionFailed)) => {}
                changed => return Ok(changed.map(|_| user)?),
            }
        }
        Err(ChangeError::Busy)
    }

    /// Removes one.
    pub fn remove(self, name: &str) -> Result<(), ChangeError> {
        self.store.remove_directory(&place(name)?, Condition::Any, RemovalExtent::Tree)?;
        Ok(())
    }

    /// A user, and when it was last changed.
    fn read(self, name: &str) -> Result<Option<(User, Version)>, Error> {
        let Ok(place) = place(name) else { return Ok(None) };
        match self.store.stat(&place) {
            Ok(stat) => Ok(Some((User::of_attributes(name, &stat.details.attributes), stat.changed))),
            Err(Error::Refused(Refusal::NotFound)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn folder() -> Path {
    FOLDER.parse().expect("it is a path")
}

/// Where a user is. What no user can be called is nowhere.
fn place(name: &str) -> Result<Path, Error> {
    let name = check_name(name).map_err(|_| Error::Refused(Refusal::NotFound))?;
    folder().join(name).map_err(|_: InvalidPath| Error::Refused(Refusal::InvalidPath))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Right;
    use depot::client::memory::Memory;
    use std::thread;

    #[test]
    fn users_are_added_changed_listed_and_removed() {
        let store = Memory::new("test").unwrap();
        let users = Users::of(&store);
        assert_eq!(users.list().unwrap(), []);
        assert!(matches!(users.change("alice", |_| ()), Err(ChangeError::NoSuchUser)));
        assert!(matches!(users.remove("alice"), Err(ChangeError::NoSuchUser)));
        let alice = User::new("alice").unwrap();
        users.insert(&alice).unwrap();
        assert!(matches!(users.insert(&alice), Err(ChangeError::AlreadyExists)));
        users.insert(&User::new("Bob").unwrap()).unwrap();
        let changed = users
            .change("alice", |user| {
                user.password = Some("$hash".into());
                user.rights.insert("/a".parse().unwrap(), Right::Read);
            })
            .unwrap();
        assert_eq!(users.find("alice").unwrap(), Some(changed));
        let without = users.change("alice", |user| user.rights.clear()).unwrap();
        assert_eq!(users.find("alice").unwrap(), Some(without), "what was taken away is gone");
        let names: Vec<String> = users.list().unwrap().into_iter().map(|user| user.name).collect();
        assert_eq!(names, ["Bob", "alice"]);
        users.remove("alice").unwrap();
        assert_eq!(users.find("alice").unwrap(), None);
        for name in ["", "..", "../../a", "a/b"] {
            assert_eq!(users.find(name).unwrap(), None, "{name}");
        }
    }

    #[test]
    fn no_change_is_lost_when_many_come_at_once() {
        let store = Memory::new("test").unwrap();
        let users = Users::of(&store);
        users.insert(&User::new("alice").unwrap()).unwrap();
        thread::scope(|scope| {
            for number in 0..8 {
                let change = move || {
                    for round in 0..10 {
                        let prefix: Path = format!("/{number}/{round}").parse().unwrap();
                        users.change("alice", |user| user.rights.extend([(prefix.clone(), Right::Read)])).unwrap();
                    }
                };
                scope.spawn(change);
            }
        });
        assert_eq!(users.find("alice").unwrap().unwrap().rights.len(), 80);
    }
}
