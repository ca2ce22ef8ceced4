//! Requests and their answers, as bytes on a socket.

mod common;

use common::Served;
use depot::client::{PutOptions, Source};
use depot::namespace::change::{Details, Replicas};
use kit::bytes;
use serde_json::{Value, json};

/// Requests, each with the status, the code of the error if it is one, and lines that the head of the answer has.
type Table<'a> = &'a [(&'a [&'a str], &'a [u8], u16, &'a str, &'a [&'a str])];

#[track_caller]
fn check(served: &Served, table: Table<'_>) {
    for (request, body, status, code, lines) in table {
        let reply = served.ask(request, body);
        assert_eq!(reply.status, *status, "{request:?}: {reply:?}");
        let is_error = *status >= 400 && !request[0].starts_with("HEAD");
        assert_eq!(if is_error { reply.error() } else { String::new() }, *code, "{request:?}");
        for line in *lines {
            assert!(reply.head.to_lowercase().contains(&line.to_lowercase()), "{request:?}: {line} in {}", reply.head);
        }
    }
}

#[test]
fn a_file_is_put_read_replaced_and_removed() {
    let served = Served::new();
    check(
        &served,
        &[
            (&["GET /a.txt"], b"", 404, "not-found", &["content-type: application/json"]),
            (&["PUT /a.txt"], b"one", 201, "", &["etag: \"", "content-length: 0"]),
            (&["GET /a.txt"], b"", 200, "", &["content-length: 3", "content-type: text/plain; charset=utf-8"]),
            (&["PUT /a.txt", "Content-Type: x/y"], b"three", 200, "", &["etag: \""]),
            (&["HEAD /a.txt"], b"", 200, "", &["content-length: 5", "content-type: x/y", "accept-ranges: bytes"]),
            (&["GET /a.txt"], b"", 200, "", &["content-length: 5", "x-content-type-options: nosniff"]),
            (&["POST /b", "Content-Type: application/x-www-form-urlencoded"], b"posted", 201, "", &[]),
            // What clients of the proxy do. (docs/wires.md, section 4)
            (&["POST /none/deep/a%20b?any=query"], b"posted", 201, "", &[]),
            (&["GET /none/deep/a%20b?any=query"], b"", 200, "", &["content-length: 6"]),
            (&["POST /none/deep/a%20b"], b"again", 200, "", &[]),
            (&["PUT /nothing/deep/a"], b"x", 409, "no-parent", &[]),
            (&["POST /none/"], b"x", 409, "is-a-folder", &[]),
            (&["PUT /none/"], b"x", 409, "is-a-folder", &[]),
            (&["DELETE /none/deep/a%20b"], b"", 204, "", &[]),
            (&["DELETE /none/deep/a%20b"], b"", 404, "not-found", &[]),
            (&["GET /none/deep/a%20b"], b"", 404, "not-found", &[]),
            (&["GET /b"], b"", 200, "", &["content-type: application/octet-stream"]),
            (&["PUT /empty", "Content-Length: 0"], b"", 201, "", &[]),
            (&["GET /empty"], b"", 200, "", &["content-length: 0"]),
            (&["DELETE /a.txt"], b"", 204, "", &[]),
            (&["DELETE /a.txt"], b"", 404, "not-found", &[]),
            (&["HEAD /a.txt"], b"", 404, "", &["content-type: application/json"]),
            (&["GET /b/c"], b"", 404, "not-found", &[]),
            (&["GET /b/"], b"", 404, "not-found", &[]),
        ],
    );
    assert_eq!(served.content("/b").as_deref(), Some(&b"posted"[..]));
}

