//! The console: a page for people, and the JSON that it is made of. (docs/gateway.md)
//!
//! ```text
//!   /.stevedore/console/   the page: plain HTML, CSS and JavaScript that this program carries    page, page/
//!   /.stevedore/api/       what the page asks for, besides files and folders over plain HTTP      api
//!   /.stevedore/api/events what changes while the page is open, as server-sent events            events
//! ```
//!
//! No file can have a path below `/.stevedore/`, so nothing is hidden by these.
//!
//! # What a page may do
//!
//! The page runs in a browser beside pages of other sites, and shows names and files that others have written. So:
//!
//! - It may load and run only what this program carries (`Content-Security-Policy`), and no other page may show it in a frame.
//! - It puts names on the screen as text, never as markup.
//! - What changes something demands the header `Stevedore-Console`. A form of another site cannot send it, and a script of another
//!   site may not: the browser asks first, and is not told that it may.
//! - What it asks for is the caller's, whose rights are looked at as for files. The state of the store is told to a
//!   caller that may read all of it.
//!
//! # Threads
//!
//! One thread asks for the store's status, for all viewers, and keeps the space in use for the charts (`observer`). Each viewer
//! has the thread of its connection; it waits for changes of files by itself. `users` is for admins. `statistics` counts what this gateway is asked
//! for.

pub(crate) mod api;
mod events;
mod observer;
mod page;
mod statistics;
mod status;
mod users;

use std::io;
use std::sync::Arc;

use depot::client::Files;
use hyper::{Method, Response, StatusCode, header};

use crate::http::{Exchange, Problem, prefers_page};
use crate::locks::Locks;
use crate::server::Head;
use observer::Observer;
use page::Page;
pub(crate) use statistics::Statistics;
pub use status::{settings_json, status_json};

const PAGE: &str = "/.stevedore/console/";
const API: &str = "/.stevedore/api/";

/// The console of a gateway.
pub struct Console {
    store: Arc<dyn Files>,
    locks: Arc<Locks>,
    page: Page,
    observer: Observer,
    pub(crate) statistics: Arc<Statistics>,
}

/// Whether a request is for the console: for its page, for what that asks for, or from a browser that was given no path.
pub(crate) fn is_asked(head: &Head) -> bool {
    let path = head.uri.path();
    path.starts_with(PAGE) || path.starts_with(API) || path == PAGE.trim_end_matches('/') || is_at_the_door(head)
}

/// Whether a request that `is_asked` is for what not all may know. The page itself is the same in every gateway.
pub(crate) fn needs_caller(head: &Head) -> bool {
    head.uri.path().starts_with(API)
}

/// Whether a browser asks for the root, and says no more. Programs get the root's listing there.
fn is_at_the_door(head: &Head) -> bool {
    let is_read = matches!(head.method, Method::GET | Method::HEAD);
    is_read && head.uri.path() == "/" && head.uri.query().is_none() && prefers_page(&head.headers)
}

impl Console {
    /// Begins to observe a store.
    pub(crate) fn start(store: Arc<dyn Files>, locks: Arc<Locks>) -> io::Result<Arc<Self>> {
        let statistics = Arc::new(Statistics::new());
        let observer = Observer::start(Arc::clone(&store), Arc::clone(&statistics))?;
        Ok(Arc::new(Self { store, locks, page: Page::new(), observer, statistics }))
    }

    /// Has all streams of events end.
    pub fn stop(&self) {
        self.observer.stop();
    }

    /// Why the store cannot be used now, as it was found last.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.observer.trouble()
    }

    /// Answers a request that `is_asked`.
    pub(crate) fn answer(&self, exchange: &mut Exchange) -> Result<(), Problem> {
        let path = exchange.head.uri.path().to_owned();
        if let Some(call) = path.strip_prefix(API) {
            self.call(exchange, call)
        } else if let Some(asset) = path.strip_prefix(PAGE) {
            self.page.answer(exchange, asset)
        } else {
            // To the page, from the root or without the slash at the end.
            let head = Response::builder().header(header::LOCATION, PAGE).header(header::VARY, "Accept");
            exchange.send(StatusCode::FOUND, head.header(header::CACHE_CONTROL, "no-cache"), "");
            Ok(())
        }
    }
}
