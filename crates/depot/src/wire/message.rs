//! What can be said. Each message is one line; `PUT`, `PUT-MANY`, `DATA`, `RAFT`, `SNAPSHOT`, and `BACKUP` with a length are followed
//! by as many bytes as they say.
//!
//! | from | to | says | is answered by |
//! |---|---|---|---|
//! | client | Controller | [`Request`] | one [`Answer`] each |
//! | client, Dstore | Dstore | [`ObjectRequest`] | [`ObjectAnswer`]s |
//! | Dstore | Controller | [`Report`] | [`Order`]s, whenever the Controller likes |
//! | Controller | Controller | [`PeerRequest`] | a [`PeerAnswer`], or none |

use std::fmt;
use std::time::Duration;

use super::Address;
use crate::checksum::Checksum;
use crate::client::{ChangeEvent, ObjectCopies, Status};
use crate::identity::{ControllerId, DiskId, DstoreId, Epoch, History, Key, Position, Version};
use crate::log::SyncMode;
use crate::namespace::change::{Command, Condition, Refusal, Replicas, Settings, Stamp};
use crate::namespace::listing::{Listed, Stat};
use crate::pack::{Announced, Purpose};
use crate::path::Path;
use crate::words::{Line, ParseError, Reader, Words, invalid, words};

/// What a client asks a Controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// What a new session begins with: answered by `SESSION`.
    Session,
    /// Keys and places for the objects of a put, if it would be accepted now: answered by `GRANTED`.
    Places {
        /// The file.
        path: Path,
        /// What must hold for it.
        condition: Condition,
        /// Whether missing directories are made.
        parents: bool,
        /// How many replicas, if not the cluster's number.
        replicas: Option<Replicas>,
        /// For how many objects: at most 256.
        objects: u32,
    },
    /// Another place for an object that a Dstore did not take: answered by `GRANTED` with one object.
    Replace {
        /// The object.
        key: Key,
        /// Where it was tried.
        tried: Vec<DstoreId>,
    },
    /// The put of these objects is still under way: answered by `OK`.
    Renew {
        /// The objects.
        keys: Vec<Key>,
    },
    /// A change: answered by `DONE`.
    Change {
        /// Which of the session's changes.
        stamp: Stamp,
        /// So many objects of puts to come are granted with the answer: at most 16.
        more: u32,
        /// The change itself.
        command: Box<Command>,
    },
    /// Several changes, each for itself and in this order, with one write of the log: answered by `OUTCOMES`.
    ChangeMany {
        /// At most 256.
        changes: Vec<StampedCommand>,
    },
    /// What a path has: answered by `STAT`.
    Stat {
        /// The path.
        path: Path,
    },
    /// What a file consists of, and where that is: answered by `FILE`.
    Open {
        /// The file.
        path: Path,
        /// What must hold for it.
        condition: Condition,
    },
    /// A page of a directory: answered by `PAGE`.
    List {
        /// The directory.
        path: Path,
        /// Only entries that begin so.
        prefix: String,
        /// Only entries behind this one.
        after: String,
        /// Whether entries of directories below are listed, too.
        is_recursive: bool,
        /// At most so many, and never more than 1,000.
        limit: u32,
    },
    /// A page of a search: answered by `PAGE`.
    Find {
        /// The directory.
        path: Path,
        /// A glob, or a part of the name.
        pattern: String,
        /// Only entries behind this one.
        after: String,
    },
    /// Changes behind a cursor: answered by `CHANGES`.
    Watch {
        /// The cursor; without one, the answer says where to begin.
        after: Option<Version>,
        /// How long to wait for the first change.
        wait_ms: u64,
    },
    /// How the store is: answered by `STATUS`.
    Status,
    /// All metadata at one sequence: answered by `BACKUP`, which bytes follow.
    Backup,
    /// Where a file's objects are: answered by `COPIES`.
    Copies {
        /// The file.
        path: Path,
    },
    /// Which Dstores have an object, after those that are known of have failed: answered by `HOLDERS`.
    Holders {
        /// The object.
        key: Key,
    },
    /// Where the Controllers are, and which of them leads: answered by `CONTROLLERS`.
    Controllers,
    /// To have the Controller at an address, whose folder is empty, belong to the store: answered by `OK` once it has a vote.
    /// (depot 4.7)
    AddController {
        /// Where it listens.
        address: Address,
    },
    /// To have a Controller belong to the store no longer: answered by `OK`. (depot 4.7)
    RemoveController {
        /// The Controller.
        controller: ControllerId,
    },
    /// To have another Controller lead: answered by `OK` once it does.
    HandOver {
        /// Which one; without it, the one that is best prepared.
        to: Option<ControllerId>,
    },
    /// A Dstore did not return an object, or returned it damaged: answered by `OK`.
    Suspect {
        /// The object.
        key: Key,
        /// The Dstore.
        dstore: DstoreId,
    },
    /// To look at all objects, and to repair what is to be repaired: answered by `OK`.
    Repair {
        /// Also although so many Dstores are away that only last copies are repaired. (depot 6.2)
        all: bool,
    },
    /// To empty a Dstore, or to use it again: answered by `OK`. (depot 6.4)
    Drain {
        /// The Dstore.
        dstore: DstoreId,
        /// False to use it again.
        drains: bool,
    },
    /// To have a Dstore belong to the store no longer: answered by `OK`. (depot 6.4)
    Discharge {
        /// The Dstore.
        dstore: DstoreId,
        /// It will not come back, and what only it has is lost.
        is_lost: bool,
    },
    /// To collect the objects of earlier histories that no file names: answered by `OK`. (depot 4.9)
    CollectUnclaimed,
}

