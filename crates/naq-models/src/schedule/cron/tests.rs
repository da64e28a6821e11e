//! Cron expressions against tables of clock changes, and against a walk over every minute that shares no code with
//! them.

use std::collections::BTreeSet;

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, TimeDelta, Timelike, Utc};
use chrono_tz::Tz;
use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn cron(expression: &str, zone: &str) -> Cron {
    Cron::new(expression, zone.parse().unwrap()).unwrap()
}

/// The `n` runs after `from`, as the clock of the zone shows them.
fn runs(expression: &str, zone: &str, from: &str, n: usize) -> Vec<String> {
    let cron = cron(expression, zone);
    let due = std::iter::successors(cron.next_after(at(from)), |t| cron.next_after(*t));
    due.take(n).map(|t| cron.zone().format(t)).collect()
}

#[test]
fn times_of_day_run_once_whatever_the_clock_does() {
    let (berlin, york, howe) = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe");
    let (cairo, havana) = ("Africa/Cairo", "America/Havana");
    for (zone, expression, from, expected) in [
        // Skipped: 02:30 runs at 03:00, on that day alone.
        (
            berlin,
            "30 2 * * *",
            "2026-03-28T00:00:00Z",
            &["28T02:30:00+01:00", "29T03:00:00+02:00", "30T02:30:00+02:00"],
        ),
        (york, "30 2 * * *", "2026-03-07T06:00:00Z", &["07T02:30:00-05:00", "08T03:00:00-04:00", "09T02:30:00-04:00"]),
        (howe, "15 2 * * *", "2026-10-02T14:00:00Z", &["03T02:15:00+10:30", "04T02:30:00+11:00", "05T02:15:00+11:00"]),
        (cairo, "0 0 * * *", "2026-04-22T12:00:00Z", &["23T00:00:00+02:00", "24T01:00:00+03:00", "25T00:00:00+03:00"]),
        (havana, "@daily", "2026-03-06T12:00:00Z", &["07T00:00:00-05:00", "08T01:00:00-04:00", "09T00:00:00-04:00"]),
        // Repeated: the first showing runs.
        (
            berlin,
            "30 2 * * *",
            "2026-10-24T00:00:00Z",
            &["24T02:30:00+02:00", "25T02:30:00+02:00", "26T02:30:00+01:00"],
        ),
        (york, "30 1 * * *", "2026-10-31T05:00:00Z", &["31T01:30:00-04:00", "01T01:30:00-04:00", "02T01:30:00-05:00"]),
        (howe, "45 1 * * *", "2026-04-03T14:00:00Z", &["04T01:45:00+11:00", "05T01:45:00+11:00", "06T01:45:00+10:30"]),
        (
            cairo,
            "30 23 * * *",
            "2026-10-28T12:00:00Z",
            &["28T23:30:00+03:00", "29T23:30:00+03:00", "30T23:30:00+02:00"],
        ),
        (havana, "0 0 * * *", "2026-10-31T00:00:00Z", &["31T00:00:00-04:00", "01T00:00:00-04:00", "02T00:00:00-05:00"]),
        // Several skipped times make one run; one that is named itself does not make two.
        (
            berlin,
            "*/20 2,3 * * *",
            "2026-03-29T00:00:00Z",
            &["29T03:00:00+02:00", "29T03:20:00+02:00", "29T03:40:00+02:00"],
        ),
        // Steps of hours are times of day too.
        (
            berlin,
            "30 */2 * * *",
            "2026-10-24T23:00:00Z",
            &["25T02:30:00+02:00", "25T04:30:00+01:00", "25T06:30:00+01:00"],
        ),
        (
            berlin,
            "0 */2 * * *",
            "2026-03-29T00:00:00Z",
            &["29T03:00:00+02:00", "29T04:00:00+02:00", "29T06:00:00+02:00"],
        ),
    ] {
        let shown = runs(expression, zone, from, 3);
        let days: Vec<&str> = shown.iter().map(|run| &run[8..]).collect();
        assert_eq!(days, expected, "{expression} in {zone}");
    }
}

#[test]
fn asked_in_the_second_showing_the_first_has_passed() {
    let cron = cron("*/10 2 * * *", "Europe/Berlin");
    for minute in 0..60 {
        let second_showing = at(&format!("2026-10-25T01:{minute:02}:00.001Z"));
        assert_eq!(cron.next_after(second_showing), Some(at("2026-10-26T01:00:00Z")));
    }
}

