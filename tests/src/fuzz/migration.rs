//! Records of the Python NAQ and of OmniQ.
//!
//! Invariant: the input is read as each kind of record. What would be brought over can be stored and read again: it is
//! removed there after that.

use naq_services::foreign::fuzzing::{self, Arrived, Refusal};

use super::{assert_bounded, assert_goes_on, assert_survives, now};

/// Reads records of other systems: see the module.
pub fn migration(data: &[u8]) {
    for read in [fuzzing::queued, fuzzing::scheduled, fuzzing::failed, fuzzing::task] {
        assert_whole(read(data, now()), data.len());
    }
    if let Err(why) = fuzzing::pickle(data) {
        assert!(!why.is_empty());
    }
}

fn assert_whole(read: Result<Arrived, Refusal>, length: usize) {
    match read {
        Ok(Arrived { job, error, definition }) => {
            assert!(job.is_some() || definition.is_some(), "it becomes nothing and is removed there");
            if let Some(job) = job {
                assert_survives(&job);
                assert_goes_on(&job);
            }
            if let Some(error) = error {
                assert_bounded(&error);
            }
            if let Some(definition) = definition {
                let stored = serde_json::to_string(&definition).expect("a definition holds only what JSON can say");
                let again = serde_json::from_str(&stored).unwrap_or_else(|error| panic!("{stored}: {error}"));
                assert_eq!(definition, again, "{stored}");
            }
        }
        // Some tell what they found, with its quotes and escapes.
        Err((reason, why)) => assert!(why.len() <= 1_000 + 16 * length, "{reason:?}: {} bytes", why.len()),
    }
}
