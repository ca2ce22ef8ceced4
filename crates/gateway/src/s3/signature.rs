//! AWS Signature Version 4: how a request proves which access key has sent it.
//!
//! The client and the gateway both have the key's secret, and neither sends it. Both write the request down in one canonical
//! form, and compute a keyed hash (HMAC-SHA256) of that:
//!
//! ```text
//! canonical request                          string to sign                    signing key
//!   PUT                                        AWS4-HMAC-SHA256                  HMAC("AWS4" + secret, "20261122")
//!   /bucket/a%20key                            20261122T101657Z                    then "us-east-1"
//!   partNumber=1&uploadId=7f                   20261122/us-east-1/s3/aws4_request  then "s3"
//!   host:127.0.0.1:9000                        SHA-256 of the canonical request    then "aws4_request"
//!   x-amz-date:20261122T101657Z
//!                                                          └──── HMAC ────┘
//!   host;x-amz-date                                              │
//!   SHA-256 of the body, or what stands for it               signature
//! ```
//!
//! The signature comes in `Authorization`, or in the query of a presigned URL, which is as good as a request that was sent
//! until it expires. Either way:
//!
//! - The time that was signed may differ from ours by 15 minutes; a presigned URL is good for 7 days at most.
//! - `Host` and every `x-amz-` field must be signed. Otherwise what was signed could be given another meaning.
//! - Signatures are compared in constant time.
//! - Version 2, which hashes with SHA-1 and signs less, is refused.
//!
//! The region is part of what is signed, and any will do.
//!
//! Source: "Authenticating Requests (AWS Signature Version 4)" in the Amazon S3 API Reference.

use hmac::{Hmac, KeyInit, Mac};
use hyper::http::HeaderValue;
use hyper::{HeaderMap, Method, Uri, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use sha2::{Digest, Sha256};

use super::problem::Problem;
use super::target::Query;
use crate::access::Secret;
use crate::server::Head;

/// So far a client's clock may differ from ours, in seconds.
const SKEW: u64 = 15 * 60;

/// So long a presigned URL may be good, in seconds.
const LONGEST: u64 = 7 * 24 * 60 * 60;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What canonical requests do not escape.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const ESCAPED_IN_PATH: &AsciiSet = &ESCAPED.remove(b'/');

/// The header field that says what stands for the body in a signature.
pub(super) const CONTENT_SHA256: &str = "x-amz-content-sha256";

/// What stands for the body if it is not signed.
pub(super) const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// What a request says of the key that has signed it, before that is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// Which key.
    pub(super) key: String,
    /// `DATE/REGION/s3/aws4_request`.
    scope: String,
    /// `20261122T101657Z`.
    time: String,
    signed_headers: Vec<String>,
    signature: [u8; 32],
    is_presigned: bool,
}

/// What signs the parts of a body, of a request whose own signature is right.
pub(super) struct Signer {
    key: Vec<u8>,
    scope: String,
    time: String,
    /// The last signature: each part's is made of the one before.
    last: String,
}

impl Claim {
    /// What a request claims; `None` if it is not signed. `now` is in seconds since 1970.
    pub(super) fn of(head: &Head, query: &Query, now: u64) -> Result<Option<Self>, Problem> {
        let authorization = head.headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        let is_presigned = query.get("X-Amz-Algorithm").is_some() || query.get("X-Amz-Signature").is_some();
        let is_v2 = query.get("AWSAccessKeyId").is_some() && query.get("Signature").is_some();
        if is_v2 || authorization.is_some_and(|text| text.starts_with(b"AWS ")) {
            let message = "signature version 2 is not accepted: sign with version 4 (AWS4-HMAC-SHA256)";
            return Err(Problem::bad("InvalidRequest", message));
        }
        match (authorization, is_presigned) {
            (None, false) => Ok(None),
            (Some(_), true) => Err(malformed("a request is signed once: in Authorization, or in its query")),
            (Some(text), false) => {
                let claim = Self::of_header(std::str::from_utf8(text).unwrap_or_default(), &head.headers)?;
                if claim.seconds()?.abs_diff(now) > SKEW {
                    let message = "the time of the request and the gateway's clock differ by more than 15 minutes";
                    return Err(Problem::forbidden("RequestTimeTooSkewed", message));
                }
                Ok(Some(claim))
            }
            (None, true) => Self::of_query(query, now).map(Some),
        }
    }

