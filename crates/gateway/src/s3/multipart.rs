//! Uploads in parts: each part is a file, and the object is composed of them. See the module above for where they are.

use std::collections::BTreeSet;
use std::io::{self, Read};

use depot::client::{Content, Error, ListOptions, PutOptions, Source};
use depot::disk::random;
use depot::identity::Version;
use depot::namespace::change::{Condition, Details, Refusal, RemovalExtent};
use depot::namespace::listing::{Kind, Listed, Stat};
use depot::path::Path;
use hyper::{Response, StatusCode, header};
use md5::{Digest, Md5};

use super::checksum::Algorithm;
use super::conditions::Conditions;
use super::expiry::UPLOADS;
use super::listing::{encoding, shown};
use super::object::{
    ETAG, UPLOAD, check_to_change, checksum, checksum_type, details, etag, kept, now_ms, shown_time, size, touched,
};
use super::payload::MD5;
use super::problem::Problem;
use super::signature::{hex, unhex};
use super::target::{Place, name_of};
use super::xml::{Document, Element};
use super::{Call, S3, bucket::owner};
use crate::access::Right;
use crate::http::{Wanted, wanted};

/// The most parts of an object. A change of the store touches fewer than ten thousand records. (depot 3.6)
const MOST_PARTS: usize = 10_000;

/// Every part but the last has at least so many bytes.
const SMALLEST_PART: u64 = 5 << 20;

/// Attributes of an upload's folder that are not the object's: the key, the checksum's algorithm and type, when it was begun.
const OWN: &str = "s3:";
const KEY: &str = "s3:key";
const ALGORITHM: &str = "s3:algorithm";
const TYPE: &str = "s3:type";
const BEGUN: &str = "s3:begun";

/// An upload that was begun.
struct Upload {
    id: String,
    folder: Path,
    /// What the object is to have.
    details: Details,
    algorithm: Option<Algorithm>,
    /// The checksum is to be of the whole object, not of the parts' checksums.
    is_of_whole: bool,
}

/// A part that was sent.
struct Part {
    number: usize,
    path: Path,
    stat: Stat,
}

/// What a client says of a part when it completes an upload.
struct NamedPart<'a> {
    number: usize,
    etag: &'a str,
    element: &'a Element,
}

impl S3 {
    pub(super) fn create_multipart_upload(&self, call: &mut Call, place: &Place) -> Result<(), Problem> {
        call.caller.check(Right::Write, &place.path)?;
        let mut details = details(&call.head.headers)?;
        if place.is_folder {
            let message = format!("{}: a key that ends in / is a folder, which has no content", place.name());
            return Err(Problem::bad("InvalidArgument", message));
        }
        let algorithm = match call.header("x-amz-checksum-algorithm") {
            None => None,
            Some(name) => {
                let unknown = || Problem::bad("InvalidRequest", format!("{name} is no checksum of S3's"));
                Some(Algorithm::of_name(name).ok_or_else(unknown)?)
            }
        };
        let kind = match (call.header("x-amz-checksum-type"), algorithm) {
            (None, Some(Algorithm::Crc64Nvme)) => "FULL_OBJECT",
            (None, _) => "COMPOSITE",
            (Some("FULL_OBJECT"), Some(algorithm)) if algorithm.combines() => "FULL_OBJECT",
            (Some("COMPOSITE"), Some(algorithm)) if algorithm != Algorithm::Crc64Nvme => "COMPOSITE",
            (Some(kind), _) => {
                let message = format!("x-amz-checksum-type: {kind} does not go with the algorithm");
                return Err(Problem::bad("InvalidRequest", message));
            }
        };
        self.find_to_replace(place)?;
        let own = [
            (KEY, place.key.clone()),
            (ALGORITHM, algorithm.map_or(String::new(), |algorithm| algorithm.name().to_owned())),
            (TYPE, kind.to_owned()),
            (BEGUN, now_ms().to_string()),
        ];
        details.attributes.extend(own.map(|(name, value)| (name.to_owned(), value)));
        let id = random::<16>().map_err(|error| Problem::of(&place.name(), &Error::Unavailable(error.to_string())))?;
        let id = hex(&id);
        let folder = folder(place, &id)?;
        let made = self.store.make_directory(&folder, true, &details, None);
        made.map_err(|error| Problem::of(&place.name(), &error))?;
        let mut head = Response::builder();
        if let Some(algorithm) = algorithm {
            head = head.header("x-amz-checksum-algorithm", algorithm.name()).header("x-amz-checksum-type", kind);
        }
        call.send_xml(head, "InitiateMultipartUploadResult", |root| {
            root.text("Bucket", place.bucket_name());
            root.text("Key", &place.key);
            root.text("UploadId", &id);
        });
        Ok(())
    }

