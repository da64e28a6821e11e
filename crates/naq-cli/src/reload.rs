//! SIGHUP while a worker or scheduler runs: the configuration is read again, and what a running worker takes is changed.
//!
//! Invariant: a configuration with a mistake changes nothing. Each setting that differs is told of once: it has taken
//! effect, or it waits for the next start. What a flag decides stays. Other commands do not listen, and end as ever.

use std::{
    convert::Infallible,
    io::{self, IsTerminal},
};

use naq_config::{Change, LogFilter, NaqConfig, is_reloadable};
use naq_telemetry::logging::LogError;
use naq_worker::{Adjuster, Shutdown};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    commands::config::text,
    configured::{self, Concurrency},
    error::{CliError, with_sources},
    session::Session,
};

const LEVEL: &str = "logging.level";

/// The signal. Several that come before one is answered are one.
pub(crate) struct Hangups {
    signal: Signal,
    on_terminal: bool,
}

impl Hangups {
    /// Takes the signal from now on.
    ///
    /// # Errors
    /// If the operating system refuses it.
    pub(crate) fn listen() -> Result<Self, CliError> {
        let signal = signal(SignalKind::hangup())
            .map_err(|error| CliError::failed(format!("cannot listen for signals: {error}")))?;
        Ok(Self { signal, on_terminal: is_on_terminal() })
    }

    /// Answers each hangup: reads the configuration again, or, if the terminal is gone on which the program was started,
    /// asks it to stop. (One that was started by nohup or a supervisor is on no terminal.)
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn follow(mut self, mut reload: Reload<'_>, shutdown: &Shutdown) -> Infallible {
        loop {
            if self.signal.recv().await.is_none() {
                // The runtime ends, and with it this.
                std::future::pending::<()>().await;
            }
            if self.on_terminal && !is_on_terminal() {
                tracing::info!("the terminal is gone: asked to stop");
                shutdown.request();
            } else {
                reload.reload();
            }
        }
    }
}

fn is_on_terminal() -> bool {
    io::stdin().is_terminal() || io::stdout().is_terminal() || io::stderr().is_terminal()
}

/// What runs, and with which settings.
pub(crate) struct Reload<'a> {
    session: &'a Session,
    worker: Option<(Adjuster, Concurrency)>,
    /// The configuration that was taken last; only what a running worker takes of it is in effect.
    taken: NaqConfig,
}

impl<'a> Reload<'a> {
    pub(crate) fn of_worker(session: &'a Session, adjuster: Adjuster, concurrency: Concurrency) -> Self {
        Self { session, worker: Some((adjuster, concurrency)), taken: session.config().clone() }
    }

    pub(crate) fn of_scheduler(session: &'a Session) -> Self {
        Self { session, worker: None, taken: session.config().clone() }
    }

    fn reload(&mut self) {
        let loaded = match self.session.load_again() {
            Ok(loaded) => loaded,
            Err(error) => {
                for problem in &error.problems {
                    tracing::error!(setting = problem.key, "not reloaded: {problem}");
                }
                return;
            }
        };
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let changes = Changes::between(self.session.config(), &self.taken, &loaded.config, |setting| {
            self.is_concerned(setting, &loaded.config)
        });
        match self.apply(&loaded.config, &changes) {
            Ok(()) => self.taken = loaded.config,
            Err(error) => tracing::error!("not reloaded: {error}"),
        }
    }

    /// Whether a setting that a running worker takes decides something here.
    fn is_concerned(&self, setting: &str, config: &NaqConfig) -> bool {
        match &self.worker {
            _ if setting == LEVEL => self.session.log().is_some(),
            Some((_, concurrency)) => !concurrency.overrules(setting, config),
            None => !is_reloadable(setting),
        }
    }

    /// Changes what runs, and tells of it. Either all is changed or nothing.
    fn apply(&self, new: &NaqConfig, changes: &Changes) -> Result<(), String> {
        let was_heard = tracing::enabled!(tracing::Level::INFO);
        // First, because a filter may yet turn out to be none.
        self.set_level(&new.logging.level)?;
        if let Some((adjuster, concurrency)) = &self.worker
            && let Err(error) = adjuster.adjust(|worker| *worker = configured::adjustable(new, concurrency))
        {
            self.set_level(&self.taken.logging.level)?;
            return Err(error.to_string());
        }
        // What silences these lines does so after them.
        let is_last_word = was_heard && !tracing::enabled!(tracing::Level::INFO);
        if is_last_word {
            self.set_level(&self.taken.logging.level)?;
        }
        changes.tell();
        if is_last_word { self.set_level(&new.logging.level) } else { Ok(()) }
    }

