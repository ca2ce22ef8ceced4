//! Java's `BufferedReader.readLine` and `InputStream.readNBytes`, as the model that `Connection` is compared with.
//! (spec 2.1 to 2.3)
//!
//! Byte by byte, over a stream of which all is known: simple enough to be believed.

/// A reader at some point of a stream.
pub struct JavaReader<'a> {
    stream: &'a [u8],
    at: usize,
    /// The last line ended at `\r`: a `\n` that comes next belongs to it.
    skips_line_feed: bool,
}

impl<'a> JavaReader<'a> {
    /// At the beginning.
    pub fn new(stream: &'a [u8]) -> Self {
        Self { stream, at: 0, skips_line_feed: false }
    }

    /// The next line, when the first `arrived` bytes are all that has come, or, if it `has_ended`, all that ever will.
    /// `None` if there is no whole line.
    pub fn line(&mut self, arrived: usize, has_ended: bool) -> Option<&'a [u8]> {
        let rest = self.rest(arrived);
        let (line, ending) = match rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            Some(end) => (&rest[..end], Some(rest[end])),
            None if has_ended && !rest.is_empty() => (rest, None),
            None => return None,
        };
        self.at += line.len() + usize::from(ending.is_some());
        self.skips_line_feed = ending == Some(b'\r');
        Some(line)
    }

    /// As many of the next `size` bytes as have arrived.
    pub fn content(&mut self, size: u64, arrived: usize) -> &'a [u8] {
        if size == 0 {
            return &[]; // not even a pending line feed is looked at
        }
        let rest = self.rest(arrived);
        let content = &rest[..rest.len().min(usize::try_from(size).unwrap_or(usize::MAX))];
        self.at += content.len();
        content
    }

    /// What has arrived and is not read, without the end of the line before it.
    pub fn rest(&mut self, arrived: usize) -> &'a [u8] {
        if self.skips_line_feed && self.at < arrived {
            self.at += usize::from(self.stream[self.at] == b'\n');
            self.skips_line_feed = false;
        }
        &self.stream[self.at..arrived]
    }
}