words!(enum Request, "request" {
    "SESSION" => Session,
    "PLACES" => Places { path, condition, parents, replicas, objects },
    "REPLACE" => Replace { key, tried },
    "RENEW" => Renew { keys },
    "CHANGE" => Change { stamp, more, command },
    "CHANGE-MANY" => ChangeMany { changes },
    "STAT" => Stat { path },
    "OPEN" => Open { path, condition },
    "LIST" => List { path, prefix, after, is_recursive, limit },
    "FIND" => Find { path, pattern, after },
    "WATCH" => Watch { after, wait_ms },
    "STATUS" => Status,
    "BACKUP" => Backup,
    "COPIES" => Copies { path },
    "HOLDERS" => Holders { key },
    "SUSPECT" => Suspect { key, dstore },
    "REPAIR" => Repair { all },
    "DRAIN" => Drain { dstore, drains },
    "DISCHARGE" => Discharge { dstore, is_lost },
    "COLLECT-UNCLAIMED" => CollectUnclaimed,
    "CONTROLLERS" => Controllers,
    "ADD-CONTROLLER" => AddController { address },
    "REMOVE-CONTROLLER" => RemoveController { controller },
    "HAND-OVER" => HandOver { to },
});

/// One of several changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StampedCommand {
    /// Which of the session's changes.
    pub stamp: Stamp,
    /// The change itself.
    pub command: Command,
}

words!(struct StampedCommand { stamp, command });

/// What a Controller answers a client.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// A session may begin.
    Session {
        /// The last change that was applied: the session is born there.
        born: Version,
        /// What is the same for the whole store.
        settings: Settings,
    },
    /// Keys and places.
    Granted {
        /// For each object that was asked for.
        grants: Grants,
    },
    /// The change has had its effect.
    Done {
        /// Its place in the order of all changes.
        version: Version,
        /// For the next puts; without objects if none were asked for, or there is no room.
        grants: Grants,
    },
    /// What became of each of several changes, in order.
    Outcomes {
        /// As `DONE` or `ERROR` would say it of each.
        outcomes: Vec<Outcome>,
    },
    /// What a path has.
    Stat {
        /// All of it.
        stat: Stat,
    },
    /// What a file consists of, and where that is.
    File {
        /// What the file has.
        stat: Stat,
        /// Where the Dstores named below listen.
        addresses: Vec<(DstoreId, Address)>,
        /// In order.
        objects: Vec<ObjectPlaces>,
    },
    /// A part of a listing or of what was found.
    Page {
        /// In the order of their bytes.
        entries: Vec<Listed>,
        /// Where the next page begins.
        after: Option<String>,
    },
    /// Changes, in order.
    Changes {
        /// The changes.
        events: Vec<ChangeEvent>,
        /// Where to go on.
        next: Version,
    },
    /// How the store is.
    Status {
        /// All of it.
        status: Box<Status>,
    },
    /// All metadata: as many bytes as it says follow, the file of a snapshot.
    Backup {
        /// The last change that it has.
        sequence: u64,
        /// How many bytes follow.
        length: u64,
        /// So long the objects of a file that is removed from now on are kept.
        keep_removed_ms: u64,
    },
    /// Where a file's objects are.
    Copies {
        /// In order.
        objects: Vec<ObjectCopies>,
    },
    /// Which Dstores have an object.
    Holders {
        /// The best first.
        holders: Vec<(DstoreId, Address)>,
    },
    /// Where the Controllers are.
    Controllers {
        /// Which of them leads, as far as the one that answers knows.
        leader: Option<ControllerId>,
        /// All of them.
        controllers: Vec<(ControllerId, Address)>,
    },
    /// It is done, or noted.
    Ok,
    /// It is not done.
    Error {
        /// Why.
        failure: Failure,
    },
}

words!(enum Answer, "answer" {
    "SESSION" => Session { born, settings },
    "GRANTED" => Granted { grants },
    "DONE" => Done { version, grants },
    "OUTCOMES" => Outcomes { outcomes },
    "STAT" => Stat { stat },
    "FILE" => File { stat, addresses, objects },
    "PAGE" => Page { entries, after },
    "CHANGES" => Changes { events, next },
    "STATUS" => Status { status },
    "BACKUP" => Backup { sequence, length, keep_removed_ms },
    "COPIES" => Copies { objects },
    "HOLDERS" => Holders { holders },
    "CONTROLLERS" => Controllers { leader, controllers },
    "OK" => Ok,
    "ERROR" => Error { failure },
});

/// What became of one of several changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has had its effect.
    Done {
        /// Its place in the order of all changes.
        version: Version,
    },
    /// It has not had its effect, or that is not known.
    Failed {
        /// Why.
        failure: Failure,
    },
}

words!(enum Outcome, "outcome" { "done" => Done { version }, "failed" => Failed { failure } });

/// Keys and places for objects, leased to the client. (depot 5.1, 5.3)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// The history of the keys.
    pub history: History,
    /// The term of the keys.
    pub term: u64,
    /// W: at least so many Dstores must store an object.
    pub write_quorum: u32,
    /// So long each lease lasts, in milliseconds, from when it was granted or renewed last.
    pub lease_ms: u64,
    /// Where the Dstores named below listen.
    pub addresses: Vec<(DstoreId, Address)>,
    /// One for each object.
    pub objects: Vec<Grant>,
}

words!(struct Grants { history, term, write_quorum, lease_ms, addresses, objects });

