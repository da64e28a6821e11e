//! The pages of the documentation that have Rust blocks, so that rustdoc runs them as doctests.
//!
//! It is compiled only for doctests, and nobody can name anything in it. A test of `naq-tests` compares this list with
//! the pages.
#![cfg(all(feature = "cli", feature = "macros", feature = "otel", feature = "testing"))]
#![allow(rustdoc::invalid_codeblock_attributes, reason = "`norun` is for the blocks that are not in Rust")]

/// Makes an item of each page, whose blocks rustdoc then finds under the item's name.
macro_rules! pages {
    ($($name:ident: $path:literal;)+) => { $(#[doc = include_str!($path)] struct $name;)+ };
}

pages! {
    CustomStorage: "../../../docs/guide/custom-storage.md";
    Dependencies: "../../../docs/guide/dependencies.md";
    ErrorsAndRetries: "../../../docs/guide/errors-and-retries.md";
    FromApalis: "../../../docs/migrating/from-apalis.md";
    FromPythonNaqAndOmniq: "../../../docs/migrating/from-python-naq-and-omniq.md";
    Handlers: "../../../docs/guide/handlers.md";
    Logging: "../../../docs/operating/logging.md";
    Quickstart: "../../../docs/guide/quickstart.md";
    Readme: "../../../README.md";
    Scheduling: "../../../docs/guide/scheduling.md";
    Testing: "../../../docs/guide/testing.md";
    Tracing: "../../../docs/operating/tracing.md";
    UniqueJobs: "../../../docs/guide/unique-jobs.md";
}
