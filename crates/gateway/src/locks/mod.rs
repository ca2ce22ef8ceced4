//! Locks: a client keeps others from changing a file or folder for a while. (RFC 4918, sections 6 and 7)
//!
//! Only WebDAV takes and shows locks (`dav`), but they bind all that is asked over HTTP: a `PUT` of curl is refused as one of a
//! WebDAV client is. The depot's own clients do not know them.
//!
//! # Locks live in the store
//!
//! All gateways of a store must agree, so locks are kept where all of them look. Each is a folder without entries, named by its
//! token, whose attributes say the rest:
//!
//! ```text
//! /.stevedore/locks                         announced
//! /.stevedore/locks/0f8fad5b-d9cb-...       path /docs/a   depth 0   scope exclusive   user alice   expires 1795342617000
//! ```
//!
//! There are 1,000 at most, which is one page of a listing. So one question to the store says whether anything is locked at a
//! path, above it or below it.
//!
//! # Two gateways never grant locks that conflict
//!
//! A gateway first enters the lock, and then reads all of them. If it finds one that conflicts, it takes its own away again. The
//! store has one order of changes: of two locks that are entered at the same time, the gateway that enters the later one sees the
//! earlier one. It gives way to each that was entered before its own, or has been extended, since only a lock that was
//! granted is.
//!
//! # A change asks only if there may be locks
//!
//! To read the locks is one question to a Controller for each change, which a store without locks need not pay. While the folder
//! of locks does not exist, there are none, and a gateway relies on such an answer for a moment ([`Pauses::fresh`]). The gateway that
//! is asked for the first lock makes the folder, and waits for longer than that moment ([`Pauses::notice`]): then no gateway relies on the old
//! answer any more, and the folder is marked as `announced`. Locks after that need not wait. When a gateway has seen no
//! lock for some time, it removes the folder.
//!
//! What that guarantees: *a change whose request comes after a lock was granted is refused, at every gateway.* It rests on clocks
//! that run at nearly the same speed, not on what time they show. A change that was under way when the lock was granted may still
//! take effect. For an upload, locks are read once more when its last byte has come, so that only its last step is
//! open to that. The holder of a lock who wants to be certain reads the file after it has the lock, and says `If-Match` when it
//! writes: the store itself then decides.
//!
//! A lock ends when its time is over by the clock of the gateway that looks. It is then removed by any gateway that sees it.

mod conditions;
mod lock;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use depot::client::{Error, Files, ListOptions};
use depot::disk::random;
use depot::namespace::change::{Condition, Details, Refusal, RemovalExtent};
use depot::path::Path;
use hyper::{HeaderMap, StatusCode};
use parking_lot::Mutex;

use crate::access::{Caller, Right};
use crate::http::{Problem, href};
use conditions::If;
pub(crate) use lock::{Lock, Wanted};

/// Where they are.
const FOLDER: &str = "/.stevedore/locks";

/// What the folder carries when no gateway relies any more on that it does not exist.
const ANNOUNCED: &str = "announced";

/// So many there may be at a time: a page of a listing has as many entries.
const MOST: usize = 1_000;

/// So many of these a user may have, so that others get some.
const MOST_OF_USER: usize = 250;

/// So often a lock is tried anew because the folder was removed meanwhile.
const ATTEMPTS: usize = 5;

/// How long each thing is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pauses {
    /// So long a gateway relies on that there were no locks.
    pub(crate) fresh: Duration,
    /// So long the first lock waits: longer than `fresh`, by more than clocks differ in speed.
    pub(crate) notice: Duration,
    /// After so long without a lock the folder is removed.
    pub(crate) unused: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self { fresh: ms(250), notice: ms(500), unused: Duration::from_secs(600) }
    }
}

/// The locks of a store, as a gateway sees them.
pub(crate) struct Locks {
    store: Arc<dyn Files>,
    pauses: Pauses,
    seen: Mutex<Seen>,
}

