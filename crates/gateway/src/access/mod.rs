//! Users, and the rights that they have.
//!
//! The depot has no users: a program that holds its key may do everything. A gateway has that key, and so must decide for
//! each request whether its sender may have it done.
//!
//! # Users live in the store
//!
//! All gateways of a store must agree, so users are kept where all of them look: each is a folder without entries whose
//! attributes say all there is to know. Attributes need no Dstore, and they change as one.
//!
//! ```text
//! /.stevedore/users/alice
//!     password       $argon2id$v=19$m=19456,t=2,p=1$...
//!     key:SV7QK...   the secret of this access key
//!     right:/        read
//!     right:/home/alice   write
//! ```
//!
//! A user is changed under the condition that it has not been changed since it was read; else it is read again. No client
//! reaches `/.stevedore/`: the façades refuse it before they ask anything else.
//!
//! # Rights
//!
//! A right is given for a path and all that lies below it: `read`, `write` (which includes `read`), or `admin` (which includes
//! both, may end locks of other users, and is to change users once a gateway can). What counts is the greatest right whose path
//! is the request's path or one above it, component by component: `/ab` does not lie below `/a`. There is no way to take a
//! part away again. A user who lacks a right is told so before the store is asked, so that nothing is learned of what exists.
//!
//! Requests that name no user are those of `anonymous`. There may be a user of this name, with rights like any other.
//! If there is none, `anonymous` may read and write if the gateway is open: if only this machine reaches it, or if it
//! was started so. Else it may do nothing.
//!
//! # Passwords
//!
//! A password is kept as its Argon2id hash, which is slow to compute by intention: 19 MiB of memory, some 20 ms. So a gateway
//! computes one at a time. A client sends its password with each request. What has been found to be right is remembered, as a
//! keyed hash of user, password, and the stored hash; once the stored hash changes, it is no longer found.
//!
//! Guessing is limited (`attempts`): by the address that guesses, and by the user that is guessed. What is remembered does not
//! count as a guess, so a client that has logged in is not locked out by the guesses of others.
//!
//! A user that does not exist takes as long to refuse as a wrong password: which users there are is not told.
//!
//! # Access keys
//!
//! A request over S3 names an access key, and is signed with the key's secret, which never travels. To check the signature a
//! gateway needs the secret itself, so secrets are kept as they are: every program with the store's
//! `client.toml` can read them all. They are drawn, never chosen: 200 random bits, so guessing needs no limit.
//! Which user a key belongs to is found among all users, who are read anew when what was read is older than a second.

mod attempts;
mod password;
mod user;
mod users;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64ct::{Base64, Encoding};
use depot::client::{Error, Files};
use depot::path::Path;
use parking_lot::Mutex;

pub use password::random_password;
pub use user::{ANONYMOUS, InvalidName, MOST_KEYS, Right, Secret, User};
pub use users::{ChangeError, Users};

use attempts::Attempts;
use password::Passwords;

/// So long a gateway goes by what it has read of a user: what is changed there holds everywhere a moment later.
const FRESH: Duration = Duration::from_secs(1);

/// Of so many names it remembers what it has read. Most of them may be guesses.
const MOST_KNOWN: usize = 1_024;

/// Decides for a gateway.
pub struct Access {
    store: Arc<dyn Files>,
    /// `anonymous` may read and write unless there is such a user.
    is_open: bool,
    known: Mutex<HashMap<String, Known>>,
    keys: Mutex<Option<KnownKeys>>,
    passwords: Passwords,
    attempts: Attempts,
}

/// What the store said of a name, and when.
type Known = (Instant, Option<Arc<User>>);

/// All access keys, and when they were read.
type KnownKeys = (Instant, Arc<HashMap<String, (Arc<User>, Secret)>>);

/// The sender of a request.
#[derive(Clone, Debug)]
pub enum Caller {
    /// A user whose password or key was proved, or `anonymous`, if there is such a user.
    User(Arc<User>),
    /// A client that names no user, on a gateway that is open.
    Anyone,
    /// A client that names no user, on another one.
    Stranger,
}

