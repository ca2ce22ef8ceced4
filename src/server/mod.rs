//! What a server of any protocol needs: a listener, a thread for each connection, and a way to end them all.
//!
//! Knows no message: the Controller and a Dstore differ in what they do with a connection. Another server is a few lines:
//!
//! ```
//! use stevedore::server::{Server, ThreadGroup, listen};
//!
//! let threads = ThreadGroup::new("echo");
//! let echo = |stream: std::sync::Arc<std::net::TcpStream>| {
//!     let _ = std::io::copy(&mut &*stream, &mut &*stream);
//! };
//! let mut server = Server::start(listen(None, 0)?, &threads, None, echo)?;
//! // Its end: no more connections are taken, those that there are get closed, and their threads joined.
//! server.stop();
//! threads.stop();
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! | file | what |
//! |---|---|
//! | `limits` | the number of descriptors that a server may have |
//! | `listen` | the socket that connections come to |
//! | `acceptor` | [`Server`]: the threads that accept connections and serve them |
//! | `threads` | [`ThreadGroup`]: what was started, to be ended together |

mod acceptor;
mod limits;
mod listen;
mod threads;

pub use acceptor::Server;
pub use limits::raise_descriptor_limit;
pub use listen::listen;
pub use threads::{ThreadGroup, Tracked};