/// What this gateway has seen of the folder.
#[derive(Default)]
struct Seen {
    /// When it was asked, the last time that the folder did not exist.
    absent: Option<Instant>,
    /// Since when it has no entry.
    empty: Option<Instant>,
}

/// What a change is about.
#[derive(Clone, Debug)]
pub(crate) enum Touched {
    /// The content or the properties of what is at the path.
    Itself(Path),
    /// The same, and it comes or goes: the folder that it is in changes, too.
    Entry(Path),
    /// The same, with all that is below.
    Tree(Path),
}

/// Why a lock is not granted.
#[derive(Debug)]
pub(crate) enum NotGranted {
    /// This one is in the way.
    Conflict(Lock),
    /// There are as many as there may be.
    TooMany,
    /// The store says so.
    Store(Error),
}

impl From<Error> for NotGranted {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl Locks {
    pub(crate) fn new(store: Arc<dyn Files>, pauses: Pauses) -> Self {
        Self { store, pauses, seen: Mutex::default() }
    }

    /// All that hold now.
    pub(crate) fn all(&self) -> Result<Vec<Lock>, Error> {
        if self.seen.lock().absent.is_some_and(|asked| asked.elapsed() < self.pauses.fresh) {
            return Ok(Vec::new());
        }
        self.read()
    }

    /// Lets a change be done that is about `touched`, if what the head says with `If` holds, and all locks that are in its way are
    /// the caller's and named there.
    pub(crate) fn admit(
        &self,
        headers: &HeaderMap,
        caller: &Caller,
        target: &Path,
        touched: Vec<Touched>,
    ) -> Result<Admission<'_>, Problem> {
        let conditions = If::of(headers)?;
        let all = self.all().map_err(of_locks)?;
        let stat = |path: &Path| {
            // Of what the caller may not read it learns nothing.
            if caller.check(Right::Read, path).is_err() {
                return Ok(None);
            }
            match self.store.stat(path) {
                Ok(stat) => Ok(Some(stat)),
                Err(Error::Refused(Refusal::NotFound | Refusal::NotADirectory)) => Ok(None),
                Err(error) => Err(Problem::of(path.as_str(), &error)),
            }
        };
        if !conditions.hold(target, &all, stat)? {
            let message = format!("{target}: what If says does not hold");
            return Err(Problem::new(StatusCode::PRECONDITION_FAILED, "condition-failed", message));
        }
        let admission = Admission { locks: self, user: caller.name().to_owned(), tokens: conditions.tokens(), touched };
        admission.check(&all)?;
        Ok(admission)
    }

    /// Grants a lock, unless there is one that conflicts with it.
    pub(crate) fn grant(&self, wanted: &Wanted) -> Result<Lock, NotGranted> {
        let token = new_token().map_err(|error| Error::Unavailable(format!("random bytes: {error}")))?;
        let place = place(&token);
        let expires_ms = now_ms() + wanted.timeout.as_millis() as u64;
        let details = Details { attributes: wanted.attributes(expires_ms), ..Details::default() };
        let mut attempts = 0..ATTEMPTS;
        let version = loop {
            self.announce()?;
            match self.store.make_directory(&place, false, &details, None) {
                // Another gateway has removed the folder, since there was no lock for long.
                Err(Error::Refused(Refusal::NotFound)) if attempts.next().is_some() => {}
                made => break made?,
            }
        };
        let result = self.read().map_err(NotGranted::Store).and_then(|all| {
            let own = all.iter().find(|lock| lock.token == token).cloned();
            let of_user = all.iter().filter(|lock| lock.user == wanted.user).count();
            let own = own.filter(|_| all.len() <= MOST && of_user <= MOST_OF_USER).ok_or(NotGranted::TooMany)?;
            let is_in_the_way =
                |other: &Lock| other.token != token && other.came_before(version) && other.conflicts(&own);
            match all.into_iter().find(is_in_the_way) {
                Some(other) => Err(NotGranted::Conflict(other)),
                None => Ok(own),
            }
        });
        if result.is_err() {
            // If that fails, the lock ends by itself.
            let _ = self.release(&token);
        }
        result
    }

