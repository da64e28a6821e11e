//! What the screen looks like: a pure function of the [`Model`].
//!
//! Invariant: 80 columns and 24 rows show everything that is needed; more room shows more. Colours only underline what
//! words say. Lists scroll so that the selected row is seen; lists without the keys begin at their top.

use std::time::Duration;

use naq_services::jobs::QueueReport;
use ratatui::{
    Frame,
    layout::Rect,
    style::{Color, Modifier, Style},
    text::Line,
    widgets::{Block, Clear, Paragraph},
};

use super::{
    health::{Health, health},
    keys::HELP,
    model::{History, Mode, Model, Panel},
    panels::{self, List},
    text::{clock, count, fit, rate},
};

/// The smallest screen.
const MIN: (u16, u16) = (72, 12);
/// Lines above the lists.
const HEAD: u16 = 3;
/// A list that others could use the room of keeps so many lines.
const LIST_MIN: u16 = 5;
const KEYS: &str = "Tab list  ↑↓ row  p pause  c cancel  r retry  h history  / filter  ? help  q end";

const PLAIN: Style = Style::new();
const STRONG: Style = Style::new().add_modifier(Modifier::BOLD);

/// How many lines a plain frame needs to show every row.
pub(super) fn full_height(model: &Model) -> u16 {
    let rows: usize = wants(model).iter().map(|want| usize::from(*want)).sum();
    HEAD.saturating_add(1).saturating_add(u16::try_from(rows).unwrap_or(u16::MAX))
}

pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, interval: Duration) {
    let area = frame.area();
    if area.width < MIN.0 || area.height < MIN.1 {
        let text = format!("naq top needs {}x{}; this is {}x{}; q quits", MIN.0, MIN.1, area.width, area.height);
        frame.render_widget(Paragraph::new(text), area);
        return;
    }
    head(frame, Rect { height: HEAD, ..area }, model, interval);
    let lists = Rect { y: area.y + HEAD, height: area.height - HEAD - 1, ..area };
    let mut y = lists.y;
    for (panel, height) in Panel::ALL.into_iter().zip(heights(wants(model), lists.height, model.focus)) {
        list(frame, Rect { y, height, ..lists }, model, panel);
        y += height;
    }
    last_line(frame, Rect { y: area.bottom() - 1, height: 1, ..area }, model);
    match &model.mode {
        Mode::Help => help(frame, area),
        Mode::History(history) => show_history(frame, area, history),
        Mode::Browse | Mode::Filter | Mode::Confirm(_) => {}
    }
}

fn put(frame: &mut Frame<'_>, x: u16, y: u16, width: u16, text: &str, style: Style) {
    let text = fit(text, usize::from(width));
    frame.buffer_mut().set_stringn(x, y, text, usize::from(width), style);
}

fn head(frame: &mut Frame<'_>, area: Rect, model: &Model, interval: Duration) {
    let snapshot = model.snapshot.as_ref();
    let time = snapshot.map_or_else(String::new, |snapshot| format!("{} UTC", clock(snapshot.now)));
    let unknown = if snapshot.is_some() { "none" } else { "?" };
    let leader = snapshot.and_then(|snapshot| snapshot.leader.as_deref()).unwrap_or(unknown);
    let leader = snapshot
        .and_then(|snapshot| snapshot.workers.iter().find(|worker| worker.id == leader))
        .and_then(|worker| worker.name.as_deref())
        .unwrap_or(leader);
    let right = format!("leader {}  {time}", fit(leader, 24));
    let right_width = u16::try_from(Line::raw(&right).width()).unwrap_or(area.width).min(area.width);
    let left_width = area.width.saturating_sub(right_width + 2);
    let only: Vec<&str> = model.only.iter().map(|queue| queue.as_str()).collect();
    let only = if only.is_empty() { String::new() } else { format!("  only {}", only.join(", ")) };
    put(frame, area.x, area.y, left_width, &format!("naq top  {}{only}", model.store), STRONG);
    put(frame, area.right() - right_width, area.y, right_width, &right, PLAIN);

    put(frame, area.x, area.y + 1, area.width, &totals(model), PLAIN);

    let (state, text) = health(model, interval);
    let (word, color) = match state {
        Health::Good => ("ok", Color::Green),
        Health::Doubtful => ("look", Color::Yellow),
        Health::Bad => ("BAD", Color::Red),
    };
    put(frame, area.x, area.y + 2, area.width, &format!("{word}: {text}"), STRONG.fg(color));
}

/// The sums of all queues that are shown, and what flows through them.
fn totals(model: &Model) -> String {
    let queues = model.queues();
    let sum = |of: fn(&QueueReport) -> u64| count(queues.iter().map(|queue| of(queue)).sum());
    let flow = match model.rates.all() {
        Some(flow) => {
            let [enqueued, completed, failed] = [flow.enqueued, flow.completed, flow.failed].map(rate);
            format!("in {enqueued}/s  done {completed}/s  failed {failed}/s")
        }
        None => "counting …".to_owned(),
    };
    format!(
        "pending {} running {} later {} dead {} | {flow}",
        sum(|queue| queue.pending),
        sum(|queue| queue.running),
        sum(|queue| queue.scheduled + queue.retry + queue.waiting),
        sum(|queue| queue.failed),
    )
}

