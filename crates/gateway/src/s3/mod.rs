//! S3: buckets and objects, as aws, boto3, rclone, restic and s3cmd speak of them.
//!
//! A bucket is a folder directly below the root, and the object `a/b` of the bucket `x` is the file `/x/a/b`. So what is put
//! over S3 is there over HTTP as well, and the other way round. [docs/s3.md](../../../../docs/s3.md) lists every operation.
//!
//! S3 knows no folders, but a store does. What follows from that:
//!
//! - A key is a path. `a//b` and `..` are refused, and so is `a` beside `a/b`.
//! - The folders on the way to an object come and go with it. A key that ends in `/` is a folder that was made explicitly.
//! - To list with the delimiter `/` is to list a folder: it costs by the entries that are there, not by what is below.
//!
//! # What is kept with an object
//!
//! | | where |
//! |---|---|
//! | `x-amz-meta-NAME` | the attribute `NAME` |
//! | `Cache-Control`, `Content-Disposition`, `Content-Encoding`, `Content-Language`, `Expires` | the attribute `http:...` |
//! | tags | the attribute `tag:NAME` |
//! | MD5, which is the ETag; the ETag of what came in parts; the client's checksum | digests: they go with the content |
//!
//! MD5 and checksum are computed while the content streams through (`payload`), and enter the store in the same change as the
//! content. A file that came another way has an ETag made of its version. It has a dash in it, by which clients know that
//! it is no MD5. The store has a CRC-64/NVME of every file, so each object has that checksum at least.
//!
//! # Uploads in parts
//!
//! ```text
//! /.stevedore/uploads/BUCKET/ID/      begun: an explicit folder, with all that the object is to have but its content
//!                        00001        a part: a file
//!                        00002
//! ```
//!
//! To complete an upload is one change: the object is composed of the parts, no byte moves, and the parts are gone. An upload
//! that is not completed is removed a week after its last part came.
//!
//! # Order of work
//!
//! A request is refused as early as can be: for its signature, then for the sender's rights, then for what is there and for
//! conditions, all before its body is read. Rights are those of paths, so that a bucket is one prefix among others. What
//! was found to hold is insisted on in the change.
//!
//! | file | what |
//! |---|---|
//! | `signature` | which key has signed a request |
//! | `target`, `operation` | which bucket and object it is about, and what is to be done |
//! | `conditions` | what must hold for that |
//! | `payload`, `checksum` | bodies, and how they are verified |
//! | `bucket`, `listing` | buckets, and what is in them |
//! | `object`, `copy` | objects |
//! | `multipart`, `expiry` | uploads in parts |
//! | `problem`, `xml` | how it is said |

mod bucket;
mod checksum;
mod conditions;
mod copy;
mod expiry;
mod listing;
mod multipart;
mod object;
mod operation;
mod payload;
mod problem;
mod signature;
mod target;
mod xml;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use depot::client::Files;
use depot::path::Path;
use hyper::http::response::Builder;
use hyper::{HeaderMap, Method, Response, StatusCode, header};

use crate::access::{Access, Caller};
use crate::console::Console;
use crate::http::{Budget, admit};
use crate::locks::{Admission, Locks, Touched};
use crate::monitoring::{self, Journal};
use crate::server::{Answer, Body, Facade, Head, Reply, Request};
pub(crate) use expiry::Expiry;
use operation::{Operation, operation, refuse_unknown};
use payload::{Announcement, Backing, Payload};
use problem::Problem;
use signature::{Claim, Signer};
use target::{Query, Target};
use xml::{Document, Element};

/// The longest XML document of a client: it names 10,000 parts, or 1,000 keys.
const MOST_XML_BYTES: usize = 4 << 20;

/// The owner of everything: a store has rights, but no owners.
const OWNER: &str = "stevedore";

/// The façade. See the module.
pub(crate) struct S3 {
    pub(crate) store: Arc<dyn Files>,
    /// Which requests are let in.
    pub(crate) access: Arc<Access>,
    /// What WebDAV's clients keep others from changing.
    pub(crate) locks: Arc<Locks>,
    pub(crate) console: Arc<Console>,
    pub(crate) journal: Arc<Journal>,
    /// What uploads keep in memory is taken from this.
    pub(crate) uploads: Arc<Budget>,
    /// Only this machine can reach it.
    pub(crate) is_private: bool,
}

