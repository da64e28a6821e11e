//! What must not be believed: bytes, names, files, disks and servers that are not as they should be.

mod bodies;
mod disks;
mod hostile;
mod names;
mod rows;
mod servers;

use naq_tests::Finished;

/// A refusal: this exit code, these words on standard error, and no panic.
#[track_caller]
fn assert_refused(finished: &Finished, code: i32, words: &[&str]) {
    assert_eq!(finished.code(), Some(code), "{finished:#?}");
    assert_no_panic(finished);
    let said = finished.stderr.to_lowercase();
    for word in words {
        assert!(said.contains(&word.to_lowercase()), "{word:?} is not in: {}", finished.stderr);
    }
}

#[track_caller]
fn assert_no_panic(finished: &Finished) {
    for text in ["panicked", "RUST_BACKTRACE"] {
        assert!(!finished.stderr.contains(text), "{finished:#?}");
    }
}
