//! A client's connection: requests in, answers out.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use stevedore::complaint::complain;
use stevedore::server::ThreadGroup;
use stevedore::socket::Wait;

use super::group::HAND_OVER;
use super::{Shared, backups, links, peers};
use crate::client::ChangeEvent;
use crate::glob::Pattern;
use crate::identity::{DstoreId, Key, Version};
use crate::namespace::Namespace;
use crate::namespace::change::{Condition, Duty, Replicas};
use crate::namespace::listing::{Listed, Page, Query};
use crate::path::Path;
use crate::placement::{Candidate, CopyState, choose};
use crate::wire::message::{Answer, Failure, Grant, Grants, ObjectPlaces, Order, Request, StampedCommand};
use crate::wire::{Address, ClientId, Connection, ReceiveError, Role, accept};

/// The most objects that are granted at a time. (depot 5.1)
const MOST_GRANTED: u32 = 256;

/// Places are chosen for so many objects under one hold of the lock.
const CHOSEN_AT_A_TIME: usize = 16;

/// The most entries that a page lists or looks at, under one hold of the lock. (depot 3.6)
const PAGE: usize = 1_000;

/// A search looks at so many pages before it answers, found or not.
const PAGES_SEARCHED: usize = 64;

/// A page of attributes does not become larger than about this, in bytes of its line.
const PAGE_BYTES: usize = 4 << 20;

/// The longest wait for a change. A client that wants more asks again.
const LONGEST_WATCH: Duration = Duration::from_secs(30);

/// So many bytes of the log are looked at for an answer to a watch.
const WATCHED_BYTES: usize = 1 << 20;

/// A peer that takes no answer for so long has gone.
const STALL: Duration = Duration::from_secs(30);

/// A request for the leader waits at most so long for one to be known.
pub(super) const ELECTION: Duration = Duration::from_millis(500);

/// The longest pattern of a search in bytes: names are matched while the namespace is held.
const LONGEST_PATTERN: usize = 256;

/// A Dstore with less than this part of its disk free gets no new object. (depot 5.6)
const LEAST_FREE: f64 = 0.05;

/// Serves a connection until it ends: a client's, or a Dstore's.
pub(super) fn serve(shared: &Arc<Shared>, threads: &Arc<ThreadGroup>, stream: Arc<TcpStream>) {
    let Ok(mut connection) = Connection::new(stream) else { return }; // it has ended already
    let role = match accept(&mut connection, Role::Controller, shared.cluster, &shared.secret) {
        Ok(role) => role,
        Err(error) => return complain(format_args!("{}: not let in: {error}", connection.peer())),
    };
    let result = connection.limit_stalls(STALL).map_err(ReceiveError::Io).and_then(|()| match role {
        Role::Client { id } => serve_client(shared, id, &mut connection),
        Role::Dstore => links::serve(shared, threads, &mut connection),
        Role::Controller => peers::serve(shared, &mut connection),
    });
    match result {
        Ok(()) | Err(ReceiveError::Ended) => {}
        Err(error) => complain(format_args!("{}: closed: {error}", connection.peer())),
    }
}

fn serve_client(shared: &Shared, client: ClientId, connection: &mut Connection) -> Result<(), ReceiveError> {
    loop {
        let answer = match connection.receive(Wait::Forever) {
            Ok(Request::Backup) => {
                backups::send(shared, connection)?;
                continue;
            }
            Ok(request) => shared.answer(client, request),
            // A line is a whole request here: the next one is not affected.
            Err(ReceiveError::Invalid(error)) => {
                Err(Failure::BadRequest { why: format!("this line is no request: {error}") })
            }
            Err(error) => return Err(error),
        };
        connection.send(&answer.unwrap_or_else(|failure| Answer::Error { failure }))?;
    }
}

