//! The attribute macro of naq: `#[naq::job]`.
//!
//! Invariant: every mistake is a compile error at the place of the mistake that says what to do. Generated code names
//! nothing but the annotated function and `<crate>::__private`, so that it compiles in any crate that has `naq`,
//! `naq-worker` or `naq-services`.

use proc_macro::TokenStream;

mod expand;
mod function;
mod options;
mod unique;

/// Makes a function a job.
///
/// The function stays callable as written. Beside it, in the type namespace, stands a type of the same name:
/// `send_mail::job(args…)` makes a `NewJob` to be enqueued, `send_mail::KIND` is its kind, and a program that holds a
/// worker has it registered as the handler of that kind. One `use jobs::send_mail` brings both.
///
/// ```text
/// #[naq::job(queue = "mail", max_retries = 5, timeout = "30s")]
/// async fn send_mail(to: String, subject: String, cx: JobContext) -> Result<Receipt, MailError> { … }
///
/// naq::enqueue(send_mail::job("a@b.c", "hi").delay(secs(5))).await?;
/// ```
///
/// # Parameters
/// `JobContext`, `&JobContext`, `State<T>` and `CancellationToken` (recognized by name) are given by the worker. All
/// others are the job's arguments: owned types that implement `Serialize` and `Deserialize`. They travel by name; a
/// foreign producer may also give them by position. An `Option` that is not given is `None`.
///
/// # Return type
/// `T`, `Result<T, E>`, `Outcome<T>` or `Result<Outcome<T>, E>`, where `T` implements `Serialize`. `Result` and `Outcome`
/// are recognized by name, so an alias must keep it (`anyhow::Result<T>` does). `E` implements `naq::JobFailure`, which is
/// preferred because it names the error, or is any `std::error::Error`, converts into a boxed one (`anyhow::Error`,
/// `String`), or at least implements `Display`.
///
/// # Options
/// | option | meaning |
/// |---|---|
/// | `kind = "…"` | the stable name that jobs carry; the function's name by default |
/// | `queue = "…"` | the queue; `queues.default` of the configuration by default |
/// | `priority = 0` | 0 (first) to 3 |
/// | `max_retries = 5` | how many times a failed job runs again |
/// | `retry_delay = "1s"` or `["1s", "5s", "25s"]` | the base delay, or delays taken one by one |
/// | `retry_strategy = "exponential"` | `fixed`, `linear` or `exponential` |
/// | `retry_max_delay = "10m"` | no delay is longer |
/// | `retry_jitter = 0.2` | the random share of each delay, 0 to 1 |
/// | `retry_on = ["…"]`, `ignore_on = ["…"]` | the error types that are, or are not, retried |
/// | `timeout = "30s"` | how long one run may take |
/// | `result_ttl = "7d"` | how long the result is kept; `0` keeps none |
/// | `unique`, `unique = ["to"]`, `unique(…)` | no second job like this one is stored: see below |
/// | `blocking` | for emphasis on a function that is not `async`: all of them run on the blocking pool |
/// | `crate = naq_worker` | the crate through which naq is reached: `naq` (default), `naq_worker` or `naq_services` |
///
/// `unique` makes jobs with equal arguments the same (of one kind and queue), `unique = ["to", "subject"]` those in which these
/// arguments are equal. `unique(args = ["to"], while = "active", ttl = "1h", on_conflict = "replace")` says the rest:
/// `args`, or `key = "…"` for a key of your own; `while` the job is `pending` (until it starts), `active` (until it has
/// ended, the default), or for a `ttl`; and whether the job that is there is the answer (`existing`, the default), is
/// replaced, or an `error`.
///
/// Durations are texts as `250ms`, `5s`, `1h30m`, or numbers of seconds.
#[proc_macro_attribute]
pub fn job(options: TokenStream, item: TokenStream) -> TokenStream {
    expand::expand(options.into(), item.into()).into()
}
