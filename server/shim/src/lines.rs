//! Splits the bytes of a program's standard error into lines that are safe to log: bounded, and without control characters.

/// Maximum number of bytes of a line. With its prefix and suffix it is less than `PIPE_BUF` (pipe(7)), so that lines of
/// several concurrent processes do not mix.
const MOST_BYTES: usize = 4000;

/// Mark of a shortened line.
const CUT: &str = " … (cut)";

/// Current line.
#[derive(Default)]
pub(crate) struct Lines {
    begun: Vec<u8>,
    /// True if bytes of the line were left out.
    cut: bool,
}

impl Lines {
    /// Takes more bytes, and passes on the lines that end in them.
    pub(crate) fn push(&mut self, bytes: &[u8], mut take: impl FnMut(String)) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
            let kept = text.len().min(MOST_BYTES - self.begun.len());
            self.begun.extend(text.iter().take(kept));
            self.cut |= kept < text.len();
            if ends {
                take(self.end());
            }
        }
    }

    /// Passes on the rest after the last end of a line, unless it is empty.
    pub(crate) fn finish(mut self, take: impl FnOnce(String)) {
        if !self.begun.is_empty() {
            take(self.end());
        }
    }

    fn end(&mut self) -> String {
        let line = String::from_utf8_lossy(self.begun.strip_suffix(b"\r").unwrap_or(&self.begun));
        let mut safe = String::with_capacity(line.len());
        for character in line.chars() {
            let whole = safe.len();
            if character.is_control() && character != '\t' {
                safe.extend(character.escape_default());
            } else {
                safe.push(character);
            }
            if safe.len() > MOST_BYTES {
                safe.truncate(whole);
                self.cut = true;
                break;
            }
        }
        if self.cut {
            safe.push_str(CUT);
        }
        self.begun.clear();
        self.cut = false;
        safe
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for chunk in chunks {
            lines.push(chunk, |line| found.push(line));
        }
        lines.finish(|line| found.push(line));
        found
    }

    #[test]
    fn lines_are_assembled_and_the_last_needs_no_end() {
        assert_eq!(lines(&[b"a\r\nb", b"c\n\n", b"\td"]), ["a", "bc", "", "\td"]);
        assert_eq!(lines(&[b"a\n"]), ["a"]);
    }

    #[test]
    fn control_characters_and_invalid_bytes_are_replaced() {
        assert_eq!(lines(&[b"\x1b[31mred\0\xff\xc2\x85\n"]), ["\\u{1b}[31mred\\u{0}\u{fffd}\\u{85}"]);
        assert_eq!(lines(&["grün\n".as_bytes()]), ["grün"]);
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_and_says_so_and_the_next_is_whole() {
        let (whole, over) = ("x".repeat(MOST_BYTES), "x".repeat(MOST_BYTES + 7));
        let found = lines(&[whole.as_bytes(), b"\n", over.as_bytes(), b"y\nnext\n"]);
        assert_eq!(found, [whole.clone(), format!("{whole} … (cut)"), "next".to_owned()]);
        // The length of replaced characters counts in their written form.
        let found = lines(&[&[0; MOST_BYTES], b"\n"]);
        assert_eq!(found, [format!("{} … (cut)", "\\u{0}".repeat(MOST_BYTES / 5))]);
    }
}
