//! `naq top`: a live screen of queues, workers, running jobs and failures, with keys to step in.
//!
//! Invariant: one loop owns the screen and the model, and waits for nothing but messages; the store is read and changed in
//! tasks. The terminal is given back as it was, however the command ends. Nothing happens while nothing changes but the
//! clock of the screen, once a second.

use std::{
    io::{self, IsTerminal},
    sync::Arc,
    time::Duration,
};

use crossterm::event::{Event as Input, EventStream, KeyEventKind};
use futures_util::StreamExt as _;
use ratatui::{DefaultTerminal, Terminal, backend::TestBackend};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{Notify, mpsc},
    task::{JoinError, JoinSet},
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    args::TopArgs,
    error::{CliError, with_sources},
    output::{line, note},
    session::Session,
};

mod draw;
mod health;
mod keys;
mod model;
mod panels;
mod rates;
mod store;
#[cfg(test)]
mod tests;
mod text;

use model::{Ask, Message, Model, Request};
use rates::Rates;
use store::Store;

/// Messages that wait for the screen; who reads the store waits when it is full.
const INBOX: usize = 64;
/// Requests that are carried out at a time.
const ASKED_MAX: usize = 16;
/// What was asked for is waited for so long after the screen is closed.
const LAST_WAIT: Duration = Duration::from_secs(3);
/// The width of a frame that goes to no terminal.
const PLAIN_WIDTH: u16 = 120;
/// The most rows of a plain frame.
const PLAIN_ROWS: u16 = 4000;

pub(crate) async fn run(session: &Session, args: TopArgs) -> Result<(), CliError> {
    if session.output().is_json() {
        return Err(CliError::usage("naq top draws for people; it has no JSON")
            .with_hint("`naq queue list --output json`, `naq worker status --output json` and `naq events stream --output json` say the same to programs"));
    }
    let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    if !args.once && !is_terminal {
        return Err(CliError::usage("naq top needs a terminal to draw on and to read keys from")
            .with_hint("`naq top --once` prints one frame; `naq queue stats QUEUE` prints numbers for scripts"));
    }
    let store = Store::open(session, args.queues.clone()).await?;
    let model = Model::new(store.location(), args.queues);
    if args.once {
        return once(&store, model, args.interval).await;
    }
    let mut asked = JoinSet::new();
    let outcome = {
        let mut screen = Screen::open()?;
        watch(&mut screen.0, &store, model, args.interval, &mut asked).await
    };
    finish(asked).await;
    outcome
}

/// Prints one frame in which every row has room.
async fn once(store: &Store, mut model: Model, interval: Duration) -> Result<(), CliError> {
    let snapshot = store.look().await.map_err(CliError::failed)?;
    model.update(Message::Looked(Box::new(snapshot)));
    model.update(Message::Failed(store.failures().await?));
    model.rates = Rates::known(store.flow().await?);
    let width = match crossterm::terminal::size() {
        Ok((width, _)) if io::stdout().is_terminal() => width,
        _ => PLAIN_WIDTH,
    };
    let size = (width, draw::full_height(&model).min(PLAIN_ROWS));
    line(&plain(&model, interval, size))
}

/// A frame as text.
fn plain(model: &Model, interval: Duration, (width, height): (u16, u16)) -> String {
    let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
    let Ok(frame) = terminal.draw(|frame| draw::draw(frame, model, interval));
    let rows = frame.buffer.content.chunks(usize::from(width.max(1)));
    let rows = rows.map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>().trim_end().to_owned());
    rows.collect::<Vec<_>>().join("\n")
}

/// The terminal while it is drawn on: raw, another screen. Dropping it gives the terminal back; a panic does too.
struct Screen(DefaultTerminal);

