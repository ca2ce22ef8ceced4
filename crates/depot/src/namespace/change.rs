//! What can be done to the namespace: its changes, and how they are refused. (depot 3.4)
//!
//! A change says all that its effect depends on: the leader's clock is part of it, so that replaying the log needs none.

use std::collections::BTreeMap;
use std::fmt;

use crate::checksum::Checksum;
use crate::identity::{ClusterId, ControllerId, DiskId, DstoreId, Epoch, History, Key, Position, SessionId, Version};
use crate::path::Path;
use crate::wire::Address;
use crate::words::{Line, ParseError, Reader, Words, invalid, words};

/// One entry of the log: a command, when it was proposed, and for which client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The proposing leader's clock, in milliseconds since 1970.
    pub now_ms: u64,
    /// What makes a repeat recognisable; `None` for the leader's own changes.
    pub stamp: Option<Stamp>,
    /// What is to be done.
    pub command: Command,
}

words!(struct Change { now_ms, stamp, command });

/// Which of a client's changes this is. A change with a stamp that was applied before is answered with the outcome it had,
/// and takes no effect. (depot 3.5)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The client's session.
    pub session: SessionId,
    /// A version that the client learned before the session's first change.
    pub born: Version,
    /// Which of the session's changes.
    pub number: u64,
    /// The client has all outcomes with smaller numbers, and will not ask for them again.
    pub done_below: u64,
}

words!(struct Stamp { session, born, number, done_below });

/// What must hold for a change to take effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    #[default]
    Any,
    /// Nothing has the name.
    Absent,
    /// The content is of this version.
    Version {
        /// The last change of the content.
        version: Version,
    },
    /// Neither content nor anything else has changed since.
    Changed {
        /// The last change of any kind.
        version: Version,
    },
}

words!(enum Condition, "condition" {
    "any" => Any,
    "absent" => Absent,
    "version" => Version { version },
    "changed" => Changed { version },
});

/// On how many Dstores a file's objects are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replicas {
    /// On so many, at least 1.
    Number(u8),
    /// On every Dstore, present and future.
    All,
}

impl Words for Replicas {
    fn write(&self, line: &mut Line) {
        match self {
            Self::Number(number) => line.number(*number),
            Self::All => line.plain("all"),
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        match reader.raw("number of replicas")? {
            "all" => Ok(Self::All),
            word => match word.parse() {
                Ok(number) if number >= 1 && !word.starts_with('+') => Ok(Self::Number(number)),
                _ => Err(invalid("number of replicas", word)),
            },
        }
    }
}

/// What a file or directory carries beside its content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// As HTTP's Content-Type; empty if unknown.
    pub content_type: String,
    /// The user who made it; empty if there are no users.
    pub owner: String,
    /// How many replicas it was stored with, where that is not the cluster's number.
    pub replicas: Option<Replicas>,
    /// Digests of the content that a gateway has computed, by algorithm. They go with the content.
    pub digests: BTreeMap<String, String>,
    /// The user's own: 16 KiB in total.
    pub attributes: BTreeMap<String, String>,
}

words!(struct Details { content_type, owner, replicas, digests, attributes });

/// The most that digests and attributes, names and values together, may have in bytes. (depot 3.3)
pub const MOST_ATTRIBUTE_BYTES: usize = 16 * 1024;

impl Details {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn is_too_large(&self) -> bool {
        let bytes =
            |map: &BTreeMap<String, String>| map.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        let all = bytes(&self.attributes) + bytes(&self.digests) + self.content_type.len() + self.owner.len();
        all > MOST_ATTRIBUTE_BYTES
    }
}

/// The objects of a put. Written with the Dstores listed once. (depot 5.1)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewObjects {
    /// The history the keys were issued in.
    pub history: History,
    /// The file's content, in order.
    pub objects: Vec<NewObject>,
}

/// One object of a put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewObject {
    /// The term of the leader that issued its key.
    pub term: u64,
    /// The number of its key.
    pub number: u64,
    /// In bytes; an object has at least one.
    pub length: u64,
    /// Of its bytes.
    pub checksum: Checksum,
    /// The Dstores that have stored it, each with its position then.
    pub holders: Vec<(DstoreId, Position)>,
}

