//! A stand-in for a power cut: what was written to some files and not synced is gone, by a small library that is loaded before
//! the C library. It models a disk that loses everything since a sync, and nothing of what came before.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::preload;

/// The disk below the files whose paths begin with some text.
#[derive(Debug)]
pub struct PowerCut {
    library: PathBuf,
    disk: PathBuf,
    of: PathBuf,
}

impl PowerCut {
    /// Of the files whose paths begin with `of`; what it needs is in `folder`.
    ///
    /// # Errors
    /// If there is no C compiler, or the files cannot be written.
    pub fn prepare(folder: &Path, of: &Path) -> Result<PowerCut> {
        let disk = folder.join("disk");
        fs::create_dir(&disk)?;
        let library = preload::build(folder)?;
        Ok(PowerCut { library, disk: disk.canonicalize()?, of: of.to_owned() })
    }

    /// The variables of a process whose writes shall be lost.
    pub fn env(&self) -> [(String, String); 3] {
        let text = |path: &Path| path.display().to_string();
        [
            preload::variable(&self.library),
            ("NAQ_TEST_DISK".to_owned(), text(&self.disk)),
            ("NAQ_TEST_DISK_OF".to_owned(), text(&self.of)),
        ]
    }

    /// Whatever the files hold now is on the disk.
    ///
    /// # Errors
    /// If the files cannot be read or written.
    pub fn settle(&self) -> Result<()> {
        self.replace(&self.disk, self.folder()?)
    }

    /// Leaves of the files what was synced. Every process that uses them must have been killed.
    ///
    /// # Errors
    /// If the files cannot be read or written.
    pub fn cut(&self) -> Result<()> {
        self.replace(self.folder()?, &self.disk)
    }

    fn folder(&self) -> Result<&Path> {
        self.of.parent().context("files are in a folder")
    }

    fn replace(&self, these: &Path, by: &Path) -> Result<()> {
        for name in self.names(these)? {
            fs::remove_file(these.join(name))?;
        }
        for name in self.names(by)? {
            fs::copy(by.join(&name), these.join(name))?;
        }
        Ok(())
    }

    /// The files in a folder that this is about.
    fn names(&self, folder: &Path) -> Result<Vec<String>> {
        let start = self.of.file_name().context("files have names")?.to_string_lossy();
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            // A copy that was not finished ends so.
            if name.starts_with(&*start) && !name.ends_with(".new") {
                names.push(name);
            }
        }
        Ok(names)
    }
}