impl Shared {
    fn answer(&self, client: ClientId, request: Request) -> Result<Answer, Failure> {
        if !matches!(request, Request::Session | Request::Status | Request::Controllers) {
            self.wait_until_followed()?;
        }
        if is_for_leader(&request) && self.epoch().is_err() {
            // A client that is sent away in the middle of an election asks in vain, and then pauses.
            self.wait_until(ELECTION, || self.leads_elsewhere() || self.epoch().is_ok());
            self.epoch()?;
        }
        match request {
            Request::Session => self.replica.read(|namespace| Answer::Session {
                born: namespace.version(namespace.sequence()),
                settings: namespace.settings().clone(),
            }),
            Request::Places { path, condition, parents, replicas, objects } => {
                let check = |namespace: &Namespace| namespace.check_put(&path, condition, parents);
                // A refusal is as good as a read: a later leader may have made the change that it misses.
                if self.replica.look(check).is_err() {
                    self.replica.read(check).map_err(|error| self.failed(error))??;
                }
                self.check_space()?;
                let grants = self.grant(client, replicas, objects)?;
                return Ok(Answer::Granted { grants });
            }
            Request::Replace { key, tried } => return self.replace(client, key, &tried),
            Request::Renew { keys } => {
                self.renew(client, &keys)?;
                Ok(Answer::Ok)
            }
            Request::Change { stamp, more, command } => {
                return self.change(client, StampedCommand { stamp, command: *command }, more);
            }
            Request::ChangeMany { changes } => return self.change_many(client, changes),
            Request::Stat { path } => {
                let stat =
                    self.replica.read(|namespace| namespace.stat(&path)).map_err(|error| self.failed(error))??;
                return Ok(Answer::Stat { stat });
            }
            Request::Open { path, condition } => return self.open(&path, condition),
            Request::List { path, prefix, after, is_recursive, limit } => {
                let query = Query { prefix: &prefix, after: &after, is_recursive };
                let limit = (limit as usize).clamp(1, PAGE);
                let page = self.replica.read(|namespace| namespace.list(&path, query, limit, |_| true));
                return Ok(cut(page.map_err(|error| self.failed(error))??));
            }
            Request::Find { pattern, .. } if pattern.len() > LONGEST_PATTERN => {
                let why = format!("a pattern has at most {LONGEST_PATTERN} bytes");
                return Err(Failure::BadRequest { why });
            }
            Request::Find { path, pattern, after } => return self.find(&path, &pattern, after),
            Request::Watch { after, wait_ms } => return self.watch(after, Duration::from_millis(wait_ms)),
            Request::Status => {
                // The leader knows how the store is. Where there is none, this Controller says what it knows.
                if let Err(failure @ Failure::NotLeader { leader: Some(_) }) = self.epoch() {
                    return Err(failure);
                }
                return Ok(Answer::Status { status: Box::new(self.status()) });
            }
            Request::Backup => unreachable!("bytes follow its answer: it is sent by itself"),
            Request::Copies { path } => return self.copies(&path),
            Request::Holders { key } => {
                self.wait_for_dstores(|| {
                    let state = self.state.lock();
                    let holders = state.holdings.holders(key);
                    holders.iter().any(|(dstore, _)| state.links.contains_key(dstore))
                });
                return Ok(Answer::Holders { holders: self.present_holders(key) });
            }
            Request::Suspect { key, dstore } => {
                self.suspect(key, dstore)?;
                Ok(Answer::Ok)
            }
            Request::Repair { all } => return self.repair(all),
            Request::Drain { dstore, drains } => return self.drain(dstore, drains),
            Request::Discharge { dstore, is_lost } => return self.discharge(dstore, is_lost),
            Request::CollectUnclaimed => return self.collect_unclaimed(),
            Request::Controllers => {
                let (leader, controllers) = (self.replica.leader(), self.controllers());
                Ok(Answer::Controllers { leader, controllers })
            }
            Request::AddController { address } => return self.add_controller(&address),
            Request::RemoveController { controller } => return self.remove_controller(controller),
            Request::HandOver { to } => return self.hand_over(to, HAND_OVER),
        }
        .map_err(|error| self.failed(error))
    }

    /// A leader whose disk is an old copy learns it from its Dstores. It answers nothing before one of them follows it, unless
    /// none comes in time; and no follower answers a read on its word. (depot 2.2)
    pub(super) fn wait_until_followed(&self) -> Result<(), Failure> {
        if !self.may_serve.load(Ordering::Acquire)
            && let Ok(epoch) = self.epoch()
        {
            if self.has_dstores() {
                let is_over = || self.may_serve.load(Ordering::Acquire) || self.epoch() != Ok(epoch);
                self.wait_for_dstores(|| is_over() || self.fatal.lock().is_some());
            }
            self.begin_to_serve(epoch);
        }
        let fatal = self.fatal.lock().clone();
        fatal.map_or(Ok(()), |why| Err(self.cannot_go_on(format!("the Controller stops: {why}"))))
    }

