//! From trees to types: merges layers, reads the typed configuration, and collects every problem on the way.
//!
//! Invariant: reading goes on after a problem, without the value that caused it, so that one load reports them all; it
//! ends because every round removes a value or uses up one meaning of a text.

use std::collections::{BTreeMap, BTreeSet};

use figment::{
    Figment, Profile, Provider as _,
    error::Kind,
    value::{Dict, Tag, Value},
};

use crate::{
    NaqConfig,
    layers::{self, Layer, Numbered},
    problem::{ConfigProblem, ProblemKind, Source, nearest},
    tree::{self, Path},
};

/// The most problems that one load reports.
const PROBLEMS_MAX: usize = 200;

/// A merged and typed configuration.
pub(crate) struct Extracted {
    pub(crate) config: NaqConfig,
    pub(crate) problems: Vec<ConfigProblem>,
    /// Settings that had a problem and are at their default now.
    pub(crate) faulty: BTreeSet<Path>,
    /// Where each setting that some source gives comes from, and its value as it may be shown.
    pub(crate) origins: BTreeMap<String, (Source, String)>,
}

/// Reads what the layers say together, the last one first in precedence.
pub(crate) fn extract(layers: &[Layer], keep: impl Fn(usize) -> bool) -> Extracted {
    let mut round = Round::new(layers, keep);
    round.refuse_queue_names();
    loop {
        match Value::Dict(Tag::Default, round.tree.clone()).deserialize::<NaqConfig>() {
            Ok(config) => {
                let Round { mut problems, faulty, origins, .. } = round;
                problems.sort_by(|a, b| a.key.cmp(&b.key));
                return Extracted { config, problems, faulty, origins };
            }
            Err(error) if round.problems.len() < PROBLEMS_MAX && round.resolve(&error) => {}
            Err(_) => {
                let Round { problems, faulty, origins, .. } = round;
                return Extracted { config: NaqConfig::default(), problems, faulty, origins };
            }
        }
    }
}

struct Round<'a, K> {
    layers: &'a [Layer],
    keep: K,
    figment: Figment,
    tree: Dict,
    /// Meanings of a text that were not tried yet, the next one last.
    untried: BTreeMap<Path, Vec<Value>>,
    problems: Vec<ConfigProblem>,
    faulty: BTreeSet<Path>,
    origins: BTreeMap<String, (Source, String)>,
}

impl<'a, K: Fn(usize) -> bool> Round<'a, K> {
    fn new(layers: &'a [Layer], keep: K) -> Self {
        let figment = layers.iter().enumerate().fold(Figment::new(), |f, (n, layer)| f.merge(Numbered(n, layer)));
        // Layers are trees already, so that merging them cannot fail.
        let tree = figment.data().ok().and_then(|mut data| data.remove(&Profile::Default)).unwrap_or_default();
        let mut round = Self {
            layers,
            keep,
            figment,
            tree,
            untried: BTreeMap::new(),
            problems: Vec::new(),
            faulty: BTreeSet::new(),
            origins: BTreeMap::new(),
        };
        let mut texts = Vec::new();
        let tree = std::mem::take(&mut round.tree);
        tree::leaves(&tree, &mut Path::new(), &mut |path, value| {
            let Some(layer) = round.layer_of(value) else { return };
            let layer = &round.layers[layer];
            round.origins.insert(path.join("."), (layer.source.clone(), layers::shown(path, value)));
            if let (Some(text), true) = (value.as_str(), layer.texts.contains(path)) {
                texts.push((path.clone(), value.tag(), layers::meanings(text)));
            }
        });
        round.tree = tree;
        for (path, tag, mut meanings) in texts {
            meanings.reverse();
            round.try_next(&path, tag, meanings);
        }
        round
    }

    /// Puts the next meaning of a text into the tree; false if all were tried.
    fn try_next(&mut self, path: &[String], tag: Tag, mut meanings: Vec<Value>) -> bool {
        let Some(next) = meanings.pop() else { return false };
        tree::insert(&mut self.tree, path, with_tag(next, tag));
        self.untried.insert(path.to_vec(), meanings);
        true
    }

    fn layer_of(&self, value: &Value) -> Option<usize> {
        self.figment.get_metadata(value.tag())?.name.parse().ok()
    }

    /// Deals with one refusal: another meaning of the text, or a problem and the value's removal. False if it can do neither.
    fn resolve(&mut self, error: &figment::Error) -> bool {
        let mut path = error.path.clone();
        if let Kind::UnknownField(name, _) = &error.kind {
            path.push(name.clone());
        }
        let path = tree::leaf(&self.tree, &path);
        if path.is_empty() {
            return false;
        }
        let tag = tree::get(&self.tree, &path).map_or(Tag::Default, Value::tag);
        if let Some(meanings) = self.untried.remove(&path)
            && !matches!(error.kind, Kind::UnknownField(..))
            && self.try_next(&path, tag, meanings)
        {
            return true;
        }
        let (kind, message, suggestion) = describe(&error.kind, &path);
        self.report(path, kind, message, suggestion)
    }

