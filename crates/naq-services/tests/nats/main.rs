//! The NATS store against real servers: what only breaks with kills, restarts, foreign messages and old versions.
//!
//! Every test runs on each server that is found: `NAQ_TEST_NATS_2_9`, `NAQ_TEST_NATS_2_15`, or `.tools/` of the
//! repository. Servers listen on loopback, keep their data in a temporary directory, and end with their test.

#![cfg(feature = "nats")]
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking and prints what it saw")]
#![expect(clippy::disallowed_methods, reason = "each spawned task is awaited by the test that spawned it")]

mod basics;
mod events;
mod kv;
mod moves;
mod restarts;
mod server;
mod together;
mod work;
