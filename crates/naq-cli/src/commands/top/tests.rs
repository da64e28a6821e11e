//! What the screen shows of a known state, and what keys and messages make of it.

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use naq_models::{Event, EventId, EventType, JobError, JobId, Progress, QueueName, Timestamp, event::EventOrigin};
use naq_services::jobs::QueueReport;
use naq_services::workers::{RunningJob, WorkerInfo, WorkerStatus};
use ratatui::{Terminal, backend::TestBackend};

use super::{
    draw,
    model::{Ask, Message, Mode, Model, Panel, Request, Snapshot},
    plain,
};

const EVERY: Duration = Duration::from_secs(1);

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn now() -> Timestamp {
    time("2026-03-01T12:00:00Z")
}

fn before(seconds: u64) -> Timestamp {
    now().saturating_sub(Duration::from_secs(seconds))
}

fn queue(name: &str, [pending, running, scheduled, retry, waiting, failed]: [u64; 6]) -> QueueReport {
    QueueReport {
        queue: QueueName::new(name).unwrap(),
        paused: false,
        pending,
        pending_by_priority: [0, pending, 0, 0],
        running,
        scheduled,
        retry,
        waiting,
        failed,
        oldest_pending: (pending > 0).then(|| before(42)),
    }
}

fn job(id: &str, kind: &str, queue: &str, seconds: u64) -> RunningJob {
    RunningJob {
        id: JobId::new(id).unwrap(),
        kind: kind.into(),
        queue: QueueName::new(queue).unwrap(),
        attempt: 1,
        started_at: before(seconds),
        progress: (seconds > 60).then(|| Progress::new(0.42, "page 42 of 100".into(), 1, before(1))),
    }
}

fn worker(id: &str, name: Option<&str>, running: Vec<RunningJob>) -> WorkerInfo {
    WorkerInfo {
        id: id.into(),
        name: name.map(str::to_owned),
        host: "build-7.example.org".into(),
        pid: 4711,
        queues: vec!["mail:3".into(), "default".into()],
        concurrency: 8,
        running_count: running.len(),
        status: if running.is_empty() { WorkerStatus::Idle } else { WorkerStatus::Busy },
        running,
        version: "0.1.0".into(),
        started_at: before(7200),
        seen_at: before(1),
    }
}

fn snapshot() -> Snapshot {
    let mut paused = queue("images", [3, 0, 0, 0, 0, 0]);
    paused.paused = true;
    Snapshot {
        now: now(),
        queues: vec![
            queue("archive", [0; 6]),
            queue("mail", [12_345, 2, 7, 1, 3, 2]),
            paused,
            queue("default", [0, 1, 1_234_567, 0, 0, 0]),
        ],
        workers: vec![
            worker(
                "host-1-0198c0de",
                Some("w1"),
                vec![
                    job("018f3c6a7b2d70008f3c6a7b2d7f0001", "send_mail", "mail", 3),
                    job("import-2026-03-01", "import_everything_from_everywhere", "default", 7265),
                ],
            ),
            worker("host-2-0198c0df", None, vec![]),
        ],
        leader: Some("host-1-0198c0de".into()),
    }
}

fn event(event_type: EventType, id: &str, seconds: u64) -> Event {
    let time = before(seconds);
    let mut event = Event::new(EventId::new(time, EventOrigin::new([0; 6]), 0), event_type)
        .of_job(JobId::new(id).unwrap(), QueueName::new("mail").unwrap())
        .with_error(&JobError::new("SmtpError", "the server said:\n550 no such mailbox here", time));
    event.kind = Some("send_mail".into());
    event
}

fn failed() -> Message {
    Message::Failed(vec![
        event(EventType::RetryScheduled, "mail-17", 100),
        event(EventType::RetryScheduled, "mail-18", 90),
        event(EventType::Failed, "mail-18", 60),
    ])
}

fn model() -> Model {
    let mut model = Model::new("nats://127.0.0.1:4222".into(), vec![]);
    model.update(Message::Second);
    model
        .update(Message::Happened(vec![event(EventType::Enqueued, "mail-19", 1), event(EventType::Completed, "a", 1)]));
    model.update(Message::Second);
    model.update(failed());
    model.update(Message::Looked(Box::new(snapshot())));
    model
}

