//! One JSON object per event: `timestamp level logger message`, then the fields of the spans around it and its own.
//!
//! Invariant: a line is one valid JSON object, whatever the fields are called or hold. Inner values win over outer ones.
//! The names that spans use are translated to those that readers of logs know: `job_id` is `task_id`, `kind` is
//! `operation`, `worker_id` is `worker`; a job without a correlation id is its own.

use std::fmt;

use serde_json::{Map, Value};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    Layer,
    fmt::{
        format::Writer,
        time::{FormatTime as _, SystemTime},
    },
    layer::Context,
    registry::LookupSpan,
};

use super::background::Lines;

/// Names that a line always has; a field that is called so gets a prefix.
const OWN_NAMES: [&str; 3] = ["timestamp", "level", "logger"];

/// A layer that writes JSON lines.
pub(super) struct JsonLines {
    lines: Lines,
}

impl JsonLines {
    pub(super) fn new(lines: Lines) -> Self {
        Self { lines }
    }
}

/// The fields of one span.
struct SpanFields(Fields);

impl<S> Layer<S> for JsonLines
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(SpanFields(fields));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(SpanFields(fields)) = span.extensions_mut().get_mut::<SpanFields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        for span in context.event_scope(event).into_iter().flatten().collect::<Vec<_>>().into_iter().rev() {
            if let Some(SpanFields(outer)) = span.extensions().get::<SpanFields>() {
                fields.0.extend(outer.0.iter().map(|(name, value)| (name.clone(), value.clone())));
            }
        }
        // A message belongs to the event alone.
        fields.0.remove("message");
        event.record(&mut fields);
        let message = fields.0.remove("message").unwrap_or_else(|| Value::String(String::new()));
        if !fields.0.contains_key("correlation_id")
            && let Some(task) = fields.0.get("task_id").cloned()
        {
            fields.0.insert("correlation_id".to_owned(), task);
        }
        let metadata = event.metadata();
        let mut line = Line::new();
        line.field("timestamp", &Value::String(timestamp()));
        line.field("level", &Value::String(metadata.level().to_string()));
        line.field("logger", &Value::String(metadata.target().to_owned()));
        line.field("message", &message);
        for (name, value) in &fields.0 {
            line.field(name, value);
        }
        self.lines.send(line.end());
    }
}

/// A JSON object in the order in which its fields are given.
struct Line(Vec<u8>);

impl Line {
    fn new() -> Self {
        Self(Vec::with_capacity(256))
    }

    fn field(&mut self, name: &str, value: &Value) {
        self.0.push(if self.0.is_empty() { b'{' } else { b',' });
        self.0.extend_from_slice(Value::String(name.to_owned()).to_string().as_bytes());
        self.0.push(b':');
        self.0.extend_from_slice(value.to_string().as_bytes());
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(b"}\n");
        self.0
    }
}

/// Fields by the names that a line uses.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        let name = match field.name().strip_prefix("r#").unwrap_or(field.name()) {
            "job_id" => "task_id".to_owned(),
            "kind" => "operation".to_owned(),
            "worker_id" => "worker".to_owned(),
            own if OWN_NAMES.contains(&own) => format!("field_{own}"),
            name => name.to_owned(),
        };
        self.0.insert(name, value.into());
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        match serde_json::Number::from_f64(value) {
            Some(number) => self.put(field, number),
            None => self.put(field, value.to_string()),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

/// The time of day, RFC 3339 in UTC with three fraction digits.
pub(super) fn timestamp() -> String {
    let mut text = String::with_capacity(32);
    // A formatter that cannot write to a string gives an empty time rather than no line.
    if SystemTime.format_time(&mut Writer::new(&mut text)).is_err() {
        text.clear();
    }
    if let Some((seconds, fraction)) = text.trim_end_matches('Z').split_once('.') {
        let millis = fraction.get(..3).unwrap_or(fraction);
        return format!("{seconds}.{millis}Z");
    }
    text
}
