//! Whether a ratio has fallen: a pure rule over the ratios of pairs of rounds.
//!
//! Invariant: noise alone does not fail a row. The limit is 15 % under the recorded ratio. A row whose first pairs have
//! their median at the limit or above is kept. Any other gets more pairs, and has fallen if at least 12 of all 15 are under
//! the limit: were the ratio really at the limit, each pair would fall on either side like a coin, and so many on one side
//! come up in fewer than 2 of 100 runs (1.8 %, the sign test, which asks nothing of how the noise is spread).

/// How far under the recorded ratio the limit is.
const TOLERANCE: f64 = 0.15;
/// Pairs of the first look.
pub(super) const FIRST: usize = 5;
/// Pairs that a row in doubt has in the end.
pub(super) const ALL: usize = 15;
/// Of [`ALL`], so many under the limit are no accident.
const FALLEN: usize = 12;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Kept,
    /// Too few pairs to say.
    InDoubt,
    /// Most pairs are under the limit, and not enough to tell it from noise. No failure.
    Unsteady,
    Fallen,
}

pub(super) fn limit(recorded: f64) -> f64 {
    recorded * (1.0 - TOLERANCE)
}

pub(super) fn judge(recorded: f64, ratios: &[f64]) -> Verdict {
    let under = ratios.iter().filter(|ratio| **ratio < limit(recorded)).count();
    if median(ratios) >= limit(recorded) {
        Verdict::Kept
    } else if ratios.len() < ALL {
        Verdict::InDoubt
    } else if under >= FALLEN {
        Verdict::Fallen
    } else {
        Verdict::Unsteady
    }
}

/// NaN, which is under every limit, of none.
pub(super) fn median(ratios: &[f64]) -> f64 {
    let mut sorted = ratios.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDED: f64 = 0.8;

    /// Noise that is always the same and looks like none: a low-discrepancy series over -1 to 1.
    fn noise(index: usize) -> f64 {
        2.0 * (index as f64 * 0.618_033_988_75).fract() - 1.0
    }

    /// Pairs around `factor` of the recorded ratio, up to `spread` of it away.
    fn series(factor: f64, spread: f64) -> Vec<f64> {
        (1..=ALL).map(|index| RECORDED * (factor + spread * noise(index))).collect()
    }

    /// As the gate does it: a first look, and all of them if that leaves a doubt.
    fn judged(series: &[f64]) -> Verdict {
        match judge(RECORDED, &series[..FIRST]) {
            Verdict::InDoubt => judge(RECORDED, series),
            verdict => verdict,
        }
    }

    #[test]
    fn a_steady_ratio_is_kept_at_the_first_look() {
        assert_eq!(judge(RECORDED, &[RECORDED; FIRST]), Verdict::Kept);
        assert_eq!(judge(RECORDED, &series(1.2, 0.02)[..FIRST]), Verdict::Kept);
    }

    #[test]
    fn noise_around_the_recorded_ratio_is_kept() {
        for spread in [0.05, 0.15, 0.3] {
            assert_eq!(judged(&series(1.0, spread)), Verdict::Kept, "{spread}");
        }
    }

    #[test]
    fn a_fall_by_10_percent_is_within_the_tolerance() {
        assert_eq!(judged(&series(0.9, 0.0)), Verdict::Kept);
        assert_eq!(judged(&series(0.9, 0.1)), Verdict::Kept);
    }

    #[test]
    fn a_fall_by_20_percent_is_found_also_in_noise() {
        for spread in [0.0, 0.05, 0.08] {
            let fallen = series(0.8, spread);
            assert_eq!(judge(RECORDED, &fallen[..FIRST]), Verdict::InDoubt, "{spread}");
            assert_eq!(judged(&fallen), Verdict::Fallen, "{spread}");
        }
    }

    #[test]
    fn one_outlier_changes_nothing() {
        let mut kept = series(1.0, 0.05);
        kept[2] = 0.1;
        assert_eq!(judged(&kept), Verdict::Kept);
        let mut fallen = series(0.8, 0.05);
        fallen[2] = 2.0;
        assert_eq!(judged(&fallen), Verdict::Fallen);
    }

    #[test]
    fn a_disturbed_first_look_is_outvoted() {
        let mut disturbed = series(1.0, 0.05);
        disturbed[..FIRST].fill(0.5 * RECORDED);
        assert_eq!(judged(&disturbed), Verdict::Kept);
    }

    #[test]
    fn a_drift_through_the_limit_is_unsteady_and_one_below_it_a_fall() {
        let drift = |from: f64, to: f64| -> Vec<f64> {
            (0..ALL).map(|index| RECORDED * (from + (to - from) * index as f64 / (ALL - 1) as f64)).collect()
        };
        assert_eq!(judged(&drift(0.7, 0.95)), Verdict::Unsteady);
        assert_eq!(judged(&drift(0.6, 0.86)), Verdict::Fallen);
    }

    #[test]
    fn twelve_of_fifteen_under_the_limit_are_a_fall_and_eleven_are_not() {
        let with = |under: usize| {
            let mut ratios = vec![limit(RECORDED); ALL];
            ratios[..under].fill(limit(RECORDED) - 0.001);
            judge(RECORDED, &ratios)
        };
        assert_eq!(
            [with(7), with(8), with(11), with(12)],
            [Verdict::Kept, Verdict::Unsteady, Verdict::Unsteady, Verdict::Fallen]
        );
    }

    #[test]
    fn a_row_that_was_not_measured_is_in_doubt() {
        assert_eq!(judge(RECORDED, &[]), Verdict::InDoubt);
    }
}
