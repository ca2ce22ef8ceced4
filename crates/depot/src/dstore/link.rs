//! The connection to a Controller: it hears what the Dstore has, and gives orders. (depot 2.2, 4.6, 5.2)
//!
//! The Dstore opens it, and opens it again when it ends. Each time it says who it is, and reports all that it has; from then on,
//! what changes. It does so to every Controller, so that any of them can lead at once. When one begins to lead, over a link that
//! may be open for long, the Dstore decides whether to follow it; only the one that it follows gives orders.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use stevedore::complaint::complain;
use stevedore::server::ThreadGroup;
use stevedore::socket::Wait;
use stevedore::sync::Mutex;

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

/// So many copies or changes are reported in a line. The Controller enters them all at once, while requests wait.
const MOST_REPORTED: usize = 250;

/// No store has more Controllers.
const MOST_CONTROLLERS: usize = 16;

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

/// The Controllers that this Dstore is linked to, or tries to be.
#[derive(Default)]
pub(super) struct Controllers {
    /// Where it was told to look for them: they are a beginning only. (depot 7)
    given: BTreeSet<Address>,
    /// Where a Controller has said that they are.
    listed: BTreeSet<Address>,
    /// Each has a thread that keeps its link.
    linked: BTreeSet<Address>,
    /// Links over which the Dstore is admitted.
    admitted: usize,
}

impl Controllers {
    /// Which addresses get a thread now.
    fn missing(&mut self) -> Vec<Address> {
        let wanted = self.given.union(&self.listed);
        let missing: Vec<Address> = wanted.filter(|address| !self.linked.contains(*address)).cloned().collect();
        self.linked.extend(missing.iter().cloned());
        missing
    }

    fn is_wanted(&self, address: &Address) -> bool {
        self.given.contains(address) || self.listed.contains(address)
    }
}

/// Over how many links the Dstore is admitted.
pub(super) fn admitted(shared: &Shared) -> usize {
    shared.controllers.lock().admitted
}

/// Begins to keep links to the Controllers at these addresses, and to all that they name.
pub(super) fn begin(shared: &Arc<Shared>, threads: &Arc<ThreadGroup>, given: Vec<Address>) -> io::Result<()> {
    shared.controllers.lock().given.extend(given);
    link_missing(shared, threads)
}

fn link_missing(shared: &Arc<Shared>, threads: &Arc<ThreadGroup>) -> io::Result<()> {
    let missing = shared.controllers.lock().missing();
    for address in missing {
        let (shared, group) = (Arc::clone(shared), Arc::clone(threads));
        threads.spawn(move || keep(&shared, &group, &address))?;
    }
    Ok(())
}