    pub(super) fn upload_part(&self, call: &mut Call, place: &Place) -> Result<(), Problem> {
        call.caller.check(Right::Write, &place.path)?;
        let number = part_number(call)?;
        let upload = self.upload_of(call, place)?;
        let mut announced = call.announcement()?;
        announced.compute(upload.algorithm);
        let name = format!("{}, part {number}", place.name());
        let digests = self.upload(call, announced, &upload.part(number), &PutOptions::default(), &name, None);
        let digests = digests.map_err(|problem| ended_meanwhile(problem, &upload.id))?;
        let etag = digests.get(MD5).map(String::as_str).unwrap_or_default();
        let head = Response::builder().header(header::ETAG, format!("\"{etag}\""));
        let head = match kept(&digests) {
            Some((algorithm, checksum)) => head.header(algorithm.header(), checksum),
            None => head,
        };
        call.send(StatusCode::OK, head, "");
        Ok(())
    }

    /// A part of the content of an object: of all of it no byte moves, of a range all do, through this gateway.
    pub(super) fn upload_part_copy(&self, call: &mut Call, place: &Place) -> Result<(), Problem> {
        call.caller.check(Right::Write, &place.path)?;
        let number = part_number(call)?;
        let upload = self.upload_of(call, place)?;
        let (source, stat) = self.copy_source(call)?;
        let Kind::File { size, .. } = stat.kind else {
            return Err(Problem::bad("InvalidRequest", format!("{} is a folder, which has no content", source.name())));
        };
        let range = match (call.header("x-amz-copy-source-range"), wanted(call.header("x-amz-copy-source-range"), size))
        {
            (None, _) => 0..size,
            // Unlike a download's, such a range must lie within the object.
            (Some(text), Wanted::Part(range)) if text.ends_with(&format!("-{}", range.end - 1)) => range,
            (Some(text), _) => {
                let message =
                    format!("{text}: expected bytes=FIRST-LAST, within the {size} bytes of {}", source.name());
                return Err(Problem::bad("InvalidArgument", message));
            }
        };
        let failed =
            |error| ended_meanwhile(Problem::of(&format!("{}, part {number}", place.name()), &error), &upload.id);
        let to = upload.part(number);
        let checksum_is_known = upload.algorithm.is_none_or(|algorithm| checksum_of_part(&stat, algorithm).is_some());
        if range == (0..size) && checksum_is_known {
            let mut details = Details { digests: stat.details.digests.clone(), ..Details::default() };
            details.digests.remove(UPLOAD);
            let options = PutOptions { details, ..PutOptions::default() };
            let sources = [(source.path.clone(), stat.version)];
            self.store.compose(&to, &sources, false, &options).map_err(failed)?;
        } else {
            let content = self.store.get(&source.path, Condition::Version { version: stat.version }).map_err(failed)?;
            let body = InPieces { content, range, piece: Vec::new(), read: 0 };
            let mut announced = super::Announcement::of(&hyper::HeaderMap::new(), None)?;
            announced.compute(upload.algorithm);
            let mut payload = super::Payload::new(body, announced, None, self.backing(None))?;
            self.store.put(&to, Source::Digested(&mut payload), &PutOptions::default()).map_err(failed)?;
        }
        let part = self.store.stat(&to).map_err(failed)?;
        call.send_xml(Response::builder(), "CopyPartResult", |root| {
            root.text("LastModified", shown_time(part.modified_ms));
            root.text("ETag", format!("\"{}\"", etag(&part)));
            if let Some(algorithm) = upload.algorithm {
                root.optional(algorithm.element(), checksum_of_part(&part, algorithm));
            }
        });
        Ok(())
    }

