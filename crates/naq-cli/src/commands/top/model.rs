//! [`Model`]: everything the screen shows, and what each message makes of it.
//!
//! Invariant: pure; no I/O and no clock. [`Model::update`] is the only way it changes, and what has to be done in the
//! store it returns as a [`Request`]. A selected row stays selected wherever it moves, until it is gone.
//!
//! Not here: what keys mean (`keys`), what it looks like (`draw`), the store (`store`).

use std::collections::VecDeque;

use crossterm::event::KeyEvent;
use naq_models::{Event, EventType, JobId, QueueName, Timestamp};
use naq_services::jobs::QueueReport;
use naq_services::workers::{RunningJob, WorkerInfo};

use super::{
    super::events::{one_line, steps, summary},
    keys,
    rates::Rates,
};

/// Failures that are remembered.
pub(super) const FAILURES_MAX: usize = 200;
/// A remark on what was done is shown for so many seconds.
const REMARK_SECONDS: u32 = 15;

/// What one look at the store found.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    /// The store's clock.
    pub(super) now: Timestamp,
    pub(super) queues: Vec<QueueReport>,
    pub(super) workers: Vec<WorkerInfo>,
    pub(super) leader: Option<String>,
}

/// What can happen to the screen.
#[derive(Debug)]
pub(super) enum Message {
    Key(KeyEvent),
    /// A second has passed.
    Second,
    Looked(Box<Snapshot>),
    /// The store could not be read.
    NotLooked(String),
    /// Failures of before the screen was opened, oldest first.
    Failed(Vec<Event>),
    /// What happens now.
    Happened(Vec<Event>),
    /// Events cannot be followed.
    NotFollowed(String),
    /// A request was carried out or refused.
    Answered(String),
    History(JobId, Result<Vec<Event>, String>),
}

/// What is to be done for the person at the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    Quit,
    Store(Ask),
}

/// What is to be done in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ask {
    Pause(QueueName),
    Resume(QueueName),
    Cancel(JobId),
    Retry(JobId),
    History(JobId),
}

/// A list on the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Panel {
    Queues,
    Workers,
    Running,
    Failures,
}

impl Panel {
    pub(super) const ALL: [Self; 4] = [Self::Queues, Self::Workers, Self::Running, Self::Failures];
}

/// A running job and who runs it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Running<'a> {
    pub(super) job: &'a RunningJob,
    pub(super) worker: &'a WorkerInfo,
}

/// An attempt that failed, the newest of its job.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FailedJob {
    pub(super) time: Timestamp,
    pub(super) id: JobId,
    pub(super) queue: Option<QueueName>,
    pub(super) kind: String,
    pub(super) error_type: String,
    pub(super) message: String,
    /// Whether no attempt follows.
    pub(super) is_final: bool,
}

/// Who gets the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mode {
    Browse,
    /// The filter is being typed.
    Filter,
    Help,
    /// Asks whether this job is to be cancelled.
    Confirm(JobId),
    History(History),
}

/// The history of a job in a pop-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct History {
    pub(super) job: JobId,
    /// `None` while it is read.
    pub(super) lines: Option<Vec<String>>,
    /// The first line that is shown.
    pub(super) top: usize,
}

#[derive(Debug, Default)]
struct Selected {
    key: Option<String>,
    row: usize,
}

/// Everything the screen shows.
#[derive(Debug)]
pub(super) struct Model {
    /// Where the store is.
    pub(super) store: String,
    /// The queues that were asked for; all if empty.
    pub(super) only: Vec<QueueName>,
    pub(super) snapshot: Option<Snapshot>,
    /// Why the store could not be read the last time.
    pub(super) trouble: Option<String>,
    /// Seconds since the store was read.
    pub(super) unread: u32,
    /// Why events cannot be followed.
    pub(super) not_followed: Option<String>,
    pub(super) rates: Rates,
    /// Newest first.
    pub(super) failures: VecDeque<FailedJob>,
    pub(super) focus: Panel,
    selected: [Selected; 4],
    /// Part of the names of the queues that are shown.
    pub(super) filter: String,
    pub(super) mode: Mode,
    /// What became of the last request, and for how many seconds it is still shown.
    remark: Option<(String, u32)>,
}

impl Model {
    pub(super) fn new(store: String, only: Vec<QueueName>) -> Self {
        Self {
            store,
            only,
            snapshot: None,
            trouble: None,
            unread: 0,
            not_followed: None,
            rates: Rates::default(),
            failures: VecDeque::new(),
            focus: Panel::Queues,
            selected: Default::default(),
            filter: String::new(),
            mode: Mode::Browse,
            remark: None,
        }
    }

