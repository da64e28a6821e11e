//! The graph against examples, and against a walk over everything.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::Duration,
};

use naq_models::{Job, JobId, JobStatus, OnDependencyFailure, RawJson, Timestamp};
use proptest::prelude::*;

use super::{Decision, Graph, Reason};
use crate::clock::BootTime;

fn id(name: &str) -> JobId {
    JobId::new(name).unwrap()
}

fn job(name: &str, depends_on: &[&str]) -> Job {
    let mut job = Job::new(id(name), "k", RawJson::parse("{}").unwrap(), Timestamp::EPOCH);
    job.depends_on = depends_on.iter().map(|name| id(name)).collect();
    job
}

fn graph(jobs: &[(&str, &[&str])]) -> Graph {
    let mut graph = Graph::default();
    for (revision, (name, depends_on)) in (1..).zip(jobs) {
        graph.add(&job(name, depends_on), revision);
    }
    graph
}

fn decided(graph: &mut Graph) -> Vec<(String, Decision)> {
    graph.take_decided().into_iter().map(|(id, (_, decision))| (id.to_string(), decision)).collect()
}

fn released(graph: &mut Graph) -> Vec<String> {
    let all = decided(graph);
    assert!(all.iter().all(|(_, decision)| *decision == Decision::Release), "{all:?}");
    all.into_iter().map(|(name, _)| name).collect()
}

fn names(ids: Vec<JobId>) -> BTreeSet<String> {
    ids.iter().map(JobId::to_string).collect()
}

#[test]
fn a_diamond_opens_from_its_root() {
    let mut graph = graph(&[("left", &["root"]), ("right", &["root"]), ("end", &["left", "right"])]);
    assert_eq!(names(graph.take_begun()), ["left", "right", "root"].map(String::from).into());
    graph.ended(&id("root"), JobStatus::Completed);
    assert_eq!(released(&mut graph), ["left", "right"]);
    assert_eq!(names(graph.take_finished()), ["root"].map(String::from).into());
    graph.ended(&id("left"), JobStatus::Completed);
    graph.ended(&id("left"), JobStatus::Completed);
    assert!(released(&mut graph).is_empty());
    graph.ended(&id("right"), JobStatus::Completed);
    assert_eq!(released(&mut graph), ["end"]);
    assert_eq!(names(graph.take_finished()), ["left", "right"].map(String::from).into());
    assert!(graph.all_dependencies().is_empty());
}

#[test]
fn a_failure_goes_to_those_that_do_not_run_anyway() {
    let mut graph = graph(&[("strict", &["a", "b"])]);
    let mut lax = job("lax", &["a", "b"]);
    lax.on_dependency_failure = OnDependencyFailure::Run;
    graph.add(&lax, 9);
    graph.ended(&id("a"), JobStatus::Failed);
    let reason = Reason::Ended(id("a"), JobStatus::Failed);
    assert_eq!(reason.to_string(), "job a, on which it depends, failed");
    assert_eq!(decided(&mut graph), [("strict".into(), Decision::Refuse(reason))]);
    graph.ended(&id("b"), JobStatus::Cancelled);
    assert_eq!(released(&mut graph), ["lax"]);
}

