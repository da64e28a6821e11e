//! [`LogFile`]: a file that is rotated by size.
//!
//! Invariant: a line is in exactly one file, and whole. Several processes may write to one file: each looks, under a lock
//! that it shares with the other writers, whether the file is still the one of that name, so that a rotation by any of
//! them, or by another program, moves all of them on. What a killed process has cut is ended by a line break.

use std::{
    fs::{self, File, Metadata, Permissions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    rotated::{Keep, Keeper, free_name},
    target::{Plain, Target, Unwritten, piece, write_pieces},
};

/// How long a file may grow after it could not be rotated.
const ROTATE_AGAIN: Duration = Duration::from_secs(60);
/// How often a file is opened anew that others move away.
const ENTER_TRIES: usize = 100;

/// A log file.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    /// Device and number.
    identity: (u64, u64),
    is_torn: bool,
    max_size: u64,
    keeper: Keeper,
    rotate_after: Option<Instant>,
}

/// Opens a target by its path: a file that is rotated, or a pipe or device that is only written to.
pub(super) fn open(path: &Path, max_size: u64, keep: Keep) -> io::Result<Box<dyn Target>> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            // A named pipe that is opened for writing only would wait for its reader.
            let device = File::options().read(metadata.file_type().is_fifo()).append(true).open(path)?;
            Ok(Box::new(Plain::new(device)))
        }
        _ => {
            let (file, identity) = open_file(path, None)?;
            let keeper = Keeper::start(path.to_owned(), keep)?;
            let path = path.to_owned();
            Ok(Box::new(LogFile { path, file, identity, is_torn: false, max_size, keeper, rotate_after: None }))
        }
    }
}

/// Opens or creates the file, and ends a line that is cut.
fn open_file(path: &Path, permissions: Option<Permissions>) -> io::Result<(File, (u64, u64))> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = File::options().create(true).read(true).append(true).open(path)?;
    // Alone, because a line that another process is about to write would look cut.
    file.lock()?;
    let metadata = file.metadata()?;
    if metadata.len() > 0 {
        let mut last = [0];
        file.read_exact_at(&mut last, metadata.len() - 1)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    } else if let Some(permissions) = permissions {
        file.set_permissions(permissions)?;
    }
    file.unlock()?;
    Ok((file, identity(&metadata)))
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

impl Target for LogFile {
    fn write_lines(&mut self, lines: &[u8]) -> Result<(), Unwritten> {
        let mut written = 0;
        while written < lines.len() {
            let step = self.write_some(&lines[written..]);
            written += step.map_err(|failed| Unwritten { written: written + failed.written, ..failed })?;
        }
        Ok(())
    }
}

impl LogFile {
    /// Writes as many lines as fit; how many bytes that were. None, if the file was full and is a new one now.
    fn write_some(&mut self, lines: &[u8]) -> Result<usize, Unwritten> {
        let nothing = |error| Unwritten { written: 0, error };
        let size = self.enter().map_err(nothing)?;
        let is_due = self.rotate_after.is_none_or(|at| Instant::now() >= at);
        let room = if is_due { self.max_size.saturating_sub(size) } else { u64::MAX };
        let mut end = piece(lines, usize::try_from(room).unwrap_or(usize::MAX));
        if end as u64 > room {
            if size > 0 {
                self.file.unlock().map_err(nothing)?;
                self.rotate();
                return Ok(0);
            }
            // A line that is larger than a file may be has one for itself.
            end = piece(lines, 1);
        }
        let outcome = write_pieces(&mut self.file, &mut self.is_torn, size, &lines[..end]);
        self.file.unlock().map_err(|error| Unwritten { written: end, error })?;
        outcome.map(|()| end)
    }

    /// Takes the lock that writers share, on the file that has the log's name now; its size.
    fn enter(&mut self) -> io::Result<u64> {
        for _ in 0..ENTER_TRIES {
            self.file.lock_shared()?;
            let named = fs::metadata(&self.path).map(|metadata| identity(&metadata));
            if named.ok() == Some(self.identity) {
                return Ok(self.file.metadata()?.len());
            }
            // Moved or removed. The lock goes with the file.
            (self.file, self.identity) = open_file(&self.path, None)?;
            self.is_torn = false;
        }
        Err(io::Error::other("the log file is moved away faster than it can be written to"))
    }

