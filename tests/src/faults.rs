//! Proof under faults: what happened is written down by everybody who takes part, and judged afterwards.
//!
//! Invariant: judging is pure. [`check`] knows only the lines of a history and the rules, and nothing of naq's stores or
//! processes, so that it can be wrong only in ways that faked histories show (`tests/tests/system/checker.rs`).

mod check;
mod history;
mod jobs;
mod lives;
mod verdict;

pub use check::{Rules, check};
pub use history::{Ending, Event, Line, Plan, Recorder, Scope, Seen, now, read};
pub use verdict::{Counts, Rule, Verdict, Violation};
