//! [`RetryPolicy`]: whether and when a failed job runs again.
//!
//! Invariant: pure. `max_retries = n` means at most n + 1 counted runs; every delay is at most `max_delay` plus its
//! jitter share and never negative. Randomness is the argument `jitter` in 0..1.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::duration::Seconds;

/// How delays grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RetryStrategy {
    /// The same delay each time.
    Fixed,
    /// Delay × number of the retry.
    Linear,
    /// Delay × 2^(number of the retry - 1).
    #[default]
    Exponential,
}

/// All strategies.
pub const RETRY_STRATEGIES: [RetryStrategy; 3] =
    [RetryStrategy::Fixed, RetryStrategy::Linear, RetryStrategy::Exponential];

/// One base delay, or several that are taken one by one; see [`RetryPolicy::delay`].
pub type RetryDelays = Vec<Duration>;

impl RetryStrategy {
    /// Its word in configurations and envelopes.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Linear => "linear",
            Self::Exponential => "exponential",
        }
    }
}

impl std::str::FromStr for RetryStrategy {
    type Err = StrategyError;
    fn from_str(text: &str) -> Result<Self, StrategyError> {
        let found = RETRY_STRATEGIES.into_iter().find(|strategy| strategy.as_str() == text);
        found.ok_or_else(|| StrategyError(text.to_owned()))
    }
}

/// A text that is no strategy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a retry strategy: fixed, linear or exponential")]
pub struct StrategyError(String);

/// Whether and when a failed job runs again.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// How many times a failed job runs again; 0 means it runs once.
    pub max_retries: u32,
    /// How a single delay grows; a list of several delays is taken one by one instead, the last repeated.
    pub strategy: RetryStrategy,
    /// One base delay, or a list that is taken one by one. Never empty in effect: an empty list counts as one second.
    pub delay: RetryDelays,
    /// No delay is longer than this, before jitter.
    pub max_delay: Duration,
    /// Share of the delay that is random: 0.2 spreads a delay over 0.8 to 1.2 of itself. Values are taken within 0..=1.
    pub jitter: f64,
    /// If not empty, only errors of these types are retried.
    pub retry_on: Vec<String>,
    /// Errors of these types are never retried; wins over `retry_on`.
    pub ignore_on: Vec<String>,
}

impl RetryPolicy {
    /// The base delay where none is given.
    pub const DEFAULT_DELAY: Duration = Duration::from_secs(1);
    /// The longest delay where none is given.
    pub const DEFAULT_MAX_DELAY: Duration = Duration::from_secs(3600);
    /// The random share where none is given.
    pub const DEFAULT_JITTER: f64 = 0.2;

    /// Whether an error of this type may be retried at all, however many retries are left.
    #[must_use]
    pub fn allows(&self, error_type: &str) -> bool {
        let named = |list: &[String]| list.iter().any(|name| name == error_type);
        !named(&self.ignore_on) && (self.retry_on.is_empty() || named(&self.retry_on))
    }

    /// The delay before retry number `retry` (1 for the first), with `jitter` in 0..1 picking the point of its spread.
    #[must_use]
    pub fn delay_before(&self, retry: u32, jitter: f64) -> Duration {
        let n = retry.max(1);
        let base = match self.delay.as_slice() {
            [] => self.grow(Self::DEFAULT_DELAY, n),
            [one] => self.grow(*one, n),
            list => list[(n as usize - 1).min(list.len() - 1)],
        };
        let base = base.min(self.max_delay).min(crate::duration::MAX);
        let share = if self.jitter.is_finite() { self.jitter.clamp(0.0, 1.0) } else { 0.0 };
        let roll = if jitter.is_finite() { jitter.clamp(0.0, 1.0) } else { 0.5 };
        base.mul_f64(1.0 + share * (2.0 * roll - 1.0))
    }

    fn grow(&self, base: Duration, n: u32) -> Duration {
        match self.strategy {
            RetryStrategy::Fixed => base,
            RetryStrategy::Linear => base.saturating_mul(n),
            RetryStrategy::Exponential => base.saturating_mul(1u32.checked_shl(n - 1).unwrap_or(u32::MAX)),
        }
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_retries: 3,
            strategy: RetryStrategy::default(),
            delay: vec![Self::DEFAULT_DELAY],
            max_delay: Self::DEFAULT_MAX_DELAY,
            jitter: Self::DEFAULT_JITTER,
            retry_on: Vec::new(),
            ignore_on: Vec::new(),
        }
    }
}

/// The wire form of `retry_delay`: one number or a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum DelayForm {
    One(Seconds),
    List(Vec<Seconds>),
}

impl From<DelayForm> for Vec<Duration> {
    fn from(form: DelayForm) -> Self {
        match form {
            DelayForm::One(one) => vec![one.0],
            DelayForm::List(list) => list.into_iter().map(|s| s.0).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(strategy: RetryStrategy, delay: &[u64]) -> RetryPolicy {
        RetryPolicy {
            strategy,
            delay: delay.iter().map(|s| Duration::from_secs(*s)).collect(),
            jitter: 0.0,
            ..RetryPolicy::default()
        }
    }

    #[test]
    fn delays_by_strategy() {
        let seconds = |p: RetryPolicy| (1..=5).map(|n| p.delay_before(n, 0.5).as_secs()).collect::<Vec<_>>();
        assert_eq!(seconds(policy(RetryStrategy::Fixed, &[3])), [3, 3, 3, 3, 3]);
        assert_eq!(seconds(policy(RetryStrategy::Linear, &[3])), [3, 6, 9, 12, 15]);
        assert_eq!(seconds(policy(RetryStrategy::Exponential, &[3])), [3, 6, 12, 24, 48]);
        assert_eq!(seconds(policy(RetryStrategy::Exponential, &[1, 5, 25])), [1, 5, 25, 25, 25]);
        assert_eq!(seconds(policy(RetryStrategy::Exponential, &[])), [1, 2, 4, 8, 16]);
    }

    #[test]
    fn ignore_wins_over_retry_on() {
        let mut p = RetryPolicy::default();
        assert!(p.allows("anything"));
        p.retry_on = vec!["net".into(), "busy".into()];
        assert!(p.allows("net") && !p.allows("parse"));
        p.ignore_on = vec!["net".into()];
        assert!(!p.allows("net") && p.allows("busy"));
    }

    proptest! {
        #[test]
        fn every_delay_is_bounded(
            strategy in prop_oneof![Just(RetryStrategy::Fixed), Just(RetryStrategy::Linear), Just(RetryStrategy::Exponential)],
            delays in prop::collection::vec(0u64..1_000_000, 0..4),
            max in 0u64..100_000, jitter in -1.0f64..3.0, retry: u32, roll in -1.0f64..2.0,
        ) {
            let p = RetryPolicy {
                strategy, delay: delays.into_iter().map(Duration::from_secs).collect(),
                max_delay: Duration::from_secs(max), jitter, ..RetryPolicy::default()
            };
            let delay = p.delay_before(retry, roll);
            let share = jitter.clamp(0.0, 1.0);
            prop_assert!(delay <= p.max_delay.mul_f64(1.0 + share) + Duration::from_nanos(1));
        }

        #[test]
        fn without_jitter_a_longer_wait_never_comes_first(base in 1u64..100, retry in 1u32..60) {
            for strategy in RETRY_STRATEGIES {
                let p = policy(strategy, &[base]);
                prop_assert!(p.delay_before(retry, 0.0) <= p.delay_before(retry + 1, 1.0));
            }
        }
    }
}
