//! The default file is the documentation, the template and the defaults at once.

use std::collections::BTreeSet;

use naq_config::{DEFAULT_CONFIG, NaqConfig, Purpose, RELOADABLE, is_reloadable, template};
use serde_json::Value;

use crate::{Machine, yaml};

fn keys(value: &Value, prefix: &str, found: &mut BTreeSet<String>) {
    if let Value::Object(map) = value {
        for (name, value) in map {
            let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            keys(value, &key, found);
            found.insert(key);
        }
    }
}

fn keys_of(value: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    keys(value, "", &mut found);
    found
}

/// The file with its examples (`#` and no space, or indented further) in force.
fn with_examples() -> String {
    let line = |line: &str| {
        let indent = line.len() - line.trim_start().len();
        match line.trim_start().strip_prefix('#') {
            Some(rest) if rest.starts_with("  ") || !(rest.is_empty() || rest.starts_with(' ')) => {
                format!("{}{rest}\n", &line[..indent])
            }
            _ => format!("{line}\n"),
        }
    };
    DEFAULT_CONFIG.lines().map(line).collect()
}

#[test]
fn the_file_says_what_the_code_does() {
    let loaded = yaml(DEFAULT_CONFIG).load().unwrap();
    assert_eq!(loaded.config, NaqConfig::default());
    assert_eq!(loaded.warnings, []);
    assert_eq!(Machine::new().load().unwrap().config, NaqConfig::default());
}

#[test]
fn a_template_differs_only_where_it_says() {
    for purpose in [Purpose::Development, Purpose::Production, Purpose::Testing] {
        let text = template(purpose);
        let loaded = yaml(&text).load().unwrap();
        assert_eq!(loaded.warnings, []);
        let (chosen, default) = (loaded.config.settings(), NaqConfig::default().settings());
        let differ: BTreeSet<String> =
            chosen.iter().filter(|(key, value)| default.get(*key) != Some(value)).map(|(key, _)| key.clone()).collect();
        let head = text.lines().next().unwrap();
        let said = head.split_once(": ").unwrap().1.strip_suffix(" differ from the defaults.").unwrap();
        assert_eq!(differ, said.split(", ").map(str::to_owned).collect(), "{purpose}");
        let lines = DEFAULT_CONFIG.lines().filter(|line| !text.lines().any(|other| other == *line)).count();
        assert_eq!(lines, differ.len(), "{purpose}: everything else stands as it is");
    }
}

#[test]
fn every_setting_stands_in_the_file() {
    let written: Value = serde_saphyr::from_str(&with_examples()).unwrap();
    let mut code = keys_of(&serde_json::to_value(NaqConfig::default()).unwrap());
    // What an entry of the open tables may hold is asked of the entries in the examples.
    let loaded = yaml(&with_examples()).load().unwrap();
    let examples = keys_of(&serde_json::to_value(&loaded.config).unwrap());
    code.extend(
        examples.iter().filter(|key| key.starts_with("queues.configs") || key.starts_with("workers.pools")).cloned(),
    );
    let written = keys_of(&written);
    let missing: Vec<_> = code.difference(&written).collect();
    assert!(missing.is_empty(), "not in default-config.yaml: {missing:?}");

    let last_names = |section: &str, keys: &BTreeSet<String>| -> BTreeSet<String> {
        let entry = |key: &String| Some(key.strip_prefix(section)?.split('.').nth(2)?.to_owned());
        keys.iter().filter_map(entry).collect()
    };
    for section in ["handlers", "schedules"] {
        let (code, written) = (last_names(section, &examples), last_names(section, &written));
        assert!(code.len() >= 9, "{section}: {code:?}");
        assert_eq!(code, written, "{section}");
    }
}

/// The settings whose comment has the mark `[reload]`, dotted. A comment is that of every setting up to the next one.
fn marked() -> BTreeSet<String> {
    let (mut path, mut comment, mut in_comment) = (Vec::<(usize, String)>::new(), String::new(), false);
    let mut marked = BTreeSet::new();
    for line in with_examples().lines() {
        let (indent, text) = (line.len() - line.trim_start().len(), line.trim_start());
        let is_comment = text.starts_with('#');
        if text.is_empty() || (is_comment && !in_comment) {
            comment.clear();
        }
        in_comment = is_comment;
        if is_comment {
            comment.push_str(text);
        } else if let Some((key, value)) = text.split_once(':') {
            path.retain(|(outer, _)| *outer < indent);
            path.push((indent, key.to_owned()));
            if value.is_empty() {
                comment.clear();
            } else if comment.contains("[reload]") {
                marked.insert(path.iter().map(|(_, key)| key.as_str()).collect::<Vec<_>>().join("."));
            }
        }
    }
    marked
}

#[test]
fn what_a_running_worker_takes_is_marked() {
    let marked = marked();
    assert_eq!(marked.len(), RELOADABLE.len(), "{marked:?}");
    assert!(marked.iter().all(|setting| is_reloadable(setting)), "{marked:?}");
}

#[test]
fn the_examples_load() {
    let loaded = yaml(&with_examples()).variable("NAQ_ENVIRONMENT", "production").load().unwrap();
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.config.workers.concurrency, 50);
    assert_eq!(loaded.config.handlers.len(), 4);
    assert_eq!(loaded.config.schedules.len(), 3);
    assert_eq!(loaded.config.queues.configs.len(), 1);
    assert_eq!(loaded.config.workers.pools.len(), 1);
}
