//! What each key does.
//!
//! Invariant: pure, as the [`Model`]; nothing is done to a job that the person at the keys has not seen named. Ctrl-C
//! ends the program whatever is open.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::model::{Ask, History, Mode, Model, Panel, Request};

/// Rows that Page Up and Page Down move by.
const PAGE: usize = 10;
/// The longest filter: no queue has a longer name.
const FILTER_MAX: usize = 64;

/// The help: key and meaning.
pub(super) const HELP: [(&str, &str); 13] = [
    ("Tab, Shift-Tab, ← →", "to the next or previous list"),
    ("↑ ↓, k j", "select a row"),
    ("PgUp PgDn, g G", "ten rows on; first and last row"),
    ("p", "pause the selected queue, or resume it"),
    ("c", "cancel the selected job (asks first)"),
    ("r", "run the selected failed job again"),
    ("h, Enter", "what happened to the selected job"),
    ("/", "show only queues whose name contains…"),
    ("Esc", "close; show all queues again"),
    ("?", "this help"),
    ("q, Ctrl-C", "end"),
    ("", ""),
    ("FAILED … retry", "an attempt failed, another one is to come"),
];

pub(super) fn press(model: &mut Model, key: KeyEvent) -> Option<Request> {
    if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
        return Some(Request::Quit);
    }
    match &mut model.mode {
        Mode::Browse => browse(model, key.code),
        Mode::Filter => {
            type_filter(model, key.code);
            None
        }
        Mode::Help => {
            model.mode = Mode::Browse;
            None
        }
        Mode::Confirm(job) => {
            let job = job.clone();
            model.mode = Mode::Browse;
            if matches!(key.code, KeyCode::Char('y' | 'Y')) {
                model.remark(format!("cancelling {job} …"));
                Some(Request::Store(Ask::Cancel(job)))
            } else {
                model.remark(format!("{job} was not cancelled"));
                None
            }
        }
        Mode::History(history) => {
            if !scroll(history, key.code) {
                model.mode = Mode::Browse;
            }
            None
        }
    }
}

fn browse(model: &mut Model, code: KeyCode) -> Option<Request> {
    match code {
        KeyCode::Char('q') => return Some(Request::Quit),
        KeyCode::Tab | KeyCode::Right => focus(model, 1),
        KeyCode::BackTab | KeyCode::Left => focus(model, Panel::ALL.len() - 1),
        KeyCode::Down | KeyCode::Char('j') => model.select(model.row() + 1),
        KeyCode::Up | KeyCode::Char('k') => model.select(model.row().saturating_sub(1)),
        KeyCode::PageDown => model.select(model.row() + PAGE),
        KeyCode::PageUp => model.select(model.row().saturating_sub(PAGE)),
        KeyCode::Home | KeyCode::Char('g') => model.select(0),
        KeyCode::End | KeyCode::Char('G') => model.select(usize::MAX),
        KeyCode::Char('p') => return pause(model),
        KeyCode::Char('c') => cancel(model),
        KeyCode::Char('r') => return retry(model),
        KeyCode::Char('h') | KeyCode::Enter => return history(model),
        KeyCode::Char('/') => model.mode = Mode::Filter,
        KeyCode::Char('?') => model.mode = Mode::Help,
        KeyCode::Esc => {
            model.filter.clear();
            model.clear_remark();
        }
        _ => {}
    }
    None
}

fn focus(model: &mut Model, by: usize) {
    model.focus = Panel::ALL[(model.focus as usize + by) % Panel::ALL.len()];
}

fn pause(model: &mut Model) -> Option<Request> {
    let Some(queue) = model.selected_queue() else {
        model.remark("p: no queue is selected; Tab leads to the list of queues");
        return None;
    };
    if model.is_paused(&queue) {
        model.remark(format!("resuming {queue} …"));
        Some(Request::Store(Ask::Resume(queue)))
    } else {
        model.remark(format!("pausing {queue} …"));
        Some(Request::Store(Ask::Pause(queue)))
    }
}

fn cancel(model: &mut Model) {
    match model.selected_job() {
        Some(job) => model.mode = Mode::Confirm(job),
        None => model.remark("c: no job is selected; Tab leads to the running ones"),
    }
}

fn retry(model: &mut Model) -> Option<Request> {
    match model.selected_job() {
        Some(job) if model.focus == Panel::Failures => {
            model.remark(format!("running {job} again …"));
            Some(Request::Store(Ask::Retry(job)))
        }
        _ => {
            model.remark("r: no failed job is selected; Tab leads to them");
            None
        }
    }
}

fn history(model: &mut Model) -> Option<Request> {
    let Some(job) = model.selected_job() else {
        model.remark("h: no job is selected; Tab leads to those that run and those that failed");
        return None;
    };
    model.mode = Mode::History(History { job: job.clone(), lines: None, top: 0 });
    Some(Request::Store(Ask::History(job)))
}

fn type_filter(model: &mut Model, code: KeyCode) {
    match code {
        KeyCode::Enter => model.mode = Mode::Browse,
        KeyCode::Esc => {
            model.filter.clear();
            model.mode = Mode::Browse;
        }
        KeyCode::Backspace => drop(model.filter.pop()),
        KeyCode::Char(c) if model.filter.len() < FILTER_MAX => model.filter.push(c),
        _ => {}
    }
}

/// Moves in a history; `false` if it is to be closed.
fn scroll(history: &mut History, code: KeyCode) -> bool {
    let last = history.lines.as_ref().map_or(0, |lines| lines.len().saturating_sub(1));
    history.top = match code {
        KeyCode::Down | KeyCode::Char('j') => history.top + 1,
        KeyCode::Up | KeyCode::Char('k') => history.top.saturating_sub(1),
        KeyCode::PageDown | KeyCode::Char(' ') => history.top + PAGE,
        KeyCode::PageUp => history.top.saturating_sub(PAGE),
        KeyCode::Home | KeyCode::Char('g') => 0,
        KeyCode::End | KeyCode::Char('G') => last,
        KeyCode::Esc | KeyCode::Enter | KeyCode::Char('q' | 'h') => return false,
        _ => history.top,
    }
    .min(last);
    true
}
