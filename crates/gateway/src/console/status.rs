//! How the store is, as JSON: what `stevedore status --json` prints, too.

use depot::client::{ControllerRole, DstoreState, ObjectCopies, Status};
use depot::namespace::change::{Duty, Replicas, Settings};
use depot::words::Words;
use serde_json::{Value, json};

/// A store's status, as programs read it.
pub fn status_json(status: &Status) -> Value {
    let controllers = status.controllers.iter().map(|controller| {
        json!({
            "id": controller.id.to_string(),
            "address": controller.address,
            "role": controller.role.to_line(),
            "is_leader": controller.role == ControllerRole::Leader,
            "history": controller.epoch.history.to_string(),
            "term": controller.epoch.term,
            "sync": controller.sync,
            "last_index": controller.last_index,
            "lag": controller.lag,
            "agreed_change": controller.agreed,
            "silence_seconds": controller.silence.map(|silence| silence.as_secs()),
            "snapshot_bytes": controller.snapshot,
            "up_seconds": controller.up.map(|up| up.as_secs()),
        })
    });
    let elections = status.elections.iter().map(|election| {
        json!({
            "leader": election.leader.to_string(),
            "term": election.term,
            "seconds_ago": election.ago.as_secs(),
            "gap_ms": election.gap.map(|gap| gap.as_millis() as u64),
        })
    });
    let dstores = status.dstores.iter().map(|dstore| {
        let (processors, memory, disk) = dstore.load_percent;
        json!({
            "id": dstore.id.0,
            "address": dstore.address,
            "host": dstore.host,
            "zone": dstore.zone,
            "state": match dstore.state { DstoreState::Present => "present", DstoreState::Away => "away" },
            "duty": match dstore.duty { Duty::Active => "active", Duty::Draining => "draining", Duty::Removed => "removed" },
            "sync": dstore.sync,
            "objects": dstore.objects,
            "used_bytes": dstore.used_bytes,
            "free_bytes": dstore.free_bytes,
            "total_bytes": dstore.total_bytes,
            "load_percent": { "processors": processors, "memory": memory, "disk": disk },
            "damaged": dstore.damaged,
            "scrubbed_seconds_ago": dstore.scrubbed_ago.as_secs(),
        })
    });
    json!({
        "name": status.name,
        "cluster": status.cluster,
        "problems": status.problems,
        "limits": status.limits,
        "controllers": controllers.collect::<Vec<_>>(),
        "elections": elections.collect::<Vec<_>>(),
        "dstores": dstores.collect::<Vec<_>>(),
        "settings": settings_json(&status.settings),
        "entries": status.entries,
        "objects": status.objects,
        "too_few_copies": status.too_few_copies,
        "no_copy": status.no_copy,
        "healing": {
            "objects": status.healing.objects,
            "bytes": status.healing.bytes,
            "bytes_per_second": status.healing.bytes_per_second,
            "surplus": status.healing.surplus,
            "unnamed": status.healing.unnamed,
            "moving": status.healing.moving,
            "points_apart": status.healing.points_apart,
            "is_as_even_as_can_be": status.healing.is_as_even_as_can_be,
            "unclaimed": status.healing.unclaimed,
            "unclaimed_bytes": status.healing.unclaimed_bytes,
            "is_guarded": status.healing.is_guarded,
        },
        "version": status.version.to_string(),
        "hash": status.hash,
    })
}

/// A store's settings, as programs read them.
pub fn settings_json(settings: &Settings) -> Value {
    json!({
        "replicas": replicas(settings.replicas),
        "write_quorum": settings.write_quorum,
        "chunk_bytes": settings.chunk_bytes,
        "most_entries": settings.most_entries,
        "is_read_only": settings.is_read_only,
        "grace_seconds": settings.grace_s,
    })
}

fn replicas(replicas: Replicas) -> String {
    match replicas {
        Replicas::Number(number) => number.to_string(),
        Replicas::All => "all".to_owned(),
    }
}

/// Where a file's objects are.
pub(super) fn copies_json(objects: &[ObjectCopies]) -> Value {
    let objects = objects.iter().map(|object| {
        let copies = object.copies.iter().map(|copy| {
            json!({
                "dstore": copy.dstore.0,
                "is_present": copy.is_present,
                "is_certain": copy.is_certain,
                "is_damaged": copy.is_damaged,
            })
        });
        json!({ "bytes": object.length, "wanted": replicas(object.wanted), "copies": copies.collect::<Vec<_>>() })
    });
    json!({ "objects": objects.collect::<Vec<_>>() })
}