/// A key, and where its object is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The number of the key.
    pub number: u64,
    /// R Dstores, or fewer if there are fewer with room.
    pub places: Vec<DstoreId>,
}

words!(struct Grant { number, places });

/// One object of a file, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectPlaces {
    /// Its name.
    pub key: Key,
    /// In bytes.
    pub length: u64,
    /// Of its bytes.
    pub checksum: Checksum,
    /// Which Dstores have it, the best first: a damaged copy comes last.
    pub holders: Vec<DstoreId>,
}

words!(struct ObjectPlaces { key, length, checksum, holders });

/// What a Dstore is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectRequest {
    /// To keep an object; its bytes follow at once. Answered by `STORED` or `HAVE`.
    Put {
        /// Its name.
        key: Key,
        /// In bytes, at least 1.
        length: u64,
        /// Of its bytes: only what matches is stored.
        checksum: Checksum,
    },
    /// To keep several objects; the bytes of all follow at once, in order. Answered by `STORED` once each of them is there, also
    /// those that were before; or by an error, after which some of them may be there.
    PutMany {
        /// At most 256, of at most 1 MiB together.
        objects: Vec<Announced>,
    },
    /// For some of an object's bytes: answered by `OBJECT`, and then by `DATA` as often as it takes.
    Get {
        /// Its name.
        key: Key,
        /// The first byte, a multiple of 65,536.
        from: u64,
        /// How many: a multiple of 65,536, or up to the object's end.
        length: u64,
    },
    /// What the Dstore has of objects: answered by `CHECKED`. (depot 6.5)
    Check {
        /// Whether it is to read and verify each of them.
        deep: bool,
        /// The objects.
        keys: Vec<Key>,
    },
    /// Where on its disk objects are: answered by `LOCATED`.
    Locate {
        /// The objects.
        keys: Vec<Key>,
    },
    /// To keep a backup of the store's metadata beside the objects; its bytes follow at once. Answered by `KEPT`. Only a
    /// Controller may ask. (depot 4.9)
    Backup {
        /// The leadership that asks.
        epoch: Epoch,
        /// In bytes.
        length: u64,
    },
}

words!(enum ObjectRequest, "request" {
    "PUT" => Put { key, length, checksum },
    "PUT-MANY" => PutMany { objects },
    "GET" => Get { key, from, length },
    "CHECK" => Check { deep, keys },
    "LOCATE" => Locate { keys },
    "BACKUP" => Backup { epoch, length },
});

/// What a Dstore answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectAnswer {
    /// It is stored, as surely as the Dstore's `--sync` says.
    Stored {
        /// Which of the Dstore's records it is.
        position: Position,
    },
    /// It was stored before, with the same length and checksum.
    Have {
        /// A position at which it is stored.
        position: Position,
    },
    /// What is known of an object: then its bytes follow.
    Object {
        /// In bytes.
        length: u64,
        /// Of each block of 65,536 bytes; the last may be shorter. They add up to the object's.
        sums: Vec<Checksum>,
    },
    /// A part of the bytes asked for, in order: they follow. The Dstore has verified them.
    Data {
        /// How many: a multiple of 65,536, or up to the end of what was asked for.
        length: u64,
    },
    /// For each object what the Dstore has.
    Checked {
        /// Absent where the Dstore does not have the object.
        copies: Vec<Option<CopyReport>>,
    },
    /// For each object the file on the Dstore's disk, and the offset there.
    Located {
        /// Absent where the Dstore does not have the object.
        places: Vec<Option<(String, u64)>>,
    },
    /// The backup is on the disk.
    Kept,
    /// It is not done, or not done further.
    Error {
        /// Why.
        failure: Failure,
    },
}

words!(enum ObjectAnswer, "answer" {
    "STORED" => Stored { position },
    "HAVE" => Have { position },
    "OBJECT" => Object { length, sums },
    "DATA" => Data { length },
    "CHECKED" => Checked { copies },
    "LOCATED" => Located { places },
    "KEPT" => Kept,
    "ERROR" => Error { failure },
});

/// What a Dstore says to a Controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The first line: who it is, and what it remembers. (depot 2.2, 4.6)
    Join {
        /// What its disk calls itself.
        disk: DiskId,
        /// The format of its disk.
        format: u32,
        /// Its number in this cluster; absent if it never had one.
        number: Option<DstoreId>,
        /// Which start of the Dstore this is.
        start: u64,
        /// The newest leadership that it has acknowledged.
        epoch: Option<Epoch>,
        /// Where it listens.
        address: Address,
        /// The machine it is on.
        host: String,
        /// The zone of that machine; empty for none.
        zone: String,
        /// When a put counts.
        sync: SyncMode,
    },
    /// The leadership is recorded on its disk, and orders of older ones are dropped. (depot 5.2)
    Fenced {
        /// The leadership.
        epoch: Epoch,
        /// What the Dstore reports up to here is certain.
        position: Position,
    },
    /// A part of all that it has, after a join.
    Inventory {
        /// Up to 1,000 copies.
        copies: Vec<CopyReport>,
    },
    /// The inventory is complete.
    InventoryEnd {
        /// It has everything up to here, and nothing that was removed before.
        position: Position,
    },
    /// What has changed since the last report, in order.
    Changes {
        /// Up to here.
        position: Position,
        /// Up to 1,000 changes.
        changes: Vec<CopyChange>,
    },
    /// What became of orders. Their effects were reported before, as changes.
    Done {
        /// The leadership that gave them.
        epoch: Epoch,
        /// One for each object of an order.
        outcomes: Vec<OrderOutcome>,
    },
    /// How it is, every second.
    Heartbeat {
        /// All of it.
        load: Load,
    },
    /// It does not follow this Controller, which must stop if it still leads. (depot 2.2)
    Refuse {
        /// The leadership that it does not follow.
        epoch: Epoch,
        /// Why, as a sentence for the Controller's log.
        why: String,
    },
}

