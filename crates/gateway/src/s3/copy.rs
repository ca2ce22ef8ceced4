//! Copies: an object of the content of another one. No byte moves.

use std::io;

use depot::client::{Error, PutOptions, Source};
use depot::identity::Version;
use depot::namespace::change::{Condition, Details, Refusal};
use depot::namespace::listing::{Kind, Stat};
use hyper::Response;

use super::conditions::{Conditions, Verdict};
use super::object::{
    UPLOAD, check_to_change, checksum, checksum_type, details, etag, is_metadata, is_tag, now_ms, shown_time, touched,
};
use super::problem::Problem;
use super::target::Place;
use super::{Call, S3};
use crate::access::Right;

/// So often a copy is begun anew because another change came in between.
const ATTEMPTS: usize = 5;

impl S3 {
    /// What a copy is made of. It must be there, and the request's conditions on it must hold.
    pub(super) fn copy_source(&self, call: &Call) -> Result<(Place, Stat), Problem> {
        let bad = || Problem::bad("InvalidArgument", "x-amz-copy-source is a bucket and a key, percent-encoded");
        let source = Place::of_copy_source(call.header("x-amz-copy-source").ok_or_else(bad)?)?;
        let stat = self.find(call, Right::Read, &source)?;
        match Conditions::of_copy_source(&call.head.headers).judge(Some(&stat)) {
            Verdict::Holds => Ok((source, stat)),
            _ => Err(Problem::condition_failed(&source.name())),
        }
    }

    pub(super) fn copy_object(&self, call: &mut Call, place: &Place) -> Result<(), Problem> {
        call.caller.check(Right::Write, &place.path)?;
        let said = details(&call.head.headers)?;
        let replaces_metadata = is_replaced(call, "x-amz-metadata-directive")?;
        let replaces_tags = is_replaced(call, "x-amz-tagging-directive")?;
        let conditions = Conditions::of(&call.head.headers);
        for attempt in 1..=ATTEMPTS {
            let (source, stat) = self.copy_source(call)?;
            let current = self.find_to_replace(place)?;
            check_to_change(&conditions, current.as_ref(), place)?;
            let _admitted = self.admit(&call.caller, &place.path, touched(place, current.as_ref()))?;
            let mut details = stat.details.clone();
            details.digests.remove(UPLOAD);
            let mut take = |is_replaced: bool, is_kind: fn(&str) -> bool| {
                if is_replaced {
                    details.attributes.retain(|name, _| !is_kind(name));
                    let said = said.attributes.iter().filter(|(name, _)| is_kind(name));
                    details.attributes.extend(said.map(|(name, value)| (name.clone(), value.clone())));
                }
            };
            take(replaces_metadata, is_metadata);
            take(replaces_tags, is_tag);
            if replaces_metadata {
                details.content_type.clone_from(&said.content_type);
            }
            let is_itself = source.path == place.path;
            if is_itself && !(replaces_metadata || replaces_tags) {
                let message =
                    "an object is copied to itself only with other metadata (x-amz-metadata-directive: REPLACE)";
                return Err(Problem::bad("InvalidRequest", message));
            }
            let copied =
                self.copy(&source, &stat, place, details, conditions.to_insist_on(current.as_ref()), is_itself);
            match copied {
                // The source has changed since, or the target; unless the client insists on that, it is looked at again.
                Err(Error::Refused(Refusal::ConditionFailed)) if attempt < ATTEMPTS => continue,
                Err(Error::Refused(Refusal::IsADirectory | Refusal::NotFound)) => {
                    let message = format!("{}: its source, or its place, has changed meanwhile", place.name());
                    return Err(Problem::new(hyper::StatusCode::CONFLICT, "OperationAborted", message));
                }
                copied => copied.map_err(|error| Problem::of(&place.name(), &error))?,
            };
            call.send_xml(Response::builder(), "CopyObjectResult", |root| {
                root.text("LastModified", shown_time(now_ms()));
                root.text("ETag", format!("\"{}\"", etag(&stat)));
                if let Some((algorithm, checksum)) = checksum(&stat) {
                    root.text(algorithm.element(), &checksum);
                    root.text("ChecksumType", checksum_type(&checksum));
                }
            });
            return Ok(());
        }
        unreachable!("the last attempt returns")
    }

    fn copy(
        &self,
        source: &Place,
        stat: &Stat,
        target: &Place,
        details: Details,
        condition: Condition,
        is_itself: bool,
    ) -> Result<Version, Error> {
        if is_itself {
            let before = stat.details.attributes.keys().map(|name| (name.clone(), None));
            let after = details.attributes.into_iter().map(|(name, value)| (name, Some(value)));
            let attributes = before.chain(after).collect();
            let condition = Condition::Changed { version: stat.changed };
            let content_type = Some(details.content_type.as_str());
            return self.store.set_attributes(&target.path, condition, &attributes, content_type, Some(now_ms()));
        }
        let options = PutOptions { condition, parents: true, details, modified_ms: None };
        match (stat.kind, target.is_folder) {
            (Kind::Directory { .. }, true) => {
                match self.store.make_directory(&target.path, true, &options.details, None) {
                    Err(Error::Refused(Refusal::AlreadyExists)) => Ok(stat.version),
                    made => made,
                }
            }
            // An empty object and a folder are the same to S3, but not to a store.
            (Kind::Directory { .. }, false) => self.store.put(&target.path, Source::Once(&mut io::empty()), &options),
            (Kind::File { size: 0, .. }, true) => self.store.make_directory(&target.path, true, &options.details, None),
            (Kind::File { .. }, true) => Err(Error::Refused(Refusal::IsADirectory)),
            (Kind::File { .. }, false) => {
                self.store.compose(&target.path, &[(source.path.clone(), stat.version)], false, &options)
            }
        }
    }
}

/// Whether a directive says that what the request says counts, instead of what the source has.
fn is_replaced(call: &Call, name: &'static str) -> Result<bool, Problem> {
    match call.header(name) {
        None | Some("COPY") => Ok(false),
        Some("REPLACE") => Ok(true),
        Some(other) => Err(Problem::bad("InvalidArgument", format!("{name}: {other}: expected COPY or REPLACE"))),
    }
}
