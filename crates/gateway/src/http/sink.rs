//! Where a file's bytes go on their way to the client.

use std::io::{self, Write};

use depot::client::Error;

use crate::console::Statistics;
use crate::server::Answer;

/// An answer that begins with the first byte of its body: until then an error has a status of its own.
pub(crate) struct Sink<'a> {
    /// `None` once the answer has begun. Gives none if the request was answered before.
    begin: Option<Box<dyn FnOnce() -> Option<Answer> + 'a>>,
    answer: Option<Answer>,
    statistics: &'a Statistics,
}

impl<'a> Sink<'a> {
    pub(crate) fn new(statistics: &'a Statistics, begin: impl FnOnce() -> Option<Answer> + 'a) -> Self {
        Self { begin: Some(Box::new(begin)), answer: None, statistics }
    }

    /// Ends the answer as the copy of the bytes has ended. An error comes back if nothing was sent: it can still be told. What comes
    /// later cuts the answer off, so that the client sees it, and is logged by the file's name.
    pub(crate) fn end(self, copied: Result<(), Error>, name: &str) -> Result<(), Error> {
        match (copied, self.answer) {
            (Ok(()), Some(answer)) => answer.finish(),
            (Ok(()), None) => {}
            (Err(error), None) => return Err(error),
            (Err(Error::Sink(error)), Some(_)) => log::info!("{name}: not sent to its end: {error}"),
            (Err(error), Some(_)) => log::error!("{name}: cut off, after a part of it was sent: {error}"),
        }
        Ok(())
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(begin) = self.begin.take() {
            self.answer = begin();
        }
        let answered_before = || io::Error::other("the request was answered before");
        let sent = self.answer.as_mut().ok_or_else(answered_before)?.write(bytes)?;
        self.statistics.sent(sent as u64);
        Ok(sent)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
