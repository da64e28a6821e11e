//! The judge of histories, held against faked ones: each broken promise is found, and nothing else is.

use std::time::Duration;

use anyhow::Result;
use naq_tests::faults::{Ending, Event, Line, Plan, Recorder, Rule, Rules, Scope, Seen, Verdict, check, read};

const RULES: Rules = Rules {
    lease: Duration::from_secs(5),
    slack: Duration::from_secs(1),
    memory: Duration::from_secs(2),
    max_crashes: 3,
};
const PRODUCER: u32 = 1;
const WORKER: u32 = 2;
const OTHER: u32 = 3;
const THIRD: u32 = 4;
const JUDGE: u32 = 9;

/// A history that is told second by second.
#[derive(Default)]
struct Fake(Vec<Line>);

impl Fake {
    fn says(mut self, second: f64, pid: u32, event: Event) -> Fake {
        self.0.push(Line { at: Duration::from_secs_f64(second), pid, event });
        self
    }

    /// A producer enqueues a job, and the store has it.
    fn job(self, second: f64, job: &str, plan: Plan) -> Fake {
        let acknowledged = Event::Acknowledged { job: job.into(), instead: None };
        self.asks(second, job, plan).says(second, PRODUCER, acknowledged)
    }

    fn asks(self, second: f64, job: &str, plan: Plan) -> Fake {
        self.says(second, PRODUCER, Event::Enqueue { job: job.into(), plan })
    }

    fn starts(self, second: f64, pid: u32, job: &str, run: &str, attempt: u32) -> Fake {
        self.says(second, pid, Event::Start { job: job.into(), run: run.into(), attempt })
    }

    fn ends(self, second: f64, pid: u32, run: &str, ending: Ending) -> Fake {
        self.says(second, pid, Event::End { run: run.into(), ending })
    }

    /// A run does its work and completes.
    fn completes(self, second: f64, pid: u32, run: &str) -> Fake {
        self.says(second, pid, Event::Effect { run: run.into() }).ends(second, pid, run, Ending::Completed)
    }

    /// A run of its first attempt, half a second long.
    fn runs(self, second: f64, pid: u32, job: &str, run: &str) -> Fake {
        self.starts(second, pid, job, run, 1).completes(second + 0.5, pid, run)
    }

    fn looks(self, second: f64, job: &str, seen: Seen) -> Fake {
        self.says(second, JUDGE, Event::Looked { job: job.into(), seen })
    }

    fn completed(self, second: f64, job: &str, run: &str, attempt: u32) -> Fake {
        self.looks(second, job, ended("completed", attempt, Some(run), None))
    }

    fn fault(self, second: f64, fault: u32, scope: Scope) -> Fake {
        self.says(second, JUDGE, Event::Fault { fault, name: "faked".into(), scope })
    }

    fn healed(self, second: f64, fault: u32) -> Fake {
        self.says(second, JUDGE, Event::Healed { fault })
    }

    fn dies(self, second: f64, process: u32) -> Fake {
        self.says(second, JUDGE, Event::Died { process })
    }

    fn judged(mut self) -> Verdict {
        self.0.sort_by_key(|line| line.at);
        check(&self.0, &RULES)
    }

    /// Every promise is kept.
    #[track_caller]
    fn holds(self) -> Verdict {
        let verdict = self.judged();
        assert!(verdict.violations.is_empty(), "{verdict}");
        verdict
    }

    /// This promise is broken, once, and no other.
    #[track_caller]
    fn breaks(self, rule: Rule) {
        let verdict = self.judged();
        let rules: Vec<Rule> = verdict.violations.iter().map(|violation| violation.rule).collect();
        assert_eq!(rules, [rule], "{verdict}");
        assert!(verdict.to_string().contains(rule.name()), "{verdict}");
    }
}

fn ended(status: &str, attempt: u32, run: Option<&str>, error_type: Option<&str>) -> Seen {
    let (run, error_type) = (run.map(str::to_owned), error_type.map(str::to_owned));
    Seen::Ended { status: status.into(), attempt, run, error_type }
}

fn plain() -> Plan {
    Plan::default()
}

fn fails(fails: u32, max_retries: u32) -> Plan {
    Plan { fails, max_retries, ..Plan::default() }
}

fn unkept() -> Plan {
    Plan { keeps_no_result: true, ..Plan::default() }
}

