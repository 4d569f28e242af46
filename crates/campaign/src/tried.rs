//! The experiments that count: of each moment and policy those of all rounds that are complete. A round has the pages that
//! were drawn one after the other, so they are a random draw, wherever a run was stopped.

use std::collections::{BTreeMap, HashMap};

use crate::experiment::ROUND;
use crate::manifest::Manifest;
use crate::pages::PlannedPage;
use crate::report::{Cell, Group, Pair, Share};
use crate::results::{Outcome, Row};
use crate::statistics::{self, Stratum, mcnemar};

/// True if an outcome counts.
type Judged = fn(Outcome) -> bool;

/// A firmware and a policy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column<'a> {
    pub(crate) firmware: &'a str,
    pub(crate) policy: &'a str,
}

/// Pages, and what became of them.
#[derive(Debug)]
pub(crate) struct Tried<'a> {
    manifest: &'a Manifest,
    pages: &'a [PlannedPage],
    /// By moment, page and policy.
    rows: HashMap<(usize, u64, &'a str), &'a Row>,
    /// By moment and policy.
    counts: HashMap<(usize, &'a str), u64>,
}

impl<'a> Tried<'a> {
    pub(crate) fn new(manifest: &'a Manifest, pages: &'a [PlannedPage], rows: &'a [Row]) -> Self {
        let moments: HashMap<(&str, u32), usize> = manifest
            .moments
            .iter()
            .enumerate()
            .map(|(index, moment)| ((moment.firmware.word(), moment.number), index))
            .collect();
        let place = |row: &'a Row| {
            let moment = *moments.get(&(row.firmware.as_str(), row.moment))?;
            Some(((moment, row.page, row.policy.as_str()), row))
        };
        let rows: HashMap<_, _> = rows.iter().filter_map(place).collect();
        let mut drawn: Vec<&PlannedPage> = pages.iter().filter(|page| page.chosen).collect();
        drawn.sort_by_key(|page| (page.moment, page.draw));
        let mut counts = HashMap::new();
        for policy in &manifest.policies {
            for of_moment in drawn.chunk_by(|a, b| a.moment == b.moment) {
                let has_row =
                    |page: &&&PlannedPage| rows.contains_key(&(page.moment, page.page, policy.as_str()));
                let (count, all) =
                    (of_moment.iter().take_while(has_row).count() as u64, of_moment.len() as u64);
                // A moment that has a few pages only would make the figures of all others worse.
                let count = if count == all { all } else { count - count % ROUND };
                counts.insert((of_moment.first().map_or(0, |page| page.moment), policy.as_str()), count);
            }
        }
        Self { manifest, pages, rows, counts }
    }

    pub(crate) fn policies(&self) -> &'a [String] {
        &self.manifest.policies
    }

    /// How many pages of a moment were tried under a policy.
    pub(crate) fn count(&self, moment: usize, policy: &str) -> u64 {
        self.counts.get(&(moment, policy)).copied().unwrap_or(0)
    }

    /// What became of a page, if it counts.
    pub(crate) fn row(&self, page: &PlannedPage, policy: &str) -> Option<&'a Row> {
        let counts = page.chosen && page.draw < self.count(page.moment, policy);
        self.rows.get(&(page.moment, page.page, policy)).copied().filter(|_| counts)
    }

    /// The moments of a firmware, by their places.
    fn moments(&self, firmware: &str) -> impl Iterator<Item = usize> {
        let moments = self.manifest.moments.iter().enumerate();
        moments.filter(move |(_, moment)| moment.firmware.word() == firmware).map(|(index, _)| index)
    }

    fn pages_of(&self, firmware: &str) -> impl Iterator<Item = &'a PlannedPage> {
        let is_of: Vec<bool> =
            self.manifest.moments.iter().map(|moment| moment.firmware.word() == firmware).collect();
        self.pages.iter().filter(move |page| is_of.get(page.moment).is_some_and(|is_of| *is_of))
    }

    fn share(
        &self,
        pages: impl Iterator<Item = &'a PlannedPage>,
        policy: &str,
        hit: impl Fn(Outcome) -> bool,
    ) -> Share {
        let mut strata: BTreeMap<usize, Stratum> = BTreeMap::new();
        for page in pages {
            let stratum = strata.entry(page.moment).or_default();
            let row = self.row(page, policy);
            stratum.all += 1;
            stratum.of += u64::from(row.is_some());
            stratum.hits += u64::from(row.is_some_and(|row| hit(row.outcome)));
        }
        Share::of(&strata.into_values().collect::<Vec<_>>())
    }

    /// The outcomes of all pages under one policy.
    pub(crate) fn cell(&self, Column { firmware, policy }: Column<'_>) -> Cell {
        let mut outcomes: BTreeMap<&'static str, u64> =
            Outcome::ALL.iter().map(|outcome| (outcome.word(), 0)).collect();
        for row in self.pages_of(firmware).filter_map(|page| self.row(page, policy)) {
            *outcomes.entry(row.outcome.word()).or_default() += 1;
        }
        let share_of =
            |outcome: Outcome| self.share(self.pages_of(firmware), policy, |other| other == outcome).share;
        let survived = self.share(self.pages_of(firmware), policy, Outcome::is_survived);
        // As `survived.all`: of the moments with a draw.
        let drawn = self.moments(firmware).filter(|moment| self.count(*moment, policy) > 0);
        let pages = drawn.filter_map(|moment| self.manifest.moments.get(moment));
        let pages = pages.flat_map(|moment| moment.pages.values()).map(|count| count.pages).sum();
        let of_moment = |moment| {
            let pages = self.pages.iter().filter(move |page| page.moment == moment);
            self.share(pages, policy, Outcome::is_survived)
        };
        Cell {
            firmware: firmware.to_owned(),
            policy: policy.to_owned(),
            outcomes,
            shares: Outcome::ALL.into_iter().map(|outcome| (outcome.word(), share_of(outcome))).collect(),
            kept: self.share(self.pages_of(firmware), policy, Outcome::keeps_guest),
            of_ram: 1.0 - statistics::share(survived.all, pages) * (1.0 - survived.share),
            survived,
            moments: self.moments(firmware).map(of_moment).collect(),
        }
    }

    /// The outcomes by a property of the page, that with most losses first.
    pub(crate) fn groups(
        &self,
        Column { firmware, policy }: Column<'_>,
        name: fn(&PlannedPage) -> &String,
    ) -> Vec<Group> {
        let mut by_name: BTreeMap<&str, Vec<&PlannedPage>> = BTreeMap::new();
        for page in self.pages_of(firmware) {
            by_name.entry(name(page)).or_default().push(page);
        }
        let group = |(name, pages): (&str, Vec<&'a PlannedPage>)| {
            let rows = pages.iter().filter_map(|page| self.row(page, policy));
            Some(Group {
                firmware: firmware.to_owned(),
                policy: policy.to_owned(),
                name: name.to_owned(),
                worst: rows.max_by_key(|row| row.outcome)?.id.clone(),
                survived: self.share(pages.iter().copied(), policy, Outcome::is_survived),
                kept: self.share(pages.iter().copied(), policy, Outcome::keeps_guest),
            })
        };
        let mut groups: Vec<Group> = by_name.into_iter().filter_map(group).collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.survived.of - group.survived.hits));
        groups
    }

    /// Each policy beside each other, on the pages that both met.
    pub(crate) fn pairs(&self, firmware: &str) -> Vec<Pair> {
        let policies = &self.manifest.policies;
        let pairs = policies
            .iter()
            .enumerate()
            .flat_map(|(n, one)| policies.iter().skip(n + 1).map(move |other| (one, other)));
        let compared: [(&'static str, Judged); 2] =
            [("survived", Outcome::is_survived), ("kept", Outcome::keeps_guest)];
        let all = self.pages_of(firmware).count() as u64;
        let pair = |(one, other): (&String, &String)| {
            let both: Vec<(Outcome, Outcome)> = self
                .pages_of(firmware)
                .filter_map(|page| Some((self.row(page, one)?.outcome, self.row(page, other)?.outcome)))
                .collect();
            compared.map(|(what, hit)| {
                let count = |wanted: (bool, bool)| {
                    both.iter().filter(|(a, b)| (hit(*a), hit(*b)) == wanted).count() as u64
                };
                let (only_one, only_other) = (count((true, false)), count((false, true)));
                Pair {
                    firmware: firmware.to_owned(),
                    one: one.clone(),
                    other: other.clone(),
                    what,
                    of: both.len() as u64,
                    all,
                    only_one,
                    only_other,
                    p: mcnemar(only_one, only_other),
                }
            })
        };
        pairs.flat_map(pair).collect()
    }
}
