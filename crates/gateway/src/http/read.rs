//! GET and HEAD.

use depot::client::Error;
use depot::namespace::change::{Condition, Refusal};
use depot::namespace::listing::{Kind, Stat};
use depot::path::Path;
use hyper::header::{self, HeaderValue};
use hyper::http::response::Builder;
use hyper::{HeaderMap, Response, StatusCode};

use super::conditions::{Conditions, Verdict, etag, is_same_content, last_modified};
use super::problem::Problem;
use super::range::{Wanted, wanted};
use super::sink::Sink;
use super::target::Target;
use super::{Exchange, Http};

/// A file may be replaced between the moment it is opened and the first byte that is read, and its old bytes collected. Then it
/// is opened anew, so often at most.
const ATTEMPTS: usize = 3;

impl Http {
    /// Answers with a file, or a folder's entries.
    pub(super) fn read(&self, exchange: &mut Exchange, target: &Target) -> Result<(), Problem> {
        if target.is_folder {
            return self.read_folder(exchange, target);
        }
        let name = target.path.as_str();
        if exchange.is_head() {
            let stat = self.store.stat(&target.path).map_err(|error| missing(name, error))?;
            return match stat.kind {
                Kind::Directory { .. } => self.read_folder(exchange, target),
                Kind::File { size, .. } => {
                    if let Some(head) = self.head_of_file(exchange, target, &stat)? {
                        exchange.send(StatusCode::OK, head.header(header::CONTENT_LENGTH, size), "");
                    }
                    Ok(())
                }
            };
        }
        for attempt in 1.. {
            let mut content = match self.store.get(&target.path, Condition::Any) {
                Err(Error::Refused(Refusal::IsADirectory)) => return self.read_folder(exchange, target),
                content => content.map_err(|error| missing(name, error))?,
            };
            let stat = content.stat().clone();
            let Some(head) = self.head_of_file(exchange, target, &stat)? else { return Ok(()) };
            let size = content.size();
            let asked = exchange.header(header::RANGE).filter(|_| is_same_content(&exchange.head.headers, &stat));
            let (status, head, range) = match wanted(asked, size) {
                Wanted::Whole => (StatusCode::OK, head, 0..size),
                Wanted::Part(range) => {
                    let which = format!("bytes {}-{}/{size}", range.start, range.end - 1);
                    (StatusCode::PARTIAL_CONTENT, head.header(header::CONTENT_RANGE, which), range)
                }
                Wanted::Nothing => {
                    let problem = Problem::new(
                        StatusCode::RANGE_NOT_SATISFIABLE,
                        "no-such-range",
                        format!("{name} has {size} bytes, and none of those that were asked for"),
                    );
                    return Err(problem.with(header::CONTENT_RANGE, format!("bytes */{size}")));
                }
            };
            let length = range.end - range.start;
            if length == 0 {
                exchange.send(status, head, "");
                return Ok(());
            }
            let mut sink = Sink::new(&self.console.statistics, || exchange.begin(status, head, Some(length)));
            let copied = content.copy_to(range, &mut sink);
            match sink.end(copied, name) {
                Err(Error::Gone) if attempt < ATTEMPTS => {}
                ended => return ended.map_err(|error| Problem::of(name, &error)),
            }
        }
        unreachable!("the last attempt returns")
    }

