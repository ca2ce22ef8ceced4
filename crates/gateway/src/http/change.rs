//! PUT, POST, DELETE.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::time::Duration;

use depot::client::{Error, PutOptions, Source};
use depot::namespace::change::{Details, MOST_OBJECTS, Refusal, RemovalExtent};
use depot::namespace::listing::{Kind, Stat};
use depot::path::Path;
use hyper::{Method, Response, StatusCode, header};

use super::budget::Share;
use super::conditions::{Conditions, Verdict};
use super::problem::Problem;
use super::read::changed;
use super::target::Target;
use super::{Exchange, Http};
use crate::access::Right;
use crate::console::Statistics;
use crate::locks::{Admission, Touched};
use crate::server::Body;

/// The store keeps so much of an upload in memory, and no more.
pub(crate) const CHUNK: u64 = 8 << 20;

/// No file is larger than this.
const MOST_BYTES: u64 = CHUNK * MOST_OBJECTS as u64;

/// How long an upload waits for memory.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// The longest content type that is kept.
const LONGEST_TYPE: usize = 256;

impl Http {
    /// Creates or replaces a file, or makes a folder.
    pub(super) fn put(&self, exchange: &mut Exchange, target: &Target) -> Result<(), Problem> {
        let name = target.path.as_str();
        refuse_parts(exchange)?;
        let current = self.look(target)?;
        let conditions = Conditions::of(&exchange.head.headers)?;
        if conditions.judge(current.as_ref(), false) != Verdict::Holds {
            return Err(changed(target));
        }
        if target.is_folder {
            return self.make_folder(exchange, target, current.as_ref());
        }
        if matches!(current, Some(Stat { kind: Kind::Directory { .. }, .. })) {
            return Err(Problem::of(name, &Error::Refused(Refusal::IsADirectory)));
        }
        // A PUT without a folder to put into is refused, unless it says otherwise. (RFC 4918, section 9.7.1)
        let parents = target.option("parents").is_some() || exchange.head.method == Method::POST;
        let mut touched = vec![Touched::Itself(target.path.clone())];
        if current.is_none() {
            touched.push(Touched::Entry(self.find_parents(exchange, target, parents)?));
        }
        let admission = self.locks.admit(&exchange.head.headers, &exchange.caller, &target.path, touched)?;
        if exchange.body.length().is_some_and(|length| length > MOST_BYTES) {
            let message = format!("{name}: a file has at most {MOST_BYTES} bytes");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message));
        }
        let condition = conditions.to_insist_on(current.as_ref());
        let details = details_of(exchange, current.as_ref());
        let options = PutOptions { condition, parents, details, ..PutOptions::default() };
        // A client that waits to be told to send its body is told what speaks against it: also that there is no room.
        if exchange.head.headers.contains_key(header::EXPECT) {
            self.store.check_put(&target.path, &options).map_err(|error| not_put(target, error))?;
        }
        let share = self.uploads.share();
        let mut body = Metered {
            body: &mut exchange.body,
            share,
            kept: 0,
            statistics: &self.console.statistics,
            admission: &admission,
            forbidden: None,
        };
        let put = self.store.put(&target.path, Source::Once(&mut body), &options);
        let forbidden = body.forbidden.take();
        drop(body);
        let version = match put {
            Ok(version) => version,
            Err(Error::Source(_)) if let Some(problem) = forbidden => return Err(problem),
            Err(Error::Source(error)) if error.kind() == io::ErrorKind::OutOfMemory => {
                let message = format!("{name}: {error}; try again soon");
                return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-uploads", message));
            }
            Err(error) => return Err(not_put(target, error)),
        };
        let status = if current.is_none() { StatusCode::CREATED } else { StatusCode::OK };
        exchange.send(status, Response::builder().header(header::ETAG, format!("\"{version}\"")), "");
        Ok(())
    }

    fn make_folder(&self, exchange: &mut Exchange, target: &Target, current: Option<&Stat>) -> Result<(), Problem> {
        let name = target.folder_name();
        if exchange.body.length() != Some(0) {
            let message = format!("{name} is a folder, which has no content: a file's path has no / at its end");
            return Err(Problem::new(StatusCode::CONFLICT, "is-a-folder", message));
        }
        match current.map(|stat| stat.kind) {
            Some(Kind::Directory { .. }) => {
                exchange.send(StatusCode::NO_CONTENT, Response::builder(), "");
                Ok(())
            }
            Some(Kind::File { .. }) => Err(Problem::of(&name, &Error::Refused(Refusal::NotADirectory))),
            None => {
                let parents = target.option("parents").is_some();
                let touched = vec![Touched::Entry(self.find_parents(exchange, target, parents)?)];
                let _admitted = self.locks.admit(&exchange.head.headers, &exchange.caller, &target.path, touched)?;
                match self.store.make_directory(&target.path, parents, &Details::default(), None) {
                    Err(Error::Refused(Refusal::NotFound)) => return Err(no_parent(target)),
                    made => made.map_err(|error| Problem::of(&name, &error))?,
                };
                exchange.send(StatusCode::CREATED, Response::builder(), "");
                Ok(())
            }
        }
    }

    /// Removes a file, or a folder with all that is in it.
    pub(super) fn delete(&self, exchange: &mut Exchange, target: &Target) -> Result<(), Problem> {
        let name = target.path.as_str();
        if target.path.is_root() {
            let message = "the root stays: delete what is in it, or use stevedore format";
            return Err(Problem::new(StatusCode::FORBIDDEN, "is-the-root", message));
        }
        let current = self.look(target)?;
        let conditions = Conditions::of(&exchange.head.headers)?;
        if conditions.judge(current.as_ref(), false) != Verdict::Holds {
            return Err(changed(target));
        }
        let condition = conditions.to_insist_on(current.as_ref());
        let touched = vec![Touched::Tree(target.path.clone())];
        let admission = self.locks.admit(&exchange.head.headers, &exchange.caller, &target.path, touched)?;
        let removed = match (current.map(|stat| stat.kind), target.is_folder) {
            (None, _) | (Some(Kind::File { .. }), true) => Err(Error::Refused(Refusal::NotFound)),
            (Some(Kind::File { .. }), false) => self.store.remove(&target.path, condition),
            (Some(Kind::Directory { .. }), _) => {
                self.store.remove_directory(&target.path, condition, RemovalExtent::Tree)
            }
        };
        removed.map_err(|error| Problem::of(name, &error))?;
        admission.release_where(|locked| locked.is_within(&target.path));
        exchange.send(StatusCode::NO_CONTENT, Response::builder(), "");
        Ok(())
    }

    /// What is at the path, if anything is.
    pub(crate) fn look(&self, target: &Target) -> Result<Option<Stat>, Problem> {
        match self.store.stat(&target.path) {
            Ok(stat) => Ok(Some(stat)),
            Err(Error::Refused(Refusal::NotFound)) => Ok(None),
            Err(error) => Err(Problem::of(target.path.as_str(), &error)),
        }
    }

    /// Refuses what has no folder to be in, unless those that are missing are to be made, and the caller may: a client is told
    /// before it sends its body. The highest path that comes to be is returned.
    fn find_parents(&self, exchange: &Exchange, target: &Target, are_made: bool) -> Result<Path, Problem> {
        let mut path = target.path.clone();
        while let Some((parent, _)) = path.split_last() {
            match self.store.stat(&parent) {
                Ok(_) => break,
                Err(Error::Refused(Refusal::NotFound)) if !are_made => return Err(no_parent(target)),
                Err(Error::Refused(Refusal::NotFound)) => exchange.caller.check(Right::Write, &parent)?,
                Err(error) => return Err(Problem::of(parent.as_str(), &error)),
            }
            path = parent;
        }
        Ok(path)
    }
}

