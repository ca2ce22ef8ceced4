//! What processes cost: their processor time and memory, from Linux's /proc.

use std::fs;
use std::io;
use std::time::Duration;

/// How many of `stat`'s ticks are a second: USER_HZ, which Linux keeps at 100 whatever its own clock does.
const TICKS_PER_SECOND: u64 = 100;

/// What a process has used so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Its program's name.
    pub name: String,
    /// Processor time in user and kernel mode, of all its threads, those that have ended included.
    pub cpu: Duration,
    /// Bytes of memory that it occupies now.
    pub resident: u64,
}

/// Looks at a process.
pub fn usage(pid: u32) -> io::Result<Usage> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
    parse(&read("stat")?, &read("status")?).ok_or_else(|| io::Error::other(format!("/proc/{pid} is not as expected")))
}

fn parse(stat: &str, status: &str) -> Option<Usage> {
    // The name stands in parentheses and may hold anything, parentheses included.
    let (_, rest) = stat.split_once('(')?;
    let (name, rest) = rest.rsplit_once(')')?;
    // From the third field on; user time is the 14th, system time the 15th.
    let mut fields = rest.split_whitespace().skip(11).map(str::parse::<u64>);
    let ticks = fields.next()?.ok()? + fields.next()?.ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = resident.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Some(Usage {
        name: name.to_owned(),
        cpu: Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND),
        resident: kilobytes.unwrap_or(0) << 10, // a process that is ending has none
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let stat = "42 (a b) c) S 1 2 3 4 -1 4194560 10 0 0 0 250 31 0 0 20 0 7 0 123 456 789";
        let usage = parse(stat, "Name:\ta\nVmRSS:\t    2048 kB\nThreads:\t7\n").unwrap();
        assert_eq!(usage, Usage { name: "a b) c".into(), cpu: Duration::from_millis(2810), resident: 2 << 20 });
        assert_eq!(parse("42 (short) S 1", ""), None);
        assert_eq!(parse("", ""), None);
    }

    #[test]
    fn this_process_is_there_and_process_0_is_not() {
        assert!(usage(std::process::id()).unwrap().resident > 0);
        assert_eq!(usage(0).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
