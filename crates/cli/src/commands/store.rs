//! `status`, `set`, `format`: the store as a whole.

use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::Duration;

use argh::FromArgs;
use depot::client::{DstoreState, DstoreStatus, HealingStatus, Status};
use depot::namespace::change::{Duty, Settings};
use depot::path::Path;
use indicatif::{HumanBytes, HumanCount, HumanDuration};
use serde_json::{Value, json};
use stevedore::program::Failure;
use stevedore::program::output::say;

use super::list::Amount;
use super::put::replicas as read_replicas;
use crate::failure::of_store;
use crate::session::Session;
use crate::show::{count, replicas, say_json};

/// Show how the store is, problems first.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "status",
    example = "stevedore status\nstevedore status --watch\nstevedore status --json | jq .problems"
)]
pub struct ShowStatus {
    /// show it again each second, until Ctrl-C
    #[argh(switch, short = 'w')]
    pub watch: bool,
    /// print one JSON document; with --watch one in a line each second
    #[argh(switch)]
    pub json: bool,
}

impl ShowStatus {
    /// Does it.
    pub fn run(&self, session: &Session<'_>) -> Result<(), Failure> {
        const PERIOD: Duration = Duration::from_secs(1);
        loop {
            let status = session.store.status().map_err(of_store)?;
            if self.json {
                say_json(&status_json(&status))?;
            } else {
                if self.watch && io::stdout().is_terminal() {
                    // To the upper left corner, and nothing is left of what was there. Not a part of what is escaped.
                    let _ = io::stdout().write_all(b"\x1b[H\x1b[2J");
                }
                say(format_args!("{}", status_text(&status)))?;
            }
            if !self.watch {
                return Ok(());
            }
            thread::sleep(PERIOD);
        }
    }
}

/// As a person reads it.
pub fn status_text(status: &Status) -> String {
    let mut lines = Vec::new();
    let (files, objects) = (count(status.entries, "entry", "entries"), count(status.objects, "object", "objects"));
    lines.push(format!("Store {:?}: {files}, {objects}", status.name));
    if status.problems.is_empty() {
        lines.push("All is well.".into());
    } else {
        lines.push(String::new());
        lines.push(count(status.problems.len() as u64, "problem:", "problems:"));
        lines.extend(status.problems.iter().map(|problem| format!("  ! {problem}")));
    }
    if !status.limits.is_empty() {
        lines.push("\nIt does not survive:".into());
        lines.extend(status.limits.iter().map(|limit| format!("  - {limit}")));
    }
    if !status.controllers.is_empty() {
        lines.push("\nController               role      term        log  sync      up".into());
    }
    for controller in &status.controllers {
        let role = if controller.is_leader { "leads" } else { "follows" };
        lines.push(format!(
            "{:<23}  {role:<8}  {:<6}  {:>7}  {:<8}  {}",
            controller.address,
            controller.epoch.term,
            controller.last_index,
            controller.sync,
            HumanDuration(controller.up)
        ));
    }
    if status.dstores.is_empty() {
        lines.push("\nNo Dstore has joined.".into());
    } else {
        lines.push(
            "\nDstore  address                state     space                           objects  sync      load".into(),
        );
    }
    lines.extend(status.dstores.iter().map(dstore_line));
    lines.push(String::new());
    lines.extend(healing_line(&status.healing));
    lines.push(settings_line(&status.settings));
    lines.join("\n")
}

fn dstore_line(dstore: &DstoreStatus) -> String {
    let state = match (dstore.duty, dstore.state) {
        (Duty::Removed, _) => "removed",
        (Duty::Draining, DstoreState::Present) => "drains",
        (_, DstoreState::Away) => "AWAY",
        (Duty::Active, DstoreState::Present) => "present",
    };
    let mut line = format!(
        "{:>6}  {:<21}  {state:<8}  {}  {:>7}  {:<8}",
        dstore.id.to_string(),
        dstore.address,
        space(dstore),
        HumanCount(dstore.objects).to_string(),
        dstore.sync
    );
    let (processors, memory, disk) = dstore.load_percent;
    line += &format!("  cpu {processors}%, memory {memory}%, disk {disk}%");
    if dstore.damaged > 0 {
        line += &format!("  {} DAMAGED", HumanCount(dstore.damaged));
    }
    if !dstore.zone.is_empty() {
        line += &format!("  zone {}", dstore.zone);
    }
    line
}

