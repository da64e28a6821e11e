//! Tables as Markdown text.
//!
//! Invariant: the columns of a table are of one width, so that it can be read as text too.

/// `lines` have as many cells as `heads`.
pub(super) fn table(heads: &[String], lines: &[Vec<String>]) -> String {
    let all = || std::iter::once(heads).chain(lines.iter().map(Vec::as_slice));
    let width = |column: usize| all().map(|cells| cells[column].chars().count()).max().unwrap_or(0).max(3);
    let widths: Vec<_> = (0..heads.len()).map(width).collect();
    let mut text = String::new();
    for (index, cells) in all().enumerate() {
        let cells = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text += &format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "));
        if index == 0 {
            let rules: Vec<_> = widths.iter().map(|width| "-".repeat(*width)).collect();
            text += &format!("| {} |\n", rules.join(" | "));
        }
    }
    text
}

/// A number of many digits in thousands.
pub(super) fn thousands(rate: f64) -> String {
    if rate < 10_000.0 { format!("{rate:.0}") } else { format!("{:.1} k", rate / 1000.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_as_wide_as_the_others() {
        let text = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let table = table(&text(["a", "bcd"]), &[text(["µµµµµ", ""]), text(["", "x"])]);
        assert_eq!(table, "| a     | bcd |\n| ----- | --- |\n| µµµµµ |     |\n|       | x   |\n");
    }
}
