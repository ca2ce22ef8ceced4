//! A folder's entries, a page at a time: as JSON for programs, as HTML for people.

use std::fmt::Write;

use depot::client::{Error, ListOptions};
use depot::namespace::change::Refusal;
use depot::namespace::listing::{Kind, Listed, Page};
use depot::path::Path;
use depot::time::Time;
use hyper::{Response, StatusCode, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::conditions::etag;
use super::problem::Problem;
use super::read::{missing, prefers_json};
use super::target::Target;
use super::{Exchange, Http};

/// Most entries of a page.
const PAGE: usize = 1_000;

/// All that a name in a URL must not have as it is.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl Http {
    /// Answers with a page of a folder's entries.
    pub(super) fn read_folder(&self, exchange: &mut Exchange, target: &Target) -> Result<(), Problem> {
        let is_json = prefers_json(&exchange.head.headers);
        let name = target.folder_name();
        let limit = match target.option("limit") {
            None => PAGE,
            Some(text) => text.parse().ok().filter(|limit| (1..=PAGE).contains(limit)).ok_or_else(|| {
                let message = format!("limit={text}: expected a number from 1 to {PAGE}");
                Problem::new(StatusCode::BAD_REQUEST, "invalid-limit", message)
            })?,
        };
        let after = target.option("after").unwrap_or_default().to_owned();
        let options = ListOptions { after, limit, ..ListOptions::default() };
        let page = self.store.list(&target.path, &options).map_err(|error| match error {
            // It ends in a slash, and is a file: there is no such folder.
            Error::Refused(Refusal::NotADirectory) => missing(&name, Error::Refused(Refusal::NotFound)),
            error => missing(&name, error),
        })?;
        let head = Response::builder().header(header::VARY, "Accept").header(header::CACHE_CONTROL, "no-cache");
        if !target.is_folder && !is_json {
            // The page's links are relative: without the slash they would lead beside the folder.
            let to = encoded_path(&name);
            let to = exchange.head.uri.query().map_or(to.clone(), |query| format!("{to}?{query}"));
            exchange.send(StatusCode::MOVED_PERMANENTLY, head.header(header::LOCATION, to), "");
            return Ok(());
        }
        let next = page.after.as_ref().map(|after| next_page(after, target.option("limit")));
        let head = match &next {
            Some(next) => head.header(header::LINK, format!("<{next}>; rel=\"next\"")),
            None => head,
        };
        let (head, body) = if is_json {
            (head.header(header::CONTENT_TYPE, "application/json"), json_of(&name, &page))
        } else {
            let head = head
                .header(header::CONTENT_TYPE, "text/html; charset=utf-8")
                .header(header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'");
            (head, html_of(&name, &page, next.as_deref()))
        };
        let head = head.header(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        if exchange.is_head() {
            exchange.send(StatusCode::OK, head.header(header::CONTENT_LENGTH, body.len()), "");
        } else {
            exchange.send(StatusCode::OK, head, body);
        }
        Ok(())
    }
}

fn next_page(after: &str, limit: Option<&str>) -> String {
    let limit = limit.map_or_else(String::new, |limit| format!("limit={limit}&"));
    format!("?{limit}after={}", utf8_percent_encode(after, ESCAPED))
}

/// A path for a URL.
fn encoded_path(path: &str) -> String {
    let components = path.split('/').map(|component| utf8_percent_encode(component, ESCAPED).to_string());
    components.collect::<Vec<_>>().join("/")
}

/// The URL of a path, without the host; a folder's ends in `/`.
pub(crate) fn href(path: &Path, is_folder: bool) -> String {
    let end = if is_folder && !path.is_root() { "/" } else { "" };
    format!("{}{end}", encoded_path(path.as_str()))
}

fn json_of(name: &str, page: &Page) -> String {
    let entries: Vec<_> = page.entries.iter().map(entry_json).collect();
    format!("{}\n", json!({ "path": name, "entries": entries, "after": page.after }))
}

/// An entry for programs.
pub(crate) fn entry_json(Listed { name, stat }: &Listed) -> Value {
    let mut entry = json!({
        "name": name.trim_end_matches('/'),
        "modified": Time(stat.modified_ms).to_string(),
        "modified_ms": stat.modified_ms,
    });
    match stat.kind {
        Kind::File { size, .. } => {
            entry["kind"] = "file".into();
            entry["size"] = size.into();
            entry["etag"] = etag(stat).into();
            entry["content_type"] = stat.details.content_type.as_str().into();
        }
        Kind::Directory { entries, .. } => {
            entry["kind"] = "folder".into();
            entry["entries"] = entries.into();
        }
    }
    entry
}

fn html_of(name: &str, page: &Page, next: Option<&str>) -> String {
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{0}</title>\n<style>{STYLE}</style>\
         </head>\n<body>\n<h1>{0}</h1>\n<table>\n<tr><th>Name</th><th>Size</th><th>Modified (UTC)</th></tr>\n",
        Escaped(name)
    );
    // A String takes all that is written.
    if name != "/" {
        let _ = writeln!(html, "<tr><td><a href=\"../\">../</a></td><td></td><td></td></tr>");
    }
    for Listed { name, stat } in &page.entries {
        let size = match stat.kind {
            Kind::File { size, .. } => size.to_string(),
            Kind::Directory { .. } => String::new(),
        };
        let time = Time(stat.modified_ms).to_string();
        let time = time.trim_end_matches('Z').replace('T', " ");
        let _ = writeln!(
            html,
            "<tr><td><a href=\"./{}\">{}</a></td><td>{size}</td><td>{time}</td></tr>",
            encoded_path(name),
            Escaped(name)
        );
    }
    let _ = writeln!(html, "</table>");
    if let Some(next) = next {
        let _ = writeln!(html, "<p><a href=\"{}\" rel=\"next\">More</a></p>", Escaped(next));
    }
    html.push_str("</body></html>\n");
    html
}

const STYLE: &str = "\
:root{color-scheme:light dark}body{font:1rem/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem}\
h1{font-size:1.2rem;overflow-wrap:anywhere}table{border-collapse:collapse;width:100%}th{text-align:left;font-weight:600}\
td,th{padding:.2rem .8rem .2rem 0}td:first-child{overflow-wrap:anywhere}td:nth-child(n+2){white-space:nowrap}\
td:nth-child(2),th:nth-child(2){text-align:right}tr:hover{background:color-mix(in srgb,currentColor 8%,transparent)}";

/// Text in HTML: it stays text.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // Neither is shown, nor allowed in HTML or harmless: control characters, and those that turn the text around.
                '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                    f.write_char('\u{fffd}')?;
                }
                _ => f.write_char(character)?,
            }
        }
        Ok(())
    }
}
