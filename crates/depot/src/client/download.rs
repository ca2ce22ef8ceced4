//! Reading a file: each block is verified before it is handed over, from whichever holder can give it. (depot 5.5)

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use stevedore::socket::Wait;

use super::cluster::{Cluster, ObjectCache};
use super::{Content, Error, parallel};
use crate::checksum::{BLOCK_BYTES, Checksum, combined};
use crate::identity::DstoreId;
use crate::namespace::listing::{Kind, Stat};
use crate::wire::message::{Failure, ObjectAnswer, ObjectPlaces, ObjectRequest, Request};
use crate::wire::{Address, Connection, Role};

const BLOCK: u64 = BLOCK_BYTES as u64;

/// How long a holder may take to begin, and to go on.
const STALL: Duration = Duration::from_secs(10);

/// A file that is being read.
pub(super) struct Download<'a> {
    cluster: &'a Cluster,
    stat: Stat,
    size: u64,
    addresses: Mutex<BTreeMap<DstoreId, Address>>,
    pub(super) objects: Vec<ObjectPlaces>,
    /// The checksums of the blocks of objects of which some was read, once they are known to be the right ones.
    sums: Mutex<BTreeMap<usize, Arc<[Checksum]>>>,
    /// One Dstore is to be read from first: not a cache, and not several at the same time.
    is_directed: bool,
}

/// Why a holder did not give all that was asked for.
pub(super) enum Interrupted {
    /// It is this holder's fault: the next one may do better. True if its copy is damaged.
    Holder { why: String, is_damaged: bool },
    /// The bytes cannot be handed over.
    Sink(std::io::Error),
}

impl<'a> Download<'a> {
    pub(super) fn new(
        cluster: &'a Cluster,
        stat: Stat,
        addresses: Vec<(DstoreId, Address)>,
        objects: Vec<ObjectPlaces>,
    ) -> Result<Self, Error> {
        let Kind::File { size, .. } = stat.kind else {
            return Err(Error::Protocol("a file was asked for, and a directory was answered".into()));
        };
        if objects.iter().map(|object| object.length).sum::<u64>() != size {
            return Err(Error::Protocol("the objects of a file do not add up to its size".into()));
        }
        let (addresses, sums) = (Mutex::new(addresses.into_iter().collect()), Mutex::default());
        Ok(Self { cluster, stat, size, addresses, objects, sums, is_directed: false })
    }

    /// Where a Dstore listens, if that is known.
    pub(super) fn address(&self, dstore: DstoreId) -> Option<Address> {
        self.addresses.lock().get(&dstore).cloned()
    }

    /// The cache that an object is to be read by way of.
    fn cache_for(&self, at: usize) -> Option<&Arc<dyn ObjectCache>> {
        self.cluster.cache.as_ref().filter(|cache| !self.is_directed && self.objects[at].length <= cache.largest())
    }

    /// Hands over a range of one object. A small one comes from the cache, if there is one.
    fn copy_object(&self, at: usize, range: Range<u64>, sink: &mut dyn Write) -> Result<(), Error> {
        let ObjectPlaces { key, length, checksum, .. } = self.objects[at];
        let Some(cache) = self.cache_for(at) else { return self.fetch(at, range, sink) };
        // It may be kept by a program that is no part of the store.
        let is_sound = |bytes: &Arc<[u8]>| bytes.len() as u64 == length && Checksum::of(bytes) == checksum;
        let bytes = match cache.get(&key).filter(is_sound) {
            Some(bytes) => bytes,
            None => {
                let mut bytes = Vec::with_capacity(length as usize);
                self.fetch(at, 0..length, &mut bytes)?;
                let bytes: Arc<[u8]> = bytes.into();
                cache.keep(key, Arc::clone(&bytes));
                bytes
            }
        };
        sink.write_all(&bytes[range.start as usize..range.end as usize]).map_err(Error::Sink)
    }

