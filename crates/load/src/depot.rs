//! A client of the depot, by its own protocol: a store is a put, a load is a get. (depot 3.4)

use std::io::{self, Write};

use ::depot::client::{Cluster, Error, Files, ListOptions, PutOptions, Source};
use ::depot::namespace::change::{Condition, Refusal};
use ::depot::path::Path;
use cli::cluster::ClientFile;
use stevedore::client::Target;

use crate::content::{Check, Content};
use crate::style::{Operations, Trouble};

/// All files are in this directory, which is gone when they are.
const DIRECTORY: &str = "/load";

/// A client of the depot, with connections of its own.
pub struct Depot {
    cluster: Cluster,
    directory: Path,
}

impl Depot {
    /// A client of the store that this file is for. Connects when there is something to ask.
    pub fn new(file: ClientFile) -> Self {
        Self { cluster: file.connect(), directory: DIRECTORY.parse().expect("a path") }
    }

    fn path(&self, name: &str) -> Result<Path, Trouble> {
        let refused = |error| Trouble { kind: "name refused", message: format!("{name}: {error}"), is_missing: false };
        self.directory.join(name).map_err(refused)
    }
}

impl Operations for Depot {
    fn store(&mut self, name: &str, content: &mut Content) -> Result<(), Trouble> {
        let options = PutOptions { parents: true, ..PutOptions::default() };
        self.cluster.put(&self.path(name)?, Source::Once(content), &options)?;
        Ok(())
    }

    fn load(&mut self, name: &str, check: &mut Check) -> Result<u64, Trouble> {
        let path = self.path(name)?;
        let mut file = self.cluster.get(&path, Condition::Any)?;
        file.copy_to(0..u64::MAX, &mut Checking(check))?;
        Ok(file.size())
    }

    fn remove(&mut self, name: &str) -> Result<(), Trouble> {
        self.cluster.remove(&self.path(name)?, Condition::Any)?;
        Ok(())
    }

    fn list(&mut self) -> Result<Vec<String>, Trouble> {
        let mut options = ListOptions::default();
        let mut names = Vec::new();
        loop {
            let page = match self.cluster.list(&self.directory, &options) {
                Err(Error::Refused(Refusal::NotFound)) => return Ok(names), // it has never had a file, or has none any more
                page => page?,
            };
            names.extend(page.entries.into_iter().map(|entry| entry.name));
            match page.after {
                Some(after) => options.after = after,
                None => return Ok(names),
            }
        }
    }
}

/// Compares what is read.
struct Checking<'a>(&'a mut Check);

impl Write for Checking<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Target::write(self.0, bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Refused(Refusal::NotFound) => "does not exist",
            Error::Refused(_) => "refused",
            Error::NoSpace => "no space",
            Error::NotEnoughDstores { .. } => "not enough Dstores",
            Error::Unavailable(_) => "unavailable",
            Error::Damaged(_) => "damaged",
            Error::Gone | Error::TooOld => "gone",
            Error::NotPermitted(_) => "not permitted",
            Error::OutcomeUnknown(_) => "outcome unknown",
            Error::Source(_) | Error::Sink(_) => "local error",
            Error::Protocol(_) => "senseless answer",
        };
        let is_missing = matches!(error, Error::Refused(Refusal::NotFound));
        Self { kind, message: error.to_string(), is_missing }
    }
}
