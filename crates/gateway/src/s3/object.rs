//! Objects: put, get, delete; what is kept with them.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use depot::client::{Digested, Error, PutOptions, Source};
use depot::identity::Version;
use depot::namespace::change::{Condition, Details, MOST_ATTRIBUTE_BYTES, Refusal, RemovalExtent};
use depot::namespace::listing::{Kind, Stat};
use depot::path::Path;
use depot::time::Time;
use hyper::header::{HeaderName, HeaderValue};
use hyper::http::response::Builder;
use hyper::{HeaderMap, Method, Response, StatusCode, header};

use super::bucket::access_control;
use super::checksum::Algorithm;
use super::conditions::{Conditions, Verdict};
use super::payload::{Announcement, MD5};
use super::problem::Problem;
use super::target::{Place, check_version};
use super::xml::Element;
use super::{Call, S3};
use crate::access::{Caller, Right};
use crate::http::{SANDBOX, Sink, Wanted, can_run_scripts, content_type_of, wanted};
use crate::locks::{Admission, Touched};

/// The digest that is the ETag of an object that came in parts.
pub(super) const ETAG: &str = "s3-etag";

/// The digest that says by which upload an object came in parts.
pub(super) const UPLOAD: &str = "s3-upload";

/// The ETag of no content: of a folder.
const ETAG_OF_NOTHING: &str = "d41d8cd98f00b204e9800998ecf8427e";

/// What the user's own metadata is called in a head.
const METADATA: &str = "x-amz-meta-";

/// Attributes with this prefix are header fields of HTTP; these ones.
const HTTP: &str = "http:";
const HTTP_FIELDS: [HeaderName; 5] = [
    header::CACHE_CONTROL,
    header::CONTENT_DISPOSITION,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::EXPIRES,
];

/// Attributes with this prefix are tags.
const TAG: &str = "tag:";

/// The most tags of an object.
const MOST_TAGS: usize = 10;

/// The longest content type that is kept.
const LONGEST_TYPE: usize = 256;

/// What is smaller is sent before it is worth to ask whether it may be.
const SMALL: u64 = 1 << 20;

/// A file may be replaced between the moment it is opened and the first byte that is read, and its old bytes collected. Then it
/// is opened anew, so often at most.
const ATTEMPTS: usize = 3;

/// So many threads remove the objects that one request names.
const REMOVERS: usize = 8;

/// The most objects that one request may remove.
const MOST_REMOVED: usize = 1_000;

/// An object's ETag, without quotes: its MD5, or what stands for it.
pub(super) fn etag(stat: &Stat) -> String {
    let digests = &stat.details.digests;
    match stat.kind {
        Kind::Directory { .. } => ETAG_OF_NOTHING.to_owned(),
        Kind::File { .. } => match digests.get(ETAG).or(digests.get(MD5)) {
            Some(etag) => etag.clone(),
            // It must not look like an MD5, and must never stand for other content.
            None => stat.version.to_string().replace('.', "-"),
        },
    }
}

/// In bytes.
pub(super) fn size(stat: &Stat) -> u64 {
    match stat.kind {
        Kind::File { size, .. } => size,
        Kind::Directory { .. } => 0,
    }
}

/// When an object was last modified, in whole seconds, as HTTP has it.
pub(super) fn last_modified(stat: &Stat) -> SystemTime {
    /// The last second of the year 9999: HTTP has no later one.
    const LATEST: u64 = 253_402_300_799;
    UNIX_EPOCH + Duration::from_secs((stat.modified_ms / 1000).min(LATEST))
}

/// A time in milliseconds since 1970, as S3's documents have it.
pub(super) fn shown_time(ms: u64) -> String {
    let text = Time(ms).to_string();
    format!("{}.{:03}Z", text.trim_end_matches('Z'), ms % 1000)
}

pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// The checksum that is kept with an object: the client's, or else the store's own.
pub(super) fn checksum(stat: &Stat) -> Option<(Algorithm, String)> {
    let Kind::File { checksum, .. } = stat.kind else { return None };
    let kept = |algorithm: Algorithm| Some((algorithm, stat.details.digests.get(algorithm.digest())?.clone()));
    let of_store = || (Algorithm::Crc64Nvme, Algorithm::Crc64Nvme.of_number(checksum.0));
    Some(Algorithm::ALL.into_iter().find_map(kept).unwrap_or_else(of_store))
}

