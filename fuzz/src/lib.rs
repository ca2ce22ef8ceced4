//! What holds whatever a peer says: one module for each fuzz target, each with a `check` that panics where it does not.
//!
//! `cargo fuzz run -s none NAME` looks for inputs that break a target (`-s none`: our code is safe Rust, so there is
//! nothing for a sanitizer to find, and without one the stable compiler will do). Built without `cargo fuzz`, a target
//! is a plain program that replays the files it is given; `cargo test` replays the whole corpus.

pub mod connection;
pub mod controller_session;
pub mod dstore_session;
pub mod index;
pub mod java;
pub mod message;
mod session;

use std::path::PathBuf;

/// Checks each file named on the command line: for a `main`.
pub fn replay(check: fn(&[u8])) {
    abort_on_panic();
    for path in std::env::args_os().skip(1).map(PathBuf::from) {
        println!("{}", path.display());
        check(&std::fs::read(&path).expect("a readable file"));
    }
}

/// From here on a panic of any thread ends the process, as it does under libFuzzer: those of a server's own threads
/// would otherwise go unnoticed.
pub fn abort_on_panic() {
    let say = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        say(panic);
        std::process::abort();
    }));
}
