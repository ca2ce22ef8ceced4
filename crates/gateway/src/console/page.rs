//! The page's files.

use std::hash::{DefaultHasher, Hash, Hasher};

use hyper::{Method, Response, StatusCode, header};

use crate::http::{Exchange, Problem};

/// What the page consists of: name, type, text.
const ASSETS: &[(&str, &str, &str)] = &[
    ("", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("style.css", "text/css; charset=utf-8", include_str!("page/style.css")),
    ("theme.js", SCRIPT, include_str!("page/theme.js")),
    ("app.js", SCRIPT, include_str!("page/app.js")),
    ("dom.js", SCRIPT, include_str!("page/dom.js")),
    ("api.js", SCRIPT, include_str!("page/api.js")),
    ("list.js", SCRIPT, include_str!("page/list.js")),
    ("files.js", SCRIPT, include_str!("page/files.js")),
    ("dialogs.js", SCRIPT, include_str!("page/dialogs.js")),
    ("preview.js", SCRIPT, include_str!("page/preview.js")),
    ("uploads.js", SCRIPT, include_str!("page/uploads.js")),
    ("cluster.js", SCRIPT, include_str!("page/cluster.js")),
    ("users.js", SCRIPT, include_str!("page/users.js")),
    ("chart.js", SCRIPT, include_str!("page/chart.js")),
    ("icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
];

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The page loads and runs nothing from elsewhere, nor scripts in its text, and is shown in no frame.
const POLICY: &str = "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// The page.
pub(super) struct Page {
    /// In the order of [`ASSETS`].
    tags: Vec<String>,
}

impl Page {
    pub(super) fn new() -> Self {
        let tag = |(_, _, text): &(&str, &str, &str)| {
            let mut hasher = DefaultHasher::new();
            text.hash(&mut hasher);
            format!("\"{:016x}\"", hasher.finish())
        };
        Self { tags: ASSETS.iter().map(tag).collect() }
    }

    /// Answers with one of the page's files.
    pub(super) fn answer(&self, exchange: &mut Exchange, name: &str) -> Result<(), Problem> {
        let Some(place) = ASSETS.iter().position(|(there, ..)| *there == name) else {
            let message = format!("{}: the console has no such file", exchange.head.uri.path());
            return Err(Problem::new(StatusCode::NOT_FOUND, "not-found", message));
        };
        if !matches!(exchange.head.method, Method::GET | Method::HEAD) {
            let message = format!("{} is not known here: GET and HEAD are", exchange.head.method);
            let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", message);
            return Err(problem.with(header::ALLOW, "GET, HEAD"));
        }
        let (_, kind, text) = ASSETS[place];
        let tag = &self.tags[place];
        let head = Response::builder()
            .header(header::ETAG, tag)
            // Another version of the gateway has other files: a browser asks, and is told in one short answer.
            .header(header::CACHE_CONTROL, "no-cache")
            .header(header::CONTENT_SECURITY_POLICY, POLICY)
            .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
            .header(header::REFERRER_POLICY, "no-referrer");
        if exchange.header(header::IF_NONE_MATCH).is_some_and(|tags| tags.contains(tag.as_str())) {
            exchange.send(StatusCode::NOT_MODIFIED, head, "");
        } else if exchange.is_head() {
            let head = head.header(header::CONTENT_TYPE, kind).header(header::CONTENT_LENGTH, text.len());
            exchange.send(StatusCode::OK, head, "");
        } else {
            exchange.send(StatusCode::OK, head.header(header::CONTENT_TYPE, kind), text);
        }
        Ok(())
    }
}