/// Whether a checksum is of the whole object, or of the checksums of its parts.
pub(super) fn checksum_type(checksum: &str) -> &'static str {
    if checksum.contains('-') { "COMPOSITE" } else { "FULL_OBJECT" }
}

/// Puts a checksum into the head of an answer.
pub(super) fn with_checksum(head: Builder, checksum: Option<(Algorithm, String)>) -> Builder {
    match checksum {
        None => head,
        Some((algorithm, checksum)) => {
            head.header("x-amz-checksum-type", checksum_type(&checksum)).header(algorithm.header(), checksum)
        }
    }
}

/// What a request says that its object is to have: content type, metadata, tags.
pub(super) fn details(headers: &HeaderMap) -> Result<Details, Problem> {
    let text = |value: &HeaderValue, name: &str| {
        let text = String::from_utf8(value.as_bytes().to_vec());
        text.map_err(|_| Problem::bad("InvalidArgument", format!("{name} is not UTF-8")))
    };
    let mut details = Details::default();
    if let Some(value) = headers.get(header::CONTENT_TYPE) {
        details.content_type = text(value, "Content-Type")?;
        if details.content_type.len() > LONGEST_TYPE {
            let message = format!("a Content-Type has at most {LONGEST_TYPE} bytes");
            return Err(Problem::bad("InvalidArgument", message));
        }
    }
    for (name, value) in headers {
        if let Some(own) = name.as_str().strip_prefix(METADATA).filter(|own| !own.is_empty()) {
            // Several of one name are one, with commas in between.
            let value = text(value, name.as_str())?;
            let joined = details.attributes.get(own).map(|before: &String| format!("{before},{value}"));
            details.attributes.insert(own.to_owned(), joined.unwrap_or(value));
        }
    }
    for name in HTTP_FIELDS {
        let Some(value) = headers.get(&name) else { continue };
        let mut value = text(value, name.as_str())?;
        if name == header::CONTENT_ENCODING {
            // How the body is framed is no property of the content.
            let kept = value.split(',').map(str::trim).filter(|coding| !coding.eq_ignore_ascii_case("aws-chunked"));
            value = kept.filter(|coding| !coding.is_empty()).collect::<Vec<_>>().join(",");
        }
        if !value.is_empty() {
            details.attributes.insert(format!("{HTTP}{name}"), value);
        }
    }
    if let Some(tags) = headers.get("x-amz-tagging") {
        let uri = format!("/?{}", text(tags, "x-amz-tagging")?.replace('+', "%20"));
        let uri = uri.parse().map_err(|_| Problem::bad("InvalidTag", "x-amz-tagging is KEY=VALUE&..."))?;
        details.attributes.extend(tags_of(super::Query::of(&uri)?.0)?);
    }
    let bytes: usize = details.attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
    // Content type and digests need some of it.
    if bytes > MOST_ATTRIBUTE_BYTES - 1024 {
        let message = format!("metadata and tags have at most {} bytes in all", MOST_ATTRIBUTE_BYTES - 1024);
        return Err(Problem::bad("MetadataTooLarge", message));
    }
    Ok(details)
}

/// Tags as attributes.
fn tags_of(tags: Vec<(String, String)>) -> Result<BTreeMap<String, String>, Problem> {
    if tags.len() > MOST_TAGS {
        return Err(Problem::bad("BadRequest", format!("an object has at most {MOST_TAGS} tags")));
    }
    let all = tags.len();
    let tags: BTreeMap<_, _> = tags.into_iter().map(|(name, value)| (format!("{TAG}{name}"), value)).collect();
    if tags.len() < all || tags.contains_key(TAG) {
        return Err(Problem::bad("InvalidTag", "tags have names, and no two the same"));
    }
    Ok(tags)
}

/// Whether an attribute is of what a request over S3 says of metadata: then the next one that says it anew replaces it.
pub(super) fn is_metadata(attribute: &str) -> bool {
    attribute.starts_with(HTTP) || metadata_field(attribute).is_some()
}

