//! PROPFIND and PROPPATCH. (RFC 4918, sections 9.1 and 9.2)

use std::collections::BTreeMap;
use std::io::Write;

use depot::client::{Error, ListOptions};
use depot::namespace::change::{Condition, Refusal};
use depot::namespace::listing::{Kind, Stat};
use depot::path::Path;
use hyper::{Response, StatusCode, header};

use super::xml::{self, Element, Name, text};
use super::{Depth, invalid, lock};
use crate::access::Right;
use crate::http::{Exchange, Http, Problem, Target, content_type_of, etag, href, last_modified};
use crate::locks::{Lock, Touched};

/// What is computed, and cannot be set.
const LIVE: [&str; 7] = [
    "getcontentlength",
    "getcontenttype",
    "getetag",
    "getlastmodified",
    "lockdiscovery",
    "resourcetype",
    "supportedlock",
];

/// What a client may set; until then it is the name.
const DISPLAY_NAME: &str = "displayname";

const LOCKS: &str = "lockdiscovery";

const SUPPORTED_LOCKS: &str = "\
<D:lockentry><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockentry>\
<D:lockentry><D:lockscope><D:shared/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockentry>";

const BEGIN: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:multistatus xmlns:D=\"DAV:\">\n";
const END: &str = "</D:multistatus>\n";

/// So many properties a client may ask for: each is answered for each member of a folder.
const MOST_NAMES: usize = 200;

/// So many bytes of an answer are kept before they are sent.
const PIECE: usize = 64 << 10;

/// Which properties a client asks for.
enum Wanted {
    /// All of them, with their values.
    All,
    /// The names of all.
    Names,
    These(Vec<Name>),
}

impl Wanted {
    fn of(body: Option<&Element>) -> Result<Self, Problem> {
        let Some(body) = body else { return Ok(Self::All) };
        if body.name.as_dav() != Some("propfind") {
            return Err(invalid("the body: expected a propfind"));
        }
        if let Some(prop) = body.child("prop") {
            let names: Vec<Name> = prop.children().map(|child| child.name.clone()).collect();
            if names.len() > MOST_NAMES {
                return Err(invalid(format!("at most {MOST_NAMES} properties are asked for at a time")));
            }
            Ok(Self::These(names))
        } else if body.child("propname").is_some() {
            Ok(Self::Names)
        } else if body.child("allprop").is_some() {
            Ok(Self::All)
        } else {
            Err(invalid("the body: expected prop, propname or allprop in a propfind"))
        }
    }

    fn has_locks(&self) -> bool {
        match self {
            Self::All => true,
            Self::Names => false,
            Self::These(names) => names.contains(&Name::dav(LOCKS)),
        }
    }
}

impl Http {
    pub(super) fn find_properties(&self, exchange: &mut Exchange, target: &Target) -> Result<(), Problem> {
        exchange.caller.check(Right::Read, &target.path)?;
        let depth = Depth::of(exchange)?;
        if depth == Depth::Infinity {
            let message = "a whole tree is not listed at once: ask with Depth: 1, folder by folder";
            let problem = Problem::new(StatusCode::FORBIDDEN, "finite-depth", message);
            return Err(problem.with_precondition("propfind-finite-depth", Vec::new()));
        }
        let wanted = Wanted::of(xml::read(&mut exchange.body)?.as_ref())?;
        let of_store = |error| Problem::of(target.path.as_str(), &error);
        let stat = self.store.stat(&target.path).map_err(of_store)?;
        let locks = if wanted.has_locks() { self.locks.all().map_err(of_store)? } else { Vec::new() };
        let mut xml = BEGIN.to_owned();
        xml.push_str(&response(&target.path, &stat, &wanted, &locks));
        let mut after = (depth == Depth::One && is_folder(&stat)).then(String::new);
        let mut answer = None;
        // The first page is there before the answer begins: then an error still has a status of its own.
        while let Some(place) = after.take() {
            let options = ListOptions { after: place, ..ListOptions::default() };
            let page = match self.store.list(&target.path, &options) {
                Ok(page) => page,
                Err(error) if answer.is_none() => return Err(of_store(error)),
                Err(error) => {
                    log::error!("{}: its listing is cut off, after a part of it was sent: {error}", target.path);
                    return Ok(());
                }
            };
            for entry in &page.entries {
                if let Ok(path) = target.path.join(entry.name.trim_end_matches('/')) {
                    xml.push_str(&response(&path, &entry.stat, &wanted, &locks));
                }
                if xml.len() < PIECE {
                    continue;
                }
                if answer.is_none() {
                    answer = exchange.begin(StatusCode::MULTI_STATUS, head(), None);
                }
                if answer.as_mut().is_none_or(|answer| answer.write_all(xml.as_bytes()).is_err()) {
                    return Ok(()); // the client has gone
                }
                xml.clear();
            }
            after = page.after;
        }
        xml.push_str(END);
        match answer {
            None => exchange.send(StatusCode::MULTI_STATUS, head(), xml),
            Some(mut answer) => {
                if answer.write_all(xml.as_bytes()).is_ok() {
                    answer.finish();
                }
            }
        }
        Ok(())
    }

