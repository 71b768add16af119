//! What several runs say together.

use serde_json::{Value, json};

/// Runs whose middle half lies further apart than this share of their median tell little.
pub(super) const NOISY: f64 = 0.10;

/// Fewer runs have no middle half worth the name.
const MIN_FOR_SPREAD: usize = 4;

/// One figure of several runs, in their order. Never empty when asked: every figure of nothing is 0.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sample(Vec<f64>);

impl Sample {
    /// Of these runs.
    #[cfg(test)]
    pub(super) fn new(runs: impl IntoIterator<Item = f64>) -> Self {
        Self(runs.into_iter().collect())
    }

    /// One run more.
    pub(super) fn push(&mut self, run: f64) {
        self.0.push(run);
    }

    /// The runs, in their order.
    pub(super) fn runs(&self) -> &[f64] {
        &self.0
    }

    /// Half of the runs are not below it, half not above.
    pub(super) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The lowest run.
    pub(super) fn min(&self) -> f64 {
        self.quantile(0.0)
    }

    /// The highest run.
    pub(super) fn max(&self) -> f64 {
        self.quantile(1.0)
    }

    /// How far the middle half of the runs lies apart, as a share of the median; none of too few runs.
    pub(super) fn spread(&self) -> Option<f64> {
        let median = self.median();
        let apart = self.quantile(0.75) - self.quantile(0.25);
        (self.0.len() >= MIN_FOR_SPREAD && median > 0.0).then(|| apart / median)
    }

    /// Whether the spread is too large to say much.
    pub(super) fn is_noisy(&self) -> bool {
        self.spread().is_some_and(|spread| spread > NOISY)
    }

    /// The value below which the share `at` of the runs lies, between two runs on the line that joins them.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a few runs, and a share between 0 and 1"
    )]
    pub(super) fn quantile(&self, at: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
        let place = at.clamp(0.0, 1.0) * last as f64;
        let below = sorted[place as usize];
        let above = sorted[(place.ceil() as usize).min(last)];
        below + (above - below) * place.fract()
    }

    pub(super) fn to_json(&self) -> Value {
        json!({ "median": self.median(), "min": self.min(), "max": self.max(), "runs": self.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_any_number_of_runs() {
        let cases: [(&[f64], [f64; 3], Option<f64>); 6] = [
            (&[], [0.0, 0.0, 0.0], None),
            (&[7.0], [7.0, 7.0, 7.0], None),
            (&[3.0, 1.0], [1.0, 2.0, 3.0], None),
            (&[5.0, 1.0, 3.0], [1.0, 3.0, 5.0], None),
            (&[4.0, 1.0, 2.0, 3.0], [1.0, 2.5, 4.0], Some(0.6)),
            (&[10.0, 50.0, 20.0, 40.0, 30.0], [10.0, 30.0, 50.0], Some(20.0 / 30.0)),
        ];
        for (runs, [min, median, max], spread) in cases {
            let sample = Sample::new(runs.iter().copied());
            assert_eq!([sample.min(), sample.median(), sample.max()], [min, median, max], "{runs:?}");
            assert_eq!(sample.spread(), spread, "{runs:?}");
            assert_eq!(sample.runs(), runs);
        }
    }

    #[test]
    fn one_outlier_is_no_noise() {
        let calm = Sample::new([1.00, 1.02, 5.0, 0.99, 1.01]);
        assert!(!calm.is_noisy(), "{:?}", calm.spread());
        let noisy = Sample::new([1.0, 1.3, 0.8, 1.15, 0.9]);
        assert!(noisy.is_noisy(), "{:?}", noisy.spread());
        assert!(!Sample::new([0.0; 5]).is_noisy());
        assert!(!Sample::default().is_noisy());
    }

    #[test]
    fn as_json() {
        let json = Sample::new([2.0, 1.0]).to_json();
        assert_eq!(json, json!({ "median": 1.5, "min": 1.0, "max": 2.0, "runs": [2.0, 1.0] }));
    }
}
