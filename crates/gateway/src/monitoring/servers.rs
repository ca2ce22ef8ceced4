//! Controllers and Dstores of this process, as metrics.

use std::fmt;

use depot::client::{ControllerStatus, DstoreState, Status};
use depot::{controller, dstore};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

/// What runs in this process.
pub(super) struct Servers {
    controllers: Vec<controller::Probe>,
    dstores: Vec<dstore::Probe>,
}

/// A metric: its name, what it says, and how it is read off the figures; `None` where they do not say.
struct Metric<F> {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    read: fn(&F) -> Option<f64>,
}

#[derive(Clone, Copy)]
enum Kind {
    Gauge,
    Counter,
}

const fn gauge<F>(name: &'static str, help: &'static str, read: fn(&F) -> Option<f64>) -> Metric<F> {
    Metric { name, help, kind: Kind::Gauge, read }
}

const fn counter<F>(name: &'static str, help: &'static str, read: fn(&F) -> Option<f64>) -> Metric<F> {
    Metric { name, help, kind: Kind::Counter, read }
}

/// What every Controller knows.
#[rustfmt::skip]
const CONTROLLER: &[Metric<controller::Figures>] = &[
    gauge("controller_is_leader", "1 if this Controller leads", |it| yes(it.is_leader)),
    gauge("controller_is_ready", "1 if this Controller can answer clients, or have the leader answer them", |it| yes(it.trouble.is_none())),
    gauge("controller_term", "Term of the last leadership: it grows with each election", |it| number(own(it)?.epoch.term)),
    gauge("controller_log_index", "Last entry of this Controller's log", |it| number(own(it)?.last_index?)),
    counter("changes", "Changes of the metadata that were applied since the store was made", |it| number(it.status.version.sequence)),
    gauge("entries", "Files and directories", |it| number(it.status.entries)),
    gauge("objects", "Objects that files name", |it| number(it.status.objects)),
];

/// What the leader knows.
#[rustfmt::skip]
const LEADER: &[Metric<Status>] = &[
    gauge("problems", "Problems that status shows", |it| number(it.problems.len() as u64)),
    gauge("is_read_only", "1 if the store is set read-only", |it| yes(it.settings.is_read_only)),
    gauge("objects_with_too_few_copies", "Objects with fewer copies than they should have", |it| number(it.too_few_copies)),
    gauge("objects_without_copy", "Objects without a sound copy at a Dstore that is present", |it| number(it.no_copy)),
    gauge("healing_objects", "Objects of which copies are being made, or are to be", |it| number(it.healing.objects)),
    gauge("healing_bytes", "Bytes of these copies", |it| number(it.healing.bytes)),
    gauge("healing_bytes_per_second", "Bytes of copies that Dstores said in the last moments to have made, a second", |it| number(it.healing.bytes_per_second)),
    gauge("healing_is_guarded", "1 while so many Dstores are away that only last copies are repaired", |it| yes(it.healing.is_guarded)),
    gauge("surplus_objects", "Objects of which surplus copies are to be removed", |it| number(it.healing.surplus)),
    gauge("unnamed_objects", "Objects that no file names, which are to be removed", |it| number(it.healing.unnamed)),
    gauge("unclaimed_objects", "Objects of earlier histories that no file names", |it| number(it.healing.unclaimed)),
    gauge("moving_objects", "Objects of which a copy moves to an emptier Dstore", |it| number(it.healing.moving)),
];

/// What a Dstore knows.
#[rustfmt::skip]
const DSTORE: &[Metric<dstore::Figures>] = &[
    gauge("dstore_is_ready", "1 if this Dstore can serve", |it| yes(it.trouble.is_none())),
    gauge("dstore_objects", "Objects that this Dstore has", |it| number(it.usage.objects)),
    gauge("dstore_bytes", "Bytes of these objects", |it| number(it.usage.bytes)),
    gauge("dstore_free_bytes", "Bytes that this Dstore may still use", |it| number(it.usage.space.available)),
    gauge("dstore_size_bytes", "Bytes that this Dstore's disk has in all", |it| number(it.usage.space.total)),
    gauge("dstore_damaged_objects", "Objects of this Dstore that are damaged", |it| number(it.usage.damaged)),
    gauge("dstore_scrubbed_ago_seconds", "Time since this Dstore had verified all that it has", |it| Some(it.scrubbed_ago.as_secs_f64())),
    gauge("dstore_links", "Controllers that have admitted this Dstore", |it| number(it.links as u64)),
    gauge("dstore_connections", "Connections of clients and other Dstores", |it| number(it.connections as u64)),
    counter("dstore_requests", "Requests of clients and other Dstores since this Dstore was started", |it| number(it.requests)),
    counter("dstore_received_bytes", "Bytes of objects that were put", |it| number(it.received_bytes)),
    counter("dstore_sent_bytes", "Bytes of objects that were sent", |it| number(it.sent_bytes)),
];