    pub(super) fn set_properties(&self, exchange: &mut Exchange, target: &Target) -> Result<(), Problem> {
        exchange.caller.check(Right::Write, &target.path)?;
        let body = xml::read(&mut exchange.body)?;
        let changes = changes_of(body.as_ref())?;
        let stat = self.store.stat(&target.path).map_err(|error| Problem::of(target.path.as_str(), &error))?;
        let touched = vec![Touched::Itself(target.path.clone())];
        let _admitted = self.locks.admit(&exchange.head.headers, &exchange.caller, &target.path, touched)?;
        let refused = |name: &Name| name.as_dav().is_some_and(|local| LIVE.contains(&local));
        let failed = if changes.keys().any(refused) {
            Some(StatusCode::FORBIDDEN)
        } else {
            let attributes = changes.iter().map(|(name, value)| (attribute(name), value.clone())).collect();
            match self.store.set_attributes(&target.path, Condition::Any, &attributes, None, None) {
                Ok(_) => None,
                Err(Error::Refused(Refusal::TooLarge)) => Some(StatusCode::INSUFFICIENT_STORAGE),
                Err(error) => return Err(Problem::of(target.path.as_str(), &error)),
            }
        };
        let (mut with, mut without) = (String::new(), String::new());
        for name in changes.keys() {
            let is_cause = failed != Some(StatusCode::FORBIDDEN) || refused(name);
            if is_cause { &mut with } else { &mut without }.push_str(&name.around(""));
        }
        let why = if failed == Some(StatusCode::FORBIDDEN) {
            "<D:error><D:cannot-modify-protected-property/></D:error>"
        } else {
            ""
        };
        let mut xml = format!("{BEGIN}<D:response><D:href>{}</D:href>", href(&target.path, is_folder(&stat)));
        xml.push_str(&propstat(&with, failed.unwrap_or(StatusCode::OK), why));
        if !without.is_empty() {
            xml.push_str(&propstat(&without, StatusCode::FAILED_DEPENDENCY, ""));
        }
        xml.push_str("</D:response>\n");
        xml.push_str(END);
        exchange.send(StatusCode::MULTI_STATUS, head(), xml);
        Ok(())
    }
}

fn head() -> hyper::http::response::Builder {
    Response::builder().header(header::CONTENT_TYPE, XML_TYPE).header(header::CACHE_CONTROL, "no-cache")
}

/// What XML is sent as.
pub(super) const XML_TYPE: &str = "application/xml; charset=utf-8";

fn is_folder(stat: &Stat) -> bool {
    matches!(stat.kind, Kind::Directory { .. })
}

