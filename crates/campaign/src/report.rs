//! The report of a campaign: JSON, and one self-contained page of HTML.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::manifest::{Campaign, Manifest, Moment};
use crate::merge::Status;
use crate::pages::PlannedPage;
use crate::results::{Outcome, Row};
use crate::statistics::{self, mcnemar, wilson, wilson_finite};

/// The page; the data goes into its place.
const PAGE: &str = include_str!("report.html");
const PLACE: &str = "/*DATA*/null";

/// A share with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Share {
    /// How many.
    pub hits: u64,
    /// Of how many.
    pub of: u64,
    /// The share, and its 95 % interval (Wilson, with the finite population correction).
    pub share: f64,
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl Share {
    /// Of so many drawn from `all`.
    fn new(hits: u64, of: u64, all: u64) -> Self {
        let (low, high) = if all == 0 { wilson(hits, of) } else { wilson_finite(hits, of, all) };
        Self { hits, of, share: statistics::share(hits, of), low, high }
    }
}

/// The guest's outcomes under one policy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// `dt` or `acpi`.
    pub firmware: String,
    /// The policy.
    pub policy: String,
    /// By outcome.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// Every service lives with the right results.
    pub survived: Share,
    /// The kernel and at least one service live.
    pub kept: Share,
    /// The share of all of RAM whose loss every service survives: pages that nothing uses, and of the others the share above.
    pub of_ram: f64,
    /// `survived` at each moment.
    pub moments: Vec<Share>,
}

/// Losses by one property of the page.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    /// `dt` or `acpi`.
    pub firmware: String,
    /// The policy.
    pub policy: String,
    /// The use of the page, or the function that used it first.
    pub name: String,
    /// Every service lives.
    pub survived: Share,
    /// The guest as a whole lives.
    pub kept: Share,
    /// An experiment that lost most, to replay.
    pub worst: String,
}

/// Two policies on the same faults.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pair {
    /// `dt` or `acpi`.
    pub firmware: String,
    /// The one.
    pub one: String,
    /// The other.
    pub other: String,
    /// The compared outcome: `survived` or `kept`.
    pub what: &'static str,
    /// Only under the one.
    pub only_one: u64,
    /// Only under the other.
    pub only_other: u64,
    /// Of McNemar's exact test.
    pub p: f64,
}

/// A moment in figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MomentFigures {
    /// Its name.
    pub name: String,
    /// Pages of RAM.
    pub pages: u64,
    /// Pages that something uses.
    pub touched: u64,
    /// Pages tried.
    pub chosen: u64,
    /// Instructions of the golden run.
    pub steps: u64,
    /// The touched pages: number in RAM, use by its place in `uses`, 1 if tried.
    pub map: Vec<(u64, usize, u8)>,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The campaign's id.
    pub campaign: String,
    /// The program that planned.
    pub program: String,
    /// The guest.
    pub guest: Guest,
    /// How much of it is done.
    pub done: usize,
    /// Of how many experiments.
    pub all: usize,
    /// The moments.
    pub moments: Vec<MomentFigures>,
    /// The uses that `map` numbers.
    pub uses: Vec<String>,
    /// All pages by use, added up over the moments: use, pages, touched, tried.
    pub by_use: Vec<(String, u64, u64, u64)>,
    /// By firmware and policy.
    pub cells: Vec<Cell>,
    /// By use.
    pub losses_by_use: Vec<Group>,
    /// By function.
    pub losses_by_symbol: Vec<Group>,
    /// Policies beside each other.
    pub pairs: Vec<Pair>,
    /// The command with the campaign's directory, for replays.
    pub replay: String,
    /// The experiments.
    pub rows: Vec<Row>,
}

/// The guest, in words.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Guest {
    /// The kernel's file and hash.
    pub kernel: String,
    /// The command line.
    pub command_line: String,
    /// Bytes of RAM.
    pub memory: u64,
    /// Guest's time from a moment to the judgement, nanoseconds.
    pub horizon: u64,
    /// Its services.
    pub services: Vec<String>,
}

/// The report of all results that there are.
///
/// # Errors
/// [`Error`].
pub fn report(campaign: &Campaign) -> Result<Report> {
    let (rows, status) = campaign.rows()?;
    let pages = campaign.pages()?;
    Ok(of(&campaign.manifest, &campaign.id, &campaign.directory.display().to_string(), &pages, rows, &status))
}

