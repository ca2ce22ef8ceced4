//! `check`, `repair`, `drain`, `dstore remove`, `collect`: that the store has what it should have, and stays so. (depot 6)

use std::fmt::Display;

use argh::FromArgs;
use depot::client::{CheckSummary, CheckedObject, DstoreState, DstoreStatus, Error, HealingStatus};
use depot::identity::DstoreId;
use depot::namespace::change::{Duty, Replicas};
use depot::path::Path;
use indicatif::HumanBytes;
use serde_json::{Value, json};
use stevedore::program::Failure;
use stevedore::program::output::say;

use crate::failure::{about, of_store};
use crate::session::Session;
use crate::show::{count, say_json};

/// Ask every Dstore for every object of every file, and have repaired what is missing or damaged.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "check",
    note = "Without --deep, Dstores say what they have and know to be damaged. With it they read and verify all of\nit, which takes as long as reading their disks. What is wrong is printed, and repaired in the background\n(stevedore status shows how far that is). The exit code is 1 then.",
    example = "stevedore check\nstevedore check --deep /photos"
)]
pub struct Check {
    /// have the Dstores read and verify each copy
    #[argh(switch)]
    pub deep: bool,
    /// print one JSON document
    #[argh(switch)]
    pub json: bool,
    /// a file, or a directory with all that is in it (default: everything)
    #[argh(positional, arg_name = "PATH")]
    pub path: Option<String>,
}

impl Check {
    /// Does it.
    pub fn run(&self, session: &Session<'_>) -> Result<(), Failure> {
        let path = match &self.path {
            Some(text) => session.path(text)?,
            None => Path::root(),
        };
        let mut faults = Vec::new();
        let mut printed = Ok(());
        let mut found = |object: &CheckedObject| {
            if self.json {
                faults.push(fault_json(object));
            } else if printed.is_ok() {
                printed = say(format_args!("{}", fault_text(object)));
            }
        };
        let summary = session.store.check(&path, self.deep, &mut found).map_err(about(&path))?;
        printed?;
        if self.json {
            say_json(&summary_json(&summary, faults))?;
        } else {
            say(format_args!("{}", summary_text(&summary)))?;
            let healing = session.store.status().map_err(of_store)?.healing;
            if path.is_root() && healing.unclaimed > 0 {
                say(format_args!("Beside these there are {}; see stevedore collect", unclaimed(&healing)))?;
            }
        }
        match summary.faulty {
            0 => Ok(()),
            faulty => Err(Failure::new(format!(
                "{} not as they should be; they are repaired as far as that is possible (stevedore status)",
                count(faulty, "object is", "objects are")
            ))),
        }
    }
}

fn list(dstores: &[DstoreId]) -> String {
    dstores.iter().map(DstoreId::to_string).collect::<Vec<_>>().join(", ")
}

fn fault_text(object: &CheckedObject) -> String {
    let mut line = match object.good {
        0 => format!("{}: NO GOOD COPY of object {}", object.path, object.key),
        good => format!("{}: object {} has {good} of {} copies", object.path, object.key, object.wanted),
    };
    for (what, dstores) in
        [("damaged at", &object.damaged), ("not there at", &object.absent), ("no answer from", &object.silent)]
    {
        if !dstores.is_empty() {
            line += &format!(", {what} Dstore {}", list(dstores));
        }
    }
    line
}

fn fault_json(object: &CheckedObject) -> Value {
    let ids = |dstores: &[DstoreId]| dstores.iter().map(|dstore| dstore.0).collect::<Vec<_>>();
    json!({
        "path": object.path.as_str(),
        "object": object.key.to_string(),
        "wanted": object.wanted,
        "good": object.good,
        "damaged": ids(&object.damaged),
        "absent": ids(&object.absent),
        "silent": ids(&object.silent),
    })
}