fn press(model: &mut Model, keys: &str) -> Option<Request> {
    let mut last = None;
    for key in keys.chars() {
        let code = match key {
            '\t' => KeyCode::Tab,
            '\n' => KeyCode::Enter,
            '\x1b' => KeyCode::Esc,
            '\x08' => KeyCode::Backspace,
            key => KeyCode::Char(key),
        };
        last = model.update(Message::Key(KeyEvent::from(code)));
    }
    last
}

fn screen(model: &Model, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw::draw(frame, model, EVERY)).unwrap();
    terminal.backend().to_string()
}

fn queue_name(name: &str) -> QueueName {
    QueueName::new(name).unwrap()
}

fn job_id(id: &str) -> JobId {
    JobId::new(id).unwrap()
}

#[test]
fn a_small_screen_shows_what_is_needed() {
    insta::assert_snapshot!(screen(&model(), 80, 24));
}

#[test]
fn a_large_screen_shows_more() {
    insta::assert_snapshot!(screen(&model(), 120, 40));
}

#[test]
fn before_the_first_look_nothing_is_claimed() {
    insta::assert_snapshot!(screen(&Model::new("sqlite:///var/lib/naq/jobs.db".into(), vec![]), 80, 12));
}

#[test]
fn pop_ups_lie_over_the_lists() {
    let mut model = model();
    press(&mut model, "?");
    insta::assert_snapshot!("help", screen(&model, 80, 24));
    press(&mut model, "x\t\t\th");
    let id = job_id("mail-18");
    let events = ["enqueued", "started", "failed"].into_iter().zip([70, 65, 60]);
    let events = events.map(|(name, seconds)| event(EventType::named(name), id.as_str(), seconds)).collect();
    model.update(Message::History(id, Ok(events)));
    insta::assert_snapshot!("history", screen(&model, 80, 24));
}

#[test]
fn a_thousand_queues_scroll_and_any_size_can_be_drawn() {
    let mut model = model();
    let mut snapshot = snapshot();
    snapshot.queues.extend((0..1000).map(|n| queue(&format!("tenant-{n:04}"), [1, 0, 0, 0, 0, 0])));
    model.update(Message::Looked(Box::new(snapshot)));
    press(&mut model, "G");
    assert_eq!(model.selected_queue(), Some(queue_name("archive")), "what is quiet comes last");
    assert!(screen(&model, 80, 24).contains("archive"));
    press(&mut model, "gjjj");
    assert_eq!(model.selected_queue(), Some(queue_name("tenant-0000")));
    for width in (0..200).step_by(13) {
        for height in (0..60).step_by(3) {
            for keys in ["?", "\x1b\t\t\th", "\x1b\t"] {
                press(&mut model, keys);
                plain(&model, EVERY, (width, height));
            }
        }
    }
}

#[test]
fn a_selection_stays_with_its_row_when_others_come_and_go() {
    let mut model = model();
    press(&mut model, "\t\t\tj");
    assert_eq!(model.selected_job(), Some(job_id("mail-17")));
    model.update(Message::Happened(vec![event(EventType::Failed, "mail-20", 0)]));
    assert_eq!((model.selected_job(), model.row()), (Some(job_id("mail-17")), 2));
    assert_eq!(press(&mut model, "r"), Some(Request::Store(Ask::Retry(job_id("mail-17")))));
    // Its new life takes it off the list; the last row is selected then.
    model.update(Message::Happened(vec![event(EventType::Requeued, "mail-17", 0)]));
    assert_eq!((model.selected_job(), model.row()), (Some(job_id("mail-18")), 1));
}

#[test]
fn keys_ask_for_what_is_selected() {
    let mut model = model();
    assert_eq!(model.selected_queue(), Some(queue_name("default")), "by name");
    assert_eq!(press(&mut model, "p"), Some(Request::Store(Ask::Pause(queue_name("default")))));
    assert_eq!(press(&mut model, "jp"), Some(Request::Store(Ask::Resume(queue_name("images")))));
    assert_eq!(press(&mut model, "r"), None);
    assert!(model.remark_text().is_some_and(|text| text.starts_with("r: no failed job")));
    assert_eq!(press(&mut model, "\tc"), None);
    assert!(model.remark_text().is_some_and(|text| text.starts_with("c: no job")));
    // The longest-running one is first.
    assert_eq!(press(&mut model, "\tc"), None, "it asks first");
    assert_eq!(model.mode, Mode::Confirm(job_id("import-2026-03-01")));
    assert_eq!(press(&mut model, "n"), None);
    let cancel = Ask::Cancel(job_id("import-2026-03-01"));
    assert_eq!(press(&mut model, "cy"), Some(Request::Store(cancel)));
    assert_eq!(press(&mut model, "h"), Some(Request::Store(Ask::History(job_id("import-2026-03-01")))));
    assert_eq!(press(&mut model, "q"), None, "closes the history");
    assert_eq!(press(&mut model, "q"), Some(Request::Quit));
    press(&mut model, "/");
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(model.update(Message::Key(interrupt)), Some(Request::Quit), "whatever is open");
}

