//! Which requests are not answered at all.
//!
//! A browser sends requests for any page that it shows. Two things follow.
//!
//! *Another site's page can have a request sent here*, which it cannot read the answer of, but which may change something. A
//! browser says where such a request comes from: `Sec-Fetch-Site`, or `Origin`. A change is refused if that is another site.
//!
//! *Another site can take a name of ours*: it has its own name lead to 127.0.0.1 for a moment ("DNS rebinding"), and for the
//! browser its page and this gateway are then one site. But the request still names that site in `Host`. A gateway that only
//! this machine can reach may rely on that alone, so it answers to addresses and `localhost` only: no site can have these.

use std::net::IpAddr;

use hyper::http::uri::Authority;
use hyper::{HeaderMap, Method, StatusCode, Version, header};

use super::problem::Problem;
use crate::server::Head;

/// Refuses what must not be answered.
pub(crate) fn admit(head: &Head, is_private: bool) -> Result<(), Problem> {
    let host = host(head)?;
    if let Some(host) = &host
        && is_private
        && !is_here(host.host())
    {
        return Err(Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "wrong-host",
            format!("{host} is not this gateway: it answers to localhost and to addresses"),
        ));
    }
    let is_change = !matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS);
    if is_change && is_foreign(&head.headers, host.as_ref()) {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "cross-site",
            "a page of another site may not change anything here",
        ));
    }
    Ok(())
}

/// Which host the client means. Only HTTP/1.0 may leave it out.
pub(crate) fn host(head: &Head) -> Result<Option<Authority>, Problem> {
    let bad = |message| Problem::new(StatusCode::BAD_REQUEST, "invalid-host", message);
    let mut lines = head.headers.get_all(header::HOST).iter();
    let line = lines.next();
    if lines.next().is_some() {
        return Err(bad("a request has one Host"));
    }
    let host = match line {
        Some(line) => Some(Authority::try_from(line.as_bytes()).map_err(|_| bad("Host is no host"))?),
        None if head.version >= Version::HTTP_11 => return Err(bad("a request has a Host")),
        None => None,
    };
    // A target with a host of its own counts instead.
    Ok(head.uri.authority().cloned().or(host))
}

/// Whether no other site can have this name.
fn is_here(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let name = host.to_ascii_lowercase();
    address.parse::<IpAddr>().is_ok() || name == "localhost" || name.ends_with(".localhost")
}

/// Whether a browser says that a page of another site has it send this.
fn is_foreign(headers: &HeaderMap, host: Option<&Authority>) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    if let Some(site) = text("sec-fetch-site") {
        return !matches!(site, "same-origin" | "none");
    }
    let Some(origin) = text("origin") else { return false };
    let of_origin = origin.split_once("://").map(|(_, authority)| authority.to_ascii_lowercase());
    of_origin.is_none() || of_origin != host.map(|host| host.as_str().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    /// The status with which a request is refused.
    fn refused(is_private: bool, lines: &[&str]) -> Option<u16> {
        let mut words = lines[0].split(' ');
        let mut request = Request::builder().method(words.next().unwrap()).uri(words.next().unwrap());
        for line in &lines[1..] {
            let (name, value) = line.split_once(": ").unwrap();
            request = request.header(name, value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        admit(&head, is_private).err().map(|problem| problem.status.as_u16())
    }

    #[test]
    fn a_private_gateway_answers_to_no_name_of_others() {
        for (host, expected) in [
            ("localhost", None),
            ("LOCALHOST:8080", None),
            ("store.localhost:8080", None),
            ("127.0.0.1:8080", None),
            ("[::1]:8080", None),
            ("192.168.1.5", None),
            ("evil.example", Some(421)),
            ("evil.example:8080", Some(421)),
            ("localhost.evil.example", Some(421)),
            ("127.0.0.1.evil.example", Some(421)),
            ("", Some(400)),
            ("a b", Some(400)),
        ] {
            let host = format!("Host: {host}");
            assert_eq!(refused(true, &["GET /", &host]), expected, "{host}");
        }
        assert_eq!(refused(true, &["GET http://evil.example/", "Host: localhost"]), Some(421));
        assert_eq!(refused(false, &["GET /", "Host: files.example"]), None);
        assert_eq!(refused(false, &["GET /"]), Some(400));
        assert_eq!(refused(false, &["GET /", "Host: a", "Host: a"]), Some(400));
    }

    #[test]
    fn no_page_of_another_site_changes_anything() {
        for (lines, expected) in [
            (&["PUT /a", "Host: h:1"][..], None),
            (&["PUT /a", "Host: h:1", "Origin: http://h:1"], None),
            (&["PUT /a", "Host: H:1", "Origin: https://h:1"], None),
            (&["PUT /a", "Host: h:1", "Origin: http://h:1", "Sec-Fetch-Site: same-origin"], None),
            (&["PUT /a", "Host: h:1", "Sec-Fetch-Site: none"], None),
            (&["PUT /a", "Host: h:1", "Origin: http://h:2"], Some(403)),
            (&["PUT /a", "Host: h:1", "Origin: http://h"], Some(403)),
            (&["POST /a", "Host: h:1", "Origin: http://evil.example"], Some(403)),
            (&["POST /a", "Host: h:1", "Origin: null"], Some(403)),
            (&["DELETE /a", "Host: h:1", "Sec-Fetch-Site: cross-site"], Some(403)),
            (&["DELETE /a", "Host: h:1", "Sec-Fetch-Site: same-site"], Some(403)),
            (&["MOVE /a", "Host: h:1", "Origin: http://evil.example"], Some(403)),
            (&["GET /a", "Host: h:1", "Origin: http://evil.example", "Sec-Fetch-Site: cross-site"], None),
        ] {
            assert_eq!(refused(false, lines), expected, "{lines:?}");
        }
    }
}
