//! What the page asks for, besides files and folders over plain HTTP. (docs/gateway.md)

use std::io::Read;
use std::time::{Duration, Instant};

use depot::client::{CopyOptions, Error, ListOptions, MoveOptions};
use depot::namespace::listing::Kind;
use depot::path::Path;
use hyper::header::HeaderName;
use hyper::{Method, Response, StatusCode, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Console;
use super::status::{copies_json, status_json};
use crate::access::{Caller, Right};
use crate::http::{Exchange, Problem, entry_json, is_reserved, query};
use crate::locks::{Admission, Touched};

/// What changes something is refused without this header. No form can send it; a script of another site is not allowed to.
pub(crate) const MARK: HeaderName = HeaderName::from_static("stevedore-console");

/// The largest body of a call.
const MOST_BYTES: u64 = 64 << 10;

/// The longest pattern of a search in bytes, as Controllers have it.
const LONGEST_PATTERN: usize = 256;

/// So long it counts what is below a folder. What it has until then is "at least".
const COUNTING: Duration = Duration::from_secs(2);

/// What is to be moved or copied, and where.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Transfer {
    from: String,
    to: String,
    /// What is at the target goes.
    #[serde(default)]
    replace: bool,
}

impl Console {
    /// Answers `/.stevedore/api/CALL`.
    pub(super) fn call(&self, exchange: &mut Exchange, call: &str) -> Result<(), Problem> {
        let answer = match (exchange.head.method.clone(), call) {
            (Method::GET, "events") => return self.tell_events(exchange),
            (Method::GET, "me") => me(&exchange.caller),
            (Method::GET, "status") => {
                exchange.caller.check(Right::Read, &Path::root())?;
                let status = self.store.status().map_err(|error| Problem::of("status", &error))?;
                status_json(&status)
            }
            (Method::GET, "statistics") => {
                exchange.caller.check(Right::Read, &Path::root())?;
                self.statistics.json(0)
            }
            (Method::GET, "find") => {
                let words = Words::of(exchange)?;
                self.find(&words, &readable(exchange, &words)?)?
            }
            (Method::GET, "count") => self.count(&readable(exchange, &Words::of(exchange)?)?)?,
            (Method::GET, "copies") => {
                let path = readable(exchange, &Words::of(exchange)?)?;
                copies_json(&self.store.copies(&path).map_err(about(&path))?)
            }
            (Method::POST, "rename") => {
                let (from, to, options) = transfer(exchange, Right::Write)?;
                let admission = self.admit(exchange, &from, &to, &options, true)?;
                let version = self.store.rename(&from, &to, &options).map_err(between(&from, &to))?;
                admission.release_where(|locked| locked.is_within(&from));
                json!({ "version": version.to_string() })
            }
            (Method::POST, "copy") => {
                let (from, to, placing) = transfer(exchange, Right::Read)?;
                let _admitted = self.admit(exchange, &from, &to, &placing, false)?;
                let options = CopyOptions { placing, ..CopyOptions::default() };
                let version = self.store.copy(&from, &to, &options).map_err(between(&from, &to))?;
                json!({ "version": version.to_string() })
            }
            (Method::GET, "users") => {
                exchange.caller.check(Right::Admin, &Path::root())?;
                self.users()?
            }
            (Method::POST, "users") => {
                exchange.caller.check(Right::Admin, &Path::root())?;
                self.change_users(exchange)?
            }
            (method, "users") => return Err(not_allowed(&method, "GET, POST")),
            (method, "me" | "status" | "events" | "statistics" | "find" | "count" | "copies") => {
                return Err(not_allowed(&method, "GET"));
            }
            (method, "rename" | "copy") => return Err(not_allowed(&method, "POST")),
            _ => {
                let message = format!("{}: the console's API has no such call", exchange.head.uri.path());
                return Err(Problem::new(StatusCode::NOT_FOUND, "not-found", message));
            }
        };
        let head = Response::builder()
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CACHE_CONTROL, "no-store")
            .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        exchange.send(StatusCode::OK, head, format!("{answer}\n"));
        Ok(())
    }

    /// Refuses what locks of WebDAV's clients forbid.
    fn admit(
        &self,
        exchange: &Exchange,
        from: &Path,
        to: &Path,
        options: &MoveOptions,
        is_move: bool,
    ) -> Result<Admission<'_>, Problem> {
        let target = if options.replace { Touched::Tree(to.clone()) } else { Touched::Entry(to.clone()) };
        let source = is_move.then(|| Touched::Tree(from.clone()));
        let touched = source.into_iter().chain([target]).collect();
        self.locks.admit(&exchange.head.headers, &exchange.caller, from, touched)
    }

    fn find(&self, words: &Words, path: &Path) -> Result<Value, Problem> {
        let pattern = words.get("pattern").unwrap_or_default();
        if pattern.len() > LONGEST_PATTERN {
            let message = format!("a pattern has at most {LONGEST_PATTERN} bytes");
            return Err(Problem::new(StatusCode::BAD_REQUEST, "invalid-call", message));
        }
        let page = self.store.find(path, pattern, words.get("after").unwrap_or_default()).map_err(about(path))?;
        let entries: Vec<_> = page.entries.iter().map(entry_json).collect();
        Ok(json!({ "path": path.as_str(), "entries": entries, "after": page.after }))
    }

    /// What is below a folder: what goes when it is removed.
    fn count(&self, path: &Path) -> Result<Value, Problem> {
        let begun = Instant::now();
        let (mut files, mut folders, mut bytes) = (0_u64, 0_u64, 0_u64);
        let mut options = ListOptions { is_recursive: true, ..ListOptions::default() };
        let is_whole = loop {
            let page = self.store.list(path, &options).map_err(about(path))?;
            for entry in &page.entries {
                match entry.stat.kind {
                    Kind::File { size, .. } => {
                        files += 1;
                        bytes += size;
                    }
                    Kind::Directory { .. } => folders += 1,
                }
            }
            match page.after {
                None => break true,
                Some(_) if begun.elapsed() >= COUNTING => break false,
                Some(after) => options.after = after,
            }
        };
        Ok(json!({ "path": path.as_str(), "files": files, "folders": folders, "bytes": bytes, "is_whole": is_whole }))
    }
}

