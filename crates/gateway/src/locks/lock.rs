//! A lock: as attributes and back, and what it is in the way of.

use std::collections::BTreeMap;
use std::time::Duration;

use depot::identity::Version;
use depot::namespace::listing::Stat;
use depot::path::Path;

/// What a token looks like to clients.
const SCHEME: &str = "urn:uuid:";

/// A lock that a client asks for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// What is locked.
    pub(crate) path: Path,
    /// All that is below it, too, and all that comes to be there.
    pub(crate) is_deep: bool,
    /// Others may have such a lock beside it.
    pub(crate) is_shared: bool,
    /// The user that asks: no other one may use the token.
    pub(crate) user: String,
    /// What the client says of its owner, as an XML element; empty if it says nothing.
    pub(crate) owner: String,
    /// It ends so long after it was last extended.
    pub(crate) timeout: Duration,
}

/// A lock that is in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lock {
    /// Its name.
    pub(crate) token: String,
    /// When it was entered, or last extended.
    pub(crate) version: Version,
    pub(crate) path: Path,
    pub(crate) is_deep: bool,
    pub(crate) is_shared: bool,
    pub(crate) user: String,
    pub(crate) owner: String,
    /// When it ends, in milliseconds since 1970.
    pub(crate) expires_ms: u64,
    /// It was granted, since only such a lock is extended.
    pub(crate) was_extended: bool,
}

const PATH: &str = "path";
const DEPTH: &str = "depth";
const SCOPE: &str = "scope";
const USER: &str = "user";
const OWNER: &str = "owner";
const EXPIRES: &str = "expires";
const EXTENDED: &str = "extended";

impl Wanted {
    /// As it is kept.
    pub(super) fn attributes(&self, expires_ms: u64) -> BTreeMap<String, String> {
        [
            (PATH, self.path.to_string()),
            (DEPTH, if self.is_deep { "infinity" } else { "0" }.to_owned()),
            (SCOPE, if self.is_shared { "shared" } else { "exclusive" }.to_owned()),
            (USER, self.user.clone()),
            (OWNER, self.owner.clone()),
            (EXPIRES, expires_ms.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

/// What changes in the attributes of a lock that is extended.
pub(super) fn extended(expires_ms: u64) -> BTreeMap<String, Option<String>> {
    [(EXPIRES, expires_ms.to_string()), (EXTENDED, String::new())]
        .map(|(name, value)| (name.to_owned(), Some(value)))
        .into()
}

impl Lock {
    /// As it was kept; `None` for what is no lock.
    pub(super) fn of(token: &str, stat: &Stat) -> Option<Self> {
        let attributes = &stat.details.attributes;
        let text = |name: &str| attributes.get(name).map(String::as_str);
        Some(Self {
            token: token.to_owned(),
            version: stat.version,
            path: text(PATH)?.parse().ok()?,
            is_deep: text(DEPTH)? == "infinity",
            is_shared: text(SCOPE)? == "shared",
            user: text(USER)?.to_owned(),
            owner: text(OWNER)?.to_owned(),
            expires_ms: text(EXPIRES)?.parse().ok()?,
            was_extended: text(EXTENDED).is_some(),
        })
    }

    /// The token as clients see it.
    pub(crate) fn uri(&self) -> String {
        format!("{SCHEME}{}", self.token)
    }

    /// Whether it protects what is at the path.
    pub(crate) fn covers(&self, path: &Path) -> bool {
        self.path == *path || self.is_deep && path.is_within(&self.path)
    }

    /// Whether it was there, or may have been granted, before one that was entered at this version.
    pub(super) fn came_before(&self, entered: Version) -> bool {
        self.was_extended || self.version.sequence < entered.sequence
    }

    /// Whether there cannot be both.
    pub(super) fn conflicts(&self, other: &Self) -> bool {
        (self.covers(&other.path) || other.covers(&self.path)) && !(self.is_shared && other.is_shared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use depot::identity::History;
    use depot::namespace::change::Details;
    use depot::namespace::listing::Kind;

    fn wanted(path: &str, is_deep: bool, is_shared: bool) -> Wanted {
        let (user, owner) = ("alice".to_owned(), "<owner xmlns=\"DAV:\">A &amp; B</owner>".to_owned());
        Wanted { path: path.parse().unwrap(), is_deep, is_shared, user, owner, timeout: Duration::from_secs(60) }
    }

    fn stat(attributes: BTreeMap<String, String>) -> Stat {
        let version = Version { history: History(1), sequence: 7 };
        let kind = Kind::Directory { is_explicit: true, entries: 0 };
        let details = Details { attributes, ..Details::default() };
        Stat { kind, version, changed: version, modified_ms: 0, details }
    }

    fn lock(path: &str, is_deep: bool, is_shared: bool) -> Lock {
        Lock::of("t", &stat(wanted(path, is_deep, is_shared).attributes(5))).unwrap()
    }

    #[test]
    fn a_lock_comes_back_from_its_attributes() {
        for (is_deep, is_shared) in [(false, false), (true, false), (false, true)] {
            let wanted = wanted("/a b/ü", is_deep, is_shared);
            let lock = lock("/a b/ü", is_deep, is_shared);
            assert_eq!((&lock.path, &lock.user, &lock.owner), (&wanted.path, &wanted.user, &wanted.owner));
            assert_eq!((lock.is_deep, lock.is_shared, lock.expires_ms), (is_deep, is_shared, 5));
            assert_eq!(lock.uri(), "urn:uuid:t");
        }
        let mut attributes = wanted("/a", false, false).attributes(5);
        attributes.extend(extended(9).into_iter().map(|(name, value)| (name, value.unwrap())));
        let extended = Lock::of("t", &stat(attributes)).unwrap();
        assert!(extended.was_extended && extended.expires_ms == 9);
        assert_eq!(Lock::of("t", &stat(BTreeMap::new())), None);
    }

    #[test]
    fn locks_conflict_where_both_protect_the_same() {
        let (exclusive, shared) = (false, true);
        for (first, second, expected) in [
            (("/a", false, exclusive), ("/a", false, exclusive), true),
            (("/a", false, exclusive), ("/a", false, shared), true),
            (("/a", false, shared), ("/a", false, shared), false),
            (("/a", false, exclusive), ("/a/b", false, exclusive), false),
            (("/a", true, exclusive), ("/a/b", false, exclusive), true),
            (("/a", true, exclusive), ("/a/b/c", true, shared), true),
            (("/a", true, shared), ("/a/b", false, shared), false),
            (("/a", true, exclusive), ("/ab", false, exclusive), false),
            (("/", true, exclusive), ("/ab", false, exclusive), true),
            (("/a/b", true, exclusive), ("/a", false, exclusive), false),
        ] {
            let lock = |(path, is_deep, is_shared)| lock(path, is_deep, is_shared);
            let (one, other) = (lock(first), lock(second));
            assert_eq!((one.conflicts(&other), other.conflicts(&one)), (expected, expected), "{first:?} {second:?}");
        }
    }
}