    /// The head of an answer with a file; `None` if the client has the file already, and was told so.
    fn head_of_file(&self, exchange: &mut Exchange, target: &Target, stat: &Stat) -> Result<Option<Builder>, Problem> {
        let head = Response::builder()
            .header(header::ETAG, etag(stat))
            .header(header::LAST_MODIFIED, httpdate::fmt_http_date(last_modified(stat)))
            // A cache asks whether it has the newest version: that is one question to a Controller.
            .header(header::CACHE_CONTROL, "no-cache");
        match Conditions::of(&exchange.head.headers)?.judge(Some(stat), true) {
            Verdict::Failed => Err(changed(target)),
            Verdict::NotModified => {
                exchange.send(StatusCode::NOT_MODIFIED, head, "");
                Ok(None)
            }
            Verdict::Holds => {
                let content_type = content_type_of(&target.path, stat);
                let head =
                    head.header(header::ACCEPT_RANGES, "bytes").header(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
                let head = if can_run_scripts(&content_type) {
                    head.header(header::CONTENT_SECURITY_POLICY, SANDBOX)
                } else {
                    head
                };
                Ok(Some(head.header(header::CONTENT_TYPE, content_type)))
            }
        }
    }
}

/// A page of the store's content is of an origin of its own: it works, but it is not the gateway, and cannot speak as it.
pub(crate) const SANDBOX: &str = "sandbox allow-scripts allow-forms allow-popups allow-downloads";

/// Whether a browser runs what such content says.
pub(crate) fn can_run_scripts(content_type: &HeaderValue) -> bool {
    let text = content_type.to_str().unwrap_or_default().to_ascii_lowercase();
    ["html", "xml", "svg", "xsl"].iter().any(|kind| text.contains(kind))
}

/// What was said when the file was put, else what its name says.
pub(crate) fn content_type_of(path: &Path, stat: &Stat) -> HeaderValue {
    let stored = Some(&stat.details.content_type).filter(|stored| !stored.is_empty());
    stored.and_then(|stored| HeaderValue::try_from(stored).ok()).unwrap_or_else(|| {
        let name = path.components().next_back().unwrap_or_default();
        let guessed = mime_guess::from_path(name).first_raw().unwrap_or("application/octet-stream");
        // Text is written in UTF-8 today; without this, browsers take it for something else.
        let text = if guessed.starts_with("text/") { format!("{guessed}; charset=utf-8") } else { guessed.to_owned() };
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("application/octet-stream"))
    })
}

/// Reading what is not there: a file on the way to it makes no difference.
pub(super) fn missing(name: &str, error: Error) -> Problem {
    match error {
        Error::Refused(Refusal::NotADirectory) => Problem::of(name, &Error::Refused(Refusal::NotFound)),
        error => Problem::of(name, &error),
    }
}

/// A condition of the client does not hold.
pub(crate) fn changed(target: &Target) -> Problem {
    let message = format!("{}: what If-Match or another condition says does not hold", target.path);
    Problem::new(StatusCode::PRECONDITION_FAILED, "condition-failed", message)
}

/// Whether the client would rather have JSON than a page.
pub(super) fn prefers_json(headers: &HeaderMap) -> bool {
    let (json, page) = preferences(headers);
    json > page
}

/// Whether the client asks for a page: browsers do, and say so.
pub(crate) fn prefers_page(headers: &HeaderMap) -> bool {
    let (json, page) = preferences(headers);
    page > json
}

/// How much the client wants JSON, and a page; 0 for what it does not name.
fn preferences(headers: &HeaderMap) -> (f32, f32) {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let mut json = 0.0;
    let mut page = 0.0;
    for word in accepted.flat_map(|line| line.split(',')) {
        let mut parts = word.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0);
        match kind.as_str() {
            "application/json" => json = f32::max(json, weight),
            "text/html" | "application/xhtml+xml" => page = f32::max(page, weight),
            _ => {}
        }
    }
    (json, page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_for_those_who_ask_for_it() {
        for (accept, expected) in [
            ("*/*", false),
            ("", false),
            ("application/json", true),
            ("application/json, */*", true),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", false),
            ("text/html, application/json;q=0.9", false),
            ("text/html;q=0.5, application/json; q=0.9", true),
            ("Application/JSON;charset=utf-8", true),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            assert_eq!(prefers_json(&headers), expected, "{accept}");
        }
    }

    #[test]
    fn only_what_runs_scripts_gets_an_origin_of_its_own() {
        for (content_type, expected) in [
            ("text/html; charset=utf-8", true),
            ("TEXT/HTML", true),
            ("image/svg+xml", true),
            ("application/xhtml+xml", true),
            ("text/xml", true),
            ("text/plain; charset=utf-8", false),
            ("image/png", false),
            ("application/pdf", false),
        ] {
            assert_eq!(can_run_scripts(&HeaderValue::from_static(content_type)), expected, "{content_type}");
        }
    }
}
