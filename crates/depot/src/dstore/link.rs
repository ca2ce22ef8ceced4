//! The connection to a Controller: it hears what the Dstore has, and gives orders. (depot 2.2, 4.6, 5.2)
//!
//! The Dstore opens it, and opens it again when it ends. Each time it says who it is, decides whether it follows this
//! Controller, and then reports all that it has; from then on, what changes.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stevedore::complaint::complain;
use stevedore::server::ThreadGroup;
use stevedore::socket::Wait;

use super::load::Sampler;
use super::orders::{Job, Orderer};
use super::{FORMAT, Shared};
use crate::identity::{DstoreId, Epoch, History, Key};
use crate::pack::Now;
use crate::wire::message::{CopyChange, CopyReport, Failure, Load, Order, Report};
use crate::wire::{Access, Address, Connection, HandshakeError, LineSender, ReceiveError, Role, connect};

/// How long a Controller may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// After a failure it is tried again after so long, then twice as long, up to the longest.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// So often the Controller hears that all is well.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Changes wait so long for others to be reported with.
const BATCHING: Duration = Duration::from_millis(20);

/// So many copies or changes are reported in a line.
const MOST_REPORTED: usize = 1000;

/// Why a link has ended.
enum End {
    /// The Dstore stops.
    Stopped,
    /// The connection cannot be made, or has broken.
    Broken(String),
    /// The Controller does not admit the Dstore.
    Refused(Failure),
    /// The Dstore does not follow the Controller.
    NotFollowed(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("it stops"),
            Self::Broken(why) | Self::NotFollowed(why) => f.write_str(why),
            Self::Refused(failure) => write!(f, "it is not admitted: {failure}"),
        }
    }
}

