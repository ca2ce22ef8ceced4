//! The header `If`: which locks a client has, and what must hold for its request. (RFC 4918, section 10.4)
//!
//! ```text
//! If: (<urn:uuid:1> ["etag"]) (Not <urn:uuid:2>)       of the request's own path: one list, or the other
//! If: <http://host/a> (<urn:uuid:1>) </b> (["etag"])   of /a, or of /b
//! ```
//!
//! It holds if all conditions of one of its lists do. Each token in it counts as sent, whatever comes of the list that it is in.

use depot::namespace::listing::Stat;
use depot::path::Path;
use hyper::{HeaderMap, StatusCode, Uri};

use super::Lock;
use crate::http::{Problem, Target, etag};

/// Each list may cost a question to the store.
const MOST_LISTS: usize = 32;

/// What the header says; no list if there is no such header.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct If {
    lists: Vec<List>,
}

/// Conditions that must hold together.
#[derive(Debug, PartialEq, Eq)]
struct List {
    /// Of which URL; `None` for the request's own.
    tag: Option<String>,
    conditions: Vec<Condition>,
}

#[derive(Debug, PartialEq, Eq)]
struct Condition {
    is_not: bool,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// A lock with this token covers it.
    Token(String),
    /// Its ETag is this, with its quotes.
    Etag(String),
}

impl If {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut lists = Vec::new();
        for line in headers.get_all("if") {
            let parsed = line.to_str().ok().and_then(parse).ok_or_else(|| {
                let message = "If: expected lists as in RFC 4918, section 10.4: (<token> [\"etag\"])";
                Problem::new(StatusCode::BAD_REQUEST, "invalid-condition", message)
            })?;
            lists.extend(parsed);
        }
        if lists.len() > MOST_LISTS {
            let message = format!("If: at most {MOST_LISTS} lists");
            return Err(Problem::new(StatusCode::BAD_REQUEST, "invalid-condition", message));
        }
        Ok(Self { lists })
    }

    /// All tokens in it.
    pub(super) fn tokens(&self) -> Vec<String> {
        let states = self.lists.iter().flat_map(|list| &list.conditions).map(|condition| &condition.state);
        let token = |state: &State| match state {
            State::Token(token) => Some(token.clone()),
            State::Etag(_) => None,
        };
        states.filter_map(token).collect()
    }

    /// Whether it holds. `stat` is asked where an ETag is to be compared.
    pub(super) fn hold(
        &self,
        target: &Path,
        locks: &[Lock],
        stat: impl Fn(&Path) -> Result<Option<Stat>, Problem>,
    ) -> Result<bool, Problem> {
        for list in &self.lists {
            // What is no path of this store has no lock and no ETag.
            let path = match &list.tag {
                None => Some(target.clone()),
                Some(tag) => tag.parse::<Uri>().ok().and_then(|uri| Target::of(&uri).ok()).map(|target| target.path),
            };
            let mut holds = true;
            for Condition { is_not, state } in &list.conditions {
                let is_so = match (&path, state) {
                    (None, _) => false,
                    (Some(path), State::Token(token)) => {
                        locks.iter().any(|lock| lock.uri() == *token && lock.covers(path))
                    }
                    (Some(path), State::Etag(tag)) => stat(path)?.is_some_and(|stat| etag(&stat) == *tag),
                };
                holds &= is_so != *is_not;
            }
            if holds {
                return Ok(true);
            }
        }
        Ok(self.lists.is_empty())
    }
}

