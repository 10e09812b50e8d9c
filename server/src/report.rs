//! Reports for people: a line for each thing that was tried, which says if it works.

use std::io::{self, Write};

/// A report, line by line.
pub(crate) struct Report<'a> {
    lines: &'a mut (dyn Write + Send),
    all_ok: bool,
}

impl<'a> Report<'a> {
    /// A report on these lines.
    pub(crate) fn new(lines: &'a mut (dyn Write + Send)) -> Self {
        Self { lines, all_ok: true }
    }

    /// Returns true if no line told of a failure.
    pub(crate) fn is_all_ok(&self) -> bool {
        self.all_ok
    }

    /// Writes a line: `ok` or `FAIL`, what, and what to do next.
    pub(crate) fn line<E: std::fmt::Display>(&mut self, what: &str, result: Result<String, E>) -> io::Result<()> {
        self.value(what, result, String::clone).map(|_| ())
    }

    /// Writes a line and hands on the value that later checks need.
    pub(crate) fn value<T, E: std::fmt::Display>(
        &mut self,
        what: &str,
        result: Result<T, E>,
        describe: impl FnOnce(&T) -> String,
    ) -> io::Result<Option<T>> {
        match result {
            Ok(value) => {
                writeln!(self.lines, "ok    {what}: {}", describe(&value))?;
                Ok(Some(value))
            }
            Err(error) => {
                self.all_ok = false;
                writeln!(self.lines, "FAIL  {what}: {error}")?;
                Ok(None)
            }
        }
    }
}