#[test]
fn intervals_follow_real_time() {
    for (zone, expression, from, to, every) in [
        ("Europe/Berlin", "*/15 * * * *", "2026-03-28T20:00:00Z", "2026-03-29T06:00:00Z", 15),
        ("Europe/Berlin", "*/15 * * * *", "2026-10-24T20:00:00Z", "2026-10-25T06:00:00Z", 15),
        ("Europe/Berlin", "30 * * * *", "2026-10-24T20:00:00Z", "2026-10-25T06:00:00Z", 60),
        ("America/New_York", "*/15 0-23 * * *", "2026-11-01T00:00:00Z", "2026-11-01T12:00:00Z", 15),
        ("Australia/Lord_Howe", "*/15 * * * *", "2026-04-04T10:00:00Z", "2026-04-04T20:00:00Z", 15),
        ("Australia/Lord_Howe", "*/15 * * * *", "2026-10-03T10:00:00Z", "2026-10-03T20:00:00Z", 15),
        ("Africa/Cairo", "@hourly", "2026-04-23T12:00:00Z", "2026-04-24T12:00:00Z", 60),
        ("Africa/Cairo", "@hourly", "2026-10-29T12:00:00Z", "2026-10-30T12:00:00Z", 60),
        ("America/Havana", "0 */10 * * * *", "2026-11-01T00:00:00Z", "2026-11-01T12:00:00Z", 10),
    ] {
        let cron = cron(expression, zone);
        let first = cron.next_after(at(from)).unwrap();
        let due: Vec<_> =
            std::iter::successors(Some(first), |t| cron.next_after(*t)).take_while(|t| *t < at(to)).collect();
        for pair in due.windows(2) {
            assert_eq!(pair[1].since(pair[0]).as_secs(), every * 60, "{expression} in {zone} after {}", pair[0]);
        }
        assert!(due.len() as u64 > 9 * 60 / every, "{expression} in {zone}");
    }
}

#[test]
fn an_hour_named_by_the_date_is_repeated_too() {
    let shown = runs("0 * 29 10 *", "Africa/Cairo", "2026-10-29T18:30:00Z", 3);
    assert_eq!(shown, ["2026-10-29T22:00:00+03:00", "2026-10-29T23:00:00+03:00", "2026-10-29T23:00:00+02:00"]);
}

#[test]
fn what_can_be_written() {
    for (expression, expected) in [
        ("15,45 9-17/4 * * *", "2026-11-22T09:15:00+00:00 2026-11-22T09:45:00+00:00 2026-11-22T13:15:00+00:00"),
        ("50/5 23 * * *", "2026-11-22T23:50:00+00:00 2026-11-22T23:55:00+00:00 2026-11-23T23:50:00+00:00"),
        ("*/20 0 0 * * *", "2026-11-22T00:00:20+00:00 2026-11-22T00:00:40+00:00 2026-11-23T00:00:00+00:00"),
        ("0 12 ? * mon", "2026-11-23T12:00:00+00:00 2026-11-30T12:00:00+00:00 2026-12-07T12:00:00+00:00"),
        ("0 12 * * SAT-SUN", "2026-11-22T12:00:00+00:00 2026-11-28T12:00:00+00:00 2026-11-29T12:00:00+00:00"),
        ("0 0 L * *", "2026-11-30T00:00:00+00:00 2026-12-31T00:00:00+00:00 2027-01-31T00:00:00+00:00"),
        ("0 0 29 2 *", "2028-02-29T00:00:00+00:00 2032-02-29T00:00:00+00:00 2036-02-29T00:00:00+00:00"),
        ("0 0 * * 5L", "2026-11-27T00:00:00+00:00 2026-12-25T00:00:00+00:00 2027-01-29T00:00:00+00:00"),
        ("0 0 * * FRI#2", "2026-12-11T00:00:00+00:00 2027-01-08T00:00:00+00:00 2027-02-12T00:00:00+00:00"),
        ("0 0 * feb 7#5", "2032-02-29T00:00:00+00:00 2060-02-29T00:00:00+00:00 2088-02-29T00:00:00+00:00"),
        ("0 0 1 JAN-MAR *", "2027-01-01T00:00:00+00:00 2027-02-01T00:00:00+00:00 2027-03-01T00:00:00+00:00"),
        // Both day fields restrict: either will do.
        ("0 0 25 * WED", "2026-11-25T00:00:00+00:00 2026-12-02T00:00:00+00:00 2026-12-09T00:00:00+00:00"),
        // A field that allows everything does not restrict.
        ("0 0 */1 * WED", "2026-11-25T00:00:00+00:00 2026-12-02T00:00:00+00:00 2026-12-09T00:00:00+00:00"),
        ("@yearly", "2027-01-01T00:00:00+00:00 2028-01-01T00:00:00+00:00 2029-01-01T00:00:00+00:00"),
        ("@Weekly", "2026-11-29T00:00:00+00:00 2026-12-06T00:00:00+00:00 2026-12-13T00:00:00+00:00"),
        (" @monthly ", "2026-12-01T00:00:00+00:00 2027-01-01T00:00:00+00:00 2027-02-01T00:00:00+00:00"),
    ] {
        assert_eq!(runs(expression, "UTC", "2026-11-22T00:00:00Z", 3).join(" "), expected, "{expression}");
    }
}