/// What is said of one file or folder.
fn response(path: &Path, stat: &Stat, wanted: &Wanted, locks: &[Lock]) -> String {
    let dead = || stat.details.attributes.iter().filter_map(|(key, value)| Some((property(key)?, value)));
    let (mut found, mut missing) = (String::new(), String::new());
    match wanted {
        Wanted::All | Wanted::Names => {
            let with_values = matches!(wanted, Wanted::All);
            for local in LIVE.into_iter().chain([DISPLAY_NAME]) {
                if let Some(value) = live(local, path, stat, locks) {
                    found.push_str(&Name::dav(local).around(if with_values { &value } else { "" }));
                }
            }
            for (name, value) in dead() {
                found.push_str(&if with_values { value.clone() } else { name.around("") });
            }
        }
        Wanted::These(names) => {
            for name in names {
                let is_live = name.as_dav().and_then(|local| live(local, path, stat, locks));
                match (is_live, stat.details.attributes.get(&attribute(name))) {
                    (Some(value), _) => found.push_str(&name.around(&value)),
                    (None, Some(value)) => found.push_str(value),
                    (None, None) => missing.push_str(&name.around("")),
                }
            }
        }
    }
    let mut xml = format!("<D:response><D:href>{}</D:href>", href(path, is_folder(stat)));
    if !found.is_empty() || missing.is_empty() {
        xml.push_str(&propstat(&found, StatusCode::OK, ""));
    }
    if !missing.is_empty() {
        xml.push_str(&propstat(&missing, StatusCode::NOT_FOUND, ""));
    }
    xml.push_str("</D:response>\n");
    xml
}

fn propstat(properties: &str, status: StatusCode, why: &str) -> String {
    let reason = status.canonical_reason().unwrap_or_default();
    let status = format!("HTTP/1.1 {} {reason}", status.as_u16());
    format!("<D:propstat><D:prop>{properties}</D:prop><D:status>{status}</D:status>{why}</D:propstat>")
}

/// The value of a live property, as XML; `None` if there is no such property, or it is a dead one.
fn live(local: &str, path: &Path, stat: &Stat, locks: &[Lock]) -> Option<String> {
    let size = match stat.kind {
        Kind::File { size, .. } => Some(size),
        Kind::Directory { .. } => None,
    };
    match local {
        "getcontentlength" => size.map(|size| size.to_string()),
        "getcontenttype" => size.map(|_| text(&String::from_utf8_lossy(content_type_of(path, stat).as_bytes()))),
        "getetag" => size.map(|_| text(&etag(stat))),
        "getlastmodified" => Some(httpdate::fmt_http_date(last_modified(stat))),
        "resourcetype" => Some(if size.is_none() { "<D:collection/>".to_owned() } else { String::new() }),
        "supportedlock" => Some(SUPPORTED_LOCKS.to_owned()),
        LOCKS => Some(locks.iter().filter(|lock| lock.covers(path)).map(lock::active).collect()),
        DISPLAY_NAME if !stat.details.attributes.contains_key(&attribute(&Name::dav(DISPLAY_NAME))) => {
            Some(text(path.components().next_back().unwrap_or("/")))
        }
        _ => None,
    }
}

const PREFIX: &str = "dav:{";

/// Under which attribute a dead property is kept.
fn attribute(name: &Name) -> String {
    format!("{PREFIX}{}}}{}", name.namespace, name.local)
}

/// Which dead property an attribute is.
fn property(attribute: &str) -> Option<Name> {
    let (namespace, local) = attribute.strip_prefix(PREFIX)?.rsplit_once('}')?;
    Some(Name { namespace: namespace.to_owned(), local: local.to_owned() })
}

/// What each property is to become, as XML; nothing where it is to be removed. The last word on a property counts.
fn changes_of(body: Option<&Element>) -> Result<BTreeMap<Name, Option<String>>, Problem> {
    let body = body.filter(|body| body.name.as_dav() == Some("propertyupdate"));
    let body = body.ok_or_else(|| invalid("the body: expected a propertyupdate"))?;
    let mut changes = BTreeMap::new();
    for instruction in body.children() {
        let is_set = match instruction.name.as_dav() {
            Some("set") => true,
            Some("remove") => false,
            _ => continue, // what is not known is passed over
        };
        for property in instruction.child("prop").into_iter().flat_map(Element::children) {
            changes.insert(property.name.clone(), is_set.then(|| property.to_xml()));
        }
    }
    if changes.is_empty() { Err(invalid("the body: it sets and removes nothing")) } else { Ok(changes) }
}