    fn report(&mut self, path: Path, kind: ProblemKind, message: String, suggestion: Option<String>) -> bool {
        let Some(value) = tree::remove(&mut self.tree, &path) else { return false };
        let layer = self.layer_of(&value).or_else(|| self.layer_of_first_leaf(&value));
        let key = path.join(".");
        // What a text was given as says more than the last meaning that was tried.
        let shown = match self.origins.get(&key) {
            Some((_, shown)) => shown.clone(),
            None => layers::shown(&path, &value),
        };
        let (source, shown_key) = match layer {
            Some(layer) => (self.layers[layer].source.clone(), self.layers[layer].shown_key(&path)),
            None => (Source::Default, key),
        };
        if layer.is_none_or(&self.keep) {
            self.problems.push(ConfigProblem { source, key: shown_key, value: Some(shown), kind, message, suggestion });
        }
        self.faulty.insert(path);
        true
    }

    /// A table belongs to nobody; the first value in it does.
    fn layer_of_first_leaf(&self, value: &Value) -> Option<usize> {
        let mut layer = None;
        if let Some(dict) = value.as_dict() {
            tree::leaves(dict, &mut Path::new(), &mut |_, value| layer = layer.or_else(|| self.layer_of(value)));
        }
        layer
    }

    /// Names of queues are keys, which the reader refuses together with the whole table; so they are looked at first.
    fn refuse_queue_names(&mut self) {
        let parent = tree::path("queues.configs");
        let Some(Value::Dict(_, configs)) = tree::get(&self.tree, &parent) else { return };
        let refused: Vec<_> = configs
            .keys()
            .filter_map(|name| Some((name.clone(), naq_models::QueueName::new(name).err()?.to_string())))
            .collect();
        for (name, message) in refused {
            let mut path = parent.clone();
            path.push(name);
            self.report(path, ProblemKind::InvalidValue, message, None);
        }
    }
}

/// The same value, from the layer that the tag names.
fn with_tag(value: Value, tag: Tag) -> Value {
    match value {
        Value::String(_, text) => Value::String(tag, text),
        Value::Char(_, c) => Value::Char(tag, c),
        Value::Bool(_, b) => Value::Bool(tag, b),
        Value::Num(_, number) => Value::Num(tag, number),
        Value::Empty(_, empty) => Value::Empty(tag, empty),
        Value::Dict(_, dict) => Value::Dict(tag, dict.into_iter().map(|(k, v)| (k, with_tag(v, tag))).collect()),
        Value::Array(_, items) => Value::Array(tag, items.into_iter().map(|v| with_tag(v, tag)).collect()),
    }
}

/// A refusal in words that do not repeat the value.
fn describe(kind: &Kind, path: &[String]) -> (ProblemKind, String, Option<String>) {
    let name = path.last().map_or("", String::as_str);
    match kind {
        Kind::UnknownField(_, known) => {
            let parents = &path[..path.len() - 1];
            let sibling = nearest(name, known.iter().copied()).map(|near| dotted(parents, near));
            let message = match parents {
                [] => "there is no such section".to_owned(),
                parents => format!("there is no such setting in {}", parents.join(".")),
            };
            (ProblemKind::UnknownKey, message, sibling.or_else(|| elsewhere(name)))
        }
        Kind::UnknownVariant(word, known) => {
            let near = nearest(word, known.iter().copied()).map(str::to_owned);
            (ProblemKind::InvalidValue, format!("expected one of {}", known.join(", ")), near)
        }
        Kind::InvalidType(_, expected) => {
            let quote = if expected.contains("string") { " (numbers and words like `true` need quotes)" } else { "" };
            (ProblemKind::WrongType, format!("expected {}{quote}", in_words(expected)), None)
        }
        Kind::InvalidValue(_, expected) => {
            (ProblemKind::InvalidValue, format!("expected {}", in_words(expected)), None)
        }
        Kind::InvalidLength(_, expected) => (ProblemKind::InvalidValue, format!("expected {expected}"), None),
        Kind::MissingField(field) => (ProblemKind::MissingKey, format!("it needs {field}"), None),
        Kind::Message(message) => (ProblemKind::InvalidValue, message.clone(), None),
        other => (ProblemKind::WrongType, other.to_string(), None),
    }
}

/// What a reader expects, without the names of Rust's types.
fn in_words(expected: &str) -> &str {
    match expected {
        "u8" => "a whole number from 0 to 255",
        "u32" | "u64" => "a whole number from 0",
        other => other,
    }
}

fn dotted(parents: &[String], name: &str) -> String {
    parents.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join(".")
}

/// The setting of that name in another section, if there is exactly one.
fn elsewhere(name: &str) -> Option<String> {
    let mut found = Vec::new();
    tree::leaves(&defaults(), &mut Path::new(), &mut |path, _| {
        if path.last().is_some_and(|last| last == name) {
            found.push(path.join("."));
        }
    });
    if found.len() == 1 { found.pop() } else { None }
}

/// The default configuration as a tree.
pub(crate) fn defaults() -> Dict {
    match Value::serialize(NaqConfig::default()) {
        Ok(Value::Dict(_, dict)) => dict,
        _ => Dict::new(),
    }
}
