//! The connection to a Controller: it hears what the Dstore has, and may ask it to verify some of it. (depot 2.2, 4.6, 5.2)
//!
//! The Dstore opens it, and opens it again when it ends. Each time it says who it is, decides whether it follows this
//! Controller, and then reports all that it has; from then on, what changes.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use stevedore::server::ThreadGroup;
use stevedore::socket::Wait;

use super::load::Sampler;
use super::{FORMAT, Shared};
use crate::identity::{DstoreId, Epoch, History, Key};
use crate::pack::{GetError, Now};
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

/// So many objects may wait to be verified; what is beyond is asked for again.
const MOST_ORDERS: usize = 100_000;

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
    let (number, epoch, has_yours, lineage) = match connection.receive(Wait::deadline(PATIENCE))? {
        Order::Admitted { number, epoch, has_yours, lineage } => (number, epoch, has_yours, lineage),
        Order::Error { failure } => return Err(End::Refused(failure)),
        Order::Verify { .. } => return Err(End::Broken("an order before it is admitted".into())),
    };
    if let Err(why) = shared.follow(number, epoch, has_yours, &lineage)? {
        // It may have gone already.
        let _ = connection.send(&Report::Refuse { why: why.clone() });
        return Err(End::NotFollowed(format!("it is not followed, and must stop: {why}")));
    }
    *was_admitted = true;
    log::info!("Dstore {number}: admitted by the Controller at {controller}");
    connection.send(&Report::Fenced { epoch, position: shared.disk.position() })?;

    let sender = connection.sender();
    let has_ended = Arc::new(AtomicBool::new(false));
    let reader = {
        let (shared, has_ended) = (Arc::clone(shared), Arc::clone(&has_ended));
        move || {
            let why = shared.take_orders(&mut connection, epoch);
            log::debug!("Dstore {number}: orders end: {why}");
            connection.shut_down(); // so that the reports end
            has_ended.store(true, Ordering::Release);
            shared.disk.wake_followers();
        }
    };
    threads.spawn(reader)?;
    let reports = Reports { shared, sender: &sender, has_ended: &has_ended, number };
    let end = reports.send_all();
    sender.shut_down(); // so that the reader ends
    end
}

impl Shared {
    /// Decides whether to follow a leadership; if so, it is on the disk, and orders of older ones are no more. Otherwise
    /// the reason, as a sentence for the Controller's log.
    fn follow(
        &self,
        number: DstoreId,
        epoch: Epoch,
        has_yours: bool,
        lineage: &[History],
    ) -> Result<Result<(), String>, std::io::Error> {
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
                     old copy. Start it with the newest copy of its disk, or have the store restored from it: stevedore recover",
                    self.number(),
                    newest.history,
                    newest.term
                )));
            }
        }
        self.disk.follow(self.cluster, number, epoch)?;
        // Nothing from an older epoch is begun any more; what runs is let end.
        let mut orders = self.orders.lock();
        orders.verify.retain(|(ordered_by, _)| *ordered_by == epoch);
        while orders.running.is_some_and(|running| running != epoch) && !self.is_stopping() {
            self.has_orders.wait(&mut orders);
        }
        Ok(Ok(()))
    }

    /// Takes a Controller's orders until the connection ends, and why it does.
    fn take_orders(&self, connection: &mut Connection, epoch: Epoch) -> String {
        loop {
            match connection.receive(Wait::Forever) {
                Ok(Order::Verify { epoch: ordered_by, keys }) => {
                    let mut orders = self.orders.lock();
                    // Looked at under the lock: the thread that follows a newer leadership then drops what was entered before.
                    if ordered_by != epoch || self.disk.identity().epoch != Some(epoch) {
                        continue; // of a leadership that is over
                    }
                    let room = MOST_ORDERS.saturating_sub(orders.verify.len());
                    orders.verify.extend(keys.into_iter().take(room).map(|key| (epoch, key)));
                    drop(orders);
                    self.has_orders.notify_all();
                }
                Ok(Order::Error { failure }) => return failure.to_string(),
                Ok(Order::Admitted { .. }) => return "it was admitted twice".into(),
                Err(error) => return error.to_string(),
            }
        }
    }
}

/// Verifies what Controllers ask for, until the Dstore stops. What it finds becomes known as a change.
pub(super) fn carry_out_orders(shared: &Shared) {
    let mut orders = shared.orders.lock();
    while !shared.is_stopping() {
        let Some((epoch, key)) = orders.verify.pop_front() else {
            shared.has_orders.wait(&mut orders);
            continue;
        };
        orders.running = Some(epoch);
        drop(orders);
        shared.verify(&key);
        orders = shared.orders.lock();
        orders.running = None;
        shared.has_orders.notify_all();
    }
}

impl Shared {
    fn verify(&self, key: &Key) {
        match self.disk.verify(key) {
            Ok(()) => log::info!("{}: object {key} is sound", self.number()),
            Err(GetError::Missing) => log::info!("{}: object {key} is not here", self.number()),
            Err(GetError::Damaged) => log::warn!("{}: object {key} is damaged", self.number()),
            Err(GetError::Io(error)) => log::warn!("{}: object {key} cannot be read now: {error}", self.number()),
        }
    }
}

/// What a Controller hears.
struct Reports<'a> {
    shared: &'a Shared,
    sender: &'a LineSender,
    /// The Controller has closed the connection.
    has_ended: &'a AtomicBool,
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
            let copies: Vec<CopyReport> = page.objects.into_iter().filter_map(|(key, now)| copy(key, now)).collect();
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
            disk.wait_for_changes(reported.number, beat.due, &|| self.is_over());
            if self.is_over() {
                return Err(self.end());
            }
            if disk.position() == reported {
                continue;
            }
            self.rest(BATCHING)?;
            let Some(changes) = disk.changes(reported.number, MOST_REPORTED) else {
                return Err(End::Broken("it takes reports too slowly: all is reported anew".into()));
            };
            reported.number += changes.len() as u64;
            let changes = changes
                .into_iter()
                .map(|change| match copy(change.key, change.now) {
                    Some(copy) => CopyChange::Stored { copy },
                    None => CopyChange::Removed { key: change.key },
                })
                .collect();
            self.sender.send(&Report::Changes { position: reported, changes })?;
        }
    }

    fn is_over(&self) -> bool {
        self.has_ended.load(Ordering::Acquire) || self.shared.is_stopping()
    }

    fn end(&self) -> End {
        if self.shared.is_stopping() { End::Stopped } else { End::Broken("it closed the connection".into()) }
    }

    fn rest(&self, time: Duration) -> Result<(), End> {
        if self.shared.rest(time) && !self.is_over() { Ok(()) } else { Err(self.end()) }
    }
}

/// What a report says of a copy; `None` if there is none any more.
fn copy(key: Key, now: Now) -> Option<CopyReport> {
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
        let usage = disk.usage()?;
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
