//! What is in a bucket: its keys in the order of their bytes, a page at a time.
//!
//! A store lists a folder, or all below it, in that same order (depot 3.4). So a prefix is cut at its last `/`: what is before
//! names the folder, and what is behind is what the names in it begin with.
//!
//! | delimiter | is a listing of |
//! |---|---|
//! | `/` | the folder: its files are the objects, and its folders the common prefixes |
//! | none | all files below the folder, and all folders that were made explicitly |
//! | another one | the same, rolled up; behind each common prefix it goes on where the next one can be |

use std::collections::VecDeque;

use base64ct::{Base64UrlUnpadded, Encoding};
use depot::client::{Error, Files, ListOptions};
use depot::namespace::change::Refusal;
use depot::namespace::listing::{Kind, Listed, Stat};
use depot::path::Path;
use hyper::Response;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::bucket::owner;
use super::checksum::Algorithm;
use super::object::{etag, shown_time, size};
use super::problem::Problem;
use super::target::{Query, name_of};
use super::xml::Document;
use super::{Call, S3};
use crate::access::Right;

/// The most items of a page.
const PAGE: usize = 1_000;

/// What keys are shown without, if a client asks for that: not every character can be in XML.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// No key that begins with a prefix lies behind the prefix and this.
const LAST: char = char::MAX;

/// Which items are asked for.
#[derive(Clone, Debug)]
struct Asked {
    prefix: String,
    delimiter: String,
    /// Only what is behind this one.
    after: String,
    most: usize,
}

/// An item of a page.
#[derive(Debug)]
enum Item {
    Object(String, Stat),
    /// What the keys of several objects begin with, up to the delimiter.
    Prefix(String),
}

impl Item {
    fn name(&self) -> &str {
        match self {
            Self::Object(name, _) | Self::Prefix(name) => name,
        }
    }
}

impl S3 {
    /// Answers with a page of a bucket's objects, as the second version of the operation does, or as the first.
    pub(super) fn list_objects(&self, call: &mut Call, bucket: &Path, is_v2: bool) -> Result<(), Problem> {
        let asked = Asked::of(&call.query, is_v2)?;
        let folder = folder_of(bucket, &asked.prefix).unwrap_or_else(|| bucket.clone());
        call.caller.check(Right::Read, &folder)?;
        self.check_bucket(bucket)?;
        let mut items = items(&*self.store, bucket, &asked).map_err(|error| Problem::of(name_of(bucket), &error))?;
        let is_truncated = items.len() > asked.most;
        items.truncate(asked.most);
        let next = items.last().map(|item| item.name().to_owned()).filter(|_| is_truncated);
        let is_url = encoding(&call.query)?;
        let query = &call.query;
        let document = |root: &mut Document| {
            let shown = |text: &str| shown(text, is_url);
            root.text("Name", name_of(bucket));
            root.text("Prefix", shown(&asked.prefix));
            if is_v2 {
                root.optional("StartAfter", query.get("start-after").map(shown));
                root.optional("ContinuationToken", query.get("continuation-token"));
                root.optional("NextContinuationToken", next.as_deref().map(token));
                root.text("KeyCount", items.len());
            } else {
                root.text("Marker", shown(query.get("marker").unwrap_or_default()));
                root.optional("NextMarker", next.as_deref().map(shown));
            }
            root.text("MaxKeys", asked.most);
            root.optional("Delimiter", Some(&asked.delimiter).filter(|text| !text.is_empty()).map(|text| shown(text)));
            root.text("IsTruncated", is_truncated);
            root.optional("EncodingType", is_url.then_some("url"));
            let with_owner = !is_v2 || query.get("fetch-owner") == Some("true");
            for item in &items {
                match item {
                    Item::Object(key, stat) => root.element("Contents", |contents| {
                        contents.text("Key", shown(key));
                        contents.text("LastModified", shown_time(stat.modified_ms));
                        contents.text("ETag", format!("\"{}\"", etag(stat)));
                        let kept = |algorithm: &Algorithm| stat.details.digests.contains_key(algorithm.digest());
                        let algorithm = Algorithm::ALL.into_iter().find(kept).unwrap_or(Algorithm::Crc64Nvme);
                        contents.text("ChecksumAlgorithm", algorithm.name());
                        contents.text("Size", size(stat));
                        contents.text("StorageClass", "STANDARD");
                        if with_owner {
                            contents.element("Owner", owner);
                        }
                    }),
                    Item::Prefix(prefix) => {
                        root.element("CommonPrefixes", |element| element.text("Prefix", shown(prefix)));
                    }
                }
            }
        };
        let document = super::Document::of("ListBucketResult", document);
        let head = Response::builder().header(hyper::header::CONTENT_TYPE, "application/xml");
        call.send(hyper::StatusCode::OK, head, document);
        Ok(())
    }
}