    /// Has a lock end later. It must not have ended.
    pub(crate) fn extend(&self, lock: &Lock, timeout: Duration) -> Result<Lock, Error> {
        let expires_ms = now_ms() + timeout.as_millis() as u64;
        self.store.set_attributes(&place(&lock.token), Condition::Any, &lock::extended(expires_ms), None, None)?;
        Ok(Lock { expires_ms, was_extended: true, ..lock.clone() })
    }

    /// Ends a lock, if it has not ended.
    pub(crate) fn release(&self, token: &str) -> Result<(), Error> {
        match self.store.remove_directory(&place(token), Condition::Any, RemovalExtent::Tree) {
            Ok(_) | Err(Error::Refused(Refusal::NotFound)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Asks the store, and removes what has expired.
    fn read(&self) -> Result<Vec<Lock>, Error> {
        let asked = Instant::now();
        let mut locks = Vec::new();
        let mut options = ListOptions::default();
        loop {
            let page = match self.store.list(&folder(), &options) {
                Err(Error::Refused(Refusal::NotFound)) => {
                    *self.seen.lock() = Seen { absent: Some(asked), empty: None };
                    return Ok(Vec::new());
                }
                page => page?,
            };
            for entry in &page.entries {
                let token = entry.name.trim_end_matches('/');
                match Lock::of(token, &entry.stat) {
                    Some(lock) if lock.expires_ms > now_ms() => locks.push(lock),
                    // Refused if it was extended this moment, or another gateway was first.
                    _ => {
                        let condition = Condition::Changed { version: entry.stat.changed };
                        let _ = self.store.remove_directory(&place(token), condition, RemovalExtent::Tree);
                    }
                }
            }
            match page.after {
                Some(after) => options.after = after,
                None => break,
            }
        }
        if self.is_unused(locks.is_empty(), asked) {
            // Refused if there is a lock by now. A gateway that is about to enter one makes the folder anew.
            let _ = self.store.remove_directory(&folder(), Condition::Any, RemovalExtent::Empty);
        }
        Ok(locks)
    }

    /// Notes what was seen of the folder, which is there: whether it has been empty for long.
    fn is_unused(&self, is_empty: bool, asked: Instant) -> bool {
        let mut seen = self.seen.lock();
        let since = seen.empty.filter(|_| is_empty).unwrap_or(asked);
        *seen = Seen { absent: None, empty: is_empty.then_some(since) };
        is_empty && since.elapsed() >= self.pauses.unused
    }

    /// Returns when no gateway relies any more on that there are no locks.
    fn announce(&self) -> Result<(), Error> {
        match self.store.stat(&folder()) {
            Ok(stat) if stat.details.attributes.contains_key(ANNOUNCED) => return Ok(()),
            // Another gateway has made it, and waits, or has ended meanwhile.
            Ok(_) => {}
            Err(Error::Refused(Refusal::NotFound)) => {
                match self.store.make_directory(&folder(), true, &Details::default(), None) {
                    Ok(_) | Err(Error::Refused(Refusal::AlreadyExists)) => {}
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        }
        thread::sleep(self.pauses.notice);
        let announced = [(ANNOUNCED.to_owned(), Some(String::new()))].into();
        match self.store.set_attributes(&folder(), Condition::Any, &announced, None, None) {
            // It is made anew when the lock is entered.
            Ok(_) | Err(Error::Refused(Refusal::NotFound)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// A change that locks do not forbid.
pub(crate) struct Admission<'a> {
    locks: &'a Locks,
    /// The user that asks for it.
    user: String,
    /// Those that the request names.
    tokens: Vec<String>,
    touched: Vec<Touched>,
}

impl Admission<'_> {
    /// Looks once more whether locks forbid the change.
    pub(crate) fn renew(&self) -> Result<(), Problem> {
        self.check(&self.locks.all().map_err(of_locks)?)
    }

    /// The lock that the request names and that covers a path, if it is the caller's.
    pub(crate) fn named(&self, path: &Path) -> Result<Option<Lock>, Problem> {
        let all = self.locks.all().map_err(of_locks)?;
        Ok(all.into_iter().find(|lock| lock.covers(path) && self.has(lock)))
    }

    /// Ends the locks of what is there no more. What cannot be ended now ends when its time is over.
    pub(crate) fn release_where(&self, is_gone: impl Fn(&Path) -> bool) {
        let released = self.locks.all().and_then(|all| {
            let mut gone = all.iter().filter(|lock| is_gone(&lock.path));
            gone.try_for_each(|lock| self.locks.release(&lock.token))
        });
        if let Err(error) = released {
            log::warn!("locks of what was removed stay until their time is over: {error}");
        }
    }

    /// Whether the request names the lock, and its user is the caller.
    fn has(&self, lock: &Lock) -> bool {
        lock.user == self.user && self.tokens.contains(&lock.uri())
    }

    fn check(&self, all: &[Lock]) -> Result<(), Problem> {
        if all.is_empty() {
            return Ok(());
        }
        for touched in &self.touched {
            let (path, has_entry, has_tree) = match touched {
                Touched::Itself(path) => (path, false, false),
                Touched::Entry(path) => (path, true, false),
                Touched::Tree(path) => (path, true, true),
            };
            self.check_at(all, path)?;
            if has_entry && let Some((parent, _)) = path.split_last() {
                self.check_at(all, &parent)?;
            }
            if has_tree {
                let below = all.iter().filter(|lock| lock.path.is_within(path));
                below.map(|lock| &lock.path).try_for_each(|path| self.check_at(all, path))?;
            }
        }
        Ok(())
    }

    /// What several share is open to each of them.
    fn check_at(&self, all: &[Lock], path: &Path) -> Result<(), Problem> {
        let mut covering = all.iter().filter(|lock| lock.covers(path)).peekable();
        let Some(first) = covering.peek().copied() else { return Ok(()) };
        if covering.any(|lock| self.has(lock)) {
            return Ok(());
        }
        let message = format!("{path}: {} has locked it: its client must send the lock's token", first.user);
        let problem = Problem::new(StatusCode::LOCKED, "locked", message);
        Err(problem.with_precondition("lock-token-submitted", vec![href(&first.path, false)]))
    }
}

fn of_locks(error: Error) -> Problem {
    Problem::of("the locks", &error)
}

fn folder() -> Path {
    FOLDER.parse().expect("it is a path")
}

/// Where a lock is. A token comes from `new_token`, or is the name of an entry.
fn place(token: &str) -> Path {
    folder().join(token).expect("a token is a name")
}

/// A random UUID. (RFC 9562, version 4)
fn new_token() -> std::io::Result<String> {
    let bits = u128::from_be_bytes(random()?);
    let bits = bits & !(0xf << 76) | (0x4 << 76);
    let bits = bits & !(0x3 << 62) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    Ok([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use depot::client::memory::Memory;

    const LONG: Duration = Duration::from_secs(3600);

    /// Nothing is waited for, and no answer is relied on.
    const HASTY: Pauses = Pauses { fresh: Duration::ZERO, notice: Duration::ZERO, unused: LONG };

    fn store() -> Arc<dyn Files> {
        Arc::new(Memory::new("test").unwrap())
    }

    fn path(text: &str) -> Path {
        text.parse().unwrap()
    }

    fn wanted(at: &str, is_deep: bool) -> Wanted {
        let (user, owner, is_shared) = ("alice".to_owned(), String::new(), false);
        Wanted { path: path(at), is_deep, is_shared, user, owner, timeout: LONG }
    }

    /// Whether a change without any token is admitted.
    fn is_free(locks: &Locks, touched: Touched) -> bool {
        let admitted = locks.admit(&HeaderMap::new(), &Caller::Anyone, &path("/any"), vec![touched]);
        if let Err(problem) = &admitted {
            assert_eq!((problem.status.as_u16(), problem.code), (423, "locked"));
        }
        admitted.is_ok()
    }

    #[test]
    fn what_one_gateway_locks_no_other_grants_or_changes() {
        let store = store();
        let [one, other] = [(), ()].map(|()| Locks::new(Arc::clone(&store), HASTY));
        let lock = one.grant(&wanted("/a", true)).unwrap();
        assert!(matches!(other.grant(&wanted("/a/b", false)), Err(NotGranted::Conflict(found)) if found == lock));
        assert!(!is_free(&other, Touched::Itself(path("/a/x"))));
        assert_eq!(other.all().unwrap(), std::slice::from_ref(&lock), "one that is not granted leaves nothing");
        other.release(&lock.token).unwrap();
        assert!(is_free(&one, Touched::Itself(path("/a/x"))));
        other.grant(&wanted("/a/b", false)).unwrap();
    }

    #[test]
    fn a_lock_is_in_the_way_of_what_would_change_it() {
        let locks = Locks::new(store(), HASTY);
        for at in ["/file", "/shallow", "/tree/a/b"] {
            locks.grant(&wanted(at, false)).unwrap();
        }
        locks.grant(&wanted("/deep", true)).unwrap();
        for (touched, expected) in [
            (Touched::Itself(path("/file")), false),
            (Touched::Itself(path("/file2")), true),
            (Touched::Itself(path("/shallow/a")), true),
            (Touched::Entry(path("/shallow/a")), false),
            (Touched::Entry(path("/shallow/a/b")), true),
            (Touched::Itself(path("/deep/a/b")), false),
            (Touched::Entry(path("/deeper")), true),
            (Touched::Itself(path("/tree")), true),
            (Touched::Entry(path("/tree")), true),
            (Touched::Tree(path("/tree")), false),
            (Touched::Tree(path("/tree/a/c")), true),
            (Touched::Tree(path("/")), false),
        ] {
            assert_eq!(is_free(&locks, touched.clone()), expected, "{touched:?}");
        }
    }

    #[test]
    fn of_locks_that_conflict_at_most_one_is_granted() {
        let store = store();
        for round in 0..50 {
            let granted: usize = thread::scope(|scope| {
                let grant = |at: String, is_deep| {
                    let store = Arc::clone(&store);
                    scope.spawn(move || Locks::new(store, HASTY).grant(&wanted(&at, is_deep)).is_ok())
                };
                let deep = grant(format!("/{round}"), true);
                let others = [1, 2, 3].map(|_| grant(format!("/{round}/a"), false));
                usize::from(deep.join().unwrap())
                    + others.map(|other| usize::from(other.join().unwrap())).iter().sum::<usize>()
            });
            assert!(granted <= 1, "round {round}: {granted} were granted");
        }
    }

    #[test]
    fn a_lock_that_was_extended_counts_however_late() {
        let store = store();
        let locks = Locks::new(Arc::clone(&store), HASTY);
        let first = locks.grant(&wanted("/a", false)).unwrap();
        let own = locks.grant(&wanted("/b", false)).unwrap();
        assert!(first.came_before(own.version) && !own.came_before(first.version));
        locks.extend(&first, LONG).unwrap();
        let extended = locks.all().unwrap().into_iter().find(|lock| lock.token == first.token).unwrap();
        assert!(extended.version.sequence > own.version.sequence, "by its version it is the later one");
        assert!(extended.came_before(own.version) && !own.came_before(first.version));
    }

    #[test]
    fn a_lock_vanishes_when_its_time_is_over() {
        let store = store();
        let locks = Locks::new(Arc::clone(&store), HASTY);
        let brief = Wanted { timeout: Duration::from_millis(50), ..wanted("/a", false) };
        let lock = locks.grant(&brief).unwrap();
        kit::eventually("it is over", || is_free(&locks, Touched::Itself(path("/a"))));
        assert!(matches!(store.stat(&place(&lock.token)), Err(Error::Refused(Refusal::NotFound))));
        assert!(matches!(locks.extend(&lock, LONG), Err(Error::Refused(Refusal::NotFound))));
        let lock = locks.grant(&brief).unwrap();
        locks.extend(&lock, LONG).unwrap();
        thread::sleep(brief.timeout * 2); // the time is under test
        assert!(!is_free(&locks, Touched::Itself(path("/a"))), "one that was extended lasts longer");
    }

    #[test]
    fn a_store_without_locks_is_not_asked_each_time() {
        let store = store();
        let relying = Locks::new(Arc::clone(&store), Pauses { fresh: LONG, ..HASTY });
        assert!(is_free(&relying, Touched::Itself(path("/a"))));
        let hasty = Locks::new(Arc::clone(&store), HASTY);
        let lock = hasty.grant(&wanted("/a", false)).unwrap();
        // Wrong, since the other gateway has not given notice: it shows that nothing was asked.
        assert!(is_free(&relying, Touched::Itself(path("/a"))));
        hasty.release(&lock.token).unwrap();
    }

    #[test]
    fn no_gateway_misses_a_lock_once_it_is_granted() {
        let (fresh, notice) = (Duration::from_millis(20), Duration::from_millis(40));
        for _ in 0..5 {
            let store = store();
            let [one, other] =
                [(), ()].map(|()| Locks::new(Arc::clone(&store), Pauses { fresh, notice, unused: LONG }));
            thread::scope(|scope| {
                let granting = scope.spawn(|| one.grant(&wanted("/a", false)));
                while !granting.is_finished() {
                    is_free(&other, Touched::Itself(path("/a"))); // it comes to rely on what it has seen
                }
                granting.join().unwrap().unwrap();
                assert!(!is_free(&other, Touched::Itself(path("/a"))));
            });
        }
    }

    #[test]
    fn a_folder_of_locks_that_is_not_used_goes_and_comes_back() {
        let store = store();
        let locks = Locks::new(Arc::clone(&store), Pauses { unused: Duration::ZERO, ..HASTY });
        let lock = locks.grant(&wanted("/a", false)).unwrap();
        assert_eq!(locks.all().unwrap().len(), 1);
        locks.release(&lock.token).unwrap();
        assert_eq!(locks.all().unwrap(), []);
        assert!(matches!(store.stat(&folder()), Err(Error::Refused(Refusal::NotFound))));
        locks.grant(&wanted("/a", false)).unwrap();
        assert!(!is_free(&locks, Touched::Itself(path("/a"))));
    }

    #[test]
    fn there_is_an_end_to_the_number_of_locks() {
        let store = store();
        let locks = Locks::new(Arc::clone(&store), HASTY);
        for number in 1..MOST {
            let user = format!("user{}", number % 10);
            let attributes = Wanted { user, ..wanted(&format!("/{number}"), false) }.attributes(u64::MAX);
            let details = Details { attributes, ..Details::default() };
            store.make_directory(&place(&number.to_string()), true, &details, None).unwrap();
        }
        locks.grant(&wanted("/last", false)).unwrap();
        assert!(matches!(locks.grant(&wanted("/more", false)), Err(NotGranted::TooMany)));
        assert_eq!(locks.all().unwrap().len(), MOST);
    }

    #[test]
    fn one_user_does_not_take_all_locks() {
        let locks = Locks::new(store(), HASTY);
        for number in 0..MOST_OF_USER {
            locks.grant(&wanted(&format!("/{number}"), false)).unwrap();
        }
        assert!(matches!(locks.grant(&wanted("/more", false)), Err(NotGranted::TooMany)));
        let other = Wanted { user: "bob".to_owned(), ..wanted("/more", false) };
        locks.grant(&other).unwrap();
    }

    #[test]
    fn a_token_is_a_random_uuid() {
        let (one, other) = (new_token().unwrap(), new_token().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert!(one.as_bytes()[14] == b'4' && b"89ab".contains(&one.as_bytes()[19]), "{one}");
    }
}