    pub(super) fn check_space(&self) -> Result<(), Failure> {
        if self.is_short_of_space.load(Ordering::Acquire) {
            let what = "the Controller's disk is nearly full: only removals are accepted until it has room".to_owned();
            return Err(Failure::Unavailable { what });
        }
        Ok(())
    }

    /// How many Dstores are to have an object, and how many must before its put succeeds.
    pub(super) fn wanted(&self, replicas: Option<Replicas>) -> (usize, usize) {
        let (wanted, write_quorum) = self.replica.look(|namespace| {
            let settings = namespace.settings();
            let active = || namespace.dstores().filter(|(_, record)| record.duty == Duty::Active).count();
            let wanted = match replicas.unwrap_or(settings.replicas) {
                Replicas::Number(number) => usize::from(number),
                Replicas::All => active().max(1),
            };
            (wanted, settings.write_quorum)
        });
        let majority = (wanted / 2 + 1).max(wanted.min(2));
        (wanted, write_quorum.map_or(majority, usize::from).min(wanted))
    }

    /// Leases keys for new objects, each with places.
    pub(super) fn grant(&self, client: ClientId, replicas: Option<Replicas>, count: u32) -> Result<Grants, Failure> {
        let epoch = self.epoch()?;
        let (wanted, quorum) = self.wanted(replicas);
        let write_quorum = quorum as u32;
        let lease_ms = self.state.lock().keys.lease_ms();
        let mut grants =
            Grants { history: epoch.history, term: epoch.term, write_quorum, lease_ms, ..Grants::default() };
        let mut times = BTreeMap::new();
        let mut left = count.min(MOST_GRANTED) as usize;
        while left > 0 {
            let all_places = self.places(left.min(CHOSEN_AT_A_TIME), wanted, quorum, &[], &mut times)?;
            let (mut state, now) = self.lead()?;
            if now != epoch {
                return Err(self.not_leader()); // a key is of the leadership that leases it
            }
            for places in all_places {
                left -= 1;
                let Some(key) = state.keys.grant(client, epoch, Instant::now()) else {
                    left = 0;
                    break;
                };
                let object = Grant { number: key.number, places: places.iter().map(|(dstore, _)| *dstore).collect() };
                grants.objects.push(object);
                grants.addresses.extend(places);
            }
        }
        if grants.objects.is_empty() && count > 0 {
            return Err(Failure::Unavailable { what: "this client has too many puts under way".into() });
        }
        grants.addresses.sort_unstable();
        grants.addresses.dedup();
        Ok(grants)
    }

    /// Prolongs leases. Keys of earlier leaderships are leased again as long as nothing is collected in this one, unless they are
    /// committed: the put that has them goes on after a change of leader. (depot 5.3)
    fn renew(&self, client: ClientId, keys: &[Key]) -> Result<(), Failure> {
        self.refuse_later(keys, self.epoch()?)?;
        let now = Instant::now();
        let unleased: Vec<Key> = {
            let (mut state, _) = self.lead()?;
            keys.iter().copied().filter(|key| !state.keys.renew(client, *key, now)).collect()
        };
        let is_free = self.replica.look(|namespace| unleased.iter().all(|key| namespace.object(*key).is_none()));
        let (mut state, epoch) = self.lead()?;
        let may_adopt = is_free && !state.healing.collects(now);
        let is_earlier = |key: &Key| key.history == epoch.history && key.term < epoch.term;
        let adopt = |key: &Key| {
            may_adopt && is_earlier(key) && !state.keys.is_leased(*key) && state.keys.adopt(client, *key, now)
        };
        if unleased.iter().all(adopt) { Ok(()) } else { Err(Failure::NoLease) }
    }

    /// Another place for an object that a Dstore did not take.
    fn replace(&self, client: ClientId, key: Key, tried: &[DstoreId]) -> Result<Answer, Failure> {
        self.renew(client, &[key])?;
        let addresses = self.places(1, 1, 1, tried, &mut BTreeMap::new())?.concat();
        let places = addresses.iter().map(|(dstore, _)| *dstore).collect();
        let objects = vec![Grant { number: key.number, places }];
        let lease_ms = self.state.lock().keys.lease_ms();
        let grants = Grants { history: key.history, term: key.term, write_quorum: 1, lease_ms, addresses, objects };
        Ok(Answer::Granted { grants })
    }