/// What is being repaired and removed; nothing if all is as it should be.
fn healing_line(healing: &HealingStatus) -> Option<String> {
    let mut parts = Vec::new();
    if healing.objects > 0 {
        let objects = count(healing.objects, "object", "objects");
        let mut part = format!("copies of {objects} are being made, {} left", HumanBytes(healing.bytes));
        if let Some(seconds) = healing.bytes.checked_div(healing.bytes_per_second) {
            let time = HumanDuration(Duration::from_secs(seconds));
            part += &format!(", {} a second, about {time}", HumanBytes(healing.bytes_per_second));
        }
        parts.push(part);
    }
    if healing.surplus > 0 {
        parts.push(format!("surplus copies of {} go", count(healing.surplus, "object", "objects")));
    }
    if healing.unnamed > 0 {
        parts.push(format!(
            "{} of removed files and unfinished puts wait to go",
            count(healing.unnamed, "object", "objects")
        ));
    }
    (!parts.is_empty()).then(|| format!("Healing: {}", parts.join("; ")))
}

/// A bar of the disk's space, and in words.
fn space(dstore: &DstoreStatus) -> String {
    const WIDTH: u64 = 10;
    if dstore.total_bytes == 0 {
        return format!("{:<30}", "unknown");
    }
    let full = dstore.total_bytes.saturating_sub(dstore.free_bytes);
    let percent = u128::from(full) * 100 / u128::from(dstore.total_bytes);
    let filled = (u128::from(full) * u128::from(WIDTH)).div_ceil(u128::from(dstore.total_bytes)) as usize;
    let bar: String = (0..WIDTH as usize).map(|place| if place < filled { '#' } else { '.' }).collect();
    format!("{:<30}", format!("[{bar}] {percent:>3}% of {}", HumanBytes(dstore.total_bytes)))
}

fn settings_line(settings: &Settings) -> String {
    let write_quorum = settings.write_quorum.map_or("a majority".to_owned(), |number| number.to_string());
    let read_only = if settings.is_read_only { ", READ-ONLY" } else { "" };
    format!(
        "Replicas {}, write quorum {write_quorum}, chunks of {}{read_only}",
        replicas(settings.replicas),
        HumanBytes(settings.chunk_bytes)
    )
}

/// As a program reads it.
pub fn status_json(status: &Status) -> Value {
    let controllers = status.controllers.iter().map(|controller| {
        json!({
            "address": controller.address,
            "is_leader": controller.is_leader,
            "history": controller.epoch.history.to_string(),
            "term": controller.epoch.term,
            "sync": controller.sync,
            "last_index": controller.last_index,
            "up_seconds": controller.up.as_secs(),
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
        })
    });
    json!({
        "name": status.name,
        "cluster": status.cluster,
        "problems": status.problems,
        "limits": status.limits,
        "controllers": controllers.collect::<Vec<_>>(),
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
            "is_guarded": status.healing.is_guarded,
        },
        "version": status.version.to_string(),
        "hash": status.hash,
    })
}

/// Show the store's settings, or change one.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "set",
    note = "replicas       on how many Dstores a file is kept: a number, or all
write-quorum   how many Dstores must have it before a put succeeds: a number, or majority
chunk-size     content is cut into objects of so many bytes: 64K to 1G
most-entries   how many files and directories there may be
read-only      on: only removals are accepted; or off
Settings hold for what is put from then on.",
    example = "stevedore set\nstevedore set replicas 2\nstevedore set read-only on"
)]
pub struct Set {
    /// print the settings as JSON
    #[argh(switch)]
    pub json: bool,
    /// which setting, and what it shall be
    #[argh(positional, arg_name = "NAME VALUE")]
    pub words: Vec<String>,
}