    pub(super) fn complete_multipart_upload(&self, call: &mut Call, place: &Place) -> Result<(), Problem> {
        call.caller.check(Right::Write, &place.path)?;
        let document = self.document(call)?;
        let id = upload_id(call)?.to_owned();
        let stat = match self.complete(call, place, &document) {
            // A client that has not heard that it was done asks again.
            Err(problem) if matches!(problem.code, "NoSuchUpload" | "InvalidPart") => {
                let stat = self.store.stat(&place.path).ok();
                let is_of_this = |stat: &Stat| stat.details.digests.get(UPLOAD) == Some(&id);
                stat.filter(is_of_this).ok_or(problem)?
            }
            completed => completed?,
        };
        let host = call.header("host").unwrap_or("localhost").to_owned();
        call.send_xml(Response::builder(), "CompleteMultipartUploadResult", |root| {
            root.text("Location", format!("http://{host}{}", shown(place.path.as_str(), true)));
            root.text("Bucket", place.bucket_name());
            root.text("Key", &place.key);
            root.text("ETag", format!("\"{}\"", etag(&stat)));
            if let Some((algorithm, checksum)) = checksum(&stat) {
                root.text(algorithm.element(), &checksum);
                root.text("ChecksumType", checksum_type(&checksum));
            }
        });
        Ok(())
    }

    /// Composes the object of the parts that the document names; what it has then.
    fn complete(&self, call: &Call, place: &Place, document: &Element) -> Result<Stat, Problem> {
        let upload = self.upload_of(call, place)?;
        let parts = self.chosen(&upload, &named_parts(document)?)?;
        let mut details = upload.details.clone();
        details.digests.insert(ETAG.to_owned(), etag_of_parts(&parts));
        details.digests.insert(UPLOAD.to_owned(), upload.id.clone());
        if let Some(algorithm) = upload.algorithm {
            let checksum = upload.checksum(algorithm, &parts);
            let said = call.header(algorithm.header());
            if let (Some(said), Some(checksum)) = (said, &checksum)
                && upload.is_of_whole
                && said != checksum
            {
                let message = format!("the object has another {} than {} says", algorithm.name(), algorithm.header());
                return Err(Problem::bad("BadDigest", message));
            }
            details.digests.extend(checksum.map(|checksum| (algorithm.digest().to_owned(), checksum)));
        }
        let all: u64 = parts.iter().map(|part| size(&part.stat)).sum();
        if call.header("x-amz-mp-object-size").is_some_and(|said| said != all.to_string()) {
            let message = format!("the parts have {all} bytes in all, and not what x-amz-mp-object-size says");
            return Err(Problem::bad("InvalidRequest", message));
        }
        let current = self.find_to_replace(place)?;
        let conditions = Conditions::of(&call.head.headers);
        check_to_change(&conditions, current.as_ref(), place)?;
        let _admitted = self.admit(&call.caller, &place.path, touched(place, current.as_ref()))?;
        let condition = conditions.to_insist_on(current.as_ref());
        let options = PutOptions { condition, parents: true, details, ..PutOptions::default() };
        let sources: Vec<(Path, Version)> = parts.into_iter().map(|part| (part.path, part.stat.version)).collect();
        match self.store.compose(&place.path, &sources, true, &options) {
            Err(Error::Refused(Refusal::NotFound)) => return Err(invalid_part("a part has gone meanwhile")),
            Err(Error::Refused(Refusal::ConditionFailed)) if condition == Condition::Any => {
                return Err(invalid_part("a part was replaced meanwhile"));
            }
            composed => composed.map_err(|error| Problem::of(&place.name(), &error))?,
        };
        // Parts that were not chosen, and the folder.
        match self.store.remove_directory(&upload.folder, Condition::Any, RemovalExtent::Tree) {
            Ok(_) | Err(Error::Refused(Refusal::NotFound)) => {}
            Err(error) => log::warn!("{}: left until it expires: {error}", upload.folder),
        }
        self.store.stat(&place.path).map_err(|error| Problem::of(&place.name(), &error))
    }