#[test]
fn a_filter_takes_letters_until_it_is_kept() {
    let mut model = model();
    press(&mut model, "/maq\x08i\n");
    assert_eq!(model.queues().iter().map(|queue| queue.queue.as_str()).collect::<Vec<_>>(), ["mail"]);
    assert_eq!(model.running().len(), 1);
    assert_eq!(model.workers().len(), 2, "a queue with a weight counts");
    press(&mut model, "\x1b");
    assert_eq!(model.queues().len(), 4);
    let mut only = Model::new(String::new(), vec![queue_name("default")]);
    only.update(Message::Looked(Box::new(snapshot())));
    only.update(failed());
    assert_eq!((only.queues().len(), only.running().len(), only.failures().len()), (1, 1, 0));
}

#[test]
fn a_store_that_is_away_is_said_and_forgotten_when_it_is_back() {
    let mut model = model();
    model.update(Message::NotLooked("cannot read\nthe queues".into()));
    model.update(Message::Second);
    let shown = screen(&model, 80, 24);
    assert!(shown.contains("BAD: the store is away for 1s: cannot read the queues"), "{shown}");
    assert!(shown.contains("12345"), "what was known is still shown: {shown}");
    model.update(Message::Looked(Box::new(snapshot())));
    assert!(!screen(&model, 80, 24).contains("away"));
    // Neither an answer nor an error.
    (0..8).for_each(|_| drop(model.update(Message::Second)));
    assert!(screen(&model, 80, 24).contains("BAD: the store has not answered for 8s"));
}

#[test]
fn health_names_the_worst_first() {
    let mut model = model();
    let line = |model: &Model| screen(model, 120, 24).lines().nth(2).unwrap_or_default().to_owned();
    let mut sick = snapshot();
    sick.workers.clear();
    sick.queues[1].oldest_pending = Some(before(300));
    model.update(Message::Looked(Box::new(sick)));
    let text = line(&model);
    assert!(text.contains("BAD: no worker is alive, nothing runs; a job of mail has waited for 5m00; paused: images"));
    let mut well = snapshot();
    well.queues.retain(|queue| !queue.paused);
    model.update(Message::Looked(Box::new(well.clone())));
    assert!(line(&model).contains("ok: all is well"));
    well.leader = None;
    model.update(Message::Looked(Box::new(well)));
    assert!(line(&model).contains("look: no scheduler leads"));
}

#[test]
fn rates_are_means_of_whole_seconds() {
    let mut model = model();
    // One came in the one second that is over.
    let rate = |model: &Model| model.rates.all().map(|flow| (flow.enqueued, flow.completed, flow.failed));
    assert_eq!(rate(&model), Some((1.0, 1.0, 0.0)));
    model.update(Message::Happened(vec![event(EventType::Failed, "mail-20", 0); 2]));
    assert_eq!(rate(&model), Some((1.0, 1.0, 0.0)), "this second is not over");
    model.update(Message::Second);
    assert_eq!(rate(&model), Some((0.5, 0.5, 1.0)));
    (0..20).for_each(|_| drop(model.update(Message::Second)));
    assert_eq!(rate(&model), Some((0.0, 0.0, 0.0)));
}

#[test]
fn failures_that_are_found_late_come_after_newer_ones() {
    let mut model = Model::new(String::new(), vec![]);
    model.update(Message::Happened(vec![event(EventType::Failed, "mail-17", 1)]));
    model.update(failed());
    let found: Vec<_> = model.failures().iter().map(|failure| (failure.id.as_str(), failure.is_final)).collect();
    assert_eq!(found, [("mail-17", true), ("mail-18", true)], "the newest of each job");
}

#[test]
fn a_history_that_comes_too_late_opens_nothing() {
    let mut model = model();
    press(&mut model, "\t\t\th\x1b");
    model.update(Message::History(job_id("mail-18"), Ok(vec![])));
    assert_eq!((&model.mode, model.focus), (&Mode::Browse, Panel::Failures));
}