#[test]
fn refused_fields_are_named_with_their_place() {
    use CronField::{DayOfMonth, DayOfWeek, Hour, Minute, Month, Second};
    for (expression, field, position, column, text, problem) in [
        ("61 * * * *", Minute, 1, 1, "61", FieldProblem::Range { min: 0, max: 59 }),
        ("* 24 * * *", Hour, 2, 3, "24", FieldProblem::Range { min: 0, max: 23 }),
        ("*  24 * * *", Hour, 2, 4, "24", FieldProblem::Range { min: 0, max: 23 }),
        ("  60 * * * * *", Second, 1, 3, "60", FieldProblem::Range { min: 0, max: 59 }),
        ("0 * * 0 * *", DayOfMonth, 4, 7, "0", FieldProblem::Range { min: 1, max: 31 }),
        ("0 0 1,5,32 * *", DayOfMonth, 3, 9, "32", FieldProblem::Range { min: 1, max: 31 }),
        ("0 0 1,,3 * *", DayOfMonth, 3, 7, "", FieldProblem::Empty),
        ("0 0 * 13 *", Month, 4, 7, "13", FieldProblem::Range { min: 1, max: 12 }),
        ("0 0 * MAR-JAN *", Month, 4, 7, "MAR-JAN", FieldProblem::Backwards),
        ("0 0 * * 8", DayOfWeek, 5, 9, "8", FieldProblem::Range { min: 0, max: 7 }),
        ("0 0 * * L", DayOfWeek, 5, 9, "L", FieldProblem::BareLast),
        ("0 0 * * MON#6", DayOfWeek, 5, 9, "MON#6", FieldProblem::Nth),
        ("*/0 * * * *", Minute, 1, 1, "*/0", FieldProblem::Step { most: 60 }),
        ("* */25 * * *", Hour, 2, 3, "*/25", FieldProblem::Step { most: 24 }),
        ("* 1/x * * *", Hour, 2, 3, "1/x", FieldProblem::Step { most: 24 }),
    ] {
        let expected = CronError::Field { field, position, column, text: text.into(), problem };
        assert_eq!(Cron::new(expression, Zone::UTC), Err(expected), "{expression}");
    }
    let message = Cron::new("0 0 1,5,32 * *", Zone::UTC).unwrap_err().to_string();
    assert!(message.contains("day of month (field 3, column 9)") && message.contains("\"32\""), "{message}");
    for text in ["x", "-1", "+1", "1-", "-", "?", "MON", "1.5", "٣", "L", "15W", "99999999999"] {
        let refused = Cron::new(&format!("0 {text} * * *"), Zone::UTC);
        assert!(matches!(refused, Err(CronError::Field { field: Hour, position: 2, column: 3, .. })), "{text}");
    }
}

#[test]
fn other_refusals() {
    let refused = |text: &str| Cron::new(text, Zone::UTC).unwrap_err();
    for (text, found) in [("", 0), ("* * * *", 4), ("* * * * * * *", 7)] {
        assert_eq!(refused(text), CronError::FieldCount { found });
    }
    assert!(matches!(refused("@reboot"), CronError::Nickname { .. }));
    for never in ["0 0 30 2 *", "0 0 31 4,6,9,11 *"] {
        assert!(matches!(refused(never), CronError::Never { .. }), "{never}");
    }
    assert!(matches!(refused(&"0,".repeat(300)), CronError::TooLong { len: 600 }));
}

#[test]
fn an_unknown_zone_names_the_nearest() {
    for (name, nearest) in [
        ("Europe/Berln", "Europe/Berlin"),
        ("europe/berlin", "Europe/Berlin"),
        ("America/NewYork", "America/New_York"),
        ("New York", "America/New_York"),
        ("Berlin", "Europe/Berlin"),
        ("UCT1", "UCT"),
    ] {
        assert_eq!(name.parse::<Zone>(), Err(ZoneError { name: name.into(), nearest }));
    }
    assert_eq!("Europe/Berlin".parse::<Zone>().unwrap().name(), "Europe/Berlin");
}

