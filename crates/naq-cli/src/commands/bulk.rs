//! `naq job enqueue --from`: many envelopes, one a line.
//!
//! Invariant: lines are stored in the order of the file, in batches of bounded size; a bad line is named by its number
//! and does not stop the others; the exit code says whether every line was stored.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal},
};

use indicatif::{ProgressBar, ProgressStyle};
use naq_models::OnConflict;
use naq_services::{JobService, jobs::Submission};
use serde::Serialize;

use crate::{
    args::BulkSource,
    error::{CliError, with_sources},
    output::{Output, note},
};

/// Jobs a batch: large enough for the stores' bulk paths, small enough to hold in memory at their largest.
const BATCH: usize = 1_000;
/// The longest line read, in bytes.
const MAX_LINE: usize = 16 * 1024 * 1024;
/// Errors that are shown; the others are only counted.
const SHOWN_ERRORS: u64 = 20;

/// What became of the lines.
#[derive(Debug, Default, Serialize)]
struct Report {
    enqueued: u64,
    duplicates: u64,
    failed: u64,
}

pub(super) async fn run(
    jobs: &JobService,
    out: Output,
    source: &BulkSource,
    on_conflict: OnConflict,
) -> Result<(), CliError> {
    let (mut input, size): (Box<dyn BufRead>, Option<u64>) = match source {
        BulkSource::Stdin => (Box::new(BufReader::new(io::stdin())), None),
        BulkSource::File(path) => {
            let fail = |e: io::Error| CliError::usage(format!("cannot read {}: {e}", path.display()));
            let file = File::open(path).map_err(fail)?;
            let size = file.metadata().map_err(fail)?.len();
            (Box::new(BufReader::new(file)), Some(size))
        }
    };
    let bar = progress(size);
    let mut report = Report::default();
    let (mut number, mut batch, mut line) = (0u64, Vec::new(), Vec::new());
    // What was read before a file that fails is stored all the same.
    let failure = loop {
        match read_line(&mut input, &mut line) {
            Ok(0) => break None,
            Ok(read) => bar.inc(read),
            Err(e) => break Some(CliError::failed(format!("line {}: cannot be read: {e}", number + 1))),
        }
        number += 1;
        let text = line.trim_ascii();
        if line.len() > MAX_LINE {
            report.refuse(&bar, number, &format!("it is longer than {MAX_LINE} bytes"));
        } else if !text.is_empty() {
            match jobs.read_submission(text) {
                Ok(job) => batch.push((number, Submission { job, on_conflict })),
                Err(error) => report.refuse(&bar, number, &with_sources(&error)),
            }
        }
        if batch.len() == BATCH {
            store(jobs, &bar, &mut report, std::mem::take(&mut batch)).await;
        }
    };
    store(jobs, &bar, &mut report, batch).await;
    bar.finish_and_clear();
    let Report { enqueued, duplicates, failed } = report;
    out.one(&report, || format!("{enqueued} enqueued, {duplicates} were there before, {failed} failed"))?;
    match failure {
        Some(failure) => Err(failure),
        None if failed > 0 => Err(CliError::failed(format!("{failed} of {number} lines were not enqueued"))),
        None => Ok(()),
    }
}

/// Reads a line, with its end, and says how many bytes it has; 0 at the end of the input. Of one that is too long, no more
/// is kept than shows it.
fn read_line(input: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<u64> {
    line.clear();
    let mut read = 0;
    loop {
        let available = match input.fill_buf() {
            Ok(available) => available,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        let end = available.iter().position(|byte| *byte == b'\n');
        let length = end.map_or(available.len(), |end| end + 1);
        let room = MAX_LINE + 1 - line.len();
        line.extend_from_slice(&available[..length.min(room)]);
        input.consume(length);
        read += length as u64;
        if end.is_some() || length == 0 {
            return Ok(read);
        }
    }
}

async fn store(jobs: &JobService, bar: &ProgressBar, report: &mut Report, batch: Vec<(u64, Submission)>) {
    let (numbers, batch): (Vec<u64>, Vec<Submission>) = batch.into_iter().unzip();
    for (number, outcome) in numbers.into_iter().zip(jobs.enqueue_raw_many(batch).await) {
        match outcome {
            Ok(receipt) if receipt.duplicate => report.duplicates += 1,
            Ok(_) => report.enqueued += 1,
            Err(error) => report.refuse(bar, number, &with_sources(&error)),
        }
    }
}

impl Report {
    fn refuse(&mut self, bar: &ProgressBar, number: u64, why: &str) {
        self.failed += 1;
        if self.failed <= SHOWN_ERRORS {
            bar.suspend(|| note(&format!("line {number}: {why}")));
        } else if self.failed == SHOWN_ERRORS + 1 {
            bar.suspend(|| note("further errors are only counted"));
        }
    }
}

/// A bar over the bytes of a file, or a counter; hidden where nobody watches.
fn progress(size: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    match size {
        Some(size) => ProgressBar::new(size).with_style(
            ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {eta}").expect("a fixed template"),
        ),
        None => ProgressBar::new_spinner(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_read_whatever_stands_in_those_before() {
        let long = vec![b'x'; 2 * MAX_LINE];
        let text = [&b"one\n\xff\xfe\n\n"[..], &long, b"\ntwo\r\nlast"].concat();
        let (mut input, mut line, mut lines) = (text.as_slice(), Vec::new(), Vec::new());
        let mut bytes = 0;
        loop {
            match read_line(&mut input, &mut line).unwrap() {
                0 => break,
                read => bytes += read,
            }
            lines.push(line.clone());
        }
        assert_eq!(bytes, text.len() as u64);
        assert_eq!(lines[3].len(), MAX_LINE + 1, "enough to see that it is too long");
        lines.remove(3);
        assert_eq!(lines, [&b"one\n"[..], b"\xff\xfe\n", b"\n", b"two\r\n", b"last"]);
    }
}
