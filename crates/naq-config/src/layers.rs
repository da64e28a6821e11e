//! Layers: each source of settings as a tree, before they are merged and typed.
//!
//! Invariant: every value keeps the layer it came from, so that a problem names its file or variable; texts that came
//! from a variable or an expansion are marked, because only they may stand for a number or a list.
//!
//! Not here: which files there are and their order (`load`), and types (`extract`).

use std::{collections::BTreeSet, fs, io::Read, path};

use figment::{
    Metadata, Profile, Provider,
    providers::{Format, Toml},
    value::{Dict, Map, Tag, Value},
};

use crate::{
    environment::Environment,
    expand,
    problem::{ConfigProblem, ConfigWarning, ProblemKind, Source},
    text,
    tree::{self, Path},
};

/// The largest configuration file that is read, in bytes.
const FILE_MAX: u64 = 4 << 20;
/// The longest value that a problem shows, in characters.
const SHOWN_MAX: usize = 200;

/// One source of settings.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) source: Source,
    pub(crate) tree: Dict,
    /// Leaves whose text may stand for another type.
    pub(crate) texts: BTreeSet<Path>,
}

impl Layer {
    pub(crate) fn new(source: Source, tree: Dict) -> Self {
        Self { source, tree, texts: BTreeSet::new() }
    }

    /// A layer of one value given as text.
    pub(crate) fn of_text(source: Source, path: Path, text: &str) -> Self {
        let mut layer = Self::new(source, Dict::new());
        tree::insert(&mut layer.tree, &path, Value::from(text));
        layer.texts.insert(path);
        layer
    }

    /// A key as it stands in the source.
    pub(crate) fn shown_key(&self, path: &[String]) -> String {
        match &self.source {
            Source::File { environment: Some(name), .. } => format!("environments.{name}.{}", path.join(".")),
            _ => path.join("."),
        }
    }

    pub(crate) fn warning(&self, path: &[String], message: &str) -> ConfigWarning {
        ConfigWarning { source: self.source.clone(), key: self.shown_key(path), message: message.to_owned() }
    }

    /// Replaces `${…}` in every text. What does not expand is a problem, and gone from the tree.
    pub(crate) fn expand(&mut self, environment: &Environment, problems: &mut Vec<ConfigProblem>) {
        let mut expanded = Vec::new();
        let mut failed = Vec::new();
        tree::leaves(&self.tree, &mut Path::new(), &mut |path, value| {
            let mut new = value.clone();
            match expand_value(&mut new, environment) {
                Ok(substituted) => expanded.push((path.clone(), new, substituted)),
                Err(error) => failed.push((path.clone(), shown(path, value), error)),
            }
        });
        for (path, value, substituted) in expanded {
            if substituted && value.as_str().is_some() {
                self.texts.insert(path.clone());
            }
            tree::insert(&mut self.tree, &path, value);
        }
        for (path, value, error) in failed {
            tree::remove(&mut self.tree, &path);
            problems.push(ConfigProblem {
                source: self.source.clone(),
                key: self.shown_key(&path),
                value: Some(value),
                kind: ProblemKind::Expansion,
                message: error.to_string(),
                suggestion: None,
            });
        }
    }
}

/// Expands the texts in a value; true if anything was put in.
fn expand_value(value: &mut Value, environment: &Environment) -> Result<bool, expand::ExpandError> {
    match value {
        Value::String(_, text) => {
            let expanded = expand::expand(text, |name| environment.get(name).map(str::to_owned))?;
            *text = expanded.text;
            Ok(expanded.substituted)
        }
        Value::Dict(_, dict) => {
            dict.values_mut().try_fold(false, |any, value| Ok(expand_value(value, environment)? || any))
        }
        Value::Array(_, items) => {
            items.iter_mut().try_fold(false, |any, value| Ok(expand_value(value, environment)? || any))
        }
        _ => Ok(false),
    }
}

/// A layer as figment sees it. The name of its metadata is its number, by which values find their layer again.
pub(crate) struct Numbered<'a>(pub(crate) usize, pub(crate) &'a Layer);

impl Provider for Numbered<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.0.to_string())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Map::from([(Profile::Default, self.1.tree.clone())]))
    }
}

/// Reads a file into a layer; `None` if there is no such file.
pub(crate) fn read(file: &path::Path) -> Result<Option<Layer>, Box<ConfigProblem>> {
    let source = Source::File { path: file.to_owned(), environment: None };
    let problem = |kind, message| {
        let (key, value, suggestion) = (String::new(), None, None);
        Box::new(ConfigProblem { source: source.clone(), key, value, kind, message, suggestion })
    };
    let mut content = String::new();
    let opened = match fs::File::open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(problem(ProblemKind::Unreadable, format!("cannot open the file: {error}"))),
    };
    let size = opened
        .take(FILE_MAX + 1)
        .read_to_string(&mut content)
        .map_err(|error| problem(ProblemKind::Unreadable, format!("cannot read the file: {error}")))?;
    if size as u64 > FILE_MAX {
        return Err(problem(ProblemKind::Unreadable, format!("the file is larger than {} MiB", FILE_MAX >> 20)));
    }
    let is_toml = file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml"));
    let tree = if is_toml { parse_toml(&content) } else { parse_yaml(&content) };
    tree.map(|tree| Some(Layer::new(source.clone(), tree))).map_err(|message| problem(ProblemKind::Syntax, message))
}