    /// Hands over a range of one object, from as many holders as it takes.
    pub(super) fn fetch(&self, at: usize, range: Range<u64>, sink: &mut dyn Write) -> Result<(), Error> {
        let object = &self.objects[at];
        let mut holders = object.holders.clone();
        let mut position = range.start;
        let mut was_asked = false;
        let mut damage = None;
        let mut last = String::from("no Dstore that is there has a copy");
        loop {
            let before = position;
            for holder in std::mem::take(&mut holders) {
                let Some(address) = self.address(holder) else { continue };
                let Err(interrupted) = self.read_from(&address, at, &mut position, range.end, sink, &|_| ()) else {
                    return Ok(());
                };
                self.note(holder, &address, at, &interrupted);
                match interrupted {
                    Interrupted::Sink(error) => return Err(Error::Sink(error)),
                    Interrupted::Holder { why, is_damaged } => {
                        if is_damaged {
                            damage = Some(format!("object {} at Dstore {holder}: {why}", object.key));
                        }
                        last = format!("Dstore {holder} at {address}: {why}");
                    }
                }
            }
            if position > before {
                holders.clone_from(&object.holders); // what one lacks another may have, block by block
                continue;
            }
            if was_asked {
                break;
            }
            // The leader may know of others by now.
            was_asked = true;
            let known = self.cluster.holders(object.key)?;
            holders = known.iter().map(|(holder, _)| *holder).collect();
            self.addresses.lock().extend(known);
        }
        Err(match damage {
            Some(what) => Error::Damaged(format!("no copy that can be reached is good: {what}")),
            None => Error::Unavailable(format!("object {} of this file: {last}", object.key)),
        })
    }

    /// A holder has not given all that it was asked for. The leader is told of damage.
    pub(super) fn note(&self, holder: DstoreId, address: &Address, at: usize, interrupted: &Interrupted) {
        let Interrupted::Holder { why, is_damaged } = interrupted else { return };
        let key = self.objects[at].key;
        log::info!("Dstore {holder} at {address}, object {key}: {why}");
        if *is_damaged {
            // Only the Dstore's own finding counts; a reader goes on whatever the answer.
            let _ = self.cluster.ask(&Request::Suspect { key, dstore: holder });
        }
    }

    /// Hands over what one holder has, from `position` on, which advances with what was handed over. `waits_on` is told which socket
    /// that takes, and that it takes none any more.
    pub(super) fn read_from(
        &self,
        address: &Address,
        at: usize,
        position: &mut u64,
        end: u64,
        sink: &mut dyn Write,
        waits_on: &dyn Fn(Option<&Arc<TcpStream>>),
    ) -> Result<(), Interrupted> {
        let object = &self.objects[at];
        let failed = |why: String| Interrupted::Holder { why, is_damaged: false };
        let damaged = |why: &str| Interrupted::Holder { why: why.to_owned(), is_damaged: true };
        let announce = |stream: &Arc<TcpStream>| waits_on(Some(stream));
        let connection = self.cluster.pool.take_announced(address, Role::Dstore, announce);
        let mut connection = connection.map_err(|error| failed(error.to_string()))?;
        let from = *position / BLOCK * BLOCK;
        let length = (end.div_ceil(BLOCK) * BLOCK).min(object.length) - from;
        let get = ObjectRequest::Get { key: object.key, from, length };
        connection.send(&get).map_err(|error| failed(error.to_string()))?;
        let sums = match receive(&mut connection)? {
            ObjectAnswer::Object { length, sums } if length == object.length => sums,
            ObjectAnswer::Object { .. } => return Err(damaged("it has another length")),
            other => return Err(failed(format!("an answer to another question: {other:?}"))),
        };
        let known = self.sums.lock().get(&at).cloned();
        if known.is_none_or(|known| *known != *sums) {
            if !are_of(&sums, object.length, object.checksum) {
                return Err(damaged("its blocks are not those of the object"));
            }
            self.sums.lock().insert(at, sums.as_slice().into());
        }
        let mut block = vec![0; BLOCK.min(length) as usize];
        let mut at = from;
        while at < from + length {
            let ObjectAnswer::Data { length: piece } = receive(&mut connection)? else {
                return Err(failed("an answer to another question".into()));
            };
            if piece == 0 || at + piece > from + length || (piece % BLOCK != 0 && at + piece != from + length) {
                return Err(failed(format!("a piece of {piece} bytes at {at}")));
            }
            let mut content = connection.content(piece, STALL);
            while content.left() > 0 {
                let bytes = &mut block[..BLOCK.min(content.left()) as usize];
                content.read_exact(bytes).map_err(|error| failed(error.to_string()))?;
                if sums.get((at / BLOCK) as usize) != Some(&Checksum::of(bytes)) {
                    return Err(damaged("a block is not what its checksum says"));
                }
                let wanted = position.saturating_sub(at)..(end - at).min(bytes.len() as u64);
                sink.write_all(&bytes[wanted.start as usize..wanted.end as usize]).map_err(Interrupted::Sink)?;
                at += bytes.len() as u64;
                *position = at.min(end);
            }
        }
        waits_on(None); // it is another reader's from now on
        self.cluster.pool.give_back(address, connection);
        Ok(())
    }
}