    /// The parts that a client names, as they are. Each must be there, as the client knows it.
    fn chosen(&self, upload: &Upload, named: &[NamedPart<'_>]) -> Result<Vec<Part>, Problem> {
        let mut there = self.parts(upload, 0)?.into_iter().peekable();
        let mut chosen: Vec<Part> = Vec::new();
        for NamedPart { number, etag: known, element } in named {
            if chosen.last().is_some_and(|last| last.number >= *number) {
                return Err(Problem::bad("InvalidPartOrder", "parts are named in the order of their numbers"));
            }
            if chosen.last().is_some_and(|last| size(&last.stat) < SMALLEST_PART) {
                let message = format!("a part that is not the last one has at least {SMALLEST_PART} bytes");
                return Err(Problem::bad("EntityTooSmall", message));
            }
            while there.next_if(|part| part.number < *number).is_some() {}
            let part = there.next_if(|part| part.number == *number);
            let part = part.ok_or_else(|| invalid_part(&format!("part {number} was not sent")))?;
            if *known != etag(&part.stat) {
                return Err(invalid_part(&format!("part {number} has another ETag")));
            }
            if let Some(algorithm) = upload.algorithm
                && let Some(said) = element.child(algorithm.element())
                && checksum_of_part(&part.stat, algorithm).as_deref() != Some(said.trim())
            {
                return Err(invalid_part(&format!("part {number} has another {}", algorithm.name())));
            }
            chosen.push(part);
        }
        Ok(chosen)
    }

    pub(super) fn abort_multipart_upload(&self, call: &mut Call, place: &Place) -> Result<(), Problem> {
        call.caller.check(Right::Write, &place.path)?;
        let upload = self.upload_of(call, place)?;
        match self.store.remove_directory(&upload.folder, Condition::Any, RemovalExtent::Tree) {
            Err(Error::Refused(Refusal::NotFound)) => return Err(no_such_upload(&upload.id)),
            removed => removed.map_err(|error| Problem::of(&place.name(), &error))?,
        };
        call.send(StatusCode::NO_CONTENT, Response::builder(), "");
        Ok(())
    }

    pub(super) fn list_parts(&self, call: &mut Call, place: &Place) -> Result<(), Problem> {
        call.caller.check(Right::Write, &place.path)?;
        let upload = self.upload_of(call, place)?;
        let marker = call.query.number("part-number-marker", MOST_PARTS)?.unwrap_or(0);
        let most = call.query.number("max-parts", 1_000)?.unwrap_or(1_000);
        let mut parts = self.parts(&upload, marker)?;
        let is_truncated = parts.len() > most;
        parts.truncate(most);
        call.send_xml(Response::builder(), "ListPartsResult", |root| {
            root.text("Bucket", place.bucket_name());
            root.text("Key", &place.key);
            root.text("UploadId", &upload.id);
            root.element("Initiator", owner);
            root.element("Owner", owner);
            root.text("StorageClass", "STANDARD");
            root.text("PartNumberMarker", marker);
            root.text("NextPartNumberMarker", parts.last().map_or(marker, |part| part.number));
            root.text("MaxParts", most);
            root.text("IsTruncated", is_truncated);
            for part in &parts {
                root.element("Part", |element| {
                    element.text("PartNumber", part.number);
                    element.text("LastModified", shown_time(part.stat.modified_ms));
                    element.text("ETag", format!("\"{}\"", etag(&part.stat)));
                    element.text("Size", size(&part.stat));
                    if let Some(algorithm) = upload.algorithm {
                        element.optional(algorithm.element(), checksum_of_part(&part.stat, algorithm));
                    }
                });
            }
        });
        Ok(())
    }

    pub(super) fn list_multipart_uploads(&self, call: &mut Call, bucket: &Path) -> Result<(), Problem> {
        self.check_known(call, bucket)?;
        let query = &call.query;
        let text = |name: &str| query.get(name).unwrap_or_default();
        let (prefix, key_marker, id_marker) = (text("prefix"), text("key-marker"), text("upload-id-marker"));
        let most = query.number("max-uploads", 1_000)?.unwrap_or(1_000);
        let is_url = encoding(query)?;
        if !text("delimiter").is_empty() {
            return Err(Problem::not_implemented("a delimiter in ListMultipartUploads"));
        }
        let mut uploads = self.uploads(bucket, most.saturating_add(1), |key, id| {
            let is_behind = match id_marker {
                "" => key > key_marker,
                id_marker => (key, id) > (key_marker, id_marker),
            };
            let may_see = || Place::new(bucket.clone(), key).is_ok_and(|it| call.caller.may(Right::Write, &it.path));
            key.starts_with(prefix) && is_behind && may_see()
        })?;
        let is_truncated = uploads.len() > most;
        if is_truncated {
            uploads.pop_last();
        }
        let document = |root: &mut Document| {
            root.text("Bucket", name_of(bucket));
            root.text("KeyMarker", shown(key_marker, is_url));
            root.text("UploadIdMarker", id_marker);
            if let Some((key, id, _)) = uploads.last().filter(|_| is_truncated) {
                root.text("NextKeyMarker", shown(key, is_url));
                root.text("NextUploadIdMarker", id);
            }
            root.text("Prefix", shown(prefix, is_url));
            root.text("MaxUploads", most);
            root.text("IsTruncated", is_truncated);
            root.optional("EncodingType", is_url.then_some("url"));
            for (key, id, begun_ms) in &uploads {
                root.element("Upload", |upload| {
                    upload.text("Key", shown(key, is_url));
                    upload.text("UploadId", id);
                    upload.element("Initiator", owner);
                    upload.element("Owner", owner);
                    upload.text("StorageClass", "STANDARD");
                    upload.text("Initiated", shown_time(*begun_ms));
                });
            }
        };
        let document = Document::of("ListMultipartUploadsResult", document);
        let head = Response::builder().header(header::CONTENT_TYPE, "application/xml");
        call.send(StatusCode::OK, head, document);
        Ok(())
    }

    /// The first uploads of a bucket that are under way and wanted: key, id, and when each was begun; in that order. There may be
    /// any number of others, so that only these are kept in memory.
    fn uploads(
        &self,
        bucket: &Path,
        most: usize,
        is_wanted: impl Fn(&str, &str) -> bool,
    ) -> Result<BTreeSet<(String, String, u64)>, Problem> {
        let folder: Path =
            format!("{UPLOADS}{bucket}").parse().map_err(|_| Problem::no_such_bucket(name_of(bucket)))?;
        let mut uploads = BTreeSet::new();
        let mut options = ListOptions::default();
        loop {
            let page = match self.store.list(&folder, &options) {
                Err(Error::Refused(Refusal::NotFound)) => return Ok(uploads),
                page => page.map_err(|error| Problem::of("the uploads", &error))?,
            };
            for Listed { name, stat } in page.entries {
                let (attributes, id) = (&stat.details.attributes, name.trim_end_matches('/'));
                let begun_ms = attributes.get(BEGUN).and_then(|text| text.parse().ok()).unwrap_or(0);
                if let Some(key) = attributes.get(KEY).filter(|key| is_wanted(key, id)) {
                    uploads.insert((key.clone(), id.to_owned(), begun_ms));
                }
                if uploads.len() > most {
                    uploads.pop_last();
                }
            }
            match page.after {
                Some(after) => options.after = after,
                None => return Ok(uploads),
            }
        }
    }

    /// The upload that a request is about.
    fn upload_of(&self, call: &Call, place: &Place) -> Result<Upload, Problem> {
        let id = upload_id(call)?;
        let folder = folder(place, id)?;
        let mut details = match self.store.stat(&folder) {
            Ok(stat) => stat.details,
            Err(Error::Refused(Refusal::NotFound)) => return Err(no_such_upload(id)),
            Err(error) => return Err(Problem::of(&place.name(), &error)),
        };
        // Rights are those of the key, so an upload is reached by its own key only.
        if details.attributes.get(KEY) != Some(&place.key) {
            return Err(no_such_upload(id));
        }
        let algorithm = details.attributes.get(ALGORITHM).and_then(|name| Algorithm::of_name(name));
        let is_of_whole = details.attributes.get(TYPE).is_some_and(|kind| kind == "FULL_OBJECT");
        details.attributes.retain(|name, _| !name.starts_with(OWN));
        Ok(Upload { id: id.to_owned(), folder, details, algorithm, is_of_whole })
    }

    /// The parts behind a number that were sent, in order.
    fn parts(&self, upload: &Upload, behind: usize) -> Result<Vec<Part>, Problem> {
        let after = if behind > 0 { format!("{behind:05}") } else { String::new() };
        let entries = match self.all_entries(&upload.folder, after) {
            Err(problem) if problem.code == "NoSuchKey" => return Err(no_such_upload(&upload.id)),
            entries => entries?,
        };
        let part = |(name, stat): (String, Stat)| {
            let number = name.parse().ok()?;
            Some(Part { number, path: upload.part(number), stat })
        };
        Ok(entries.into_iter().filter_map(part).collect())
    }

    /// All entries of a folder; none if there is no such folder.
    fn all_entries(&self, folder: &Path, after: String) -> Result<Vec<(String, Stat)>, Problem> {
        let mut entries = Vec::new();
        let mut options = ListOptions { after, ..ListOptions::default() };
        loop {
            let page = match self.store.list(folder, &options) {
                Err(Error::Refused(Refusal::NotFound)) => return Ok(entries),
                page => page.map_err(|error| Problem::of("the uploads", &error))?,
            };
            entries.extend(page.entries.into_iter().map(|entry| (entry.name, entry.stat)));
            match page.after {
                Some(after) => options.after = after,
                None => return Ok(entries),
            }
        }
    }
}

impl Upload {
    /// Where a part is.
    fn part(&self, number: usize) -> Path {
        self.folder.join(&format!("{number:05}")).expect("digits are a name")
    }