/// Why a request is not done.
#[derive(Debug)]
pub enum Denied {
    /// It needs a user, or the password is wrong, or there is no such user: which of them is not told.
    LoginNeeded,
    /// This user may not.
    NotPermitted,
    /// There were too many wrong passwords. After this time another one may be tried.
    TooManyAttempts(Duration),
    /// The store could not be asked.
    Store(Error),
}

impl Access {
    /// Of a store's users. If it is open, then `anonymous` may read and write unless there is such a user.
    pub fn new(store: Arc<dyn Files>, is_open: bool) -> std::io::Result<Self> {
        let passwords = Passwords::new()?;
        Ok(Self {
            store,
            is_open,
            known: Mutex::default(),
            keys: Mutex::default(),
            passwords,
            attempts: Attempts::default(),
        })
    }

    /// The sender of a request: `authorization` is what its head says of that, and `peer` where it comes from.
    pub fn caller(&self, authorization: Option<&[u8]>, peer: IpAddr) -> Result<Caller, Denied> {
        let Some(authorization) = authorization else { return self.without_user() };
        let (name, password) = credentials(authorization).ok_or(Denied::LoginNeeded)?;
        // An address that guesses names costs the store no question for each.
        if !self.known.lock().contains_key(&name)
            && let Some(wait) = self.attempts.time_until_next(Instant::now(), peer)
        {
            return Err(Denied::TooManyAttempts(wait));
        }
        let user = self.user(&name).map_err(Denied::Store)?;
        let stored = user.as_ref().and_then(|user| user.password.as_deref());
        if let (Some(user), Some(stored)) = (&user, stored)
            && self.passwords.remembers(&name, stored, &password)
        {
            return Ok(Caller::User(Arc::clone(user)));
        }
        let is_right =
            self.attempts.try_once(Instant::now(), &name, peer, || self.passwords.verify(&name, stored, &password));
        match (is_right, user) {
            (Ok(true), Some(user)) => Ok(Caller::User(user)),
            (Ok(_), _) => {
                log::warn!("{peer}: a wrong password, or no such user: {name:?}");
                Err(Denied::LoginNeeded)
            }
            (Err(wait), _) => Err(Denied::TooManyAttempts(wait)),
        }
    }

    /// The user of an access key, and the secret that proves it; `None` if there is no such key.
    pub fn key(&self, key: &str) -> Result<Option<(Arc<User>, Secret)>, Error> {
        let now = Instant::now();
        if let Some((read, keys)) = &*self.keys.lock()
            && now.duration_since(*read) < FRESH
        {
            return Ok(keys.get(key).cloned());
        }
        let mut keys = HashMap::new();
        for user in Users::of(&*self.store).list()? {
            let user = Arc::new(user);
            keys.extend(user.keys.iter().map(|(key, secret)| (key.clone(), (Arc::clone(&user), secret.clone()))));
        }
        let found = keys.get(key).cloned();
        *self.keys.lock() = Some((now, Arc::new(keys)));
        Ok(found)
    }

    /// The sender of a request that names no user.
    pub fn without_user(&self) -> Result<Caller, Denied> {
        self.acting_as(ANONYMOUS, self.is_open).map_err(Denied::Store)
    }

    /// The user of this name as it is now, for what acts as it without asking for a password. `anonymous` may read and write if
    /// `is_open` and there is no such user.
    pub(crate) fn acting_as(&self, name: &str, is_open: bool) -> Result<Caller, Error> {
        Ok(match self.user(name)? {
            Some(user) => Caller::User(user),
            None if is_open && name == ANONYMOUS => Caller::Anyone,
            None => Caller::Stranger,
        })
    }

