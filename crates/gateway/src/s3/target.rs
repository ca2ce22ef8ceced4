//! Which bucket and object a request is about, and what it says behind `?`.
//!
//! A bucket is a folder directly below the root, and the object `a/b` of the bucket `x` is the file `/x/a/b`. So a key must
//! be a path: `a//b`, `..` and the like name nothing, and are refused. A key that ends in `/` is a folder that was made
//! explicitly.

use depot::path::{InvalidPath, LONGEST_NEW_PATH, Path};
use hyper::{StatusCode, Uri};
use percent_encoding::percent_decode_str;

use super::problem::Problem;
use crate::http::RESERVED;

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// All buckets.
    Service,
    /// A bucket: its path.
    Bucket(Path),
    /// An object.
    Object(Place),
}

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The bucket's path.
    pub(super) bucket: Path,
    /// As S3 calls it.
    pub(super) key: String,
    /// In the store.
    pub(super) path: Path,
    /// The key ends in `/`.
    pub(super) is_folder: bool,
}

impl Target {
    pub(super) fn of(uri: &Uri) -> Result<Self, Problem> {
        Self::decoded(&decoded(uri.path().strip_prefix('/').unwrap_or_default())?)
    }

    /// What `bucket/key` names. Nothing is decoded any more.
    fn decoded(text: &str) -> Result<Self, Problem> {
        let (bucket, key) = text.split_once('/').unwrap_or((text, ""));
        if text.is_empty() {
            return Ok(Self::Service);
        }
        let bad = |error: InvalidPath| Problem::bad("InvalidBucketName", format!("{bucket:?}: {error}"));
        if bucket.is_empty() {
            return Err(bad(InvalidPath::EmptyComponent)); // or it would be the root
        }
        let bucket = Path::root().join(bucket).map_err(bad)?;
        if bucket.components().next() == Some(RESERVED) {
            let message = format!("/{RESERVED}/ is the store's own: nothing there can be read or changed");
            return Err(Problem::forbidden("AccessDenied", message));
        }
        if key.is_empty() { Ok(Self::Bucket(bucket)) } else { Place::new(bucket, key).map(Self::Object) }
    }
}

impl Place {
    /// Where an object of a bucket is.
    pub(super) fn new(bucket: Path, key: &str) -> Result<Self, Problem> {
        let (inner, is_folder) = key.strip_suffix('/').map_or((key, false), |inner| (inner, true));
        let path: Path = format!("{bucket}/{inner}").parse().map_err(|error: InvalidPath| {
            let code = if error == InvalidPath::ComponentTooLong { "KeyTooLongError" } else { "InvalidObjectName" };
            Problem::bad(code, format!("{key:?} cannot be a key here, because keys are paths: {error}"))
        })?;
        if path.as_str().len() > LONGEST_NEW_PATH {
            let message = format!("a path has at most {LONGEST_NEW_PATH} bytes");
            return Err(Problem::bad("KeyTooLongError", message));
        }
        Ok(Self { bucket, key: key.to_owned(), path, is_folder })
    }

    /// What `x-amz-copy-source` names.
    pub(super) fn of_copy_source(text: &str) -> Result<Self, Problem> {
        let (text, version) = text.split_once("?versionId=").unwrap_or((text, "null"));
        check_version(Some(version))?;
        match Target::decoded(&decoded(text.strip_prefix('/').unwrap_or(text))?)? {
            Target::Object(place) => Ok(place),
            _ => Err(Problem::bad("InvalidArgument", "x-amz-copy-source is a bucket and a key: BUCKET/KEY")),
        }
    }

    /// The bucket's name.
    pub(super) fn bucket_name(&self) -> &str {
        name_of(&self.bucket)
    }

    /// For messages.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.bucket_name(), self.key)
    }
}

/// What a bucket at this path is called.
pub(super) fn name_of(bucket: &Path) -> &str {
    bucket.components().next().unwrap_or_default()
}

/// Every object has one version, which S3 calls `null`.
pub(super) fn check_version(version: Option<&str>) -> Result<(), Problem> {
    match version {
        None | Some("null") => Ok(()),
        Some(version) => {
            let message = format!("{version}: there are no versions here: each object has one, called null");
            Err(Problem::new(StatusCode::NOT_FOUND, "NoSuchVersion", message))
        }
    }
}

/// The words behind `?`, decoded, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(pub(super) Vec<(String, String)>);

impl Query {
    pub(super) fn of(uri: &Uri) -> Result<Self, Problem> {
        let word = |word: &str| {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            Ok((decoded(name)?, decoded(value)?))
        };
        let words = uri.query().unwrap_or_default().split('&').filter(|word| !word.is_empty());
        words.map(word).collect::<Result<_, Problem>>().map(Self)
    }

