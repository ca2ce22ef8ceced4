//! Buckets: the folders directly below the root.

use depot::client::{Error, ListOptions};
use depot::namespace::change::{Condition, Details, Refusal, RemovalExtent};
use depot::namespace::listing::{Kind, Stat};
use depot::path::Path;
use hyper::{Response, StatusCode, header};

use super::object::shown_time;
use super::operation::Configuration;
use super::problem::Problem;
use super::target::name_of;
use super::xml::Document;
use super::{Call, OWNER, S3};
use crate::access::Right;

/// The region that clients take if they are told none.
const REGION: &str = "us-east-1";

impl S3 {
    pub(super) fn list_buckets(&self, call: &mut Call) -> Result<(), Problem> {
        let mut buckets = Vec::new();
        let mut options = ListOptions::default();
        loop {
            let page = self.store.list(&Path::root(), &options).map_err(|error| Problem::of("/", &error))?;
            for entry in page.entries {
                let Some(name) = entry.name.strip_suffix('/') else { continue };
                if Path::root().join(name).is_ok_and(|bucket| call.caller.may_know(&bucket)) {
                    buckets.push((name.to_owned(), entry.stat.modified_ms));
                }
            }
            match page.after {
                Some(after) => options.after = after,
                None => break,
            }
        }
        call.send_xml(Response::builder(), "ListAllMyBucketsResult", |root| {
            root.element("Owner", owner);
            root.element("Buckets", |list| {
                for (name, modified_ms) in &buckets {
                    list.element("Bucket", |bucket| {
                        bucket.text("Name", name);
                        bucket.text("CreationDate", shown_time(*modified_ms));
                    });
                }
            });
        });
        Ok(())
    }

    pub(super) fn create_bucket(&self, call: &mut Call, bucket: &Path) -> Result<(), Problem> {
        call.caller.check(Right::Write, bucket)?;
        let name = name_of(bucket);
        let taken = |code, what| Err(Problem::new(StatusCode::CONFLICT, code, format!("{name}: there is {what}")));
        match self.store.stat(bucket) {
            Ok(Stat { kind: Kind::Directory { is_explicit: true, .. }, .. }) => {
                return taken("BucketAlreadyOwnedByYou", "such a bucket already");
            }
            Ok(Stat { kind: Kind::File { .. }, .. }) => {
                return taken("BucketAlreadyExists", "a file of that name, so there cannot be a bucket");
            }
            Ok(_) | Err(Error::Refused(Refusal::NotFound)) => {}
            Err(error) => return Err(Problem::of(name, &error)),
        }
        match self.store.make_directory(bucket, false, &Details::default(), None) {
            Err(Error::Refused(Refusal::AlreadyExists)) => {
                return taken("BucketAlreadyOwnedByYou", "such a bucket already");
            }
            made => made.map_err(|error| Problem::of(name, &error))?,
        };
        call.send(StatusCode::OK, Response::builder().header(header::LOCATION, format!("/{name}")), "");
        Ok(())
    }

    pub(super) fn head_bucket(&self, call: &mut Call, bucket: &Path) -> Result<(), Problem> {
        self.check_known(call, bucket)?;
        call.send(StatusCode::OK, Response::builder().header("x-amz-bucket-region", REGION), "");
        Ok(())
    }

    pub(super) fn delete_bucket(&self, call: &mut Call, bucket: &Path) -> Result<(), Problem> {
        call.caller.check(Right::Write, bucket)?;
        match self.store.remove_directory(bucket, Condition::Any, RemovalExtent::Empty) {
            Err(Error::Refused(Refusal::NotFound | Refusal::NotADirectory)) => {
                return Err(Problem::no_such_bucket(name_of(bucket)));
            }
            removed => removed.map_err(|error| Problem::of(name_of(bucket), &error))?,
        };
        call.send(StatusCode::NO_CONTENT, Response::builder(), "");
        Ok(())
    }

    pub(super) fn bucket_configuration(
        &self,
        call: &mut Call,
        bucket: &Path,
        what: Configuration,
    ) -> Result<(), Problem> {
        self.check_known(call, bucket)?;
        let head = Response::builder();
        match what {
            // Without text it is us-east-1.
            Configuration::Location => call.send_xml(head, "LocationConstraint", |_| ()),
            Configuration::Versioning => call.send_xml(head, "VersioningConfiguration", |_| ()),
            Configuration::Acl => call.send_xml(head, "AccessControlPolicy", access_control),
            Configuration::RequestPayment => {
                call.send_xml(head, "RequestPaymentConfiguration", |root| root.text("Payer", "BucketOwner"));
            }
            Configuration::Logging => call.send_xml(head, "BucketLoggingStatus", |_| ()),
            Configuration::Notification => call.send_xml(head, "NotificationConfiguration", |_| ()),
            Configuration::None(code) => {
                let message = format!("{}: a bucket here has no such configuration", name_of(bucket));
                return Err(Problem::new(StatusCode::NOT_FOUND, code, message));
            }
        }
        Ok(())
    }

    /// Refuses what is no bucket, or none that the caller may know of.
    pub(super) fn check_known(&self, call: &Call, bucket: &Path) -> Result<(), Problem> {
        if !call.caller.may_know(bucket) {
            call.caller.check(Right::Read, bucket)?;
        }
        self.check_bucket(bucket)
    }

    /// Refuses what is no bucket.
    pub(super) fn check_bucket(&self, bucket: &Path) -> Result<(), Problem> {
        match self.store.stat(bucket) {
            Ok(Stat { kind: Kind::Directory { .. }, .. }) => Ok(()),
            Ok(_) | Err(Error::Refused(Refusal::NotFound)) => Err(Problem::no_such_bucket(name_of(bucket))),
            Err(error) => Err(Problem::of(name_of(bucket), &error)),
        }
    }
}

/// The owner of something.
pub(super) fn owner(element: &mut Document) {
    element.text("ID", OWNER);
    element.text("DisplayName", OWNER);
}

/// What S3 calls rights, which are not kept with objects here: all belongs to one owner.
pub(super) fn access_control(root: &mut Document) {
    root.element("Owner", owner);
    root.element("AccessControlList", |list| {
        list.element("Grant", |grant| {
            grant.typed("Grantee", "CanonicalUser", owner);
            grant.text("Permission", "FULL_CONTROL");
        });
    });
}
