//! Every policy of a schedule as a table of times, and what must hold for any history as a property.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::{
    Job, JobId, RawJson,
    schedule::{MAX_CATCH_UP, MIN_RESULT_TTL, Schedule, ScheduleError, TOLERANCE},
};

/// Seconds after an arbitrary start.
fn s(seconds: i64) -> Timestamp {
    Timestamp::from_unix_millis(1_795_305_600_000 + seconds * 1_000).unwrap()
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn job() -> Job {
    Job::new(JobId::new("any").unwrap(), "k", RawJson::parse("{}").unwrap(), Timestamp::EPOCH)
}

fn define(schedule: Schedule) -> ScheduleDefinition {
    schedule.build(job()).unwrap()
}

/// A schedule created at `s(0)`.
fn record(schedule: Schedule) -> ScheduleRecord {
    ScheduleRecord::new(ScheduleId::new("tick").unwrap(), define(schedule), s(0))
}

fn seconds(due: &[Timestamp]) -> Vec<i64> {
    due.iter().map(|due| (due.unix_millis() - s(0).unix_millis()) / 1_000).collect()
}

/// Fires at `now`, publishes, and says what ran.
fn fire(record: &mut ScheduleRecord, now: i64, last_run: LastRun) -> Vec<i64> {
    let advance = record.advance(s(now), last_run, TOLERANCE);
    *record = advance.record.published(&advance.fires);
    seconds(&advance.fires)
}

#[test]
fn every_keeps_its_rhythm_however_late_it_runs() {
    let mut record = record(Schedule::every(secs(60)));
    assert_eq!(record.next, Some(s(60)));
    assert_eq!(fire(&mut record, 59, LastRun::Unknown), [0i64; 0]);
    for (now, fired) in [(60, 60), (127, 120), (193, 180), (240, 240)] {
        assert_eq!(fire(&mut record, now, LastRun::Live), [fired]);
    }
    assert_eq!((record.next, record.runs, record.last_due), (Some(s(300)), 4, Some(s(240))));
}

#[test]
fn a_start_is_the_first_run_and_the_anchor() {
    for (schedule, upcoming) in [
        (Schedule::every(secs(60)).start(s(90)), [90, 150, 210]),
        // A start that has passed makes up for nothing, but keeps its rhythm.
        (Schedule::every(secs(60)).start(s(-90)), [30, 90, 150]),
        (Schedule::every(secs(60)).start(s(0)), [60, 120, 180]),
        (Schedule::cron("* * * * *").start(s(120)), [120, 180, 240]),
        (Schedule::cron("* * * * *").start(s(121)), [180, 240, 300]),
        (Schedule::cron("* * * * *"), [60, 120, 180]),
    ] {
        assert_eq!(seconds(&record(schedule.clone()).upcoming(3)), upcoming, "{schedule:?}");
    }
    assert_eq!(record(Schedule::after_completion(secs(60))).next, Some(s(0)));
    assert_eq!(record(Schedule::after_completion(secs(60)).start(s(5))).next, Some(s(5)));
}

#[test]
fn a_fire_stays_recorded_until_it_is_published() {
    let record = record(Schedule::every(secs(60)));
    let Advance { record, fires } = record.advance(s(61), LastRun::Unknown, TOLERANCE);
    assert_eq!((&record.pending, &fires), (&vec![s(60)], &vec![s(60)]));
    assert_eq!(record.last_run_id, Some(record.id.run_id(s(60))));
    // A second leader with the same record fires the next one only.
    let Advance { record, fires } = record.advance(s(120), LastRun::Unknown, TOLERANCE);
    assert_eq!((seconds(&record.pending), seconds(&fires)), (vec![60, 120], vec![120]));
    let record = record.published(&[s(60), s(120), s(999)]);
    assert!(record.pending.is_empty());
    let job = record.job(s(60), s(61));
    assert_eq!((Some(job.id), job.schedule_id), (Some(record.id.run_id(s(60))), Some("tick".into())));
    assert_eq!((job.enqueued_at, job.run_at, job.attempt), (s(61), None, 1));
}

#[test]
fn missed_runs_by_policy() {
    // Due each minute; nothing was up until 5:10. 60 to 240 are missed, 300 is late by 10 s: on time.
    for (missed, fired, skipped) in [
        (Missed::Skip, vec![300], 4),
        (Missed::Once, vec![240, 300], 3),
        (Missed::All, vec![60, 120, 180, 240, 300], 0),
    ] {
        let mut record = record(Schedule::every(secs(60)).missed(missed));
        assert_eq!(fire(&mut record, 310, LastRun::Unknown), fired, "{missed:?}");
        assert_eq!((record.skipped, record.next), (skipped, Some(s(360))), "{missed:?}");
        assert_eq!(record.runs, fired.len() as u64);
    }
    // At 5:30, 300 is missed as well.
    for (missed, fired) in [(Missed::Skip, vec![]), (Missed::Once, vec![300])] {
        let mut record = record(Schedule::every(secs(60)).missed(missed));
        assert_eq!(fire(&mut record, 330, LastRun::Unknown), fired, "{missed:?}");
        assert_eq!(record.next, Some(s(360)));
    }
}

#[test]
fn the_tolerance_is_inclusive() {
    let tolerance = TOLERANCE.as_secs() as i64;
    for (late, fired) in [(tolerance, 1), (tolerance + 1, 0)] {
        let mut record = record(Schedule::every(secs(3600)).missed(Missed::Skip));
        assert_eq!(fire(&mut record, 3600 + late, LastRun::Unknown).len(), fired);
    }
}

#[test]
fn long_outages_are_bounded() {
    // 30 years of a run each second.
    let years = 30 * 365 * 86_400;
    for (schedule, limit) in [
        (Schedule::every(secs(1)), years),
        (Schedule::cron("* * * * * *").tz("Europe/Berlin"), years),
        (Schedule::every(secs(1)).end(s(50_000)), 50_000),
        (Schedule::cron("* * * * * *").end(s(50_000)), 50_000),
        (Schedule::cron("* * 3 * * *"), 0),
    ] {
        let mut all = record(schedule.clone().missed(Missed::All));
        let fires = fire(&mut all, years, LastRun::Unknown);
        assert_eq!(fires.len(), MAX_CATCH_UP, "{schedule:?}");
        assert!(fires.windows(2).all(|pair| pair[0] < pair[1]));
        if limit > 0 {
            assert_eq!(fires[MAX_CATCH_UP - 1], limit, "the newest are kept");
        }
        assert_eq!(all.skipped, late::MAX_COUNTED - MAX_CATCH_UP as u64);
        let mut once = record(schedule.missed(Missed::Once));
        let on_time = fire(&mut once, years, LastRun::Unknown);
        assert_eq!(on_time.last(), fires.last());
        assert!(on_time.len() <= TOLERANCE.as_secs() as usize + 2);
        assert_eq!(once.next, all.next);
    }
}

#[test]
fn a_full_backlog_stops_the_schedule_and_loses_nothing() {
    let mut record = record(Schedule::every(secs(1)).missed(Missed::All));
    record = record.advance(s(990), LastRun::Unknown, TOLERANCE).record;
    let Advance { record: full, fires } = record.advance(s(1_010), LastRun::Unknown, TOLERANCE);
    assert_eq!((fires.len(), full.pending.len()), (10, MAX_PENDING));
    assert_eq!(full.advance(s(2_000), LastRun::Unknown, TOLERANCE), Advance { record: full.clone(), fires: vec![] });
    assert_eq!(full.trigger(s(2_000)), Err(Refused::Backlog));
    let emptied = full.published(&full.pending);
    assert_eq!(seconds(&emptied.advance(s(1_500), LastRun::Unknown, TOLERANCE).fires)[0], 1_011);
}

#[test]
fn overlap_skip_waits_for_no_one() {
    let mut record = record(Schedule::every(secs(60)).overlap(Overlap::Skip));
    assert_eq!(fire(&mut record, 60, LastRun::Unknown), [60]);
    assert_eq!(fire(&mut record, 120, LastRun::Live), [0i64; 0]);
    assert_eq!((record.skipped, record.runs, record.next), (1, 1, Some(s(180))));
    assert_eq!(fire(&mut record, 181, LastRun::Ended(s(170))), [180]);
    // Several at once: they would overlap each other.
    record.definition.missed = Missed::All;
    assert_eq!(fire(&mut record, 600, LastRun::Ended(s(190))), [600]);
    assert_eq!((record.skipped, record.runs), (7, 3));
    // A recorded run that nobody has published yet lives, whatever the store says of it.
    let recorded = record.advance(s(660), LastRun::Unknown, TOLERANCE).record;
    assert!(recorded.advance(s(720), LastRun::Unknown, TOLERANCE).fires.is_empty());
}

#[test]
fn after_completion_counts_from_the_end() {
    let mut record = record(Schedule::after_completion(secs(60)).repeat(4));
    assert_eq!(fire(&mut record, 0, LastRun::Unknown), [0]);
    assert_eq!((record.next, record.awaits()), (None, Some(&record.id.run_id(s(0)))));
    assert_eq!(fire(&mut record, 500, LastRun::Live), [0i64; 0]);
    assert_eq!(fire(&mut record, 505, LastRun::Ended(s(502))), [0i64; 0]);
    assert_eq!((record.next, record.awaits()), (Some(s(562)), None));
    assert_eq!(fire(&mut record, 562, LastRun::Ended(s(502))), [562]);
    // The end became known late: the delay has passed already.
    assert_eq!(fire(&mut record, 700, LastRun::Ended(s(630))), [690]);
    // Nothing is left of the last run: from its due time.
    assert_eq!(fire(&mut record, 751, LastRun::Unknown), [750]);
    assert_eq!((record.status, record.runs, record.awaits()), (ScheduleStatus::Completed, 4, None));
}

#[test]
fn after_completion_waits_for_what_is_not_published() {
    let recorded = record(Schedule::after_completion(secs(1))).advance(s(0), LastRun::Unknown, TOLERANCE).record;
    assert!(recorded.advance(s(100), LastRun::Unknown, TOLERANCE).fires.is_empty());
}

#[test]
fn after_completion_follows_the_missed_policy_and_the_end() {
    let mut skipping = record(Schedule::after_completion(secs(60)).missed(Missed::Skip));
    fire(&mut skipping, 0, LastRun::Unknown);
    assert_eq!(fire(&mut skipping, 500, LastRun::Ended(s(10))), [0i64; 0]);
    assert_eq!((skipping.next, skipping.skipped), (Some(s(560)), 1));
    let mut ending = record(Schedule::after_completion(secs(60)).end(s(65)));
    fire(&mut ending, 0, LastRun::Unknown);
    fire(&mut ending, 7, LastRun::Ended(s(6)));
    assert_eq!((ending.status, ending.next), (ScheduleStatus::Completed, None));
}

#[test]
fn repeat_and_end_complete_a_schedule() {
    let mut twice = record(Schedule::every(secs(60)).repeat(2));
    assert_eq!(seconds(&twice.upcoming(9)), [60, 120]);
    fire(&mut twice, 60, LastRun::Unknown);
    assert_eq!(twice.status, ScheduleStatus::Active);
    assert_eq!(fire(&mut twice, 120, LastRun::Unknown), [120]);
    assert_eq!((twice.status, twice.next), (ScheduleStatus::Completed, None));
    assert_eq!(fire(&mut twice, 600, LastRun::Unknown), [0i64; 0]);
    // Of many missed, those that would have been the runs.
    let mut missed = record(Schedule::every(secs(60)).repeat(3).missed(Missed::All));
    assert_eq!(fire(&mut missed, 6_000, LastRun::Unknown), [60, 120, 180]);
    assert_eq!((missed.status, missed.skipped), (ScheduleStatus::Completed, 0));
    // The end itself is within.
    let mut ending = record(Schedule::every(secs(60)).end(s(120)));
    assert_eq!(seconds(&ending.upcoming(9)), [60, 120]);
    fire(&mut ending, 60, LastRun::Unknown);
    assert_eq!(fire(&mut ending, 121, LastRun::Unknown), [120]);
    assert_eq!(ending.status, ScheduleStatus::Completed);
    assert_eq!(record(Schedule::every(secs(60)).end(s(59))).status, ScheduleStatus::Completed);
}

#[test]
fn what_was_due_while_paused_is_not_made_up_for() {
    let mut every = record(Schedule::every(secs(60)).missed(Missed::All));
    every = every.pause(s(70)).unwrap();
    assert_eq!((every.status, every.upcoming(3)), (ScheduleStatus::Paused, vec![]));
    assert_eq!(fire(&mut every, 600, LastRun::Unknown), [0i64; 0]);
    assert_eq!(every.pause(s(601)), Ok(every.clone()));
    every = every.resume(s(610)).unwrap();
    assert_eq!(every.resume(s(611)), Ok(every.clone()));
    assert_eq!(fire(&mut every, 660, LastRun::Unknown), [660]);

    let mut after = record(Schedule::after_completion(secs(60)));
    fire(&mut after, 0, LastRun::Unknown);
    after = after.pause(s(5)).unwrap().resume(s(500)).unwrap();
    assert_eq!(fire(&mut after, 501, LastRun::Ended(s(9))), [500]);
    let ended = record(Schedule::every(secs(60)).end(s(300))).pause(s(1)).unwrap().resume(s(301)).unwrap();
    assert_eq!(ended.status, ScheduleStatus::Completed);
}

#[test]
fn a_trigger_is_an_extra_run() {
    let record = record(Schedule::every(secs(60)).repeat(1).overlap(Overlap::Skip));
    let Advance { record, fires } = record.trigger(s(60)).unwrap();
    assert_eq!(fires, [s(60).saturating_add(Duration::from_millis(1))], "the due time of the next run is taken");
    assert_eq!((record.runs, record.next, &record.pending), (0, Some(s(60)), &fires));
    assert_eq!(record.last_run_id, Some(record.id.run_id(fires[0])));
    let again = record.trigger(s(60)).unwrap();
    assert_eq!(again.fires, [s(60).saturating_add(Duration::from_millis(2))]);
    let third = again.record.published(&again.record.pending).trigger(s(60)).unwrap();
    assert_eq!(third.fires, [s(60).saturating_add(Duration::from_millis(3))], "a published one keeps its id");
    // It lives, so the regular run does not start beside it.
    let mut record = record.published(&fires);
    assert_eq!(fire(&mut record, 60, LastRun::Live), [0i64; 0]);
    for held in [record.pause(s(61)).unwrap(), ScheduleRecord { status: ScheduleStatus::Completed, ..record.clone() }] {
        assert_eq!(held.trigger(s(62)).unwrap().fires, [s(62)]);
    }
    let refused = Refused::Status { action: Action::Trigger, status: ScheduleStatus::Cancelled };
    assert_eq!(record.cancel(s(62)).trigger(s(62)), Err(refused));
}

#[test]
fn after_completion_waits_for_a_triggered_run_too() {
    let mut record = record(Schedule::after_completion(secs(60)));
    fire(&mut record, 0, LastRun::Unknown);
    fire(&mut record, 11, LastRun::Ended(s(10)));
    let triggered = record.trigger(s(40)).unwrap();
    let mut record = triggered.record.published(&triggered.fires);
    assert_eq!(fire(&mut record, 70, LastRun::Live), [0i64; 0]);
    assert_eq!(record.awaits(), Some(&record.id.run_id(s(40))));
    assert_eq!(fire(&mut record, 160, LastRun::Ended(s(100))), [160]);
}

#[test]
fn an_upsert_can_be_repeated() {
    let hourly = || define(Schedule::every(secs(3600)));
    let id = ScheduleId::new("tick").unwrap();
    let Upsert::Created(mut stored) = ScheduleRecord::upsert(None, id.clone(), hourly(), s(0)) else { panic!("found") };
    fire(&mut stored, 3600, LastRun::Unknown);
    for same in [
        stored.clone(),
        stored.pause(s(3700)).unwrap(),
        ScheduleRecord { status: ScheduleStatus::Completed, next: None, ..stored.clone() },
    ] {
        assert_eq!(ScheduleRecord::upsert(Some(&same), id.clone(), hourly(), s(5000)), Upsert::Unchanged);
    }
    let mut later = stored.clone();
    later.definition.extra.insert("x_future".into(), RawJson::null());
    assert_eq!(ScheduleRecord::upsert(Some(&later), id.clone(), hourly(), s(5000)), Upsert::Unchanged);
    let Upsert::Created(anew) = ScheduleRecord::upsert(Some(&stored.cancel(s(4000))), id, hourly(), s(5000)) else {
        panic!("a cancelled schedule starts anew")
    };
    assert_eq!(
        (anew.status, anew.runs, anew.next, anew.created_at),
        (ScheduleStatus::Active, 0, Some(s(8600)), s(5000))
    );
}

#[test]
fn a_changed_timing_counts_from_now() {
    let mut stored = record(Schedule::every(secs(3600)));
    fire(&mut stored, 3600, LastRun::Unknown);
    let retimed = stored.modify(define(Schedule::every(secs(60))), s(3700)).unwrap();
    assert_eq!((retimed.next, retimed.runs, retimed.updated_at), (Some(s(3760)), 1, s(3700)));
    // Another job or policy leaves the next run where it is.
    let mut other = job();
    other.kind = "other".into();
    let rejobbed = stored.modify(Schedule::every(secs(3600)).build(other).unwrap(), s(3700)).unwrap();
    assert_eq!((rejobbed.next, rejobbed.definition.job.as_job().kind.as_str()), (Some(s(7200)), "other"));
    // Fewer runs than there were, an end that has passed, and back.
    for over in [Schedule::every(secs(3600)).repeat(1), Schedule::every(secs(3600)).end(s(7199))] {
        let over = stored.modify(define(over), s(3700)).unwrap();
        assert_eq!((over.status, over.next), (ScheduleStatus::Completed, None));
        let again = over.modify(define(Schedule::every(secs(3600)).repeat(2)), s(3800)).unwrap();
        assert_eq!((again.status, again.next), (ScheduleStatus::Active, Some(s(7200))));
    }
    let paused = stored.pause(s(3650)).unwrap().modify(define(Schedule::every(secs(60))), s(3700)).unwrap();
    assert_eq!(paused.status, ScheduleStatus::Paused);
    assert_eq!(paused.resume(s(3710)).unwrap().next, Some(s(3760)));
    // `after_completion` keeps waiting for its run.
    let mut after = record(Schedule::after_completion(secs(60)));
    fire(&mut after, 0, LastRun::Unknown);
    let mut after = after.modify(define(Schedule::after_completion(secs(60)).repeat(9)), s(1)).unwrap();
    assert_eq!((after.status, after.awaits().is_some()), (ScheduleStatus::Active, true));
    assert_eq!(fire(&mut after, 70, LastRun::Ended(s(3))), [63]);
}

#[test]
fn what_has_ended_is_not_held() {
    let record = record(Schedule::every(secs(60)));
    let cancelled = record.advance(s(60), LastRun::Unknown, TOLERANCE).record.cancel(s(61));
    assert_eq!((cancelled.status, cancelled.next, cancelled.pending.len()), (ScheduleStatus::Cancelled, None, 0));
    assert_eq!(cancelled.cancel(s(62)), cancelled);
    let completed = ScheduleRecord { status: ScheduleStatus::Completed, ..record };
    for ended in [cancelled, completed] {
        let status = ended.status;
        assert_eq!(ended.pause(s(70)), Err(Refused::Status { action: Action::Pause, status }));
        assert_eq!(ended.resume(s(70)), Err(Refused::Status { action: Action::Resume, status }));
    }
}

#[test]
fn runs_that_are_looked_at_keep_their_result() {
    let ttl = |schedule: Schedule| {
        let mut job = job();
        job.result_ttl = Duration::ZERO;
        let id = ScheduleId::new("tick").unwrap();
        ScheduleRecord::new(id, schedule.build(job).unwrap(), s(0)).job(s(60), s(60)).result_ttl
    };
    assert_eq!(ttl(Schedule::every(secs(60))), Duration::ZERO);
    assert_eq!(ttl(Schedule::every(secs(60)).overlap(Overlap::Skip)), MIN_RESULT_TTL);
    assert_eq!(ttl(Schedule::after_completion(secs(60))), MIN_RESULT_TTL);
}

#[test]
fn refused_definitions() {
    let refused = |schedule: Schedule| schedule.build(job()).unwrap_err();
    let century = Duration::from_secs(101 * 365 * 86_400);
    assert!(matches!(refused(Schedule::cron("x")), ScheduleError::Cron(_)));
    assert!(matches!(refused(Schedule::cron("@daily").tz("Mars/Base")), ScheduleError::Zone(_)));
    assert!(matches!(refused(Schedule::every(secs(1)).tz("UTC")), ScheduleError::ZoneWithoutCron));
    assert!(matches!(refused(Schedule::every(Duration::from_millis(99))), ScheduleError::Period { what: "every", .. }));
    assert!(matches!(refused(Schedule::after_completion(century)), ScheduleError::Period { what: "after", .. }));
    assert!(matches!(refused(Schedule::every(secs(1)).repeat(0)), ScheduleError::Repeat));
    assert!(matches!(refused(Schedule::every(secs(1)).start(s(1)).end(s(0))), ScheduleError::Range { .. }));
    let mut waiting = job();
    waiting.depends_on = vec![JobId::new("first").unwrap()];
    assert_eq!(Schedule::every(secs(1)).build(waiting), Err(ScheduleError::DependsOn));
    assert!(matches!("some".parse::<Missed>(), Err(ScheduleError::Word { .. })));
    assert_eq!("all".parse::<Missed>(), Ok(Missed::All));
    assert_eq!("skip".parse::<Overlap>(), Ok(Overlap::Skip));
}

/// Catches: a run whose id a run by hand had already, so that it would be taken for done.
#[test]
fn a_run_by_hand_before_the_first_one_by_completion_has_its_own_id() {
    let created = record(Schedule::after_completion(secs(159)));
    let by_hand = created.trigger(s(160)).unwrap();
    assert_eq!(by_hand.fires, [s(160)]);
    let ended = |due: Timestamp| LastRun::Ended(due.saturating_add(secs(1)));
    let first = by_hand.record.published(&[s(160)]).advance(s(162), ended(s(160)), TOLERANCE);
    let due = s(160).saturating_add(Duration::from_millis(1));
    assert_eq!(first.fires, [due]);
    let next = first.record.published(&[due]).advance(s(163), ended(due), TOLERANCE);
    assert_eq!((next.fires, next.record.next), (vec![], Some(due.saturating_add(secs(160)))));
}

fn any_schedule() -> impl Strategy<Value = Schedule> {
    let timing = prop_oneof![
        (1u64..200).prop_map(|n| Schedule::every(secs(n))),
        (1u64..200).prop_map(|n| Schedule::after_completion(secs(n))),
        prop::sample::select(vec!["* * * * *", "*/7 * * * * *", "*/20 * * * *", "5 */2 * * *"])
            .prop_map(Schedule::cron),
    ];
    let missed = prop::sample::select(vec![Missed::Skip, Missed::Once, Missed::All]);
    let overlap = prop::sample::select(vec![Overlap::Allow, Overlap::Skip]);
    (timing, missed, overlap, prop::option::of(1u64..20), prop::option::of(0i64..9_000)).prop_map(
        |(schedule, missed, overlap, repeat, end)| {
            let schedule = schedule.missed(missed).overlap(overlap);
            let schedule = if let Some(n) = repeat { schedule.repeat(n) } else { schedule };
            if let Some(end) = end { schedule.end(s(end)) } else { schedule }
        },
    )
}

proptest! {
    /// Whatever happens in whatever order: no run has two fires, none is early or after the end, there are never more
    /// than `repeat`, `next` lies in the future, and the record survives its store.
    #[test]
    fn any_history(
        schedule in any_schedule(),
        steps in prop::collection::vec((prop_oneof![Just(0), 1i64..400], 0u8..12, any::<bool>()), 1..60),
    ) {
        let (mut record, mut now, mut fired) = (record(schedule), 0, BTreeSet::new());
        for (wait, step, live) in steps {
            now += wait;
            let last_run = match record.last_due {
                None => LastRun::Unknown,
                Some(_) if live => LastRun::Live,
                Some(due) => LastRun::Ended(due.saturating_add(secs(1)).min(s(now))),
            };
            let advance = match step {
                0 => record.pause(s(now)).map(|record| Advance { record, fires: vec![] }),
                1 => record.resume(s(now)).map(|record| Advance { record, fires: vec![] }),
                2 => record.trigger(s(now)),
                _ => Ok(record.advance(s(now), last_run, TOLERANCE)),
            };
            let Ok(advance) = advance else { continue };
            for due in &advance.fires {
                prop_assert!(fired.insert(advance.record.id.run_id(*due)), "{due} fired twice");
                prop_assert!(step == 2 || *due <= s(now));
                prop_assert!(step == 2 || record.definition.end.is_none_or(|end| *due <= end));
            }
            prop_assert!(record.definition.overlap == Overlap::Allow || advance.fires.len() <= 1);
            if step > 2 {
                prop_assert!(advance.record.next.is_none_or(|next| next > s(now)));
                prop_assert!(!(live && record.definition.looks_at_last_run()) || advance.fires.is_empty()
                    || record.last_due.is_none());
            }
            record = advance.record.published(&advance.fires);
            prop_assert!(record.definition.repeat.is_none_or(|repeat| record.runs <= repeat));
            let status_fits = match record.status {
                ScheduleStatus::Active => record.next.is_some() != record.awaits().is_some(),
                _ => record.next.is_none(),
            };
            prop_assert!(status_fits, "{record:?}");
            let stored = serde_json::to_string(&record).unwrap();
            prop_assert_eq!(&serde_json::from_str::<ScheduleRecord>(&stored).unwrap(), &record);
        }
    }
}