impl Screen {
    fn open() -> Result<Self, CliError> {
        let opened = ratatui::try_init().map(Self);
        opened.map_err(|e| {
            ratatui::restore();
            CliError::failed(format!("cannot draw on this terminal: {e}"))
        })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Signals that end the program; Ctrl-C is a key here.
struct Ends {
    interrupted: Signal,
    terminated: Signal,
    hung_up: Signal,
}

impl Ends {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupted: signal(SignalKind::interrupt())?,
            terminated: signal(SignalKind::terminate())?,
            hung_up: signal(SignalKind::hangup())?,
        })
    }

    /// # Cancel safety
    /// Cancel safe.
    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupted.recv() => {}
            _ = self.terminated.recv() => {}
            _ = self.hung_up.recv() => {}
        }
    }
}

/// What the loop waits for.
enum Next {
    Input(Option<io::Result<Input>>),
    Told(Option<Message>),
    Answered(Result<Message, JoinError>),
    Second,
    ReaderEnded(Option<Result<(), JoinError>>),
    End,
}

/// Shows what comes until somebody ends it.
async fn watch(
    terminal: &mut DefaultTerminal,
    store: &Store,
    mut model: Model,
    every: Duration,
    asked: &mut JoinSet<Message>,
) -> Result<(), CliError> {
    let (told, mut inbox) = mpsc::channel(INBOX);
    let sooner = Arc::new(Notify::new());
    let mut readers = JoinSet::new();
    readers.spawn(store.clone().keep_looking(every, Arc::clone(&sooner), told.clone()));
    readers.spawn(store.clone().keep_following(told));
    let cannot = |e: io::Error| CliError::failed(format!("cannot use this terminal: {e}"));
    let mut ends = Ends::listen().map_err(cannot)?;
    let mut inputs = EventStream::new();
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_stale = true;
    loop {
        if is_stale {
            terminal.draw(|frame| draw::draw(frame, &model, every)).map_err(cannot)?;
        }
        let next = tokio::select! {
            biased;
            () = ends.asked() => Next::End,
            input = inputs.next() => Next::Input(input),
            // Before what is told, of which there may always be more.
            _ = seconds.tick() => Next::Second,
            Some(answer) = asked.join_next() => Next::Answered(answer),
            message = inbox.recv() => Next::Told(message),
            ended = readers.join_next() => Next::ReaderEnded(ended),
        };
        let message = match next {
            Next::End | Next::Input(None) => return Ok(()),
            Next::Input(Some(Err(error))) => return Err(cannot(error)),
            Next::Input(Some(Ok(Input::Key(key)))) if key.kind != KeyEventKind::Release => Message::Key(key),
            Next::Input(Some(Ok(other))) => {
                is_stale = matches!(other, Input::Resize(..));
                continue;
            }
            Next::Told(Some(message)) => message,
            Next::Answered(Ok(message)) => {
                sooner.notify_one();
                message
            }
            Next::Second => Message::Second,
            Next::Answered(Err(error)) => return Err(broken(&error)),
            Next::ReaderEnded(Some(Err(error))) => return Err(broken(&error)),
            Next::Told(None) | Next::ReaderEnded(_) => return Err(CliError::failed("naq top reads nothing any more")),
        };
        // Events come in any number: they are seen with the next second.
        is_stale = !matches!(message, Message::Happened(_));
        match model.update(message) {
            Some(Request::Quit) => return Ok(()),
            Some(Request::Store(ask)) => begin(store, ask, asked, &mut model),
            None => {}
        }
    }
}

fn begin(store: &Store, ask: Ask, asked: &mut JoinSet<Message>, model: &mut Model) {
    if asked.len() < ASKED_MAX {
        asked.spawn(store.clone().answer(ask));
    } else {
        model.remark("the store is slow: wait until what was asked for is done");
    }
}

fn broken(error: &JoinError) -> CliError {
    CliError::failed(format!("a part of naq top ended: {}", with_sources(error)))
}

/// Lets what was asked for come to its end.
async fn finish(mut asked: JoinSet<Message>) {
    let ended = timeout(LAST_WAIT, async { while asked.join_next().await.is_some() {} }).await;
    if ended.is_err() {
        note("the store did not answer: what was asked for last may not have been done");
    }
}
