//! What must hold for a request to be done: of the object, or of a copy's source.

use std::time::SystemTime;

use depot::namespace::change::Condition;
use depot::namespace::listing::Stat;
use hyper::HeaderMap;

use super::object::{etag, last_modified};

/// The conditions of a request. ETags are compared with their quotes or without: clients send both.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    if_match: Option<Vec<String>>,
    if_none_match: Option<Vec<String>>,
    if_modified_since: Option<SystemTime>,
    if_unmodified_since: Option<SystemTime>,
}

/// What conditions come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The request is to be done.
    Holds,
    /// The client has the object already. A change is not to be done either.
    NotModified,
    /// It must not be done.
    Failed,
}

impl Conditions {
    /// Of the object that the request is about.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self::with_prefix(headers, "")
    }

    /// Of the object that is to be copied.
    pub(super) fn of_copy_source(headers: &HeaderMap) -> Self {
        Self::with_prefix(headers, "x-amz-copy-source-")
    }

    fn with_prefix(headers: &HeaderMap, prefix: &str) -> Self {
        let text = |name: &str| headers.get(format!("{prefix}{name}"))?.to_str().ok();
        let tags = |name: &str| text(name).map(|text| text.split(',').map(unquoted).collect());
        let date = |name: &str| text(name).and_then(|text| httpdate::parse_http_date(text).ok());
        Self {
            if_match: tags("if-match"),
            if_none_match: tags("if-none-match"),
            if_modified_since: date("if-modified-since"),
            if_unmodified_since: date("if-unmodified-since"),
        }
    }

    /// Whether they hold for the object that is there, if one is.
    pub(super) fn judge(&self, current: Option<&Stat>) -> Verdict {
        let tag = current.map(etag);
        let names =
            |tags: &[String]| tags.iter().any(|named| tag.as_ref().is_some_and(|tag| named == "*" || named == tag));
        let is_later_than = |time: SystemTime| current.is_none_or(|stat| last_modified(stat) > time);
        match (&self.if_match, self.if_unmodified_since) {
            (Some(tags), _) if !names(tags) => return Verdict::Failed,
            (None, Some(time)) if is_later_than(time) => return Verdict::Failed,
            _ => {}
        }
        match (&self.if_none_match, self.if_modified_since) {
            (Some(tags), _) if names(tags) => Verdict::NotModified,
            (None, Some(time)) if !is_later_than(time) => Verdict::NotModified,
            _ => Verdict::Holds,
        }
    }

    /// Whether there are any that a change has to insist on.
    pub(super) fn are_any(&self) -> bool {
        self.if_match.is_some() || self.if_none_match.is_some()
    }

    /// What a change must insist on, so that what was found to hold for `current` holds at the instant of the change.
    pub(super) fn to_insist_on(&self, current: Option<&Stat>) -> Condition {
        match current {
            _ if !self.are_any() => Condition::Any,
            Some(stat) => Condition::Version { version: stat.version },
            None => Condition::Absent,
        }
    }
}

fn unquoted(tag: &str) -> String {
    let tag = tag.trim();
    tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use depot::checksum::Checksum;
    use depot::identity::{History, Version};
    use depot::namespace::change::Details;
    use depot::namespace::listing::Kind;
    use hyper::header::HeaderName;

    const MD5: &str = "900150983cd24fb0d6963f7d28e17f72";

    /// An object that was modified at a time that is no whole second.
    fn object() -> Stat {
        let version = Version { history: History(0xa), sequence: 5 };
        let kind = Kind::File { size: 3, checksum: Checksum::EMPTY };
        let details = Details { digests: [("md5".to_owned(), MD5.to_owned())].into(), ..Details::default() };
        Stat { kind, version, changed: version, modified_ms: 784_111_777_500, details }
    }

    #[test]
    fn conditions_hold_for_the_object_that_is_there() {
        use Verdict::{Failed, Holds, NotModified};
        let (then, before) = ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:36 GMT");
        let quoted = format!("\"{MD5}\"");
        let many = format!("\"x\", \"{MD5}\"");
        // What is asked, then what it comes to where the object is, and where nothing is.
        for (lines, expected) in [
            (vec![], [Holds, Holds]),
            (vec![("if-match", &*quoted)], [Holds, Failed]),
            (vec![("if-match", MD5)], [Holds, Failed]),
            (vec![("if-match", &*many)], [Holds, Failed]),
            (vec![("if-match", "*")], [Holds, Failed]),
            (vec![("if-match", "\"x\"")], [Failed, Failed]),
            (vec![("if-none-match", "*")], [NotModified, Holds]),
            (vec![("if-none-match", &*quoted)], [NotModified, Holds]),
            (vec![("if-none-match", "\"x\"")], [Holds, Holds]),
            (vec![("if-modified-since", then)], [NotModified, Holds]),
            (vec![("if-modified-since", before)], [Holds, Holds]),
            (vec![("if-unmodified-since", then)], [Holds, Failed]),
            (vec![("if-unmodified-since", before)], [Failed, Failed]),
            (vec![("if-match", &*quoted), ("if-unmodified-since", before)], [Holds, Failed]),
            (vec![("if-none-match", "\"x\""), ("if-modified-since", then)], [Holds, Holds]),
        ] {
            let headers: HeaderMap =
                lines.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect();
            let conditions = Conditions::of(&headers);
            assert_eq!([conditions.judge(Some(&object())), conditions.judge(None)], expected, "{lines:?}");
            assert_eq!(Conditions::of_copy_source(&headers).judge(Some(&object())), Holds, "they are not the source's");
        }
    }

    #[test]
    fn a_change_insists_on_what_was_judged() {
        let of = |name: &'static str| {
            Conditions::of(&HeaderMap::from_iter([(HeaderName::from_static(name), "*".parse().unwrap())]))
        };
        let object = object();
        let version = Condition::Version { version: object.version };
        for name in ["if-match", "if-none-match"] {
            assert_eq!(of(name).to_insist_on(Some(&object)), version);
            assert_eq!(of(name).to_insist_on(None), Condition::Absent);
        }
        assert_eq!(of("x-other").to_insist_on(Some(&object)), Condition::Any);
    }
}
