//! One JSON object per event: `timestamp level logger message task_id operation worker correlation_id duration_ms`, as far
//! as they are known, then everything else that the event and the spans around it say.
//!
//! Invariant: a line is one valid JSON object, whatever the fields are called or hold. Inner values win over outer ones,
//! but what naq says of a job is not overwritten by a handler that has a field of the same name: that one gets a prefix.
//! Without a correlation id of its own a job is the beginning of what it leads to, and its id is the correlation id.

use std::{borrow::Cow, fmt};

use serde_json::Value;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_log::NormalizeEvent as _;
use tracing_subscriber::{Layer, layer::Context, registry::LookupSpan};

use super::{background::Lines, is_naq, text::is_for_traces};

/// Names that a line always has; a field that is called so gets a prefix.
const LINE_NAMES: [&str; 4] = ["timestamp", "level", "logger", "message"];
/// What naq says of a job.
const JOB_NAMES: [&str; 6] = ["task_id", "operation", "worker", "correlation_id", "attempt", "queue"];
/// These come first, in this order.
const FIRST_NAMES: [&str; 7] = ["task_id", "operation", "worker", "correlation_id", "duration_ms", "attempt", "queue"];

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
        let mut fields = Fields::of(attributes.metadata());
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
        // Lines of the `log` crate say in fields what those of `tracing` say in their metadata.
        let normalized = event.normalized_metadata();
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        let mut fields = Fields::of(metadata);
        event.record(&mut fields);
        if normalized.is_some() {
            fields.list.retain(|(name, _)| !name.starts_with("log."));
        }
        let mut all = All::default();
        for span in context.event_scope(event).into_iter().flatten().collect::<Vec<_>>().into_iter().rev() {
            if let Some(SpanFields(outer)) = span.extensions().get::<SpanFields>() {
                all.add(outer);
            }
        }
        all.add(&fields);
        if all.get("correlation_id").is_none()
            && let Some(task) = all.get("task_id").cloned()
        {
            all.list.push((Cow::Borrowed("correlation_id"), task));
        }
        let mut line = Line::new();
        line.field("timestamp", &Value::String(super::host_time().to_string()));
        line.field("level", &Value::from(metadata.level().as_str()));
        line.field("logger", &Value::from(metadata.target()));
        line.field("message", fields.message.as_ref().unwrap_or(&Value::String(String::new())));
        for name in FIRST_NAMES {
            if let Some(value) = all.get(name) {
                line.field(name, value);
            }
        }
        for (name, value) in &all.list {
            if !FIRST_NAMES.contains(&&**name) {
                line.field(name, value);
            }
        }
        self.lines.send(line.end());
    }
}

/// A JSON object in the order in which its fields are given.
struct Line(Vec<u8>);

impl Line {
    fn new() -> Self {
        Self(Vec::with_capacity(512))
    }

    fn field(&mut self, name: &str, value: &Value) {
        self.0.push(if self.0.is_empty() { b'{' } else { b',' });
        self.json(name);
        self.0.push(b':');
        self.json(value);
    }

    fn json(&mut self, value: &(impl serde::Serialize + ?Sized)) {
        serde_json::to_writer(&mut self.0, value).expect("texts and values are always JSON, and memory takes them");
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(b"}\n");
        self.0
    }
}

type Name = Cow<'static, str>;

/// The fields of one span or event by the names that a line uses.
struct Fields {
    is_naq: bool,
    list: Vec<(Name, Value)>,
    message: Option<Value>,
}

impl Fields {
    fn of(metadata: &Metadata<'_>) -> Self {
        Self { is_naq: is_naq(metadata), list: Vec::new(), message: None }
    }

    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        if is_for_traces(field) {
            return;
        }
        let name = field.name();
        let name = match name.strip_prefix("r#").unwrap_or(name) {
            "message" => {
                self.message = Some(value.into());
                return;
            }
            "job" | "job_id" if self.is_naq => Name::Borrowed("task_id"),
            "kind" if self.is_naq => Name::Borrowed("operation"),
            "worker_id" if self.is_naq => Name::Borrowed("worker"),
            taken if LINE_NAMES.contains(&taken) => Name::Owned(format!("field_{taken}")),
            name => Name::Borrowed(name),
        };
        let value = value.into();
        match self.list.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.list.push((name, value)),
        }
    }
}

/// The fields of an event and the spans around it.
#[derive(Default)]
struct All {
    list: Vec<(Name, Value)>,
    /// Which of [`JOB_NAMES`] naq has given.
    of_job: [bool; JOB_NAMES.len()],
}

impl All {
    fn get(&self, name: &str) -> Option<&Value> {
        self.list.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// Adds the fields of the next inner span, or of the event.
    fn add(&mut self, inner: &Fields) {
        for (name, value) in &inner.list {
            let mut name = name.clone();
            if let Some(place) = JOB_NAMES.iter().position(|known| *known == name) {
                if inner.is_naq {
                    self.of_job[place] = true;
                } else if self.of_job[place] {
                    name = Name::Owned(format!("field_{name}"));
                }
            }
            match self.list.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => known.clone_from(value),
                None => self.list.push((name, value.clone())),
            }
        }
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