/// The lists of a line; `None` if it is not made as it should.
fn parse(line: &str) -> Option<Vec<List>> {
    let mut lists = Vec::new();
    let mut tag = None;
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        if let Some(tagged) = rest.strip_prefix('<') {
            let (url, behind) = tagged.split_once('>')?;
            tag = Some(url.to_owned());
            rest = behind.trim_start();
        }
        let mut inner = rest.strip_prefix('(')?.trim_start();
        let mut conditions = Vec::new();
        rest = loop {
            if let Some(behind) = inner.strip_prefix(')') {
                break behind.trim_start();
            }
            let is_not = inner.get(..3).is_some_and(|word| word.eq_ignore_ascii_case("not"));
            if is_not {
                inner = inner[3..].trim_start();
            }
            let (state, behind) = match inner.split_at_checked(1)? {
                ("<", token) => token.split_once('>').map(|(token, rest)| (State::Token(token.to_owned()), rest))?,
                ("[", tag) => tag.split_once(']').map(|(tag, rest)| (State::Etag(tag.to_owned()), rest))?,
                _ => return None,
            };
            conditions.push(Condition { is_not, state });
            inner = behind.trim_start();
        };
        if conditions.is_empty() {
            return None;
        }
        lists.push(List { tag: tag.clone(), conditions });
    }
    if lists.is_empty() { None } else { Some(lists) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use depot::checksum::Checksum;
    use depot::identity::{History, Version};
    use depot::namespace::listing::Kind;

    fn conditions(line: &str) -> Result<If, Problem> {
        If::of(&HeaderMap::from_iter([(hyper::header::HeaderName::from_static("if"), line.parse().unwrap())]))
    }

    fn path(text: &str) -> Path {
        text.parse().unwrap()
    }

    fn lock(token: &str, at: &str, is_deep: bool) -> Lock {
        let version = Version { history: History(1), sequence: 1 };
        let (user, owner) = (String::new(), String::new());
        let (is_shared, expires_ms, was_extended) = (false, 0, false);
        let token = token.to_owned();
        Lock { token, version, path: path(at), is_deep, is_shared, user, owner, expires_ms, was_extended }
    }

    /// `/a` is a file of version 1-5.
    fn stat(at: &Path) -> Result<Option<Stat>, Problem> {
        let version = Version { history: History(1), sequence: 5 };
        let kind = Kind::File { size: 1, checksum: Checksum::EMPTY };
        let file = Stat { kind, version, changed: version, modified_ms: 0, details: Default::default() };
        Ok((*at == path("/a")).then_some(file))
    }

    #[test]
    fn one_list_must_hold_with_all_its_conditions() {
        let tag = etag(&stat(&path("/a")).unwrap().unwrap());
        let locks = [lock("one", "/a", false), lock("deep", "/d", true)];
        for (line, expected) in [
            ("(<urn:uuid:one>)", true),
            ("(<urn:uuid:two>)", false),
            ("(<urn:uuid:deep>)", false),
            ("(Not <urn:uuid:two>)", true),
            ("(not <urn:uuid:one>)", false),
            ("(<DAV:no-lock>)", false),
            ("(Not <DAV:no-lock>)", true),
            ("([TAG])", true),
            ("([\"x\"])", false),
            ("([W/TAG])", false),
            ("(Not [\"x\"])", true),
            ("(<urn:uuid:one> [TAG])", true),
            ("(<urn:uuid:one>[TAG])", true),
            ("(<urn:uuid:one> [\"x\"])", false),
            ("(<urn:uuid:two> [TAG]) (Not <DAV:no-lock> [TAG])", true),
            ("(<urn:uuid:one> [\"x\"]) (Not <DAV:no-lock> [\"x\"])", false),
            ("</a> (<urn:uuid:one>)", true),
            ("<http://host/a> (<urn:uuid:one>)", true),
            ("</b> (<urn:uuid:one>)", false),
            ("</d/x/y> (<urn:uuid:deep>)", true),
            ("</b> (<urn:uuid:one>) (<urn:uuid:two>) </d> (<urn:uuid:deep>)", true),
            ("</b/../a> (<urn:uuid:one>)", false),
            ("<mailto:x> (Not <urn:uuid:two>)", true),
        ] {
            let parsed = conditions(&line.replace("TAG", &tag)).unwrap();
            assert_eq!(parsed.hold(&path("/a"), &locks, stat).unwrap(), expected, "{line}");
        }
        assert!(If::default().hold(&path("/a"), &locks, stat).unwrap(), "none at all holds");
    }

    #[test]
    fn every_token_counts_as_sent() {
        let parsed = conditions("</x> (<urn:uuid:1> [\"a\"]) (Not <urn:uuid:2>)").unwrap();
        assert_eq!(parsed.tokens(), ["urn:uuid:1", "urn:uuid:2"]);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for line in ["", "x", "()", "(<a>", "(<a", "([\"x\")", "<a>", "<a> x", "(<a>) <b>", "(Not)", "(x)", "(\u{e9})"]
        {
            let problem = conditions(line).expect_err(line);
            assert_eq!(problem.status, 400, "{line}");
        }
    }
}
