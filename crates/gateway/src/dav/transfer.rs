//! MKCOL, COPY and MOVE. (RFC 4918, sections 9.3, 9.8 and 9.9)

use depot::client::{CopyOptions, Error, MoveOptions};
use depot::namespace::change::{Condition, Details, Refusal, RemovalExtent};
use depot::namespace::listing::{Kind as StatKind, Stat};
use hyper::{Response, StatusCode, Uri};

use super::{Depth, invalid};
use crate::access::Right;
use crate::http::{Conditions, Exchange, Http, Problem, Target, Verdict, changed, host, no_parent};
use crate::locks::Touched;

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Copy,
    Move,
}

impl Http {
    pub(super) fn make_collection(&self, exchange: &mut Exchange, target: &Target) -> Result<(), Problem> {
        exchange.caller.check(Right::Write, &target.path)?;
        if exchange.body.length() != Some(0) {
            let message = "MKCOL makes an empty folder: it has no body";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "no-body-expected", message));
        }
        let is_there = || {
            let message = format!("{}: it is there already", target.path);
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "already-exists", message)
        };
        // The store would make a folder explicit that came to be with a file in it. For this client there is nothing to make.
        if self.look(target)?.is_some() {
            return Err(is_there());
        }
        let touched = vec![Touched::Entry(target.path.clone())];
        let _admitted = self.locks.admit(&exchange.head.headers, &exchange.caller, &target.path, touched)?;
        match self.store.make_directory(&target.path, false, &Details::default(), None) {
            Ok(_) => {
                exchange.send(StatusCode::CREATED, Response::builder(), "");
                Ok(())
            }
            Err(Error::Refused(Refusal::AlreadyExists)) => Err(is_there()),
            Err(Error::Refused(Refusal::NotFound)) => Err(no_parent(target)),
            Err(error) => Err(Problem::of(target.path.as_str(), &error)),
        }
    }

    pub(super) fn transfer(&self, exchange: &mut Exchange, source: &Target, kind: Kind) -> Result<(), Problem> {
        let of_source = if kind == Kind::Copy { Right::Read } else { Right::Write };
        exchange.caller.check(of_source, &source.path)?;
        let to = destination(exchange)?;
        exchange.caller.check(Right::Write, &to.path)?;
        let (from, to_path) = (&source.path, &to.path);
        let may_replace = match exchange.head.headers.get("overwrite").map(|value| value.as_bytes()) {
            None | Some(b"T" | b"t") => true,
            Some(b"F" | b"f") => false,
            Some(_) => return Err(invalid("Overwrite: expected T or F")),
        };
        let depth = Depth::of(exchange)?;
        let stat = self.store.stat(from).map_err(|error| Problem::of(from.as_str(), &error))?;
        let is_folder = matches!(stat.kind, StatKind::Directory { .. });
        match (kind, depth) {
            _ if !is_folder => {}
            (_, Depth::Infinity) | (Kind::Copy, Depth::Zero) => {}
            (Kind::Copy, _) => return Err(invalid("Depth: a folder is copied with 0 or infinity")),
            (Kind::Move, _) => return Err(invalid("Depth: a folder is moved with infinity")),
        }
        if to_path == from || (is_folder && to_path.is_within(from)) || from.is_within(to_path) {
            let message = format!("{from} to {to_path}: neither can be, or be within, the other");
            return Err(Problem::new(StatusCode::FORBIDDEN, "within-itself", message));
        }
        let conditions = Conditions::of(&exchange.head.headers)?;
        if conditions.judge(Some(&stat), false) != Verdict::Holds {
            return Err(changed(source));
        }
        let there = self.look(&to)?;
        let mut touched = vec![match &there {
            None => Touched::Entry(to_path.clone()),
            Some(Stat { kind: StatKind::File { .. }, .. }) => Touched::Itself(to_path.clone()),
            Some(_) => Touched::Tree(to_path.clone()),
        }];
        if kind == Kind::Move {
            touched.push(Touched::Tree(from.clone()));
        }
        let admission = self.locks.admit(&exchange.head.headers, &exchange.caller, from, touched)?;
        let options = MoveOptions {
            from_condition: conditions.to_insist_on(Some(&stat)),
            replace: may_replace,
            ..MoveOptions::default()
        };
        let done = match kind {
            Kind::Move => self.store.rename(from, to_path, &options),
            Kind::Copy if is_folder && depth == Depth::Zero => {
                if may_replace {
                    self.clear(&to, there.as_ref())?;
                }
                self.store.make_directory(to_path, false, &stat.details, None)
            }
            Kind::Copy => self.store.copy(from, to_path, &CopyOptions { placing: options, details: None }),
        };
        done.map_err(|error| match error {
            Error::Refused(Refusal::NotFound) => no_parent(&to),
            Error::Refused(Refusal::AlreadyExists) => exists(&to),
            Error::Refused(Refusal::TooLarge) if is_folder => {
                let message = format!("{from}: a folder with so many files is not copied at once: copy what is in it");
                Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message)
            }
            error => Problem::of(&format!("{from} to {to_path}"), &error),
        })?;
        // A lock stays where it is: on the path of what is replaced, not with what moves.
        admission.release_where(|locked| {
            kind == Kind::Move && locked.is_within(from) || locked.is_within(to_path) && locked != to_path
        });
        let status = if there.is_none() { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
        exchange.send(status, Response::builder(), "");
        Ok(())
    }

    /// Removes what is in the way of a folder that comes without its members.
    fn clear(&self, to: &Target, there: Option<&Stat>) -> Result<(), Problem> {
        let removed = match there.map(|stat| stat.kind) {
            None => return Ok(()),
            Some(StatKind::File { .. }) => self.store.remove(&to.path, Condition::Any),
            Some(StatKind::Directory { .. }) => {
                self.store.remove_directory(&to.path, Condition::Any, RemovalExtent::Tree)
            }
        };
        removed.map(drop).map_err(|error| Problem::of(to.path.as_str(), &error))
    }
}

fn exists(to: &Target) -> Problem {
    let message = format!("{}: it is there already, and Overwrite is F", to.path);
    Problem::new(StatusCode::PRECONDITION_FAILED, "already-exists", message)
}

/// Where something is to be copied or moved to: on this server.
fn destination(exchange: &Exchange) -> Result<Target, Problem> {
    let text = exchange.head.headers.get("destination").and_then(|value| value.to_str().ok());
    let uri: Uri = text.and_then(|text| text.parse().ok()).ok_or_else(|| invalid("Destination: expected a URL"))?;
    let place = |authority: &hyper::http::uri::Authority| {
        let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        (authority.host().to_ascii_lowercase(), authority.port_u16().unwrap_or(usual))
    };
    if let Some(there) = uri.authority()
        && host(&exchange.head)?.as_ref().map(place) != Some(place(there))
    {
        let message = format!("Destination: {there} is another server");
        return Err(Problem::new(StatusCode::BAD_GATEWAY, "other-server", message));
    }
    Target::of(&uri)
}
