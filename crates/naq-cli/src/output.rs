//! What goes to standard output: tables for people, JSON for programs.
//!
//! Invariant: with `--output json` standard output holds JSON and nothing else; notes and hints go to standard error. A
//! reader that closes the pipe ends the program quietly. No control character of a job's reaches a terminal.

use std::{
    borrow::Cow,
    io::{self, IsTerminal, Write},
};

use comfy_table::{Cell, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::{args::OutputFormat, error::CliError};

/// Where a command prints.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    format: OutputFormat,
}

impl Output {
    /// Prints in this format.
    #[must_use]
    pub fn new(format: OutputFormat) -> Self {
        Self { format }
    }

    /// Whether programs read this.
    #[must_use]
    pub fn is_json(self) -> bool {
        self.format == OutputFormat::Json
    }

    /// Prints one JSON value, or the text for people.
    ///
    /// # Errors
    /// If standard output cannot be written to.
    pub fn one<T: Serialize>(self, value: &T, text: impl FnOnce() -> String) -> Result<(), CliError> {
        if self.is_json() { self.json(value) } else { line(&text()) }
    }

    /// Prints a list: one JSON array, or a table; an empty table is said in words.
    ///
    /// # Errors
    /// If standard output cannot be written to.
    pub fn list<T: Serialize, const N: usize>(
        self,
        items: &[T],
        head: [&str; N],
        row: impl Fn(&T) -> [String; N],
        empty: &str,
    ) -> Result<(), CliError> {
        if self.is_json() {
            return self.json(&items);
        }
        if items.is_empty() {
            return line(empty);
        }
        line(&table(head, items.iter().map(row)))
    }

    fn json<T: Serialize>(self, value: &T) -> Result<(), CliError> {
        let text = serde_json::to_string(value).map_err(|e| CliError::failed(format!("cannot write JSON: {e}")))?;
        raw(&text)
    }

    /// A remark for people, on standard error; silent for programs.
    pub fn note(self, text: &str) {
        if !self.is_json() {
            note(text);
        }
    }
}

/// A table without frames, as wide as the terminal.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table.set_header(head.map(|name| Cell::new(name.to_uppercase())));
    for row in rows {
        table.add_row(row);
    }
    table.lines().map(|line| line.trim_end().trim_start().to_owned()).collect::<Vec<_>>().join("\n")
}

/// Writes one text for people and a newline to standard output.
///
/// # Errors
/// As [`raw`].
pub(crate) fn line(text: &str) -> Result<(), CliError> {
    raw(&harmless(text))
}

/// A text as a terminal may get it: error messages are what handlers and those who enqueue make of them, and a control
/// character could change what stands on the screen.
fn harmless(text: &str) -> Cow<'_, str> {
    let is_harmful = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_harmful(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

/// Writes one text and a newline to standard output, as it is.
///
/// # Errors
/// If it cannot be written to. A closed pipe ends the process with exit code 0: the reader has seen enough.
pub(crate) fn raw(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other.map_err(|e| CliError::failed(format!("cannot write to standard output: {e}"))),
    }
}

/// Writes one line to standard error.
pub(crate) fn note(text: &str) {
    // Nobody is left to be told if standard error is closed.
    let _closed = writeln!(io::stderr().lock(), "{}", harmless(text));
}
