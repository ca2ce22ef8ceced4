//! How many connections there are, and which of them wait for a request.

use std::collections::HashMap;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// The connections of a server.
#[derive(Default)]
pub(super) struct Connections {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    count: usize,
    next: u64,
    is_stopping: bool,
    /// Those that wait for a request.
    idle: HashMap<u64, Arc<TcpStream>>,
}

/// One of the connections, until it is dropped.
pub(super) struct Entry {
    all: Arc<Connections>,
    stream: Arc<TcpStream>,
    number: u64,
}

impl Connections {
    /// Counts one more, unless there are `most`.
    pub(super) fn enter(self: &Arc<Self>, stream: &Arc<TcpStream>, most: usize) -> Option<Entry> {
        let mut state = self.state.lock();
        if state.count >= most {
            return None;
        }
        state.count += 1;
        state.next += 1;
        Some(Entry { all: Arc::clone(self), stream: Arc::clone(stream), number: state.next })
    }

    /// Ends those that wait for a request, and from now on each that comes to wait for one.
    pub(super) fn end_idle(&self) {
        let mut state = self.state.lock();
        state.is_stopping = true;
        // Closed for reading: a request that has come in this moment is still answered.
        state.idle.drain().for_each(|(_, stream)| drop(stream.shutdown(Shutdown::Read)));
    }

    /// Waits until there are none, or the time is over.
    pub(super) fn wait_for_end(&self, grace: Duration) {
        let deadline = Instant::now() + grace;
        let mut state = self.state.lock();
        while state.count > 0 && !self.ended.wait_until(&mut state, deadline).timed_out() {}
    }
}

impl Entry {
    /// Notes that it waits for a request. False if the server stops: then it is to end.
    pub(super) fn waits(&self) -> bool {
        let mut state = self.all.state.lock();
        if !state.is_stopping {
            state.idle.insert(self.number, Arc::clone(&self.stream));
        }
        !state.is_stopping
    }

    /// Notes that it waits no more.
    pub(super) fn is_busy(&self) {
        self.all.state.lock().idle.remove(&self.number);
    }

    /// Whether the server stops.
    pub(super) fn is_stopping(&self) -> bool {
        self.all.state.lock().is_stopping
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut state = self.all.state.lock();
        state.count -= 1;
        state.idle.remove(&self.number);
        if state.count == 0 {
            self.all.ended.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;

    /// Both ends of a connection: the server's, and the client's.
    fn connection() -> (Arc<TcpStream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let stream = listener.accept().unwrap().0;
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        (Arc::new(stream), client)
    }

    #[test]
    fn only_connections_that_wait_for_a_request_end() {
        let all = Arc::<Connections>::default();
        let ends = [(); 3].map(|()| connection());
        let [idle, busy, after] = [0, 1, 2].map(|number| all.enter(&ends[number].0, 3).unwrap());
        assert!(all.enter(&ends[0].0, 3).is_none(), "there are as many as there may be");
        assert!(idle.waits() && busy.waits());
        busy.is_busy();
        all.end_idle();
        let read = |number: usize| (&*ends[number].0).read(&mut [0]);
        assert_eq!(read(0).unwrap(), 0, "its thread sees an end");
        std::io::Write::write_all(&mut &ends[1].1, b"x").unwrap();
        assert_eq!(read(1).unwrap(), 1, "the other one still reads");
        assert!(!after.waits() && after.is_stopping(), "one that comes to wait now is to end");
        drop((idle, busy, after));
        all.wait_for_end(Duration::from_secs(30));
        assert_eq!(all.state.lock().count, 0);
    }
}
