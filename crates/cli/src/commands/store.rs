//! `status`, `set`, `format`: the store as a whole.

use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::Duration;

use argh::FromArgs;
use depot::client::{ControllerRole, ControllerStatus, DstoreState, DstoreStatus, Election, HealingStatus, Status};
use depot::namespace::change::{Duty, Settings};
use depot::path::Path;
use gateway::console::{settings_json, status_json};
use indicatif::{HumanBytes, HumanCount, HumanDuration};
use stevedore::program::Failure;
use stevedore::program::output::say;

use super::heal::unclaimed;
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
        lines.push(String::new());
        lines.push(controllers_text(&status.controllers));
    }
    if status.controllers.len() > 1 {
        lines.extend(status.elections.iter().map(election_line));
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
    lines.extend(space_line(&status.healing));
    lines.extend(unclaimed_line(&status.healing));
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
    if healing.moving > 0 {
        let objects = count(healing.moving, "object", "objects");
        parts.push(format!("copies of {objects} move to emptier Dstores"));
    }
    if healing.unnamed > 0 {
        parts.push(format!(
            "{} of removed files and unfinished puts wait to go",
            count(healing.unnamed, "object", "objects")
        ));
    }
    (!parts.is_empty()).then(|| format!("Healing: {}", parts.join("; ")))
}

/// How unevenly Dstores are filled; nothing if they are filled alike.
fn space_line(healing: &HealingStatus) -> Option<String> {
    let HealingStatus { points_apart, is_as_even_as_can_be, .. } = healing;
    let why = if *is_as_even_as_can_be {
        "the disks' sizes, machines and zones allow no better"
    } else {
        "copies move when nothing else is to be done"
    };
    (*points_apart > 0).then(|| format!("Space: the Dstores' shares in use differ by {points_apart} points; {why}"))
}

/// What a restore or a recovery has left over; nothing if there is no such thing.
fn unclaimed_line(healing: &HealingStatus) -> Option<String> {
    let line = || format!("{} from before a restore or a recovery: stevedore collect --unclaimed", unclaimed(healing));
    (healing.unclaimed > 0).then(line)
}

/// A line for each Controller, below what its parts are.
pub fn controllers_text(controllers: &[ControllerStatus]) -> String {
    let head =
        "Controller        address                role          term        log      lag     agrees  sync      up"
            .to_owned();
    std::iter::once(head).chain(controllers.iter().map(controller_line)).collect::<Vec<_>>().join("\n")
}

fn controller_line(controller: &ControllerStatus) -> String {
    /// One that was not heard of for so long is away.
    const AWAY: Duration = Duration::from_secs(3);
    let role = match controller.role {
        ControllerRole::Leader => "leads",
        ControllerRole::Follower => "follows",
        ControllerRole::Learner => "catches up",
        ControllerRole::Outside => "not yet in",
    };
    let unknown = || "-".to_owned();
    // One that only follows does not hear of the others.
    let is_away = controller.last_index.is_some() && controller.silence.is_none_or(|silence| silence >= AWAY);
    let role = if is_away && controller.role != ControllerRole::Leader { "AWAY" } else { role };
    let lag = match controller.snapshot {
        Some((sent, all)) => format!("{}%", sent * 100 / all.max(1)),
        None => controller.last_index.map_or_else(unknown, |_| controller.lag.to_string()),
    };
    let sync = if controller.sync.is_empty() { "-" } else { &controller.sync };
    format!(
        "{:<16}  {:<21}  {role:<12}  {:<6}  {:>7}  {lag:>7}  {:>9}  {sync:<8}  {}",
        controller.id.to_string(),
        controller.address,
        controller.epoch.term,
        controller.last_index.map_or_else(unknown, |index| index.to_string()),
        controller.agreed.map_or_else(unknown, |change| change.to_string()),
        controller.up.map_or_else(unknown, |up| HumanDuration(up).to_string()),
    )
}

