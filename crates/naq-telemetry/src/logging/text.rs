//! The fields of text lines.

use std::fmt;

use tracing::{
    field::{Field, Visit},
    span::Record,
};
use tracing_subscriber::{
    field::{RecordFields, VisitOutput as _},
    fmt::{
        FormatFields, FormattedFields,
        format::{DefaultVisitor, Writer},
    },
};

/// What a span says to a collector of traces only.
pub(super) fn is_for_traces(field: &Field) -> bool {
    field.name().starts_with("otel.")
}

/// The default format of fields, without what is for traces.
#[derive(Debug)]
pub(super) struct Fields;

impl<'writer> FormatFields<'writer> for Fields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut visitor = WithoutTraces(DefaultVisitor::new(writer, true));
        fields.record(&mut visitor);
        visitor.0.finish()
    }

    fn add_fields(&self, current: &'writer mut FormattedFields<Self>, fields: &Record<'_>) -> fmt::Result {
        let before = current.fields.len();
        if before > 0 {
            current.fields.push(' ');
        }
        let start = current.fields.len();
        self.format_fields(current.as_writer(), fields)?;
        if current.fields.len() == start {
            current.fields.truncate(before);
        }
        Ok(())
    }
}

struct WithoutTraces<'writer>(DefaultVisitor<'writer>);

impl Visit for WithoutTraces<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if !is_for_traces(field) {
            self.0.record_str(field, value);
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.0.record_error(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if !is_for_traces(field) {
            self.0.record_debug(field, value);
        }
    }
}
