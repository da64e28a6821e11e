//! The request and reply that `jsonl` and `nats` handlers exchange: one JSON object each.
//!
//! Invariant: a request is one line: JSON text may hold line breaks between tokens, so it is compacted. A reply holds
//! either `result` or `error`; what holds `progress` instead comes before it, from a `jsonl` handler.

use std::{borrow::Cow, collections::BTreeMap};

use naq_models::{RawJson, Verdict, error_type};
use naq_services::{JobContext, trace_context};
use serde::{Deserialize, Deserializer, Serialize};

use super::output::error;

#[derive(Serialize)]
struct Request<'a> {
    id: &'a str,
    kind: &'a str,
    args: &'a RawJson,
    attempt: u32,
    meta: &'a BTreeMap<String, RawJson>,
}

/// The request for a job, without a line end. If traces are followed, what the other side does belongs to this run, not to
/// whoever enqueued the job.
pub(super) fn request(cx: &JobContext) -> Vec<u8> {
    let job = cx.job();
    let mut meta = Cow::Borrowed(&job.meta);
    for (name, text) in trace_context::current() {
        meta.to_mut().extend(RawJson::from_value(&text).ok().map(|text| (name, text)));
    }
    let request = Request { id: cx.id().as_str(), kind: &job.kind, args: &job.args, attempt: job.attempt, meta: &meta };
    compact(&serde_json::to_string(&request).expect("a request holds only strings, numbers and valid JSON"))
}

/// Valid JSON without the white space between its tokens.
pub(super) fn compact(json: &str) -> Vec<u8> {
    let mut line = Vec::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for byte in json.bytes() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if byte.is_ascii_whitespace() {
            continue;
        } else {
            in_string = byte == b'"';
        }
        line.push(byte);
    }
    line
}

/// What a `jsonl` handler says.
#[derive(Debug)]
pub(super) enum Line {
    /// How far the job is.
    Progress { id: Option<String>, fraction: f64, message: String },
    /// What became of it.
    Reply(Reply),
}

impl Line {
    /// Reads a line; the error says what is wrong with it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Progress {
            id: Option<String>,
            progress: f64,
            #[serde(default)]
            message: String,
        }
        match serde_json::from_slice(bytes) {
            Ok(Progress { id, progress, message }) => Ok(Self::Progress { id, fraction: progress, message }),
            Err(_) => Reply::parse(bytes).map(Self::Reply),
        }
    }
}

/// A reply, read.
#[derive(Debug, Deserialize)]
pub(super) struct Reply {
    /// Whose job it answers.
    pub(super) id: Option<String>,
    #[serde(default, deserialize_with = "given")]
    result: Option<RawJson>,
    #[serde(default)]
    error: Option<ReplyError>,
}

#[derive(Debug, Deserialize)]
struct ReplyError {
    #[serde(rename = "type")]
    error_type: Option<String>,
    message: Option<String>,
    retry: Option<bool>,
}

/// `null` is a result, too.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<RawJson>, D::Error> {
    RawJson::deserialize(deserializer).map(Some)
}

impl Reply {
    /// Reads a reply; the error says what is wrong with it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let reply: Self = serde_json::from_slice(bytes).map_err(|e| format!("not a reply: {e}"))?;
        match (&reply.result, &reply.error) {
            (None, None) => Err("a reply without `result` and without `error`".into()),
            (Some(_), Some(_)) => Err("a reply with both `result` and `error`".into()),
            _ => Ok(reply),
        }
    }

    /// The verdict it gives.
    pub(super) fn into_verdict(self) -> Verdict {
        match self.error {
            None => Verdict::Complete(self.result.unwrap_or_default()),
            Some(told) => {
                let named = told.error_type.filter(|name| !name.is_empty());
                let error = error(named.unwrap_or_else(|| error_type::ERROR.into()), told.message.unwrap_or_default());
                if told.retry.unwrap_or(true) { Verdict::Error(error) } else { Verdict::Fail(error.permanent()) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn compact_keeps_strings() {
        let json = "{ \"a b\" :\n [1, 2,\t\"x \\\" y\\\\\", \"\\\\\" ] ,\r\n\"c\": null }";
        let line = compact(json);
        assert_eq!(std::str::from_utf8(&line).unwrap(), r#"{"a b":[1,2,"x \" y\\","\\"],"c":null}"#);
    }

    proptest! {
        #[test]
        fn compact_changes_nothing_but_space(text in "\\PC{0,40}", number: i64) {
            let value = serde_json::json!({ text.clone(): [number, text, {"n": null}] });
            let line = compact(&serde_json::to_string_pretty(&value).unwrap());
            prop_assert_eq!(line, serde_json::to_vec(&value).unwrap());
        }
    }

    #[test]
    fn a_reply_holds_result_or_error() {
        let verdict = |text: &str| Reply::parse(text.as_bytes()).map(Reply::into_verdict);
        assert_eq!(verdict(r#"{"id":"1","result":null}"#), Ok(Verdict::Complete(RawJson::null())));
        let Ok(Verdict::Error(told)) = verdict(r#"{"id":"1","error":{"type":"busy","message":"later"}}"#) else {
            panic!()
        };
        assert_eq!((told.error_type.as_str(), told.message.as_str(), told.is_retryable), ("busy", "later", true));
        let Ok(Verdict::Fail(told)) = verdict(r#"{"error":{"retry":false}}"#) else { panic!() };
        assert_eq!((told.error_type.as_str(), told.is_retryable), ("error", false));
        for text in ["{}", r#"{"id":"1"}"#, r#"{"result":1,"error":{}}"#, "hello", "[]", ""] {
            assert!(verdict(text).is_err(), "{text}");
        }
    }
}
