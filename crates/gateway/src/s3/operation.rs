//! Which of S3's operations a request is.

use hyper::{HeaderMap, Method};

use super::problem::Problem;
use super::target::{Query, Target};

/// What this gateway can be asked to do. docs/s3.md has the same list, with what is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    ListBuckets,
    CreateBucket,
    HeadBucket,
    DeleteBucket,
    ListObjects,
    ListObjectsV2,
    ListMultipartUploads,
    DeleteObjects,
    /// One of those that ask how a bucket is configured: the same for all.
    BucketConfiguration(Configuration),
    GetObject,
    HeadObject,
    PutObject,
    CopyObject,
    DeleteObject,
    GetObjectAcl,
    GetObjectTagging,
    PutObjectTagging,
    DeleteObjectTagging,
    CreateMultipartUpload,
    UploadPart,
    UploadPartCopy,
    CompleteMultipartUpload,
    AbortMultipartUpload,
    ListParts,
}

/// What can be asked about a bucket's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Configuration {
    Location,
    Versioning,
    Acl,
    RequestPayment,
    Logging,
    Notification,
    /// There is none of this kind, which S3 says by this code.
    None(&'static str),
}

/// Words of a query that make a request another operation.
#[rustfmt::skip]
const SUBRESOURCES: &[&str] = &[
    "acl", "delete", "location", "logging", "notification", "requestPayment", "tagging", "uploads", "versioning",
    // A bucket has none of these.
    "cors", "encryption", "lifecycle", "object-lock", "ownershipControls", "policy", "policyStatus", "publicAccessBlock",
    "replication", "website",
    // Not done here.
    "accelerate", "analytics", "attributes", "intelligent-tiering", "inventory", "legal-hold", "metadataConfiguration",
    "metadataTable", "metrics", "renameObject", "restore", "retention", "select", "session", "torrent", "versions",
];