impl Set {
    /// Does it.
    pub fn run(&self, session: &Session<'_>) -> Result<(), Failure> {
        let mut settings = session.store.settings().map_err(of_store)?;
        match &self.words[..] {
            [] => {}
            [name, value] => {
                change(&mut settings, name, value)
                    .map_err(|reason| Failure::usage(format!("{name} {value}: {reason}")))?;
                session.store.set(&settings).map(|_| ()).map_err(of_store)?;
            }
            [name] => return Err(Failure::usage(format!("{name}: which value? (see stevedore set --help)"))),
            _ => return Err(Failure::usage("set takes one setting and its value (see stevedore set --help)")),
        }
        if self.json {
            return say_json(&settings_json(&settings));
        }
        say(format_args!("{}", settings_text(&settings)))
    }
}

/// Changes one setting.
pub fn change(settings: &mut Settings, name: &str, value: &str) -> Result<(), String> {
    match name {
        "replicas" => settings.replicas = read_replicas(value)?,
        "write-quorum" => {
            settings.write_quorum = match value {
                "majority" => None,
                number => match number.parse() {
                    Ok(number @ 1..) => Some(number),
                    _ => return Err("expected a number from 1 to 255, or majority".into()),
                },
            }
        }
        "chunk-size" => {
            settings.chunk_bytes = bytes(value)
                .filter(|bytes| (64 << 10..=1 << 30).contains(bytes))
                .ok_or("expected a size from 64K to 1G, as in 8M")?;
        }
        "most-entries" => settings.most_entries = value.parse().map_err(|_| "expected a number")?,
        "read-only" => {
            settings.is_read_only = match value {
                "on" => true,
                "off" => false,
                _ => return Err("expected on or off".into()),
            }
        }
        _ => return Err("there is no such setting (see stevedore set --help)".into()),
    }
    if let (Some(quorum), depot::namespace::change::Replicas::Number(replicas)) =
        (settings.write_quorum, settings.replicas)
        && quorum > replicas
    {
        return Err(format!("the write quorum, {quorum}, may not be larger than the number of replicas, {replicas}"));
    }
    Ok(())
}

/// A number of bytes, with K, M or G behind it for powers of 1,024.
pub fn bytes(word: &str) -> Option<u64> {
    let shift = match word.chars().last()? {
        'K' | 'k' => 10,
        'M' | 'm' => 20,
        'G' | 'g' => 30,
        _ => 0,
    };
    let number: u64 = if shift == 0 { word } else { &word[..word.len() - 1] }.parse().ok()?;
    number.checked_mul(1 << shift)
}

fn settings_text(settings: &Settings) -> String {
    let write_quorum = settings.write_quorum.map_or("majority".to_owned(), |number| number.to_string());
    let on_off = if settings.is_read_only { "on" } else { "off" };
    let chunk = settings.chunk_bytes;
    format!(
        "replicas      {}\nwrite-quorum  {write_quorum}\nchunk-size    {chunk} ({})\nmost-entries  {}\nread-only     {on_off}",
        replicas(settings.replicas),
        HumanBytes(chunk),
        settings.most_entries,
    )
}

fn settings_json(settings: &Settings) -> Value {
    json!({
        "replicas": replicas(settings.replicas),
        "write_quorum": settings.write_quorum,
        "chunk_bytes": settings.chunk_bytes,
        "most_entries": settings.most_entries,
        "is_read_only": settings.is_read_only,
    })
}

/// Empty the store: every file and directory goes.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "format",
    note = "Settings, Controllers and Dstores stay. The name is the one that status shows: it says that this\nstore is meant.",
    example = "stevedore format depot"
)]
pub struct Format {
    /// do not ask
    #[argh(switch, short = 'y')]
    pub yes: bool,
    /// the store's name
    #[argh(positional, arg_name = "NAME")]
    pub name: String,
}

