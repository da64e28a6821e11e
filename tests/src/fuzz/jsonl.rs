//! Lines from outside: envelopes for `naq job enqueue --from`, and what handlers in other languages answer.
//!
//! Invariant: each line of the input is read as each of them.

use naq_models::{Address, Priority, Progress, QueueName, RawJson, Verdict, wire};
use naq_worker::external::fuzzing::{self, Said};

use super::{assert_bounded, assert_goes_on, assert_survives, id, now};

/// Reads lines: see the module.
pub fn jsonl(data: &[u8]) {
    for line in data.split(|byte| *byte == b'\n') {
        submission(line);
        answer(line);
    }
}

/// What is read is a job that can be stored, and so can what becomes of it.
fn submission(line: &[u8]) {
    let fallback =
        Address { id: id("fresh"), queue: QueueName::default(), priority: Priority::default(), stored_at: now() };
    match wire::decode_submission(line, fallback) {
        Ok(job) => {
            assert!(job.args.is_object() || job.args.is_array(), "{job:?}");
            assert_survives(&job);
            assert_goes_on(&job);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn answer(line: &[u8]) {
    match fuzzing::line(line) {
        Ok(Said::Progress { fraction, message, .. }) => {
            let progress = Progress::new(fraction, message, 1, now());
            assert!((0.0..=1.0).contains(&progress.fraction), "{progress:?}");
            assert!(progress.message.as_ref().is_none_or(|message| message.len() <= 1024), "{progress:?}");
        }
        Ok(Said::Reply { verdict, .. }) => {
            assert_eq!(fuzzing::reply(line).as_ref(), Ok(&verdict), "a reply is one by NATS, too");
            assert_verdict(&verdict);
        }
        Err(why) => assert!(!why.is_empty()),
    }
    let Verdict::Complete(value) = fuzzing::output(line) else { panic!("a program that ends well has a result") };
    assert_one_line(&value);
}

fn assert_verdict(verdict: &Verdict) {
    match verdict {
        Verdict::Complete(value) => assert_one_line(value),
        Verdict::Error(error) | Verdict::Fail(error) => {
            assert!(!error.error_type.is_empty());
            assert_bounded(error);
        }
        other => panic!("no reply says {other:?}"),
    }
}

/// Sent on, it is one line of the same meaning.
fn assert_one_line(value: &RawJson) {
    let line = fuzzing::compact(value);
    assert!(!line.contains(&b'\n'));
    let text = String::from_utf8(line).expect("JSON text stays text");
    let again = RawJson::parse(&text).unwrap_or_else(|error| panic!("{value} became {text}: {error}"));
    // Not compared where serde_json holds no such number, or nothing so deep.
    if let (Ok(sent), Ok(meant)) = (again.to::<serde_json::Value>(), value.to::<serde_json::Value>()) {
        assert_eq!(sent, meant);
    }
}
