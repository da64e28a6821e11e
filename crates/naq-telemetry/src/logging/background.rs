//! A thread that writes lines, so that no job waits for a disk or a pipe.
//!
//! Invariant: handing over a line never blocks. At most [`LINES_MAX`] lines wait; more, and lines whose write failed, are
//! dropped, counted, and reported in the log itself once it goes on.
//!
//! Not here: what a line looks like.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

/// Lines that may wait to be written.
const LINES_MAX: usize = 16_384;
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
    dropped: Arc<AtomicU64>,
}

impl Background {
    /// Starts the thread. It ends when the `Background` is dropped.
    pub(super) fn start(writer: impl Write + Send + 'static, is_json: bool) -> io::Result<Self> {
        let (orders, received) = sync_channel(LINES_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let loop_dropped = Arc::clone(&dropped);
        // Not joined: a writer that hangs must not keep the process from ending. `drop` waits for it, with a bound.
        thread::Builder::new().name("naq-log".to_owned()).spawn(move || {
            Writing { writer, is_json, dropped: loop_dropped, reported: 0, is_failing: false }.run(&received)
        })?;
        Ok(Self { lines: Lines { orders, dropped } })
    }

    pub(super) fn lines(&self) -> Lines {
        self.lines.clone()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.lines.dropped.load(Ordering::Relaxed)
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
        if self.orders.try_send(Order::Line(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
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

struct Writing<W> {
    writer: W,
    is_json: bool,
    dropped: Arc<AtomicU64>,
    /// Dropped lines that the log already tells of.
    reported: u64,
    is_failing: bool,
}

impl<W: Write> Writing<W> {
    fn run(mut self, orders: &Receiver<Order>) {
        // Lines that wait together are written together and flushed once.
        let mut batch = Vec::new();
        while let Ok(first) = orders.recv() {
            let mut next = Some(first);
            let mut lines = 0;
            let mut stop = None;
            while let Some(order) = next.take() {
                match order {
                    Order::Line(line) => {
                        batch.extend_from_slice(&line);
                        lines += 1;
                    }
                    Order::Stop(held) => {
                        stop = Some(held);
                        break;
                    }
                }
                next = match orders.try_recv() {
                    Ok(order) if lines < LINES_MAX => Some(order),
                    Ok(order) => {
                        // The batch is full; this one starts the next.
                        self.write(&mut batch, lines);
                        lines = 0;
                        Some(order)
                    }
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
                };
            }
            self.write(&mut batch, lines);
            if stop.is_some() {
                return;
            }
        }
    }

    fn write(&mut self, batch: &mut Vec<u8>, lines: usize) {
        let dropped = self.dropped.load(Ordering::Relaxed);
        if dropped > self.reported {
            batch.extend_from_slice(self.notice(dropped - self.reported).as_bytes());
        }
        match self.writer.write_all(batch).and_then(|()| self.writer.flush()) {
            Ok(()) => {
                self.reported = dropped;
                self.is_failing = false;
            }
            Err(error) => {
                self.dropped.fetch_add(lines as u64, Ordering::Relaxed);
                if !self.is_failing {
                    // The last place left to say it; if that fails too, the count of dropped lines remains.
                    let _nowhere_else = writeln!(io::stderr(), "naq: log lines cannot be written: {error}");
                }
                self.is_failing = true;
            }
        }
        batch.clear();
    }

    fn notice(&self, dropped: u64) -> String {
        let timestamp = super::json::timestamp();
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

    use super::*;

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
        let background = Background::start(Full(Arc::clone(&state)), false).unwrap();
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
        let background = Background::start(writer, true).unwrap();
        let lines = background.lines();
        lines.send(b"first\n".to_vec());
        has_entered.recv().unwrap();
        // The thread hangs in its first write, so that exactly LINES_MAX more fit.
        for _ in 0..LINES_MAX + 5 {
            lines.send(b"x\n".to_vec());
        }
        assert_eq!(background.dropped(), 5);
        for _ in 0..10 {
            permit.send(()).unwrap();
        }
        drop(background);
        let written = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        assert_eq!(written.lines().filter(|line| *line == "x").count(), LINES_MAX);
        assert!(written.contains("\"dropped\":5"), "{}", &written[written.len() - 300..]);
    }
}