/// The most objects a file may have. (depot 12)
pub const MOST_OBJECTS: usize = 65_536;

impl NewObjects {
    /// The name of one of them.
    pub fn key(&self, object: &NewObject) -> Key {
        Key { history: self.history, term: object.term, number: object.number }
    }
}

impl Words for NewObjects {
    fn write(&self, line: &mut Line) {
        let mut starts: Vec<(DstoreId, u64)> =
            self.objects.iter().flat_map(|object| &object.holders).map(|(dstore, at)| (*dstore, at.start)).collect();
        starts.sort_unstable();
        starts.dedup();
        self.history.write(line);
        starts.write(line);
        line.number(self.objects.len());
        for object in &self.objects {
            object.term.write(line);
            object.number.write(line);
            object.length.write(line);
            object.checksum.write(line);
            line.number(object.holders.len());
            for (dstore, at) in &object.holders {
                let place = starts.binary_search(&(*dstore, at.start)).expect("collected from these");
                line.number(place);
                at.number.write(line);
            }
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        let history = Words::read(reader)?;
        let starts = Vec::<(DstoreId, u64)>::read(reader)?;
        let count = reader.count("number of objects", MOST_OBJECTS)?;
        let mut objects = Vec::with_capacity(count);
        for _ in 0..count {
            let term = Words::read(reader)?;
            let number = Words::read(reader)?;
            let length = Words::read(reader)?;
            let checksum = Words::read(reader)?;
            let holders = reader.count("number of holders", MOST_OBJECTS)?;
            let holders = (0..holders).map(|_| {
                let place: usize = reader.plain("place in the list of Dstores")?;
                let number = u64::read(reader)?;
                let (dstore, start) =
                    starts.get(place).ok_or_else(|| invalid("place in the list of Dstores", &place.to_string()))?;
                Ok((*dstore, Position { start: *start, number }))
            });
            let holders = holders.collect::<Result<_, _>>()?;
            objects.push(NewObject { term, number, length, checksum, holders });
        }
        Ok(Self { history, objects })
    }
}

/// What a directory's removal is to take along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovalExtent {
    /// Only an empty directory is removed.
    Empty,
    /// The directory, with all that is in it.
    Tree,
    /// Only its explicit mark: it disappears if it is empty, and otherwise with its last entry.
    Mark,
}

words!(enum RemovalExtent, "extent of a removal" { "empty" => Empty, "tree" => Tree, "mark" => Mark });

/// What is the same for a whole store. Every limit has an error of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// R: on how many Dstores a file's objects are kept, unless its put said otherwise.
    pub replicas: Replicas,
    /// W: how many Dstores must have stored an object before its put succeeds; `None` for a majority of R, at least
    /// min(2, R).
    pub write_quorum: Option<u8>,
    /// Content is cut into objects of this many bytes.
    pub chunk_bytes: u64,
    /// How many files and directories there may be.
    pub most_entries: u64,
    /// Whether only removals are accepted.
    pub is_read_only: bool,
    /// For so many seconds a Dstore may be away before its copies are made elsewhere; `None` for as long as the leader was told
    /// when it was started.
    pub grace_s: Option<u64>,
}

words!(struct Settings { replicas, write_quorum, chunk_bytes, most_entries, is_read_only, grace_s });

impl Default for Settings {
    fn default() -> Self {
        Self {
            replicas: Replicas::Number(3),
            write_quorum: None,
            chunk_bytes: 64 << 20,
            most_entries: 100_000_000,
            is_read_only: false,
            grace_s: None,
        }
    }
}

/// What is known of a Dstore of the cluster; it stays known after its removal, so that it is recognised if it returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DstoreRecord {
    /// What its disk calls itself.
    pub disk: DiskId,
    /// The machine it was last seen on.
    pub host: String,
    /// The zone that machine is in; empty for none.
    pub zone: String,
    /// Whether it is to hold objects.
    pub duty: Duty,
}

words!(struct DstoreRecord { disk, host, zone, duty });