/// Writes `report.html` and `report.json`: their paths.
///
/// # Errors
/// [`Error`].
pub fn write_report(campaign: &Campaign) -> Result<[PathBuf; 2]> {
    let report = report(campaign)?;
    let paths = ["report.html", "report.json"].map(|name| campaign.directory.join(name));
    let json = serde_json::to_string(&report)
        .map_err(|error| Error::content(&paths[1], "a report", error.to_string()))?;
    for (path, text) in paths.iter().zip([page(&json), format!("{json}\n")]) {
        seawall_files::replace(path, text.as_bytes()).map_err(|error| Error::file(path, error))?;
    }
    Ok(paths)
}

/// The page with the data in it. A guest's words cannot end the script that they are in.
fn page(json: &str) -> String {
    PAGE.replacen(
        PLACE,
        &json.replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029"),
        1,
    )
}

fn of(
    manifest: &Manifest,
    id: &str,
    directory: &str,
    pages: &[PlannedPage],
    rows: Vec<Row>,
    status: &Status,
) -> Report {
    let uses: Vec<String> = {
        let mut uses: Vec<String> = pages.iter().map(|page| page.page_use.clone()).collect();
        uses.sort();
        uses.dedup();
        uses
    };
    let mut firmware: Vec<&str> = manifest.moments.iter().map(|moment| moment.firmware.word()).collect();
    firmware.dedup();
    let each = || {
        let policies = manifest.policies.iter();
        firmware
            .iter()
            .flat_map(move |firmware| policies.clone().map(move |policy| (*firmware, policy.as_str())))
    };
    let services = manifest.moments.first().map(|moment| moment.golden.services.keys().cloned().collect());
    Report {
        campaign: id.to_owned(),
        program: manifest.program.clone(),
        guest: Guest {
            kernel: format!("{} (BLAKE3 {})", manifest.kernel.name, manifest.kernel.blake3),
            command_line: manifest.command_line.clone(),
            memory: manifest.memory,
            horizon: manifest.horizon,
            services: services.unwrap_or_default(),
        },
        done: status.done,
        all: status.all,
        moments: figures(manifest, pages, &uses),
        by_use: by_use(manifest),
        cells: each().map(|(firmware, policy)| cell(manifest, &rows, firmware, policy)).collect(),
        losses_by_use: each()
            .flat_map(|(f, p)| groups(manifest, &rows, f, p, |row| &row.page_use, true))
            .collect(),
        losses_by_symbol: each()
            .flat_map(|(f, p)| groups(manifest, &rows, f, p, |row| &row.symbol, false))
            .collect(),
        pairs: firmware.iter().flat_map(|firmware| pairs(manifest, &rows, firmware)).collect(),
        uses,
        replay: format!("seawall campaign replay {directory}"),
        rows,
    }
}

fn figures(manifest: &Manifest, pages: &[PlannedPage], uses: &[String]) -> Vec<MomentFigures> {
    let figure = |(index, moment): (usize, &Moment)| {
        let of_moment = pages.iter().filter(move |page| page.moment == index);
        let number =
            |page: &PlannedPage| (page.page - seawall_machine::RAM_BASE) / seawall_machine::memory::PAGE_SIZE;
        let map: Vec<(u64, usize, u8)> = of_moment
            .map(|page| (number(page), uses.binary_search(&page.page_use).unwrap_or(0), page.chosen.into()))
            .collect();
        MomentFigures {
            name: moment.name(),
            pages: moment.pages.values().map(|count| count.pages).sum(),
            touched: map.len() as u64,
            chosen: map.iter().map(|(_, _, chosen)| u64::from(*chosen)).sum(),
            steps: moment.golden.steps,
            map,
        }
    };
    manifest.moments.iter().enumerate().map(figure).collect()
}

fn by_use(manifest: &Manifest) -> Vec<(String, u64, u64, u64)> {
    let mut sums: BTreeMap<&str, (u64, u64, u64)> = BTreeMap::new();
    for (name, count) in manifest.moments.iter().flat_map(|moment| &moment.pages) {
        let sum = sums.entry(name).or_default();
        *sum = (sum.0 + count.pages, sum.1 + count.touched, sum.2 + count.chosen);
    }
    sums.into_iter()
        .map(|(name, (pages, touched, chosen))| (name.to_owned(), pages, touched, chosen))
        .collect()
}

fn of_cell<'a>(rows: &'a [Row], firmware: &'a str, policy: &'a str) -> impl Iterator<Item = &'a Row> + Clone {
    rows.iter().filter(move |row| row.firmware == firmware && row.policy == policy)
}

