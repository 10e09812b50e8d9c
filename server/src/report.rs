//! Reports for people: one line for each check, with its result.

use std::io::{self, Write};

/// A report, line by line.
pub(crate) struct Report<'a> {
    lines: &'a mut (dyn Write + Send),
    all_ok: bool,
}

impl<'a> Report<'a> {
    /// Starts a report on this output.
    pub(crate) fn new(lines: &'a mut (dyn Write + Send)) -> Self {
        Self { lines, all_ok: true }
    }

    /// True if no line reports a failure.
    pub(crate) fn is_all_ok(&self) -> bool {
        self.all_ok
    }

    /// Writes a line: `ok` or `FAIL`, the subject, and the next step.
    pub(crate) fn line<E: std::fmt::Display>(&mut self, what: &str, result: Result<String, E>) -> io::Result<()> {
        self.value(what, result, String::clone).map(|_| ())
    }

    /// Writes a line and returns the value, which later checks need.
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
