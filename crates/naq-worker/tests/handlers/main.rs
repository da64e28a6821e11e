//! Handlers as the executor meets them: a job goes in, a verdict comes out.
//!
//! Not here: what follows from a verdict (naq-models) and the executor around the call.

#![expect(clippy::unwrap_used, reason = "helpers of tests; clippy excuses only the test functions themselves")]

mod builtin;
#[cfg(feature = "external")]
mod external;
mod job_macro;
mod no_store;
mod support;
mod typed;

#[test]
fn compile_errors_say_what_to_do() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
