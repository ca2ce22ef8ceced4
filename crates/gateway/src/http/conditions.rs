//! What must hold for a request to be done. (RFC 9110, section 13)

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use depot::namespace::change::Condition;
use depot::namespace::listing::{Kind, Stat};
use hyper::header::{self, HeaderName};
use hyper::{HeaderMap, StatusCode};

use super::problem::Problem;

/// The conditions of a request.
#[derive(Debug, Default)]
pub(crate) struct Conditions {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
    if_modified_since: Option<SystemTime>,
    if_unmodified_since: Option<SystemTime>,
    /// WebDAV's `If` names ETags. It is judged elsewhere (`locks`).
    if_of_dav: bool,
}

/// What conditions come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The request is to be done.
    Holds,
    /// Of a reading request: the client has it already.
    NotModified,
    /// It must not be done.
    Failed,
}

/// Which ETags a condition names.
#[derive(Debug, PartialEq, Eq)]
enum Tags {
    /// Any: `*`.
    Any,
    These(Vec<Tag>),
}

#[derive(Debug, PartialEq, Eq)]
struct Tag {
    is_weak: bool,
    /// With its quotes.
    text: String,
}

/// A file's ETag: its version, which never stands for other content.
pub(crate) fn etag(stat: &Stat) -> String {
    format!("\"{}\"", stat.version)
}

/// When something was last modified, in whole seconds, as HTTP has it.
pub(crate) fn last_modified(stat: &Stat) -> SystemTime {
    /// The last second of the year 9999: HTTP has no later one.
    const LATEST: u64 = 253_402_300_799;
    UNIX_EPOCH + Duration::from_secs((stat.modified_ms / 1000).min(LATEST))
}

impl Conditions {
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let date = |name| headers.get(name)?.to_str().ok().and_then(|text| httpdate::parse_http_date(text).ok());
        Ok(Self {
            if_match: tags(headers, header::IF_MATCH)?,
            if_none_match: tags(headers, header::IF_NONE_MATCH)?,
            if_modified_since: date(header::IF_MODIFIED_SINCE),
            if_unmodified_since: date(header::IF_UNMODIFIED_SINCE),
            if_of_dav: headers.get_all("if").iter().any(|line| line.as_bytes().contains(&b'[')),
        })
    }

    /// Whether they hold for what is there, if anything is.
    pub(crate) fn judge(&self, current: Option<&Stat>, is_read: bool) -> Verdict {
        // A folder has no ETag: its entries come and go without a new version.
        let tag = current.filter(|stat| matches!(stat.kind, Kind::File { .. })).map(etag);
        let names = |tags: &Tags, is_strong: bool| match tags {
            Tags::Any => current.is_some(),
            Tags::These(these) => {
                these.iter().any(|named| Some(&named.text) == tag.as_ref() && !(is_strong && named.is_weak))
            }
        };
        let is_later_than = |time: SystemTime| current.is_none_or(|stat| last_modified(stat) > time);
        match (&self.if_match, self.if_unmodified_since) {
            (Some(tags), _) if !names(tags, true) => return Verdict::Failed,
            (None, Some(time)) if is_later_than(time) => return Verdict::Failed,
            _ => {}
        }
        let has_already = match (&self.if_none_match, self.if_modified_since) {
            (Some(tags), _) => names(tags, false),
            (None, Some(time)) => is_read && !is_later_than(time),
            (None, None) => false,
        };
        match (has_already, is_read) {
            (false, _) => Verdict::Holds,
            (true, true) => Verdict::NotModified,
            (true, false) => Verdict::Failed,
        }
    }

    /// What a change must insist on, so that what was found to hold for `current` holds at the instant of the change.
    pub(crate) fn to_insist_on(&self, current: Option<&Stat>) -> Condition {
        let Self { if_match, if_none_match, if_modified_since: _, if_unmodified_since, if_of_dav } = self;
        let are_tags = if_match.is_some() || if_none_match.is_some() || *if_of_dav;
        match current {
            _ if !are_tags && if_unmodified_since.is_none() => Condition::Any,
            Some(stat) => Condition::Version { version: stat.version },
            None => Condition::Absent,
        }
    }
}

/// Whether `If-Range`, if there is one, says that the client's part is of the same content.
pub(super) fn is_same_content(headers: &HeaderMap, stat: &Stat) -> bool {
    let Some(value) = headers.get(header::IF_RANGE) else { return true };
    let text = value.to_str().unwrap_or_default().trim();
    if text.starts_with('"') {
        return text == etag(stat);
    }
    // A weak tag is no date, and so never the same.
    httpdate::parse_http_date(text).is_ok_and(|time| time == last_modified(stat))
}