    /// The checksum of an object of these parts; `None` if a part has none.
    fn checksum(&self, algorithm: Algorithm, parts: &[Part]) -> Option<String> {
        let of_parts: Option<Vec<_>> = parts.iter().map(|part| checksum_of_part(&part.stat, algorithm)).collect();
        let of_parts = of_parts?;
        if self.is_of_whole {
            let lengths = parts.iter().map(|part| size(&part.stat));
            algorithm.of_whole(&of_parts.into_iter().zip(lengths).collect::<Vec<_>>())
        } else {
            algorithm.of_parts(&of_parts)
        }
    }
}

/// A file's content as a part's.
struct InPieces<'a> {
    content: Box<dyn Content + Send + 'a>,
    /// What is still to come.
    range: std::ops::Range<u64>,
    piece: Vec<u8>,
    /// How much of the piece was read.
    read: usize,
}

impl Read for InPieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        const PIECE: u64 = 4 << 20;
        if self.read == self.piece.len() {
            let end = self.range.end.min(self.range.start + PIECE);
            self.piece.clear();
            self.read = 0;
            let copied = self.content.copy_to(self.range.start..end, &mut self.piece);
            copied.map_err(|error| io::Error::other(error.to_string()))?;
            self.range.start = end;
        }
        let bytes = &self.piece[self.read..];
        let length = bytes.len().min(buffer.len());
        buffer[..length].copy_from_slice(&bytes[..length]);
        self.read += length;
        Ok(length)
    }
}

