//! [`Expected`]: which job a test asks for, and the macros that ask.
//!
//! Invariant: what is not said matches anything; a failed assertion shows every job that there is.

use std::fmt::Write as _;

use naq_models::Job;
use serde_json::Value;

use crate::TestStore;

/// What a job must be like.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Expected {
    /// Its kind.
    pub kind: String,
    /// Its queue.
    pub queue: Option<String>,
    /// Its arguments: of an object at least these fields, everything else as it is.
    pub args: Option<Value>,
    /// Its id.
    pub job_id: Option<String>,
}

impl Expected {
    /// Whether a job is like this.
    #[must_use]
    pub fn matches(&self, job: &Job) -> bool {
        self.kind == job.kind
            && self.queue.as_ref().is_none_or(|queue| queue == job.queue.as_str())
            && self.job_id.as_ref().is_none_or(|id| id == job.id.as_str())
            && self.args.as_ref().is_none_or(|args| job.args.to::<Value>().is_ok_and(|found| within(args, &found)))
    }

    /// The jobs of a store that are like this and have not ended, and a list of all that have not, for people.
    pub async fn find(&self, store: &TestStore) -> (Vec<Job>, String) {
        let all = store.enqueued().await;
        let mut list = String::new();
        for job in &all {
            // Writing to a String cannot fail.
            let _ = writeln!(list, "  {} {} in {}: {}", job.id, job.kind, job.queue, job.args);
        }
        let list = if list.is_empty() { "  (none)".to_owned() } else { list };
        (all.into_iter().filter(|job| self.matches(job)).collect(), list)
    }
}

fn within(expected: &Value, found: &Value) -> bool {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            expected.iter().all(|(name, value)| found.get(name).is_some_and(|found| within(value, found)))
        }
        _ => expected == found,
    }
}

/// Asserts, in an async function, that a job is enqueued and has not ended; gives the first such [`Job`].
///
/// ```text
/// let job = assert_enqueued!(store, send_mail::KIND, queue = "mail", args = json!({"to": "a@b.c"}));
/// ```
///
/// `queue`, `args` (of an object, the fields that matter) and `job_id` may be given.
///
/// [`Job`]: naq_models::Job
#[macro_export]
macro_rules! assert_enqueued {
    ($store:expr, $kind:expr $(, $field:ident = $value:expr)* $(,)?) => {{
        let expected = $crate::Expected {
            kind: ::std::convert::Into::into($kind),
            $($field: ::std::option::Option::Some(::std::convert::Into::into($value)),)*
            ..::std::default::Default::default()
        };
        let (found, all) = expected.find(&$store).await;
        match found.into_iter().next() {
            ::std::option::Option::Some(job) => job,
            ::std::option::Option::None => panic!("no such job is enqueued: {expected:?}\nenqueued are:\n{all}"),
        }
    }};
}

/// Asserts, in an async function, that no such job waits or runs. The same options as [`assert_enqueued!`].
#[macro_export]
macro_rules! refute_enqueued {
    ($store:expr, $kind:expr $(, $field:ident = $value:expr)* $(,)?) => {{
        let expected = $crate::Expected {
            kind: ::std::convert::Into::into($kind),
            $($field: ::std::option::Option::Some(::std::convert::Into::into($value)),)*
            ..::std::default::Default::default()
        };
        let (found, all) = expected.find(&$store).await;
        assert!(found.is_empty(), "such a job is enqueued: {expected:?}\nenqueued are:\n{all}");
    }};
}
