//! The harness's own part of the history: faults and deaths, numbered and told to whoever watches.

use std::{
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::Result;

use crate::faults::{Event, Recorder, Scope, Seen, now};

/// Writes down what the harness does.
#[derive(Debug)]
pub(super) struct Chronicle {
    recorder: Recorder,
    faults: AtomicU32,
    begun: std::time::Duration,
}

impl Chronicle {
    pub(super) fn open(history: &Path) -> Result<Chronicle> {
        Ok(Chronicle { recorder: Recorder::open(history)?, faults: AtomicU32::new(0), begun: now() })
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
        Ok(self.recorder.record(event)?)
    }

    /// Tells whoever watches, with the seconds since the beginning.
    #[expect(clippy::print_stderr, reason = "who runs the harness watches it")]
    pub(super) fn say(&self, text: &str) {
        eprintln!("{:>8.1}  {text}", (now() - self.begun).as_secs_f64());
    }
}
