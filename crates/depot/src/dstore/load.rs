//! How busy the host is, as the system's counters tell. (depot 6.2)

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

/// Measures between one look and the next.
pub(super) struct Sampler {
    /// How the system calls the device of the Dstore's folder.
    device: Option<(u64, u64)>,
    last: Option<Sample>,
}

/// In percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Busy {
    pub(super) cpu: u8,
    pub(super) memory: u8,
    /// The share of time in which the disk was at work.
    pub(super) disk: u8,
}

struct Sample {
    at: Instant,
    cpu: Option<Cpu>,
    /// For how long the disk has been at work since the system was started.
    disk_ms: Option<u64>,
}

/// Ticks since the system was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cpu {
    idle: u64,
    total: u64,
}

impl Sampler {
    pub(super) fn new(folder: &Path) -> Self {
        let device = fs::metadata(folder).ok().map(|found| found.dev());
        let device = device.map(|device| (rustix::fs::major(device).into(), rustix::fs::minor(device).into()));
        Self { device, last: None }
    }

    /// Since the call before; zeros at the first one, and where the system does not tell.
    pub(super) fn sample(&mut self) -> Busy {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpu = cpu(&read("/proc/stat"));
        let disk_ms = self.device.and_then(|device| disk_ms(&read("/proc/diskstats"), device));
        let now = Sample { at: Instant::now(), cpu, disk_ms };
        let mut busy = Busy { memory: memory(&read("/proc/meminfo")).unwrap_or(0), ..Busy::default() };
        if let Some(last) = &self.last {
            if let (Some(before), Some(after)) = (last.cpu, now.cpu) {
                let total = after.total.saturating_sub(before.total);
                let idle = after.idle.saturating_sub(before.idle);
                busy.cpu = percent(total.saturating_sub(idle), total);
            }
            if let (Some(before), Some(after)) = (last.disk_ms, now.disk_ms) {
                let elapsed = now.at.duration_since(last.at).as_millis() as u64;
                busy.disk = percent(after.saturating_sub(before), elapsed);
            }
        }
        self.last = Some(now);
        busy
    }
}

fn percent(part: u64, whole: u64) -> u8 {
    part.saturating_mul(100).checked_div(whole).map_or(0, |percent| percent.min(100) as u8)
}

/// The first line: `cpu  user nice system idle iowait …`
fn cpu(stat: &str) -> Option<Cpu> {
    let words = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
    let ticks: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
    let idle = ticks.get(3)? + ticks.get(4)?;
    // What guests use is counted as the user's already.
    Some(Cpu { idle, total: ticks.iter().take(8).sum() })
}

/// `MemTotal:  16384 kB`, and the same for what is available.
fn memory(meminfo: &str) -> Option<u8> {
    let value = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let (total, available) = (value("MemTotal:")?, value("MemAvailable:")?);
    Some(percent(total.saturating_sub(available), total))
}

/// One line for each device: `major minor name` and counters, the tenth of which is the time at work.
fn disk_ms(diskstats: &str, (major, minor): (u64, u64)) -> Option<u64> {
    diskstats.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_it = words.first()?.parse() == Ok(major) && words.get(1)?.parse() == Ok(minor);
        if is_it { words.get(12)?.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_counters_are_read_as_documented() {
        let stat = "cpu  100 5 50 800 45 0 0 0 7 7\ncpu0 1 2 3 4\n";
        assert_eq!(cpu(stat), Some(Cpu { idle: 845, total: 1000 }));
        assert_eq!(memory("MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:    250 kB\n"), Some(75));
        let diskstats = " 254       0 vda 1 2 3 4 5 6 7 8 9 1234 11\n 254  1 vda1 1 2 3 4 5 6 7 8 9 77 11 0 0\n";
        assert_eq!(disk_ms(diskstats, (254, 1)), Some(77));
        assert_eq!(disk_ms(diskstats, (8, 0)), None);
        for text in ["", "cpu", "cpu  x", "MemTotal:", "254 1"] {
            assert_eq!((cpu(text), memory(text), disk_ms(text, (254, 1))), (None, None, None), "{text:?}");
        }
        assert_eq!((percent(1, 0), percent(5, 2), percent(1, 3)), (0, 100, 33));
    }
}