    /// For each of `objects`, up to `wanted` Dstores, at least `quorum` of them. `times` says how often each was chosen.
    fn places(
        &self,
        objects: usize,
        wanted: usize,
        quorum: usize,
        taken: &[DstoreId],
        times: &mut BTreeMap<DstoreId, usize>,
    ) -> Result<Vec<Vec<(DstoreId, Address)>>, Failure> {
        // Dstores may be entered in the log while this waits for them.
        let mut choice = || {
            let active = |namespace: &Namespace| {
                let active = namespace.dstores().filter(|(_, record)| record.duty == Duty::Active);
                active.map(|(id, record)| (id, record.clone())).collect::<Vec<_>>()
            };
            let records = self.replica.look(active);
            let (mut state, _) = self.lead()?;
            let state = &mut *state;
            let present = records.iter().filter_map(|(id, record)| {
                let link = state.links.get(id).filter(|link| link.is_fenced)?;
                let load = &link.load;
                let used =
                    if load.total_bytes == 0 { 0.0 } else { 1.0 - load.free_bytes as f64 / load.total_bytes as f64 };
                let busy = load.cpu_percent.max(load.disk_percent);
                Some(Candidate {
                    id: *id,
                    host: &record.host,
                    zone: &record.zone,
                    used,
                    load: f64::from(busy) / 100.0,
                    times: 0,
                })
            });
            let present: Vec<_> = present.collect();
            let mut with_room: Vec<_> =
                present.iter().filter(|candidate| candidate.used < 1.0 - LEAST_FREE).cloned().collect();
            let mut chosen_for_all = Vec::with_capacity(objects);
            for _ in 0..objects {
                with_room.iter_mut().for_each(|one| one.times = times.get(&one.id).copied().unwrap_or(0));
                let random = &mut state.random;
                let chosen = choose(&with_room, taken, wanted, |n| random.usize(..n));
                match chosen.len() {
                    there if there >= quorum => {}
                    _ if present.len() > with_room.len() => return Err(Failure::NoSpace),
                    there => {
                        return Err(Failure::NotEnoughDstores { there: there as u32, needed: quorum as u32 });
                    }
                }
                chosen.iter().for_each(|id| *times.entry(*id).or_insert(0) += 1);
                chosen_for_all.push(chosen.iter().map(|id| (*id, state.links[id].address.clone())).collect());
            }
            Ok(chosen_for_all)
        };
        let mut chosen = choice();
        if chosen.is_err() {
            self.wait_for_dstores(|| {
                chosen = choice();
                chosen.is_ok()
            });
        }
        chosen
    }

    fn open(&self, path: &Path, condition: Condition) -> Result<Answer, Failure> {
        let (stat, objects) =
            self.replica.read(|namespace| namespace.open(path)).map_err(|error| self.failed(error))??;
        stat.check(condition)?;
        let is_there = || {
            let state = self.state.lock();
            objects.iter().all(|object| {
                let holders = state.holdings.holders(object.key);
                holders.iter().any(|(dstore, kind)| *kind != CopyState::Damaged && state.links.contains_key(dstore))
            })
        };
        self.wait_for_dstores(is_there);
        let mut state = self.state.lock();
        let mut addresses = Vec::new();
        let mut places = Vec::with_capacity(objects.len());
        for object in &objects {
            let mut holders = state.holdings.holders(object.key);
            state.random.shuffle(&mut holders); // equal holders share the work
            holders.sort_by_key(|(dstore, kind)| (!state.links.contains_key(dstore), *kind == CopyState::Damaged));
            let holders: Vec<DstoreId> = holders.into_iter().map(|(dstore, _)| dstore).collect();
            let known = holders.iter().filter_map(|id| Some((*id, state.links.get(id)?.address.clone())));
            addresses.extend(known);
            let (key, length, checksum) = (object.key, object.length, object.checksum);
            places.push(ObjectPlaces { key, length, checksum, holders });
        }
        addresses.sort_unstable();
        addresses.dedup();
        Ok(Answer::File { stat, addresses, objects: places })
    }

    fn present_holders(&self, key: Key) -> Vec<(DstoreId, Address)> {
        let state = self.state.lock();
        let mut holders = state.holdings.holders(key);
        holders.sort_by_key(|(_, kind)| *kind);
        holders.iter().filter_map(|(id, _)| Some((*id, state.links.get(id)?.address.clone()))).collect()
    }

