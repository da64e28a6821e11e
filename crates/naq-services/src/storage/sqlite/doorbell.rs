//! [`Doorbell`] and [`Listening`]: how processes that share a file tell each other of commits.
//!
//! Invariant: it makes others look sooner, and nothing else; who does not hear it looks from time to time. Whoever has
//! committed something that others may wait for touches the log: its times, not its bytes. The kernel tells who listens.
//! The commit is visible by then, which the writing of the log itself, some milliseconds earlier, would not say.

use std::{
    io,
    path::{Path, PathBuf},
};

/// See the module.
#[derive(Debug)]
pub(super) struct Doorbell {
    log: PathBuf,
}

impl Doorbell {
    /// Of a database that is open, so that its log is there and stays.
    ///
    /// # Errors
    /// If the path leads nowhere.
    pub(super) fn of(database: &Path) -> io::Result<Self> {
        // SQLite puts the log beside what a link points at.
        let mut log = database.canonicalize()?.into_os_string();
        log.push("-wal");
        Ok(Self { log: log.into() })
    }

    /// Tells those who listen that there has been a commit.
    pub(super) fn ring(&self) {
        kernel::touch(&self.log);
    }

    /// Calls `tell` after each ring, of this process too; rings in quick succession are heard as one.
    ///
    /// # Errors
    /// If the system cannot tell of files that are touched, or not of so many.
    pub(super) fn listen(&self, tell: impl FnMut() + Send + 'static) -> io::Result<Listening> {
        kernel::Listening::start(&self.log, tell).map(Listening)
    }
}

/// A thread that hears rings until this is dropped.
#[derive(Debug)]
pub(super) struct Listening(kernel::Listening);

impl Listening {
    /// Whether it has heard a ring, and hears the next one: a watch that was granted need not be served.
    pub(super) fn hears(&self) -> bool {
        self.0.hears()
    }
}

#[cfg(target_os = "linux")]
mod kernel {
    use std::{
        io,
        mem::MaybeUninit,
        os::fd::OwnedFd,
        path::Path,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        thread::{self, JoinHandle},
        time::Duration,
    };

    use rustix::{
        fs::{
            AtFlags, CWD, Timespec, Timestamps, UTIME_NOW,
            inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
        },
        io::Errno,
    };

    /// After a ring, no other is heard for so long: a process that commits thousands of times a second is not to wake its
    /// neighbours as often.
    const DEAF: Duration = Duration::from_millis(2);

    pub(super) fn touch(log: &Path) {
        // Both times: a right to write is enough for that.
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        if let Err(error) = rustix::fs::utimensat(CWD, log, &times, AtFlags::empty()) {
            tracing::debug!(%error, log = %log.display(), "others are not told of a commit, and will find it by themselves");
        }
    }

    #[derive(Debug)]
    pub(super) struct Listening {
        inotify: Arc<OwnedFd>,
        watch: i32,
        /// It has heard a ring.
        heard: Arc<AtomicBool>,
        thread: Option<JoinHandle<()>>,
    }

    impl Listening {
        pub(super) fn start(log: &Path, mut tell: impl FnMut() + Send + 'static) -> io::Result<Self> {
            let inotify = Arc::new(inotify::init(CreateFlags::CLOEXEC)?);
            let watch = inotify::add_watch(&inotify, log, WatchFlags::ATTRIB)?;
            let (events, heard) = (Arc::clone(&inotify), Arc::new(AtomicBool::new(false)));
            let told = Arc::clone(&heard);
            let listen = move || {
                hear(&events, || {
                    told.store(true, Ordering::Relaxed);
                    tell();
                });
            };
            let thread = thread::Builder::new().name("naq-sqlite-bell".into()).spawn(listen)?;
            Ok(Self { inotify, watch, heard, thread: Some(thread) })
        }

        pub(super) fn hears(&self) -> bool {
            self.heard.load(Ordering::Relaxed) && self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
        }
    }

    impl Drop for Listening {
        fn drop(&mut self) {
            // The thread is told that its watch is gone, unless it has left before.
            inotify::remove_watch(&self.inotify, self.watch).ok();
            if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
                tracing::error!("the thread that listens for commits of other processes panicked");
            }
        }
    }

    fn hear(inotify: &OwnedFd, mut tell: impl FnMut()) {
        let mut room = [MaybeUninit::uninit(); 1024];
        let mut events = Reader::new(inotify, &mut room);
        loop {
            match events.next() {
                Ok(event) if event.events().contains(ReadFlags::IGNORED) => return,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::warn!(%error, "commits of other processes are not heard of any more, and looked for instead");
                    return;
                }
            }
            if events.is_buffer_empty() {
                tell();
                thread::sleep(DEAF);
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod kernel {
    use std::{io, path::Path};

    pub(super) fn touch(_: &Path) {}

    #[derive(Debug)]
    pub(super) struct Listening;

    impl Listening {
        pub(super) fn start(_: &Path, _: impl FnMut() + Send + 'static) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(super) fn hears(&self) -> bool {
            false
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{
        fs::File,
        sync::mpsc,
        thread,
        time::{Duration, Instant},
    };

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn rings_are_heard_until_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let [database, log] = ["jobs.db", "jobs.db-wal"].map(|name| folder.path().join(name));
        File::create(&database).unwrap();
        let link = folder.path().join("link.db");
        std::os::unix::fs::symlink(&database, &link).unwrap();
        let bell = Doorbell::of(&link).unwrap();
        bell.listen(|| ()).expect_err("there is no log to listen at");
        bell.ring();

        File::create(&log).unwrap();
        let (sender, rings) = mpsc::channel();
        let listening = Doorbell::of(&database).unwrap().listen(move || sender.send(()).unwrap()).unwrap();
        assert!(!listening.hears(), "nothing has shown that yet");
        for _ in 0..3 {
            bell.ring();
            rings.recv_timeout(PATIENCE).expect("the ring is heard");
        }
        assert!(listening.hears());
        drop(listening);
        rings.recv_timeout(PATIENCE).expect_err("its thread has ended");
    }

    #[test]
    fn whoever_listens_at_a_log_that_goes_knows_that_nothing_is_heard() {
        let folder = tempfile::tempdir().unwrap();
        let [database, log] = ["jobs.db", "jobs.db-wal"].map(|name| folder.path().join(name));
        for file in [&database, &log] {
            File::create(file).unwrap();
        }
        let bell = Doorbell::of(&database).unwrap();
        let listening = bell.listen(|| ()).unwrap();
        let wait_until = |hears| {
            let until = Instant::now() + PATIENCE;
            while listening.hears() != hears {
                assert!(Instant::now() < until, "it does not say that it hears: {hears}");
                thread::sleep(Duration::from_millis(5));
            }
        };
        bell.ring();
        wait_until(true);
        std::fs::remove_file(&log).unwrap();
        wait_until(false);
    }
}