/// One job, enqueued and run, and nobody has looked yet.
fn one() -> Fake {
    Fake::default().job(0.0, "a", plain()).runs(1.0, WORKER, "a", "r1")
}

#[test]
fn a_calm_history_holds() {
    let verdict = one()
        .completed(2.0, "a", "r1", 1)
        .job(0.0, "silent", unkept())
        .runs(1.0, OTHER, "silent", "r2")
        .looks(2.0, "silent", Seen::Nothing)
        .holds();
    assert_eq!((verdict.counts.jobs, verdict.counts.acknowledged, verdict.counts.runs), (2, 2, 2));
    assert_eq!((verdict.counts.run_again, verdict.counts.effect_again, verdict.counts.faults), (0, 0, 0));
}

#[test]
fn lost_jobs_are_found() {
    Fake::default().job(0.0, "a", plain()).looks(9.0, "a", Seen::Nothing).breaks(Rule::Lost);
    Fake::default().job(0.0, "a", unkept()).looks(9.0, "a", Seen::Nothing).breaks(Rule::Lost);
    // It ran, but the result that should be kept is gone.
    one().looks(9.0, "a", Seen::Nothing).breaks(Rule::Lost);
    // A kill in its only run: nobody ran it again.
    let cut = Fake::default().job(0.0, "a", unkept()).starts(1.0, WORKER, "a", "r1", 1).dies(1.2, WORKER);
    cut.looks(9.0, "a", Seen::Nothing).breaks(Rule::Lost);
}

#[test]
fn what_was_not_acknowledged_may_be_missing_or_there() {
    let asked = || Fake::default().asks(0.0, "a", plain());
    let verdict = asked().looks(9.0, "a", Seen::Nothing).holds();
    assert_eq!((verdict.counts.jobs, verdict.counts.unanswered_yet_there), (1, 0));
    let verdict = asked().runs(1.0, WORKER, "a", "r1").completed(2.0, "a", "r1", 1).holds();
    assert_eq!(verdict.counts.unanswered_yet_there, 1);
    // Once it is there it has to end like any other.
    asked().looks(9.0, "a", Seen::Alive { status: "pending".into() }).breaks(Rule::Stuck);
    asked().runs(1.0, WORKER, "a", "r1").looks(9.0, "a", Seen::Nothing).breaks(Rule::Lost);
}

#[test]
fn stuck_jobs_are_found() {
    let stuck = Fake::default().job(0.0, "a", plain());
    stuck.looks(99.0, "a", Seen::Alive { status: "running".into() }).breaks(Rule::Stuck);
}

#[test]
fn ends_follow_the_plan() {
    let twice = || {
        let first = Fake::default().job(0.0, "a", fails(1, 1)).starts(1.0, WORKER, "a", "r1", 1);
        first.ends(1.1, WORKER, "r1", Ending::Failed).starts(2.0, WORKER, "a", "r2", 2)
    };
    twice().completes(2.5, WORKER, "r2").completed(3.0, "a", "r2", 2).holds();
    twice()
        .ends(2.5, WORKER, "r2", Ending::Failed)
        .looks(3.0, "a", ended("failed", 2, None, Some("boom")))
        .breaks(Rule::WrongEnd);
    // It had attempts left.
    let given_up = Fake::default().job(0.0, "a", fails(3, 3)).starts(1.0, WORKER, "a", "r1", 1);
    let given_up = given_up.ends(1.1, WORKER, "r1", Ending::Failed);
    given_up.looks(3.0, "a", ended("failed", 1, None, Some("boom"))).breaks(Rule::WrongEnd);
    one().looks(2.0, "a", ended("cancelled", 1, None, Some("cancelled"))).breaks(Rule::WrongEnd);
}

#[test]
fn a_job_may_end_with_its_workers_only_if_they_died() {
    let dying = |deaths: u32| {
        let mut fake = Fake::default().job(0.0, "a", plain());
        for number in 0..deaths {
            let (second, pid) = (f64::from(number) * 10.0, 10 + number);
            fake = fake.starts(second + 1.0, pid, "a", &format!("r{number}"), 1).dies(second + 2.0, pid);
        }
        fake.looks(90.0, "a", ended("failed", 1, None, Some("worker_lost")))
    };
    dying(3).holds();
    dying(2).breaks(Rule::WrongEnd);
    dying(2).starts(40.0, WORKER, "a", "stopped", 1).ends(44.0, WORKER, "stopped", Ending::Stopped).holds();
    // It ended, and the store was never told.
    let untold = dying(2).starts(40.0, WORKER, "a", "untold", 1).fault(40.1, 1, Scope::Process(WORKER)).healed(60.0, 1);
    untold.ends(40.2, WORKER, "untold", Ending::Failed).holds();
}