/// Where an upload is. An id is never anything but hexadecimal digits: it is a part of a path.
fn folder(place: &Place, id: &str) -> Result<Path, Problem> {
    let is_one = unhex::<16>(id).is_some_and(|bytes| hex(&bytes) == id);
    let folder = format!("{UPLOADS}{}/{id}", place.bucket).parse().ok().filter(|_| is_one);
    folder.ok_or_else(|| no_such_upload(id))
}

fn upload_id(call: &Call) -> Result<&str, Problem> {
    call.query.get("uploadId").ok_or_else(|| no_such_upload(""))
}

fn part_number(call: &Call) -> Result<usize, Problem> {
    let number = call.query.number("partNumber", MOST_PARTS + 1)?.filter(|number| (1..=MOST_PARTS).contains(number));
    number.ok_or_else(|| Problem::bad("InvalidArgument", format!("partNumber is a number from 1 to {MOST_PARTS}")))
}

/// What a document says of the parts to put together.
fn named_parts(document: &Element) -> Result<Vec<NamedPart<'_>>, Problem> {
    let part = |element| -> Option<NamedPart<'_>> {
        let element: &Element = element;
        let number = element.child("PartNumber")?.trim().parse().ok()?;
        Some(NamedPart { number, etag: element.child("ETag")?.trim().trim_matches('"'), element })
    };
    let parts: Option<Vec<_>> = document.all("Part").map(part).collect();
    let malformed = || {
        let message = "expected <CompleteMultipartUpload> with <Part>s, each with <PartNumber> and <ETag>";
        Problem::bad("MalformedXML", message)
    };
    parts.filter(|parts| (1..=MOST_PARTS).contains(&parts.len())).ok_or_else(malformed)
}