fn receive(connection: &mut Connection) -> Result<ObjectAnswer, Interrupted> {
    let failed = |why: String, is_damaged| Interrupted::Holder { why, is_damaged };
    match connection.receive(Wait::deadline(STALL)) {
        Ok(ObjectAnswer::Error { failure }) => {
            let is_damaged = matches!(failure, Failure::Damaged { .. } | Failure::NotHere);
            Err(failed(failure.to_string(), is_damaged))
        }
        Ok(answer) => Ok(answer),
        Err(error) => Err(failed(error.to_string(), false)),
    }
}

/// Whether these are the checksums of all blocks of an object.
fn are_of(sums: &[Checksum], length: u64, checksum: Checksum) -> bool {
    sums.len() as u64 == length.div_ceil(BLOCK) && combined(sums, length) == checksum
}

impl Content for Download<'_> {
    fn stat(&self) -> &Stat {
        &self.stat
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn holders(&self) -> BTreeSet<DstoreId> {
        self.objects.iter().flat_map(|object| &object.holders).copied().collect()
    }

    fn prefer(&mut self, dstore: DstoreId) {
        self.is_directed = true;
        for object in &mut self.objects {
            object.holders.sort_by_key(|holder| *holder != dstore); // stable: the others keep their order
        }
    }

    fn copy_to(&mut self, range: Range<u64>, sink: &mut dyn Write) -> Result<(), Error> {
        let end = range.end.min(self.size);
        let mut offset = 0;
        let mut ranges = Vec::new();
        for (at, object) in self.objects.iter().enumerate() {
            let (from, to) = (range.start.max(offset), end.min(offset + object.length));
            if from < to {
                ranges.push((at, from - offset..to - offset));
            }
            offset += object.length;
        }
        // What the cache may have is read one by one, all that lies between at the same time.
        for ranges in
            ranges.chunk_by(|(one, _), (next, _)| self.cache_for(*one).is_none() && self.cache_for(*next).is_none())
        {
            let bytes: u64 = ranges.iter().map(|(_, range)| range.end - range.start).sum();
            let holders: BTreeSet<&DstoreId> = ranges.iter().flat_map(|(at, _)| &self.objects[*at].holders).collect();
            let pays = bytes >= parallel::LEAST && holders.len() > 1 && !self.is_directed;
            if let Some(permit) = pays.then(|| self.cluster.parallel.take()).flatten() {
                parallel::copy(self, &permit, ranges.to_vec(), sink)?;
                continue;
            }
            for (at, range) in ranges {
                self.copy_object(*at, range.clone(), sink)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_checksums_add_up_to_the_objects_or_are_refused() {
        let bytes = kit::bytes(1, 200_000);
        let sums: Vec<Checksum> = bytes.chunks(BLOCK as usize).map(Checksum::of).collect();
        let whole = Checksum::of(&bytes);
        assert!(are_of(&sums, 200_000, whole));
        assert!(!are_of(&sums[1..], 200_000, whole), "one is missing");
        let mut swapped = sums.clone();
        swapped.swap(0, 1);
        assert!(!are_of(&swapped, 200_000, whole));
        assert!(are_of(&[], 0, Checksum::EMPTY));
    }
}