    /// Moves the file out of the way and begins a new one. If that is not possible, the file grows on.
    fn rotate(&mut self) {
        match self.try_rotate() {
            Ok(()) => {
                self.rotate_after = None;
                self.keeper.nudge();
            }
            Err(error) => {
                self.rotate_after = Some(Instant::now() + ROTATE_AGAIN);
                tracing::warn!(log = %self.path.display(), %error, "the log file could not be rotated and grows on");
            }
        }
    }

    fn try_rotate(&mut self) -> io::Result<()> {
        // Nobody writes to it, or moves it, meanwhile.
        self.file.lock()?;
        let metadata = self.file.metadata()?;
        let named = fs::metadata(&self.path).map(|metadata| identity(&metadata));
        let moved = if named.ok() == Some(self.identity) {
            fs::rename(&self.path, free_name(&self.path, super::host_time()))
        } else {
            Ok(())
        };
        self.file.unlock()?;
        moved?;
        (self.file, self.identity) = open_file(&self.path, Some(metadata.permissions()))?;
        self.is_torn = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, io::Read as _, os::unix::fs::PermissionsExt as _, thread};

    use flate2::read::GzDecoder;

    use super::*;

    const KEEP_ALL: Keep = Keep { count: usize::MAX, age: Duration::MAX };

    /// The lines of every file in the folder, and how many files there are. Compressing may go on meanwhile.
    fn all_lines(folder: &Path) -> (Vec<String>, usize) {
        let (mut text, mut files) = (String::new(), 0);
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "gz") {
                GzDecoder::new(File::open(path).unwrap()).read_to_string(&mut text).unwrap();
            } else {
                File::open(path).unwrap().read_to_string(&mut text).unwrap();
            }
            files += 1;
        }
        (text.lines().map(str::to_owned).collect(), files)
    }

    /// Waits until every rotated file is compressed.
    fn settle(folder: &Path) {
        let deadline = Instant::now() + Duration::from_secs(20);
        let is_settled = || {
            let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.into_iter().all(|name| name == "naq.log" || name.ends_with(".gz"))
        };
        while !is_settled() {
            assert!(Instant::now() < deadline, "not compressed in time");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn several_writers_rotate_one_log_and_lose_no_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("naq.log");
        // Each opens the file anew, as processes do: locks belong to an open file.
        thread::scope(|scope| {
            for writer in 0..4 {
                let mut log = open(&path, 10_000, KEEP_ALL).unwrap();
                scope.spawn(move || {
                    for batch in 0..100 {
                        let lines: String =
                            (0..10).map(|line| format!("{writer} {batch} {line} {:050}\n", 0)).collect();
                        log.write_lines(lines.as_bytes()).unwrap();
                    }
                });
            }
        });
        // The keepers ended with their logs; this one does what they left.
        let _log = open(&path, 10_000, KEEP_ALL).unwrap();
        settle(folder.path());
        let (lines, files) = all_lines(folder.path());
        assert_eq!(lines.len(), 4000);
        assert_eq!(lines.iter().collect::<BTreeSet<_>>().len(), 4000, "each once");
        assert!(files >= 4000 * 58 / 10_000, "{files} files");
        assert!(fs::metadata(&path).unwrap().len() <= 10_000);
    }

    #[test]
    fn a_cut_line_and_a_moved_file_cost_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/naq.log");
        fs::create_dir(folder.path().join("logs")).unwrap();
        fs::write(&path, "whole\ncut").unwrap();
        let mut log = open(&path, 1 << 20, KEEP_ALL).unwrap();
        log.write_lines(b"next\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole\ncut\nnext\n");
        fs::rename(&path, folder.path().join("moved")).unwrap();
        log.write_lines(b"after a move\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "after a move\n");
        fs::remove_dir_all(folder.path().join("logs")).unwrap();
        log.write_lines(b"after a removal\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "after a removal\n");
    }

    #[test]
    fn a_file_that_nobody_else_may_read_stays_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("naq.log");
        fs::write(&path, "secret\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let mut log = open(&path, 10, KEEP_ALL).unwrap();
        log.write_lines(b"a line that is longer than a file may be\nshort\n").unwrap();
        settle(folder.path());
        let mut files = 0;
        for entry in fs::read_dir(folder.path()).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
            files += 1;
        }
        assert_eq!(files, 3);
        assert_eq!(fs::read_to_string(&path).unwrap(), "short\n");
    }
}