/// There is no folder for what is to be made.
pub(crate) fn no_parent(target: &Target) -> Problem {
    let parent = target.path.split_last().map_or_else(String::new, |(parent, _)| parent.to_string());
    let message =
        format!("{}: there is no folder {parent}: PUT {parent}/ makes it, or ?parents behind this path", target.path);
    Problem::new(StatusCode::CONFLICT, "no-parent", message)
}

/// Refuses bodies that are not simply the content.
fn refuse_parts(exchange: &Exchange) -> Result<(), Problem> {
    if exchange.head.headers.contains_key(header::CONTENT_RANGE) {
        let message = "a file is sent whole: Content-Range is for answers";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "partial-content", message));
    }
    let encoding = exchange.header(header::CONTENT_ENCODING).unwrap_or("identity");
    if !encoding.eq_ignore_ascii_case("identity") {
        let message = format!("content is kept as it is, and sent without Content-Encoding; {encoding} was said");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "encoded", message));
    }
    if kind(exchange) == "multipart/form-data" {
        let message = "a form is not understood: the body is the file's content, as curl -T sends it";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "form", message));
    }
    Ok(())
}

/// Why a file is not put that nothing spoke against a moment ago.
fn not_put(target: &Target, error: Error) -> Problem {
    match error {
        Error::Refused(Refusal::AlreadyExists) => changed(target),
        Error::Refused(Refusal::NotFound) => no_parent(target),
        error => Problem::of(target.path.as_str(), &error),
    }
}

/// What the new content is kept with. What a file carries stays, but for what is of its content: the type, which is this
/// request's, and the digests.
fn details_of(exchange: &Exchange, current: Option<&Stat>) -> Details {
    let before = current.map(|stat| stat.details.clone()).unwrap_or_default();
    Details { content_type: content_type(exchange), digests: BTreeMap::new(), ..before }
}

/// What is kept as the file's type. curl says of all that it posts that it is a form, which it then is not.
fn content_type(exchange: &Exchange) -> String {
    if kind(exchange) == "application/x-www-form-urlencoded" {
        return String::new();
    }
    let text = exchange.header(header::CONTENT_TYPE).unwrap_or_default();
    if text.len() > LONGEST_TYPE { String::new() } else { text.to_owned() }
}

/// What the client says the body is, without parameters.
fn kind(exchange: &Exchange) -> String {
    let text = exchange.header(header::CONTENT_TYPE).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// A body that takes from the budget what is kept of it in memory, and fails at its end if it is locked by then.
struct Metered<'a> {
    body: &'a mut Body,
    share: Share<'a>,
    kept: u64,
    statistics: &'a Statistics,
    admission: &'a Admission<'a>,
    /// Why it failed at its end.
    forbidden: Option<Problem>,
}

impl Read for Metered<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.body.read(buffer)?;
        if read == 0
            && !buffer.is_empty()
            && let Err(problem) = self.admission.renew()
        {
            self.forbidden = Some(problem);
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it was locked meanwhile"));
        }
        let more = (read as u64).min(CHUNK - self.kept);
        if !self.share.grow(more, PATIENCE) {
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, "too many uploads are under way"));
        }
        self.kept += more;
        self.statistics.received(read as u64);
        Ok(read)
    }
}