    fn set_level(&self, level: &LogFilter) -> Result<(), String> {
        self.session.log().map_or(Ok(()), |log| log.set_level(level)).map_err(|error: LogError| with_sources(&error))
    }
}

/// What differs.
#[derive(Debug, PartialEq)]
struct Changes {
    /// What is taken now.
    taken: Vec<Change>,
    /// Settings that wait for the next start.
    waiting: Vec<String>,
}

impl Changes {
    /// What is new in `new`, after `started`, of which is in effect what a running worker does not take, and `taken`, of
    /// which is what it does. `is_concerned`: whether a setting decides something here.
    fn between(started: &NaqConfig, taken: &NaqConfig, new: &NaqConfig, is_concerned: impl Fn(&str) -> bool) -> Self {
        let concerned = |change: &Change| is_concerned(&change.setting);
        let taken =
            taken.changes_to(new).into_iter().filter(|change| is_reloadable(&change.setting) && concerned(change));
        let waiting =
            started.changes_to(new).into_iter().filter(|change| !is_reloadable(&change.setting) && concerned(change));
        Self { taken: taken.collect(), waiting: waiting.map(|change| change.setting).collect() }
    }

    fn tell(&self) {
        for Change { setting, old, new } in &self.taken {
            tracing::info!(setting, old = text(old), new = text(new), "reloaded");
        }
        if !self.waiting.is_empty() {
            let settings = self.waiting.join(", ");
            tracing::warn!(settings, "changed settings that take effect when the worker is started again");
        }
        if self.taken.is_empty() && self.waiting.is_empty() {
            tracing::info!("reloaded: nothing has changed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(settings: &[(&str, &str)]) -> NaqConfig {
        let flags = settings.iter().map(|(key, value)| naq_config::FlagOverride::new("-", *key, *value)).collect();
        naq_config::load(&naq_config::LoadOptions { flags, ..Default::default() }).unwrap().config
    }

    fn names(changes: &Changes) -> (Vec<&str>, Vec<&str>) {
        let taken = changes.taken.iter().map(|change| change.setting.as_str()).collect();
        (taken, changes.waiting.iter().map(String::as_str).collect())
    }

    #[test]
    fn what_waits_is_named_until_it_is_as_at_the_start_and_what_is_taken_once() {
        let started = config(&[]);
        let all = |_: &str| true;
        let new = config(&[("workers.concurrency", "3"), ("queues.ack_wait", "1m")]);
        let first = Changes::between(&started, &started, &new, all);
        assert_eq!(names(&first), (vec!["workers.concurrency"], vec!["queues.ack_wait"]));
        let again = Changes::between(&started, &new, &new, all);
        assert_eq!(names(&again), (vec![], vec!["queues.ack_wait"]));
        let back = Changes::between(&started, &new, &started, all);
        assert_eq!(names(&back), (vec!["workers.concurrency"], vec![]));
    }

    #[test]
    fn a_setting_that_decides_nothing_here_is_not_told_of() {
        let started = config(&[]);
        let pools = |mine: &str| {
            let pools =
                format!("{{mine: {{queues: [a], concurrency: {mine}}}, other: {{queues: [b], concurrency: 4}}}}");
            config(&[("workers.pools", &pools), ("workers.concurrency", "3")])
        };
        let told = |concurrency: &Concurrency, new: &NaqConfig| {
            let concerned = |setting: &str| !concurrency.overrules(setting, new);
            let changes = Changes::between(&started, &started, new, concerned);
            let (taken, waiting) = names(&changes);
            (taken.join(" "), waiting.join(" "))
        };
        let said = |taken: &str, waiting: &str| (taken.to_owned(), waiting.to_owned());
        let no_pool = Concurrency { flag: None, pool: None };
        assert_eq!(told(&no_pool, &pools("5")), said("workers.concurrency", ""));
        let in_pool = Concurrency { flag: None, pool: Some("mine".to_owned()) };
        let (mine, queues) = ("workers.pools.mine.concurrency", "workers.pools.mine.queues");
        assert_eq!(told(&in_pool, &pools("5")), said(mine, queues));
        assert_eq!(told(&in_pool, &pools("null")), said("workers.concurrency", queues));
        let by_flag = Concurrency { flag: Some(8), ..in_pool };
        assert_eq!(told(&by_flag, &pools("5")), said("", queues));
        assert_eq!((no_pool.of(&pools("5")), by_flag.of(&pools("5"))), (3, 8));
    }
}