#[test]
fn the_end_of_time_is_no_panic() {
    let last = at("9999-12-31T23:59:59.999Z");
    for zone in ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"] {
        for expression in ["* * * * * *", "0 0 1 1 *", "30 */3 * * *"] {
            assert_eq!(cron(expression, zone).next_after(last), None, "{expression} in {zone}");
        }
    }
    assert!(cron("* * * * *", "Europe/Berlin").next_after(at("0000-01-01T00:00:00Z")).is_some());
}

/// One field as text and as the values meant by it.
type Meant = (String, BTreeSet<u32>);

fn any_field(min: u32, max: u32) -> BoxedStrategy<Meant> {
    let value = min..=max;
    let pair = (value.clone(), value.clone()).prop_map(|(a, b)| (a.min(b), a.max(b)));
    prop_oneof![
        3 => Just(("*".to_owned(), (min..=max).collect())),
        2 => prop::collection::btree_set(value.clone(), 1..4).prop_map(|set| {
            (set.iter().map(u32::to_string).collect::<Vec<_>>().join(","), set)
        }),
        1 => pair.clone().prop_map(|(a, b)| (format!("{a}-{b}"), (a..=b).collect())),
        1 => (pair, 1u32..=5).prop_map(|((a, b), n)| (format!("{a}-{b}/{n}"), (a..=b).step_by(n as usize).collect())),
        1 => (1..=max - min).prop_map(move |n| (format!("*/{n}"), (min..=max).step_by(n as usize).collect())),
        1 => (value, 1u32..=7).prop_map(move |(a, n)| (format!("{a}/{n}"), (a..=max).step_by(n as usize).collect())),
    ]
    .boxed()
}

/// The five fields of an expression, mostly without restricted dates, so that a walk of days meets something.
fn any_expression() -> impl Strategy<Value = (String, [BTreeSet<u32>; 5])> {
    let free = |min, max| prop_oneof![3 => Just(("*".to_owned(), (min..=max).collect())), 1 => any_field(min, max)];
    (any_field(0, 59), any_field(0, 23), free(1, 31), free(1, 12), free(0, 6)).prop_map(|(m, h, d, mo, w)| {
        let text = [&m, &h, &d, &mo, &w].map(|field| field.0.as_str()).join(" ");
        (text, [m.1, h.1, d.1, mo.1, w.1])
    })
}

fn names_day(local: NaiveDate, [_, _, days, months, weekdays]: &[BTreeSet<u32>; 5]) -> bool {
    let day = days.contains(&local.day());
    let weekday = weekdays.contains(&local.weekday().num_days_from_sunday());
    let either = days.len() < 31 && weekdays.len() < 7;
    months.contains(&local.month()) && if either { day || weekday } else { day && weekday }
}

fn names(local: NaiveDateTime, fields: &[BTreeSet<u32>; 5]) -> bool {
    fields[0].contains(&local.minute()) && fields[1].contains(&local.hour()) && names_day(local.date(), fields)
}

