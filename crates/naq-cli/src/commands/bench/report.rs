//! [`Report`]: what was found, as `naq bench --json` prints it and as a table.
//!
//! Invariant: the JSON is read by programs that refuse unknown fields. What a row depends on stands in its `setup`; `what`
//! names a series and holds no number, `at` is the series' x axis.

use serde::Serialize;

use crate::{
    args::Question,
    error::CliError,
    output::{self, Output},
};

/// Everything that one call found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) naq: &'static str,
    pub(super) store: Store,
    pub(super) rows: Vec<Row>,
    pub(super) skipped: Vec<Skipped>,
    /// Something was skipped because it went wrong.
    #[serde(skip)]
    pub(super) failed: bool,
}

/// The store that was measured.
#[derive(Debug, Serialize)]
pub(super) struct Store {
    /// `sqlite` or `nats`.
    pub(super) kind: &'static str,
    /// As it names itself.
    pub(super) version: String,
    /// What an acknowledged write survives.
    pub(super) durability: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Row {
    #[serde(flatten)]
    series: Series,
    setup: String,
    found: Found,
}

/// What is measured: the question that it answers, and the name under which it is reported.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Series {
    pub(super) question: Question,
    pub(super) what: &'static str,
    pub(super) at: Option<At>,
}

impl Series {
    pub(super) fn of(question: Question, what: &'static str) -> Self {
        Self { question, what, at: None }
    }

    pub(super) fn at(self, name: &'static str, value: usize) -> Self {
        Self { at: Some(At { name, value }), ..self }
    }
}

/// What varies within a series.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct At {
    pub(super) name: &'static str,
    pub(super) value: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Found {
    /// A second: the median of the rounds, the lowest and the highest.
    Rate {
        per_s: f64,
        low: f64,
        high: f64,
        rounds: usize,
    },
    Latency(Latency),
    /// `MiB`, `ms`, `s` or `% of one core`.
    Amount {
        value: f64,
        unit: &'static str,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Latency {
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) p999_ms: f64,
    pub(super) max_ms: f64,
    pub(super) samples: usize,
    pub(super) offered_per_s: f64,
}

/// A question, or a part of it, that could not be answered.
#[derive(Debug, Serialize)]
pub(super) struct Skipped {
    pub(super) question: Question,
    pub(super) why: String,
}

impl Found {
    /// The median of rates, of which there is at least one, and what is reported of them.
    pub(super) fn rates(mut rates: Vec<f64>) -> (f64, Self) {
        rates.sort_by(f64::total_cmp);
        let at = |index: usize| rates.get(index).copied().unwrap_or(f64::NAN);
        let half = rates.len() / 2;
        let per_s = if rates.len() % 2 == 1 { at(half) } else { f64::midpoint(at(half.saturating_sub(1)), at(half)) };
        let (low, high) = (at(0), at(rates.len().saturating_sub(1)));
        (per_s, Self::Rate { per_s, low, high, rounds: rates.len() })
    }

    fn text(&self) -> String {
        match self {
            Self::Rate { per_s, rounds: 1, .. } => format!("{}/s", rounded(*per_s)),
            Self::Rate { per_s, low, high, .. } => {
                format!("{}/s ({} to {})", rounded(*per_s), rounded(*low), rounded(*high))
            }
            Self::Latency(Latency { p50_ms, p99_ms, p999_ms, max_ms, .. }) => {
                format!("p50 {p50_ms:.2}, p99 {p99_ms:.2}, p99.9 {p999_ms:.2}, max {max_ms:.2} ms")
            }
            Self::Amount { value, unit } => format!("{value:.2} {unit}"),
        }
    }
}

impl Report {
    pub(super) fn of(store: Store) -> Self {
        Self { naq: env!("CARGO_PKG_VERSION"), store, rows: Vec::new(), skipped: Vec::new(), failed: false }
    }

    pub(super) fn add(&mut self, series: Series, setup: String, found: Found) {
        self.rows.push(Row { series, setup, found });
    }

    pub(super) fn skip(&mut self, question: Question, why: impl Into<String>) {
        self.skipped.push(Skipped { question, why: why.into() });
    }

    pub(super) fn show(&self, out: Output) -> Result<(), CliError> {
        out.one(self, || {
            let rows = self.rows.iter().map(|Row { series: Series { question, what, at }, setup, found }| {
                let at = at.map(|at| format!("{} {}", grouped(at.value), at.name)).unwrap_or_default();
                [question.name(), (*what).to_owned(), at, found.text(), setup.clone()]
            });
            let Store { version, durability, .. } = &self.store;
            let mut text = format!("naq {} on {version}: {durability}\n", self.naq);
            if !self.rows.is_empty() {
                text += "\n";
                text += &output::table(["question", "what", "at", "measured", "with"], rows);
            }
            for Skipped { question, why } in &self.skipped {
                text += &format!("\nskipped: {}: {why}", question.name());
            }
            text
        })
    }
}

fn rounded(value: f64) -> String {
    // A rate is far below what a usize holds; under ten a second its fraction matters.
    if value < 10.0 { format!("{value:.1}") } else { grouped(value.round() as usize) }
}

/// A number with its digits in groups of three.
pub(super) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_the_middle() {
        for (rates, expected) in [
            (vec![5.0], (5.0, 5.0, 5.0)),
            (vec![9.0, 1.0, 2.0], (2.0, 1.0, 9.0)),
            (vec![4.0, 1.0, 2.0, 8.0], (3.0, 1.0, 8.0)),
        ] {
            let (median, found) = Found::rates(rates);
            let Found::Rate { per_s, low, high, .. } = found else { panic!("no rate") };
            assert_eq!((median, per_s, low, high), (expected.0, expected.0, expected.1, expected.2));
        }
    }

    #[test]
    fn digits_are_grouped_from_the_right() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1 000"), (1_234_567, "1 234 567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