/// A request that is being answered.
struct Call {
    head: Head,
    body: Body,
    /// `None` once it was answered, or an answer has begun.
    reply: Option<Reply>,
    query: Query,
    caller: Caller,
    /// What has signed it, until the body needs that.
    signer: Option<Signer>,
    /// What was answered, for the log.
    status: StatusCode,
    came: Instant,
    /// How long it took until its answer began.
    waited: Duration,
}

impl Call {
    /// Answers.
    fn send(&mut self, status: StatusCode, head: Builder, body: impl Into<bytes::Bytes>) {
        let head = self.answered(status, head);
        if let Some(reply) = self.reply.take() {
            reply.send(head, body);
        }
    }

    /// Answers with a document.
    fn send_xml(&mut self, head: Builder, root: &str, fill: impl FnOnce(&mut Document)) {
        let head = head.header(header::CONTENT_TYPE, "application/xml");
        self.send(StatusCode::OK, head, Document::of(root, fill));
    }

    /// Begins an answer of this length that is written bit by bit; `None` if there was one already.
    fn begin(&mut self, status: StatusCode, head: Builder, length: u64) -> Option<Answer> {
        let head = self.answered(status, head);
        Some(self.reply.take()?.begin(head, Some(length)))
    }

    fn answered(&mut self, status: StatusCode, head: Builder) -> Builder {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        (self.status, self.waited) = (status, self.came.elapsed());
        head.status(status).header("x-amz-request-id", format!("{:016X}", NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    /// A header field, if it is text.
    fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    /// What the client says of the content that it sends.
    fn announcement(&self) -> Result<Announcement, Problem> {
        Announcement::of(&self.head.headers, self.body.length())
    }
}

impl Facade for S3 {
    fn serve(&self, request: Request, reply: Reply) {
        let Request { head, body, peer } = request;
        let sent = reply.sent();
        let mut call = Call {
            head,
            body,
            reply: Some(reply),
            query: Query::default(),
            caller: Caller::Stranger,
            signer: None,
            status: StatusCode::OK,
            came: Instant::now(),
            waited: Duration::ZERO,
        };
        if let Err(problem) = self.answer(&mut call) {
            refuse(&mut call, problem);
        }
        let Call { head, caller, status, waited, .. } = &call;
        let (user, sent, facade) = (caller.name(), sent.load(Ordering::Relaxed), monitoring::Facade::S3);
        self.journal.note_http(
            facade,
            (peer, user),
            head,
            monitoring::Answer { status: *status, sent, waited: *waited },
        );
    }
}

/// Tells the client what went wrong, unless an answer has begun.
fn refuse(call: &mut Call, problem: Problem) {
    let Problem { status, code, message, headers } = problem;
    log::debug!("{} {}: {code}: {message}", call.head.method, call.head.uri.path());
    let mut head = Response::builder().header(header::CONTENT_TYPE, "application/xml");
    for (name, value) in headers {
        head = head.header(name, value);
    }
    let body = Document::error(|error| {
        error.text("Code", code);
        error.text("Message", message);
        error.text("Resource", call.head.uri.path());
    });
    let body =
        if call.head.method == Method::HEAD || status == StatusCode::NOT_MODIFIED { String::new() } else { body };
    call.send(status, head, body);
}

/// What locks say, as S3 does.
fn locked(problem: crate::http::Problem) -> Problem {
    match problem.status {
        StatusCode::LOCKED => Problem::new(StatusCode::CONFLICT, "ObjectLocked", problem.message),
        status => Problem::new(status, "InternalError", problem.message),
    }
}

impl S3 {
    fn answer(&self, call: &mut Call) -> Result<(), Problem> {
        call.query = Query::of(&call.head.uri)?;
        let target = Target::of(&call.head.uri)?;
        self.identify(call)?;
        let operation = operation(&call.head.method, &target, &call.query, &call.head.headers)?;
        refuse_unknown(&call.head.headers)?;
        self.perform(call, operation, &target)
    }

    /// Finds out which user has sent the request.
    fn identify(&self, call: &mut Call) -> Result<(), Problem> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let Some(claim) = Claim::of(&call.head, &call.query, now)? else {
            // A page of another site cannot sign anything, but it can have a browser send what is not signed.
            admit(&call.head, self.is_private)
                .map_err(|problem| Problem::forbidden("AccessDenied", problem.message))?;
            call.caller = self.access.without_user()?;
            return Ok(());
        };
        let found = self.access.key(&claim.key).map_err(|error| Problem::of("the users", &error))?;
        let Some((user, secret)) = found else {
            let message = format!("{}: there is no such access key (stevedore user key add NAME)", claim.key);
            return Err(Problem::forbidden("InvalidAccessKeyId", message));
        };
        call.signer = Some(claim.verify(&secret, &call.head, &call.query)?);
        call.caller = Caller::User(user);
        Ok(())
    }

    fn perform(&self, call: &mut Call, operation: Operation, target: &Target) -> Result<(), Problem> {
        use Operation as O;
        match (target, operation) {
            (Target::Service, _) => self.list_buckets(call),
            (Target::Bucket(bucket), operation) => match operation {
                O::CreateBucket => self.create_bucket(call, bucket),
                O::HeadBucket => self.head_bucket(call, bucket),
                O::DeleteBucket => self.delete_bucket(call, bucket),
                O::BucketConfiguration(what) => self.bucket_configuration(call, bucket, what),
                O::ListObjectsV2 => self.list_objects(call, bucket, true),
                O::ListMultipartUploads => self.list_multipart_uploads(call, bucket),
                O::DeleteObjects => self.delete_objects(call, bucket),
                _ => self.list_objects(call, bucket, false),
            },
            (Target::Object(place), operation) => match operation {
                O::PutObject => self.put_object(call, place),
                O::CopyObject => self.copy_object(call, place),
                O::DeleteObject => self.delete_object(call, place),
                O::GetObjectAcl => self.get_object_acl(call, place),
                O::GetObjectTagging => self.get_object_tagging(call, place),
                O::PutObjectTagging => self.put_object_tagging(call, place),
                O::DeleteObjectTagging => self.delete_object_tagging(call, place),
                O::CreateMultipartUpload => self.create_multipart_upload(call, place),
                O::UploadPart => self.upload_part(call, place),
                O::UploadPartCopy => self.upload_part_copy(call, place),
                O::CompleteMultipartUpload => self.complete_multipart_upload(call, place),
                O::AbortMultipartUpload => self.abort_multipart_upload(call, place),
                O::ListParts => self.list_parts(call, place),
                _ => self.get_object(call, place),
            },
        }
    }

    /// Lets a change be done that locks of WebDAV's clients do not forbid.
    fn admit(&self, caller: &Caller, target: &Path, touched: Touched) -> Result<Admission<'_>, Problem> {
        // S3 has no way to name a lock.
        let admitted = self.locks.admit(&HeaderMap::new(), caller, target, vec![touched]);
        admitted.map_err(locked)
    }

    /// The body of a request, as content that is verified while it is read.
    fn payload<'a>(
        &'a self,
        body: &'a mut Body,
        announced: Announcement,
        signer: Option<Signer>,
        admission: Option<&'a Admission<'a>>,
    ) -> Result<Payload<'a, &'a mut Body>, Problem> {
        Payload::new(body, announced, signer, self.backing(admission))
    }

    /// What content is counted against while it is read.
    fn backing<'a>(&'a self, admission: Option<&'a Admission<'a>>) -> Backing<'a> {
        Backing { share: self.uploads.share(), kept: 0, statistics: &self.console.statistics, admission }
    }

    /// The document that is a request's body.
    fn document(&self, call: &mut Call) -> Result<Element, Problem> {
        let announced = call.announcement()?;
        let signer = call.signer.take();
        let document = self.payload(&mut call.body, announced, signer, None)?.read_document(MOST_XML_BYTES)?;
        let malformed = || Problem::bad("MalformedXML", "the body is not the XML document that this operation needs");
        Element::parse(&document).ok_or_else(malformed)
    }
}