#[test]
fn folders_are_made_listed_and_removed() {
    let served = Served::new();
    check(
        &served,
        &[
            (&["PUT /a/b/c"], b"x", 409, "no-parent", &[]),
            (&["PUT /a/b/"], b"", 409, "no-parent", &[]),
            (&["PUT /a/"], b"", 201, "", &[]),
            (&["PUT /a/"], b"", 204, "", &[]),
            (&["PUT /a/"], b"content", 409, "is-a-folder", &[]),
            (&["PUT /a"], b"content", 409, "is-a-folder", &[]),
            (&["PUT /"], b"content", 409, "is-a-folder", &[]),
            (&["PUT /a/b/c?parents"], b"x", 201, "", &[]),
            (&["PUT /a/b/c/d"], b"x", 409, "not-a-folder", &[]),
            (&["PUT /a/b/c/"], b"", 409, "not-a-folder", &[]),
            (&["POST /x/y/?parents"], b"", 201, "", &[]),
            (&["GET /a"], b"", 301, "", &["location: /a/"]),
            (&["GET /a?limit=1"], b"", 301, "", &["location: /a/?limit=1"]),
            (&["GET /a/"], b"", 200, "", &["content-type: text/html; charset=utf-8", "vary: accept"]),
            (&["HEAD /a/"], b"", 200, "", &["content-type: text/html"]),
            (&["GET /a", "Accept: application/json"], b"", 200, "", &["content-type: application/json"]),
            (&["GET /none/"], b"", 404, "not-found", &[]),
            (&["GET /?limit=0"], b"", 400, "invalid-limit", &[]),
            (&["GET /?limit=1001"], b"", 400, "invalid-limit", &[]),
            (&["DELETE /x"], b"", 204, "", &[]),
            (&["DELETE /a/"], b"", 204, "", &[]),
            (&["DELETE /a/"], b"", 404, "not-found", &[]),
            (&["DELETE /"], b"", 403, "is-the-root", &[]),
        ],
    );
    assert_eq!(served.content("/a/b/c"), None);
}

#[test]
fn a_put_keeps_what_is_not_of_the_content() {
    let served = Served::new();
    let path = "/a".parse().unwrap();
    let details = Details {
        content_type: "x/old".into(),
        owner: "alice".into(),
        replicas: Some(Replicas::Number(1)),
        digests: [("md5".to_owned(), "of the old content".to_owned())].into(),
        attributes: [("colour".to_owned(), "blue".to_owned())].into(),
    };
    let options = PutOptions { details: details.clone(), ..PutOptions::default() };
    served.store.put(&path, Source::Once(&mut &b"old"[..]), &options).unwrap();
    for (content_type, kept) in [("x/new", "x/new"), ("", "")] {
        let line = format!("Content-Type: {content_type}");
        let lines = if content_type.is_empty() { vec!["PUT /a"] } else { vec!["PUT /a", &line] };
        assert_eq!(served.ask(&lines, b"new").status, 200);
        let expected = Details { content_type: kept.into(), digests: Default::default(), ..details.clone() };
        assert_eq!(served.store.stat(&path).unwrap().details, expected);
    }
}

#[test]
fn what_is_no_path_or_no_method_is_refused() {
    let served = Served::new();
    served.put("/.stevedore/secret", b"secret");
    check(
        &served,
        &[
            (&["GET /a//b"], b"", 400, "invalid-path", &[]),
            (&["GET /../etc/passwd"], b"", 400, "invalid-path", &[]),
            (&["GET /%2e%2e/etc/passwd"], b"", 400, "invalid-path", &[]),
            (&["PUT /a%2fb"], b"x", 400, "invalid-path", &[]),
            (&["PUT /a%00b"], b"x", 400, "invalid-path", &[]),
            (&["PUT /%ff"], b"x", 400, "invalid-path", &[]),
            (&["GET /.stevedore/secret"], b"", 403, "reserved", &[]),
            (&["GET /%2estevedore/secret"], b"", 403, "reserved", &[]),
            (&["PUT /.stevedore/x"], b"x", 403, "reserved", &[]),
            (&["DELETE /.stevedore/"], b"", 403, "reserved", &[]),
            (&["PATCH /a"], b"x", 405, "method-not-allowed", &["allow: GET, HEAD, PUT"]),
            (&["TRACE /a"], b"", 405, "method-not-allowed", &[]),
            (&["OPTIONS /a"], b"", 204, "", &["allow: GET, HEAD, PUT"]),
            (&["OPTIONS *"], b"", 204, "", &[]),
            (&["PUT /a", "Content-Range: bytes 0-0/2"], b"x", 400, "partial-content", &[]),
            (&["PUT /a", "Content-Encoding: gzip"], b"x", 415, "encoded", &[]),
            (&["POST /a", "Content-Type: multipart/form-data; boundary=x"], b"--x--", 415, "form", &[]),
            (&["PUT /a", "Content-Length: 99999999999999"], b"", 413, "too-large", &[]),
            (&["GET /", "Host: evil.example"], b"", 421, "wrong-host", &[]),
            (&["PUT /a", "Origin: http://evil.example"], b"x", 403, "cross-site", &[]),
        ],
    );
    let root = served.ask(&["GET /", "Accept: application/json"], b"");
    assert_eq!(serde_json::from_slice::<Value>(&root.body).unwrap()["entries"], json!([]));
    assert_eq!(served.content("/.stevedore/secret").as_deref(), Some(&b"secret"[..]));
    assert_eq!(served.content("/a"), None, "nothing was put");
}

