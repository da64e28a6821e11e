//! What differs between two configurations, and what of it a worker takes while it runs.
//!
//! Invariant: [`RELOADABLE`] is the one list of settings that a running worker takes. The comments of
//! `default-config.yaml` say the same of the same settings (a test compares them). A secret that differs is noticed and not
//! shown.
//!
//! Not here: applying anything.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::NaqConfig;

/// The settings that a running worker takes when its configuration is read again; `*` stands for a name.
pub const RELOADABLE: [&str; 7] = [
    "queues.configs.*.paused",
    "jobs.max_crashes",
    "workers.concurrency",
    "workers.max_job_duration",
    "workers.shutdown_timeout",
    "workers.pools.*.concurrency",
    "logging.level",
];

/// Whether a running worker takes a setting (dotted).
#[must_use]
pub fn is_reloadable(setting: &str) -> bool {
    RELOADABLE.iter().any(|pattern| match pattern.split_once('*') {
        Some((before, after)) => {
            setting.strip_prefix(before).and_then(|rest| rest.strip_suffix(after)).is_some_and(|name| !name.is_empty())
        }
        None => *pattern == setting,
    })
}

/// A setting that differs between two configurations.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The setting, dotted; a whole section if only a secret in it differs.
    pub setting: String,
    /// Before; null if it was not there. Secrets are redacted.
    pub old: Value,
    /// After; null if it is not there.
    pub new: Value,
}

impl NaqConfig {
    /// Every setting that is another one in `new`, by name.
    #[must_use]
    pub fn changes_to(&self, new: &Self) -> Vec<Change> {
        let (old_settings, new_settings) = (self.settings(), new.settings());
        let names: BTreeSet<&String> = old_settings.keys().chain(new_settings.keys()).collect();
        let mut changes = Vec::new();
        for name in names {
            let (old, new) = (old_settings.get(name), new_settings.get(name));
            if old != new && !(is_nothing(old) && is_nothing(new)) {
                let [old, new] = [old, new].map(|value| value.cloned().unwrap_or(Value::Null));
                changes.push(Change { setting: name.clone(), old, new });
            }
        }
        let with_secrets = [
            ("storage", self.storage == new.storage),
            ("nats", self.nats == new.nats),
            ("traces", self.traces == new.traces),
            ("handlers", self.handlers == new.handlers),
        ];
        for (section, same) in with_secrets {
            let is_in_it = |change: &Change| change.setting.split('.').next() == Some(section);
            if !same && !changes.iter().any(is_in_it) {
                let secret = Value::from(crate::text::REDACTED);
                changes.push(Change { setting: section.to_owned(), old: secret.clone(), new: secret });
            }
        }
        changes
    }
}

/// What an entry of an open table says by not being there: nothing, an empty table, no.
fn is_nothing(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => true,
        Some(Value::Object(entries)) => entries.is_empty(),
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{QueueConfig, Secret, WorkerPoolConfig};

    fn said(changes: &[Change]) -> Vec<String> {
        changes.iter().map(|Change { setting, old, new }| format!("{setting}: {old} → {new}")).collect()
    }

    fn changes(change: impl FnOnce(&mut NaqConfig)) -> Vec<String> {
        let mut new = NaqConfig::default();
        change(&mut new);
        said(&NaqConfig::default().changes_to(&new))
    }

    #[test]
    fn a_change_names_the_setting_and_both_values() {
        assert_eq!(changes(|_| {}), [""; 0]);
        assert_eq!(changes(|config| config.workers.concurrency = 20), ["workers.concurrency: 10 → 20"]);
        assert_eq!(
            changes(|config| config.logging.level = "info,naq_worker=debug".parse().unwrap()),
            ["logging.level: \"info\" → \"info,naq_worker=debug\""]
        );
    }

    #[test]
    fn an_entry_that_comes_says_only_what_it_sets() {
        let mail = QueueConfig { paused: true, ..QueueConfig::default() };
        let add = |config: &mut NaqConfig| {
            config.queues.configs.insert("mail".parse().unwrap(), mail);
        };
        assert_eq!(changes(add), ["queues.configs.mail.paused: null → true"]);
        let add = |config: &mut NaqConfig| {
            config.workers.pools.insert("urgent".to_owned(), WorkerPoolConfig::default());
        };
        assert_eq!(changes(add), ["workers.pools.urgent.queues: null → []"]);
    }

    #[test]
    fn a_secret_that_differs_is_noticed_and_not_shown() {
        let mut old = NaqConfig::default();
        old.nats.auth.token = Some(Secret::new("hunter2"));
        let mut new = old.clone();
        new.nats.auth.token = Some(Secret::new("hunter3"));
        assert_eq!(said(&old.changes_to(&new)), ["nats: \"***\" → \"***\""]);
        assert_eq!(old.changes_to(&old.clone()), []);
    }

    #[test]
    fn a_name_stands_for_one_entry() {
        assert!(is_reloadable("queues.configs.mail.paused") && is_reloadable("workers.pools.a.b.concurrency"));
        for other in ["queues.configs.paused", "queues.configs..paused", "queues.configs.mail.ack_wait", "workers", "x"]
        {
            assert!(!is_reloadable(other), "{other}");
        }
    }
}