fn election_line(election: &Election) -> String {
    let Election { leader, term, ago, gap } = election;
    let gap = gap.map(|gap| format!(", {:.1} s after the leader before it was last heard of", gap.as_secs_f64()));
    format!("Elected: {leader}, term {term}, {} ago{}", HumanDuration(*ago), gap.unwrap_or_default())
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
grace          for so many seconds a Dstore may be away before its copies are made elsewhere: a number, or default
               (what the Controllers were started with)
chunk-size holds for what is put from then on; what has too many or too few copies is brought in line.",
    example = "stevedore set\nstevedore set replicas 2\nstevedore set grace 600"
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
        "grace" => {
            settings.grace_s = match value {
                "default" => None,
                number => Some(number.parse().map_err(|_| "expected a number of seconds, or default")?),
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
    let grace = settings.grace_s.map_or("default".to_owned(), |seconds| format!("{seconds} s"));
    format!(
        "replicas      {}\nwrite-quorum  {write_quorum}\nchunk-size    {chunk} ({})\nmost-entries  {}\nread-only     {on_off}\ngrace         {grace}",
        replicas(settings.replicas),
        HumanBytes(chunk),
        settings.most_entries,
    )
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
    use depot::identity::{ControllerId, DstoreId, Epoch};
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
            scrubbed_ago: Duration::ZERO,
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
                id: ControllerId(0xa1),
                address: "127.0.0.1:7000".into(),
                role: ControllerRole::Leader,
                epoch: Epoch { term: 4, ..Epoch::default() },
                sync: "always".into(),
                last_index: Some(17),
                lag: 0,
                agreed: Some(16),
                silence: None,
                snapshot: None,
                up: Some(Duration::from_secs(90)),
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
        assert!(!text.contains("unclaimed"), "{text}");
        assert!(!text.contains("Space:"), "{text}");
        for (is_as_even_as_can_be, why) in [(true, "allow no better"), (false, "copies move")] {
            let healing = HealingStatus { points_apart: 23, is_as_even_as_can_be, ..Default::default() };
            let text = status_text(&Status { healing, ..Status::default() });
            assert!(text.contains("differ by 23 points") && text.contains(why), "{text}");
        }
        let healing = HealingStatus { unclaimed: 2, unclaimed_bytes: 3 << 20, ..Default::default() };
        let text = status_text(&Status { healing, ..Status::default() });
        assert!(text.contains("2 unclaimed objects (3.00 MiB) from before a restore"), "{text}");
        assert_eq!(status_json(&status)["dstores"][1]["state"], "away");
    }

    #[test]
    fn elections_are_shown_where_there_are_several_controllers() {
        let controller = |number| ControllerStatus {
            id: ControllerId(number),
            address: String::new(),
            role: ControllerRole::Follower,
            epoch: Epoch::default(),
            sync: String::new(),
            last_index: None,
            lag: 0,
            agreed: None,
            silence: None,
            snapshot: None,
            up: None,
        };
        let election = Election {
            leader: ControllerId(0xb),
            term: 7,
            ago: Duration::from_secs(120),
            gap: Some(Duration::from_millis(930)),
        };
        let mut status = Status { controllers: vec![controller(0xa)], elections: vec![election], ..Status::default() };
        assert!(!status_text(&status).contains("Elected"), "one alone elects itself");
        status.controllers.push(controller(0xb));
        let text = status_text(&status);
        let line = "Elected: b, term 7, 2 minutes ago, 0.9 s after the leader before it was last heard of";
        assert!(text.contains(line), "{text}");
        assert_eq!(status_json(&status)["elections"][0]["gap_ms"], 930);
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
            ("grace", "soon"),
            ("grace", "-1"),
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
            ("grace", "600"),
        ] {
            change(&mut settings, name, value).unwrap();
        }
        let expected = Settings {
            replicas: Replicas::All,
            write_quorum: Some(2),
            chunk_bytes: 8 << 20,
            most_entries: 5,
            is_read_only: true,
            grace_s: Some(600),
        };
        assert_eq!(settings, expected);
        change(&mut settings, "grace", "default").unwrap();
        assert_eq!(settings.grace_s, None);
        change(&mut settings, "write-quorum", "majority").unwrap();
        assert_eq!(settings.write_quorum, None);
    }
}