/// Whether an attribute is a tag.
pub(super) fn is_tag(attribute: &str) -> bool {
    attribute.starts_with(TAG)
}

/// The header field of the user's metadata, if an attribute can be one.
fn metadata_field(attribute: &str) -> Option<HeaderName> {
    let is_lower = !attribute.is_empty() && !attribute.bytes().any(|byte| byte.is_ascii_uppercase());
    is_lower.then(|| HeaderName::try_from(format!("{METADATA}{attribute}")).ok())?
}

/// What has an object, but its content and ETag, as fields of a head.
fn with_metadata(mut head: Builder, stat: &Stat) -> Builder {
    let mut tags = 0;
    // Another gateway keeps attributes when it replaces content, but the new content is not encoded as the old one was.
    let is_as_put = [MD5, ETAG].into_iter().any(|digest| stat.details.digests.contains_key(digest));
    for (name, value) in &stat.details.attributes {
        let field = match name.strip_prefix(HTTP) {
            Some(field) => HeaderName::try_from(field)
                .ok()
                .filter(|field| HTTP_FIELDS.contains(field) && (is_as_put || field != header::CONTENT_ENCODING)),
            None => metadata_field(name),
        };
        if let (Some(field), Ok(value)) = (field, HeaderValue::from_bytes(value.as_bytes())) {
            head = head.header(field, value);
        }
        tags += usize::from(is_tag(name));
    }
    if tags > 0 { head.header("x-amz-tagging-count", tags) } else { head }
}

impl S3 {
    /// What an object has. Without a right nothing is looked at.
    pub(super) fn find(&self, call: &Call, right: Right, place: &Place) -> Result<Stat, Problem> {
        call.caller.check(right, &place.path)?;
        check_version(call.query.get("versionId"))?;
        match self.store.stat(&place.path) {
            Ok(stat) if is_object(&stat, place) => Ok(stat),
            Ok(_) | Err(Error::Refused(Refusal::NotFound | Refusal::NotADirectory)) => Err(self.missing(place)),
            Err(error) => Err(Problem::of(&place.name(), &error)),
        }
    }

    /// There is no such object, or not even such a bucket.
    fn missing(&self, place: &Place) -> Problem {
        self.check_bucket(&place.bucket).err().unwrap_or_else(|| Problem::no_such_key(&place.name()))
    }

    /// What an object replaces that is to be put, if anything. Refuses where there can be none.
    pub(super) fn find_to_replace(&self, place: &Place) -> Result<Option<Stat>, Problem> {
        match self.store.stat(&place.path) {
            Ok(stat) if is_object(&stat, place) => Ok(Some(stat)),
            Ok(Stat { kind: Kind::Directory { .. }, .. }) if place.is_folder => Ok(None), // it becomes explicit
            Ok(Stat { kind: Kind::Directory { .. }, .. }) => {
                Err(Problem::of(&place.name(), &Error::Refused(Refusal::IsADirectory)))
            }
            Ok(_) => Err(Problem::of(&place.name(), &Error::Refused(Refusal::NotADirectory))),
            Err(Error::Refused(Refusal::NotFound)) => self.check_bucket(&place.bucket).map(|()| None),
            Err(Error::Refused(Refusal::NotADirectory)) => {
                self.check_bucket(&place.bucket)?;
                Err(Problem::of(&place.name(), &Error::Refused(Refusal::NotADirectory)))
            }
            Err(error) => Err(Problem::of(&place.name(), &error)),
        }
    }

    pub(super) fn put_object(&self, call: &mut Call, place: &Place) -> Result<(), Problem> {
        call.caller.check(Right::Write, &place.path)?;
        let details = details(&call.head.headers)?;
        let announced = call.announcement()?;
        let current = self.find_to_replace(place)?;
        let conditions = Conditions::of(&call.head.headers);
        check_to_change(&conditions, current.as_ref(), place)?;
        let admission = self.admit(&call.caller, &place.path, touched(place, current.as_ref()))?;
        if place.is_folder {
            return self.put_folder(call, place, &details, announced);
        }
        let condition = conditions.to_insist_on(current.as_ref());
        let options = PutOptions { condition, parents: true, details, ..PutOptions::default() };
        let digests = self.upload(call, announced, &place.path, &options, &place.name(), Some(&admission))?;
        let etag = digests.get(MD5).map(String::as_str).unwrap_or_default();
        let head = with_checksum(Response::builder().header(header::ETAG, format!("\"{etag}\"")), kept(&digests));
        call.send(StatusCode::OK, head, "");
        Ok(())
    }