    /// What it says of this; empty if it only names it.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(there, _)| there == name).map(|(_, value)| value.as_str())
    }

    /// A number that it must say, if it says anything.
    pub(super) fn number(&self, name: &'static str, most: usize) -> Result<Option<usize>, Problem> {
        let read = |text: &str| match text.parse::<u32>() {
            Ok(number) => Ok((number as usize).min(most)),
            Err(_) => Err(Problem::bad("InvalidArgument", format!("{name}={text}: expected a number"))),
        };
        self.get(name).filter(|text| !text.is_empty()).map(read).transpose()
    }
}

fn decoded(text: &str) -> Result<String, Problem> {
    let bad = |why| Problem::bad("InvalidURI", format!("{text}: {why}"));
    let mut after_percent = text.split('%').skip(1);
    if !after_percent.all(|rest| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit())) {
        return Err(bad("two hexadecimal digits follow each %"));
    }
    percent_decode_str(text).decode_utf8().map(Into::into).map_err(|_| bad("a name is UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(uri: &str) -> Result<Target, Problem> {
        Target::of(&uri.parse().expect("a URI"))
    }

    #[test]
    fn a_url_names_a_bucket_and_a_key() {
        let bucket = |path: &str| Target::Bucket(path.parse().unwrap());
        let object = |bucket: &str, key: &str, path: &str, is_folder| {
            let (bucket, path) = (bucket.parse().unwrap(), path.parse().unwrap());
            Target::Object(Place { bucket, key: key.into(), path, is_folder })
        };
        for (uri, expected) in [
            ("/", Target::Service),
            ("/b", bucket("/b")),
            ("/b/", bucket("/b")),
            ("/My%20Files", bucket("/My Files")),
            ("/.stevedoreX", bucket("/.stevedoreX")),
            ("/b/a", object("/b", "a", "/b/a", false)),
            ("/b/a/", object("/b", "a/", "/b/a", true)),
            ("/b/a%2Fc", object("/b", "a/c", "/b/a/c", false)),
            ("/b/%25%2B+%20", object("/b", "%++ ", "/b/%++ ", false)),
            ("/b/.stevedore/x", object("/b", ".stevedore/x", "/b/.stevedore/x", false)),
            ("/b/na%C3%AFve", object("/b", "naïve", "/b/naïve", false)),
        ] {
            assert_eq!(target(uri).unwrap(), expected, "{uri}");
        }
    }

    #[test]
    fn a_key_that_is_no_path_is_refused_with_the_reason() {
        let long = format!("/b/{}", "x".repeat(1025));
        let very_long = format!("/b/{}", "x/".repeat(2048));
        for (uri, status, code) in [
            ("/b//a", 400, "InvalidObjectName"),
            ("/b/a//c", 400, "InvalidObjectName"),
            ("/b/a//", 400, "InvalidObjectName"),
            ("/b/..", 400, "InvalidObjectName"),
            ("/b/../c", 400, "InvalidObjectName"),
            ("/b/%2e%2e/c", 400, "InvalidObjectName"),
            ("/b/..%2f..%2f.stevedore", 400, "InvalidObjectName"),
            ("/b/.", 400, "InvalidObjectName"),
            ("/b/%00", 400, "InvalidObjectName"),
            ("/../b", 400, "InvalidBucketName"),
            ("//b/a", 400, "InvalidBucketName"),
            ("//", 400, "InvalidBucketName"),
            ("/%2F", 400, "InvalidBucketName"),
            ("/%2e%2e", 400, "InvalidBucketName"),
            ("/b/%ff", 400, "InvalidURI"),
            ("/b/%4", 400, "InvalidURI"),
            (&long, 400, "KeyTooLongError"),
            (&very_long, 400, "KeyTooLongError"),
            ("/.stevedore", 403, "AccessDenied"),
            ("/.stevedore/users/alice", 403, "AccessDenied"),
            ("/%2estevedore/users", 403, "AccessDenied"),
            ("/.stevedore%2Fusers", 403, "AccessDenied"),
        ] {
            let problem = target(uri).expect_err(uri);
            assert_eq!((problem.status.as_u16(), problem.code), (status, code), "{uri}");
        }
    }

    #[test]
    fn a_copy_source_is_decoded_once() {
        for (text, expected) in [
            ("b/a", "/b/a"),
            ("/b/a", "/b/a"),
            ("b/a%2Bb", "/b/a+b"),
            ("/b/a?versionId=null", "/b/a"),
            ("b/%252e%252e", "/b/%2e%2e"),
        ] {
            assert_eq!(Place::of_copy_source(text).unwrap().path.as_str(), expected, "{text}");
        }
        for (text, code) in [
            ("b", "InvalidArgument"),
            ("", "InvalidArgument"),
            ("b/../c", "InvalidObjectName"),
            ("b/%2e%2e/c", "InvalidObjectName"),
            ("//b/a", "InvalidBucketName"),
            (".stevedore/users/alice", "AccessDenied"),
            ("%2estevedore/users/alice", "AccessDenied"),
            ("b/a?versionId=1", "NoSuchVersion"),
        ] {
            assert_eq!(Place::of_copy_source(text).expect_err(text).code, code, "{text}");
        }
    }
}
