//! Progress bars on stderr. They show only if that is a terminal, and are to be cleared with `finish_and_clear`.

use indicatif::{ProgressBar, ProgressStyle};

use crate::protocol::Printable;

/// A transfer of fewer bytes is over before a bar could be read.
const LONG: u64 = 16 << 20;

/// A bar for a transfer of `size` bytes; hidden if that is soon over.
pub fn of_bytes(name: &str, size: u64) -> ProgressBar {
    if size < LONG {
        return ProgressBar::hidden();
    }
    bar("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}", size, name)
}

/// A bar for the transfer of so many files, of so many bytes in all; hidden if that is soon over. Its message is free.
pub fn of_transfer(files: usize, bytes: u64) -> ProgressBar {
    const MANY: usize = 200;
    if bytes < LONG && files < MANY {
        return ProgressBar::hidden();
    }
    bar("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}", bytes, "")
}

/// A bar for so many files.
pub fn of_files(doing: &str, files: usize) -> ProgressBar {
    bar("{msg} {wide_bar} {pos}/{len} files", files as u64, doing)
}

fn bar(template: &str, length: u64, message: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).expect("a valid template");
    ProgressBar::new(length).with_style(style).with_message(Printable(message).to_string())
}
