//! Handlers as the executor meets them: a job goes in, a verdict comes out.
//!
//! Not here: what follows from a verdict (naq-models) and the executor around the call.

mod builtin;
mod job_macro;
mod support;
mod typed;

#[test]
fn compile_errors_say_what_to_do() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
