//! Every command of the `naq` binary, as a library.
//!
//! Invariant: [`run`] is the whole program: it reads the command line, prints, and returns the exit code. A user's own
//! binary that calls it gets every command, with its own handlers compiled in. Never names the facade crate `naq`.

use std::process::ExitCode;

use clap::Parser;
use naq_services::States;
use naq_worker::{
    HandlerRegistry,
    handler::{DuplicateHandler, JobHandler, typed},
};

pub mod args;
mod commands;
mod configured;
pub mod error;
mod listening;
mod output;
mod reload;
mod session;

pub use error::CliError;
pub use session::Session;

use args::{Cli, Command, SchedulerCommand, StoreCommand, WorkerCommand};

/// Runs the command line of this process with every handler that `#[naq::job]` registered, and returns its exit code.
/// [`App`] does the same with values that handlers share.
///
/// # Cancel safety
/// Not cancel safe: drop it only to end the process.
pub async fn run() -> ExitCode {
    App::new().run().await
}

/// A program of one's own that has every command of `naq`: with its own handlers and what they share.
///
/// ```no_run
/// # struct Pool;
/// # async fn connect() -> Pool { Pool }
/// # async fn main_of_my_app() -> std::process::ExitCode {
/// naq_cli::App::new().state(connect().await).run().await // handlers take `State<Pool>`
/// # }
/// ```
#[derive(Debug)]
#[must_use = "it does nothing before it is run"]
pub struct App {
    handlers: HandlerRegistry,
    states: States,
    duplicate: Option<DuplicateHandler>,
}

impl Default for App {
    fn default() -> Self {
        Self::new()
    }
}

impl App {
    /// With every handler that `#[naq::job]` registered.
    pub fn new() -> Self {
        let mut handlers = HandlerRegistry::default();
        let duplicate = handlers.insert_registered().err();
        Self { handlers, states: States::default(), duplicate }
    }

    /// And an async function as the handler of a kind.
    pub fn handler<P: 'static>(mut self, kind: impl Into<String>, function: impl JobHandler<P>) -> Self {
        let inserted = self.handlers.insert(typed(kind, function));
        self.duplicate = self.duplicate.or(inserted.err());
        self
    }

    /// And a value that handlers can ask for by its type, as `State<T>`.
    pub fn state<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.states.insert(value);
        self
    }

    /// Runs the command line of this process, and returns its exit code; the built-in handlers and those of the
    /// configuration are added by `worker start`. Ends the process instead of returning if handlers that do not end hold its
    /// threads: a runtime would wait for those for ever.
    ///
    /// # Cancel safety
    /// Not cancel safe: drop it only to end the process.
    pub async fn run(self) -> ExitCode {
        let Cli { global, command } = Cli::parse();
        if let Some(duplicate) = &self.duplicate {
            return ExitCode::from(code(Err(CliError::usage(duplicate.to_string()))));
        }
        let command = match command {
            Command::OnStore(command) => command,
            Command::System(command) => return ExitCode::from(code(commands::system::run(&global, command).await)),
        };
        let level = match &command {
            StoreCommand::Worker(WorkerCommand::Start(_)) | StoreCommand::Scheduler(SchedulerCommand::Start(_)) => {
                "info,async_nats=warn"
            }
            StoreCommand::Top(_) => session::SILENT,
            // Its jobs fail on purpose, and its workers lose their stores; what went wrong is in its report.
            StoreCommand::Bench(_) => "error,naq_worker=off",
            _ => session::QUIET,
        };
        let session = match Session::start(&global, level) {
            Ok(session) => session,
            Err(error) => return ExitCode::from(code(Err(error))),
        };
        // Boxed: the futures of all commands together are too deep a type for the compiler.
        let outcome = Box::pin(dispatch(&session, command, self)).await;
        let stuck = session.is_stuck();
        session.end().await;
        let code = code(outcome);
        if stuck {
            std::process::exit(code.into());
        }
        ExitCode::from(code)
    }
}

async fn dispatch(session: &Session, command: StoreCommand, app: App) -> Result<(), CliError> {
    match command {
        StoreCommand::Worker(command) => Box::pin(commands::worker::run(session, command, app)).await,
        StoreCommand::Job(command) => Box::pin(commands::job::run(session, command)).await,
        StoreCommand::Queue(command) => Box::pin(commands::queue::run(session, command)).await,
        StoreCommand::Dead(command) => Box::pin(commands::dead::run(session, command)).await,
        StoreCommand::Scheduler(command) => Box::pin(commands::scheduler::run(session, command)).await,
        StoreCommand::Events(command) => Box::pin(commands::events::run(session, command)).await,
        StoreCommand::Top(args) => Box::pin(commands::top::run(session, args)).await,
        StoreCommand::Bench(args) => Box::pin(commands::bench::run(session, args)).await,
        StoreCommand::Demo(args) => Box::pin(commands::demo::run(session, args)).await,
    }
}

/// The exit code; what went wrong is said.
fn code(outcome: Result<(), CliError>) -> u8 {
    match outcome {
        Ok(()) => error::exit::OK,
        Err(error) => report(&error),
    }
}

/// Says what went wrong; the exit code.
fn report(error: &CliError) -> u8 {
    output::note(&format!("error: {error}"));
    if let Some(hint) = error.hint() {
        output::note(&format!("hint: {hint}"));
    }
    error.code()
}
