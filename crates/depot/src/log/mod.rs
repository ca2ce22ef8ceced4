//! The sequence of changes, on a disk. (depot 4.2 to 4.4, 4.8)
//!
//! What a store has acknowledged is what its log holds; the namespace is only what the log adds up to. So everything here
//! serves one question: after a crash, what was in the log?
//!
//! # Segments and frames
//!
//! The log is a row of files, the segments, each about 64 MiB. A segment is a row of frames, one for each write. A frame
//! holds the entries that were waiting when it was written, and its checksum: it is there as a whole or not at all. A segment is
//! named by its place in the row, in bytes.
//!
//! ```text
//! log-00000000000000000000        log-00000000000067109382
//! ┌────────┬───────┬───────┬───┐  ┌────────┬───────┬───────┬─ ─ ─
//! │ header │ frame │ frame │ … │  │ header │ frame │ frame │ torn
//! └────────┴───────┴───────┴───┘  └────────┴───────┴───────┴─ ─ ─
//! ```
//!
//! Frames begin with the segment's salt, eight random bytes that no client can read. Whatever clients store, their content
//! cannot pose as a frame.
//!
//! # Torn or damaged?
//!
//! A frame that does not check may be one of two things. A crash interrupted its writing: nothing in it was acknowledged,
//! so it is cut off, and the log goes on. Or the disk has damaged what was acknowledged long ago: then cutting would lose
//! it, and the frames behind it, without a word. To tell the two apart, each frame says up to where the log was synced when
//! the frame was written. A synced byte cannot be torn. So damage that lies below any such mark is damage, and the
//! Controller refuses to start; damage beyond all marks is a torn tail.
//!
//! ```text
//!        synced up to here when F was written
//!                     ▼
//! ─ A ─┬─ B ─┬─ C ─┬─ D ─┬─ E ─┬─ F ─┐      a bad B or C: damage.   a bad D, E or F: a torn tail,
//!                                            for no mark says that they were ever synced.
//! ```
//!
//! The last frames before a quiet time would have no frame behind them to vouch for them, so after 100 ms a mark of its own
//! follows, and so at rotation and at a clean end.
//!
//! The modules: `frame` and `segments` are the files, `snapshots` what lets old ones go, [`Replica`] has Raft's library decide
//! what is appended, and applies it. [`backup`] checks snapshots that have left the folder, [`recovery`] begins anew from what
//! is left.
//!
//! # A failed sync is final
//!
//! When a sync fails, the system may have dropped the bytes, and reports the next sync as good. So the log does not try
//! again: it refuses everything from then on, and what is in it is found out by the next start.

pub mod backup;
mod frame;
pub mod recovery;
mod replica;
mod segments;
mod snapshots;
mod store;
#[cfg(test)]
mod tests;

pub use frame::{Entry, EntryKind, HardState};
pub use replica::{
    Backup, Election, Entered, IncomingSnapshot, InvalidMessage, MemberChange, MemberError, Members, Message, Observer,
    Post, Progress, ProposeError, Replica, ReplicaOptions, Seat, SyncMode,
};
pub use segments::{LogError, OpenError, Options, Segments};
