//! Intervals and tests, as campaigns need them.

#![allow(clippy::cast_precision_loss, reason = "no campaign has 2^52 experiments")]

/// The two-sided 95 % quantile of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// So many of so many; 0 of none.
pub fn share(hits: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { hits as f64 / of as f64 }
}

/// The 95 % interval by Wilson's score (JASA 22, 1927) of a share that so many draws gave, or that is worth as much as so many.
fn score(share: f64, draws: f64) -> (f64, f64) {
    let z2 = Z * Z;
    let center = (share + z2 / (2.0 * draws)) / (1.0 + z2 / draws);
    let half = Z / (1.0 + z2 / draws) * (share * (1.0 - share) / draws + z2 / (4.0 * draws * draws)).sqrt();
    ((center - half).max(0.0), (center + half).min(1.0))
}

/// A part of a population that was drawn from without repetition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stratum {
    /// How many it has.
    pub all: u64,
    /// How many were drawn.
    pub of: u64,
    /// How many of these hit.
    pub hits: u64,
}

/// The share in all strata that were drawn from, each with its size as weight, and its 95 % interval: Wilson's with the
/// number of draws with repetition that has the same variance (Kish, Survey Sampling, 1965), each stratum with the finite
/// population correction (all - of) / (all - 1) (Cochran, Sampling Techniques, 1977, section 3.2). A census has no interval.
pub fn stratified(strata: &[Stratum]) -> (f64, f64, f64) {
    let drawn = || strata.iter().filter(|stratum| stratum.of != 0);
    let all: u64 = drawn().map(|stratum| stratum.all).sum();
    if all == 0 {
        return (0.0, 0.0, 1.0);
    }
    let weight = |stratum: &Stratum| stratum.all as f64 / all as f64;
    let estimate: f64 = drawn().map(|stratum| weight(stratum) * share(stratum.hits, stratum.of)).sum();
    let left =
        |stratum: &Stratum| share(stratum.all.saturating_sub(stratum.of), stratum.all.saturating_sub(1));
    let variance: f64 =
        drawn().map(|stratum| weight(stratum).powi(2) * left(stratum) / stratum.of as f64).sum();
    if variance <= 0.0 {
        return (estimate, estimate, estimate);
    }
    let (low, high) = score(estimate, 1.0 / variance);
    (estimate, low, high)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn near(got: f64, expected: f64) {
        assert!((got - expected).abs() < 5e-4, "{got}, expected {expected}");
    }

    /// 29 of 400: 5.1 to 10.2 %. 0 of 29: 0 to 11.7 % (R's prop.test without continuity correction).
    #[test]
    fn wilsons_intervals_are_those_of_the_tables() {
        let (low, high) = score(0.0725, 400.0);
        near(low, 0.0510);
        near(high, 0.1021);
        let (low, high) = score(0.0, 29.0);
        near(low, 0.0);
        near(high, 0.1170);
    }

    #[test]
    fn a_census_has_no_interval() {
        let stratum = |all, of, hits| Stratum { all, of, hits };
        assert_eq!(stratified(&[stratum(4, 4, 3)]), (0.75, 0.75, 0.75));
        assert_eq!(stratified(&[stratum(4, 4, 3), stratum(12, 12, 0)]), (0.1875, 0.1875, 0.1875));
        assert_eq!(stratified(&[stratum(1, 1, 1)]), (1.0, 1.0, 1.0));
        assert_eq!(stratified(&[stratum(9, 0, 0)]), (0.0, 0.0, 1.0));
        let (share, low, high) = stratified(&[stratum(1000, 4, 3)]);
        assert!(low < share && share < high);
    }

    /// 29 of 400 as above, from a population without end. 50 of 100 have the variance of 50 * 99 / 50 = 99 draws with
    /// repetition, and one of two that of one: 1 of 1 is 20.7 to 100 % (prop.test).
    #[test]
    fn strata_count_by_their_size_and_not_by_their_draws() {
        let (share, low, high) = stratified(&[Stratum { all: 1 << 40, of: 400, hits: 29 }]);
        near(share, 0.0725);
        near(low, 0.0510);
        near(high, 0.1021);
        let (_, low, high) = stratified(&[Stratum { all: 100, of: 50, hits: 25 }]);
        near(low, 0.4033);
        near(high, 0.5967);
        let (share, low, high) = stratified(&[Stratum { all: 2, of: 1, hits: 1 }]);
        near(share, 1.0);
        near(low, 0.2065);
        near(high, 1.0);
        let (share, ..) =
            stratified(&[Stratum { all: 300, of: 10, hits: 10 }, Stratum { all: 100, of: 100, hits: 0 }]);
        near(share, 0.75);
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
}