#[test]
fn conditions_decide_what_is_read_and_changed() {
    let served = Served::new();
    let etag = served.put("/a", b"0123456789");
    let [is, is_not] = ["If-Match", "If-None-Match"].map(|name| format!("{name}: {etag}"));
    let (other, any, none) = ("If-Match: \"x\"", "If-Match: *", "If-None-Match: *");
    const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    let since = format!("If-Modified-Since: {THEN}");
    let in_range = |condition: &str| format!("If-Range: {condition}");
    let (same, changed, same_time) = (in_range(&etag), in_range("\"x\""), in_range(THEN));
    let late = "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT";
    check(
        &served,
        &[
            (&["GET /a"], b"", 200, "", &[&format!("etag: {etag}"), &format!("last-modified: {THEN}")]),
            (&["GET /a", &is_not], b"", 304, "", &[&format!("etag: {etag}")]),
            (&["HEAD /a", &is_not], b"", 304, "", &[]),
            (&["GET /a", &since], b"", 304, "", &[]),
            (&["GET /a", "If-None-Match: \"x\"", &since], b"", 200, "", &[]),
            (&["GET /a", other], b"", 412, "condition-failed", &[]),
            (&["GET /a", "If-Match: x"], b"", 400, "invalid-condition", &[]),
            (&["GET /a", "Range: bytes=2-4"], b"", 206, "", &["content-range: bytes 2-4/10", "content-length: 3"]),
            (&["GET /a", "Range: bytes=-3"], b"", 206, "", &["content-range: bytes 7-9/10"]),
            (&["GET /a", "Range: bytes=2-4", &same], b"", 206, "", &[]),
            (&["GET /a", "Range: bytes=2-4", &same_time], b"", 206, "", &[]),
            (&["GET /a", "Range: bytes=2-4", &changed], b"", 200, "", &["content-length: 10"]),
            (&["GET /a", "Range: bytes=0-1,4-5"], b"", 200, "", &["content-length: 10"]),
            (&["GET /a", "Range: bytes=10-"], b"", 416, "no-such-range", &["content-range: bytes */10"]),
            (&["HEAD /a", "Range: bytes=2-4"], b"", 200, "", &["content-length: 10"]),
            (&["PUT /a", none], b"x", 412, "condition-failed", &[]),
            (&["PUT /a", other], b"x", 412, "condition-failed", &[]),
            (&["PUT /a", late], b"x", 412, "condition-failed", &[]),
            (&["PUT /b", any], b"x", 412, "condition-failed", &[]),
            (&["DELETE /a", other], b"", 412, "condition-failed", &[]),
            (&["DELETE /b", any], b"", 412, "condition-failed", &[]),
            (&["PUT /b", none], b"new", 201, "", &[]),
            (&["PUT /a", &is], b"replaced", 200, "", &[]),
            (&["PUT /a", &is], b"again", 412, "condition-failed", &[]),
            (&["DELETE /a", &is], b"", 412, "condition-failed", &[]),
            (&["DELETE /a", any], b"", 204, "", &[]),
        ],
    );
    assert_eq!(served.content("/b").as_deref(), Some(&b"new"[..]));
}

#[test]
fn a_part_has_the_bytes_that_were_asked_for() {
    let served = Served::new();
    let content = bytes(1, 300_000);
    served.put("/a", &content);
    for (range, expected) in [
        ("bytes=0-", 0..300_000),
        ("bytes=65535-65536", 65_535..65_537),
        ("bytes=100000-299999", 100_000..300_000),
        ("bytes=-1", 299_999..300_000),
    ] {
        let reply = served.ask(&["GET /a", &format!("Range: {range}")], b"");
        assert_eq!(reply.status, 206);
        assert!(reply.body == content[expected], "{range}");
    }
}

