//! Rotated log files: their names, and what becomes of them: compressed, and removed by number and by age.
//!
//! Invariant: only files of exactly the names that [`free_name`] gives are touched. A file is removed after its compressed
//! form is on the disk, and compressed after the last process has stopped writing to it. Several processes may do this in
//! one folder at a time.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use naq_models::Timestamp;

/// How often the age of rotated files is looked at, beside each rotation.
const LOOK_EVERY: Duration = Duration::from_secs(3600);
const COMPRESSED: &str = ".gz";
/// What is not finished yet.
const PART: &str = ".gz.part";

/// How many rotated files are kept, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keep {
    pub(super) count: usize,
    pub(super) age: Duration,
}

/// A thread of its own: compressing takes longer than lines can wait.
pub(super) struct Keeper {
    nudge: SyncSender<()>,
}

impl Keeper {
    /// Looks at the rotated files of a log at once, at each [`nudge`](Self::nudge), and from time to time. Ends when the
    /// keeper is dropped; what it leaves half done, the next process does.
    pub(super) fn start(log: PathBuf, keep: Keep) -> io::Result<Self> {
        let (nudge, nudged) = sync_channel(1);
        thread::Builder::new().name("naq-log-keeper".to_owned()).spawn(move || look_after(&log, keep, &nudged))?;
        Ok(Self { nudge })
    }

    /// The log was rotated.
    pub(super) fn nudge(&self) {
        // A full channel means that it will look anyway.
        let _will_look = self.nudge.try_send(());
    }
}