impl Asked {
    fn of(query: &Query, is_v2: bool) -> Result<Self, Problem> {
        let text = |name: &str| query.get(name).unwrap_or_default().to_owned();
        let after = match (is_v2, query.get("continuation-token")) {
            (false, _) => text("marker"),
            (true, None) => text("start-after"),
            (true, Some(token)) => {
                let decoded = Base64UrlUnpadded::decode_vec(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
                decoded.ok_or_else(|| Problem::bad("InvalidArgument", "the continuation token is none of ours"))?
            }
        };
        let most = query.number("max-keys", PAGE)?.unwrap_or(PAGE);
        Ok(Self { prefix: text("prefix"), delimiter: text("delimiter"), after, most })
    }
}

/// Where the next page begins, as clients are told, who are not to look into it.
fn token(last: &str) -> String {
    Base64UrlUnpadded::encode_string(last.as_bytes())
}

/// Whether keys are to be shown percent-encoded.
pub(super) fn encoding(query: &Query) -> Result<bool, Problem> {
    match query.get("encoding-type") {
        None => Ok(false),
        Some("url") => Ok(true),
        Some(other) => Err(Problem::bad("InvalidArgument", format!("encoding-type={other}: expected url"))),
    }
}

/// A key as it is shown.
pub(super) fn shown(text: &str, is_url: bool) -> String {
    if is_url { utf8_percent_encode(text, ESCAPED).to_string() } else { text.to_owned() }
}

/// What a prefix says up to its last `/`, and behind it.
fn cut(prefix: &str) -> (&str, &str) {
    prefix.split_at(prefix.rfind('/').map_or(0, |at| at + 1))
}

/// The folder that all keys with a prefix are in; `None` if no key can have it.
fn folder_of(bucket: &Path, prefix: &str) -> Option<Path> {
    let (base, _) = cut(prefix);
    match base.strip_suffix('/') {
        None => Some(bucket.clone()),
        Some(inner) => format!("{bucket}/{inner}").parse().ok(),
    }
}

/// The items of a page, and one more if there are more.
fn items(store: &dyn Files, bucket: &Path, asked: &Asked) -> Result<Vec<Item>, Error> {
    let Asked { prefix, delimiter, after, most } = asked;
    let (base, names) = cut(prefix);
    let mut items = Vec::new();
    let Some(folder) = folder_of(bucket, prefix).filter(|_| *most > 0) else { return Ok(items) };
    if base == prefix && !base.is_empty() && after.as_str() < base {
        // The folder may be an object itself.
        match store.stat(&folder) {
            Ok(stat) if is_key(&stat) && matches!(stat.kind, Kind::Directory { .. }) => {
                items.push(Item::Object(base.to_owned(), stat));
            }
            Ok(_) | Err(Error::Refused(Refusal::NotFound | Refusal::NotADirectory)) => {}
            Err(error) => return Err(error),
        }
    }
    // What is behind, as the folder has it.
    let after = match after.strip_prefix(base) {
        Some(rest) => rest.to_owned(),
        None if after.as_str() < base => String::new(),
        None => return Ok(items),
    };
    let is_folder_listing = delimiter == "/";
    // A common prefix is on one page only.
    let after = match is_folder_listing || delimiter.is_empty() || !after.ends_with(delimiter.as_str()) {
        true => after,
        false => format!("{after}{LAST}"),
    };
    let mut walk = Walk {
        store,
        folder,
        prefix: names,
        is_recursive: !is_folder_listing,
        after,
        page: VecDeque::new(),
        is_over: false,
    };
    if is_folder_listing && let Some(begun) = walk.begun_folder()? {
        items.push(Item::Prefix(format!("{base}{begun}")));
    }
    while items.len() <= *most
        && let Some(Listed { name, stat }) = walk.next(most + 1 - items.len())?
    {
        let is_folder = matches!(stat.kind, Kind::Directory { .. });
        let behind_prefix = name.get(names.len()..).unwrap_or_default();
        let rolled = match is_folder_listing {
            true => is_folder.then_some(name.len()),
            false if delimiter.is_empty() || !is_key(&stat) => None,
            false => behind_prefix.find(delimiter.as_str()).map(|at| names.len() + at + delimiter.len()),
        };
        match rolled {
            Some(end) => {
                let common = &name[..end];
                if !is_folder_listing {
                    walk.jump(format!("{common}{LAST}"));
                }
                items.push(Item::Prefix(format!("{base}{common}")));
            }
            None if is_key(&stat) => items.push(Item::Object(format!("{base}{name}"), stat)),
            None => {} // an implicit folder is no object
        }
    }
    Ok(items)
}

/// Whether what is there has a key of its own: a file, or a folder that was made explicitly.
fn is_key(stat: &Stat) -> bool {
    matches!(stat.kind, Kind::File { .. } | Kind::Directory { is_explicit: true, .. })
}

/// The entries of a folder, page by page.
struct Walk<'a> {
    store: &'a dyn Files,
    folder: Path,
    prefix: &'a str,
    is_recursive: bool,
    after: String,
    page: VecDeque<Listed>,
    is_over: bool,
}