fn tags(headers: &HeaderMap, name: HeaderName) -> Result<Option<Tags>, Problem> {
    let mut these = Vec::new();
    let mut is_there = false;
    for line in headers.get_all(&name) {
        is_there = true;
        let bad = || {
            let message = format!("{name}: expected * or ETags in double quotes, with commas in between");
            Problem::new(StatusCode::BAD_REQUEST, "invalid-condition", message)
        };
        let mut rest = line.to_str().map_err(|_| bad())?.trim();
        if rest == "*" {
            return Ok(Some(Tags::Any));
        }
        while !rest.is_empty() {
            let (is_weak, quoted) = rest.strip_prefix("W/").map_or((false, rest), |quoted| (true, quoted));
            let end = quoted.strip_prefix('"').and_then(|inner| inner.find('"')).ok_or_else(bad)? + 2;
            these.push(Tag { is_weak, text: quoted[..end].to_owned() });
            rest = quoted[end..].trim_start();
            rest = match rest.strip_prefix(',') {
                Some(next) => next.trim_start(),
                None if rest.is_empty() => rest,
                None => return Err(bad()),
            };
        }
    }
    Ok(is_there.then_some(Tags::These(these)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use depot::checksum::Checksum;
    use depot::identity::{History, Version};

    /// A file of version 5, modified at a time that is no whole second.
    fn file() -> Stat {
        let version = Version { history: History(0xa), sequence: 5 };
        let kind = Kind::File { size: 1, checksum: Checksum::EMPTY };
        Stat { kind, version, changed: version, modified_ms: 784_111_777_500, details: Default::default() }
    }

    const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let lines = lines.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        lines.collect()
    }

    #[test]
    fn conditions_are_judged_as_the_rfc_orders_them() {
        use Verdict::{Failed, Holds, NotModified};
        let tag = etag(&file());
        let weak = format!("W/{tag}");
        let many = format!("\"x\", {tag} ,W/\"y\"");
        // What is asked, then what it comes to: reading and changing a file, and where there is nothing.
        let table = [
            (vec![], [Holds, Holds, Holds]),
            (vec![("if-match", "*")], [Holds, Holds, Failed]),
            (vec![("if-match", &*tag)], [Holds, Holds, Failed]),
            (vec![("if-match", &*many)], [Holds, Holds, Failed]),
            (vec![("if-match", "\"x\""), ("if-match", &*tag)], [Holds, Holds, Failed]),
            (vec![("if-match", &*weak)], [Failed, Failed, Failed]),
            (vec![("if-match", "\"x\"")], [Failed, Failed, Failed]),
            (vec![("if-match", "")], [Failed, Failed, Failed]),
            (vec![("if-none-match", "*")], [NotModified, Failed, Holds]),
            (vec![("if-none-match", &*tag)], [NotModified, Failed, Holds]),
            (vec![("if-none-match", &*weak)], [NotModified, Failed, Holds]),
            (vec![("if-none-match", "\"x\"")], [Holds, Holds, Holds]),
            (vec![("if-match", &*tag), ("if-none-match", &*tag)], [NotModified, Failed, Failed]),
            (vec![("if-match", "\"x\""), ("if-none-match", "\"x\"")], [Failed, Failed, Failed]),
            (vec![("if-modified-since", THEN)], [NotModified, Holds, Holds]),
            (vec![("if-modified-since", LATER)], [NotModified, Holds, Holds]),
            (vec![("if-modified-since", BEFORE)], [Holds, Holds, Holds]),
            (vec![("if-modified-since", "yesterday")], [Holds, Holds, Holds]),
            (vec![("if-none-match", "\"x\""), ("if-modified-since", LATER)], [Holds, Holds, Holds]),
            (vec![("if-unmodified-since", THEN)], [Holds, Holds, Failed]),
            (vec![("if-unmodified-since", BEFORE)], [Failed, Failed, Failed]),
            (vec![("if-match", &*tag), ("if-unmodified-since", BEFORE)], [Holds, Holds, Failed]),
        ];
        for (lines, expected) in table {
            let conditions = Conditions::of(&headers(&lines)).unwrap();
            let found = [
                conditions.judge(Some(&file()), true),
                conditions.judge(Some(&file()), false),
                conditions.judge(None, false),
            ];
            assert_eq!(found, expected, "{lines:?}");
        }
    }

    #[test]
    fn a_change_insists_on_what_was_judged() {
        let of = |lines: &[(&'static str, &str)]| Conditions::of(&headers(lines)).unwrap();
        let file = file();
        let version = Condition::Version { version: file.version };
        assert_eq!(of(&[]).to_insist_on(Some(&file)), Condition::Any);
        assert_eq!(of(&[("if-modified-since", THEN)]).to_insist_on(Some(&file)), Condition::Any);
        for lines in [("if-match", "*"), ("if-none-match", "\"x\""), ("if-unmodified-since", THEN)] {
            assert_eq!(of(&[lines]).to_insist_on(Some(&file)), version, "{lines:?}");
            assert_eq!(of(&[lines]).to_insist_on(None), Condition::Absent, "{lines:?}");
        }
    }

    #[test]
    fn what_is_no_etag_is_refused() {
        for value in ["abc", "\"a", "a\"", "\"a\" \"b\"", "W/a", "\"a\", b", "*, \"a\""] {
            let problem = Conditions::of(&headers(&[("if-match", value)])).expect_err(value);
            assert_eq!(problem.status, 400);
        }
    }

    #[test]
    fn a_part_fits_only_the_same_content() {
        let file = file();
        let tag = etag(&file);
        let weak = format!("W/{tag}");
        for (value, expected) in [
            (&*tag, true),
            (&*weak, false),
            ("\"x\"", false),
            (THEN, true),
            (LATER, false),
            (BEFORE, false),
            ("", false),
        ] {
            assert_eq!(is_same_content(&headers(&[("if-range", value)]), &file), expected, "{value}");
        }
        assert!(is_same_content(&HeaderMap::new(), &file));
    }
}
