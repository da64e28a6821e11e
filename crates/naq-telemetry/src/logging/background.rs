//! A thread that writes lines, so that no job waits for a disk or a pipe.
//!
//! Invariant: handing over a line never blocks. At most [`LINES_MAX`] lines of [`BYTES_MAX`] bytes wait; more, and lines
//! whose write failed, are dropped, counted, and reported in the log itself once it goes on.
//!
//! Not here: what a line looks like, and where it goes.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use super::target::Target;

/// Lines that may wait to be written.
const LINES_MAX: usize = 16_384;
/// Bytes that may wait to be written.
const BYTES_MAX: usize = 8 << 20;
/// Bytes that are written together.
const BATCH_MAX: usize = 256 << 10;
/// The longest wait for the last lines when the process ends.
const FLUSH_MAX: Duration = Duration::from_secs(5);
/// Pause between two attempts to hand over the order to stop while the buffer is full.
const STOP_RETRY: Duration = Duration::from_millis(5);

enum Order {
    Line(Vec<u8>),
    /// Write what came before this, then drop the sender.
    Stop(SyncSender<()>),
}

/// The thread and the way to it.
#[derive(Debug)]
pub(super) struct Background {
    lines: Lines,
}

/// Takes lines; one `write` is one line.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    orders: SyncSender<Order>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    dropped: AtomicU64,
    /// Bytes that were handed over and are not written yet.
    waiting: AtomicUsize,
}

impl Background {
    /// Starts the thread. It ends when the `Background` is dropped.
    pub(super) fn start(target: impl Target, is_json: bool) -> io::Result<Self> {
        let (orders, received) = sync_channel(LINES_MAX);
        let counts = Arc::<Counts>::default();
        let writing = Writing { target, is_json, counts: Arc::clone(&counts), reported: 0, is_failing: false };
        // Not joined: a target that hangs must not keep the process from ending. `drop` waits for it, with a bound.
        thread::Builder::new().name("naq-log".to_owned()).spawn(move || writing.run(&received))?;
        Ok(Self { lines: Lines { orders, counts } })
    }

