//! The Controller and the Dstores that are tortured: this program, started again in another role.

use std::time::Duration;

use rustix::process::{Signal, set_parent_process_death_signal};
use stevedore::program::{self, Failure, LogGuard, output::say};
use stevedore::{controller, dstore};

use crate::depot;

/// The first word of a command line that asks for a Controller.
pub const CONTROLLER: &str = "controller-role";
/// The first word of a command line that asks for a Dstore.
pub const DSTORE: &str = "dstore-role";

/// Plays the role that the command line asks for; `None` if it asks for none.
pub fn play(words: &[String]) -> Option<Result<(), Failure>> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [CONTROLLER, replicas, timeout, period] => Some(controller(replicas, timeout, period)),
        [DSTORE, controller, timeout, folder] => Some(dstore(controller, timeout, folder)),
        _ => depot::play(&words),
    }
}

/// Says its port, and then how it is whenever that changes; see [`crate::cluster::Status`].
fn controller(replicas: &str, timeout: &str, period: &str) -> Result<(), Failure> {
    let _log = begin()?;
    let controller = controller::start(controller::Config {
        timeout: milliseconds(timeout)?,
        rebalance_period: Some(milliseconds(period)?),
        ..controller::Config::new(number(replicas)?)
    })
    .map_err(Failure::new)?;
    program::say_listening(controller.address(), false)?;
    let mut last = None;
    loop {
        let changed = |status: &controller::Status| last.as_ref() != Some(status);
        if let Some(status) = controller.wait_until(Duration::from_secs(1), changed) {
            let members: Vec<_> = status.members.iter().map(|member| member.address.to_string()).collect();
            say(format_args!("{} {} {}", status.rebalances, status.files, members.join(" ")))?;
            last = Some(status);
        }
    }
}

fn dstore(controller: &str, timeout: &str, folder: &str) -> Result<(), Failure> {
    let _log = begin()?;
    let dstore = dstore::start(dstore::Config {
        timeout: milliseconds(timeout)?,
        ..dstore::Config::new(number(controller)?, folder)
    })
    .map_err(Failure::new)?;
    program::say_listening(dstore.listening_on(), false)?;
    Err(Failure::new(dstore.wait_for_controllers_end()))
}

/// It must not outlive the torture, even stopped.
pub fn begin() -> Result<LogGuard, Failure> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(Failure::new)?;
    program::start_log("error")
}

fn milliseconds(word: &str) -> Result<Duration, Failure> {
    number(word).map(Duration::from_millis)
}

pub fn number<T: std::str::FromStr<Err: std::fmt::Display>>(word: &str) -> Result<T, Failure> {
    word.parse().map_err(Failure::usage)
}