    fn of_header(text: &str, headers: &HeaderMap) -> Result<Self, Problem> {
        let fields = text.strip_prefix(ALGORITHM).ok_or_else(|| {
            Problem::bad("InvalidRequest", "only signatures of version 4 are accepted (AWS4-HMAC-SHA256)")
        })?;
        let field = |name: &str| {
            let mut fields = fields.split(',').map(str::trim);
            let found = fields.find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
            found.ok_or_else(|| malformed(&format!("{name} is missing in Authorization")))
        };
        let time = headers.get("x-amz-date").and_then(|value| value.to_str().ok());
        let time =
            time.ok_or_else(|| Problem::forbidden("AccessDenied", "a signed request has its time in x-amz-date"))?;
        Self::new(field("Credential")?, time, field("SignedHeaders")?, field("Signature")?, false)
    }

    fn of_query(query: &Query, now: u64) -> Result<Self, Problem> {
        let bad = |message: &str| Problem::bad("AuthorizationQueryParametersError", message);
        let field = |name: &str| query.get(name).ok_or_else(|| bad(&format!("{name} is missing")));
        if field("X-Amz-Algorithm")? != ALGORITHM {
            return Err(bad("X-Amz-Algorithm is AWS4-HMAC-SHA256"));
        }
        let (credential, time) = (field("X-Amz-Credential")?, field("X-Amz-Date")?);
        let claim = Self::new(credential, time, field("X-Amz-SignedHeaders")?, field("X-Amz-Signature")?, true)?;
        let expires: u64 = field("X-Amz-Expires")?.parse().map_err(|_| bad("X-Amz-Expires is a number of seconds"))?;
        if !(1..=LONGEST).contains(&expires) {
            return Err(bad("X-Amz-Expires is 1 to 604800 seconds: 7 days at most"));
        }
        let begin = claim.seconds()?;
        if now + SKEW < begin {
            return Err(Problem::forbidden("AccessDenied", "the URL is not good yet: X-Amz-Date is in the future"));
        }
        if now > begin + expires {
            return Err(Problem::forbidden("AccessDenied", "the URL has expired"));
        }
        Ok(claim)
    }

    fn new(credential: &str, time: &str, headers: &str, signature: &str, is_presigned: bool) -> Result<Self, Problem> {
        let (key, scope) = credential.split_once('/').ok_or_else(|| malformed("a credential is KEY/SCOPE"))?;
        let words: Vec<&str> = scope.split('/').collect();
        let [date, _region, "s3", "aws4_request"] = words[..] else {
            return Err(malformed("the scope of a credential is DATE/REGION/s3/aws4_request"));
        };
        if !time.starts_with(date) || date.len() != 8 {
            return Err(malformed("the date of the credential is not that of the request"));
        }
        let signature = unhex(signature).ok_or_else(|| malformed("a signature is 64 hexadecimal digits"))?;
        let signed_headers = headers.split(';').map(str::to_ascii_lowercase).collect();
        let (key, scope, time) = (key.to_owned(), scope.to_owned(), time.to_owned());
        let claim = Self { key, scope, time, signed_headers, signature, is_presigned };
        claim.seconds()?;
        Ok(claim)
    }

    /// When it was signed, in seconds since 1970.
    fn seconds(&self) -> Result<u64, Problem> {
        seconds(&self.time).ok_or_else(|| malformed("a time is YYYYMMDDTHHMMSSZ"))
    }

    /// Checks the signature, and that it covers what it must.
    pub(super) fn verify(self, secret: &Secret, head: &Head, query: &Query) -> Result<Signer, Problem> {
        self.check_coverage(&head.headers)?;
        let canonical = self.canonical_request(&head.method, &head.uri, &head.headers, query);
        let text = format!("{ALGORITHM}\n{}\n{}\n{}", self.time, self.scope, hex(&Sha256::digest(canonical)));
        let secret = format!("AWS4{}", secret.as_str()).into_bytes();
        let key = self.scope.split('/').fold(secret, |key, word| hmac(&key, word.as_bytes()).to_vec());
        if mac(&key, text.as_bytes()).verify_slice(&self.signature).is_err() {
            let message = "the signature does not fit the request and the key's secret";
            return Err(Problem::forbidden("SignatureDoesNotMatch", message));
        }
        Ok(Signer { key, scope: self.scope, time: self.time, last: hex(&self.signature) })
    }