/// The checksum of a part: the client's, or the store's own.
fn checksum_of_part(stat: &Stat, algorithm: Algorithm) -> Option<String> {
    let Kind::File { checksum, .. } = stat.kind else { return None };
    if algorithm == Algorithm::Crc64Nvme {
        return Some(algorithm.of_number(checksum.0));
    }
    stat.details.digests.get(algorithm.digest()).filter(|text| algorithm.is_one(text)).cloned()
}

/// The ETag of an object of these parts: the MD5 of their MD5s, and how many they are.
fn etag_of_parts(parts: &[Part]) -> String {
    let mut md5 = Md5::new();
    for part in parts {
        let etag = etag(&part.stat);
        // A copy of what has no MD5 has another ETag, which does as well.
        match unhex::<16>(&etag) {
            Some(bytes) => md5.update(bytes),
            None => md5.update(etag.as_bytes()),
        }
    }
    format!("{}-{}", hex(&md5.finalize()), parts.len())
}

fn no_such_upload(id: &str) -> Problem {
    let message = format!("{id}: there is no such upload of this key: it was completed, aborted, or has expired");
    Problem::new(StatusCode::NOT_FOUND, "NoSuchUpload", message)
}

fn invalid_part(message: &str) -> Problem {
    Problem::bad("InvalidPart", message)
}

/// A part that has no folder to be in: the upload has ended since it was looked at.
fn ended_meanwhile(problem: Problem, id: &str) -> Problem {
    if problem.code == "NoSuchKey" { no_such_upload(id) } else { problem }
}