impl From<ReceiveError> for End {
    fn from(error: ReceiveError) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<std::io::Error> for End {
    fn from(error: std::io::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<HandshakeError> for End {
    fn from(error: HandshakeError) -> Self {
        Self::Broken(error.to_string())
    }
}

/// Keeps a link to a Controller, until the Dstore stops or has to.
pub(super) fn keep(shared: &Arc<Shared>, threads: &Arc<ThreadGroup>, controller: &Address) {
    let mut retry = FIRST_RETRY;
    let mut refused_since = None;
    let mut last_said = String::new();
    while !shared.is_stopping() && !shared.has_given_up() {
        let mut was_admitted = false;
        let end = match link(shared, threads, controller, &mut was_admitted) {
            Ok(()) => return,
            Err(End::Stopped) => return,
            Err(end) => end,
        };
        if was_admitted {
            (retry, refused_since) = (FIRST_RETRY, None);
            last_said.clear();
        }
        if shared.is_stopping() {
            return;
        }
        if let End::Refused(failure @ Failure::NotPermitted { .. }) = &end {
            let since = *refused_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= shared.gives_up_after {
                return shared.give_up(format!("the Controller at {controller} does not admit this Dstore: {failure}"));
            }
        } else {
            refused_since = None;
        }
        let said = end.to_string();
        if said != last_said {
            log::warn!("{}: the Controller at {controller}: {said}; trying again", shared.number());
            last_said = said;
        }
        if !shared.rest(retry) {
            return;
        }
        retry = (2 * retry).min(LONGEST_RETRY);
    }
}

fn link(
    shared: &Arc<Shared>,
    threads: &Arc<ThreadGroup>,
    controller: &Address,
    was_admitted: &mut bool,
) -> Result<(), End> {
    let access = Access::Server { role: Role::Dstore, secret: shared.secret.clone() };
    let tracked = RefCell::new(None);
    let announce = |stream: &_| drop(tracked.replace(Some(threads.track(stream))));
    let mut connection = connect(controller, &access, shared.cluster, Role::Controller, PATIENCE, announce)?;
    connection.limit_stalls(PATIENCE)?;
    let identity = shared.disk.identity();
    connection.send(&Report::Join {
        disk: identity.disk,
        format: FORMAT,
        number: identity.number,
        start: identity.start,
        epoch: identity.epoch,
        address: shared.address.clone(),
        host: shared.host.clone(),
        zone: shared.zone.clone(),
        sync: shared.sync,
    })?;
    let (number, leader) = match connection.receive(Wait::deadline(PATIENCE))? {
        Order::Admitted { number, epoch, after, has_yours, lineage } => {
            (number, Leader { epoch, after, has_yours, lineage })
        }
        Order::Error { failure } => return Err(End::Refused(failure)),
        _ => return Err(End::Broken("an order before it is admitted".into())),
    };
    let epoch = leader.epoch;
    if let Err(why) = shared.follow(number, &leader)? {
        // It may have gone already.
        let _ = connection.send(&Report::Refuse { why: why.clone() });
        return Err(End::NotFollowed(format!("it is not followed, and must stop: {why}")));
    }
    *was_admitted = true;
    log::info!("Dstore {number}: admitted by the Controller at {controller}");
    connection.send(&Report::Fenced { epoch, position: shared.disk.position() })?;

    let sender = connection.sender();
    let orderer = Arc::new(Orderer::new(epoch));
    let reader = {
        let (shared, orderer) = (Arc::clone(shared), Arc::clone(&orderer));
        move || {
            let why = shared.take_orders(&mut connection, &orderer);
            log::debug!("Dstore {number}: orders end: {why}");
            connection.shut_down(); // so that the reports end
            shared.end_orders(&orderer);
            shared.disk.wake_followers();
        }
    };
    threads.spawn(reader)?;
    let reports = Reports { shared, sender: &sender, orderer: &orderer, number };
    let end = reports.send_all();
    sender.shut_down(); // so that the reader ends
    // What was ordered here has no effect once the next link reports what there is.
    shared.wait_for_end(&orderer);
    end
}

/// What a Controller says of its leadership.
struct Leader {
    epoch: Epoch,
    /// The last change before it.
    after: u64,
    /// Whether its namespace contains the leadership that this Dstore has followed.
    has_yours: bool,
    lineage: Vec<History>,
}

impl Shared {
    /// Decides whether to follow a leadership; if so, it is on the disk, and orders of older ones are no more. Otherwise
    /// the reason, as a sentence for the Controller's log.
    fn follow(&self, number: DstoreId, leader: &Leader) -> Result<Result<(), String>, std::io::Error> {
        let Leader { epoch, after, has_yours, ref lineage } = *leader;
        let _one_at_a_time = self.following.lock();
        let ours = self.disk.identity();
        if let Some(newest) = ours.epoch {
            let is_known = if newest.history == epoch.history {
                // The same one again, or a later one that knows of it.
                newest == epoch || (has_yours && epoch.term > newest.term)
            } else {
                lineage.contains(&newest.history)
            };
            if !is_known {
                return Ok(Err(format!(
                    "{} has followed a leadership (history {}, term {}) that this Controller knows nothing of: its disk is an \
                     old copy. Start it with the newest copy of its disk",
                    self.number(),
                    newest.history,
                    newest.term
                )));
            }
        }
        let is_same_history = ours.epoch.is_some_and(|newest| newest.history == epoch.history);
        if is_same_history && ours.epoch != Some(epoch) && after < ours.sequence {
            return Ok(Err(format!(
                "{} has heard of change {} of this store, and this Controller's log ended before it: its disk is an old copy, or \
                 the end of the log is lost. Start it with the newest copy of its disk",
                self.number(),
                ours.sequence
            )));
        }
        let sequence = if is_same_history { after.max(ours.sequence) } else { after };
        self.disk.follow(self.cluster, number, epoch, sequence)?;
        // Nothing from an older epoch is begun any more; what runs is let end.
        self.drop_orders_before(epoch);
        Ok(Ok(()))
    }

    /// Takes a Controller's orders until the connection ends, and why it does.
    fn take_orders(&self, connection: &mut Connection, orderer: &Arc<Orderer>) -> String {
        loop {
            match connection.receive(Wait::Forever) {
                Ok(Order::Verify { epoch, keys }) => {
                    self.enter_orders(orderer, epoch, keys.into_iter().map(Job::Verify));
                }
                Ok(Order::Copy { epoch, copies }) => {
                    self.enter_orders(orderer, epoch, copies.into_iter().map(Job::Copy));
                }
                Ok(Order::Remove { epoch, keys }) => {
                    self.enter_orders(orderer, epoch, keys.into_iter().map(Job::Remove));
                }
                Ok(Order::Applied { epoch, sequence }) => {
                    // The disk may be full: the Dstore goes on, with what it has heard of before.
                    if let Err(error) = self.disk.hear_of(epoch, sequence) {
                        complain(format_args!("{}: cannot record what it has heard: {error}", self.number()));
                    }
                }
                Ok(Order::Error { failure }) => return failure.to_string(),
                Ok(Order::Admitted { .. }) => return "it was admitted twice".into(),
                Err(error) => return error.to_string(),
            }
        }
    }
}

/// What a Controller hears.
struct Reports<'a> {
    shared: &'a Shared,
    sender: &'a LineSender,
    orderer: &'a Orderer,
    number: DstoreId,
}

impl Reports<'_> {
    fn send_all(&self) -> Result<(), End> {
        let mut beat = Heartbeat { sampler: Sampler::new(&self.shared.data), due: Instant::now() };
        let disk = &self.shared.disk;
        beat.send_if_due(self)?;
        // What changes from here on is reported after the inventory, in which it may be or not.
        let from = disk.position();
        let mut after = None;
        loop {
            let begun = Instant::now();
            let page = disk.inventory(after, MOST_REPORTED).map_err(|error| End::Broken(error.to_string()))?;
            after = page.objects.last().map(|(key, _)| *key).or(after);
            let copies: Vec<CopyReport> =
                page.objects.into_iter().filter_map(|(key, now)| copy_report(key, now)).collect();
            if !copies.is_empty() {
                self.sender.send(&Report::Inventory { copies })?;
            }
            if page.is_last {
                break;
            }
            beat.send_if_due(self)?;
            // As long again is left to requests.
            self.rest(begun.elapsed())?;
        }
        self.sender.send(&Report::InventoryEnd { position: from })?;
        log::info!("Dstore {}: reported all that it has", self.number);

        let mut reported = from;
        loop {
            beat.send_if_due(self)?;
            disk.wait_for_changes(reported.number, beat.due, &|| self.is_over() || self.orderer.has_outcomes());
            if self.is_over() {
                return Err(self.end());
            }
            if disk.position() == reported && !self.orderer.has_outcomes() {
                continue;
            }
            self.rest(BATCHING)?;
            let Some(changes) = disk.changes(reported.number, MOST_REPORTED) else {
                return Err(End::Broken("it takes reports too slowly: all is reported anew".into()));
            };
            reported.number += changes.len() as u64;
            let changes: Vec<CopyChange> = changes
                .into_iter()
                .map(|change| match copy_report(change.key, change.now) {
                    Some(copy) => CopyChange::Stored { copy },
                    None => CopyChange::Removed { key: change.key },
                })
                .collect();
            if !changes.is_empty() {
                self.sender.send(&Report::Changes { position: reported, changes })?;
            }
            // Behind the changes that are their effects.
            let outcomes = self.orderer.take_outcomes(reported.number, MOST_REPORTED);
            if !outcomes.is_empty() {
                self.sender.send(&Report::Done { outcomes })?;
            }
        }
    }

    fn is_over(&self) -> bool {
        self.orderer.has_ended() || self.shared.is_stopping()
    }

    fn end(&self) -> End {
        if self.shared.is_stopping() { End::Stopped } else { End::Broken("it closed the connection".into()) }
    }

    fn rest(&self, time: Duration) -> Result<(), End> {
        if self.shared.rest(time) && !self.is_over() { Ok(()) } else { Err(self.end()) }
    }
}

/// What a report says of a copy; `None` if there is none any more.
pub(super) fn copy_report(key: Key, now: Now) -> Option<CopyReport> {
    match now {
        Now::Stored { length, checksum } => {
            Some(CopyReport { key, length: length.into(), checksum, is_damaged: false })
        }
        Now::Damaged { length, checksum } => {
            Some(CopyReport { key, length: length.into(), checksum, is_damaged: true })
        }
        Now::Removed => None,
    }
}

struct Heartbeat {
    sampler: Sampler,
    due: Instant,
}

impl Heartbeat {
    fn send_if_due(&mut self, reports: &Reports<'_>) -> Result<(), End> {
        let now = Instant::now();
        if now < self.due {
            return Ok(());
        }
        self.due = now + HEARTBEAT;
        let disk = &reports.shared.disk;
        let usage = match disk.usage() {
            Ok(usage) => usage,
            Err(error) => {
                reports.shared.give_up(format!("the folder of its disk cannot be read any more: {error}"));
                return Err(End::Stopped);
            }
        };
        let busy = self.sampler.sample();
        // One that takes nothing more is as good as full.
        let free_bytes = if disk.failure().is_some() { 0 } else { usage.space.available };
        let load = Load {
            objects: usage.objects,
            damaged: usage.damaged,
            used_bytes: usage.bytes,
            free_bytes,
            total_bytes: usage.space.total,
            cpu_percent: busy.cpu,
            memory_percent: busy.memory,
            disk_percent: busy.disk,
        };
        Ok(reports.sender.send(&Report::Heartbeat { load })?)
    }
}
