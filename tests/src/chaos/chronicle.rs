//! The harness's own part of the history: faults and deaths, numbered and told to whoever watches.

use std::{
    path::Path,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::faults::{Event, Recorder, Scope, Seen, now};

/// Writes down what the harness does.
#[derive(Debug)]
pub(super) struct Chronicle {
    recorder: Recorder,
    faults: AtomicU32,
    begun: Duration,
    /// The longest that writing a line took, milliseconds.
    slowest: AtomicU64,
}

impl Chronicle {
    pub(super) fn open(history: &Path) -> Result<Chronicle> {
        Ok(Chronicle {
            recorder: Recorder::open(history)?,
            faults: AtomicU32::new(0),
            begun: now(),
            slowest: AtomicU64::new(0),
        })
    }

    /// A fault is about to begin; its number.
    pub(super) fn fault(&self, name: &str, scope: Scope) -> Result<u32> {
        let fault = self.faults.fetch_add(1, Ordering::Relaxed);
        self.record(Event::Fault { fault, name: name.to_owned(), scope })?;
        self.say(&format!("{fault:>4}  {name}"));
        Ok(fault)
    }

    /// A fault has ended.
    pub(super) fn healed(&self, fault: u32) -> Result<()> {
        self.record(Event::Healed { fault })
    }

    pub(super) fn died(&self, process: u32) -> Result<()> {
        self.record(Event::Died { process })
    }

    pub(super) fn looked(&self, job: &str, seen: Seen) -> Result<()> {
        self.record(Event::Looked { job: job.to_owned(), seen })
    }

    pub(super) fn record(&self, event: Event) -> Result<()> {
        let begun = Instant::now();
        self.recorder.record(event)?;
        self.slowest.fetch_max(u64::try_from(begun.elapsed().as_millis())?, Ordering::Relaxed);
        Ok(())
    }

    /// The longest that it took to bring a line to the disk: how slow the machine is.
    pub(super) fn slowest(&self) -> Duration {
        Duration::from_millis(self.slowest.load(Ordering::Relaxed))
    }

    /// Tells whoever watches, with the seconds since the beginning.
    #[expect(clippy::print_stderr, reason = "who runs the harness watches it")]
    pub(super) fn say(&self, text: &str) {
        eprintln!("{:>8.1}  {text}", (now() - self.begun).as_secs_f64());
    }
}
