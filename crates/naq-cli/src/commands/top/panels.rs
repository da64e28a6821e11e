//! The lists of the screen: their columns, and their rows as texts.
//!
//! Invariant: pure. A column has its width whatever its rows say, so that nothing jumps while one reads.

use std::ops::Range;

use naq_models::Timestamp;
use naq_services::workers::{RunningJob, WorkerInfo, WorkerStatus};
use ratatui::style::{Color, Style};

use super::{
    model::{FailedJob, Model, Panel, Running},
    text::{age, clock, count, rate},
};

/// From so many columns on a list has room for what is only nice to know.
const WIDE: u16 = 110;

/// How wide a column is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Width {
    /// So many cells.
    Cells(u16),
    /// So large a share of the cells that are left.
    Share(u16),
}

/// A column of a list.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) width: Width,
    /// Whether it is aligned to the right.
    pub(super) is_number: bool,
}

fn name(name: impl Into<String>, width: Width) -> Column {
    Column { name: name.into(), width, is_number: false }
}

fn number(name: &str, width: u16) -> Column {
    Column { name: name.to_owned(), width: Width::Cells(width), is_number: true }
}

/// Where each column begins and how wide it is, with a gap between any two.
pub(super) fn places(columns: &[Column], width: u16) -> Vec<(u16, u16)> {
    let (mut left, mut shares) = (width.saturating_sub(u16::try_from(columns.len()).unwrap_or(1) - 1), 0);
    for column in columns {
        match column.width {
            Width::Cells(cells) => left = left.saturating_sub(cells),
            Width::Share(share) => shares += share,
        }
    }
    let mut x = 0;
    let place = |column: &Column| {
        let wanted = match column.width {
            Width::Cells(cells) => cells,
            Width::Share(share) => {
                let cells = left * share / shares;
                (left, shares) = (left - cells, shares - share);
                cells
            }
        };
        let begin = x.min(width);
        x = begin + wanted + 1;
        (begin, wanted.min(width - begin))
    };
    columns.iter().map(place).collect()
}

/// A row of a list.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) cells: Vec<String>,
    pub(super) style: Style,
}

/// A list, or a part of one, ready to be drawn.
#[derive(Debug)]
pub(super) struct List {
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Row>,
    /// What is said if it has no rows.
    pub(super) empty: &'static str,
}

/// A list with the rows of a window only: there may be thousands, and it is drawn with each key.
pub(super) fn list(model: &Model, panel: Panel, width: u16, window: Range<usize>) -> List {
    let now = model.snapshot.as_ref().map_or(Timestamp::EPOCH, |snapshot| snapshot.now);
    match panel {
        Panel::Queues => queues(model, now, window),
        Panel::Workers => workers(&model.workers(), now, window),
        Panel::Running => running(&model.running(), now, width, window),
        Panel::Failures => failures(&model.failures(), window),
    }
}

/// The items of a window, as far as there are any.
fn seen<T>(items: &[T], window: Range<usize>) -> impl Iterator<Item = &T> {
    items.iter().skip(window.start).take(window.len())
}

fn queues(model: &Model, now: Timestamp, window: Range<usize>) -> List {
    let queues = model.queues();
    let rows = seen(&queues, window).map(|queue| {
        let oldest = queue.oldest_pending.map_or_else(String::new, |time| age(now.since(time)));
        let done = model.rates.of(&queue.queue).map_or_else(|| "-".to_owned(), |flow| rate(flow.completed));
        let style = match (queue.paused, queue.failed) {
            (true, _) => Style::new().fg(Color::Yellow),
            (false, 0) => Style::new(),
            (false, _) => Style::new().fg(Color::Red),
        };
        let numbers = [queue.pending, queue.running, queue.scheduled, queue.retry, queue.waiting, queue.failed];
        let mut cells = vec![queue.queue.to_string()];
        cells.extend(numbers.map(count));
        cells.extend([oldest, done, if queue.paused { "paused".to_owned() } else { String::new() }]);
        Row { cells, style }
    });
    List {
        rows: rows.collect(),
        columns: vec![
            name(format!("QUEUES ({})", queues.len()), Width::Share(1)),
            number("pending", 7),
            number("running", 7),
            number("delayed", 7),
            number("retry", 5),
            number("waits", 5),
            number("dead", 5),
            number("oldest", 6),
            number("done/s", 6),
            name("", Width::Cells(6)),
        ],
        empty: "no queue has held a job yet",
    }
}