impl Format {
    /// Does it.
    pub fn run(&self, session: &Session<'_>) -> Result<(), Failure> {
        let status = session.store.status().map_err(of_store)?;
        if status.name != self.name {
            return Err(Failure::new(format!(
                "this store is called {:?}, not {:?}: nothing was done",
                status.name, self.name
            )));
        }
        if !self.yes {
            let amount = Amount::below(session, &Path::root())?;
            session.confirm(false, &format!("everything in the store {:?} goes: {amount}", self.name))?;
        }
        session.store.format(&self.name).map(|_| ()).map_err(of_store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use depot::client::ControllerStatus;
    use depot::identity::{DstoreId, Epoch};
    use depot::namespace::change::Replicas;

    fn dstore(id: u32, state: DstoreState) -> DstoreStatus {
        DstoreStatus {
            id: DstoreId(id),
            address: format!("127.0.0.1:71{id:02}"),
            host: "here".into(),
            zone: String::new(),
            state,
            duty: Duty::Active,
            sync: "always".into(),
            objects: 12_345,
            used_bytes: 1 << 30,
            free_bytes: 3 << 30,
            total_bytes: 4 << 30,
            load_percent: (3, 40, 5),
            damaged: 0,
        }
    }

    #[test]
    fn a_tired_person_sees_problems_first() {
        let status = Status {
            name: "depot".into(),
            entries: 3,
            problems: vec!["Dstore 2 is away".into()],
            limits: vec!["the loss of this machine".into()],
            controllers: vec![ControllerStatus {
                address: "127.0.0.1:7000".into(),
                is_leader: true,
                epoch: Epoch { term: 4, ..Epoch::default() },
                sync: "always".into(),
                last_index: 17,
                up: Duration::from_secs(90),
            }],
            dstores: vec![dstore(1, DstoreState::Present), dstore(2, DstoreState::Away)],
            ..Status::default()
        };
        let text = status_text(&status);
        let place = |what: &str| text.find(what).unwrap_or_else(|| panic!("no {what:?} in\n{text}"));
        assert!(place("! Dstore 2 is away") < place("It does not survive"));
        assert!(place("It does not survive") < place("127.0.0.1:7000"));
        assert!(text.contains("[###.......]  25% of 4.00 GiB"), "{text}");
        assert!(text.contains("AWAY"), "{text}");
        assert!(!text.contains("All is well"), "{text}");
        assert!(status_text(&Status::default()).contains("All is well"));
        assert!(!status_text(&Status::default()).contains("Healing"));
        let healing =
            HealingStatus { objects: 12, bytes: 90 << 20, bytes_per_second: 3 << 20, surplus: 1, ..Default::default() };
        let text = status_text(&Status { healing, ..Status::default() });
        let line = "Healing: copies of 12 objects are being made, 90.00 MiB left, 3.00 MiB a second, about 30 seconds";
        assert!(text.contains(&format!("{line}; surplus copies of 1 object go")), "{text}");
        assert_eq!(status_json(&status)["dstores"][1]["state"], "away");
    }

    #[test]
    fn a_setting_that_makes_no_sense_is_refused() {
        let mut settings = Settings::default();
        for (name, value) in [
            ("replicas", "0"),
            ("replicas", "many"),
            ("write-quorum", "0"),
            ("write-quorum", "4"),
            ("chunk-size", "1K"),
            ("chunk-size", "2G"),
            ("chunk-size", "18446744073709551615G"),
            ("read-only", "yes"),
            ("colour", "red"),
        ] {
            assert!(change(&mut settings.clone(), name, value).is_err(), "{name} {value}");
        }
        for (name, value) in [
            ("replicas", "all"),
            ("write-quorum", "2"),
            ("chunk-size", "8M"),
            ("most-entries", "5"),
            ("read-only", "on"),
        ] {
            change(&mut settings, name, value).unwrap();
        }
        let expected = Settings {
            replicas: Replicas::All,
            write_quorum: Some(2),
            chunk_bytes: 8 << 20,
            most_entries: 5,
            is_read_only: true,
        };
        assert_eq!(settings, expected);
        change(&mut settings, "write-quorum", "majority").unwrap();
        assert_eq!(settings.write_quorum, None);
    }
}