    /// Puts the content of a request; its digests.
    pub(super) fn upload(
        &self,
        call: &mut Call,
        announced: Announcement,
        path: &Path,
        options: &PutOptions,
        name: &str,
        admission: Option<&Admission<'_>>,
    ) -> Result<BTreeMap<String, String>, Problem> {
        // A client that waits to be told to send much is told before if there is no room for it.
        if call.head.headers.contains_key(header::EXPECT) && announced.length() > Some(SMALL) {
            self.store.check_put(path, options).map_err(|error| Problem::of(name, &error))?;
        }
        let signer = call.signer.take();
        let mut payload = self.payload(&mut call.body, announced, signer, admission)?;
        match self.store.put(path, Source::Digested(&mut payload), options) {
            Ok(_) => Ok(payload.digests()),
            Err(error) => Err(payload.problem().unwrap_or_else(|| Problem::of(name, &error))),
        }
    }

    /// Makes a folder: an object whose key ends in `/`.
    fn put_folder(
        &self,
        call: &mut Call,
        place: &Place,
        details: &Details,
        announced: Announcement,
    ) -> Result<(), Problem> {
        let signer = call.signer.take();
        let content = self.payload(&mut call.body, announced, signer, None)?.read_document(0);
        let message = format!("{}: a key that ends in / is a folder, which has no content", place.name());
        content.map_err(|problem| match problem.code {
            "MaxMessageLengthExceeded" => Problem::bad("InvalidArgument", message),
            _ => problem,
        })?;
        match self.store.make_directory(&place.path, true, details, None) {
            Ok(_) => {}
            Err(Error::Refused(Refusal::AlreadyExists)) => self.replace_metadata(&place.path, details, None)?,
            Err(error) => return Err(Problem::of(&place.name(), &error)),
        }
        call.send(StatusCode::OK, Response::builder().header(header::ETAG, format!("\"{ETAG_OF_NOTHING}\"")), "");
        Ok(())
    }

    /// Gives a file or folder other metadata and content type. What other gateways have set stays.
    pub(super) fn replace_metadata(
        &self,
        path: &Path,
        details: &Details,
        version: Option<Version>,
    ) -> Result<(), Problem> {
        let failed = |error| Problem::of(path.as_str(), &error);
        let stat = self.store.stat(path).map_err(failed)?;
        let mut attributes: BTreeMap<String, Option<String>> =
            stat.details.attributes.into_keys().filter(|name| is_metadata(name)).map(|name| (name, None)).collect();
        attributes.extend(details.attributes.iter().map(|(name, value)| (name.clone(), Some(value.clone()))));
        let condition = version.map_or(Condition::Any, |version| Condition::Version { version });
        let changed =
            self.store.set_attributes(path, condition, &attributes, Some(&details.content_type), Some(now_ms()));
        changed.map(drop).map_err(failed)
    }

    /// Answers with an object, or a range of it.
    pub(super) fn get_object(&self, call: &mut Call, place: &Place) -> Result<(), Problem> {
        if call.query.get("partNumber").is_some() {
            return Err(Problem::not_implemented("partNumber: parts are not told apart once they are put together"));
        }
        if place.is_folder || call.head.method == Method::HEAD {
            let stat = self.find(call, Right::Read, place)?;
            if let Some((status, head, range)) = self.head_of_object(call, place, &stat)? {
                let length = range.end - range.start;
                call.send(status, head.header(header::CONTENT_LENGTH, length), "");
            }
            return Ok(());
        }
        call.caller.check(Right::Read, &place.path)?;
        check_version(call.query.get("versionId"))?;
        for attempt in 1.. {
            let mut content = match self.store.get(&place.path, Condition::Any) {
                Err(Error::Refused(Refusal::NotFound | Refusal::NotADirectory | Refusal::IsADirectory)) => {
                    return Err(self.missing(place));
                }
                content => content.map_err(|error| Problem::of(&place.name(), &error))?,
            };
            let stat = content.stat().clone();
            let Some((status, head, range)) = self.head_of_object(call, place, &stat)? else { return Ok(()) };
            let length = range.end - range.start;
            if length == 0 {
                call.send(status, head, "");
                return Ok(());
            }
            let mut sink = Sink::new(&self.console.statistics, || call.begin(status, head, length));
            let copied = content.copy_to(range, &mut sink);
            match sink.end(copied, place.path.as_str()) {
                Err(Error::Gone) if attempt < ATTEMPTS => {}
                ended => return ended.map_err(|error| Problem::of(&place.name(), &error)),
            }
        }
        unreachable!("the last attempt returns")
    }