/// Which operation it is.
pub(super) fn operation(
    method: &Method,
    target: &Target,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Operation, Problem> {
    use Operation as O;
    let subresource = SUBRESOURCES.iter().copied().find(|name| query.get(name).is_some());
    let is_part = query.get("uploadId").is_some();
    let is_copy = headers.contains_key("x-amz-copy-source");
    let operation = match (target, method.as_str(), subresource) {
        (Target::Service, "GET", None) => O::ListBuckets,
        (Target::Bucket(_), "PUT", None) => O::CreateBucket,
        (Target::Bucket(_), "HEAD", None) => O::HeadBucket,
        (Target::Bucket(_), "DELETE", None) => O::DeleteBucket,
        (Target::Bucket(_), "GET", None) if query.get("list-type") == Some("2") => O::ListObjectsV2,
        (Target::Bucket(_), "GET", None) => O::ListObjects,
        (Target::Bucket(_), "GET", Some("uploads")) => O::ListMultipartUploads,
        (Target::Bucket(_), "POST", Some("delete")) => O::DeleteObjects,
        (Target::Bucket(_), "GET", Some(name)) => {
            O::BucketConfiguration(configuration(name).ok_or_else(|| unknown(method, target, subresource))?)
        }
        (Target::Object(_), "GET", None) if is_part => O::ListParts,
        (Target::Object(_), "PUT", None) if is_part && is_copy => O::UploadPartCopy,
        (Target::Object(_), "PUT", None) if is_part => O::UploadPart,
        (Target::Object(_), "POST", None) if is_part => O::CompleteMultipartUpload,
        (Target::Object(_), "DELETE", None) if is_part => O::AbortMultipartUpload,
        (Target::Object(_), "POST", Some("uploads")) => O::CreateMultipartUpload,
        (Target::Object(_), "GET", None) => O::GetObject,
        (Target::Object(_), "HEAD", None) => O::HeadObject,
        (Target::Object(_), "PUT", None) if is_copy => O::CopyObject,
        (Target::Object(_), "PUT", None) => O::PutObject,
        (Target::Object(_), "DELETE", None) => O::DeleteObject,
        (Target::Object(_), "GET", Some("acl")) => O::GetObjectAcl,
        (Target::Object(_), "GET", Some("tagging")) => O::GetObjectTagging,
        (Target::Object(_), "PUT", Some("tagging")) => O::PutObjectTagging,
        (Target::Object(_), "DELETE", Some("tagging")) => O::DeleteObjectTagging,
        _ => return Err(unknown(method, target, subresource)),
    };
    Ok(operation)
}

fn configuration(name: &str) -> Option<Configuration> {
    use Configuration as C;
    Some(match name {
        "location" => C::Location,
        "versioning" => C::Versioning,
        "acl" => C::Acl,
        "requestPayment" => C::RequestPayment,
        "logging" => C::Logging,
        "notification" => C::Notification,
        "cors" => C::None("NoSuchCORSConfiguration"),
        "encryption" => C::None("ServerSideEncryptionConfigurationNotFoundError"),
        "lifecycle" => C::None("NoSuchLifecycleConfiguration"),
        "object-lock" => C::None("ObjectLockConfigurationNotFoundError"),
        "ownershipControls" => C::None("OwnershipControlsNotFoundError"),
        "policy" | "policyStatus" => C::None("NoSuchBucketPolicy"),
        "publicAccessBlock" => C::None("NoSuchPublicAccessBlockConfiguration"),
        "replication" => C::None("ReplicationConfigurationNotFoundError"),
        "tagging" => C::None("NoSuchTagSet"),
        "website" => C::None("NoSuchWebsiteConfiguration"),
        _ => return None,
    })
}

fn unknown(method: &Method, target: &Target, subresource: Option<&str>) -> Problem {
    let what = match target {
        Target::Service => "the service",
        Target::Bucket(_) => "a bucket",
        Target::Object(_) => "an object",
    };
    let question = subresource.map_or(String::new(), |name| format!(" with ?{name}"));
    Problem::not_implemented(&format!("{method} of {what}{question}"))
}

/// Header fields that ask for something that is not done here. To ignore them would break a promise.
const NOT_UNDERSTOOD: &[&str] = &[
    "x-amz-expected-bucket-owner",
    "x-amz-grant-",
    "x-amz-object-lock-",
    "x-amz-server-side-encryption",
    "x-amz-source-expected-bucket-owner",
    "x-amz-website-redirect-location",
    "x-amz-write-offset-bytes",
    "x-amz-copy-source-server-side-encryption",
    "x-amz-rename-source",
];

/// Refuses what is not done here, before anything is.
pub(super) fn refuse_unknown(headers: &HeaderMap) -> Result<(), Problem> {
    let mut names = headers.keys().map(|name| name.as_str());
    if let Some(name) = names.find(|name| NOT_UNDERSTOOD.iter().any(|start| name.starts_with(start))) {
        return Err(Problem::not_implemented(&format!("the header field {name}")));
    }
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    match text("x-amz-acl") {
        None | Some("private" | "bucket-owner-full-control" | "bucket-owner-read") => {}
        Some(acl) => {
            return Err(Problem::not_implemented(&format!("the ACL {acl} (stevedore user grant gives rights)")));
        }
    }
    match text("x-amz-storage-class") {
        None | Some("STANDARD") => Ok(()),
        Some(class) => {
            let message = format!("{class}: there is one storage class: STANDARD");
            Err(Problem::bad("InvalidStorageClass", message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderName;

    fn of(line: &str, headers: &[&'static str]) -> Result<Operation, Problem> {
        let (method, uri) = line.split_once(' ').unwrap();
        let uri = uri.parse().unwrap();
        let headers = headers.iter().map(|name| (HeaderName::from_static(name), "b/k".parse().unwrap())).collect();
        operation(&method.parse().unwrap(), &Target::of(&uri).unwrap(), &Query::of(&uri).unwrap(), &headers)
    }

    #[test]
    fn method_path_and_query_name_an_operation() {
        use Operation as O;
        for (line, expected) in [
            ("GET /", O::ListBuckets),
            ("GET /?x-id=ListBuckets", O::ListBuckets),
            ("PUT /b", O::CreateBucket),
            ("HEAD /b/", O::HeadBucket),
            ("DELETE /b", O::DeleteBucket),
            ("GET /b?list-type=2&prefix=a", O::ListObjectsV2),
            ("GET /b?delimiter=/", O::ListObjects),
            ("GET /b/", O::ListObjects),
            ("GET /b?uploads", O::ListMultipartUploads),
            ("POST /b?delete", O::DeleteObjects),
            ("GET /b?location", O::BucketConfiguration(Configuration::Location)),
            ("GET /b?policy=", O::BucketConfiguration(Configuration::None("NoSuchBucketPolicy"))),
            ("GET /b/k", O::GetObject),
            ("GET /b/k?response-content-type=a", O::GetObject),
            ("HEAD /b/k", O::HeadObject),
            ("PUT /b/k?x-id=PutObject", O::PutObject),
            ("DELETE /b/k", O::DeleteObject),
            ("GET /b/k?tagging", O::GetObjectTagging),
            ("POST /b/k?uploads", O::CreateMultipartUpload),
            ("PUT /b/k?partNumber=1&uploadId=u", O::UploadPart),
            ("POST /b/k?uploadId=u", O::CompleteMultipartUpload),
            ("DELETE /b/k?uploadId=u", O::AbortMultipartUpload),
            ("GET /b/k?uploadId=u", O::ListParts),
        ] {
            assert_eq!(of(line, &[]).unwrap(), expected, "{line}");
        }
        assert_eq!(of("PUT /b/k", &["x-amz-copy-source"]).unwrap(), O::CopyObject);
        assert_eq!(of("PUT /b/k?partNumber=1&uploadId=u", &["x-amz-copy-source"]).unwrap(), O::UploadPartCopy);
    }

    #[test]
    fn what_is_not_done_here_says_so() {
        for line in [
            "POST /",
            "POST /b",
            "PUT /b?versioning",
            "PUT /b?policy",
            "DELETE /b?policy",
            "GET /b?versions",
            "GET /b?inventory",
            "PUT /b/k?acl",
            "PUT /b/k?retention",
            "GET /b/k?torrent",
            "POST /b/k?restore",
            "POST /b/k?select&select-type=2",
            "POST /b/k",
            "PATCH /b/k",
        ] {
            assert_eq!(of(line, &[]).expect_err(line).code, "NotImplemented", "{line}");
        }
        for (name, value, code) in [
            ("x-amz-acl", "private", None),
            ("x-amz-acl", "public-read", Some("NotImplemented")),
            ("x-amz-storage-class", "STANDARD", None),
            ("x-amz-storage-class", "GLACIER", Some("InvalidStorageClass")),
            ("x-amz-server-side-encryption", "AES256", Some("NotImplemented")),
            ("x-amz-server-side-encryption-customer-key", "x", Some("NotImplemented")),
            ("x-amz-object-lock-mode", "GOVERNANCE", Some("NotImplemented")),
            ("x-amz-meta-x-amz-acl", "public-read", None),
        ] {
            let headers = HeaderMap::from_iter([(HeaderName::from_static(name), value.parse().unwrap())]);
            assert_eq!(refuse_unknown(&headers).err().map(|problem| problem.code), code, "{name}: {value}");
        }
    }
}
