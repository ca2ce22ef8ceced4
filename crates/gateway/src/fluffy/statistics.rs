//! How much the machines of the store have to do.

use std::collections::BTreeMap;

use depot::client::{DstoreState, Status};

use super::proto::ClusterStats;

/// The average of the machines with Dstores that are present, for processors and memory; and how much of all disks is used. A
/// machine with several Dstores counts once, and so does a disk that several Dstores share by size and free space.
pub(super) fn of(status: &Status) -> ClusterStats {
    let present = || status.dstores.iter().filter(|dstore| dstore.state == DstoreState::Present);
    let machines: BTreeMap<&str, (u8, u8, u8)> =
        present().map(|dstore| (dstore.host.as_str(), dstore.load_percent)).collect();
    let average = |of: fn(&(u8, u8, u8)) -> u8| {
        let sum: u64 = machines.values().map(|load| u64::from(of(load))).sum();
        sum as f64 / machines.len().max(1) as f64
    };
    let total: f64 = present().map(|dstore| dstore.total_bytes as f64).sum();
    let free: f64 = present().map(|dstore| dstore.free_bytes as f64).sum();
    let disk = if total > 0.0 { 100.0 * (1.0 - (free / total).min(1.0)) } else { 0.0 };
    ClusterStats {
        cpu_usage: format!("{:.1}", average(|load| load.0)),
        disk_space: format!("{disk:.1}"),
        used_mem: format!("{:.1}", average(|load| load.1)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use depot::client::DstoreStatus;
    use depot::identity::DstoreId;
    use depot::namespace::change::Duty;

    use super::*;

    fn dstore(host: &str, state: DstoreState, load_percent: (u8, u8, u8), free_bytes: u64) -> DstoreStatus {
        DstoreStatus {
            id: DstoreId(1),
            address: String::new(),
            host: host.into(),
            zone: String::new(),
            state,
            duty: Duty::Active,
            sync: "never".into(),
            objects: 0,
            used_bytes: 0,
            free_bytes,
            total_bytes: 1000,
            load_percent,
            damaged: 0,
            scrubbed_ago: Duration::ZERO,
        }
    }

    #[test]
    fn each_machine_that_is_there_counts_once() {
        let dstores = vec![
            dstore("a", DstoreState::Present, (10, 50, 0), 500),
            dstore("a", DstoreState::Present, (10, 50, 0), 500),
            dstore("b", DstoreState::Present, (21, 70, 0), 125),
            dstore("c", DstoreState::Away, (100, 100, 0), 0),
        ];
        let said = of(&Status { dstores, ..Status::default() });
        assert_eq!([said.cpu_usage, said.used_mem, said.disk_space], ["15.5", "60.0", "62.5"]);
    }

    #[test]
    fn a_store_without_dstores_has_nothing_to_do() {
        let said = of(&Status::default());
        assert_eq!([said.cpu_usage, said.used_mem, said.disk_space], ["0.0", "0.0", "0.0"]);
    }
}