fn summary_text(summary: &CheckSummary) -> String {
    let CheckSummary { files, objects, copies, faulty, lost } = *summary;
    let looked = format!(
        "{} in {}: {}",
        count(objects, "object", "objects"),
        count(files, "file", "files"),
        count(copies, "copy", "copies")
    );
    match (faulty, lost) {
        (0, _) => format!("{looked}, all as they should be"),
        (_, 0) => format!("{looked}; of {} some are missing or damaged", count(faulty, "object", "objects")),
        _ => format!(
            "{looked}; of {} some are missing or damaged, of {} all",
            count(faulty, "object", "objects"),
            count(lost, "object", "objects")
        ),
    }
}

fn summary_json(summary: &CheckSummary, faults: Vec<Value>) -> Value {
    json!({
        "files": summary.files,
        "objects": summary.objects,
        "copies": summary.copies,
        "faulty": summary.faulty,
        "lost": summary.lost,
        "faults": faults,
    })
}

/// Look at all objects now, and repair what needs it.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "repair",
    note = "A store repairs by itself what it hears of; a Dstore that is away is given a minute first. This has it look\nat everything again. While more than a third of the Dstores are away, or a whole zone is, only objects with\none good copy are repaired, as the rest may come back: --all ends that restraint.",
    example = "stevedore repair\nstevedore repair --all"
)]
pub struct Repair {
    /// also while so many Dstores are away that only last copies are repaired
    #[argh(switch)]
    pub all: bool,
}

impl Repair {
    /// Does it.
    pub fn run(&self, session: &Session<'_>) -> Result<(), Failure> {
        session.store.repair(self.all).map_err(of_store)?;
        say(format_args!("All objects are looked at; stevedore status shows what is repaired."))
    }
}

/// Empty a Dstore: what it has goes to others, and it gets nothing new.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "drain",
    note = "Files can be read and put meanwhile. No copy goes before others are there and verified. stevedore status\nshows the Dstore's objects; when there are none, stevedore dstore remove ID takes it out of the store.",
    example = "stevedore drain 3\nstevedore drain --cancel 3"
)]
pub struct Drain {
    /// use the Dstore again
    #[argh(switch)]
    pub cancel: bool,
    /// number of the Dstore, as status shows it
    #[argh(positional, arg_name = "ID")]
    pub dstore: u32,
}

impl Drain {
    /// Does it.
    pub fn run(&self, session: &Session<'_>) -> Result<(), Failure> {
        let id = DstoreId(self.dstore);
        let status = session.store.status().map_err(of_store)?;
        if !self.cancel {
            warn_if_too_few(&status.dstores, id, &status.settings.replicas)?;
        }
        session.store.drain(id, !self.cancel).map_err(refused(id))?;
        say(format_args!(
            "{}",
            if self.cancel {
                format!("Dstore {id} is used again.")
            } else {
                format!("What Dstore {id} has goes to others; stevedore status shows how far it is.")
            }
        ))
    }
}

/// Copies need somewhere to go.
fn warn_if_too_few(dstores: &[DstoreStatus], id: DstoreId, replicas: &Replicas) -> Result<(), Failure> {
    let others = dstores
        .iter()
        .filter(|dstore| dstore.id != id && dstore.state == DstoreState::Present && dstore.duty == Duty::Active);
    let others = others.count();
    match replicas {
        Replicas::Number(wanted) if others < usize::from(*wanted) => say(format_args!(
            "There are {others} other Dstores for {wanted} replicas: Dstore {id} keeps what has no other place. Add a Dstore, or stevedore set replicas {others}."
        )),
        _ => Ok(()),
    }
}

/// Remove the objects that were left over by a restore or a recovery.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "collect",
    note = "What removed files and unfinished puts leave is removed by itself. But after a restore or a recovery, Dstores\nmay have objects of the time that was not restored: a newer backup may know the files they belong to. Such\nobjects are kept, and stevedore status says how many there are, until this command says that they can go.",
    example = "stevedore collect --unclaimed"
)]
pub struct Collect {
    /// objects from before a restore or a recovery that no file names
    #[argh(switch)]
    pub unclaimed: bool,
    /// do not ask
    #[argh(switch, short = 'y')]
    pub yes: bool,
}

