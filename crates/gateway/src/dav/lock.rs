//! LOCK and UNLOCK. (RFC 4918, sections 9.10 and 9.11)

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use depot::client::{Error, PutOptions, Source};
use depot::namespace::change::{Condition, Refusal};
use hyper::{Response, StatusCode, header};

use super::properties::XML_TYPE;
use super::xml::{self, Element};
use super::{Depth, invalid};
use crate::access::Right;
use crate::http::{Exchange, Http, Problem, Target, href, no_parent};
use crate::locks::{Lock, NotGranted, Touched, Wanted};

/// How long a lock lasts if its client does not say.
const USUAL: Duration = Duration::from_secs(3600);

/// The longest that a lock lasts without being extended.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The longest description of an owner in bytes.
const LONGEST_OWNER: usize = 2 << 10;

impl Http {
    pub(super) fn lock(&self, exchange: &mut Exchange, target: &Target) -> Result<(), Problem> {
        exchange.caller.check(Right::Write, &target.path)?;
        let timeout = timeout(exchange);
        let Some(body) = xml::read(&mut exchange.body)? else { return self.extend(exchange, target, timeout) };
        let is_deep = match Depth::of(exchange)? {
            Depth::Zero => false,
            Depth::Infinity => true,
            Depth::One => return Err(invalid("Depth: a lock has 0 or infinity")),
        };
        let wanted = wanted(&body, exchange, target, is_deep, timeout)?;
        let is_new = self.look(target)?.is_none();
        let touched = if is_new { vec![Touched::Entry(target.path.clone())] } else { Vec::new() };
        let _admitted = self.locks.admit(&exchange.head.headers, &exchange.caller, &target.path, touched)?;
        let lock = self.locks.grant(&wanted).map_err(|refused| not_granted(target, refused))?;
        let mut status = StatusCode::OK;
        if is_new {
            match self.make_empty(target) {
                Ok(true) => status = StatusCode::CREATED,
                Ok(false) => {}
                Err(problem) => {
                    let _ = self.locks.release(&lock.token); // it ends by itself if this fails
                    return Err(problem);
                }
            }
        }
        let head = Response::builder().header("Lock-Token", format!("<{}>", lock.uri()));
        answer(exchange, status, head, &lock);
        Ok(())
    }

    /// Makes an empty file, for what is locked before it is there; false if it is there by now.
    fn make_empty(&self, target: &Target) -> Result<bool, Problem> {
        let options = PutOptions { condition: Condition::Absent, ..PutOptions::default() };
        match self.store.put(&target.path, Source::Once(&mut std::io::empty()), &options) {
            Ok(_) => Ok(true),
            Err(Error::Refused(Refusal::AlreadyExists)) => Ok(false),
            Err(Error::Refused(Refusal::NotFound)) => Err(no_parent(target)),
            Err(error) => Err(Problem::of(target.path.as_str(), &error)),
        }
    }

    /// Has a lock that `If` names last longer.
    fn extend(&self, exchange: &mut Exchange, target: &Target, timeout: Duration) -> Result<(), Problem> {
        let admission = self.locks.admit(&exchange.head.headers, &exchange.caller, &target.path, Vec::new())?;
        let lock = admission.named(&target.path)?.ok_or_else(|| {
            let message = format!("{}: If names no lock of this user there", target.path);
            let problem = Problem::new(StatusCode::PRECONDITION_FAILED, "no-such-lock", message);
            problem.with_precondition("lock-token-matches-request-uri", Vec::new())
        })?;
        let lock = self.locks.extend(&lock, timeout).map_err(|error| Problem::of("the lock", &error))?;
        answer(exchange, StatusCode::OK, Response::builder(), &lock);
        Ok(())
    }