    pub(super) fn lines(&self) -> Lines {
        self.lines.clone()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.lines.counts.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let deadline = Instant::now() + FLUSH_MAX;
        let (held, released) = sync_channel(0);
        let mut order = Order::Stop(held);
        loop {
            match self.lines.orders.try_send(order) {
                Ok(()) => break,
                Err(TrySendError::Full(back)) if Instant::now() < deadline => {
                    order = back;
                    thread::sleep(STOP_RETRY);
                }
                Err(_) => return,
            }
        }
        // Both ways out are fine: the thread dropped its end when all was written, or it hangs and is given up.
        let _written_or_given_up = released.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

impl Lines {
    /// Hands over one line, ended by a newline; drops it if too many wait.
    pub(super) fn send(&self, line: Vec<u8>) {
        let bytes = line.len();
        let is_full = self.counts.waiting.fetch_add(bytes, Ordering::Relaxed) + bytes > BYTES_MAX;
        if is_full || self.orders.try_send(Order::Line(line)).is_err() {
            self.counts.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.send(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Writing<T> {
    target: T,
    is_json: bool,
    counts: Arc<Counts>,
    /// Dropped lines that the log already tells of.
    reported: u64,
    is_failing: bool,
}

impl<T: Target> Writing<T> {
    fn run(mut self, orders: &Receiver<Order>) {
        // Lines that wait together are written together.
        let mut batch = Vec::new();
        while let Ok(first) = orders.recv() {
            let mut next = Some(first);
            while let Some(order) = next {
                match order {
                    Order::Line(line) => batch.extend_from_slice(&line),
                    Order::Stop(held) => {
                        self.write(&mut batch);
                        drop(held);
                        return;
                    }
                }
                if batch.len() >= BATCH_MAX {
                    self.write(&mut batch);
                }
                next = orders.try_recv().ok();
            }
            self.write(&mut batch);
        }
    }

    fn write(&mut self, batch: &mut Vec<u8>) {
        let lines = batch.len();
        let dropped = self.counts.dropped.load(Ordering::Relaxed);
        if dropped > self.reported {
            batch.extend_from_slice(self.notice(dropped - self.reported).as_bytes());
        }
        match self.target.write_lines(batch) {
            Ok(()) => {
                self.reported = dropped;
                self.is_failing = false;
            }
            Err(failed) => {
                let lost = batch.get(failed.written..lines).unwrap_or_default();
                let lost = lost.iter().filter(|byte| **byte == b'\n').count();
                self.counts.dropped.fetch_add(lost as u64, Ordering::Relaxed);
                if !self.is_failing {
                    // The last place left to say it; if that fails too, the count of dropped lines remains.
                    let _nowhere_else = writeln!(io::stderr(), "naq: log lines cannot be written: {}", failed.error);
                }
                self.is_failing = true;
            }
        }
        self.counts.waiting.fetch_sub(lines, Ordering::Relaxed);
        batch.clear();
    }

    fn notice(&self, dropped: u64) -> String {
        let timestamp = super::host_time();
        let message =
            format!("{dropped} log lines were dropped: they came faster than they could be written, or writing failed");
        if self.is_json {
            let logger = env!("CARGO_CRATE_NAME");
            format!(
                "{{\"timestamp\":\"{timestamp}\",\"level\":\"WARN\",\"logger\":\"{logger}\",\"message\":\"{message}\",\"dropped\":{dropped}}}\n"
            )
        } else {
            format!("{timestamp}  WARN {message}\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        mpsc::{Sender, channel},
    };

    use super::{super::target::Plain, *};

    /// A writer that waits for a permit before each write.
    struct Gated {
        permits: Receiver<()>,
        entered: Sender<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.entered.send(()).map_err(io::Error::other)?;
            self.permits.recv().map_err(io::Error::other)?;
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A writer that fails while its disk is full.
    struct Full(Arc<Mutex<(bool, Vec<u8>)>>);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut state = self.0.lock().unwrap();
            if state.0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_lost_to_a_full_disk_are_counted_and_told_of_later() {
        let state = Arc::new(Mutex::new((true, Vec::new())));
        let background = Background::start(Plain::new(Full(Arc::clone(&state))), false).unwrap();
        background.lines().send(b"lost\n".to_vec());
        while background.dropped() == 0 {
            thread::yield_now();
        }
        state.lock().unwrap().0 = false;
        background.lines().send(b"kept\n".to_vec());
        drop(background);
        let written = String::from_utf8(state.lock().unwrap().1.clone()).unwrap();
        assert!(written.starts_with("kept\n") && written.contains("1 log lines were dropped"), "{written}");
    }

    #[test]
    fn a_stuck_writer_drops_lines_and_says_so() {
        let (permit, permits) = channel();
        let (entered, has_entered) = channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let writer = Gated { permits, entered, written: Arc::clone(&written) };
        let background = Background::start(Plain::new(writer), true).unwrap();
        let lines = background.lines();
        lines.send(b"first\n".to_vec());
        has_entered.recv().unwrap();
        // The thread hangs in its first write, so that exactly LINES_MAX more fit.
        for _ in 0..LINES_MAX + 5 {
            lines.send(b"x\n".to_vec());
        }
        assert_eq!(background.dropped(), 5);
        for _ in 0..100 {
            permit.send(()).unwrap();
        }
        drop(background);
        let written = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        assert_eq!(written.lines().filter(|line| *line == "x").count(), LINES_MAX);
        assert!(written.contains("\"dropped\":5"), "{}", &written[written.len() - 300..]);
    }

    #[test]
    fn few_large_lines_take_no_more_memory_than_many_small_ones() {
        let (permit, permits) = channel();
        let (entered, has_entered) = channel();
        let writer = Gated { permits, entered, written: Arc::default() };
        let background = Background::start(Plain::new(writer), true).unwrap();
        let lines = background.lines();
        lines.send(b"first\n".to_vec());
        has_entered.recv().unwrap();
        let large = [vec![b'x'; (1 << 20) - 1], b"\n".to_vec()].concat();
        for _ in 0..12 {
            lines.send(large.clone());
        }
        // Seven fit beside the first one.
        assert_eq!(background.dropped(), 5);
        drop(permit);
    }
}
