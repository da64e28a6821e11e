//! What a history shows: counts, and each promise that was broken, with the job and the reason.

use std::fmt::{self, Display};

/// A promise that a run with faults can break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// An acknowledged job is gone without having been run.
    Lost,
    /// An acknowledged job has not ended.
    Stuck,
    /// A job ended otherwise than its plan says.
    WrongEnd,
    /// A job ran again, and no fault explains it.
    RunAgain,
    /// A result changed after it had been there, or names a run that did not complete.
    Result,
    /// A run with an attempt that there may not be.
    Attempts,
    /// Two runs of one job lived at once.
    Overlap,
    /// A due time of a schedule was not fired.
    Missed,
    /// A run of a schedule that is none of its due times.
    FiredWrong,
    /// Two jobs of one unique key were alive at once.
    Unique,
    /// A job began before one that it depends on had completed.
    Early,
    /// The history contradicts itself: the harness is wrong, and its verdict worth nothing.
    Contradiction,
}

impl Rule {
    /// All, in the order of the table.
    pub const ALL: [Rule; 12] = [
        Rule::Lost,
        Rule::Stuck,
        Rule::WrongEnd,
        Rule::RunAgain,
        Rule::Result,
        Rule::Attempts,
        Rule::Overlap,
        Rule::Missed,
        Rule::FiredWrong,
        Rule::Unique,
        Rule::Early,
        Rule::Contradiction,
    ];

    /// What a reader of the table calls it.
    pub fn name(self) -> &'static str {
        match self {
            Rule::Lost => "lost",
            Rule::Stuck => "stuck",
            Rule::WrongEnd => "wrong end",
            Rule::RunAgain => "run again without a reason",
            Rule::Result => "result changed or forged",
            Rule::Attempts => "attempts over the limit",
            Rule::Overlap => "two live runs at once",
            Rule::Missed => "schedule: due time missed",
            Rule::FiredWrong => "schedule: fired when not due",
            Rule::Unique => "unique key violated",
            Rule::Early => "dependant run early",
            Rule::Contradiction => "history contradicts itself",
        }
    }
}

/// One broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// The job, schedule or key.
    pub of: String,
    /// What the history shows.
    pub text: String,
}

/// How much there was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Jobs that producers tried to enqueue, and runs of schedules that were due.
    pub jobs: usize,
    /// Of these, acknowledged.
    pub acknowledged: usize,
    /// Tried, unanswered, and found in the store or run all the same.
    pub unanswered_yet_there: usize,
    /// Runs that began.
    pub runs: usize,
    /// Attempts that ran more than once, for a reason that the history shows.
    pub run_again: usize,
    /// Runs of which a killed store did not know that there was one.
    pub forgotten: usize,
    /// Jobs whose effect happened more than once.
    pub effect_again: usize,
    /// Faults.
    pub faults: usize,
}

/// What a history shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How much there was.
    pub counts: Counts,
    /// What is broken; empty if every promise was kept.
    pub violations: Vec<Violation>,
}

impl Verdict {
    /// How often a promise was broken.
    pub fn count(&self, rule: Rule) -> usize {
        self.violations.iter().filter(|violation| violation.rule == rule).count()
    }

    /// Adds a broken promise.
    pub(super) fn broken(&mut self, rule: Rule, of: &str, text: impl Into<String>) {
        self.violations.push(Violation { rule, of: of.to_owned(), text: text.into() });
    }
}

/// Broken promises that are printed of each kind.
const SHOWN: usize = 5;

impl Display for Verdict {
    /// A table; then the first broken promises of each kind.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        let rows = [
            ("jobs", counts.jobs),
            ("acknowledged", counts.acknowledged),
            ("unanswered, yet there", counts.unanswered_yet_there),
            ("runs", counts.runs),
            ("attempts run again, explained", counts.run_again),
            ("runs that a killed store forgot", counts.forgotten),
            ("effects more than once", counts.effect_again),
            ("faults", counts.faults),
        ];
        let broken = Rule::ALL.map(|rule| (rule.name(), self.count(rule)));
        for (name, count) in rows.into_iter().chain(broken) {
            writeln!(out, "{name:<32}{count:>10}")?;
        }
        for rule in Rule::ALL {
            for violation in self.violations.iter().filter(|violation| violation.rule == rule).take(SHOWN) {
                writeln!(out, "{}: {}: {}", rule.name(), violation.of, violation.text)?;
            }
        }
        Ok(())
    }
}