impl Walk<'_> {
    /// The next entry; `about` is how many more will be asked for.
    fn next(&mut self, about: usize) -> Result<Option<Listed>, Error> {
        while self.page.is_empty() && !self.is_over {
            let options = ListOptions {
                prefix: self.prefix.to_owned(),
                after: self.after.clone(),
                is_recursive: self.is_recursive,
                limit: about.clamp(1, PAGE),
            };
            let page = match self.store.list(&self.folder, &options) {
                Err(Error::Refused(Refusal::NotFound | Refusal::NotADirectory)) => Default::default(),
                page => page?,
            };
            self.page = page.entries.into();
            match page.after {
                Some(after) => self.after = after,
                None => self.is_over = true,
            }
        }
        Ok(self.page.pop_front())
    }

    /// Goes on behind this name.
    fn jump(&mut self, after: String) {
        self.page.retain(|entry| entry.name > after);
        if self.page.is_empty() && after > self.after {
            self.after = after;
        }
    }

    /// If the walk begins within a folder, with more to come there: that folder.
    fn begun_folder(&self) -> Result<Option<String>, Error> {
        let Some((name, rest)) = self.after.split_once('/').filter(|(_, rest)| !rest.is_empty()) else {
            return Ok(None);
        };
        let Ok(folder) = self.folder.join(name) else { return Ok(None) };
        if !name.starts_with(self.prefix) {
            return Ok(None);
        }
        let page = VecDeque::new();
        let mut below = Walk {
            store: self.store,
            folder,
            prefix: "",
            is_recursive: true,
            after: rest.to_owned(),
            page,
            is_over: false,
        };
        while let Some(entry) = below.next(1)? {
            if is_key(&entry.stat) {
                return Ok(Some(format!("{name}/")));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use depot::client::memory::Memory;
    use depot::client::{PutOptions, Source};
    use depot::namespace::change::Details;
    use std::collections::BTreeSet;

    fn store(keys: &[&str]) -> Memory {
        let store = Memory::new("test").unwrap();
        for key in keys {
            let path: Path = format!("/b/{}", key.trim_end_matches('/')).parse().unwrap();
            if key.ends_with('/') {
                store.make_directory(&path, true, &Details::default(), None).unwrap();
            } else {
                let options = PutOptions { parents: true, ..PutOptions::default() };
                store.put(&path, Source::Once(&mut &b""[..]), &options).unwrap();
            }
        }
        store
    }

    /// What S3 says must come, computed from all keys.
    fn expected(keys: &[&str], asked: &Asked) -> Vec<String> {
        let mut names = BTreeSet::new();
        for key in keys.iter().filter(|key| key.starts_with(&asked.prefix) && **key > asked.after.as_str()) {
            let rest = &key[asked.prefix.len()..];
            let at = rest.find(&asked.delimiter).filter(|_| !asked.delimiter.is_empty());
            let end = at.map_or(key.len(), |at| asked.prefix.len() + at + asked.delimiter.len());
            names.insert(key[..end].to_owned());
        }
        names.into_iter().collect()
    }

    const KEYS: &[&str] = &[
        "a",
        "a.txt",
        "a0",
        "b/",
        "b/c",
        "b/d/e",
        "b/d/f/g",
        "b/d.x",
        "b-c",
        "b0/x",
        "bc/",
        "c/made/",
        "c/x-1",
        "c/x-2",
        "c/x-2-3",
        "c/x/y-z",
        "d-e-f",
        "d-e-g",
        "d-h",
        "na ïve/日本",
        "z",
    ];

    #[test]
    fn a_listing_is_what_s3_says_of_these_keys() {
        let store = store(KEYS);
        let bucket: Path = "/b".parse().unwrap();
        for delimiter in ["", "/", "-", "d", "x-"] {
            for prefix in [
                "", "a", "b", "b/", "b/d", "b/d/", "b/d/e", "b/none/", "c/", "c/x", "c/x-", "d-", "d-e", "na", "x//",
                "../", "z/",
            ] {
                for after in ["", "a", "b/c", "b/zzz", "b0", "c/", "c/x-2", "c/made/", "zz"] {
                    let asked =
                        Asked { prefix: prefix.into(), delimiter: delimiter.into(), after: after.into(), most: PAGE };
                    let found: Vec<_> = items(&store, &bucket, &asked).unwrap();
                    let found: Vec<_> = found.iter().map(|item| item.name().to_owned()).collect();
                    // A name that ends in the delimiter was a common prefix of the last page, which is not told again.
                    let mut expected = expected(KEYS, &asked);
                    expected.retain(|name| delimiter.is_empty() || !after.ends_with(delimiter) || name != after);
                    assert_eq!(found, expected, "{asked:?}");
                }
            }
        }
    }

    #[test]
    fn pages_of_any_size_add_up_to_the_listing() {
        let store = store(KEYS);
        let bucket: Path = "/b".parse().unwrap();
        for delimiter in ["", "/", "-", "d"] {
            for prefix in ["", "b/", "c/x", "d"] {
                let mut asked =
                    Asked { prefix: prefix.into(), delimiter: delimiter.into(), after: String::new(), most: PAGE };
                let all = expected(KEYS, &asked);
                for most in 1..5 {
                    (asked.most, asked.after) = (most, String::new());
                    let mut found = Vec::new();
                    loop {
                        let mut page = items(&store, &bucket, &asked).unwrap();
                        let is_truncated = page.len() > most;
                        page.truncate(most);
                        found.extend(page.iter().map(|item| item.name().to_owned()));
                        if !is_truncated {
                            break;
                        }
                        asked.after = found.last().unwrap().clone();
                    }
                    assert_eq!(found, all, "{most} of {asked:?}");
                }
            }
        }
    }

    #[test]
    fn no_items_are_asked_for_no_items() {
        let asked = Asked { prefix: String::new(), delimiter: String::new(), after: String::new(), most: 0 };
        assert!(items(&store(KEYS), &"/b".parse().unwrap(), &asked).unwrap().is_empty());
    }
}
