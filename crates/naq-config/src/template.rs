//! Templates for a configuration file of one's own: the default file, with the settings that suit a purpose.
//!
//! Invariant: a template is the commented default file in which the values of some settings differ; what it says is what
//! a program that reads it does.

use crate::{DEFAULT_CONFIG, text::words};

words! {
    /// What a configuration is for.
    #[derive(Default)]
    Purpose {
        /// A person who tries things out: more is logged.
        #[default]
        Development = "development",
        /// A service: lines for a collector, metrics and probes.
        Production = "production",
        /// Automatic tests: a store in memory, everything quick.
        Testing = "testing",
    }
}

impl Purpose {
    /// Settings that differ from the defaults: section, key, value.
    fn settings(self) -> &'static [(&'static str, &'static str, &'static str)] {
        match self {
            Self::Development => &[("logging", "level", "debug")],
            Self::Production => &[("workers", "listen", "9464"), ("logging", "mode", "prod")],
            Self::Testing => &[
                ("storage", "url", "memory://testing"),
                ("workers", "heartbeat_interval", "1s"),
                ("workers", "ttl", "5s"),
                ("workers", "shutdown_timeout", "2s"),
                ("scheduler", "lock_ttl", "2s"),
                ("scheduler", "lock_renew_interval", "500ms"),
                ("events", "flush_interval", "20ms"),
                ("logging", "level", "warn"),
            ],
        }
    }
}

/// A commented configuration file with every setting.
#[must_use]
pub fn template(purpose: Purpose) -> String {
    let settings = purpose.settings();
    let names: Vec<String> = settings.iter().map(|(section, key, _)| format!("{section}.{key}")).collect();
    let mut text = format!("# For {purpose}: {} differ from the defaults.\n#\n", names.join(", "));
    let mut section = "";
    for line in DEFAULT_CONFIG.lines() {
        if let Some(name) = line.strip_suffix(':').filter(|name| !name.starts_with([' ', '#'])) {
            section = name;
        }
        // A setting that is an example in the default file has a `#` before it.
        let key = line
            .strip_prefix("  ")
            .map(|line| line.strip_prefix('#').unwrap_or(line))
            .and_then(|line| line.split_once(": "));
        let chosen = settings.iter().find(|(of, name, _)| *of == section && key.is_some_and(|(key, _)| key == *name));
        match chosen {
            Some((_, name, value)) => text.push_str(&format!("  {name}: {value}\n")),
            None => text.push_str(&format!("{line}\n")),
        }
    }
    text
}