/// Keeps a link to a Controller until the Dstore stops or has to, or the Controller is one no longer.
fn keep(shared: &Arc<Shared>, threads: &Arc<ThreadGroup>, controller: &Address) {
    let mut retry = FIRST_RETRY;
    let mut refused_since = None;
    let mut last_said = String::new();
    while !shared.is_stopping() && !shared.has_given_up() {
        {
            let mut controllers = shared.controllers.lock();
            if !controllers.is_wanted(controller) {
                controllers.linked.remove(controller);
                return;
            }
        }
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
        // Where another link stands, this address may be a second one of the same Controller.
        let is_refused = matches!(end, End::Refused(Failure::NotPermitted { .. }));
        if is_refused && admitted(shared) == 0 {
            let since = *refused_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= shared.gives_up_after {
                return shared.give_up(format!("the Controller at {controller}: {end}"));
            }
        } else {
            refused_since = None;
        }
        let said = end.to_string();
        if said != last_said {
            // One that is new is entered by the leader first. Until then the others do not know it.
            let is_early = matches!(end, End::Refused(Failure::NotLeader { .. }));
            let level = if is_early { log::Level::Debug } else { log::Level::Warn };
            log::log!(level, "{}: the Controller at {controller}: {said}; trying again", shared.number());
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
    let number = match connection.receive(Wait::deadline(PATIENCE))? {
        Order::Admitted { number } => number,
        Order::Error { failure } => return Err(End::Refused(failure)),
        _ => return Err(End::Broken("an order before it is admitted".into())),
    };
    *was_admitted = true;
    let _admitted = Admitted::count(shared);
    log::info!("Dstore {number}: admitted by the Controller at {controller}");

    let link = Arc::new(Link::new(&connection));
    let (results, result) = bounded(1);
    let reader = {
        let (shared, threads, link) = (Arc::clone(shared), Arc::clone(threads), Arc::clone(&link));
        let asked = identity.epoch;
        move || {
            let end = Orders { shared: &shared, threads: &threads, link: &link, number, asked }.take(&mut connection);
            log::debug!("Dstore {number}: orders end: {end}");
            connection.shut_down(); // so that the reports end
            link.is_over.store(true, Ordering::Release);
            shared.disk.wake_followers();
            // What was ordered here has no effect once the next link reports what there is.
            shared.end_leadership(&link);
            let _ = results.send(end); // there is room for it
        }
    };
    threads.spawn(reader)?;
    let end = Reports { shared, link: &link, number }.send_all();
    link.shut_down(); // so that the reader ends
    match (end, result.recv()) {
        (Err(End::Broken(_)), Ok(why)) => Err(why), // the reader knows better
        (end, _) => end,
    }
}

/// An open connection to a Controller.
struct Link {
    stream: Arc<TcpStream>,
    /// Held while a line is sent.
    sender: Mutex<LineSender>,
    /// The Controller's leadership that the Dstore follows, if it leads.
    orderer: Mutex<Option<Arc<Orderer>>>,
    /// Nothing comes over it any more.
    is_over: AtomicBool,
}

impl Link {
    fn new(connection: &Connection) -> Self {
        let (stream, sender) = (Arc::clone(connection.stream()), Mutex::new(connection.sender()));
        Self { stream, sender, orderer: Mutex::default(), is_over: AtomicBool::new(false) }
    }

    fn say(&self, report: &Report) -> io::Result<()> {
        self.sender.lock().send(report)
    }

    fn shut_down(&self) {
        let _ = self.stream.shutdown(Shutdown::Both); // an error means that it has ended already
    }

    fn orderer(&self) -> Option<Arc<Orderer>> {
        self.orderer.lock().clone()
    }
}

/// Counts a link over which the Dstore is admitted, until it is dropped.
struct Admitted<'a>(&'a Shared);

impl<'a> Admitted<'a> {
    fn count(shared: &'a Shared) -> Self {
        shared.controllers.lock().admitted += 1;
        Self(shared)
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.0.controllers.lock().admitted -= 1;
    }
}

/// What a Controller says of its leadership.
struct Leader {
    epoch: Epoch,
    /// The last change before it.
    after: u64,
    /// The leaderships that its namespace contains, as far as they may matter here.
    known: Vec<Epoch>,
    lineage: Vec<History>,
}

/// Whether a leadership is followed.
enum Following {
    /// It is, and that is on the disk.
    Followed,
    /// The Controller has not said yet whether it knows the leadership that was followed meanwhile.
    Unclear,
    /// It is not: why, as a sentence for the Controller's log.
    Refused(String),
}

impl Shared {
    /// Decides whether to follow a leadership; if so, it is on the disk, and orders of older ones are no more. `asked` is the
    /// leadership that the Controller was asked about.
    fn follow(&self, number: DstoreId, leader: &Leader, asked: Option<Epoch>) -> io::Result<Following> {
        let Leader { epoch, after, ref known, ref lineage } = *leader;
        let _one_at_a_time = self.following.lock();
        let ours = self.disk.identity();
        if let Some(newest) = ours.epoch {
            let is_same_history = newest.history == epoch.history;
            let is_known = if is_same_history {
                // The same one again, or a later one that knows of it.
                newest == epoch || (known.contains(&newest) && epoch.term > newest.term)
            } else {
                lineage.contains(&newest.history)
            };
            if !is_known && is_same_history && epoch.term > newest.term && asked != Some(newest) {
                return Ok(Following::Unclear);
            }
            if !is_known {
                return Ok(Following::Refused(format!(
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
            return Ok(Following::Refused(format!(
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
        Ok(Following::Followed)
    }

    /// The Controller leads no more, or cannot be heard: nothing that it ordered is begun any more, and nothing runs.
    fn end_leadership(&self, link: &Link) {
        // The lock is let go before the wait: the thread that reports asks for the orderer while it holds the disk's state, which
        // the orders that run need to come to an end.
        let ended = link.orderer.lock().take();
        if let Some(orderer) = ended {
            self.end_orders(&orderer);
            self.wait_for_end(&orderer);
        }
    }
}

/// What a Controller says.
struct Orders<'a> {
    shared: &'a Arc<Shared>,
    threads: &'a Arc<ThreadGroup>,
    link: &'a Link,
    number: DstoreId,
    /// The leadership that the Dstore had followed when it joined.
    asked: Option<Epoch>,
}

impl Orders<'_> {
    /// Takes them until the connection ends, and why it does.
    fn take(&self, connection: &mut Connection) -> End {
        loop {
            let taken = match connection.receive(Wait::Forever) {
                Ok(order) => self.take_one(order),
                Err(error) => Err(error.into()),
            };
            if let Err(end) = taken {
                return end;
            }
        }
    }

    fn take_one(&self, order: Order) -> Result<(), End> {
        let Self { shared, .. } = self;
        match order {
            Order::Verify { epoch, keys } => self.enter(epoch, keys.into_iter().map(Job::Verify)),
            Order::Copy { epoch, copies } => self.enter(epoch, copies.into_iter().map(Job::Copy)),
            Order::Remove { epoch, keys } => self.enter(epoch, keys.into_iter().map(Job::Remove)),
            Order::Leads { epoch, after, known, lineage } => {
                self.follow(&Leader { epoch, after, known, lineage })?;
            }
            Order::Follows => shared.end_leadership(self.link),
            Order::Controllers { controllers, .. } => {
                let listed = controllers.into_iter().map(|(_, address)| address).take(MOST_CONTROLLERS);
                shared.controllers.lock().listed = listed.collect();
                link_missing(shared, self.threads)?;
            }
            Order::Applied { epoch, sequence } => {
                // The disk may be full: the Dstore goes on, with what it has heard of before.
                if let Err(error) = shared.disk.hear_of(epoch, sequence) {
                    complain(format_args!("{}: cannot record what it has heard: {error}", shared.number()));
                }
            }
            Order::Error { failure } => return Err(End::Broken(failure.to_string())),
            Order::Admitted { .. } => return Err(End::Broken("it was admitted twice".into())),
        }
        Ok(())
    }

    /// Orders of a Controller that does not lead are dropped.
    fn enter(&self, epoch: Epoch, jobs: impl Iterator<Item = Job>) {
        if let Some(orderer) = self.link.orderer() {
            self.shared.enter_orders(&orderer, epoch, jobs);
        }
    }

    fn follow(&self, leader: &Leader) -> Result<(), End> {
        let (shared, epoch) = (self.shared, leader.epoch);
        shared.end_leadership(self.link);
        match shared.follow(self.number, leader, self.asked)? {
            Following::Followed => {
                *self.link.orderer.lock() = Some(Arc::new(Orderer::new(epoch)));
                Ok(self.link.say(&Report::Fenced { epoch, position: shared.disk.position() })?)
            }
            Following::Unclear => Err(End::Broken("it leads, and is asked anew what it knows".into())),
            Following::Refused(why) => {
                // It may have gone already.
                let _ = self.link.say(&Report::Refuse { epoch, why: why.clone() });
                Err(End::NotFollowed(format!("it is not followed, and must stop: {why}")))
            }
        }
    }
}

/// What a Controller hears.
struct Reports<'a> {
    shared: &'a Shared,
    link: &'a Link,
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
                self.link.say(&Report::Inventory { copies })?;
            }
            if page.is_last {
                break;
            }
            beat.send_if_due(self)?;
            // As long again is left to requests.
            self.rest(begun.elapsed())?;
        }
        self.link.say(&Report::InventoryEnd { position: from })?;
        log::info!("Dstore {}: reported all that it has", self.number);

        let mut reported = from;
        let mut is_behind = false;
        loop {
            beat.send_if_due(self)?;
            disk.wait_for_changes(reported.number, beat.due, &|| self.is_over() || self.has_outcomes());
            if self.is_over() {
                return Err(self.end());
            }
            if disk.position() == reported && !self.has_outcomes() {
                continue;
            }
            if !is_behind {
                self.rest(BATCHING)?;
            }
            let Some(changes) = disk.changes(reported.number, MOST_REPORTED) else {
                return Err(End::Broken("it takes reports too slowly: all is reported anew".into()));
            };
            reported.number += changes.len() as u64;
            is_behind = changes.len() == MOST_REPORTED;
            let changes: Vec<CopyChange> = changes
                .into_iter()
                .map(|change| match copy_report(change.key, change.now) {
                    Some(copy) => CopyChange::Stored { copy },
                    None => CopyChange::Removed { key: change.key },
                })
                .collect();
            if !changes.is_empty() {
                self.link.say(&Report::Changes { position: reported, changes })?;
            }
            // Behind the changes that are their effects.
            let Some(orderer) = self.link.orderer() else { continue };
            let outcomes = orderer.take_outcomes(reported.number, MOST_REPORTED);
            is_behind |= outcomes.len() == MOST_REPORTED;
            if !outcomes.is_empty() {
                self.link.say(&Report::Done { epoch: orderer.epoch(), outcomes })?;
            }
        }
    }

    fn is_over(&self) -> bool {
        self.link.is_over.load(Ordering::Acquire) || self.shared.is_stopping()
    }

    fn has_outcomes(&self) -> bool {
        self.link.orderer().is_some_and(|orderer| orderer.has_outcomes())
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
            scrubbed_ago: reports.shared.scrub_round.lock().age(),
        };
        Ok(reports.link.say(&Report::Heartbeat { load })?)
    }
}
