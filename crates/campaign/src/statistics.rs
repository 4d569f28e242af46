//! Intervals and tests, as campaigns need them.

#![allow(clippy::cast_precision_loss, reason = "no campaign has 2^52 experiments")]

/// The two-sided 95 % quantile of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// So many of so many; 0 of none.
pub fn share(hits: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { hits as f64 / of as f64 }
}

/// The 95 % interval of a share by Wilson's score (JASA 22, 1927): `of` draws, of which `hits` hit. All that there is
/// when there was no draw.
pub fn wilson(hits: u64, of: u64) -> (f64, f64) {
    if of == 0 {
        return (0.0, 1.0);
    }
    let (n, p) = (of as f64, hits as f64 / of as f64);
    let z2 = Z * Z;
    let center = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    ((center - half).max(0.0), (center + half).min(1.0))
}

/// The 95 % interval of the share in a finite population of `all`, of which `of` were drawn without repetition: Wilson's
/// with the finite population correction; no interval for a census.
pub fn wilson_finite(hits: u64, of: u64, all: u64) -> (f64, f64) {
    if of == 0 || all <= 1 {
        return wilson(hits, of);
    }
    let share = share(hits, of);
    if of >= all {
        return (share, share);
    }
    let correction = ((all - of) as f64 / (all - 1) as f64).sqrt();
    let (low, high) = wilson(hits, of);
    (share - (share - low) * correction, share + (high - share) * correction)
}

/// The p-value of McNemar's exact test (Psychometrika 12, 1947): of pairs that differ, so many went one way and so many
/// the other; two-sided.
pub fn mcnemar(one: u64, other: u64) -> f64 {
    let (n, k) = (one + other, one.min(other));
    if n == 0 {
        return 1.0;
    }
    // Sum of n over i for i to k, times 2 to the -n, by logarithms.
    let mut log_term = -(n as f64) * std::f64::consts::LN_2;
    let mut sum = log_term.exp();
    for i in 1..=k {
        log_term += ((n - i + 1) as f64 / i as f64).ln();
        sum += log_term.exp();
    }
    (2.0 * sum).min(1.0)
}

/// How many of a population must be drawn for a margin of error at 95 %, whatever the share (Leveugle, DATE 2009).
pub fn sample_size(all: u64, margin: f64) -> u64 {
    let n = all as f64;
    (n / (1.0 + margin * margin * (n - 1.0) / (Z * Z * 0.25))).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(got: f64, expected: f64) {
        assert!((got - expected).abs() < 5e-4, "{got}, expected {expected}");
    }

    /// 29 of 400: 5.1 to 10.2 %. 0 of 29: 0 to 11.7 % (R's prop.test without continuity correction).
    #[test]
    fn wilsons_intervals_are_those_of_the_tables() {
        let (low, high) = wilson(29, 400);
        near(low, 0.0510);
        near(high, 0.1021);
        let (low, high) = wilson(0, 29);
        near(low, 0.0);
        near(high, 0.1170);
        assert_eq!(wilson(0, 0), (0.0, 1.0));
    }

    #[test]
    fn a_census_has_no_interval() {
        assert_eq!(wilson_finite(3, 4, 4), (0.75, 0.75));
        let (low, high) = wilson_finite(3, 4, 1000);
        assert!(low < 0.75 && high > 0.75);
    }

    /// R: binom.test(1, 10)$p.value = 0.02148, binom.test(0, 6) = 0.03125.
    #[test]
    fn mcnemars_exact_test_is_the_binomial_one() {
        near(mcnemar(1, 9), 0.02148);
        near(mcnemar(6, 0), 0.03125);
        near(mcnemar(5, 5), 1.0);
        near(mcnemar(0, 0), 1.0);
        assert!(mcnemar(0, 2000) < 1e-300);
    }

    /// Leveugle et al., DATE 2009, equation 1 with p = 0.5: of 100,000 at 5 %: 383.
    #[test]
    fn sample_sizes_are_leveugles() {
        assert_eq!(sample_size(100_000, 0.05), 383);
        assert_eq!(sample_size(100, 0.05), 80);
    }
}
