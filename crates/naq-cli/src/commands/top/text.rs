//! Numbers and names as short texts that fit their column.
//!
//! Invariant: pure; what does not fit ends with `…`, and takes exactly as many cells as it is given at most.

use std::time::Duration;

use naq_models::Timestamp;
use ratatui::text::Span;

/// A text in at most `width` cells.
pub(super) fn fit(text: &str, width: usize) -> String {
    if Span::raw(text).width() <= width {
        return text.to_owned();
    }
    let (mut fitting, mut used) = (String::new(), 1);
    for c in text.chars() {
        used += Span::raw(c.encode_utf8(&mut [0; 4]).to_owned()).width();
        if used > width {
            break;
        }
        fitting.push(c);
    }
    if width > 0 {
        fitting.push('…');
    }
    fitting
}

/// A number in at most five cells: `99999`, `100k`, `12M`.
pub(super) fn count(number: u64) -> String {
    match number {
        0..100_000 => number.to_string(),
        100_000..10_000_000 => format!("{}k", number / 1000),
        10_000_000..10_000_000_000 => format!("{}M", number / 1_000_000),
        _ => format!("{}G", number / 1_000_000_000),
    }
}

/// A rate, without its unit: `0`, `0.3`, `12`, `1500`.
pub(super) fn rate(per_second: f64) -> String {
    if per_second > 0.0 && per_second < 9.95 {
        format!("{:.1}", per_second.max(0.1))
    } else {
        format!("{per_second:.0}")
    }
}

/// A time span in at most five cells: `9s`, `3m05`, `2h10`, `3d04`.
pub(super) fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}", seconds % 60),
        3600..86_400 => format!("{hours}h{:02}", minutes % 60),
        86_400..864_000 => format!("{days}d{:02}", hours % 24),
        _ => format!("{days}d"),
    }
}

/// The time of day, in UTC.
pub(super) fn clock(time: Timestamp) -> String {
    let text = time.to_string();
    text.get(11..19).unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_cut_to_its_width() {
        for (text, width, shown) in [
            ("mail", 4, "mail"),
            ("mails", 4, "mai…"),
            ("日本語", 6, "日本語"),
            ("日本語", 5, "日本…"),
            ("日本語", 4, "日…"),
            ("mail", 1, "…"),
            ("mail", 0, ""),
        ] {
            assert_eq!(fit(text, width), shown, "{text:?} in {width}");
        }
    }

    #[test]
    fn numbers_and_spans_take_five_cells() {
        let counts = [0, 99_999, 100_000, 9_999_999, 10_000_000, 9_999_999_999, 10_000_000_000].map(count);
        assert_eq!(counts, ["0", "99999", "100k", "9999k", "10M", "9999M", "10G"]);
        let ages = [0, 59, 60, 3599, 3600, 86_399, 86_400, 863_999, 864_000].map(Duration::from_secs).map(age);
        assert_eq!(ages, ["0s", "59s", "1m00", "59m59", "1h00", "23h59", "1d00", "9d23", "10d"]);
        let rates = [0.0, 0.01, 0.34, 9.94, 9.96, 10.4, 12_345.6].map(rate);
        assert_eq!(rates, ["0", "0.1", "0.3", "9.9", "10", "10", "12346"]);
    }
}
