//! Where there are signals.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::{flag, low_level};

use super::Signal;
use crate::program::Failure;

/// Has `tidy` called, on a thread of its own, when SIGINT or SIGTERM comes for the first time. If the program still
/// runs `grace` later, or gets a second one, it dies of it.
pub fn on_first(grace: Duration, tidy: impl FnOnce(Signal) + Send + 'static) -> Result<(), Failure> {
    start(grace, tidy).map_err(|error| Failure::new(format!("cannot await signals: {error}")))
}

fn start(grace: Duration, tidy: impl FnOnce(Signal) + Send + 'static) -> io::Result<()> {
    let is_ending = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_default(signal, Arc::clone(&is_ending))?;
    }
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        let Some(signal) = signals.forever().next() else { return };
        is_ending.store(true, Ordering::SeqCst);
        // Not while this thread tidies up: that is what may take too long.
        let watched = thread::Builder::new().name("grace".into()).spawn(move || {
            thread::sleep(grace);
            die_of(signal);
        });
        if watched.is_err() {
            die_of(signal);
        }
        tidy(signal);
    })?;
    Ok(())
}

/// Ends the process by the signal's default effect, and leaves the terminal as it was.
pub fn die_of(signal: Signal) {
    Terminal::restore();
    // Both signals end a process by default: this does not return.
    let _ = low_level::emulate_default_handler(signal);
}

/// The terminal's settings, while line editing changes them.
static BEFORE_EDITING: Mutex<Option<Termios>> = Mutex::new(None);

/// The terminal on stdin.
pub struct Terminal;

impl Terminal {
    /// Remembers its settings. Line editing takes them back itself, but not if a signal ends the process first.
    pub fn remember() {
        if io::stdin().is_terminal() {
            *BEFORE_EDITING.lock() = tcgetattr(io::stdin()).ok();
        }
    }

    /// Sets it back to what was remembered, if anything was.
    pub fn restore() {
        if let Some(settings) = &*BEFORE_EDITING.lock() {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, settings);
        }
    }
}