fn look_after(log: &Path, keep: Keep, nudged: &Receiver<()>) {
    loop {
        if let Err(error) = tidy(log, keep, super::host_time()) {
            tracing::warn!(log = %log.display(), %error, "rotated log files could not be compressed or removed");
        }
        if nudged.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

/// A name that no rotated file of this log has: the log's own, and the time.
pub(super) fn free_name(log: &Path, mut now: Timestamp) -> PathBuf {
    loop {
        let name = named(log, now);
        let taken = [name.clone(), with_suffix(&name, COMPRESSED)].iter().any(|path| path.exists());
        if !taken {
            return name;
        }
        now = now.saturating_add(Duration::from_millis(1));
    }
}

fn named(log: &Path, time: Timestamp) -> PathBuf {
    with_suffix(log, &format!(".{}", time.to_string().replace(':', "-")))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The time in the name of a rotated file, of any of its forms.
fn time_of(log_name: &str, name: &str) -> Option<Timestamp> {
    let rest = name.strip_prefix(log_name)?.strip_prefix('.')?;
    let text = rest.strip_suffix(PART).or_else(|| rest.strip_suffix(COMPRESSED)).unwrap_or(rest);
    let (date, time) = text.split_once('T')?;
    let time: Timestamp = format!("{date}T{}", time.replace('-', ":")).parse().ok()?;
    // What reads as a time but would be written otherwise is a stranger's.
    (time.to_string().replace(':', "-") == text).then_some(time)
}

/// Removes what is too old or too many, compresses the rest. Goes on after an error and returns the first.
fn tidy(log: &Path, keep: Keep, now: Timestamp) -> io::Result<()> {
    let Some(log_name) = log.file_name().and_then(|name| name.to_str()) else { return Ok(()) };
    let folder = log.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut rotated: BTreeMap<Reverse<Timestamp>, Vec<PathBuf>> = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if let Some(time) = entry.file_name().to_str().and_then(|name| time_of(log_name, name)) {
            rotated.entry(Reverse(time)).or_default().push(entry.path());
        }
    }
    let mut outcome = Ok(());
    for (place, (Reverse(time), paths)) in rotated.into_iter().enumerate() {
        let done = if place >= keep.count || now.since(time) >= keep.age {
            paths.iter().try_for_each(|path| gone(fs::remove_file(path)))
        } else {
            compress(&named(log, time))
        };
        outcome = outcome.and(done);
    }
    outcome
}

/// Another process may have been faster.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Compresses one file, if it is still there and nobody else is at it.
fn compress(plain: &Path) -> io::Result<()> {
    let mut source = match File::open(plain) {
        Ok(source) => source,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    // Whoever still writes to it holds a lock, and looks at the log's name before the next line.
    source.lock()?;
    source.unlock()?;
    let part = with_suffix(plain, PART);
    let target = File::options().create(true).write(true).truncate(false).open(&part)?;
    if target.try_lock().is_err() {
        // Another process compresses it.
        return Ok(());
    }
    if !plain.exists() {
        // Another process has, and what was just opened is not wanted.
        return gone(fs::remove_file(&part));
    }
    target.set_len(0)?;
    target.set_permissions(source.metadata()?.permissions())?;
    // Jobs need the processor more than the disk needs the space.
    let mut encoder = GzEncoder::new(target, Compression::fast());
    io::copy(&mut source, &mut encoder)?;
    // Locked until it is closed, and that is after the plain file is gone.
    let target = encoder.finish()?;
    target.sync_all()?;
    gone(fs::rename(&part, with_suffix(plain, COMPRESSED)))?;
    gone(fs::remove_file(plain))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn rotated_files_are_compressed_and_go_by_age_and_number() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("naq.log");
        let now: Timestamp = "2026-11-22T09:15:01.123Z".parse().unwrap();
        for days in [1, 2, 3, 40] {
            fs::write(free_name(&log, now.saturating_sub(DAY * days)), format!("{days}\n").repeat(1000)).unwrap();
        }
        let strangers = [
            "naq.log",
            "naq.log.1",
            "naq.log.2026-01-01",
            "naq.log.2026-01-01T00-00-00.000Z.bak",
            "naq.log.2026-01-01T00-00-00Z",
            "other.log.2026-01-01T00-00-00.000Z",
        ];
        for stranger in strangers {
            fs::write(folder.path().join(stranger), "keep\n").unwrap();
        }
        // What a process left that died while it compressed.
        fs::write(folder.path().join("naq.log.2026-11-21T09-15-01.123Z.gz.part"), "half").unwrap();
        fs::write(folder.path().join("naq.log.2026-09-01T00-00-00.000Z.gz.part"), "half").unwrap();

        tidy(&log, Keep { count: 10, age: 30 * DAY }, now).unwrap();
        let ours = |names: Vec<String>| -> Vec<String> {
            names.into_iter().filter(|name| !strangers.contains(&name.as_str())).collect()
        };
        let compressed = [19, 20, 21].map(|day| format!("naq.log.2026-11-{day}T09-15-01.123Z.gz"));
        assert_eq!(ours(names(folder.path())), compressed);
        let mut text = String::new();
        GzDecoder::new(File::open(folder.path().join(&compressed[2])).unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "1\n".repeat(1000));

        tidy(&log, Keep { count: 1, age: 30 * DAY }, now).unwrap();
        assert_eq!(ours(names(folder.path())), compressed[2..]);
        assert_eq!(names(folder.path()).len(), strangers.len() + 1, "strangers stay");
    }

    #[test]
    fn a_name_is_given_once() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("naq.log");
        let now: Timestamp = "2026-11-22T09:15:01.123Z".parse().unwrap();
        fs::write(with_suffix(&free_name(&log, now), COMPRESSED), "").unwrap();
        fs::write(free_name(&log, now), "").unwrap();
        assert_eq!(free_name(&log, now), folder.path().join("naq.log.2026-11-22T09-15-01.125Z"));
    }

    #[test]
    fn what_another_process_compresses_is_left_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let plain = free_name(&folder.path().join("naq.log"), Timestamp::EPOCH);
        fs::write(&plain, "line\n").unwrap();
        let part = File::create(with_suffix(&plain, PART)).unwrap();
        part.lock().unwrap();
        compress(&plain).unwrap();
        assert!(plain.exists() && !with_suffix(&plain, COMPRESSED).exists());
        drop(part);
        compress(&plain).unwrap();
        assert!(!plain.exists() && with_suffix(&plain, COMPRESSED).exists());
    }
}