    /// What decides what a request means must be signed.
    fn check_coverage(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let is_signed = |name: &str| self.signed_headers.iter().any(|signed| signed == name);
        let must_be = |name: &str| name == "host" || name.starts_with("x-amz-");
        match headers.keys().map(|name| name.as_str()).find(|name| must_be(name) && !is_signed(name)) {
            None => Ok(()),
            Some(name) => Err(Problem::forbidden("AccessDenied", format!("the field {name} is not signed"))),
        }
    }

    fn canonical_request(&self, method: &Method, uri: &Uri, headers: &HeaderMap, query: &Query) -> String {
        let path: Vec<u8> = percent_decode_str(uri.path()).collect();
        let path = percent_encode(&path, ESCAPED_IN_PATH);
        let escaped = |text: &str| percent_encode(text.as_bytes(), ESCAPED).to_string();
        let is_covered = |name: &str| !(self.is_presigned && name == "X-Amz-Signature");
        let words = query.0.iter().filter(|(name, _)| is_covered(name));
        let mut words: Vec<_> = words.map(|(name, value)| (escaped(name), escaped(value))).collect();
        words.sort();
        let words: Vec<String> = words.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut text = format!("{method}\n{path}\n{}\n", words.join("&"));
        for name in &self.signed_headers {
            let values = headers.get_all(name.as_str()).iter();
            let values: Vec<String> = values.map(|value| trimmed(&String::from_utf8_lossy(value.as_bytes()))).collect();
            text.push_str(&format!("{name}:{}\n", values.join(",")));
        }
        let payload = headers.get(CONTENT_SHA256).and_then(|value| value.to_str().ok());
        let payload = payload.unwrap_or(UNSIGNED);
        text.push_str(&format!("\n{}\n{payload}", self.signed_headers.join(";")));
        text
    }
}

impl Signer {
    /// Whether this is the signature of the next part of the body, which has this SHA-256.
    pub(super) fn is_next(&mut self, signature: &[u8; 32], sha256: &[u8]) -> bool {
        let empty = hex(&Sha256::digest(b""));
        self.follows("AWS4-HMAC-SHA256-PAYLOAD", &format!("{empty}\n{}", hex(sha256)), signature)
    }

    /// Whether this is the signature of the trailer, whose canonical lines are these.
    pub(super) fn is_trailer(&mut self, signature: &[u8; 32], lines: &str) -> bool {
        self.follows("AWS4-HMAC-SHA256-TRAILER", &hex(&Sha256::digest(lines)), signature)
    }

    fn follows(&mut self, algorithm: &str, what: &str, signature: &[u8; 32]) -> bool {
        let text = format!("{algorithm}\n{}\n{}\n{}\n{what}", self.time, self.scope, self.last);
        self.last = hex(signature);
        mac(&self.key, text.as_bytes()).verify_slice(signature).is_ok()
    }
}

fn malformed(message: &str) -> Problem {
    Problem::bad("AuthorizationHeaderMalformed", message)
}

fn mac(key: &[u8], text: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length will do");
    mac.update(text);
    mac
}

fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    mac(key, text).finalize().into_bytes().into()
}

/// Without blanks at the ends, and with one for several.
fn trimmed(value: &str) -> String {
    value.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ").trim().to_owned()
}

/// In lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What so many bytes are in hexadecimal digits.
pub(super) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).ok()?;
    }
    Some(bytes)
}