    /// What the store says of a user, or said a moment ago.
    fn user(&self, name: &str) -> Result<Option<Arc<User>>, Error> {
        let now = Instant::now();
        if let Some((read, user)) = self.known.lock().get(name)
            && now.duration_since(*read) < FRESH
        {
            return Ok(user.clone());
        }
        let user = Users::of(&*self.store).find(name)?.map(Arc::new);
        let mut known = self.known.lock();
        if known.len() >= MOST_KNOWN {
            known.retain(|_, (_, user)| user.is_some()); // the others are guesses
        }
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        known.insert(name.to_owned(), (now, user.clone()));
        Ok(user)
    }
}

impl Caller {
    /// Whether the caller has this right at this path.
    pub fn may(&self, right: Right, path: &Path) -> bool {
        match self {
            Self::User(user) => user.right_at(path) >= Some(right),
            Self::Anyone => right <= Right::Write,
            Self::Stranger => false,
        }
    }

    /// Refuses unless the caller has this right at this path.
    pub fn check(&self, right: Right, path: &Path) -> Result<(), Denied> {
        match self {
            _ if self.may(right, path) => Ok(()),
            Self::User(user) if user.name != ANONYMOUS => Err(Denied::NotPermitted),
            _ => Err(Denied::LoginNeeded),
        }
    }

    /// Whether the caller may know that a folder is there: it has a right there, above, or somewhere below.
    pub fn may_know(&self, folder: &Path) -> bool {
        match self {
            Self::User(user) => {
                user.right_at(folder).is_some() || user.rights.keys().any(|prefix| prefix.is_within(folder))
            }
            Self::Anyone => true,
            Self::Stranger => false,
        }
    }

    /// For the log.
    pub fn name(&self) -> &str {
        match self {
            Self::User(user) => &user.name,
            Self::Anyone | Self::Stranger => ANONYMOUS,
        }
    }
}