/// Reads YAML. The error says where, but shows no line of the file: it may hold a secret.
pub(crate) fn parse_yaml(content: &str) -> Result<Dict, String> {
    match serde_saphyr::from_str::<Option<Value>>(content) {
        Ok(None | Some(Value::Empty(..))) => Ok(Dict::new()),
        Ok(Some(Value::Dict(_, dict))) => Ok(dict),
        Ok(Some(_)) => Err("the file is not a mapping of sections".to_owned()),
        Err(error) => Err(format!("not valid YAML: {}", error.without_snippet())),
    }
}

/// Reads TOML, with the same promise.
fn parse_toml(content: &str) -> Result<Dict, String> {
    Toml::from_str::<Dict>(content).map_err(|error| {
        let at = error.span().map_or_else(String::new, |span| {
            let before = &content[..span.start.min(content.len())];
            let line = before.matches('\n').count() + 1;
            format!(" at line {line}")
        });
        format!("not valid TOML{at}: {}", error.message())
    })
}

/// Removes sections without content (`workers:` with every line below commented out), which YAML reads as null.
pub(crate) fn drop_empty_sections(dict: &mut Dict, known: &Dict) {
    dict.retain(|name, value| !(matches!(value, Value::Empty(..)) && matches!(known.get(name), Some(Value::Dict(..)))));
    for (name, value) in dict.iter_mut() {
        if let (Value::Dict(_, inner), Some(Value::Dict(_, known))) = (value, known.get(name)) {
            drop_empty_sections(inner, known);
        }
    }
}

/// What a text that may stand for another type could mean, in the order in which the meanings are tried.
pub(crate) fn meanings(text: &str) -> Vec<Value> {
    let as_text = Value::from(text);
    let trimmed = text.trim();
    let word = match trimmed.to_ascii_lowercase().as_str() {
        "1" | "yes" | "on" => Some(Value::from(true)),
        "0" | "no" | "off" => Some(Value::from(false)),
        _ => None,
    };
    let parsed = serde_saphyr::from_str::<Value>(trimmed).ok().filter(|value| value.as_str().is_none());
    let mut meanings = match parsed {
        Some(empty @ Value::Empty(..)) => vec![empty, as_text],
        Some(list_or_table @ (Value::Dict(..) | Value::Array(..))) => vec![list_or_table, as_text],
        Some(other) => vec![as_text, other],
        None if trimmed.is_empty() => vec![Value::Empty(Tag::Default, figment::value::Empty::None), as_text],
        None => vec![as_text],
    };
    meanings.extend(word);
    meanings
}

/// A value as a problem may show it.
pub(crate) fn shown(path: &[String], value: &Value) -> String {
    if is_secret(path) {
        return text::REDACTED.to_owned();
    }
    let full = match value {
        Value::String(_, text) => format!("{:?}", text::redacted(text)),
        Value::Char(_, c) => format!("{c:?}"),
        Value::Bool(_, b) => b.to_string(),
        Value::Num(_, number) => number
            .to_i128()
            .map(|whole| whole.to_string())
            .or_else(|| number.to_u128().map(|whole| whole.to_string()))
            .or_else(|| number.to_f64().map(|fraction| fraction.to_string()))
            .unwrap_or_default(),
        Value::Empty(..) => "null".to_owned(),
        Value::Dict(..) => "{…}".to_owned(),
        Value::Array(_, items) => {
            format!("[{}]", items.iter().map(|item| shown(path, item)).collect::<Vec<_>>().join(", "))
        }
    };
    match full.char_indices().nth(SHOWN_MAX) {
        Some((cut, _)) => format!("{}…", &full[..cut]),
        None => full,
    }
}

/// Whether a setting's value is a secret. Misspelt ones count too, so it goes by where a key stands and what is in its name.
fn is_secret(path: &[String]) -> bool {
    let names: Vec<String> = path.iter().map(|name| name.to_ascii_lowercase()).collect();
    let is_auth = names.windows(2).any(|pair| pair[0] == "nats" && pair[1] == "auth");
    let is_env =
        names.len() > 2 && names.iter().any(|name| name == "handlers") && names.iter().any(|name| name == "env");
    let last = names.last().map_or("", String::as_str);
    let harmless = matches!(last, "user" | "credentials_file");
    let looks_secret = ["passw", "secret", "token", "seed", "api_key", "apikey"].iter().any(|part| last.contains(part));
    (is_auth && !harmless) || is_env || looks_secret
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown_even_when_misspelt() {
        for key in [
            "nats.auth.password",
            "nats.auth.pasword",
            "handlers.x.env.KEY",
            "passwd",
            "environments.prod.nats.auth.token",
            "nats.tls.secret",
        ] {
            assert_eq!(shown(&tree::path(key), &Value::from("hunter2")), "***", "{key}");
        }
        assert_eq!(shown(&tree::path("nats.servers"), &Value::from("nats://u:hunter2@h")), "\"nats://***@h\"");
        assert_eq!(shown(&tree::path("workers.ttl"), &Value::from(7)), "7");
    }

    #[test]
    fn a_syntax_error_shows_no_line_of_the_file() {
        let yaml = parse_yaml("nats:\n  auth: {password: hunter2\nworkers: [").unwrap_err();
        let toml = parse_toml("[nats.auth]\npassword = \"hunter2\nx = 1").unwrap_err();
        assert!(!yaml.contains("hunter2") && !toml.contains("hunter2"), "{yaml} {toml}");
        assert!(toml.contains("line 2"), "{toml}");
        assert!(yaml.contains("line"), "{yaml}");
    }
}
