//! Many small files at a time. (depot 5.1)
//!
//! ```text
//! one by one   PLACES ─▶ PUT to R Dstores ─▶ CHANGE, PLACES ─▶ PUT to R Dstores ─▶ CHANGE, …
//! together     PLACES of 64 ─▶ PUT-MANY to each Dstore that is a place ─▶ CHANGE-MANY of 64
//! ```
//!
//! A Dstore syncs once for all objects of a request, and the leader once for all of its changes. Each file is still a put of its
//! own: it has its own stamp and condition, and others see it by itself.
//!
//! Only what goes well is done together. A file that too few Dstores have after that is put once more by itself, with another
//! key; a change that was not answered is sent again by itself, under its stamp. Those ways know what to do about every failure.

use std::collections::BTreeMap;
use std::time::Instant;

use super::answers::{Asked, next_answer};
use super::cluster::{Attempt, Cluster};
use super::upload::{GRACE, STORING, outcome};
use super::{Error, Files, SmallFile, Source, TOGETHER, TOGETHER_BYTES};
use crate::checksum::Checksum;
use crate::identity::{DstoreId, Key, Position, Version};
use crate::namespace::change::{Command, Condition, NewObject, NewObjects, Refusal};
use crate::pack::Announced;
use crate::wire::Role;
use crate::wire::message::{Answer, Failure, Grant, Grants, ObjectRequest, Outcome, Request, StampedCommand};

pub(super) fn put_many(cluster: &Cluster, files: &[SmallFile]) -> Vec<Result<Version, Error>> {
    let mut outcomes = Vec::with_capacity(files.len());
    let mut rest = files;
    while !rest.is_empty() {
        let batch;
        (batch, rest) = rest.split_at(length_of_batch(rest));
        outcomes.extend(put_batch(cluster, batch));
    }
    outcomes
}

/// So many of these files, at least one, are put together: those whose objects want as many replicas, and whose bytes fit.
fn length_of_batch(files: &[SmallFile]) -> usize {
    let mut bytes = 0;
    let fits = |file: &&SmallFile| {
        bytes += file.content.len() as u64;
        bytes <= TOGETHER_BYTES && file.options.details.replicas == files[0].options.details.replicas
    };
    files.iter().take(TOGETHER).take_while(fits).count().max(1)
}

fn put_batch(cluster: &Cluster, files: &[SmallFile]) -> Vec<Result<Version, Error>> {
    let singly = |file: &SmallFile| cluster.put(&file.path, Source::Once(&mut &file.content[..]), &file.options);
    if files.len() == 1 {
        return files.iter().map(singly).collect();
    }
    let stored = match store(cluster, files) {
        Ok(stored) => stored,
        Err(why) => {
            log::info!("{} files are put one by one: {why}", files.len());
            return files.iter().map(singly).collect();
        }
    };
    // What may be committed, with where it is in the batch.
    let (mut at, mut changes) = (Vec::new(), Vec::new());
    let mut outcomes: Vec<Option<Result<Version, Error>>> = files.iter().map(|_| None).collect();
    for (number, (file, objects)) in files.iter().zip(stored).enumerate() {
        let Some((objects, checksum)) = objects else { continue };
        match cluster.stamp() {
            Ok(stamp) => {
                at.push(number);
                changes.push(StampedCommand { stamp, command: command(file, objects, checksum) });
            }
            Err(error) => outcomes[number] = Some(Err(error)),
        }
    }
    let (answered, was_sent) = match cluster.change_many(&changes) {
        Attempt::Answered(answered) => (answered, false),
        Attempt::NotMade => (Vec::new(), false),
        Attempt::Unknown => (Vec::new(), true),
    };
    let mut answered = answered.into_iter();
    for (number, StampedCommand { stamp, command }) in at.into_iter().zip(changes) {
        let outcome = match answered.next() {
            Some(Outcome::Done { version }) => Ok(version),
            Some(Outcome::Failed { failure: Failure::Refused { refusal } }) if refusal != Refusal::UnknownOutcome => {
                Err(Error::Refused(refusal))
            }
            failed => {
                let was_sent =
                    was_sent || matches!(failed, Some(Outcome::Failed { failure: Failure::OutcomeUnknown { .. } }));
                let keys = keys_of(&command);
                outcomes[number] = Some(cluster.commit_as(stamp, command, 0, &keys, was_sent));
                continue;
            }
        };
        cluster.close(&stamp);
        outcomes[number] = Some(outcome);
    }
    let rest = |(file, outcome): (_, Option<_>)| outcome.unwrap_or_else(|| singly(file));
    files.iter().zip(outcomes).map(rest).collect()
}

fn command(file: &SmallFile, objects: NewObjects, checksum: Checksum) -> Command {
    let options = file.options.clone();
    Command::Put {
        path: file.path.clone(),
        condition: options.condition,
        parents: options.parents,
        checksum,
        modified_ms: options.modified_ms,
        details: options.details,
        objects,
    }
}

