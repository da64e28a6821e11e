//! What operators are told about metrics is what there is: `docs/operating/metrics.md` and `grafana.json`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{collections::BTreeSet, fs, path::PathBuf};

use naq_telemetry::metrics::Metrics;
use serde_json::Value;

fn read(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/operating").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Metrics with their types, and every name under which they have series.
fn exported() -> (BTreeSet<(String, String)>, BTreeSet<String>) {
    let (mut shown, mut series) = (BTreeSet::new(), BTreeSet::new());
    let text = Metrics::new().encode();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (family, kind) = line.split_once(' ').unwrap();
        let ends: &[&str] = match kind {
            "counter" => &["_total"],
            "info" => &["_info"],
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        series.extend(ends.iter().map(|end| format!("{family}{end}")));
        let name = if kind == "histogram" { family.to_owned() } else { format!("{family}{}", ends[0]) };
        shown.insert((name, kind.to_owned()));
    }
    (shown, series)
}

/// Every word that looks like a metric.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
    words.filter(|word| word.len() > 4 && word.starts_with("naq_")).map(str::to_owned).collect()
}

#[test]
fn the_manual_lists_every_metric_with_its_type_and_names_no_other() {
    let (shown, series) = exported();
    let manual = read("metrics.md");
    let rows = manual.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `naq_")?.split('|').map(str::trim);
        Some((format!("naq_{}", cells.next()?.trim_end_matches('`')), cells.next()?.to_owned()))
    });
    assert_eq!(rows.collect::<BTreeSet<_>>(), shown);
    let known = |name: &String| series.contains(name) || shown.iter().any(|(shown, _)| shown == name);
    let unknown: Vec<_> = names(&manual).into_iter().filter(|name| !known(name)).collect();
    assert_eq!(unknown, [""; 0], "the manual names what is not exported");
}

#[test]
fn the_dashboard_asks_for_what_there_is() {
    let (_, series) = exported();
    let dashboard: Value = serde_json::from_str(&read("grafana.json")).unwrap();
    let mut used = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        assert!(panel["title"].as_str().is_some_and(|title| !title.is_empty()), "{panel}");
        let place = &panel["gridPos"];
        assert!(place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap() <= 24, "{panel}");
        if panel["type"] == "row" {
            continue;
        }
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{panel}");
        for target in targets {
            let names = names(target["expr"].as_str().unwrap());
            assert!(!names.is_empty(), "{target}");
            used.extend(names);
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{target}");
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        used.extend(names(&variable["query"].to_string()));
    }
    let unknown: Vec<_> = used.difference(&series).collect();
    assert!(unknown.is_empty(), "the dashboard asks for {unknown:?}");
    let bases: BTreeSet<_> = used.iter().map(|name| name.trim_end_matches("_bucket")).collect();
    assert!(bases.len() >= 12, "it shows most of what there is: {bases:?}");
}
