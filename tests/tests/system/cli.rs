//! Every command of the binary, on every store: what it prints as JSON, field by field, and what it exits with.

mod bench;
mod control;
mod demo;
mod events;
mod jobs;
mod metrics;
mod operators;
mod scheduler;
mod system;
mod top;
mod unique;

use std::collections::BTreeSet;

use serde_json::Value;

/// The very fields of an object, no more and no fewer.
#[track_caller]
fn assert_fields(value: &Value, fields: &[&str]) {
    let found: BTreeSet<&str> =
        value.as_object().unwrap_or_else(|| panic!("not an object: {value}")).keys().map(String::as_str).collect();
    assert_eq!(found, fields.iter().copied().collect(), "{value}");
}

/// A time as naq writes it: RFC 3339, UTC, three digits.
#[track_caller]
fn assert_time(value: &Value) {
    let text = value.as_str().unwrap_or_default();
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000Z", "{value}");
}