/// Seconds since 1970 of `20261122T101657Z`.
fn seconds(time: &str) -> Option<u64> {
    let (date, of_day) = time.strip_suffix('Z')?.split_once('T')?;
    let is_plain = |text: &str, length| text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_plain(date, 8) || !is_plain(of_day, 6) {
        return None;
    }
    let number = |text: &str| text.parse::<u64>().ok();
    let (year, month, day) = (number(&date[..4])?, number(&date[4..6])?, number(&date[6..])?);
    let (hour, minute, second) = (number(&of_day[..2])?, number(&of_day[2..4])?, number(&of_day[4..])?);
    let is_time = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 60;
    if !is_time {
        return None;
    }
    // Years that begin in March: a leap day is the last of its year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let days = days.checked_sub(719_468)?; // those until 1970
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    /// The key and the time of Amazon's published examples.
    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    const NOW: u64 = 1_369_353_600; // 20130524T000000Z
    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn head(lines: &[&str]) -> Head {
        let mut words = lines[0].split(' ');
        let mut request = Request::builder().method(words.next().unwrap()).uri(words.next().unwrap());
        for line in &lines[1..] {
            let (name, value) = line.split_once(':').unwrap();
            request = request.header(name, value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn verified(lines: &[&str], now: u64) -> Result<Option<Signer>, &'static str> {
        let head = head(lines);
        let query = Query::of(&head.uri).unwrap();
        let claim = Claim::of(&head, &query, now).map_err(|problem| problem.code)?;
        let secret = Secret::of(SECRET);
        claim.map(|claim| claim.verify(&secret, &head, &query)).transpose().map_err(|problem| problem.code)
    }

    fn authorization(headers: &str, signature: &str) -> String {
        format!(
            "Authorization:AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders={headers},\
             Signature={signature}"
        )
    }

    /// Amazon's example of a GET of a range.
    fn example() -> Vec<String> {
        let signature = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
        vec![
            "GET /test.txt".into(),
            "Host:examplebucket.s3.amazonaws.com".into(),
            authorization("host;range;x-amz-content-sha256;x-amz-date", signature),
            "Range:bytes=0-9".into(),
            format!("x-amz-content-sha256:{EMPTY}"),
            "x-amz-date:20130524T000000Z".into(),
        ]
    }

    fn lines(example: &[String]) -> Vec<&str> {
        example.iter().map(String::as_str).collect()
    }

    #[test]
    fn published_examples_are_verified() {
        assert!(verified(&lines(&example()), NOW).unwrap().is_some());
        let put = "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd";
        let put = authorization("date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class", put);
        let put = [
            "PUT /test$file.text",
            "Host:examplebucket.s3.amazonaws.com",
            "Date:Fri, 24 May 2013 00:00:00 GMT",
            &put,
            "x-amz-date:20130524T000000Z",
            "x-amz-storage-class:REDUCED_REDUNDANCY",
            "x-amz-content-sha256:44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
        ];
        assert!(verified(&put, NOW).unwrap().is_some());
        for (uri, signature) in [
            ("/?lifecycle", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
            ("/?max-keys=2&prefix=J", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
        ] {
            let signed = authorization("host;x-amz-content-sha256;x-amz-date", signature);
            let get = format!("GET {uri}");
            let body = format!("x-amz-content-sha256:{EMPTY}");
            let list = [&get, "Host:examplebucket.s3.amazonaws.com", "x-amz-date:20130524T000000Z", &signed, &body];
            assert!(verified(&list, NOW).unwrap().is_some(), "{uri}");
        }
    }

    const PRESIGNED: &str = "GET /test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2F\
        aws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&\
        X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";

    #[test]
    fn a_presigned_url_is_good_until_it_expires() {
        let ask = |url: &str, now| verified(&[url, "Host:examplebucket.s3.amazonaws.com"], now).map(|_| ());
        for (now, expected) in [
            (NOW, Ok(())),
            (NOW + 86_400, Ok(())),
            (NOW + 86_401, Err("AccessDenied")),
            (NOW - SKEW, Ok(())),
            (NOW - SKEW - 1, Err("AccessDenied")),
        ] {
            assert_eq!(ask(PRESIGNED, now), expected, "{now}");
        }
        for (from, to, code) in [
            ("Expires=86400", "Expires=86401", "SignatureDoesNotMatch"),
            ("Expires=86400", "Expires=604801", "AuthorizationQueryParametersError"),
            ("Expires=86400", "Expires=0", "AuthorizationQueryParametersError"),
            ("Expires=86400", "Expires=x", "AuthorizationQueryParametersError"),
            ("&X-Amz-Expires=86400", "", "AuthorizationQueryParametersError"),
            ("/test.txt", "/test.txu", "SignatureDoesNotMatch"),
            ("GET", "PUT", "SignatureDoesNotMatch"),
            ("SignedHeaders=host", "SignedHeaders=date", "AccessDenied"),
            ("4d404", "4d405", "SignatureDoesNotMatch"),
            ("Algorithm=AWS4-HMAC-SHA256", "Algorithm=none", "AuthorizationQueryParametersError"),
        ] {
            assert_eq!(ask(&PRESIGNED.replace(from, to), NOW), Err(code), "{to}");
        }
        assert_eq!(ask(&format!("{PRESIGNED}&acl"), NOW), Err("SignatureDoesNotMatch"), "the query is signed");
    }

    #[test]
    fn what_was_changed_after_signing_is_refused() {
        for (from, to, code) in [
            ("GET", "HEAD", "SignatureDoesNotMatch"),
            ("/test.txt", "/test.txt?acl", "SignatureDoesNotMatch"),
            ("bytes=0-9", "bytes=0-8", "SignatureDoesNotMatch"),
            ("Host:example", "Host:exemple", "SignatureDoesNotMatch"),
            ("/us-east-1/", "/us-east-2/", "SignatureDoesNotMatch"),
            ("x-amz-date:20130524T000000Z", "x-amz-date:20130524T000001Z", "SignatureDoesNotMatch"),
            ("sha256:e3b0", "sha256:e3b1", "SignatureDoesNotMatch"),
            ("db41", "db42", "SignatureDoesNotMatch"),
            ("Range:bytes=0-9", "x-amz-meta-a:b", "AccessDenied"),
            ("host;range;", "range;", "AccessDenied"),
            ("db41", "db4", "AuthorizationHeaderMalformed"),
            ("db41", "db4g", "AuthorizationHeaderMalformed"),
            ("/s3/", "/iam/", "AuthorizationHeaderMalformed"),
            ("/20130524/", "/20130525/", "AuthorizationHeaderMalformed"),
            ("Signature=", "Sig=", "AuthorizationHeaderMalformed"),
            ("AWS4-HMAC-SHA256 C", "AWS4-ECDSA-P256-SHA256 C", "InvalidRequest"),
            ("AWS4-HMAC-SHA256 C", "AWS C", "InvalidRequest"),
            ("x-amz-date:", "x-date:", "AccessDenied"),
        ] {
            let changed: Vec<String> = example().iter().map(|line| line.replace(from, to)).collect();
            assert_ne!(changed, example(), "{to}");
            assert_eq!(verified(&lines(&changed), NOW).err(), Some(code), "{to}");
        }
    }

    #[test]
    fn a_signature_is_good_for_a_quarter_of_an_hour() {
        for (now, is_good) in [(NOW - SKEW, true), (NOW + SKEW, true), (NOW - SKEW - 1, false), (NOW + SKEW + 1, false)]
        {
            let found = verified(&lines(&example()), now).map(|_| ());
            assert_eq!(found, if is_good { Ok(()) } else { Err("RequestTimeTooSkewed") }, "{now}");
        }
    }

    #[test]
    fn a_request_that_names_no_key_is_not_signed() {
        assert!(matches!(verified(&["GET /b/k?list-type=2", "Host:h"], NOW), Ok(None)));
        let version_2 = ["GET /b?AWSAccessKeyId=x&Expires=1&Signature=y", "Host:h"];
        assert_eq!(verified(&version_2, NOW).err(), Some("InvalidRequest"));
        let twice = format!("{PRESIGNED}\n{}", example()[2]);
        let twice: Vec<&str> = twice.lines().chain(["Host:h"]).collect();
        assert_eq!(verified(&twice, NOW).err(), Some("AuthorizationHeaderMalformed"));
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (text, expected) in [
            ("19700101T000000Z", Some(0)),
            ("20130524T000000Z", Some(NOW)),
            ("20000229T235959Z", Some(951_868_799)),
            ("20240229T000000Z", Some(1_709_164_800)),
            ("21000301T000000Z", Some(4_107_542_400)),
            ("20131324T000000Z", None),
            ("20130524T240000Z", None),
            ("20130524T000000", None),
            ("2013052T0000000Z", None),
            ("+0130524T000000Z", None),
            ("19691231T235959Z", None),
            ("00000300T000000Z", None),
            ("00000001T000000Z", None),
            ("", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }
}