fn yes(is_so: bool) -> Option<f64> {
    Some(f64::from(u8::from(is_so)))
}

fn number(number: u64) -> Option<f64> {
    Some(number as f64)
}

/// The row of `status` that is about the Controller itself.
fn own(figures: &controller::Figures) -> Option<&ControllerStatus> {
    figures.status.controllers.iter().find(|controller| controller.id == figures.id)
}

/// Labels and a value.
type Row = (Vec<(&'static str, String)>, f64);

impl Servers {
    pub(super) fn new(controllers: Vec<controller::Probe>, dstores: Vec<dstore::Probe>) -> Self {
        Self { controllers, dstores }
    }

    /// Of those that have not ended.
    fn controllers(&self) -> Vec<controller::Figures> {
        self.controllers.iter().filter_map(controller::Probe::look).collect()
    }

    /// Of those that have not ended, and whose disks say what they have.
    fn dstores(&self) -> Vec<dstore::Figures> {
        self.dstores.iter().filter_map(dstore::Probe::look).filter_map(Result::ok).collect()
    }

    /// Why one of them has failed for good.
    pub(super) fn failures(&self) -> Vec<String> {
        let controllers = self.controllers.iter().filter_map(|probe| Some(format!("Controller: {}", probe.failure()?)));
        let dstores = self.dstores.iter().filter_map(|probe| Some(format!("Dstore: {}", probe.failure()?)));
        controllers.chain(dstores).collect()
    }

    /// Why one of them cannot do its work now.
    pub(super) fn troubles(&self) -> Vec<String> {
        let controllers = self.controllers.iter().map(|probe| match probe.look() {
            None => Some("Controller: it has ended".to_owned()),
            Some(figures) => figures.trouble.map(|trouble| format!("Controller {}: {trouble}", figures.id)),
        });
        let dstores = self.dstores.iter().map(|probe| match probe.look() {
            None => Some("Dstore: it has ended".to_owned()),
            Some(Err(error)) => Some(format!("Dstore: {error}")),
            Some(Ok(figures)) => {
                figures.trouble.as_ref().map(|trouble| format!("Dstore {}: {trouble}", name(&figures)))
            }
        });
        controllers.chain(dstores).flatten().collect()
    }
}

/// How a Dstore is called; empty until it was first admitted.
fn name(figures: &dstore::Figures) -> String {
    figures.number.map(|number| number.to_string()).unwrap_or_default()
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Servers").finish_non_exhaustive()
    }
}

impl Collector for Servers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (controllers, dstores) = (self.controllers(), self.dstores());
        let of_controller = |it: &controller::Figures| vec![("controller", it.id.to_string())];
        for metric in CONTROLLER {
            let rows = controllers.iter().filter_map(|it| Some((of_controller(it), (metric.read)(it)?)));
            metric.write(&mut encoder, rows)?;
        }
        let leaders = || controllers.iter().filter(|it| it.is_leader);
        for metric in LEADER {
            let rows = leaders().filter_map(|it| Some((of_controller(it), (metric.read)(&it.status)?)));
            metric.write(&mut encoder, rows)?;
        }
        let lags = leaders().flat_map(|leader| leader.status.controllers.iter());
        let lags = lags.map(|it| (vec![("controller", it.id.to_string())], it.lag as f64));
        let help = "Entries of the leader's log that this Controller lacks, as the leader knows";
        gauge("controller_lag", help, |_: &()| None).write(&mut encoder, lags)?;
        let states = [("present", DstoreState::Present), ("away", DstoreState::Away)];
        let counts = leaders().flat_map(|leader| {
            states.map(|(name, state)| {
                let count = leader.status.dstores.iter().filter(|dstore| dstore.state == state).count();
                (vec![("state", name.to_owned())], count as f64)
            })
        });
        gauge("dstores", "Dstores of the store, as the leader sees them", |_: &()| None).write(&mut encoder, counts)?;
        for metric in DSTORE {
            let rows = dstores.iter().filter_map(|it| Some((vec![("dstore", name(it))], (metric.read)(it)?)));
            metric.write(&mut encoder, rows)?;
        }
        Ok(())
    }
}

impl<F> Metric<F> {
    fn write(&self, encoder: &mut DescriptorEncoder<'_>, rows: impl Iterator<Item = Row>) -> fmt::Result {
        let mut rows = rows.peekable();
        if rows.peek().is_none() {
            return Ok(());
        }
        let kind = match self.kind {
            Kind::Gauge => MetricType::Gauge,
            Kind::Counter => MetricType::Counter,
        };
        let mut family = encoder.encode_descriptor(self.name, self.help, None, kind)?;
        for (labels, value) in rows {
            let mut metric = family.encode_family(&labels)?;
            match self.kind {
                Kind::Gauge => metric.encode_gauge(&value)?,
                Kind::Counter => metric.encode_counter::<Vec<(&str, String)>, _, f64>(&value, None)?,
            }
        }
        Ok(())
    }
}
