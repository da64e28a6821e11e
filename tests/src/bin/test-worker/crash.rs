//! Crash points by environment: `NAQ_TEST_CRASH=<point>:<nth>` arms one, `NAQ_TEST_CRASH_SEEN=<file>` tells which were passed.
//!
//! A mistake here would make a test of crashes pass without a crash, so it ends the process.

use std::{ffi::OsString, fs::File, io::Write as _};

use naq_services::storage::crash;

#[expect(clippy::disallowed_methods, reason = "tests arm a process by its environment")]
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// Arms the point that the environment names.
///
/// # Panics
/// If it names none that can be understood.
pub(crate) fn arm() {
    if let Some(armed) = variable("NAQ_TEST_CRASH") {
        let armed = armed.into_string().expect("NAQ_TEST_CRASH is text");
        let (point, nth) = armed.rsplit_once(':').expect("NAQ_TEST_CRASH is <point>:<nth>");
        crash::arm(point, nth.parse().expect("NAQ_TEST_CRASH ends in a number"));
    }
}

/// Appends the points that this process has passed, one a line, to the file that the environment names.
///
/// # Panics
/// If that file cannot be written to.
pub(crate) fn report() {
    if let Some(path) = variable("NAQ_TEST_CRASH_SEEN") {
        let lines: String = crash::seen().iter().map(|point| format!("{point}\n")).collect();
        let mut file = File::options().create(true).append(true).open(path).expect("NAQ_TEST_CRASH_SEEN can be opened");
        file.write_all(lines.as_bytes()).expect("NAQ_TEST_CRASH_SEEN can be written");
    }
}
