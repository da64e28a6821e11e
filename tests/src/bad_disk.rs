//! A disk that is slow or full, or on which a process gets so far and dies, by a small library that is loaded before the C
//! library.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;

use crate::preload;

/// What is wrong with a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFault {
    /// Nothing.
    Nothing,
    /// Each sync takes so much longer; milliseconds count.
    Slow(Duration),
    /// No file can grow.
    Full,
}

/// The disk below the files whose paths begin with some text.
#[derive(Debug)]
pub struct BadDisk {
    library: PathBuf,
    fault: PathBuf,
    of: PathBuf,
}

impl BadDisk {
    /// A disk that is good so far, below the files whose paths begin with `of`; what it needs is in `folder`.
    ///
    /// # Errors
    /// If there is no C compiler, or the files cannot be written.
    pub fn prepare(folder: &Path, of: &Path) -> Result<BadDisk> {
        let disk = BadDisk { library: preload::build(folder)?, fault: folder.join("disk_fault"), of: of.to_owned() };
        disk.set(DiskFault::Nothing)?;
        Ok(disk)
    }

    /// From now on this is wrong.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn set(&self, fault: DiskFault) -> Result<()> {
        let words = match fault {
            DiskFault::Nothing => String::new(),
            DiskFault::Slow(longer) => format!("slow {}", longer.as_millis()),
            DiskFault::Full => "full".to_owned(),
        };
        preload::tell(&self.fault, &words)
    }

    /// The variables of a process that has this disk.
    pub fn env(&self) -> [(String, String); 3] {
        [
            preload::variable(&self.library),
            ("NAQ_TEST_DISK_OF".to_owned(), self.of.display().to_string()),
            ("NAQ_TEST_DISK_FAULT".to_owned(), self.fault.display().to_string()),
        ]
    }

    /// Beside them, for a process that shall be killed in place of its so-manieth change or sync of these files, counted from 1.
    pub fn kill_at(step: usize) -> (String, String) {
        ("NAQ_TEST_DISK_KILL_AT".to_owned(), step.to_string())
    }
}