impl Collect {
    /// Does it.
    pub fn run(&self, session: &Session<'_>) -> Result<(), Failure> {
        if !self.unclaimed {
            return Err(Failure::usage("say what is to be collected: stevedore collect --unclaimed"));
        }
        let healing = session.store.status().map_err(of_store)?.healing;
        if healing.unclaimed == 0 {
            return say(format_args!("The Dstores that are there have no unclaimed objects."));
        }
        let objects = unclaimed(&healing);
        session.confirm(
            self.yes,
            &format!("{objects} are removed: a backup that knows their files cannot bring them back then"),
        )?;
        session.store.collect_unclaimed().map_err(of_store)?;
        say(format_args!(
            "{objects} go as those of files that are removed now: stevedore status shows how far that is."
        ))
    }
}

/// How many objects are unclaimed, and how large they are.
pub fn unclaimed(healing: &HealingStatus) -> String {
    let objects = count(healing.unclaimed, "unclaimed object", "unclaimed objects");
    format!("{objects} ({})", HumanBytes(healing.unclaimed_bytes))
}

/// Take a Dstore out of the store for good.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "dstore-remove",
    note = "Written stevedore dstore remove ID. It is refused while the Dstore may have the last good copy of\nsomething: drain it first. Nothing on its disk is deleted, and it is not let in again.",
    example = "stevedore dstore remove 3\nstevedore dstore remove 3 --lost"
)]
pub struct DstoreRemove {
    /// its disk is lost: what only it had is given up
    #[argh(switch)]
    pub lost: bool,
    /// do not ask
    #[argh(switch, short = 'y')]
    pub yes: bool,
    /// number of the Dstore, as status shows it
    #[argh(positional, arg_name = "ID")]
    pub dstore: u32,
}

impl DstoreRemove {
    /// Does it.
    pub fn run(&self, session: &Session<'_>) -> Result<(), Failure> {
        let id = DstoreId(self.dstore);
        if self.lost {
            session.confirm(self.yes, &format!("what only Dstore {id} has is given up"))?;
        }
        session.store.discharge(id, self.lost).map_err(refused(id))?;
        say(format_args!("Dstore {id} belongs to the store no longer."))
    }
}

/// A refusal says itself what to do.
fn refused(what: impl Display) -> impl Fn(Error) -> Failure {
    move |error| match error {
        Error::NotPermitted(why) => Failure::new(why),
        error => about(format_args!("Dstore {what}"))(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use depot::identity::{History, Key};

    #[test]
    fn a_fault_says_where_the_copies_are_and_are_not() {
        let object = CheckedObject {
            path: "/a".parse().expect("a path"),
            key: Key { history: History(0xab), term: 2, number: 9 },
            wanted: 3,
            good: 1,
            damaged: vec![DstoreId(2)],
            absent: vec![DstoreId(3), DstoreId(4)],
            silent: Vec::new(),
        };
        let text = "/a: object ab.2.9 has 1 of 3 copies, damaged at Dstore 2, not there at Dstore 3, 4";
        assert_eq!(fault_text(&object), text);
        let lost =
            CheckedObject { good: 0, damaged: Vec::new(), absent: Vec::new(), silent: vec![DstoreId(1)], ..object };
        assert_eq!(fault_text(&lost), "/a: NO GOOD COPY of object ab.2.9, no answer from Dstore 1");
    }

    #[test]
    fn the_last_line_says_whether_all_is_well() {
        let summary = CheckSummary { files: 1, objects: 2, copies: 6, faulty: 0, lost: 0 };
        assert_eq!(summary_text(&summary), "2 objects in 1 file: 6 copies, all as they should be");
        let faulty = CheckSummary { faulty: 2, lost: 1, ..summary };
        let text = "2 objects in 1 file: 6 copies; of 2 objects some are missing or damaged, of 1 object all";
        assert_eq!(summary_text(&faulty), text);
    }
}
