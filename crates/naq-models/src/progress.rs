//! [`Progress`]: how far a running job says it is.
//!
//! Invariant: pure; a fraction is a number from 0 to 1, a message is short. What a handler says beyond that is cut.

use serde::{Deserialize, Serialize};

use crate::{Timestamp, error};

/// Bytes of a message, at most.
const MAX_MESSAGE: usize = 1024;

/// How far a running job says it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// From 0 to 1.
    pub fraction: f64,
    /// What it does, in its own words; at most 1 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The attempt that said it.
    pub attempt: u32,
    /// When it said it, in the store's time.
    pub at: Timestamp,
}

impl Progress {
    /// What a handler said: a fraction beyond 0 to 1 is taken for the nearer of them, one that is not a number for 0; an
    /// empty message for none.
    #[must_use]
    pub fn new(fraction: f64, message: String, attempt: u32, at: Timestamp) -> Self {
        let fraction = if fraction.is_nan() { 0.0 } else { fraction.clamp(0.0, 1.0) };
        let message = Some(error::cut(message, MAX_MESSAGE)).filter(|message| !message.is_empty());
        Self { fraction, message, attempt, at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_handler_says_is_cut_to_what_it_can_mean() {
        let said = |fraction, message: &str| Progress::new(fraction, message.to_owned(), 1, Timestamp::EPOCH);
        let cases = [(0.25, 0.25), (-3.0, 0.0), (f64::INFINITY, 1.0), (1.0001, 1.0), (f64::NAN, 0.0), (-0.0, 0.0)];
        for (given, taken) in cases {
            assert!((said(given, "").fraction - taken).abs() < f64::EPSILON, "{given}");
        }
        assert_eq!(said(0.5, "").message, None);
        assert_eq!(said(0.5, "half").message.as_deref(), Some("half"));
        assert!(said(0.5, &"ä".repeat(2000)).message.unwrap().len() <= MAX_MESSAGE);
    }

    #[test]
    fn it_is_stored_as_documented() {
        let json = serde_json::to_string(&Progress::new(0.5, "half".into(), 2, Timestamp::EPOCH)).unwrap();
        assert_eq!(json, r#"{"fraction":0.5,"message":"half","attempt":2,"at":"1970-01-01T00:00:00.000Z"}"#);
        let bare: Progress =
            serde_json::from_str(r#"{"fraction":1,"attempt":1,"at":"1970-01-01T00:00:00Z","later":1}"#).unwrap();
        assert_eq!(bare, Progress::new(1.0, String::new(), 1, Timestamp::EPOCH));
    }
}
