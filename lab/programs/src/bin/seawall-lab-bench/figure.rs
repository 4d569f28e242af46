//! A figure, and its derivation from single timings.

use std::time::Duration;

/// All results of a run.
pub(crate) struct Report {
    /// `uname -r` of the kernel under test.
    pub(crate) kernel: String,
    /// The way to the extended ABI on it.
    pub(crate) way: String,
    pub(crate) batches: u32,
    pub(crate) repeat: u32,
    pub(crate) figures: Vec<Figure>,
    pub(crate) ways: Vec<Way>,
}

impl Report {
    /// Returns true if no measured figure is worse than promised.
    pub(crate) fn is_kept(&self) -> bool {
        self.figures.iter().all(Figure::is_kept) && self.ways.iter().all(Way::is_kept)
    }
}

/// A part of the path from a memory error to the guest's handler, or a comparison of two.
#[derive(Debug)]
pub(crate) struct Way {
    /// The exit before it.
    pub(crate) after: &'static str,
    pub(crate) name: String,
    pub(crate) measured: Measured,
    pub(crate) promise: Option<Promise>,
}

/// The result.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Measured {
    Time(Time),
    /// The median of the ratios of the medians, round by round.
    Ratio(f64),
    /// Not measured, with the reason.
    Skipped(String),
}

/// The upper bound of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Promise {
    Time(Duration),
    Ratio(f64),
}

impl Way {
    /// Returns true if the promise is kept; a skipped figure breaks none.
    pub(crate) fn is_kept(&self) -> bool {
        match (&self.measured, self.promise) {
            (Measured::Time(time), Some(Promise::Time(most))) => time.median <= most,
            (Measured::Ratio(ratio), Some(Promise::Ratio(most))) => *ratio <= most,
            _ => true,
        }
    }
}

/// One case.
#[derive(Debug)]
pub(crate) struct Figure {
    /// The vCPU's last exit.
    pub(crate) after: &'static str,
    pub(crate) name: &'static str,
    /// The number of system calls for one.
    pub(crate) calls: u64,
    /// The largest number of calls beyond the kernel's own injection.
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

/// A time, from the batches' medians.
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

/// The upper median; `None` for an empty list.
pub(crate) fn median(values: &[Duration]) -> Option<Duration> {
    let mut values = values.to_vec();
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

/// The median of `ours[n] / theirs[n]`; `None` for an empty list, or for a time that is too short to measure.
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

    #[test]
    fn a_way_is_kept_up_to_its_promise_and_where_it_was_skipped() {
        let way = |measured, promise| Way { after: "", name: String::new(), measured, promise };
        let micros = |time| {
            let median = Duration::from_micros(time);
            Measured::Time(Time { median, least: Duration::ZERO, most: Duration::from_secs(1) })
        };
        let most = Some(Promise::Time(Duration::from_micros(20)));
        assert!(way(micros(20), most).is_kept());
        assert!(!way(micros(21), most).is_kept());
        assert!(way(micros(21), None).is_kept());
        assert!(way(Measured::Ratio(0.99), Some(Promise::Ratio(1.0))).is_kept());
        assert!(!way(Measured::Ratio(1.01), Some(Promise::Ratio(1.0))).is_kept());
        assert!(way(Measured::Skipped("no QEMU".into()), most).is_kept());
    }
}