fn keys_of(command: &Command) -> Vec<Key> {
    let Command::Put { objects, .. } = command else { return Vec::new() };
    objects.objects.iter().map(|object| objects.key(object)).collect()
}

/// What a file's put names: its objects, and the checksum of its content.
type Stored = (NewObjects, Checksum);

/// Has each file's object stored by its places. A file that too few of them have is `None`.
fn store(cluster: &Cluster, files: &[SmallFile]) -> Result<Vec<Option<Stored>>, Error> {
    let grants = grants_for(cluster, files)?;
    let mut granted = grants.objects.iter();
    // Each with its place in the batch, for each Dstore.
    let mut parcels: BTreeMap<DstoreId, Parcel> = BTreeMap::new();
    let mut objects: Vec<Option<NewObject>> = Vec::with_capacity(files.len());
    for (number, file) in files.iter().enumerate().filter(|(_, file)| !file.content.is_empty()) {
        let Some(Grant { number: key, places }) = granted.next() else { break };
        objects.resize(number, None);
        let (length, checksum) = (file.content.len() as u64, Checksum::of(&file.content));
        objects.push(Some(NewObject { term: grants.term, number: *key, length, checksum, holders: Vec::new() }));
        let key = Key { history: grants.history, term: grants.term, number: *key };
        for place in places {
            let parcel = parcels.entry(*place).or_default();
            parcel.announced.push(Announced { key, length, checksum });
            parcel.content.extend_from_slice(&file.content);
            parcel.files.push(number);
        }
    }
    objects.resize(files.len(), None);
    send(cluster, &grants, parcels, &mut objects)?;
    let quorum = grants.write_quorum as usize;
    let stored = files.iter().zip(objects).map(|(file, object)| match object {
        None if file.content.is_empty() => Some((NewObjects::default(), Checksum::EMPTY)),
        Some(object) if object.holders.len() >= quorum => {
            let checksum = object.checksum;
            Some((NewObjects { history: grants.history, objects: vec![object] }, checksum))
        }
        _ => None,
    });
    Ok(stored.collect())
}

fn grants_for(cluster: &Cluster, files: &[SmallFile]) -> Result<Grants, Error> {
    let objects = files.iter().filter(|file| !file.content.is_empty()).count() as u32;
    let SmallFile { path, options, .. } = &files[0];
    // Conditions are looked at when the puts are committed: little was sent in vain.
    let request = Request::Places {
        path: path.clone(),
        condition: Condition::Any,
        parents: options.parents,
        replicas: options.details.replicas,
        objects,
    };
    match cluster.ask(&request)? {
        Answer::Granted { grants } => Ok(grants),
        other => Err(super::cluster::unexpected(&other)),
    }
}

/// What one Dstore is sent.
#[derive(Default)]
struct Parcel {
    announced: Vec<Announced>,
    content: Vec<u8>,
    /// Which files of the batch these are.
    files: Vec<usize>,
}

/// Sends each Dstore its parcel, and enters it as a holder of what it has stored. As with a single put, those that are late are
/// not waited for much longer once every object has enough holders.
fn send(
    cluster: &Cluster,
    grants: &Grants,
    parcels: BTreeMap<DstoreId, Parcel>,
    objects: &mut [Option<NewObject>],
) -> Result<(), Error> {
    let begun = Instant::now();
    let mut waiting: Vec<Asked> = Vec::new();
    for (dstore, parcel) in &parcels {
        let Some((_, address)) = grants.addresses.iter().find(|(id, _)| id == dstore) else { continue };
        let request = ObjectRequest::PutMany { objects: parcel.announced.clone() };
        match cluster.pool.take(address, Role::Dstore) {
            Ok(connection) if connection.send_with_content(&request, &parcel.content).is_ok() => {
                waiting.push(Asked::new(*dstore, address.clone(), connection));
            }
            Ok(_) | Err(_) => log::info!("Dstore {dstore} at {address} is not reached"),
        }
    }
    let is_enough = |objects: &[Option<NewObject>]| {
        objects.iter().flatten().all(|object| object.holders.len() >= grants.write_quorum as usize)
    };
    let mut patience = STORING;
    while let Some(left) = patience.checked_sub(begun.elapsed())
        && !waiting.is_empty()
        && let Some((Asked { dstore, address, connection, .. }, answer)) = next_answer(&mut waiting, left)?
    {
        match outcome(answer)? {
            Ok(position) => {
                cluster.pool.give_back(&address, connection);
                let was_enough = is_enough(objects);
                enter(objects, &parcels[&dstore].files, dstore, position);
                if !was_enough && is_enough(objects) {
                    patience = begun.elapsed() * 3 + GRACE;
                }
            }
            Err(why) => log::info!("Dstore {dstore} did not take {} objects: {why}", parcels[&dstore].files.len()),
        }
    }
    Ok(())
}

fn enter(objects: &mut [Option<NewObject>], files: &[usize], dstore: DstoreId, position: Position) {
    for number in files {
        if let Some(object) = &mut objects[*number] {
            object.holders.push((dstore, position));
        }
    }
}
