//! The reports of all stores as one text with tables, and as one picture for each question.
//!
//! Invariant: a pure function of the reports; questions, rows and stores stand in the order in which they were measured.

use anyhow::Result;

use super::report::{At, Found, Report, Row};
use crate::bench::{
    markdown::{self, thousands},
    plot::{self, Bar, Line, Panel, Point},
};

/// What was measured, and how; stores answer it in columns.
type Asked<'a> = (&'a str, Option<&'a At>, &'a str);

pub(super) fn text(reports: &[Report]) -> String {
    whole(reports, |_| String::new())
}

/// With the pictures that [`plots`] makes.
pub(super) fn linked(reports: &[Report]) -> String {
    whole(reports, |question| format!("\n![{question}](plots/{question}.svg)\n"))
}

/// A name and an SVG for each question.
pub(super) fn plots(reports: &[Report]) -> Result<Vec<(String, String)>> {
    let plot = |question: &str| Ok((question.to_owned(), plot::svg(question, &panels(reports, question))?));
    questions(reports).into_iter().map(plot).collect()
}

fn whole(reports: &[Report], picture: impl Fn(&str) -> String) -> String {
    let mut text = String::new();
    for Report { naq, store, .. } in reports {
        text += &format!("{}, naq {naq}: {}.\n", store.version, store.durability);
    }
    for question in questions(reports) {
        text += &format!("\n### {question}\n{}\n{}", picture(question), table(reports, question));
    }
    let skipped =
        reports.iter().flat_map(|report| report.skipped.iter().map(|skipped| (&report.store.version, skipped)));
    for (index, (store, skipped)) in skipped.enumerate() {
        let head = if index == 0 { "\nNot measured:\n\n" } else { "" };
        text += &format!("{head}- {} on {store}: {}\n", skipped.question, skipped.why);
    }
    text
}

fn questions(reports: &[Report]) -> Vec<&str> {
    distinct(reports.iter().flat_map(|report| &report.rows).map(|row| row.question.as_str()))
}

fn distinct<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = Vec::new();
    for value in values {
        if !seen.contains(&value) {
            seen.push(value);
        }
    }
    seen
}

fn rows<'a>(report: &'a Report, question: &str) -> impl Iterator<Item = &'a Row> {
    report.rows.iter().filter(move |row| row.question == question)
}

fn asked(row: &Row) -> Asked<'_> {
    (&row.what, row.at.as_ref(), &row.setup)
}

fn table(reports: &[Report], question: &str) -> String {
    let all = distinct(reports.iter().flat_map(|report| rows(report, question)).map(asked));
    let stores: Vec<_> = reports.iter().filter(|report| rows(report, question).next().is_some()).collect();
    let heads = ["what", "at"].into_iter().chain(stores.iter().map(|report| &*report.store.version)).chain(["setup"]);
    let line = |&(what, at, setup): &Asked<'_>| {
        let place = at.map(|At { name, value }| format!("{value} {name}")).unwrap_or_default();
        let answer = |report: &&Report| {
            let found = rows(report, question).filter(|row| asked(row) == (what, at, setup));
            found.map(|row| cell(&row.found)).collect::<Vec<_>>().join("; ")
        };
        let mut cells = vec![what.to_owned(), place];
        cells.extend(stores.iter().map(answer));
        cells.push(setup.to_owned());
        cells
    };
    let heads: Vec<_> = heads.map(str::to_owned).collect();
    markdown::table(&heads, &all.iter().map(line).collect::<Vec<_>>())
}

fn cell(found: &Found) -> String {
    match found {
        Found::Rate { per_s, low, high, rounds } => {
            format!("{}/s ({} to {}, {rounds} rounds)", thousands(*per_s), thousands(*low), thousands(*high))
        }
        Found::Latency { p50_ms, p99_ms, p999_ms, max_ms, samples, offered_per_s } => {
            let offered = offered_per_s.map(|rate| format!(" at {}/s", thousands(rate))).unwrap_or_default();
            format!("p50 {p50_ms:.2} ms, p99 {p99_ms:.2}, p99.9 {p999_ms:.2}, max {max_ms:.2}; {samples} jobs{offered}")
        }
        Found::Amount { value, unit } => format!("{value:.2} {unit}"),
    }
}