    /// What a message makes of it, and what is to be done about it.
    pub(super) fn update(&mut self, message: Message) -> Option<Request> {
        let request = match message {
            Message::Key(key) => keys::press(self, key),
            Message::Second => {
                self.second();
                None
            }
            Message::Looked(snapshot) => {
                self.look(*snapshot);
                None
            }
            Message::NotLooked(why) => {
                self.trouble = Some(one_line(&why));
                None
            }
            Message::Failed(events) => {
                self.not_followed = None;
                self.recall(&events);
                None
            }
            Message::Happened(events) => {
                self.not_followed = None;
                for event in events.iter().filter(|event| is_wanted(&self.only, event)) {
                    self.rates.add(event);
                    note_failure(&mut self.failures, event);
                }
                None
            }
            Message::NotFollowed(why) => {
                self.not_followed = Some(one_line(&why));
                None
            }
            Message::Answered(text) => {
                self.remark(text);
                None
            }
            Message::History(job, found) => {
                self.show_history(&job, found);
                None
            }
        };
        self.settle();
        request
    }

    fn second(&mut self) {
        self.rates.second();
        self.unread = self.unread.saturating_add(1);
        self.remark = self.remark.take().filter(|(_, left)| *left > 1).map(|(text, left)| (text, left - 1));
    }

    fn look(&mut self, mut snapshot: Snapshot) {
        // What is busy comes first, by name: an order that seldom changes.
        let is_quiet = |queue: &QueueReport| {
            !queue.paused && queue.pending + queue.running + queue.retry + queue.waiting + queue.failed == 0
        };
        snapshot.queues.sort_by_cached_key(|queue| (is_quiet(queue), queue.queue.clone()));
        (self.snapshot, self.trouble, self.unread) = (Some(snapshot), None, 0);
    }

    /// Adds failures of before those that are known.
    fn recall(&mut self, events: &[Event]) {
        let mut older = VecDeque::new();
        let events = events.iter().filter(|event| is_wanted(&self.only, event));
        events.for_each(|event| note_failure(&mut older, event));
        older.retain(|failure| self.failures.iter().all(|known| known.id != failure.id));
        self.failures.append(&mut older);
        self.failures.truncate(FAILURES_MAX);
    }

    fn show_history(&mut self, job: &JobId, found: Result<Vec<Event>, String>) {
        let Mode::History(shown) = &mut self.mode else { return };
        if shown.job != *job {
            return;
        }
        shown.lines = Some(match found {
            Err(why) => vec![one_line(&why)],
            Ok(events) if events.is_empty() => vec![format!("no event of job {job} is kept")],
            Ok(events) => {
                let lines = steps(&events).into_iter().map(|[time, after, event, remarks]| {
                    // Of the date only the time: those of days before are told by `naq events history`.
                    let clock = time.get(11..23).unwrap_or(&time);
                    format!("{clock} {after:>8} {event:<16} {remarks}").trim_end().to_owned()
                });
                lines.chain([String::new(), summary(&events)]).collect()
            }
        });
    }

    /// Says something in the last line.
    pub(super) fn remark(&mut self, text: impl Into<String>) {
        self.remark = Some((one_line(&text.into()), REMARK_SECONDS));
    }

    pub(super) fn clear_remark(&mut self) {
        self.remark = None;
    }

    /// What the last line says.
    pub(super) fn remark_text(&self) -> Option<&str> {
        self.remark.as_ref().map(|(text, _)| text.as_str())
    }

    fn is_shown(&self, queue: &str) -> bool {
        queue.contains(&self.filter) && (self.only.is_empty() || self.only.iter().any(|only| only.as_str() == queue))
    }

    /// The queues that are shown.
    pub(super) fn queues(&self) -> Vec<&QueueReport> {
        let queues = self.snapshot.iter().flat_map(|snapshot| &snapshot.queues);
        queues.filter(|queue| self.is_shown(queue.queue.as_str())).collect()
    }

    /// The workers that are shown: those that serve a queue that is shown.
    pub(super) fn workers(&self) -> Vec<&WorkerInfo> {
        let workers = self.snapshot.iter().flat_map(|snapshot| &snapshot.workers);
        workers.filter(|worker| worker.queue_names().any(|queue| self.is_shown(queue))).collect()
    }

