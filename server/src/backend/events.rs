//! Reader of messages in an event stream (WHATWG HTML, section 9.2.6), with bounded memory.
//!
//! The library for event streams ends a stream at an unknown field, and at a field without a colon. Servers may write
//! both, and readers must ignore them.

use super::error::BackendError;
use super::message::MAXIMUM_MIB;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads a stream piece by piece.
pub(super) struct Events {
    /// Maximum length of an event, in bytes.
    longest: usize,
    /// The incomplete line.
    line: Vec<u8>,
    /// Data of the incomplete event. Each line has its line end.
    data: Vec<u8>,
    /// True after a line that ended with CR. A following LF belongs to the same line end.
    after_return: bool,
    /// True after the first line. Only the first line may begin with a byte order mark.
    has_begun: bool,
}

impl Events {
    /// Returns a reader at the beginning of a stream. `longest` is the maximum length of an event, in bytes.
    pub(super) fn new(longest: usize) -> Self {
        Self { longest, line: Vec::new(), data: Vec::new(), after_return: false, has_begun: false }
    }

    /// Returns the number of bytes of the incomplete event.
    pub(super) fn len(&self) -> usize {
        self.line.len() + self.data.len()
    }

    /// Takes the next bytes of the stream, up to the end of an event that has data. Returns the number of bytes
    /// taken, and that data.
    ///
    /// # Errors
    /// If an event is too long.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(usize, Option<Vec<u8>>), BackendError> {
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            if std::mem::take(&mut self.after_return) && rest.starts_with(b"\n") {
                taken += 1;
                continue;
            }
            let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let (line, _) = rest.split_at(end.unwrap_or(rest.len()));
            if self.len() + line.len() > self.longest {
                return Err(BackendError::TooLarge(MAXIMUM_MIB));
            }
            self.line.extend_from_slice(line);
            taken += line.len();
            if let Some(end) = end {
                self.after_return = rest.get(end) == Some(&b'\r');
                taken += 1;
                if let Some(data) = self.end_line() {
                    return Ok((taken, Some(data)));
                }
            }
        }
        Ok((taken, None))
    }

    /// Reads the complete line. Returns the data of the event that this line ends, if there is any.
    fn end_line(&mut self) -> Option<Vec<u8>> {
        let line = std::mem::take(&mut self.line);
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        let line = line.strip_prefix(BYTE_ORDER_MARK).filter(|_| is_first).unwrap_or(&line);
        if line.is_empty() {
            let mut data = std::mem::take(&mut self.data);
            data.pop();
            return Some(data).filter(|data| !data.is_empty());
        }
        if let Some(value) = line.strip_prefix(b"data:") {
            self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
            self.data.push(b'\n');
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::MAXIMUM_BYTES;
    use super::*;

    /// Returns the data of all events in these pieces.
    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let (mut events, mut all) = (Events::new(MAXIMUM_BYTES), vec![]);
        for mut piece in pieces {
            while !piece.is_empty() {
                let (taken, data) = events.take(piece).unwrap();
                all.extend(data.map(|data| String::from_utf8(data).unwrap()));
                piece = &piece[taken..];
            }
        }
        all
    }

    #[test]
    fn a_stream_is_read_the_same_in_pieces_of_any_size() {
        let text = "\u{feff}data: a\r\n\r\n: comment\nid: 1\ndata\nunknown: b\ndataset: b\ndata : b\nretry: soon\ndata:{\"é\":\rdata: 1}\r\r\
                    event: message\ndata:  c\n\n\n\ndata:\n\ndata: unfinished\n";
        let expected = ["a", "{\"é\":\n1}", " c"];
        assert_eq!(read([text.as_bytes()]), expected);
        assert_eq!(read(text.as_bytes().chunks(1)), expected);
        assert_eq!(read(text.as_bytes().chunks(3)), expected);
    }

    #[test]
    fn an_event_that_is_longer_than_a_message_is_refused_and_one_that_is_not_is_read() {
        let piece = vec![b'x'; MAXIMUM_BYTES / 2];
        for (begin, line_end) in [("data: ", ""), ("data: ", "\ndata: "), (": ", "")] {
            let mut events = Events::new(MAXIMUM_BYTES);
            let mut take = |bytes: &[u8]| events.take(bytes).map(|_| ());
            take(begin.as_bytes()).unwrap();
            take(&piece).unwrap();
            take(line_end.as_bytes()).unwrap();
            assert!(matches!(take(&piece), Err(BackendError::TooLarge(_))), "{begin} {line_end:?}");
        }
        let (begin, end): (&[u8], &[u8]) = (b"data: ", b"\n\n");
        assert_eq!(read([begin, piece.as_slice(), end, begin, piece.as_slice(), end]).len(), 2);
    }
}