    /// The head of an answer with an object, and which bytes go with it; `None` if the client has the object already, and was
    /// told so.
    fn head_of_object(
        &self,
        call: &mut Call,
        place: &Place,
        stat: &Stat,
    ) -> Result<Option<(StatusCode, Builder, std::ops::Range<u64>)>, Problem> {
        let head = Response::builder()
            .header(header::ETAG, format!("\"{}\"", etag(stat)))
            .header(header::LAST_MODIFIED, httpdate::fmt_http_date(last_modified(stat)));
        match Conditions::of(&call.head.headers).judge(Some(stat)) {
            Verdict::Failed => return Err(Problem::condition_failed(&place.name())),
            Verdict::NotModified => {
                call.send(StatusCode::NOT_MODIFIED, head, "");
                return Ok(None);
            }
            Verdict::Holds => {}
        }
        let size = size(stat);
        let mut head = with_metadata(head, stat).header(header::ACCEPT_RANGES, "bytes");
        let asked = call.header("range").filter(|_| is_same_content(call, stat));
        let (status, range) = match wanted(asked, size) {
            Wanted::Whole => (StatusCode::OK, 0..size),
            Wanted::Part(range) => {
                let which = format!("bytes {}-{}/{size}", range.start, range.end - 1);
                head = head.header(header::CONTENT_RANGE, which);
                (StatusCode::PARTIAL_CONTENT, range)
            }
            Wanted::Nothing => {
                let message = format!("{} has {size} bytes, and none of those that were asked for", place.name());
                let mut problem = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange", message);
                problem.headers.push((header::CONTENT_RANGE, format!("bytes */{size}")));
                return Err(problem);
            }
        };
        let wants_checksum =
            call.header("x-amz-checksum-mode").is_some_and(|mode| mode.eq_ignore_ascii_case("enabled"));
        if wants_checksum && status == StatusCode::OK {
            head = with_checksum(head, checksum(stat));
        }
        let kind = match stat.kind {
            Kind::Directory { .. } if stat.details.content_type.is_empty() => {
                HeaderValue::from_static("application/x-directory")
            }
            _ => content_type_of(&place.path, stat),
        };
        Ok(Some((status, with_overrides(call, head, kind)?, range)))
    }

    pub(super) fn delete_object(&self, call: &mut Call, place: &Place) -> Result<(), Problem> {
        check_version(call.query.get("versionId"))?;
        call.caller.check(Right::Write, &place.path)?;
        let conditions = Conditions::of(&call.head.headers);
        let mut condition = Condition::Any;
        if conditions.are_any() {
            let current = self.store.stat(&place.path).ok().filter(|stat| is_object(stat, place));
            if conditions.judge(current.as_ref()) != Verdict::Holds {
                return Err(Problem::condition_failed(&place.name()));
            }
            condition = conditions.to_insist_on(current.as_ref());
        }
        if !self.remove(&call.caller, place, condition)? {
            self.check_bucket(&place.bucket)?;
        }
        call.send(StatusCode::NO_CONTENT, Response::builder(), "");
        Ok(())
    }

    /// Removes an object; false if there was none.
    fn remove(&self, caller: &Caller, place: &Place, condition: Condition) -> Result<bool, Problem> {
        caller.check(Right::Write, &place.path)?;
        let admission = self.admit(caller, &place.path, Touched::Entry(place.path.clone()))?;
        let removed = match place.is_folder {
            true => self.store.remove_directory(&place.path, condition, RemovalExtent::Mark),
            false => self.store.remove(&place.path, condition),
        };
        match removed {
            Ok(_) => {
                admission.release_where(|locked| !place.is_folder && *locked == place.path);
                Ok(true)
            }
            Err(Error::Refused(Refusal::NotFound | Refusal::IsADirectory | Refusal::NotADirectory)) => Ok(false),
            Err(error) => Err(Problem::of(&place.name(), &error)),
        }
    }