#[test]
fn a_connection_serves_one_request_after_another() {
    let served = Served::new();
    let content = bytes(2, 1 << 20);
    let mut client = served.dial();
    for round in 0..20 {
        let path = format!("/{round}");
        client.send(&[&format!("PUT {path}")], &content[..round << 15]);
        assert_eq!(client.reply(false).status, 201);
        client.send(&[&format!("GET {path}")], b"");
        assert!(client.reply(false).body == content[..round << 15], "round {round}");
    }
    // All at once: each is answered, in order.
    for round in 0..20 {
        client.send(&[&format!("GET /{round}")], b"");
    }
    for round in 0..20 {
        assert_eq!(client.reply(false).body.len(), round << 15, "round {round}");
    }
}

#[test]
fn a_chunked_upload_of_unknown_length_arrives_whole() {
    let served = Served::new();
    let content = bytes(3, 20 << 20);
    let mut client = served.dial();
    client.send(&["PUT /a", "Transfer-Encoding: chunked"], b"");
    for piece in content.chunks(1_000_003) {
        client.write(format!("{:x}\r\n", piece.len()).as_bytes());
        client.write(piece);
        client.write(b"\r\n");
    }
    client.write(b"0\r\nA-Trailer: x\r\n\r\n");
    assert_eq!(client.reply(false).status, 201);
    assert!(served.content("/a").as_deref() == Some(&content[..]));
    client.send(&["GET /a"], b"");
    assert!(client.reply(false).body == content);
}

#[test]
fn a_client_that_waits_to_continue_is_told_or_refused_at_once() {
    let served = Served::new();
    served.put("/there", b"x");
    let expect = "Expect: 100-continue";
    for (request, status) in [
        (&["PUT /there", "If-None-Match: *", expect, "Content-Length: 10000000"][..], 412),
        (&["PUT /no/parent", expect, "Content-Length: 10000000"], 409),
        (&["PUT /a//b", expect, "Content-Length: 10000000"], 400),
        (&["PUT /a", expect, "Content-Length: 999999999999999"], 413),
    ] {
        let mut client = served.dial();
        client.send(request, b"");
        let reply = client.reply(false);
        assert_eq!(reply.status, status, "{request:?}: no 100 comes first, and no byte was sent");
        assert_eq!(client.end(), b"", "it is not known whether the body comes, so the connection ends");
    }
    let mut client = served.dial();
    client.send(&["PUT /a", expect, "Content-Length: 5"], b"");
    assert_eq!(client.reply(false).status, 100);
    client.write(b"hello");
    assert_eq!(client.reply(false).status, 201);
    assert_eq!(served.content("/a").as_deref(), Some(&b"hello"[..]));
    client.send(&["GET /a"], b"");
    assert_eq!(client.reply(false).text(), "hello", "the connection goes on");
}

#[test]
fn of_two_uploads_under_one_condition_one_is_refused_at_its_end() {
    let served = Served::new();
    let etag = served.put("/there", b"old");
    for (path, condition) in [("/new", "If-None-Match: *".to_owned()), ("/there", format!("If-Match: {etag}"))] {
        let request = [&format!("PUT {path}"), &*condition, "Expect: 100-continue", "Content-Length: 5"];
        let mut clients = [served.dial(), served.dial()];
        for client in &mut clients {
            client.send(&request, b"");
            assert_eq!(client.reply(false).status, 100, "the condition holds for both");
        }
        let [first, second] = &mut clients;
        second.write(b"quick");
        assert!([201, 200].contains(&second.reply(false).status));
        first.write(b"later");
        let reply = first.reply(false);
        assert_eq!((reply.status, &*reply.error()), (412, "condition-failed"), "{path}");
        assert_eq!(served.content(path).as_deref(), Some(&b"quick"[..]));
    }
}

#[test]
fn an_early_answer_reaches_a_client_that_still_sends() {
    let served = Served::new();
    served.put("/there", b"x");
    let mut client = served.dial();
    client.send(&["PUT /there", "If-None-Match: *", "Content-Length: 30000000"], b"");
    // More than the buffers of both ends hold.
    let piece = vec![0; 1 << 20];
    for _ in 0..20 {
        client.write(&piece);
    }
    assert_eq!(client.reply(false).status, 412, "it is not lost in a reset");
}

