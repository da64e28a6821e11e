//! What programs write: bounded output, logged stderr with a kept tail, text as a result.
//!
//! Invariant: no reader holds more than its bound, and none waits longer than [`DRAIN`] for a pipe whose owner has ended
//! (a process that left the group may hold it open for ever).

use std::{pin::pin, time::Duration};

use naq_models::{JobError, RawJson, Timestamp, Verdict, error_type};
use naq_services::CancellationToken;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    time::sleep,
};

use super::STDERR_TAIL;

/// How long pipes are read after their process group has ended.
const DRAIN: Duration = Duration::from_millis(500);
/// A longer line of stderr is logged in pieces, in bytes.
const MAX_LINE: usize = 8 * 1024;
const CHUNK: usize = 16 * 1024;

/// The output is larger than the bound.
pub(super) struct TooLarge;

/// Reads to the end, or to [`DRAIN`] after `ended` fires.
pub(super) async fn read_bounded(
    mut stream: impl AsyncRead + Unpin,
    max: usize,
    ended: &CancellationToken,
) -> Result<Vec<u8>, TooLarge> {
    let mut output = Vec::new();
    let mut drained = pin!(drained(ended));
    loop {
        output.reserve(CHUNK);
        let read = tokio::select! {
            read = stream.read_buf(&mut output) => read,
            () = &mut drained => return Ok(output),
        };
        match read {
            Ok(0) | Err(_) => return Ok(output),
            Ok(_) if output.len() > max => return Err(TooLarge),
            Ok(_) => {}
        }
    }
}

async fn drained(ended: &CancellationToken) {
    ended.cancelled().await;
    sleep(DRAIN).await;
}

/// Logs stderr line by line and keeps its tail.
#[derive(Default)]
pub(super) struct Stderr {
    tail: Vec<u8>,
    line: Vec<u8>,
}

impl Stderr {
    /// Takes what was read and gives each line that is complete (or too long) to `log`.
    pub(super) fn take(&mut self, bytes: &[u8], log: &dyn Fn(&str)) {
        self.tail.extend_from_slice(bytes);
        if self.tail.len() > 2 * STDERR_TAIL {
            self.tail.drain(..self.tail.len() - STDERR_TAIL);
        }
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.line.len() >= MAX_LINE {
                self.flush(log);
            }
        }
    }

    /// Gives an unfinished line to `log`.
    pub(super) fn flush(&mut self, log: &dyn Fn(&str)) {
        let line = String::from_utf8_lossy(&self.line);
        let line = line.trim_end();
        if !line.is_empty() {
            log(line);
        }
        self.line.clear();
    }

    /// The last words, at most [`STDERR_TAIL`] bytes; `None` if there were none.
    pub(super) fn tail(&self) -> Option<String> {
        let start = self.tail.len().saturating_sub(STDERR_TAIL);
        let text = String::from_utf8_lossy(&self.tail[start..]);
        // A character cut in half at the front would be three bytes of replacement instead of one.
        let text = text.trim_start_matches('\u{fffd}').trim_end();
        if text.is_empty() { None } else { Some(text.to_owned()) }
    }

    /// Forgets what was said so far.
    pub(super) fn forget(&mut self) {
        self.tail.clear();
    }

    /// Reads a stream to its end, or to [`DRAIN`] after `ended` fires.
    pub(super) async fn follow(
        &mut self,
        mut stream: impl AsyncRead + Unpin,
        ended: &CancellationToken,
        log: &(dyn Fn(&str) + Send + Sync),
    ) {
        let mut chunk = vec![0; CHUNK];
        let mut drained = pin!(drained(ended));
        loop {
            let read = tokio::select! {
                read = stream.read(&mut chunk) => read,
                () = &mut drained => break,
            };
            match read {
                Ok(0) | Err(_) => break,
                Ok(n) => self.take(&chunk[..n], log),
            }
        }
        self.flush(log);
    }
}

/// Output as a result: JSON as it is, other text as a string, nothing as `null`.
pub(super) fn completed(output: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(output);
    let text = text.trim();
    if text.is_empty() {
        return Verdict::Complete(RawJson::null());
    }
    let value = RawJson::parse(text).or_else(|_| RawJson::from_value(text));
    Verdict::Complete(value.expect("a text is always JSON"))
}

/// An error that is stamped when its job is settled.
pub(super) fn error(error_type: impl Into<String>, message: impl Into<String>) -> JobError {
    JobError::new(error_type, message, Timestamp::EPOCH)
}

/// The verdict on output that is larger than the store takes.
pub(super) fn too_large(what: &str, max: usize) -> Verdict {
    let message = format!("{what} wrote more than {max} bytes, the most that a result may have");
    Verdict::Fail(error(error_type::RESULT_TOO_LARGE, message).permanent())
}

/// The verdict on a run that was stopped from outside. Who stopped it knows better what it means for the job.
pub(super) fn interrupted(what: &str) -> Verdict {
    Verdict::Error(error("interrupted", format!("{what} was stopped before it had ended")))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn lines_are_logged_whole_and_the_tail_is_bounded() {
        let lines = Mutex::new(Vec::new());
        let log = |line: &str| lines.lock().unwrap().push(line.to_owned());
        let mut stderr = Stderr::default();
        stderr.take(b"one\ntw", &log);
        stderr.take(b"o\r\n\nthree", &log);
        assert_eq!(*lines.lock().unwrap(), ["one", "two"]);
        stderr.flush(&log);
        assert_eq!(lines.lock().unwrap()[2], "three");
        for _ in 0..1000 {
            stderr.take("ü".repeat(100).as_bytes(), &log);
        }
        let tail = stderr.tail().unwrap();
        assert!(tail.len() <= STDERR_TAIL && tail.len() > STDERR_TAIL - 4 && tail.starts_with('ü'));
        assert!(lines.lock().unwrap().iter().all(|line| line.len() < MAX_LINE + 201));
    }

    #[test]
    fn output_is_json_or_text_or_null() {
        let value = |bytes: &[u8]| match completed(bytes) {
            Verdict::Complete(json) => json.get().to_owned(),
            other => panic!("{other:?}"),
        };
        assert_eq!(value(b" {\"a\": 1}\n"), "{\"a\": 1}");
        assert_eq!(value(b"done\n"), "\"done\"");
        assert_eq!(value(b"{\"a\": 1}\n{}"), "\"{\\\"a\\\": 1}\\n{}\"");
        assert_eq!(value(b" \n"), "null");
        assert_eq!(value(b"\xff"), "\"\u{fffd}\"");
    }
}