    /// Removes objects that a document names. What happens to each is told.
    pub(super) fn delete_objects(&self, call: &mut Call, bucket: &Path) -> Result<(), Problem> {
        if !call.caller.may_know(bucket) {
            call.caller.check(Right::Write, bucket)?;
        }
        self.check_bucket(bucket)?;
        let document = self.document(call)?;
        let malformed =
            || Problem::bad("MalformedXML", "expected <Delete> with at most 1,000 <Object>s, each with a <Key>");
        let named: Option<Vec<_>> = document.all("Object").map(|object| Some((object.child("Key")?, object))).collect();
        let named = named.filter(|named| (1..=MOST_REMOVED).contains(&named.len())).ok_or_else(malformed)?;
        let is_quiet = document.child("Quiet").is_some_and(|text| text.trim().eq_ignore_ascii_case("true"));
        let remove = |(key, object): &(&str, &Element)| {
            check_version(object.child("VersionId"))?;
            let place = Place::new(bucket.clone(), key)?;
            if object.child("ETag").is_some() {
                return Err(Problem::not_implemented("a condition in DeleteObjects"));
            }
            self.remove(&call.caller, &place, Condition::Any)
        };
        let each = named.len().div_ceil(REMOVERS);
        let removed: Vec<_> = thread::scope(|scope| {
            let remove_all = |share: &[_]| share.iter().map(remove).collect::<Vec<_>>();
            // A share that gets no thread is done by this one.
            let begin =
                |share| thread::Builder::new().spawn_scoped(scope, move || remove_all(share)).map_err(|_| share);
            let shares: Vec<_> = named.chunks(each).map(begin).collect();
            let end = |share: Result<thread::ScopedJoinHandle<'_, _>, &[_]>| match share {
                Ok(thread) => thread.join().expect("it does not panic"),
                Err(share) => remove_all(share),
            };
            shares.into_iter().flat_map(end).collect()
        });
        call.send_xml(Response::builder(), "DeleteResult", |root| {
            for ((key, _), removed) in named.iter().zip(removed) {
                match removed {
                    Ok(_) if is_quiet => {}
                    Ok(_) => root.element("Deleted", |deleted| deleted.text("Key", key)),
                    Err(problem) => root.element("Error", |error| {
                        error.text("Key", key);
                        error.text("Code", problem.code);
                        error.text("Message", &problem.message);
                    }),
                }
            }
        });
        Ok(())
    }

    pub(super) fn get_object_acl(&self, call: &mut Call, place: &Place) -> Result<(), Problem> {
        self.find(call, Right::Read, place)?;
        call.send_xml(Response::builder(), "AccessControlPolicy", access_control);
        Ok(())
    }

    pub(super) fn get_object_tagging(&self, call: &mut Call, place: &Place) -> Result<(), Problem> {
        let stat = self.find(call, Right::Read, place)?;
        call.send_xml(Response::builder(), "Tagging", |root| {
            root.element("TagSet", |set| {
                for (name, value) in &stat.details.attributes {
                    let Some(name) = name.strip_prefix(TAG) else { continue };
                    set.element("Tag", |tag| {
                        tag.text("Key", name);
                        tag.text("Value", value);
                    });
                }
            });
        });
        Ok(())
    }

    pub(super) fn put_object_tagging(&self, call: &mut Call, place: &Place) -> Result<(), Problem> {
        let stat = self.find(call, Right::Write, place)?;
        let document = self.document(call)?;
        let set = document.all("TagSet").flat_map(|set| set.all("Tag"));
        let tags: Option<Vec<_>> =
            set.map(|tag| Some((tag.child("Key")?.to_owned(), tag.child("Value")?.to_owned()))).collect();
        let malformed = || Problem::bad("MalformedXML", "expected <Tagging> with a <TagSet> of <Tag>s");
        self.set_tags(&call.caller, place, &stat, tags_of(tags.ok_or_else(malformed)?)?)?;
        call.send(StatusCode::OK, Response::builder(), "");
        Ok(())
    }

    pub(super) fn delete_object_tagging(&self, call: &mut Call, place: &Place) -> Result<(), Problem> {
        let stat = self.find(call, Right::Write, place)?;
        self.set_tags(&call.caller, place, &stat, BTreeMap::new())?;
        call.send(StatusCode::NO_CONTENT, Response::builder(), "");
        Ok(())
    }

    /// Gives an object these tags in place of those that it had.
    fn set_tags(
        &self,
        caller: &Caller,
        place: &Place,
        stat: &Stat,
        tags: BTreeMap<String, String>,
    ) -> Result<(), Problem> {
        let _admitted = self.admit(caller, &place.path, Touched::Itself(place.path.clone()))?;
        let before = stat.details.attributes.keys().filter(|name| is_tag(name));
        let mut attributes: BTreeMap<_, _> = before.map(|name| (name.clone(), None)).collect();
        attributes.extend(tags.into_iter().map(|(name, value)| (name, Some(value))));
        let condition = Condition::Version { version: stat.version };
        let set = self.store.set_attributes(&place.path, condition, &attributes, None, None);
        set.map(drop).map_err(|error| Problem::of(&place.name(), &error))
    }
}

