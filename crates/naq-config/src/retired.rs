//! Settings that NAQ had and naq does not: what became of each, so that an old file still loads and says so.
//!
//! Invariant: a retired setting never fails a load and is never dropped without a warning; a renamed one keeps working.

use figment::value::{Dict, Value};

use crate::{
    layers::Layer,
    problem::ConfigWarning,
    tree::{self, Path},
};

pub(crate) const EVENTS_BESIDE_JOBS: &str = "has no effect: events are kept in the same store as the jobs";
pub(crate) const NAMES_FROM_PREFIX: &str =
    "has no effect: names of subjects and buckets follow from queues.prefix, so that every tool finds them";
pub(crate) const PYTHON_CLASSES: &str = "has no effect: it names Python classes";
const MAX_DELIVER: &str =
    "has no effect: a job is redelivered until it ends; what is bounded are jobs.max_retries and jobs.max_crashes";
const LABEL: &str = "has no effect: the section's own name is its name";
const PICKLE: &str = "has no effect: pickle is readable by Python only; jobs are stored as json";

pub(crate) const TWO_PINGS: &str =
    "has no effect: a connection counts as dead after two unanswered probes; set nats.ping_interval";

const STAYS_DUE: &str = "has no effect: a run that cannot be stored stays due and is tried again, however often";

/// Retired settings; `*` stands for any name.
const RETIRED: [(&str, &str); 8] = [
    ("scheduler.max_failures", STAYS_DUE),
    ("nats.max_outstanding_pings", TWO_PINGS),
    ("events.storage_url", EVENTS_BESIDE_JOBS),
    ("events.storage_type", EVENTS_BESIDE_JOBS),
    ("events.subject_prefix", NAMES_FROM_PREFIX),
    ("results.kv_bucket", NAMES_FROM_PREFIX),
    ("serialization.json", PYTHON_CLASSES),
    ("queues.configs.*.max_deliver", MAX_DELIVER),
];

/// Settings under another name.
const RENAMED: [(&str, &str); 4] = [
    ("nats.auth.username", "nats.auth.user"),
    ("queues.default_name", "queues.default"),
    ("serialization.method", "serialization.job_serializer"),
    ("logging.file_path", "logging.file"),
];

/// Removes retired settings from a layer, moves renamed ones, and says what had no effect.
pub(crate) fn apply(layer: &mut Layer, warnings: &mut Vec<ConfigWarning>) {
    for (old, new) in RENAMED {
        if let Some(value) = tree::remove(&mut layer.tree, &tree::path(old)) {
            if layer.texts.remove(&tree::path(old)) {
                layer.texts.insert(tree::path(new));
            }
            tree::insert(&mut layer.tree, &tree::path(new), value);
        }
    }
    for (pattern, reason) in RETIRED {
        for path in matches(&layer.tree, pattern) {
            tree::remove(&mut layer.tree, &path);
            warnings.push(layer.warning(&path, reason));
        }
    }
    let serializer = tree::path("serialization.job_serializer");
    let is_pickle =
        |value: &Value| value.as_str().is_some_and(|word| matches!(word, "pickle" | "cloudpickle" | "dill"));
    if tree::get(&layer.tree, &serializer).is_some_and(is_pickle) {
        tree::remove(&mut layer.tree, &serializer);
        warnings.push(layer.warning(&serializer, PICKLE));
    }
}

/// The form in which NAQ wrote an environment: a label, and overrides by dotted name. Both are unfolded here.
pub(crate) fn unfold_environment(layer: &mut Layer, warnings: &mut Vec<ConfigWarning>) {
    if layer.tree.get("name").is_some_and(|name| name.as_str().is_some()) {
        layer.tree.remove("name");
        warnings.push(layer.warning(&tree::path("name"), LABEL));
    }
    if let Some(Value::Dict(_, overrides)) = layer.tree.get("overrides").cloned() {
        layer.tree.remove("overrides");
        for (key, value) in overrides {
            tree::insert(&mut layer.tree, &tree::path(&key), value);
        }
    }
}

fn matches(dict: &Dict, pattern: &str) -> Vec<Path> {
    let mut found: Vec<(Path, &Dict)> = vec![(Path::new(), dict)];
    let segments: Vec<&str> = pattern.split('.').collect();
    let Some((last, parents)) = segments.split_last() else { return Vec::new() };
    for segment in parents {
        found = found
            .into_iter()
            .flat_map(|(path, dict)| {
                dict.iter().filter(|(name, _)| *segment == "*" || name.as_str() == *segment).filter_map(
                    move |(name, value)| {
                        let mut path = path.clone();
                        path.push(name.clone());
                        value.as_dict().map(|dict| (path, dict))
                    },
                )
            })
            .collect();
    }
    found
        .into_iter()
        .filter(|(_, dict)| dict.contains_key(*last))
        .map(|(mut path, _)| {
            path.push((*last).to_owned());
            path
        })
        .collect()
}