    pub(super) fn unlock(&self, exchange: &mut Exchange, target: &Target) -> Result<(), Problem> {
        exchange.caller.check(Right::Write, &target.path)?;
        let token = exchange.head.headers.get("lock-token").and_then(|value| value.to_str().ok());
        let token = token.and_then(|token| token.trim().strip_prefix('<')?.strip_suffix('>'));
        let token = token.ok_or_else(|| invalid("Lock-Token: expected <token>"))?;
        let all = self.locks.all().map_err(|error| Problem::of("the locks", &error))?;
        let Some(lock) = all.iter().find(|lock| lock.uri() == token && lock.covers(&target.path)) else {
            let message = format!("{}: there is no such lock, or no more", target.path);
            let problem = Problem::new(StatusCode::CONFLICT, "no-such-lock", message);
            return Err(problem.with_precondition("lock-token-matches-request-uri", Vec::new()));
        };
        if lock.user != exchange.caller.name() {
            exchange.caller.check(Right::Admin, &lock.path)?;
        }
        self.locks.release(&lock.token).map_err(|error| Problem::of("the lock", &error))?;
        exchange.send(StatusCode::NO_CONTENT, Response::builder(), "");
        Ok(())
    }
}

/// What the body of a LOCK asks for.
fn wanted(
    body: &Element,
    exchange: &Exchange,
    target: &Target,
    is_deep: bool,
    timeout: Duration,
) -> Result<Wanted, Problem> {
    let is_lock = body.name.as_dav() == Some("lockinfo");
    let scope = body.child("lockscope").filter(|_| is_lock);
    let is_shared = match scope {
        Some(scope) if scope.child("exclusive").is_some() => false,
        Some(scope) if scope.child("shared").is_some() => true,
        _ => return Err(invalid("the body: expected a lockinfo, with a lockscope that is exclusive or shared")),
    };
    if body.child("locktype").is_none_or(|kind| kind.child("write").is_none()) {
        return Err(invalid("the body: expected a locktype that is write"));
    }
    let owner = body.child("owner").map(Element::to_xml).unwrap_or_default();
    if owner.len() > LONGEST_OWNER {
        let message = format!("the owner of a lock is described in {LONGEST_OWNER} bytes at most");
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message));
    }
    let (path, user) = (target.path.clone(), exchange.caller.name().to_owned());
    Ok(Wanted { path, is_deep, is_shared, user, owner, timeout })
}

/// How long the lock is to last: the first wish that is understood counts.
fn timeout(exchange: &Exchange) -> Duration {
    let wishes = exchange.head.headers.get("timeout").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let wish = |wish: &str| match wish.trim() {
        "Infinite" => Some(LONGEST),
        wish => wish.strip_prefix("Second-")?.parse().ok().map(Duration::from_secs),
    };
    wishes.split(',').find_map(wish).unwrap_or(USUAL).clamp(Duration::from_secs(1), LONGEST)
}

fn not_granted(target: &Target, refused: NotGranted) -> Problem {
    match refused {
        NotGranted::Conflict(lock) => {
            let message = format!("{}: {} has locked {}", target.path, lock.user, lock.path);
            let problem = Problem::new(StatusCode::LOCKED, "locked", message);
            problem.with_precondition("no-conflicting-lock", vec![href(&lock.path, false)])
        }
        NotGranted::TooMany => {
            let message = "there are as many locks as there may be: try again soon";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-locks", message)
        }
        NotGranted::Store(error) => Problem::of(target.path.as_str(), &error),
    }
}

fn answer(exchange: &mut Exchange, status: StatusCode, head: hyper::http::response::Builder, lock: &Lock) {
    let xml = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n\
         <D:prop xmlns:D=\"DAV:\"><D:lockdiscovery>{}</D:lockdiscovery></D:prop>\n",
        active(lock)
    );
    exchange.send(status, head.header(header::CONTENT_TYPE, XML_TYPE), xml);
}

/// A lock, as `lockdiscovery` shows it.
pub(super) fn active(lock: &Lock) -> String {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    format!(
        "<D:activelock><D:locktype><D:write/></D:locktype><D:lockscope><D:{scope}/></D:lockscope><D:depth>{depth}</D:depth>\
         {owner}<D:timeout>Second-{seconds}</D:timeout><D:locktoken><D:href>{token}</D:href></D:locktoken>\
         <D:lockroot><D:href>{root}</D:href></D:lockroot></D:activelock>",
        scope = if lock.is_shared { "shared" } else { "exclusive" },
        depth = if lock.is_deep { "infinity" } else { "0" },
        owner = lock.owner,
        seconds = lock.expires_ms.saturating_sub(now_ms).div_ceil(1000),
        token = lock.uri(),
        root = href(&lock.path, false),
    )
}
