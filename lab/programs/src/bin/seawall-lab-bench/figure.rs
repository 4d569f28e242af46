//! A figure, and how it comes of single timings.

use std::time::Duration;

/// All that a run found.
pub(crate) struct Report {
    /// `uname -r` of the kernel whose KVM this is.
    pub(crate) kernel: String,
    /// How the extended ABI is had of it.
    pub(crate) way: String,
    pub(crate) batches: u32,
    pub(crate) repeat: u32,
    pub(crate) figures: Vec<Figure>,
}

/// One case.
#[derive(Debug)]
pub(crate) struct Figure {
    /// When: what the vCPU's last exit was.
    pub(crate) after: &'static str,
    pub(crate) name: &'static str,
    /// System calls for one.
    pub(crate) calls: u64,
    /// How many calls it may take more than the kernel's own injection.
    pub(crate) promise: Option<u64>,
    pub(crate) time: Time,
    /// The median of the batches' ratios to the kernel's own data abort.
    pub(crate) ratio: Option<f64>,
}

impl Figure {
    pub(crate) fn is_kept(&self) -> bool {
        self.promise.is_none_or(|more| self.calls <= 1 + more)
    }
}

/// Of the batches' medians.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Time {
    pub(crate) median: Duration,
    pub(crate) least: Duration,
    pub(crate) most: Duration,
}

impl Time {
    /// `None` without a batch.
    pub(crate) fn of(medians: &[Duration]) -> Option<Self> {
        let (least, most) = (*medians.iter().min()?, *medians.iter().max()?);
        Some(Self { median: median(medians)?, least, most })
    }
}

/// The upper median; `None` of nothing.
pub(crate) fn median(values: &[Duration]) -> Option<Duration> {
    let mut values = values.to_vec();
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

/// The median of `ours[n] / theirs[n]`; `None` of nothing, or of a time that is too short to be measured.
pub(crate) fn ratio(ours: &[Duration], theirs: &[Duration]) -> Option<f64> {
    if theirs.contains(&Duration::ZERO) {
        return None;
    }
    let mut ratios: Vec<f64> =
        ours.iter().zip(theirs).map(|(ours, theirs)| ours.as_secs_f64() / theirs.as_secs_f64()).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros<const N: usize>(times: [u64; N]) -> [Duration; N] {
        times.map(Duration::from_micros)
    }

    #[test]
    fn a_time_is_the_median_of_the_medians_with_the_least_and_the_most() {
        let [least, median, most] = micros([1, 5, 9]);
        assert_eq!(Time::of(&[median, least, most]), Some(Time { median, least, most }));
        assert_eq!(Time::of(&[]), None);
    }

    #[test]
    fn a_ratio_is_of_the_same_batch() {
        // The second batch was slow for both.
        assert_eq!(ratio(&micros([16, 400, 24]), &micros([8, 200, 8])), Some(2.0));
        assert_eq!(ratio(&micros([20]), &micros([0])), None);
    }

    #[test]
    fn a_promise_counts_what_comes_on_top_of_the_one_call_that_delivers() {
        let time = Time { median: Duration::ZERO, least: Duration::ZERO, most: Duration::ZERO };
        let figure = |calls, promise| Figure { after: "", name: "", calls, promise, time, ratio: None };
        assert!(figure(4, Some(3)).is_kept());
        assert!(!figure(5, Some(3)).is_kept());
        assert!(figure(99, None).is_kept());
    }
}
