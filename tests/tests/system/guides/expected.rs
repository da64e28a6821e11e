//! Whether what a program wrote is what a page shows: `…` stands for anything.
//!
//! Runs of blanks count as one, because the width of a table's columns depends on what `…` stands for.

/// `…` within a line is any text of that line; a line of only `…` is any number of lines, also none.
pub(crate) fn matches(shown: &str, written: &str) -> bool {
    let lines = |text: &str| -> Vec<String> {
        let one_blank = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        text.trim().lines().map(one_blank).collect()
    };
    lines_match(&lines(shown), &lines(written))
}

fn lines_match(shown: &[String], written: &[String]) -> bool {
    match shown.split_first() {
        None => written.is_empty(),
        Some((line, rest)) if line == "…" => {
            (0..=written.len()).any(|skipped| lines_match(rest, &written[skipped..]))
        }
        Some((line, rest)) => {
            written.split_first().is_some_and(|(first, others)| line_matches(line, first) && lines_match(rest, others))
        }
    }
}

fn line_matches(shown: &str, written: &str) -> bool {
    let Some((start, rest)) = shown.split_once('…') else { return shown == written };
    let Some(mut written) = written.strip_prefix(start) else { return false };
    let mut pieces = rest.split('…').collect::<Vec<_>>();
    let end = pieces.pop().unwrap_or_default();
    for piece in pieces {
        match written.split_once(piece) {
            Some((_, after)) => written = after,
            None => return false,
        }
    }
    written.ends_with(end)
}