/// User and password of HTTP's `Basic` (RFC 7617); `None` if that is not what is said, or no user can be called so.
fn credentials(authorization: &[u8]) -> Option<(String, String)> {
    let text = std::str::from_utf8(authorization).ok()?.trim();
    let (scheme, encoded) = text.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(Base64::decode_vec(encoded.trim()).ok()?).ok()?;
    let (name, password) = decoded.split_once(':')?;
    let name = user::check_name(name).ok()?;
    Some((name.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use depot::client::memory::Memory;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn path(text: &str) -> Path {
        text.parse().unwrap()
    }

    fn basic(name: &str, password: &str) -> String {
        format!("Basic {}", Base64::encode_string(format!("{name}:{password}").as_bytes()))
    }

    fn store_with(name: &str, password: &str, rights: &[(&str, Right)]) -> Arc<dyn Files> {
        let store = Arc::new(Memory::new("test").unwrap());
        let mut user = User::new(name).unwrap();
        user.set_password(password).unwrap();
        user.rights.extend(rights.iter().map(|(prefix, right)| (path(prefix), *right)));
        Users::of(&*store).insert(&user).unwrap();
        store
    }

    #[test]
    fn only_the_right_password_makes_a_user() {
        let store = store_with("alice", "pass:word ü", &[]);
        let access = Access::new(store, true).unwrap();
        let caller = |text: &str| access.caller(Some(text.as_bytes()), HERE);
        for _ in 0..2 {
            let caller = caller(&basic("alice", "pass:word ü")).unwrap();
            assert_eq!(caller.name(), "alice");
        }
        let lower = basic("alice", "pass:word ü").replace("Basic", "basic");
        assert!(caller(&lower).is_ok());
        for wrong in [
            basic("alice", "pass:word"),
            basic("alice", ""),
            basic("Alice", "pass:word ü"),
            basic("bob", "pass:word ü"),
            basic("anonymous", ""),
            basic("", ""),
            basic("../users/alice", "pass:word ü"),
            basic("alice\0", "pass:word ü"),
            "Basic".into(),
            "Basic !!!".into(),
            "Basic YWxpY2U=".into(),
            "Bearer x".into(),
            String::new(),
        ] {
            assert!(matches!(caller(&wrong), Err(Denied::LoginNeeded)), "{wrong}");
        }
    }

    #[test]
    fn a_new_password_ends_the_old_one() {
        let store = store_with("alice", "old", &[]);
        let access = Access::new(Arc::clone(&store), true).unwrap();
        let is_let_in = |password: &str| access.caller(Some(basic("alice", password).as_bytes()), HERE).is_ok();
        assert!(is_let_in("old"));
        Users::of(&*store).change("alice", |user| user.set_password("new").unwrap()).unwrap();
        kit::eventually("the old one is refused", || !is_let_in("old"));
        assert!(is_let_in("new"));
        Users::of(&*store).remove("alice").unwrap();
        kit::eventually("a user who is removed is refused", || !is_let_in("new"));
    }

    #[test]
    fn guessing_is_ended_but_not_for_those_who_are_in() {
        let store = store_with("alice", "right", &[]);
        let access = Access::new(store, true).unwrap();
        let ask = |password: &str, peer: IpAddr| access.caller(Some(basic("alice", password).as_bytes()), peer);
        let elsewhere: IpAddr = "10.0.0.9".parse().unwrap();
        assert!(ask("right", elsewhere).is_ok());
        let mut guesses = 0;
        while let Err(Denied::LoginNeeded) = ask("wrong", HERE) {
            guesses += 1;
            assert!(guesses < 100, "it goes on for ever");
        }
        assert!(matches!(ask("right", HERE), Err(Denied::TooManyAttempts(_)) | Ok(_)));
        assert!(ask("right", elsewhere).is_ok(), "a client that is in stays in");
    }

    #[test]
    fn an_address_that_guesses_names_asks_the_store_no_more() {
        let store = store_with("alice", "right", &[]);
        let access = Access::new(store, true).unwrap();
        let guess = |name: &str| access.caller(Some(basic(name, "wrong").as_bytes()), HERE);
        let last = (0..100)
            .map(|number| format!("user{number}"))
            .find(|name| !matches!(guess(name), Err(Denied::LoginNeeded)));
        let last = last.expect("it goes on for ever");
        assert!(matches!(guess(&last), Err(Denied::TooManyAttempts(_))));
        assert!(!access.known.lock().contains_key(&last), "the store was not asked about {last}");
    }

    #[test]
    fn anonymous_may_what_the_gateway_or_a_user_of_that_name_says() {
        let store: Arc<dyn Files> = Arc::new(Memory::new("test").unwrap());
        let may = |access: &Access, right, at: &str| access.caller(None, HERE).unwrap().check(right, &path(at));
        let open = Access::new(Arc::clone(&store), true).unwrap();
        assert!(may(&open, Right::Write, "/a").is_ok());
        assert!(matches!(may(&open, Right::Admin, "/a"), Err(Denied::LoginNeeded)));
        let closed = Access::new(Arc::clone(&store), false).unwrap();
        assert!(matches!(may(&closed, Right::Read, "/a"), Err(Denied::LoginNeeded)));
        let mut user = User::new(ANONYMOUS).unwrap();
        user.rights.insert(path("/public"), Right::Read);
        Users::of(&*store).insert(&user).unwrap();
        kit::eventually("it is known", || may(&open, Right::Write, "/a").is_err());
        kit::eventually("it is known", || may(&closed, Right::Read, "/public/a").is_ok());
        for access in [open, closed] {
            assert!(may(&access, Right::Read, "/public").is_ok());
            assert!(may(&access, Right::Write, "/public/a").is_err());
            assert!(may(&access, Right::Read, "/publicX").is_err());
        }
    }

    #[test]
    fn a_user_who_lacks_a_right_is_not_asked_to_log_in_again() {
        let store = store_with("alice", "x", &[("/a", Right::Read)]);
        let access = Access::new(store, true).unwrap();
        let caller = access.caller(Some(basic("alice", "x").as_bytes()), HERE).unwrap();
        assert!(caller.check(Right::Read, &path("/a/b")).is_ok());
        assert!(matches!(caller.check(Right::Write, &path("/a/b")), Err(Denied::NotPermitted)));
        assert!(matches!(caller.check(Right::Read, &path("/")), Err(Denied::NotPermitted)));
    }
}