#[test]
fn runs_repeat_only_after_faults() {
    let again = |fake: Fake| fake.runs(4.0, OTHER, "a", "r2").completed(5.0, "a", "r1", 1);
    again(one()).breaks(Rule::RunAgain);
    for scope in [Scope::Process(WORKER), Scope::Everybody] {
        let verdict = again(one().fault(1.2, 1, scope).healed(2.0, 1)).holds();
        assert_eq!((verdict.counts.run_again, verdict.counts.effect_again), (1, 1));
    }
    again(one().dies(1.6, WORKER)).holds();
    // A fault of another process, and one that was over long before or came long after, explain nothing.
    again(one().fault(1.2, 1, Scope::Process(OTHER)).healed(2.0, 1)).breaks(Rule::RunAgain);
    // The second had it first, and slept; it noticed in time, or did not.
    let slept = || {
        let fake = Fake::default().fault(0.5, 1, Scope::Frozen(OTHER)).healed(20.0, 1).job(0.0, "a", plain());
        fake.runs(6.0, WORKER, "a", "r1").completed(30.0, "a", "r1", 1).starts(20.0, OTHER, "a", "r2", 1)
    };
    slept().ends(20.1, OTHER, "r2", Ending::Stopped).holds();
    slept().completes(20.1, OTHER, "r2").breaks(Rule::RunAgain);
    let late = one().fault(60.0, 1, Scope::Everybody).healed(61.0, 1).runs(80.0, OTHER, "a", "r2");
    late.completed(90.0, "a", "r1", 1).breaks(Rule::RunAgain);
}

#[test]
fn what_was_seen_to_have_ended_does_not_run() {
    let seen = || one().dies(1.6, WORKER).completed(2.0, "a", "r1", 1).completed(9.0, "a", "r1", 1);
    seen().runs(4.0, OTHER, "a", "r2").breaks(Rule::RunAgain);
    // Unless its worker slept between looking and starting.
    let slept = seen().fault(1.9, 1, Scope::Frozen(OTHER)).healed(3.9, 1);
    slept.runs(4.0, OTHER, "a", "r2").holds();
}

#[test]
fn results_are_written_once_and_by_a_run() {
    one().completed(2.0, "a", "r1", 1).completed(3.0, "a", "r2", 1).breaks(Rule::Result);
    one().completed(2.0, "a", "nobody", 1).breaks(Rule::Result);
    let without_effect = Fake::default().job(0.0, "a", plain()).starts(1.0, WORKER, "a", "r1", 1);
    without_effect.ends(1.5, WORKER, "r1", Ending::Completed).completed(2.0, "a", "r1", 1).breaks(Rule::Result);
    // It was there, and then it was not.
    let gone = one().completed(2.0, "a", "r1", 1).looks(3.0, "a", Seen::Nothing).judged();
    assert_eq!((gone.count(Rule::Result), gone.count(Rule::Lost)), (1, 1), "{gone}");
}

#[test]
fn attempts_are_counted() {
    let failing = |attempts: u32| {
        let mut fake = Fake::default().job(0.0, "a", fails(9, 1));
        for attempt in 1..=attempts {
            let (second, run) = (f64::from(attempt), format!("r{attempt}"));
            fake = fake.starts(second, WORKER, "a", &run, attempt).ends(second + 0.1, WORKER, &run, Ending::Failed);
        }
        fake.looks(9.0, "a", ended("failed", 2, None, Some("boom")))
    };
    failing(2).holds();
    failing(3).breaks(Rule::Attempts);
    // A kill is no attempt.
    let killed = Fake::default().job(0.0, "a", fails(1, 5)).starts(1.0, WORKER, "a", "r1", 1).dies(1.2, WORKER);
    killed
        .starts(7.0, OTHER, "a", "r2", 2)
        .completes(7.5, OTHER, "r2")
        .completed(9.0, "a", "r2", 2)
        .breaks(Rule::Attempts);
}

