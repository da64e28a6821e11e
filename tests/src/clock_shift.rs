//! A wall clock that can be shifted for every process that is told of it, by a small library that is loaded before the C
//! library. Time since boot goes on as it does.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::preload;

/// The clock of some processes.
#[derive(Debug)]
pub struct ClockShift {
    library: PathBuf,
    shift: PathBuf,
}

impl ClockShift {
    /// A clock that is right so far; its files are in `folder`.
    ///
    /// # Errors
    /// If there is no C compiler, or the files cannot be written.
    pub fn prepare(folder: &Path) -> Result<ClockShift> {
        let clock = ClockShift { library: preload::build(folder)?, shift: folder.join("clock_shift") };
        clock.set(0)?;
        Ok(clock)
    }

    /// From now on the clock is so many seconds off.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn set(&self, seconds: i64) -> Result<()> {
        preload::tell(&self.shift, &seconds.to_string())
    }

    /// The variables of a process that has this clock.
    pub fn env(&self) -> [(String, String); 2] {
        [preload::variable(&self.library), ("NAQ_TEST_CLOCK_SHIFT".to_owned(), self.shift.display().to_string())]
    }
}