words!(enum Report, "report" {
    "JOIN" => Join { disk, format, number, start, epoch, address, host, zone, sync },
    "FENCED" => Fenced { epoch, position },
    "INVENTORY" => Inventory { copies },
    "INVENTORY-END" => InventoryEnd { position },
    "CHANGES" => Changes { position, changes },
    "DONE" => Done { epoch, outcomes },
    "HEARTBEAT" => Heartbeat { load },
    "REFUSE" => Refuse { epoch, why },
});

/// A copy that a Dstore has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyReport {
    /// Of which object.
    pub key: Key,
    /// In bytes.
    pub length: u64,
    /// Of its bytes.
    pub checksum: Checksum,
    /// Whether the Dstore has found it damaged.
    pub is_damaged: bool,
}

words!(struct CopyReport { key, length, checksum, is_damaged });

/// What has become of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyChange {
    /// It is there; or is good again.
    Stored {
        /// The copy.
        copy: CopyReport,
    },
    /// It is gone.
    Removed {
        /// Of which object.
        key: Key,
    },
}

words!(enum CopyChange, "change of a copy" { "stored" => Stored { copy }, "removed" => Removed { key } });

/// What became of an order about one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderOutcome {
    /// What was ordered.
    pub kind: OrderKind,
    /// About which object.
    pub key: Key,
    /// Why it is not done; absent if it is, or was before.
    pub failure: Option<Failure>,
}

words!(struct OrderOutcome { kind, key, failure });

/// What a Dstore may be ordered to do with a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderKind {
    /// To read it, and to see whether it is what was stored.
    Verify,
    /// To fetch it from another Dstore.
    Copy,
    /// To remove it.
    Remove,
}

words!(enum OrderKind, "kind of an order" { "verify" => Verify, "copy" => Copy, "remove" => Remove });

/// An object that a Dstore is to fetch from another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyOrder {
    /// Its name.
    pub key: Key,
    /// In bytes.
    pub length: u64,
    /// Of its bytes: only what matches is stored.
    pub checksum: Checksum,
    /// A fuller disk takes copies for some purposes only.
    pub purpose: Purpose,
    /// Where the other Dstore listens.
    pub from: Address,
}

words!(struct CopyOrder { key, length, checksum, purpose, from });

/// How a Dstore is. (depot 6.2)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// How many objects it has.
    pub objects: u64,
    /// Of these, how many are damaged.
    pub damaged: u64,
    /// Bytes of objects.
    pub used_bytes: u64,
    /// Bytes free on its disk.
    pub free_bytes: u64,
    /// The size of its disk in bytes.
    pub total_bytes: u64,
    /// Its host's use of processors, in percent.
    pub cpu_percent: u8,
    /// Of memory.
    pub memory_percent: u8,
    /// Of its disk's time.
    pub disk_percent: u8,
    /// How long ago it had verified all that it has; if it never has, since when its disk is used.
    pub scrubbed_ago: Duration,
}

words!(struct Load {
    objects, damaged, used_bytes, free_bytes, total_bytes, cpu_percent, memory_percent, disk_percent, scrubbed_ago
});

/// What a Controller says to a Dstore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// The Dstore belongs to the store: the answer to a join. It reports from now on, whether this Controller leads or not.
    Admitted {
        /// Its number.
        number: DstoreId,
    },
    /// This Controller leads, and gives orders from now on: at once behind `ADMITTED`, or later. (depot 2.2, 5.2)
    Leads {
        /// The leadership that the Dstore is to acknowledge.
        epoch: Epoch,
        /// The last change before it.
        after: u64,
        /// The newest leaderships that the leader's namespace contains, this one included; and the one that the Dstore named
        /// when it joined, if that is contained.
        known: Vec<Epoch>,
        /// All histories of the store.
        lineage: Vec<History>,
    },
    /// This Controller leads no more, and gives no orders until it does again.
    Follows,
    /// Where the Controllers are: behind `ADMITTED`, and again when that changes.
    Controllers {
        /// Which of them leads, as far as this one knows.
        leader: Option<ControllerId>,
        /// All of them.
        controllers: Vec<(ControllerId, Address)>,
    },
    /// The leader has applied more changes. (depot 2.2)
    Applied {
        /// Its leadership.
        epoch: Epoch,
        /// The last of them.
        sequence: u64,
    },
    /// To verify its copies of these objects, and to report what it finds.
    Verify {
        /// The leadership that orders it.
        epoch: Epoch,
        /// The objects.
        keys: Vec<Key>,
    },
    /// To fetch objects from other Dstores, verify them, and keep them. (depot 5.9, 6.3)
    Copy {
        /// The leadership that orders it.
        epoch: Epoch,
        /// Which, and from where.
        copies: Vec<CopyOrder>,
    },
    /// To remove its copies of these objects. (depot 5.3, 5.4)
    Remove {
        /// The leadership that orders it.
        epoch: Epoch,
        /// The objects.
        keys: Vec<Key>,
    },
    /// The Dstore is not accepted.
    Error {
        /// Why.
        failure: Failure,
    },
}

