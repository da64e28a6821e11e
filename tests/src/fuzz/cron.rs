//! Cron expressions and zones.
//!
//! Invariant: an input is an expression, on a second line a zone (UTC if there is none), and on a third a time from which
//! the next ones are looked for, in milliseconds since 1970.

use std::time::{Duration, Instant};

use naq_models::{
    Job, RawJson, Schedule, ScheduleDefinition, Timestamp,
    schedule::{Cron, Zone},
};

use super::{assert_short, id, now};

/// How many times are looked for from one start.
const TIMES: usize = 8;
/// How long that may take on a machine that does a hundred other things: it takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest message, in characters: it may repeat the expression once.
const MESSAGE_MAX: usize = 800;

/// Reads a cron expression and asks when it is due: see the module.
pub fn cron(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let mut lines = text.lines();
    let expression = lines.next().unwrap_or_default();
    let zone = match lines.next().unwrap_or("UTC").parse::<Zone>() {
        Ok(zone) => zone,
        Err(error) => return assert_short(&error, MESSAGE_MAX),
    };
    let start = lines.next().and_then(|millis| millis.parse().ok()).and_then(Timestamp::from_unix_millis);
    let begun = Instant::now();
    match Cron::new(expression, zone) {
        Ok(cron) => due(&cron, start.unwrap_or_else(now)),
        Err(error) => assert_short(&error, MESSAGE_MAX),
    }
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
}

fn due(cron: &Cron, start: Timestamp) {
    assert_eq!(Cron::new(cron.expression(), cron.zone()).as_ref(), Ok(cron), "as it is printed");
    let job = Job::new(id("nightly"), "k", RawJson::parse("[]").expect("JSON"), now());
    let definition = Schedule::cron(cron.expression()).tz(cron.zone().name()).build(job).expect("it was read before");
    let stored = serde_json::to_string(&definition).expect("a definition holds only what JSON can say");
    assert_eq!(serde_json::from_str::<ScheduleDefinition>(&stored).ok(), Some(definition), "{stored}");

    let mut before = start;
    for _ in 0..TIMES {
        let Some(due) = cron.next_after(before) else { return };
        assert!(due > before, "{cron:?}: {due} after {before}");
        // Clocks were turned back by a day before that, and the module says so.
        if before >= Timestamp::EPOCH {
            let middle = before.unix_millis() + (due.unix_millis() - before.unix_millis()) / 2;
            for between in [middle, due.unix_millis() - 1] {
                let between = Timestamp::from_unix_millis(between).expect("it lies between two times");
                assert_eq!(
                    cron.next_after(between),
                    Some(due),
                    "{cron:?}: {due} is next after {before}, not {between}"
                );
            }
        }
        before = due;
    }
}