/// The first run after `from` within `minutes`, by looking at the clock of every minute.
fn walk(fields: &[BTreeSet<u32>; 5], zone: Tz, from: DateTime<Utc>, minutes: i64) -> Option<DateTime<Utc>> {
    let minute = TimeDelta::minutes(1);
    let shows = |at: DateTime<Utc>| at.with_timezone(&zone).naive_local();
    let mut at = from.with_second(0).unwrap().with_nanosecond(0).unwrap();
    for _ in 0..minutes {
        at += minute;
        let (before, now) = (shows(at - minute), shows(at));
        if fields[1].len() == 24 {
            if names(now, fields) {
                return Some(at);
            }
            continue;
        }
        let repeated = now < before || (1..=18).any(|n| shows(at - TimeDelta::minutes(10 * n)) == now);
        if !repeated && names(now, fields) {
            return Some(at);
        }
        let mut skipped = before + minute;
        while skipped < now {
            if names(skipped, fields) {
                return Some(at);
            }
            skipped += minute;
        }
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn next_after_agrees_with_a_walk_over_every_minute(
        (text, fields) in any_expression(),
        (zone, change) in prop::sample::select(vec![
            ("Europe/Berlin", "2026-03-29T01:00:00Z"), ("Europe/Berlin", "2026-10-25T01:00:00Z"),
            ("America/New_York", "2026-03-08T07:00:00Z"), ("America/New_York", "2026-11-01T06:00:00Z"),
            ("Australia/Lord_Howe", "2026-04-04T15:00:00Z"), ("Australia/Lord_Howe", "2026-10-03T15:30:00Z"),
            ("Africa/Cairo", "2026-04-23T22:00:00Z"), ("Africa/Cairo", "2026-10-29T21:00:00Z"),
            ("America/Havana", "2026-03-08T05:00:00Z"), ("America/Havana", "2026-11-01T05:00:00Z"),
            ("Asia/Kathmandu", "2026-11-01T00:00:00Z"), ("UTC", "2026-02-28T23:59:00Z"),
        ]),
        away in prop_oneof![-240i64..240, -2_000i64..240],
        millis in prop_oneof![Just(0i64), 0i64..60_000],
    ) {
        const MINUTES: i64 = 1_500;
        // A date that never comes is refused; the tables have these.
        let Ok(cron) = Cron::new(&text, zone.parse().unwrap()) else { return Ok(()) };
        let from = at(change).unix_millis() + away * 60_000 + millis;
        let start = DateTime::from_timestamp_millis(from).unwrap();
        let (mut after, mut walked) = (Timestamp::from_unix_millis(from).unwrap(), start);
        // Three runs in a row, so that each also starts where one has been.
        for _ in 0..3 {
            let found = cron.next_after(after);
            let Some(expected) = walk(&fields, zone.parse().unwrap(), walked, MINUTES) else {
                prop_assert!(found.is_none_or(|found| found.since(after).as_secs() >= MINUTES as u64 * 60 - 60));
                break;
            };
            prop_assert_eq!(found.map(Timestamp::unix_millis), Some(expected.timestamp_millis()), "{} after {}", text, after);
            (after, walked) = (found.unwrap(), expected);
        }
    }

    #[test]
    fn dates_agree_with_a_walk_over_every_day(
        days in any_field(1, 31), months in any_field(1, 12), weekdays in any_field(0, 6),
        special in prop::option::of((0u32..=6, 1u32..=5)), last in any::<bool>(), from in 0i64..3_000,
    ) {
        // `n#k` or, for k = 5, `nL` beside the numbers; `L` beside the days.
        let mut weekday_text = weekdays.0.clone();
        match special {
            Some((day, 5)) => weekday_text = format!("{weekday_text},{day}L"),
            Some((day, nth)) => weekday_text = format!("{weekday_text},{day}#{nth}"),
            None => {}
        }
        let day_text = if last { format!("{},L", days.0) } else { days.0.clone() };
        let text = format!("0 0 {day_text} {} {weekday_text}", months.0);
        let Ok(cron) = Cron::new(&text, Zone::UTC) else { return Ok(()) };
        let is_last = |date: NaiveDate, by: u64| (date + chrono::Days::new(by)).month() != date.month();
        let named = |date: NaiveDate| {
            let weekday = date.weekday().num_days_from_sunday();
            let day = days.1.contains(&date.day()) || (last && is_last(date, 1));
            let weekday = weekdays.1.contains(&weekday)
                || special.is_some_and(|(day, nth)| {
                    day == weekday && if nth == 5 { is_last(date, 7) } else { (date.day() - 1) / 7 + 1 == nth }
                });
            let either = days.1.len() < 31 && weekdays.1.len() < 7;
            months.1.contains(&date.month()) && if either { day || weekday } else { day && weekday }
        };
        let start = NaiveDate::from_ymd_opt(2020, 1, 1).unwrap() + chrono::Days::new(from as u64);
        let after = Timestamp::from_unix_millis(start.and_hms_opt(0, 0, 0).unwrap().and_utc().timestamp_millis());
        let expected = (1..800).map(|n| start + chrono::Days::new(n)).find(|date| named(*date));
        let found = cron.next_after(after.unwrap());
        match expected {
            Some(date) => {
                let millis = date.and_hms_opt(0, 0, 0).unwrap().and_utc().timestamp_millis();
                prop_assert_eq!(found.map(Timestamp::unix_millis), Some(millis), "{}", text);
            }
            None => prop_assert!(found.is_none_or(|found| found.since(after.unwrap()).as_secs() >= 800 * 86_400)),
        }
    }

    #[test]
    fn no_text_panics(text in "[-*/,?L#@0-9A-Za-z \t\\PC]{0,40}") {
        if let Ok(cron) = Cron::new(&text, Zone::UTC) {
            let after = Timestamp::EPOCH;
            prop_assert!(cron.next_after(after).is_some_and(|due| due > after));
        }
    }
}