words!(enum Order, "order" {
    "ADMITTED" => Admitted { number },
    "LEADS" => Leads { epoch, after, known, lineage },
    "FOLLOWS" => Follows,
    "CONTROLLERS" => Controllers { leader, controllers },
    "APPLIED" => Applied { epoch, sequence },
    "VERIFY" => Verify { epoch, keys },
    "COPY" => Copy { epoch, copies },
    "REMOVE" => Remove { epoch, keys },
    "ERROR" => Error { failure },
});

/// What a Controller says to another one, on a connection that it opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerRequest {
    /// Which Controller is at this address: answered by `CONTROLLER`, to any peer.
    Who,
    /// The first line before any of those below: a member of the group wants to talk to another one. Answered by `OK`, or by an
    /// error that says what an operator has to do.
    Peer {
        /// Which one it is.
        from: ControllerId,
        /// Where it listens.
        address: Address,
        /// Which one it means to reach.
        to: ControllerId,
        /// The last change that it has applied.
        applied: Version,
    },
    /// A message of Raft's library, whose bytes follow. It is not answered, and may be lost.
    Raft {
        /// In bytes.
        length: u64,
    },
    /// Whether the connection still stands: answered by `OK`.
    Ping,
    /// A message of Raft's library that says that a snapshot is to be installed, and the snapshot: the bytes of both follow,
    /// one behind the other. Answered by `OK` once it is installed.
    Snapshot {
        /// The message, in bytes.
        message: u64,
        /// The snapshot, in bytes.
        length: u64,
    },
}

words!(enum PeerRequest, "request of a Controller" {
    "WHO" => Who,
    "PEER" => Peer { from, address, to, applied },
    "RAFT" => Raft { length },
    "PING" => Ping,
    "SNAPSHOT" => Snapshot { message, length },
});

/// What a Controller answers another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerAnswer {
    /// Which Controller this is.
    Controller {
        /// Which one.
        id: ControllerId,
        /// It has no log, and waits until it is added to a group.
        waits: bool,
        /// The Controllers of its store, as far as it knows.
        controllers: Vec<(ControllerId, Address)>,
    },
    /// It is done.
    Ok,
    /// It is not done.
    Error {
        /// Why.
        failure: Failure,
    },
}

words!(enum PeerAnswer, "answer of a Controller" {
    "CONTROLLER" => Controller { id, waits, controllers },
    "OK" => Ok,
    "ERROR" => Error { failure },
});

/// Why something is not done: a code, what belongs to it, and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// By the rules of the namespace.
    Refused {
        /// Which rule.
        refusal: Refusal,
    },
    /// No Dstore has room; or this Dstore has none.
    NoSpace,
    /// Fewer Dstores than needed can take an object, or have it.
    NotEnoughDstores {
        /// How many can, or have.
        there: u32,
        /// How many must.
        needed: u32,
    },
    /// What is needed is not there just now.
    Unavailable {
        /// What.
        what: String,
    },
    /// Another Controller leads.
    NotLeader {
        /// Which one, if that is known.
        leader: Option<Address>,
    },
    /// The copy is damaged.
    Damaged {
        /// Where.
        what: String,
    },
    /// The Dstore does not have the object.
    NotHere,
    /// The Dstore has other bytes under this key.
    Conflict,
    /// The bytes that came are not those that were announced.
    Mismatch,
    /// A key whose lease has ended, or that was never granted.
    NoLease,
    /// The changes behind this cursor are not kept any more.
    TooOld,
    /// The peer may not do this.
    NotPermitted {
        /// Why.
        why: String,
    },
    /// The request makes no sense.
    BadRequest {
        /// Why.
        why: String,
    },
    /// The change may have had effect or not.
    OutcomeUnknown {
        /// Why.
        why: String,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { refusal } => refusal.fmt(f),
            Self::NoSpace => f.write_str("no Dstore has room for it"),
            Self::NotEnoughDstores { there, needed } => write!(f, "{needed} Dstores are needed, {there} can take it"),
            Self::Unavailable { what } | Self::Damaged { what } => f.write_str(what),
            Self::NotLeader { leader: Some(leader) } => write!(f, "the Controller at {leader} leads"),
            Self::NotLeader { leader: None } => f.write_str("this Controller does not lead"),
            Self::NotHere => f.write_str("the Dstore does not have this object"),
            Self::Conflict => f.write_str("the Dstore has other bytes under this key"),
            Self::Mismatch => f.write_str("the bytes that came are not those that were announced"),
            Self::NoLease => f.write_str("the lease of a key has ended, or the key was never granted"),
            Self::TooOld => f.write_str("the changes behind this cursor are not kept any more: begin anew"),
            Self::NotPermitted { why } | Self::BadRequest { why } | Self::OutcomeUnknown { why } => f.write_str(why),
        }
    }
}

impl std::error::Error for Failure {}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused { refusal }
    }
}