/// Whether what is at the path is what the key names: a file, or a folder that was made.
fn is_object(stat: &Stat, place: &Place) -> bool {
    match stat.kind {
        Kind::File { .. } => !place.is_folder,
        Kind::Directory { is_explicit, .. } => place.is_folder && is_explicit,
    }
}

/// What a change of an object is about.
pub(super) fn touched(place: &Place, current: Option<&Stat>) -> Touched {
    match current {
        Some(_) => Touched::Itself(place.path.clone()),
        None => Touched::Entry(place.path.clone()),
    }
}

/// The client's checksum among digests.
pub(super) fn kept(digests: &BTreeMap<String, String>) -> Option<(Algorithm, String)> {
    Algorithm::ALL.into_iter().find_map(|algorithm| Some((algorithm, digests.get(algorithm.digest())?.clone())))
}

/// Refuses a change whose conditions do not hold for what is there.
pub(super) fn check_to_change(conditions: &Conditions, current: Option<&Stat>, place: &Place) -> Result<(), Problem> {
    match conditions.judge(current) {
        Verdict::Holds => Ok(()),
        // S3 says so of If-Match where nothing is.
        Verdict::Failed if current.is_none() => Err(Problem::no_such_key(&place.name())),
        _ => Err(Problem::condition_failed(&place.name())),
    }
}

/// Whether `If-Range`, if there is one, says that the client's part is of the same content.
fn is_same_content(call: &Call, stat: &Stat) -> bool {
    let Some(text) = call.header("if-range") else { return true };
    text.trim().trim_matches('"') == etag(stat)
        || httpdate::parse_http_date(text).is_ok_and(|time| time == last_modified(stat))
}

/// What the query of a signed request says that the head of the answer is to have.
fn with_overrides(call: &Call, mut head: Builder, kind: HeaderValue) -> Result<Builder, Problem> {
    let is_signed = matches!(&call.caller, Caller::User(_)) && call.signer.is_some();
    let mut kind = kind;
    for name in HTTP_FIELDS.into_iter().chain([header::CONTENT_TYPE]) {
        let Some(value) = call.query.get(&format!("response-{name}")) else { continue };
        if !is_signed {
            let message = format!("response-{name} is for signed requests only");
            return Err(Problem::bad("InvalidRequest", message));
        }
        let bad = |_| Problem::bad("InvalidArgument", format!("response-{name} cannot be in a head"));
        let value = HeaderValue::try_from(value).map_err(bad)?;
        if name == header::CONTENT_TYPE {
            kind = value;
        } else if let Some(fields) = head.headers_mut() {
            fields.insert(name, value);
        }
    }
    // A browser may show what is stored. Then it must not act as this gateway.
    head = head.header(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    if can_run_scripts(&kind) {
        head = head.header(header::CONTENT_SECURITY_POLICY, SANDBOX);
    }
    Ok(head.header(header::CONTENT_TYPE, kind))
}