#[test]
fn runs_that_overlap_are_found() {
    let both = |fake: Fake| {
        let first = fake.job(0.0, "a", plain()).starts(1.0, WORKER, "a", "r1", 1).starts(8.0, OTHER, "a", "r2", 1);
        first.completes(11.0, OTHER, "r2").completed(12.0, "a", "r2", 1)
    };
    let cut = || Fake::default().fault(1.5, 1, Scope::Process(WORKER)).healed(9.0, 1);
    // Told to stop in time, told too late, never told.
    both(cut()).ends(6.5, WORKER, "r1", Ending::Stopped).holds();
    both(cut()).ends(8.5, WORKER, "r1", Ending::Stopped).holds();
    both(cut()).ends(10.5, WORKER, "r1", Ending::Stopped).breaks(Rule::Overlap);
    both(cut()).breaks(Rule::Overlap);
    // A stopped process does nothing, whatever it believes; a dead one too.
    let stopped = Fake::default().fault(1.5, 1, Scope::Frozen(WORKER)).healed(10.0, 1);
    both(stopped).ends(10.2, WORKER, "r1", Ending::Stopped).holds();
    both(Fake::default().dies(1.5, WORKER)).holds();
}

#[test]
fn a_killed_store_may_forget_what_it_did_last() {
    let runs = |fault: f64, scope| {
        let fake = Fake::default().fault(fault, 1, scope).healed(fault + 0.5, 1).job(0.0, "a", plain());
        let both = fake.starts(1.0, WORKER, "a", "r1", 1).starts(4.0, OTHER, "a", "r2", 1);
        both.completes(9.0, WORKER, "r1").ends(9.2, OTHER, "r2", Ending::Stopped).completed(12.0, "a", "r1", 1)
    };
    let verdict = runs(2.5, Scope::Store).holds();
    assert_eq!(verdict.counts.forgotten, 1);
    runs(2.5, Scope::Everybody).breaks(Rule::Overlap);
    // By then the delivery was noted.
    runs(3.5, Scope::Store).breaks(Rule::Overlap);
    // Nothing tells that a job ran which keeps no result.
    let again = |plan, scope| {
        let fake = Fake::default().fault(40.0, 1, scope).healed(41.0, 1).job(0.0, "a", plan);
        fake.runs(1.0, WORKER, "a", "r1").runs(42.0, OTHER, "a", "r2")
    };
    assert_eq!(again(unkept(), Scope::Store).looks(50.0, "a", Seen::Nothing).holds().counts.forgotten, 1);
    again(unkept(), Scope::Everybody).looks(50.0, "a", Seen::Nothing).breaks(Rule::RunAgain);
    again(plain(), Scope::Store).completed(50.0, "a", "r1", 1).breaks(Rule::RunAgain);
}

#[test]
fn what_was_held_up_on_its_way_may_come_late() {
    let late = |plan: Plan, healed: f64| {
        let first = Fake::default().job(0.0, "a", plan).starts(1.0, WORKER, "a", "r1", 1).ends(
            1.1,
            WORKER,
            "r1",
            Ending::Failed,
        );
        let cut = first.fault(1.2, 1, Scope::Process(WORKER)).healed(healed, 1);
        let again = cut.starts(6.5, OTHER, "a", "r2", 1).ends(6.6, OTHER, "r2", Ending::Failed);
        let done = again.starts(7.0, OTHER, "a", "r3", 2).completes(7.1, OTHER, "r3");
        done.starts(20.5, THIRD, "a", "r4", 2).completes(20.6, THIRD, "r4")
    };
    let unkept = || Plan { keeps_no_result: true, ..fails(1, 2) };
    assert_eq!(late(unkept(), 20.0).looks(30.0, "a", Seen::Nothing).holds().counts.run_again, 2);
    late(unkept(), 8.0).looks(30.0, "a", Seen::Nothing).breaks(Rule::RunAgain);
    late(fails(1, 2), 20.0).completed(30.0, "a", "r3", 2).breaks(Rule::RunAgain);
}

