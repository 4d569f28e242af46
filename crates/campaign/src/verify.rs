//! Some experiments again: does the campaign say what this program finds?

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};

use seawall_machine::RAM_BASE;
use seawall_machine::memory::PAGE_SIZE;

use crate::error::Result;
use crate::experiment::{self, Experiment};
use crate::manifest::{Campaign, Manifest};
use crate::pages::PlannedPage;
use crate::results::{Outcome, Row};
use crate::run::{Progress, Work, in_parallel, threads_for};

/// How much is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Again {
    /// Results, drawn from those that there are.
    pub results: usize,
    /// Pages that nothing consumes, drawn from those of all moments.
    pub unused: usize,
    /// Seed of the draw.
    pub seed: u64,
}

/// The outcome of a [`verify`].
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Verified {
    /// Results that were tried again.
    pub results: usize,
    /// Pages that were tried though nothing consumes them.
    pub unused: usize,
    /// Results that differ in any column: as the campaign has it, and as it came out.
    pub differing: Vec<(Row, Row)>,
    /// Of the pages that nothing consumes those whose loss was not survived, or that something met.
    pub not_survived: Vec<Row>,
}

/// Tries results again, which must come out the same in every column; and pages that nothing consumes, one by one. The plan
/// proves of these that all of them can be bad at once; so each must be survived by every service, and met by nobody.
///
/// # Errors
/// [`Error`](crate::Error).
pub fn verify(
    campaign: &Campaign,
    again: &Again,
    threads: Option<NonZero<usize>>,
    tell: &(dyn Fn(Progress) + Sync),
) -> Result<Verified> {
    campaign.check_disks()?;
    let manifest = &campaign.manifest;
    let pages = campaign.pages()?;
    let drawn = draw(campaign.rows()?.0, again.results, |row| format!("{} {}", again.seed, row.id));
    let before: BTreeMap<String, Row> = drawn.into_iter().map(|row| (row.id.clone(), row)).collect();
    let unused = draw(unused(manifest, &pages), again.unused, |page| {
        format!("{} {} {:#x}", again.seed, page.moment, page.page)
    });
    let policies = manifest.policies.iter().cycle();
    let of_unused = unused.iter().zip(policies).filter_map(|(page, policy)| {
        Some(Experiment { moment: manifest.moments.get(page.moment)?, page, policy })
    });
    let mut of_results = experiment::all(manifest, &pages);
    of_results.retain(|experiment| before.contains_key(&experiment.id()));
    let mut experiments: Vec<Experiment<'_>> = of_results.into_iter().chain(of_unused).collect();
    experiments.sort_by_key(|experiment| experiment.page.place());

    let done = AtomicUsize::new(0);
    let all: Vec<usize> = (0..experiments.len()).collect();
    let work = Work::new(campaign, &experiments, &all);
    let note = |index: usize, row: Row| {
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        tell(Progress { done, new: done, all: all.len() });
        Ok((index, row))
    };
    let rows = in_parallel(threads_for(threads, all.len()), || work.until_done(&note))?;
    let mut verified = Verified { results: before.len(), unused: unused.len(), ..Verified::default() };
    let mut rows: Vec<Row> = rows.into_iter().map(|(_, row)| row).collect();
    rows.sort_by(|one, other| one.id.cmp(&other.id));
    for row in rows {
        match before.get(&row.id) {
            Some(before) if *before == row => {}
            Some(before) => verified.differing.push((before.clone(), row)),
            None if row.outcome == Outcome::AllAlive && row.errors + row.device_errors == 0 => {}
            None => verified.not_survived.push(row),
        }
    }
    Ok(verified)
}

/// Pages of RAM that are not in the plan.
fn unused(manifest: &Manifest, pages: &[PlannedPage]) -> Vec<PlannedPage> {
    let planned: BTreeSet<(usize, u64)> = pages.iter().map(|page| (page.moment, page.page)).collect();
    let ram = (RAM_BASE..RAM_BASE + manifest.memory).step_by(PAGE_SIZE as usize);
    let every = (0..manifest.moments.len()).flat_map(|moment| ram.clone().map(move |page| (moment, page)));
    every
        .filter(|place| !planned.contains(place))
        .map(|(moment, page)| PlannedPage::unused(moment, page))
        .collect()
}

/// So many of them, drawn by the hash of their names.
fn draw<T>(all: Vec<T>, count: usize, name: impl Fn(&T) -> String) -> Vec<T> {
    let hash = |item: &T| *blake3::hash(name(item).as_bytes()).as_bytes();
    let mut order: Vec<([u8; 32], T)> = all.into_iter().map(|item| (hash(&item), item)).collect();
    order.sort_unstable_by_key(|(hash, _)| *hash);
    order.into_iter().take(count).map(|(_, item)| item).collect()
}