/// How many lines each list would take to show all: its head, its rows, and one that says that there are none.
fn wants(model: &Model) -> [u16; 4] {
    let rows = [model.queues().len(), model.workers().len(), model.running().len(), model.failures().len()];
    rows.map(|rows| u16::try_from(rows.max(1) + 1).unwrap_or(u16::MAX))
}

/// How many lines each list gets: first a few each, then the one with the keys, then the others in order.
fn heights(wants: [u16; 4], mut room: u16, focus: Panel) -> [u16; 4] {
    let least = LIST_MIN.min(room / 4);
    let mut heights = wants.map(|want| want.min(least));
    room -= heights.iter().sum::<u16>();
    for panel in [focus].into_iter().chain(Panel::ALL) {
        let i = panel as usize;
        let more = (wants[i] - heights[i]).min(room);
        heights[i] += more;
        room -= more;
    }
    // What nobody needs stays below the last list.
    heights
}

fn list(frame: &mut Frame<'_>, area: Rect, model: &Model, panel: Panel) {
    if area.height == 0 {
        return;
    }
    let has_keys = model.focus == panel;
    let room = usize::from(area.height - 1);
    let first = if has_keys { (model.row() + 1).saturating_sub(room) } else { 0 };
    let List { columns, rows, empty } = panels::list(model, panel, area.width, first..first + room);
    let places = panels::places(&columns, area.width);
    let head = if has_keys { STRONG.add_modifier(Modifier::REVERSED) } else { STRONG.fg(Color::Cyan) };
    frame.buffer_mut().set_style(Rect { height: 1, ..area }, head);
    let mut line = |y: u16, texts: &[String], style: Style| {
        for ((text, column), (x, cells)) in texts.iter().zip(&columns).zip(&places) {
            let text = fit(text, usize::from(*cells));
            let gap = if column.is_number { cells.saturating_sub(width(&text)) } else { 0 };
            frame.buffer_mut().set_stringn(area.x + x + gap, y, text, usize::from(*cells), style);
        }
    };
    let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
    line(area.y, &names, head);
    for (y, row) in (area.y + 1..area.bottom()).zip(&rows) {
        line(y, &row.cells, row.style);
    }
    if has_keys && !rows.is_empty() {
        let y = area.y + 1 + u16::try_from(model.row() - first).unwrap_or(0);
        let marked = Style::new().add_modifier(Modifier::REVERSED);
        frame.buffer_mut().set_style(Rect { y, height: 1, ..area }, marked);
    }
    if rows.is_empty() && room > 0 {
        put(frame, area.x, area.y + 1, area.width, empty, Style::new().add_modifier(Modifier::DIM));
    }
}

fn width(text: &str) -> u16 {
    u16::try_from(Line::raw(text).width()).unwrap_or(u16::MAX)
}

fn last_line(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let (text, style) = match (&model.mode, model.remark_text()) {
        (Mode::Confirm(job), _) => (format!("cancel {job}? y/n"), STRONG.fg(Color::Yellow)),
        (Mode::Filter, _) => (format!("queues that contain: {}_   (Enter keeps, Esc shows all)", model.filter), STRONG),
        (_, Some(remark)) => (remark.to_owned(), STRONG),
        _ if !model.filter.is_empty() => {
            (format!("only queues that contain {:?}; Esc shows all", model.filter), STRONG)
        }
        _ => (KEYS.to_owned(), Style::new().add_modifier(Modifier::DIM)),
    };
    put(frame, area.x, area.y, area.width, &text, style);
}

/// A frame in the middle, and what is inside it.
fn pop_up(frame: &mut Frame<'_>, area: Rect, title: &str, size: (u16, u16)) -> Rect {
    let (width, height) = (size.0.min(area.width), size.1.min(area.height));
    let outer = Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    let block = Block::bordered().title(fit(title, usize::from(width.saturating_sub(2))));
    let inner = block.inner(outer);
    frame.render_widget(Clear, outer);
    frame.render_widget(block, outer);
    inner
}

fn help(frame: &mut Frame<'_>, area: Rect) {
    let rows = u16::try_from(HELP.len()).unwrap_or(u16::MAX);
    let inner = pop_up(frame, area, " keys (any key closes) ", (76, rows.saturating_add(2)));
    for (y, (key, meaning)) in (inner.y..inner.bottom()).zip(HELP) {
        put(frame, inner.x + 1, y, inner.width.saturating_sub(1), &format!("{key:<20} {meaning}"), PLAIN);
    }
}

fn show_history(frame: &mut Frame<'_>, area: Rect, history: &History) {
    let title = format!(" {} (↑↓ scroll, Esc closes) ", history.job);
    let reading = ["reading …".to_owned()];
    let lines = history.lines.as_deref().unwrap_or(&reading);
    let rows = u16::try_from(lines.len()).unwrap_or(u16::MAX).saturating_add(2);
    let size = (area.width.saturating_sub(2), rows.clamp(5, area.height.saturating_sub(4)));
    let inner = pop_up(frame, area, &title, size);
    for (y, text) in (inner.y..inner.bottom()).zip(lines.iter().skip(history.top)) {
        put(frame, inner.x, y, inner.width, text, PLAIN);
    }
}