fn workers(workers: &[&WorkerInfo], now: Timestamp, window: Range<usize>) -> List {
    let rows = seen(workers, window).map(|worker| {
        let status = match worker.status {
            WorkerStatus::Idle => "idle",
            WorkerStatus::Busy => "busy",
            WorkerStatus::Stopping => "stopping",
        };
        let cells = vec![
            worker.name.clone().unwrap_or_else(|| worker.id.clone()),
            worker.host.clone(),
            worker.queues.join(" "),
            status.to_owned(),
            format!("{}/{}", worker.running_count, worker.concurrency),
            age(now.since(worker.seen_at)),
        ];
        Row { cells, style: Style::new() }
    });
    List {
        rows: rows.collect(),
        columns: vec![
            name(format!("WORKERS ({})", workers.len()), Width::Share(3)),
            name("host", Width::Share(2)),
            name("queues", Width::Share(2)),
            name("state", Width::Cells(8)),
            number("jobs", 9),
            number("seen", 5),
        ],
        empty: "no worker is alive",
    }
}

/// How far a job says it is; `None` if it says nothing.
fn progress(job: &RunningJob) -> Option<String> {
    let progress = job.progress.as_ref()?;
    let message = progress.message.as_deref().map_or_else(String::new, |message| format!(" {message}"));
    Some(format!("{:.0}%{message}", progress.fraction * 100.0))
}

fn running(running: &[Running<'_>], now: Timestamp, width: u16, window: Range<usize>) -> List {
    let has_progress = running.iter().any(|running| progress(running.job).is_some());
    let mut columns = vec![
        name(format!("RUNNING ({})", running.len()), Width::Share(3)),
        name("kind", Width::Share(2)),
        name("queue", Width::Cells(12)),
        number("try", 3),
        number("for", 5),
    ];
    if has_progress {
        columns.push(name("progress", Width::Cells(if width < WIDE { 14 } else { 36 })));
    }
    if width >= WIDE {
        columns.push(name("worker", Width::Share(2)));
    }
    let rows = seen(running, window).map(|Running { job, worker }| {
        let mut cells = vec![
            job.id.to_string(),
            job.kind.clone(),
            job.queue.to_string(),
            job.attempt.to_string(),
            age(now.since(job.started_at)),
        ];
        if has_progress {
            cells.push(progress(job).unwrap_or_default());
        }
        if width >= WIDE {
            cells.push(worker.name.clone().unwrap_or_else(|| worker.id.clone()));
        }
        Row { cells, style: Style::new() }
    });
    List { rows: rows.collect(), columns, empty: "nothing runs" }
}

fn failures(failures: &[&FailedJob], window: Range<usize>) -> List {
    let rows = seen(failures, window).map(|failure| {
        let (end, style) = if failure.is_final {
            ("dead", Style::new().fg(Color::Red))
        } else {
            ("retry", Style::new().fg(Color::Yellow))
        };
        let cells = vec![
            failure.id.to_string(),
            clock(failure.time),
            end.to_owned(),
            failure.kind.clone(),
            failure.error_type.clone(),
            failure.message.clone(),
        ];
        Row { cells, style }
    });
    List {
        rows: rows.collect(),
        columns: vec![
            name(format!("FAILED ({})", failures.len()), Width::Share(2)),
            name("at", Width::Cells(8)),
            name("then", Width::Cells(5)),
            name("kind", Width::Share(1)),
            name("error", Width::Share(1)),
            name("message", Width::Share(2)),
        ],
        empty: "no failure has been told of",
    }
}