/// How many pages there were to draw from, at the moments of this firmware.
fn touched_of<'a>(manifest: &'a Manifest, firmware: &'a str) -> impl Iterator<Item = (u32, u64, u64)> + 'a {
    let moments = manifest.moments.iter().filter(move |moment| moment.firmware.word() == firmware);
    moments.map(|moment| {
        let sum = |of: fn(&crate::PageCount) -> u64| moment.pages.values().map(of).sum();
        (moment.number, sum(|count| count.touched), sum(|count| count.pages))
    })
}

fn share<'a>(rows: impl Iterator<Item = &'a Row> + Clone, hit: Judged, all: u64) -> Share {
    let of = rows.clone().count() as u64;
    Share::new(rows.filter(|row| hit(row.outcome)).count() as u64, of, all)
}

fn cell(manifest: &Manifest, rows: &[Row], firmware: &str, policy: &str) -> Cell {
    let mine = of_cell(rows, firmware, policy);
    let (touched, pages) = touched_of(manifest, firmware).fold((0, 0), |(a, b), (_, c, d)| (a + c, b + d));
    let mut outcomes: BTreeMap<&'static str, u64> =
        Outcome::ALL.iter().map(|outcome| (outcome.word(), 0)).collect();
    for row in mine.clone() {
        *outcomes.entry(row.outcome.word()).or_default() += 1;
    }
    let survived = share(mine.clone(), Outcome::is_survived, touched);
    let moments = touched_of(manifest, firmware).map(|(number, touched, _)| {
        share(mine.clone().filter(move |row| row.moment == number), Outcome::is_survived, touched)
    });
    let moments = moments.collect();
    Cell {
        firmware: firmware.to_owned(),
        policy: policy.to_owned(),
        outcomes,
        kept: share(mine, Outcome::keeps_guest, touched),
        of_ram: 1.0 - statistics::share(touched, pages) * (1.0 - survived.share),
        survived,
        moments,
    }
}

fn groups(
    manifest: &Manifest,
    rows: &[Row],
    firmware: &str,
    policy: &str,
    name: fn(&Row) -> &String,
    is_use: bool,
) -> Vec<Group> {
    let mut by_name: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in of_cell(rows, firmware, policy) {
        by_name.entry(name(row)).or_default().push(row);
    }
    let moments = manifest.moments.iter().filter(|moment| moment.firmware.word() == firmware);
    let all = |name: &str| {
        let of_use = moments.clone().filter(|_| is_use);
        of_use.filter_map(|moment| Some(moment.pages.get(name)?.touched)).sum()
    };
    let group = |(name, rows): (&str, Vec<&Row>)| Group {
        firmware: firmware.to_owned(),
        policy: policy.to_owned(),
        name: name.to_owned(),
        survived: share(rows.iter().copied(), Outcome::is_survived, all(name)),
        kept: share(rows.iter().copied(), Outcome::keeps_guest, all(name)),
        worst: rows.iter().max_by_key(|row| row.outcome).map(|row| row.id.clone()).unwrap_or_default(),
    };
    let mut groups: Vec<Group> = by_name.into_iter().map(group).collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.survived.of - group.survived.hits));
    groups
}

/// True if an outcome counts.
type Judged = fn(Outcome) -> bool;

fn pairs(manifest: &Manifest, rows: &[Row], firmware: &str) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for (n, one) in manifest.policies.iter().enumerate() {
        for other in manifest.policies.iter().skip(n + 1) {
            let key = |row: &Row| (row.moment, row.page);
            let others: BTreeMap<_, _> =
                of_cell(rows, firmware, other).map(|row| (key(row), row.outcome)).collect();
            let both: Vec<(Outcome, Outcome)> = of_cell(rows, firmware, one)
                .filter_map(|row| Some((row.outcome, *others.get(&key(row))?)))
                .collect();
            let compared: [(_, Judged); 2] =
                [("survived", Outcome::is_survived), ("kept", Outcome::keeps_guest)];
            for (what, hit) in compared {
                let count = |wanted: (bool, bool)| {
                    both.iter().filter(|(a, b)| (hit(*a), hit(*b)) == wanted).count() as u64
                };
                let (only_one, only_other) = (count((true, false)), count((false, true)));
                pairs.push(Pair {
                    firmware: firmware.to_owned(),
                    one: one.clone(),
                    other: other.clone(),
                    what,
                    only_one,
                    only_other,
                    p: mcnemar(only_one, only_other),
                });
            }
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guests_words_cannot_leave_the_script_that_they_are_in() {
        let page = page(r#"{"words":"</script><img src=x>"}"#);
        assert!(!page.contains("<img"));
        assert!(page.contains(r"\u003c/script>"));
    }
}
