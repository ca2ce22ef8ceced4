//! What a Dstore must not forget, beside its objects: a small file of text. (depot 2.2, 4.6, 5.6)
//!
//! ```text
//! stevedore-dstore 1
//! disk 5d0c…e1
//! cluster 77a1…09
//! number 4
//! start 12
//! epoch 8f31 3 9a
//! sequence 812
//! sum 9f0c…12
//! ```
//!
//! It is replaced as a whole, and synced before anything is said that relies on it.

use std::io;

use super::OpenError;
use crate::disk::{Folder, random};
use crate::identity::{ClusterId, DiskId, DstoreId, Epoch};
use crate::words::{Line, ParseError, Reader, Words, invalid};

/// Who a disk is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Drawn at random when the folder was first used. The folder is the Dstore.
    pub disk: DiskId,
    /// The cluster that it belongs to, once it has been admitted.
    pub cluster: Option<ClusterId>,
    /// Its number there.
    pub number: Option<DstoreId>,
    /// How often it has been started.
    pub start: u64,
    /// The newest leadership that it has acknowledged. Nothing is accepted from an older one.
    pub epoch: Option<Epoch>,
    /// The last change that it has heard of in that epoch's history. A Controller that has applied fewer has lost some.
    pub sequence: u64,
}

pub(super) const NAME: &str = "identity";
const NEW: &str = "new-identity";
const FORMAT: &str = "stevedore-dstore";
const VERSION: u64 = 1;

impl Identity {
    /// That of a new disk, which has not been started yet.
    pub(super) fn new() -> io::Result<Self> {
        let disk = DiskId(u128::from_le_bytes(random()?));
        Ok(Self { disk, cluster: None, number: None, start: 0, epoch: None, sequence: 0 })
    }

    /// Who the disk in a folder is; `None` if there is none yet. Changes nothing.
    pub fn peek(folder: &dyn Folder) -> Result<Option<Self>, OpenError> {
        let bytes = match folder.read(NAME) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(OpenError::Io(error)),
        };
        let damaged = || OpenError::Damaged { file: NAME.into() };
        let text = String::from_utf8(bytes).map_err(|_| damaged())?;
        let (lines, sum) = text.split_once("sum ").ok_or_else(damaged)?;
        if sum.strip_suffix('\n') != Some(&self::sum(lines)) {
            return Err(damaged());
        }
        let first = format!("{FORMAT} {VERSION}\n");
        let fields = lines.strip_prefix(&first).ok_or_else(|| OpenError::Format { file: NAME.into() })?;
        Self::parse(fields).map(Some).map_err(|_| damaged())
    }

    fn parse(fields: &str) -> Result<Self, ParseError> {
        let mut lines = fields.lines();
        Ok(Self {
            disk: field(lines.next(), "disk")?,
            cluster: field(lines.next(), "cluster")?,
            number: field(lines.next(), "number")?,
            start: field(lines.next(), "start")?,
            epoch: field(lines.next(), "epoch")?,
            sequence: field(lines.next(), "sequence")?,
        })
    }

    /// Puts it into the folder. When this returns, it is on the disk.
    pub(super) fn write(&self, folder: &dyn Folder) -> io::Result<()> {
        let mut text = format!("{FORMAT} {VERSION}\n");
        let mut add = |name: &str, value: &dyn Fn(&mut Line)| {
            let mut line = Line::default();
            line.plain(name);
            value(&mut line);
            text.push_str(line.as_str());
            text.push('\n');
        };
        add("disk", &|line| self.disk.write(line));
        add("cluster", &|line| self.cluster.write(line));
        add("number", &|line| self.number.write(line));
        add("start", &|line| self.start.write(line));
        add("epoch", &|line| self.epoch.write(line));
        add("sequence", &|line| self.sequence.write(line));
        let text = format!("{text}sum {}\n", sum(&text));
        match folder.remove(NEW) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {} // nothing there, or a making that was interrupted
        }
        let mut file = folder.create(NEW)?;
        file.append(text.as_bytes())?;
        file.sync()?;
        folder.rename(NEW, NAME)?;
        folder.sync()
    }
}

fn field<T: Words>(line: Option<&str>, name: &'static str) -> Result<T, ParseError> {
    let mut reader = Reader::new(line.ok_or(ParseError::Missing(name))?);
    match reader.raw(name)? {
        word if word == name => {}
        other => return Err(invalid(name, other)),
    }
    let value = T::read(&mut reader)?;
    reader.finish()?;
    Ok(value)
}

fn sum(lines: &str) -> String {
    format!("{:016x}", twox_hash::XxHash3_64::oneshot(lines.as_bytes()))
}
