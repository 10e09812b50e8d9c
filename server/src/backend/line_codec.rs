//! Lines of bounded length. Returns only the beginning of a longer line, and skips the rest.

use std::io;

use tokio_util::bytes::{Buf, BytesMut};

use super::message::MAXIMUM_BYTES;

/// Length of the beginning of a line that is too long, in bytes. The beginning identifies the message.
const BEGINNING: usize = 4 * 1024;
/// Maximum number of bytes of a line that are skipped.
const LONGEST: usize = 8 * MAXIMUM_BYTES;

/// A line without its line end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A complete line.
    Whole(BytesMut),
    /// The beginning of a line that is longer than a message may be.
    TooLong(BytesMut),
}

/// Finds lines. A line that does not end is an error.
#[derive(Default)]
pub(super) struct LineCodec {
    /// Number of bytes at the beginning of the buffer that contain no line end.
    searched: usize,
    /// Number of bytes that were skipped of the current line. Absent if the line is not skipped.
    passed_over: Option<usize>,
}

impl LineCodec {
    /// Skips the rest of a line. Returns true at its end.
    fn pass_over(&mut self, buffer: &mut BytesMut, passed: usize) -> io::Result<bool> {
        if let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            buffer.advance(end + 1);
            self.passed_over = None;
            return Ok(true);
        }
        let passed = passed.saturating_add(buffer.len());
        buffer.clear();
        self.passed_over = Some(passed);
        if passed > LONGEST { Err(io::ErrorKind::InvalidData.into()) } else { Ok(false) }
    }

    /// Takes the next line out of the buffer. Returns `None` if it has no end yet.
    ///
    /// # Errors
    /// If a line does not end.
    pub(super) fn decode(&mut self, buffer: &mut BytesMut) -> io::Result<Option<Line>> {
        if let Some(passed) = self.passed_over
            && !self.pass_over(buffer, passed)?
        {
            return Ok(None);
        }
        let end = buffer.iter().skip(self.searched).position(|byte| *byte == b'\n').map(|end| self.searched + end);
        self.searched = buffer.len();
        match end {
            Some(end) if end <= MAXIMUM_BYTES => {
                let line = buffer.split_to(end);
                buffer.advance(1);
                self.searched = 0;
                Ok(Some(Line::Whole(line)))
            }
            None if buffer.len() <= MAXIMUM_BYTES => Ok(None),
            _ => {
                self.searched = 0;
                self.passed_over = Some(0);
                Ok(Some(Line::TooLong(buffer.split_to(BEGINNING))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the lines in these pieces. A long line is replaced by its length.
    fn lines(pieces: &[&[u8]]) -> io::Result<Vec<String>> {
        let (mut codec, mut buffer, mut all) = (LineCodec::default(), BytesMut::new(), vec![]);
        for piece in pieces {
            buffer.extend_from_slice(piece);
            while let Some(line) = codec.decode(&mut buffer)? {
                all.push(match line {
                    Line::Whole(line) if line.len() > BEGINNING => line.len().to_string(),
                    Line::Whole(line) => String::from_utf8(line.to_vec()).unwrap(),
                    Line::TooLong(beginning) => format!("too long: {}", String::from_utf8_lossy(&beginning[..2])),
                });
            }
        }
        Ok(all)
    }

    #[test]
    fn lines_are_found_in_pieces_of_any_size() {
        let whole: &[u8] = b"one\n\ntwo\r\nthree";
        let expected = ["one", "", "two\r"];
        assert_eq!(lines(&[whole]).unwrap(), expected);
        assert_eq!(lines(&Vec::from_iter(whole.chunks(1))).unwrap(), expected);
    }

    #[test]
    fn a_line_that_is_too_long_is_reported_once_and_its_neighbours_are_complete() {
        let (longest, more) = (vec![b'x'; MAXIMUM_BYTES], vec![b'x'; 3 * MAXIMUM_BYTES]);
        let expected = [&MAXIMUM_BYTES.to_string(), "b", "too long: xx", "a"];
        assert_eq!(lines(&[&longest, b"\nb\n", &longest, &more, b"y\na\n"]).unwrap(), expected);
        assert_eq!(lines(&[&[longest.as_slice(), b"x\na\nb\n"].concat()]).unwrap(), ["too long: xx", "a", "b"]);
    }

    #[test]
    fn a_line_without_an_end_is_an_error() {
        let piece = vec![b'x'; MAXIMUM_BYTES];
        assert!(lines(&[piece.as_slice(); 12]).is_err());
    }
}