/// Whether a Dstore is to hold objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// It gets new objects.
    Active,
    /// It gets none, and what it has goes elsewhere.
    Draining,
    /// It belongs to the cluster no longer.
    Removed,
}

words!(enum Duty, "duty of a Dstore" { "active" => Active, "draining" => Draining, "removed" => Removed });

/// What a change does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Creates the store: the first change of all.
    Create {
        /// Its identity.
        cluster: ClusterId,
        /// What people call it; `format` asks for it.
        name: String,
        /// As it starts.
        settings: Settings,
    },
    /// A leader's first change. Another history than the last begins here. (depot 2.1)
    Lead {
        /// The leadership.
        epoch: Epoch,
    },
    /// Replaces the settings.
    Set {
        /// All of them.
        settings: Settings,
    },
    /// Admits a Dstore, or records what has changed about it. Its number is the next one if its disk is new.
    Dstore {
        /// What is known of it now.
        record: DstoreRecord,
    },
    /// Records where a Controller is reached.
    EnterController {
        /// Which.
        id: ControllerId,
        /// Where.
        address: Address,
    },
    /// Forgets where a Controller is reached: it has left the group.
    LeaveController {
        /// Which.
        id: ControllerId,
    },
    /// A put whose objects are stored: creates the file, or replaces its content.
    Put {
        /// The file.
        path: Path,
        /// What must hold for it.
        condition: Condition,
        /// Whether directories that are missing on the way to it are made; otherwise that is an error.
        parents: bool,
        /// Its content; none for an empty file.
        objects: NewObjects,
        /// Of the whole content.
        checksum: Checksum,
        /// The client's modification time in milliseconds since 1970; `None` for the leader's clock.
        modified_ms: Option<u64>,
        /// All else that the file carries.
        details: Details,
    },
    /// Gives a file or directory another path.
    Move {
        /// What is moved.
        from: Path,
        /// What must hold for it.
        from_condition: Condition,
        /// Its new path.
        to: Path,
        /// What must hold for what is there.
        to_condition: Condition,
        /// Whether what is there is replaced, a directory with all that is in it; otherwise that is an error.
        replace: bool,
        /// As in a put.
        parents: bool,
    },
    /// Has a second file of the same objects, or a whole directory of them.
    Copy {
        /// What is copied.
        from: Path,
        /// What must hold for it.
        from_condition: Condition,
        /// The copy's path.
        to: Path,
        /// What must hold for what is there.
        to_condition: Condition,
        /// As in a move.
        replace: bool,
        /// As in a put.
        parents: bool,
        /// A file's details instead of the source's.
        details: Option<Details>,
    },
    /// Removes a file.
    Remove {
        /// The file.
        path: Path,
        /// What must hold for it.
        condition: Condition,
    },
    /// Makes an explicit directory, or an implicit one explicit.
    MakeDirectory {
        /// The directory.
        path: Path,
        /// As in a put.
        parents: bool,
        /// What it carries.
        details: Details,
        /// As in a put.
        modified_ms: Option<u64>,
    },
    /// Removes a directory.
    RemoveDirectory {
        /// The directory.
        path: Path,
        /// What must hold for it.
        condition: Condition,
        /// What goes with it.
        extent: RemovalExtent,
    },
    /// Changes what a file or directory carries; a directory becomes explicit.
    SetAttributes {
        /// The file or directory.
        path: Path,
        /// What must hold for it.
        condition: Condition,
        /// Each is set, or removed where it has no value; others stay.
        attributes: BTreeMap<String, Option<String>>,
        /// Another content type.
        content_type: Option<String>,
        /// Another owner.
        owner: Option<String>,
        /// Another modification time.
        modified_ms: Option<u64>,
    },
    /// Makes a file of the objects of others, or replaces its content by them.
    Compose {
        /// The file.
        path: Path,
        /// What must hold for it.
        condition: Condition,
        /// As in a put.
        parents: bool,
        /// The files whose contents follow each other, each in the version that is meant.
        sources: Vec<(Path, Version)>,
        /// Whether the sources are removed in the same change.
        remove_sources: bool,
        /// As in a put.
        modified_ms: Option<u64>,
        /// As in a put.
        details: Details,
    },
    /// Empties the store: every path goes, settings and Dstores stay.
    Format {
        /// What the store is called, as a confirmation.
        name: String,
    },
    /// Takes apart a thousand records of directories that were removed with all that is in them. (depot 3.6)
    Reap,
}

