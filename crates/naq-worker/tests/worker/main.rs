//! What a worker promises, seen from its store: jobs go in, results and states come out.
//!
//! Invariant: the embedded store in memory (recurring jobs: on NATS too), real threads, real time; what happened is awaited, never slept for, and every
//! wait is bounded. Not here: processes that are killed (the system tests), and what backends promise (the conformance
//! suite).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod adjusting;
mod cancelling;
mod dependencies;
mod doubt;
mod events;
mod faulty;
mod keeping;
mod outcomes;
mod progress;
mod recurring;
mod selection;
#[allow(dead_code, clippy::print_stdout, reason = "shared with the tests of the NATS store")]
#[path = "../../../naq-services/tests/nats/server.rs"]
mod server;
mod services;
mod stopping;
mod support;
mod time;