#[test]
fn schedules_fire_each_due_time_and_no_other() {
    let due = || {
        let schedule = Event::Scheduled { schedule: "often".into(), first: 1000, period: 500, count: 2 };
        let fired = Fake::default().says(0.0, PRODUCER, schedule).runs(1.0, WORKER, "often_1000", "r1");
        fired.completed(9.0, "often_1000", "r1", 1)
    };
    let whole = || due().runs(1.5, WORKER, "often_1500", "r2").completed(9.0, "often_1500", "r2", 1);
    whole().holds();
    due().looks(9.0, "often_1500", Seen::Nothing).breaks(Rule::Missed);
    whole().runs(1.7, WORKER, "often_1700", "r3").breaks(Rule::FiredWrong);
    // The same due time twice is a repetition like any other.
    whole().runs(3.0, OTHER, "often_1500", "r3").breaks(Rule::RunAgain);
}

#[test]
fn unique_keys_keep_others_out() {
    let keyed = || Plan { unique_key: Some("k".into()), ..Plan::default() };
    let first = || {
        let first = Fake::default().job(0.0, "a", keyed()).starts(1.0, WORKER, "a", "r1", 1);
        first.completes(4.0, WORKER, "r1").completed(9.0, "a", "r1", 1)
    };
    let second = |begin: f64| {
        let second = first().job(0.0, "b", keyed()).starts(begin, OTHER, "b", "r2", 1);
        second.completes(begin + 0.5, OTHER, "r2").completed(9.0, "b", "r2", 1)
    };
    second(4.5).holds();
    second(2.0).breaks(Rule::Unique);
    let refused = || {
        let instead = Event::Acknowledged { job: "b".into(), instead: Some("a".into()) };
        first().asks(2.0, "b", keyed()).says(2.0, PRODUCER, instead)
    };
    refused().looks(9.0, "b", Seen::Nothing).holds();
    refused().runs(6.0, OTHER, "b", "r2").breaks(Rule::Unique);
}

#[test]
fn dependants_wait() {
    let after = || Plan { depends_on: vec!["a".into()], ..Plan::default() };
    let child = |begin: f64| {
        let parent = one().completed(2.0, "a", "r1", 1).job(0.0, "b", after());
        parent.runs(begin, OTHER, "b", "r2").completed(9.0, "b", "r2", 1)
    };
    child(2.0).holds();
    child(1.2).breaks(Rule::Early);
    // Its parent failed: it is cancelled, and anything else is wrong.
    let forsaken = |seen: Seen| {
        let parent = Fake::default().job(0.0, "a", fails(1, 0)).starts(1.0, WORKER, "a", "r1", 1);
        let parent =
            parent.ends(1.5, WORKER, "r1", Ending::Failed).looks(9.0, "a", ended("failed", 1, None, Some("boom")));
        parent.job(0.0, "b", after()).looks(9.0, "b", seen)
    };
    forsaken(ended("cancelled", 1, None, Some("dependency"))).holds();
    forsaken(ended("failed", 1, None, Some("boom"))).breaks(Rule::WrongEnd);
}

#[test]
fn a_history_that_contradicts_itself_is_worth_nothing() {
    one().breaks(Rule::Contradiction);
    one().completed(2.0, "a", "r1", 1).runs(1.0, WORKER, "b", "r2").breaks(Rule::Contradiction);
    one().completed(2.0, "a", "r1", 1).ends(3.0, WORKER, "r1", Ending::Failed).breaks(Rule::Contradiction);
    one().completed(2.0, "a", "r1", 1).ends(3.0, WORKER, "r9", Ending::Failed).breaks(Rule::Contradiction);
}

#[test]
fn what_is_recorded_is_read_and_a_line_that_was_cut_off_is_left_out() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (one, other) = (folder.path().join("one"), folder.path().join("other"));
    let recorder = Recorder::open(&one)?;
    let events = [
        Event::Enqueue { job: "a".into(), plan: fails(1, 2) },
        Event::Looked { job: "a".into(), seen: ended("completed", 2, Some("r1"), None) },
        Event::Fault { fault: 1, name: "kill -9".into(), scope: Scope::Frozen(7) },
    ];
    recorder.record(events[0].clone())?;
    Recorder::open(&other)?.record(events[1].clone())?;
    recorder.record(events[2].clone())?;
    let told = |lines: Vec<Line>| lines.into_iter().map(|line| line.event).collect::<Vec<_>>();
    assert_eq!(told(read([&one, &other])?), events);

    let whole = std::fs::read(&one)?;
    std::fs::write(&one, &whole[..whole.len() - 9])?;
    assert_eq!(told(read([&one])?), events[..1]);
    std::fs::write(&one, "no line\n")?;
    assert!(read([&one]).is_err());
    Ok(())
}