/// What a call's query says.
struct Words(Vec<(String, String)>);

impl Words {
    fn of(exchange: &Exchange) -> Result<Self, Problem> {
        query(&exchange.head.uri).map(Self)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(there, _)| there == name).map(|(_, value)| value.as_str())
    }
}

/// The path that a call is about, if the caller may read it.
fn readable(exchange: &Exchange, words: &Words) -> Result<Path, Problem> {
    let path = path(words.get("path").unwrap_or("/"))?;
    exchange.caller.check(Right::Read, &path)?;
    Ok(path)
}

/// The caller's name and rights.
fn me(caller: &Caller) -> Value {
    let rights: Vec<_> = match caller {
        Caller::User(user) => user.rights.iter().map(|(path, right)| (path.to_string(), right.to_string())).collect(),
        Caller::Anyone => vec![("/".to_owned(), Right::Write.to_string())],
        Caller::Stranger => Vec::new(),
    };
    let rights = rights.into_iter().map(|(path, right)| json!({ "path": path, "right": right }));
    json!({ "name": caller.name(), "rights": rights.collect::<Vec<_>>() })
}

/// A path that is not the store's own.
pub(super) fn path(text: &str) -> Result<Path, Problem> {
    let bad =
        |why: &dyn std::fmt::Display| Problem::new(StatusCode::BAD_REQUEST, "invalid-path", format!("{text}: {why}"));
    let path: Path = text.parse().map_err(|error| bad(&error))?;
    if is_reserved(&path) {
        let message = format!("/{}/ is the store's own: nothing there can be read or changed", crate::http::RESERVED);
        return Err(Problem::new(StatusCode::FORBIDDEN, "reserved", message));
    }
    Ok(path)
}

/// What a call that changes something asks for, if it comes from the page.
pub(super) fn body<T: DeserializeOwned>(exchange: &mut Exchange) -> Result<T, Problem> {
    if !exchange.head.headers.contains_key(&MARK) {
        let message = format!("what changes something needs the header {MARK}: no page of another site can send it");
        return Err(Problem::new(StatusCode::FORBIDDEN, "unmarked", message));
    }
    let mut body = Vec::new();
    let read = (&mut exchange.body).take(MOST_BYTES + 1).read_to_end(&mut body);
    read.map_err(|error| Problem::of("the body", &Error::Source(error)))?;
    if body.len() as u64 > MOST_BYTES {
        let message = format!("a call's body has at most {MOST_BYTES} bytes");
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message));
    }
    let bad =
        |error: serde_json::Error| Problem::new(StatusCode::BAD_REQUEST, "invalid-call", format!("the body: {error}"));
    serde_json::from_slice(&body).map_err(bad)
}

/// What a call that moves or copies asks for, if the caller has this right for the source and may write the target.
fn transfer(exchange: &mut Exchange, of_source: Right) -> Result<(Path, Path, MoveOptions), Problem> {
    let Transfer { from, to, replace } = body(exchange)?;
    let (from, to) = (path(&from)?, path(&to)?);
    exchange.caller.check(of_source, &from)?;
    exchange.caller.check(Right::Write, &to)?;
    Ok((from, to, MoveOptions { replace, ..MoveOptions::default() }))
}

fn not_allowed(method: &Method, allowed: &str) -> Problem {
    let message = format!("{method} is not known here: {allowed} is");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", message).with(header::ALLOW, allowed)
}

fn about(path: &Path) -> impl Fn(Error) -> Problem {
    move |error| Problem::of(path.as_str(), &error)
}

/// Which of the two the store means it does not say.
fn between(from: &Path, to: &Path) -> impl Fn(Error) -> Problem {
    move |error| Problem::of(&format!("{from} to {to}"), &error)
}