#[test]
fn an_interrupted_upload_leaves_nothing() {
    let served = Served::new();
    served.put("/old", b"old");
    for head in [["PUT /new", "Content-Length: 1000"], ["PUT /old", "Content-Length: 1000"]] {
        let mut client = served.dial();
        client.send(&head, b"");
        client.write(&[0; 999]);
        client.finish();
        let reply = client.reply(false);
        assert_eq!((reply.status, &*reply.error()), (400, "incomplete"));
    }
    for tail in ["5\r\nhel", "5\r\nhello\r\n", "zz\r\n", "5\r\nhelloworld\r\n0\r\n\r\n"] {
        let mut client = served.dial();
        client.send(&["PUT /new", "Transfer-Encoding: chunked"], b"");
        client.write(tail.as_bytes());
        client.finish();
        assert_eq!(client.reply(false).status, 400, "{tail:?}");
    }
    assert_eq!(served.content("/new"), None);
    assert_eq!(served.content("/old").as_deref(), Some(&b"old"[..]));
}

#[test]
fn a_large_folder_comes_in_pages() {
    let served = Served::new();
    let names: Vec<String> = (0..2_500).map(|number| format!("{number:04} & <b>")).collect();
    for name in &names {
        served.put(&format!("/many/{name}"), b"");
    }
    let mut listed = Vec::new();
    let mut path = "/many/".to_owned();
    loop {
        let reply = served.ask(&[&format!("GET {path}"), "Accept: application/json"], b"");
        let page: Value = serde_json::from_slice(&reply.body).unwrap();
        let entries = page["entries"].as_array().unwrap();
        assert!(entries.len() <= 1_000);
        listed.extend(entries.iter().map(|entry| entry["name"].as_str().unwrap().to_owned()));
        match reply.header("link") {
            Some(link) => path = format!("/many/{}", link.trim_start_matches('<').split('>').next().unwrap()),
            None => break,
        }
    }
    assert_eq!(listed, names);
    let page = served.ask(&["GET /many/?limit=2"], b"");
    let text = page.text();
    assert!(!text.contains("<b>") && text.contains("0000 &amp; &lt;b&gt;"), "names are text: {text}");
    assert!(text.contains("href=\"./0001%20%26%20%3Cb%3E\""), "links are encoded: {text}");
    assert!(text.contains("href=\"?limit=2&amp;after=0001%20%26%20%3Cb%3E\""), "it leads on: {text}");
}

#[test]
fn a_listing_says_what_each_entry_is() {
    let served = Served::new();
    let etag = served.put_as("/a/file", b"12345", "x/y");
    served.put("/a/sub/file", b"");
    let reply = served.ask(&["GET /a/", "Accept: application/json"], b"");
    let page: Value = serde_json::from_slice(&reply.body).unwrap();
    let file = json!({
        "name": "file", "kind": "file", "size": 5, "etag": etag, "content_type": "x/y",
        "modified": "1994-11-06T08:49:37Z", "modified_ms": 784_111_777_500_u64,
    });
    assert_eq!(page["path"], "/a/");
    assert_eq!(page["after"], Value::Null);
    assert_eq!(page["entries"][0], file);
    let sub = &page["entries"][1];
    assert_eq!((&sub["name"], &sub["kind"], &sub["entries"]), (&json!("sub"), &json!("folder"), &json!(1)));
}

#[test]
fn content_that_could_run_scripts_has_an_origin_of_its_own() {
    let served = Served::new();
    for (path, is_boxed) in
        [("/a.html", true), ("/a.svg", true), ("/a.xml", true), ("/a.txt", false), ("/a.png", false)]
    {
        served.put(path, b"x");
        let reply = served.ask(&[&format!("GET {path}")], b"");
        let policy = reply.header("content-security-policy").unwrap_or_default();
        assert_eq!(policy.starts_with("sandbox"), is_boxed, "{path}: {policy}");
        assert!(!policy.contains("allow-same-origin"));
    }
}

#[test]
fn an_older_client_of_http_1_0_is_served() {
    let served = Served::new();
    served.put("/a", b"hello");
    let mut client = served.dial();
    client.write(b"GET /a HTTP/1.0\r\n\r\n");
    let reply = client.reply(false);
    assert_eq!((reply.status, reply.text()), (200, "hello"));
    assert_eq!(client.end(), b"", "and the connection ends");
}