    /// Has a Dstore verify a copy: only its own finding changes what is known. (depot 5.5)
    fn suspect(&self, key: Key, dstore: DstoreId) -> Result<(), Failure> {
        let (state, epoch) = self.lead()?;
        if let Some(link) = state.links.get(&dstore) {
            log::warn!("a client could not read object {key} at Dstore {dstore}, which is to verify it");
            link.order(Order::Verify { epoch, keys: vec![key] });
        }
        Ok(())
    }

    fn find(&self, path: &Path, pattern: &str, mut after: String) -> Result<Answer, Failure> {
        let pattern = Pattern::new(pattern);
        let matches = |entry: &str| pattern.matches_last_component(entry);
        let mut found = Page::default();
        for _ in 0..PAGES_SEARCHED {
            let query = Query { prefix: "", after: &after, is_recursive: true };
            let page = self
                .replica
                .read(|namespace| namespace.list(path, query, PAGE, matches))
                .map_err(|error| self.failed(error))??;
            found.entries.extend(page.entries);
            found.after = page.after;
            match &found.after {
                Some(next) if found.entries.len() < PAGE => after.clone_from(next),
                _ => break,
            }
        }
        Ok(cut(found))
    }

    fn watch(&self, after: Option<Version>, wait: Duration) -> Result<Answer, Failure> {
        let now = self
            .replica
            .read(|namespace| namespace.version(namespace.sequence()))
            .map_err(|error| self.failed(error))?;
        let Some(after) = after else { return Ok(Answer::Changes { events: Vec::new(), next: now }) };
        let known = self.replica.read(|namespace| {
            let is_ours = namespace.version(after.sequence) == after && after.sequence <= namespace.sequence();
            is_ours && namespace.remembers_effects_from(after.sequence + 1)
        });
        if !known.map_err(|error| self.failed(error))? {
            return Err(Failure::TooOld);
        }
        let deadline = Instant::now() + wait.min(LONGEST_WATCH);
        let mut after = after.sequence;
        loop {
            self.replica.wait_beyond(after, deadline, || self.is_stopping());
            let changes = self.replica.changes_after(after, WATCHED_BYTES).map_err(|_| Failure::TooOld)?;
            let answer = self.replica.read(|namespace| {
                let effective = changes.iter().filter(|(sequence, _)| namespace.was_effective(*sequence));
                let events: Vec<ChangeEvent> = effective
                    .filter_map(|(sequence, change)| ChangeEvent::of(namespace.version(*sequence), change))
                    .collect();
                let last = changes.last().map_or(after, |(sequence, _)| *sequence);
                (events, namespace.version(last))
            });
            let (events, next) = answer.map_err(|error| self.failed(error))?;
            after = next.sequence;
            if !events.is_empty() || self.is_stopping() || Instant::now() >= deadline {
                return Ok(Answer::Changes { events, next });
            }
        }
    }
}

/// A page whose line is not too long: attributes have up to 16 KiB an entry.
fn cut(mut page: Page) -> Answer {
    let mut bytes = 0;
    let mut fits = |entry: &Listed| {
        let details = &entry.stat.details;
        let maps = [&details.attributes, &details.digests];
        let extra: usize = maps.iter().flat_map(|map| map.iter()).map(|(name, value)| name.len() + value.len()).sum();
        bytes += 3 * (entry.name.len() + extra + details.owner.len() + details.content_type.len()) + 100;
        bytes <= PAGE_BYTES
    };
    let count = page.entries.iter().take_while(|entry| fits(entry)).count().max(1);
    if count < page.entries.len() {
        page.entries.truncate(count);
        page.after = page.entries.last().map(|entry| entry.name.clone());
    }
    Answer::Page { entries: page.entries, after: page.after }
}

/// Whether only the leader may answer it: what it decides, or what it knows first. (depot 4.5)
fn is_for_leader(request: &Request) -> bool {
    match request {
        Request::Places { .. }
        | Request::Replace { .. }
        | Request::Renew { .. }
        | Request::Change { .. }
        | Request::ChangeMany { .. }
        | Request::Copies { .. }
        | Request::Holders { .. }
        | Request::Suspect { .. }
        | Request::Repair { .. }
        | Request::Drain { .. }
        | Request::Discharge { .. }
        | Request::CollectUnclaimed
        | Request::AddController { .. }
        | Request::RemoveController { .. }
        | Request::HandOver { .. } => true,
        Request::Session
        | Request::Stat { .. }
        | Request::Open { .. }
        | Request::List { .. }
        | Request::Find { .. }
        | Request::Watch { .. }
        | Request::Status
        | Request::Backup
        | Request::Controllers => false,
    }
}