#[test]
fn cycles_are_found_when_they_close_and_name_their_members() {
    let mut graph = graph(&[("a", &["b", "x"]), ("b", &["c"]), ("z", &["a"])]);
    assert!(decided(&mut graph).is_empty());
    graph.add(&job("c", &["y", "a"]), 7);
    let all: BTreeMap<_, _> = decided(&mut graph).into_iter().collect();
    assert_eq!(all.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    let Decision::Refuse(reason) = &all["a"] else { panic!("{all:?}") };
    assert_eq!(reason.to_string(), "it waits for itself: c waits for a waits for b waits for c");
    // The one outside is cancelled by the end of one inside.
    graph.ended(&id("a"), JobStatus::Cancelled);
    assert_eq!(decided(&mut graph).len(), 1);
    assert!(graph.all_dependencies().is_empty());
}

#[test]
fn a_missing_job_has_time_to_come() {
    let at = |secs: u64| BootTime::now().plus(Duration::from_secs(1000 + secs));
    let mut graph = graph(&[("early", &["m", "n"])]);
    graph.is_missing(&id("m"), at(0), |_| at(60));
    graph.goes_on(&id("n"), 3);
    let deadline = graph.next_deadline();
    assert!(deadline > Some(at(59)) && deadline < Some(at(61)));
    assert!(graph.overdue(at(59)).is_empty());
    graph.add(&job("late", &["m"]), 2);
    graph.is_missing(&id("m"), at(30), |_| at(90));
    assert_eq!(graph.overdue(at(61)), HashSet::from([id("m")]));
    graph.is_missing(&id("m"), at(61), |_| at(121));
    assert_eq!(decided(&mut graph), [("early".into(), Decision::Refuse(Reason::Missing(id("m"))))]);
    assert_eq!(graph.overdue(at(91)), HashSet::from([id("m")]));
    graph.goes_on(&id("m"), 0);
    assert_eq!(graph.next_deadline(), None);
    graph.ended(&id("m"), JobStatus::Completed);
    assert_eq!(released(&mut graph), ["late"]);
}

#[test]
fn an_entry_that_changed_is_taken_anew_and_decided_once() {
    let mut graph = graph(&[("a", &["x"])]);
    graph.add(&job("a", &["x"]), 5);
    graph.add(&job("a", &["x"]), 4);
    graph.ended(&id("x"), JobStatus::Completed);
    let all = graph.take_decided();
    assert_eq!(all[&id("a")], (5, Decision::Release));
    graph.put_back(id("a"), 5, Decision::Release);
    graph.add(&job("a", &["y"]), 6);
    assert!(graph.take_decided().is_empty(), "what is known anew is not decided by what was known before");
    graph.keeps_no_result(&id("y"));
    assert_eq!(decided(&mut graph).len(), 1);
}

#[test]
fn a_result_before_the_first_look_is_no_end() {
    let mut graph = graph(&[("a", &["x"])]);
    assert_eq!(graph.generation(&id("x")), None);
    graph.goes_on(&id("x"), 12);
    assert_eq!(graph.generation(&id("x")), Some(12));
    assert!(graph.is_waited_for(&id("x")) && !graph.is_waited_for(&id("a")));
}

/// A chain, inserted with its end first, costs no walk over the chain for each link.
#[test]
fn a_long_chain_in_either_order_is_quick() {
    const LINKS: usize = 50_000;
    for backwards in [true, false] {
        let mut graph = Graph::default();
        let begun = std::time::Instant::now();
        for n in 0..LINKS {
            let n = if backwards { LINKS - n } else { n + 1 };
            graph.add(&job(&format!("j{n}"), &[&format!("j{}", n - 1)]), 1);
        }
        for n in 0..=LINKS {
            graph.ended(&id(&format!("j{n}")), JobStatus::Completed);
            assert_eq!(graph.take_decided().len(), usize::from(n < LINKS));
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    }
}

/// Which of `count` jobs depend on which others, and how each ends that starts.
fn worlds() -> impl Strategy<Value = (World, Vec<usize>)> {
    let status = prop_oneof![3 => Just(JobStatus::Completed), 1 => Just(JobStatus::Failed)];
    (2..9_usize).prop_flat_map(move |count| {
        let job = (proptest::collection::vec(0..count, 0..3), any::<bool>(), status.clone());
        let order = Just((0..count).collect::<Vec<_>>()).prop_shuffle();
        (proptest::collection::vec(job, count), order)
    })
}

type World = Vec<(Vec<usize>, bool, JobStatus)>;

/// Carries out what is decided, and all that follows from it.
fn settle(graph: &mut Graph, jobs: &World, fate: &mut BTreeMap<usize, JobStatus>) {
    loop {
        let all = decided(graph);
        if all.is_empty() {
            return;
        }
        for (name, decision) in all {
            let n: usize = name[1..].parse().unwrap();
            let (depends_on, runs_anyway, end) = &jobs[n];
            let end = if decision == Decision::Release {
                for on in depends_on.iter().filter(|on| **on != n) {
                    let ended = fate.get(on);
                    let free = if *runs_anyway { ended.is_some() } else { ended == Some(&JobStatus::Completed) };
                    assert!(free, "{name} started before j{on} let it");
                }
                *end
            } else {
                JobStatus::Cancelled
            };
            assert!(fate.insert(n, end).is_none(), "{name} was decided twice");
            graph.ended(&id(&name), end);
        }
    }
}

proptest! {
    /// Whatever the order of arrival: each job is decided once, starts only when nothing keeps it, and nothing waits in
    /// the end, cycles included.
    #[test]
    fn every_job_of_every_graph_is_decided((jobs, order) in worlds()) {
        let mut graph = Graph::default();
        let mut fate = BTreeMap::new();
        for n in order {
            let mut new = job(&format!("j{n}"), &[]);
            new.depends_on = jobs[n].0.iter().filter(|on| **on != n).map(|on| id(&format!("j{on}"))).collect();
            if jobs[n].1 {
                new.on_dependency_failure = OnDependencyFailure::Run;
            }
            graph.add(&new, 1);
            // A leader looks at each dependency that is new to it: some have ended before.
            for begun in graph.take_begun() {
                let ended: Option<&JobStatus> = begun.as_str()[1..].parse().ok().and_then(|n: usize| fate.get(&n));
                if let Some(status) = ended.copied() {
                    graph.ended(&begun, status);
                }
            }
            settle(&mut graph, &jobs, &mut fate);
        }
        prop_assert!(graph.nodes.is_empty() && graph.all_dependencies().is_empty(), "still waiting: {:?}", graph.nodes);
        prop_assert_eq!(fate.len(), jobs.len());
    }
}