    /// The running jobs that are shown, the longest-running first.
    pub(super) fn running(&self) -> Vec<Running<'_>> {
        let workers = self.snapshot.iter().flat_map(|snapshot| &snapshot.workers);
        let jobs = workers.flat_map(|worker| worker.running.iter().map(move |job| Running { job, worker }));
        let mut running: Vec<_> = jobs.filter(|running| self.is_shown(running.job.queue.as_str())).collect();
        running.sort_by(|a, b| (a.job.started_at, &a.job.id).cmp(&(b.job.started_at, &b.job.id)));
        running
    }

    /// The failures that are shown, newest first.
    pub(super) fn failures(&self) -> Vec<&FailedJob> {
        let queue = |failure: &FailedJob| failure.queue.as_ref().is_none_or(|queue| self.is_shown(queue.as_str()));
        self.failures.iter().filter(|failure| queue(failure)).collect()
    }

    /// What names each row of a panel.
    fn keys(&self, panel: Panel) -> Vec<String> {
        match panel {
            Panel::Queues => self.queues().iter().map(|queue| queue.queue.to_string()).collect(),
            Panel::Workers => self.workers().iter().map(|worker| worker.id.clone()).collect(),
            Panel::Running => self.running().iter().map(|running| running.job.id.to_string()).collect(),
            Panel::Failures => self.failures().iter().map(|failure| failure.id.to_string()).collect(),
        }
    }

    /// The selected row of the panel that has the keys, by its number.
    pub(super) fn row(&self) -> usize {
        self.selected[self.focus as usize].row
    }

    /// Moves the selection; it stops at either end.
    pub(super) fn select(&mut self, row: usize) {
        self.selected[self.focus as usize] = Selected { key: None, row };
    }

    /// Finds the selected row again where it is now.
    fn settle(&mut self) {
        let mut keys = self.keys(self.focus);
        let selected = &mut self.selected[self.focus as usize];
        let found = selected.key.as_ref().and_then(|key| keys.iter().position(|other| other == key));
        selected.row = found.unwrap_or(selected.row).min(keys.len().saturating_sub(1));
        selected.key = (selected.row < keys.len()).then(|| keys.swap_remove(selected.row));
    }

    /// The job of the selected row.
    pub(super) fn selected_job(&self) -> Option<JobId> {
        match self.focus {
            Panel::Running => self.running().get(self.row()).map(|running| running.job.id.clone()),
            Panel::Failures => self.failures().get(self.row()).map(|failure| failure.id.clone()),
            Panel::Queues | Panel::Workers => None,
        }
    }

    /// The queue of the selected row.
    pub(super) fn selected_queue(&self) -> Option<QueueName> {
        match self.focus {
            Panel::Queues => self.queues().get(self.row()).map(|queue| queue.queue.clone()),
            Panel::Workers => None,
            Panel::Running => self.running().get(self.row()).map(|running| running.job.queue.clone()),
            Panel::Failures => self.failures().get(self.row()).and_then(|failure| failure.queue.clone()),
        }
    }

    /// Whether a queue was paused when the store was read.
    pub(super) fn is_paused(&self, queue: &QueueName) -> bool {
        let mut queues = self.snapshot.iter().flat_map(|snapshot| &snapshot.queues);
        queues.any(|report| report.queue == *queue && report.paused)
    }
}

/// Whether an event is of a queue that was asked for.
fn is_wanted(only: &[QueueName], event: &Event) -> bool {
    only.is_empty() || event.queue.as_ref().is_some_and(|queue| only.contains(queue))
}

fn note_failure(failures: &mut VecDeque<FailedJob>, event: &Event) {
    let Some(id) = &event.job_id else { return };
    let is_final = match event.event_type {
        EventType::Failed => true,
        EventType::RetryScheduled => false,
        EventType::Requeued => return failures.retain(|failure| failure.id != *id),
        _ => return,
    };
    let text = |text: Option<&str>| one_line(text.unwrap_or_default());
    // A new attempt of a job takes the place of the one before.
    failures.retain(|failure| failure.id != *id);
    failures.push_front(FailedJob {
        time: event.time,
        id: id.clone(),
        queue: event.queue.clone(),
        kind: text(event.kind.as_deref()),
        error_type: text(event.details.error_type.as_deref()),
        message: text(event.details.message.as_deref()),
        is_final,
    });
    failures.truncate(FAILURES_MAX);
}