/// Its code, what belongs to it, and its sentence, which says nothing new to a program.
impl Words for Failure {
    fn write(&self, line: &mut Line) {
        match self {
            Self::Refused { refusal } => {
                line.plain("refused");
                refusal.write(line);
            }
            Self::NoSpace => line.plain("no-space"),
            Self::NotEnoughDstores { there, needed } => {
                line.plain("not-enough-dstores");
                there.write(line);
                needed.write(line);
            }
            Self::Unavailable { .. } => line.plain("unavailable"),
            Self::NotLeader { leader } => {
                line.plain("not-leader");
                leader.write(line);
            }
            Self::Damaged { .. } => line.plain("damaged"),
            Self::NotHere => line.plain("not-here"),
            Self::Conflict => line.plain("conflict"),
            Self::Mismatch => line.plain("mismatch"),
            Self::NoLease => line.plain("no-lease"),
            Self::TooOld => line.plain("too-old"),
            Self::NotPermitted { .. } => line.plain("not-permitted"),
            Self::BadRequest { .. } => line.plain("bad-request"),
            Self::OutcomeUnknown { .. } => line.plain("outcome-unknown"),
        }
        line.text(&self.to_string());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        let code = reader.raw("error code")?;
        let sentence = |reader: &mut Reader<'_>| reader.text("sentence");
        let failure = match code {
            "refused" => Self::Refused { refusal: Words::read(reader)? },
            "no-space" => Self::NoSpace,
            "not-enough-dstores" => {
                Self::NotEnoughDstores { there: Words::read(reader)?, needed: Words::read(reader)? }
            }
            "not-leader" => Self::NotLeader { leader: Words::read(reader)? },
            "not-here" => Self::NotHere,
            "conflict" => Self::Conflict,
            "mismatch" => Self::Mismatch,
            "no-lease" => Self::NoLease,
            "too-old" => Self::TooOld,
            "unavailable" => return Ok(Self::Unavailable { what: sentence(reader)? }),
            "damaged" => return Ok(Self::Damaged { what: sentence(reader)? }),
            "not-permitted" => return Ok(Self::NotPermitted { why: sentence(reader)? }),
            "bad-request" => return Ok(Self::BadRequest { why: sentence(reader)? }),
            "outcome-unknown" => return Ok(Self::OutcomeUnknown { why: sentence(reader)? }),
            other => return Err(invalid("error code", other)),
        };
        sentence(reader)?;
        Ok(failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{ControllerRole, ControllerStatus, DstoreState, DstoreStatus, Election};
    use crate::identity::SessionId;
    use crate::namespace::change::{Duty, RemovalExtent};
    use crate::namespace::listing::Kind;
    use std::time::Duration;

    fn is_written<T: Words + PartialEq + fmt::Debug>(message: T, line: &str) {
        assert_eq!(message.to_line(), line);
        assert_eq!(T::from_line(line).as_ref(), Ok(&message));
    }

    fn path(text: &str) -> Path {
        text.parse().expect("a path")
    }

    fn address() -> Address {
        "h:1".parse().expect("an address")
    }

    const KEY: Key = Key { history: History(0xab), term: 2, number: 9 };
    const VERSION: Version = Version { history: History(0xab), sequence: 17 };
    const EPOCH: Epoch = Epoch { history: History(0xab), term: 2, nonce: 5 };

    #[test]
    fn requests_are_written_as_the_protocol_says() {
        is_written(Request::Session, "SESSION");
        let condition = Condition::Version { version: VERSION };
        let places = |replicas| Request::Places { path: path("/a b"), condition, parents: true, replicas, objects: 2 };
        is_written(places(None), "PLACES /a%20b version ab 17 yes - 2");
        is_written(places(Some(Replicas::All)), "PLACES /a%20b version ab 17 yes all 2");
        is_written(Request::Replace { key: KEY, tried: vec![DstoreId(3)] }, "REPLACE ab.2.9 1 3");
        is_written(Request::Renew { keys: vec![KEY] }, "RENEW 1 ab.2.9");
        let stamp = Stamp { session: SessionId(0xc), born: VERSION, number: 4, done_below: 3 };
        let command =
            Command::RemoveDirectory { path: path("/x"), condition: Condition::Any, extent: RemovalExtent::Tree };
        let change = Request::Change { stamp, more: 0, command: Box::new(command) };
        is_written(change, "CHANGE c ab 17 4 3 0 remove-directory /x any tree");
        let command = Command::Remove { path: path("/x"), condition: Condition::Any };
        let changes = vec![StampedCommand { stamp, command }];
        is_written(Request::ChangeMany { changes }, "CHANGE-MANY 1 c ab 17 4 3 remove /x any");
        is_written(Request::Stat { path: path("/") }, "STAT /");
        is_written(Request::Open { path: path("/x"), condition: Condition::Any }, "OPEN /x any");
        let list = |after: &str| Request::List {
            path: path("/"),
            prefix: String::new(),
            after: after.into(),
            is_recursive: false,
            limit: 1000,
        };
        is_written(list("x/"), "LIST / % x/ no 1000");
        is_written(Request::Find { path: path("/"), pattern: "*.jpg".into(), after: String::new() }, "FIND / *.jpg %");
        is_written(Request::Watch { after: Some(VERSION), wait_ms: 5 }, "WATCH ab 17 5");
        is_written(Request::Watch { after: None, wait_ms: 0 }, "WATCH - 0");
        is_written(Request::Status, "STATUS");
        is_written(Request::Backup, "BACKUP");
        is_written(Request::Copies { path: path("/x") }, "COPIES /x");
        is_written(Request::Holders { key: KEY }, "HOLDERS ab.2.9");
        is_written(Request::Suspect { key: KEY, dstore: DstoreId(1) }, "SUSPECT ab.2.9 1");
        is_written(Request::Repair { all: true }, "REPAIR yes");
        is_written(Request::Drain { dstore: DstoreId(1), drains: true }, "DRAIN 1 yes");
        is_written(Request::Discharge { dstore: DstoreId(1), is_lost: false }, "DISCHARGE 1 no");
        is_written(Request::CollectUnclaimed, "COLLECT-UNCLAIMED");
        is_written(Request::Controllers, "CONTROLLERS");
        is_written(Request::AddController { address: address() }, "ADD-CONTROLLER h:1");
        is_written(Request::RemoveController { controller: ControllerId(0xa) }, "REMOVE-CONTROLLER a");
        is_written(Request::HandOver { to: None }, "HAND-OVER -");
        is_written(Request::HandOver { to: Some(ControllerId(0xa)) }, "HAND-OVER a");
    }

    #[test]
    fn answers_are_written_as_the_protocol_says() {
        let settings = Settings::default();
        is_written(Answer::Session { born: VERSION, settings }, "SESSION ab 17 3 - 67108864 100000000 no -");
        let places: Address = "10.0.0.1:7100".parse().expect("an address");
        let grants = Grants {
            history: History(0xab),
            term: 2,
            write_quorum: 2,
            lease_ms: 60_000,
            addresses: vec![(DstoreId(1), places.clone())],
            objects: vec![Grant { number: 9, places: vec![DstoreId(1)] }],
        };
        is_written(Answer::Granted { grants: grants.clone() }, "GRANTED ab 2 2 60000 1 1 10.0.0.1:7100 1 9 1 1");
        is_written(Answer::Done { version: VERSION, grants }, "DONE ab 17 ab 2 2 60000 1 1 10.0.0.1:7100 1 9 1 1");
        let outcomes = vec![Outcome::Done { version: VERSION }, Outcome::Failed { failure: Failure::NotHere }];
        let line = "OUTCOMES 2 done ab 17 failed not-here the%20Dstore%20does%20not%20have%20this%20object";
        is_written(Answer::Outcomes { outcomes }, line);
        let kind = Kind::File { size: 5, checksum: Checksum(0xf) };
        let stat = Stat { kind, version: VERSION, changed: VERSION, modified_ms: 7, details: Default::default() };
        is_written(Answer::Stat { stat: stat.clone() }, "STAT file 5 f ab 17 ab 17 7 % % - 0 0");
        let objects = vec![ObjectPlaces { key: KEY, length: 5, checksum: Checksum(0xf), holders: vec![DstoreId(1)] }];
        let file = Answer::File { stat: stat.clone(), addresses: vec![(DstoreId(1), places)], objects };
        is_written(file, "FILE file 5 f ab 17 ab 17 7 % % - 0 0 1 1 10.0.0.1:7100 1 ab.2.9 5 f 1 1");
        let entries = vec![Listed { name: "x".into(), stat }];
        is_written(Answer::Page { entries, after: None }, "PAGE 1 x file 5 f ab 17 ab 17 7 % % - 0 0 -");
        is_written(Answer::Backup { sequence: 17, length: 5, keep_removed_ms: 600_000 }, "BACKUP 17 5 600000");
        let controllers = vec![(ControllerId(0xa), address()), (ControllerId(0xb), address())];
        let answer = Answer::Controllers { leader: Some(ControllerId(0xb)), controllers };
        is_written(answer, "CONTROLLERS b 2 a h:1 b h:1");
        is_written(Answer::Ok, "OK");
        let status = Status {
            name: "test".into(),
            problems: vec!["a sentence".into()],
            controllers: vec![ControllerStatus {
                id: ControllerId(0xa),
                address: "h:1".into(),
                role: ControllerRole::Leader,
                epoch: EPOCH,
                sync: "always".into(),
                last_index: Some(5),
                lag: 0,
                agreed: Some(4),
                silence: None,
                snapshot: Some((1, 2)),
                up: Some(Duration::from_millis(1500)),
            }],
            elections: vec![Election {
                leader: ControllerId(0xa),
                term: 2,
                ago: Duration::from_secs(9),
                gap: Some(Duration::from_millis(900)),
            }],
            dstores: vec![DstoreStatus {
                id: DstoreId(1),
                address: String::new(),
                host: "h".into(),
                zone: String::new(),
                state: DstoreState::Away,
                duty: Duty::Active,
                sync: "never".into(),
                objects: 1,
                used_bytes: 2,
                free_bytes: 3,
                total_bytes: 4,
                load_percent: (5, 6, 7),
                damaged: 8,
                scrubbed_ago: Duration::from_secs(5),
            }],
            ..Status::default()
        };
        let line = Answer::Status { status: Box::new(status.clone()) }.to_line();
        assert_eq!(Answer::from_line(&line), Ok(Answer::Status { status: Box::new(status) }), "{line}");
    }

    #[test]
    fn dstores_speak_as_the_protocol_says() {
        is_written(ObjectRequest::Put { key: KEY, length: 5, checksum: Checksum(0xf) }, "PUT ab.2.9 5 f");
        let object = Announced { key: KEY, length: 5, checksum: Checksum(0xf) };
        is_written(ObjectRequest::PutMany { objects: vec![object, object] }, "PUT-MANY 2 ab.2.9 5 f ab.2.9 5 f");
        is_written(ObjectRequest::Get { key: KEY, from: 65_536, length: 1 }, "GET ab.2.9 65536 1");
        is_written(ObjectRequest::Backup { epoch: EPOCH, length: 5 }, "BACKUP ab 2 5 5");
        is_written(ObjectAnswer::Kept, "KEPT");
        is_written(ObjectAnswer::Stored { position: Position { start: 1, number: 2 } }, "STORED 1 2");
        is_written(ObjectAnswer::Object { length: 5, sums: vec![Checksum(0xf)] }, "OBJECT 5 1 f");
        is_written(ObjectAnswer::Data { length: 5 }, "DATA 5");
        is_written(ObjectAnswer::Located { places: vec![None, Some(("pack-1".into(), 8))] }, "LOCATED 2 - pack-1 8");
        let join = Report::Join {
            disk: DiskId(0xd),
            format: 1,
            number: None,
            start: 3,
            epoch: Some(EPOCH),
            address: "h:1".parse().expect("an address"),
            host: "h".into(),
            zone: String::new(),
            sync: SyncMode::Always,
        };
        is_written(join, "JOIN d 1 - 3 ab 2 5 h:1 h % always");
        let copy = CopyReport { key: KEY, length: 5, checksum: Checksum(0xf), is_damaged: false };
        let position = Position { start: 3, number: 4 };
        is_written(ObjectRequest::Check { deep: true, keys: vec![KEY] }, "CHECK yes 1 ab.2.9");
        is_written(ObjectAnswer::Checked { copies: vec![None, Some(copy)] }, "CHECKED 2 - ab.2.9 5 f no");
        is_written(Report::Fenced { epoch: EPOCH, position }, "FENCED ab 2 5 3 4");
        is_written(Report::Inventory { copies: vec![copy] }, "INVENTORY 1 ab.2.9 5 f no");
        is_written(Report::InventoryEnd { position }, "INVENTORY-END 3 4");
        let changes = vec![CopyChange::Stored { copy }, CopyChange::Removed { key: KEY }];
        is_written(Report::Changes { position, changes }, "CHANGES 3 4 2 stored ab.2.9 5 f no removed ab.2.9");
        is_written(Report::Refuse { epoch: EPOCH, why: "why".into() }, "REFUSE ab 2 5 why");
        is_written(Report::Heartbeat { load: Load::default() }, "HEARTBEAT 0 0 0 0 0 0 0 0 0");
        is_written(Order::Admitted { number: DstoreId(1) }, "ADMITTED 1");
        let leads = Order::Leads { epoch: EPOCH, after: 81, known: vec![EPOCH], lineage: vec![History(0xab)] };
        is_written(leads, "LEADS ab 2 5 81 1 ab 2 5 1 ab");
        is_written(Order::Follows, "FOLLOWS");
        let controllers = vec![(ControllerId(0xa), address())];
        is_written(Order::Controllers { leader: None, controllers }, "CONTROLLERS - 1 a h:1");
        is_written(Order::Applied { epoch: EPOCH, sequence: 82 }, "APPLIED ab 2 5 82");
        is_written(Order::Verify { epoch: EPOCH, keys: vec![KEY] }, "VERIFY ab 2 5 1 ab.2.9");
        is_written(Order::Remove { epoch: EPOCH, keys: vec![KEY] }, "REMOVE ab 2 5 1 ab.2.9");
        let from = "h:1".parse().expect("an address");
        let copy = CopyOrder { key: KEY, length: 5, checksum: Checksum(0xf), purpose: Purpose::Repair, from };
        is_written(Order::Copy { epoch: EPOCH, copies: vec![copy] }, "COPY ab 2 5 1 ab.2.9 5 f repair h:1");
        let outcome = |kind, failure| OrderOutcome { kind, key: KEY, failure };
        let outcomes = vec![outcome(OrderKind::Copy, None), outcome(OrderKind::Verify, Some(Failure::NotHere))];
        let line =
            "DONE ab 2 5 2 copy ab.2.9 - verify ab.2.9 not-here the%20Dstore%20does%20not%20have%20this%20object";
        is_written(Report::Done { epoch: EPOCH, outcomes }, line);
    }

    #[test]
    fn controllers_speak_to_each_other_as_the_protocol_says() {
        let (one, other) = (ControllerId(0xa), ControllerId(0xb));
        is_written(PeerRequest::Who, "WHO");
        let applied = Version { history: History(0xc), sequence: 7 };
        is_written(PeerRequest::Peer { from: one, address: address(), to: other, applied }, "PEER a h:1 b c 7");
        is_written(PeerRequest::Raft { length: 5 }, "RAFT 5");
        is_written(PeerRequest::Ping, "PING");
        is_written(PeerRequest::Snapshot { message: 5, length: 6 }, "SNAPSHOT 5 6");
        let controllers = vec![(one, address())];
        is_written(PeerAnswer::Controller { id: one, waits: false, controllers }, "CONTROLLER a no 1 a h:1");
        is_written(PeerAnswer::Controller { id: other, waits: true, controllers: vec![] }, "CONTROLLER b yes 0");
        is_written(PeerAnswer::Ok, "OK");
        is_written(
            PeerAnswer::Error { failure: Failure::NotHere },
            "ERROR not-here the%20Dstore%20does%20not%20have%20this%20object",
        );
    }

    #[test]
    fn every_failure_has_a_code_and_a_sentence() {
        let text = || "why not".to_owned();
        let failures = [
            Failure::Refused { refusal: Refusal::NotFound },
            Failure::NoSpace,
            Failure::NotEnoughDstores { there: 1, needed: 2 },
            Failure::Unavailable { what: text() },
            Failure::NotLeader { leader: None },
            Failure::NotLeader { leader: "h:1".parse().ok() },
            Failure::Damaged { what: text() },
            Failure::NotHere,
            Failure::Conflict,
            Failure::Mismatch,
            Failure::NoLease,
            Failure::TooOld,
            Failure::NotPermitted { why: text() },
            Failure::BadRequest { why: text() },
            Failure::OutcomeUnknown { why: text() },
        ];
        for failure in failures {
            let line = Answer::Error { failure: failure.clone() }.to_line();
            let words: Vec<&str> = line.split(' ').collect();
            assert!(words[0] == "ERROR" && words.len() >= 3, "{line}");
            assert!(words.last().is_some_and(|sentence| sentence.contains("%20")), "{line}");
            assert_eq!(Answer::from_line(&line), Ok(Answer::Error { failure }), "{line}");
        }
    }
}