words!(enum Command, "command" {
    "create" => Create { cluster, name, settings },
    "lead" => Lead { epoch },
    "set" => Set { settings },
    "dstore" => Dstore { record },
    "enter-controller" => EnterController { id, address },
    "leave-controller" => LeaveController { id },
    "put" => Put { path, condition, parents, objects, checksum, modified_ms, details },
    "move" => Move { from, from_condition, to, to_condition, replace, parents },
    "copy" => Copy { from, from_condition, to, to_condition, replace, parents, details },
    "remove" => Remove { path, condition },
    "make-directory" => MakeDirectory { path, parents, details, modified_ms },
    "remove-directory" => RemoveDirectory { path, condition, extent },
    "set-attributes" => SetAttributes { path, condition, attributes, content_type, owner, modified_ms },
    "compose" => Compose { path, condition, parents, sources, remove_sources, modified_ms, details },
    "format" => Format { name },
    "reap" => Reap,
});

/// Why a change had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing has the path, or a directory on the way to it is missing.
    NotFound,
    /// The path is taken.
    AlreadyExists,
    /// A file was meant.
    IsADirectory,
    /// A directory was meant, or a file is on the way to the path.
    NotADirectory,
    /// The directory has entries.
    NotEmpty,
    /// What the client asked to hold does not.
    ConditionFailed,
    /// The path cannot be used so: it is the root, or source and target are within each other.
    InvalidPath,
    /// More than one change may do, or one file may have.
    TooLarge,
    /// The store has as many entries as it may have.
    OverQuota,
    /// Only removals are accepted just now.
    ReadOnly,
    /// It is not for this client, or not for this store.
    NotPermitted,
    /// It cannot be known any more whether the change took effect before. It does not now.
    UnknownOutcome,
    /// The session has too many changes whose outcome it has not acknowledged.
    TooManyOpen,
}

words!(enum Refusal, "refusal" {
    "not-found" => NotFound,
    "already-exists" => AlreadyExists,
    "is-a-directory" => IsADirectory,
    "not-a-directory" => NotADirectory,
    "not-empty" => NotEmpty,
    "condition-failed" => ConditionFailed,
    "invalid-path" => InvalidPath,
    "too-large" => TooLarge,
    "over-quota" => OverQuota,
    "read-only" => ReadOnly,
    "not-permitted" => NotPermitted,
    "unknown-outcome" => UnknownOutcome,
    "too-many-open" => TooManyOpen,
});

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "not found",
            Self::AlreadyExists => "it exists already",
            Self::IsADirectory => "it is a directory",
            Self::NotADirectory => "it is not a directory, or a file is on the way to it",
            Self::NotEmpty => "the directory is not empty",
            Self::ConditionFailed => "it has changed meanwhile: the condition does not hold",
            Self::InvalidPath => {
                "the path cannot be used so: it is the root, or too long, or one lies within the other"
            }
            Self::TooLarge => "that is more than one change may do",
            Self::OverQuota => "the store has as many files and directories as it may have",
            Self::ReadOnly => "the store accepts only removals just now",
            Self::NotPermitted => "that is not permitted",
            Self::UnknownOutcome => "it cannot be known any more whether it was done before; it was not done now",
            Self::TooManyOpen => "the session has too many changes whose outcomes it has not acknowledged",
        })
    }
}

impl std::error::Error for Refusal {}

/// What became of a change: the sequence that took effect, or why none did.
pub type Outcome = Result<u64, Refusal>;

impl Words for Outcome {
    fn write(&self, line: &mut Line) {
        match self {
            Ok(sequence) => {
                line.plain("done");
                sequence.write(line);
            }
            Err(refusal) => {
                line.plain("refused");
                refusal.write(line);
            }
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        match reader.raw("outcome")? {
            "done" => u64::read(reader).map(Ok),
            "refused" => Refusal::read(reader).map(Err),
            other => Err(invalid("outcome", other)),
        }
    }
}