/// What is drawn of a value: its axis, where it is, and how far it reaches.
fn drawn(found: &Found) -> (String, f64, Option<(f64, f64)>) {
    match found {
        Found::Rate { per_s, low, high, .. } => {
            ("per second, median, lowest and highest".into(), *per_s, Some((*low, *high)))
        }
        Found::Latency { p50_ms, p99_ms, .. } => ("ms, from p50 to p99".into(), *p50_ms, Some((*p50_ms, *p99_ms))),
        Found::Amount { value, unit } => (unit.clone(), *value, None),
    }
}

/// One panel for each axis of values, and in it lines over each axis of places, or bars.
fn panels(reports: &[Report], question: &str) -> Vec<Panel> {
    let all = || reports.iter().flat_map(|report| rows(report, question).map(move |row| (report, row)));
    let axes = distinct(all().map(|(_, row)| (row.at.as_ref().map(|at| &*at.name), drawn(&row.found).0)));
    let panel = |(place, y): (Option<&str>, String)| {
        let here = || all().filter(|(_, row)| row.at.as_ref().map(|at| &*at.name) == place && drawn(&row.found).0 == y);
        let label = |report: &Report, row: &Row| format!("{}, {}", report.store.version, row.what);
        let Some(place) = place else {
            let bar = |(report, row): (&Report, &Row)| {
                let (_, value, span) = drawn(&row.found);
                Bar { label: label(report, row), value, span, mark: None }
            };
            return Panel::Bars { bars: here().map(bar).collect(), y };
        };
        let line = |wanted: String| {
            let mine = here().filter(|(report, row)| label(report, row) == wanted);
            let point = |(_, row): (&Report, &Row)| {
                let (_, y, span) = drawn(&row.found);
                row.at.as_ref().map(|at| Point { x: at.value, y, span })
            };
            let mut points: Vec<_> = mine.filter_map(point).collect();
            points.sort_by(|a, b| a.x.total_cmp(&b.x));
            Line { label: wanted, points }
        };
        let lines = distinct(here().map(|(report, row)| label(report, row))).into_iter().map(line).collect();
        Panel::Lines { x: place.to_owned(), y, lines }
    };
    axes.into_iter().map(panel).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reports() -> [Report; 2] {
        [include_str!("fixture/sqlite.json"), include_str!("fixture/nats.json")].map(|text| Report::read(text).unwrap())
    }

    #[test]
    fn the_text_is_as_it_was() {
        insta::assert_snapshot!(linked(&reports()));
    }

    #[test]
    fn a_plot_is_as_it_was() {
        let plots = plots(&reports()).unwrap();
        let names: Vec<_> = plots.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["run", "latency", "memory"]);
        assert!(plots.iter().all(|(_, svg)| svg.len() < 40_000));
        insta::assert_snapshot!(plots[1].1);
    }

    /// A store that did not answer a question has no column, and one that answered half of it an empty cell.
    #[test]
    fn stores_stand_in_columns() {
        let reports = reports();
        let head = |question| table(&reports, question).lines().next().unwrap().matches('|').count();
        assert_eq!((head("run"), head("memory")), (6, 5));
        assert!(
            table(&reports, "run")
                .lines()
                .any(|line| line.contains("| 100 slots |") && line.contains("|                 "))
        );
    }

    #[test]
    fn each_store_has_a_line_with_its_points_in_order() {
        let panels = panels(&reports(), "run");
        let [Panel::Lines { x, lines, .. }] = &*panels else { panic!("one panel of lines") };
        let points: Vec<_> =
            lines.iter().map(|line| (&*line.label, line.points.iter().map(|p| p.x).collect::<Vec<_>>())).collect();
        assert_eq!(x, "slots");
        assert_eq!(
            points,
            [
                ("SQLite 3.54.1, with result", vec![1.0, 10.0, 100.0]),
                ("nats-server 2.15.0, with result", vec![1.0, 10.0]),
            ]
        );
    }
}
