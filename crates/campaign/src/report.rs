//! The report of a campaign: JSON, and one self-contained page of HTML, both of the same figures.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use crate::engine::quoted;
use crate::error::{Error, Result};
use crate::manifest::{Campaign, Manifest, Moment};
use crate::pages::{PlannedPage, consumer_word};
use crate::results::{Outcome, Row};
use crate::statistics::{Stratum, stratified};
use crate::tried::{Column, Tried};

/// The page; the data goes into its place.
const PAGE: &str = include_str!("report.html");
const PLACE: &str = "/*DATA*/null";

/// A share with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Share {
    /// How many.
    pub hits: u64,
    /// Of how many that were drawn.
    pub of: u64,
    /// How many there are to draw from, at moments with a draw.
    pub all: u64,
    /// The share, each moment with its weight, and its 95 % interval ([`stratified`]).
    pub share: f64,
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl Share {
    pub(crate) fn of(strata: &[Stratum]) -> Self {
        let (share, low, high) = stratified(strata);
        let sum = |of: fn(&Stratum) -> u64| strata.iter().filter(|stratum| stratum.of != 0).map(of).sum();
        let (all, of, hits) =
            (sum(|stratum| stratum.all), sum(|stratum| stratum.of), sum(|stratum| stratum.hits));
        Self { hits, of, all, share, low, high }
    }
}

/// The guest's outcomes under one policy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// `dt` or `acpi`.
    pub firmware: String,
    /// The policy.
    pub policy: String,
    /// By outcome, counted.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// By outcome: the share of pages in use, each moment with its weight.
    pub shares: BTreeMap<&'static str, f64>,
    /// Every service lives with the right results.
    pub survived: Share,
    /// The kernel and at least one service live.
    pub kept: Share,
    /// The share of all of RAM whose loss every service survives: pages that nothing uses, and of the others the share
    /// above; at moments with a draw.
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
    /// Pages that were tried under both.
    pub of: u64,
    /// Pages in use. If all were tried, the difference is no matter of the draw, and the test says nothing.
    pub all: u64,
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
    /// Instructions of the golden run.
    pub steps: u64,
    /// The touched pages, a value each in all lists: numbers of pages in RAM.
    pub page: Vec<u64>,
    /// Their uses, by place in `names`.
    pub page_use: Vec<usize>,
    /// Of each the first use: nanoseconds since the moment.
    pub time: Vec<u64>,
    /// The function, by place in `names`.
    pub symbol: Vec<usize>,
    /// The consumer, by place in `names`.
    pub consumer: Vec<usize>,
    /// The instruction.
    pub pc: Vec<String>,
    /// By policy.
    pub results: BTreeMap<String, Results>,
}

/// What became of a moment's touched pages under a policy, a value each.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Results {
    /// How many were tried.
    pub tried: u64,
    /// The outcome by its place in `outcomes`; -1 if the page was not tried.
    pub outcome: Vec<i8>,
    /// The lost services, by place in `names`.
    pub lost: Vec<usize>,
    /// The guest's words, by place in `names`.
    pub words: Vec<usize>,
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
    /// The outcomes, the best first.
    pub outcomes: Vec<&'static str>,
    /// Texts, each once.
    pub names: Vec<String>,
    /// All pages by use, added up over the moments: use, pages, touched.
    pub by_use: Vec<(String, u64, u64)>,
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
    let (manifest, pages) = (&campaign.manifest, campaign.pages()?);
    let tried = Tried::new(manifest, &pages, &rows);
    let mut firmware: Vec<&str> = manifest.moments.iter().map(|moment| moment.firmware.word()).collect();
    firmware.dedup();
    let columns = || {
        let of = |firmware| {
            manifest.policies.iter().map(move |policy| Column { firmware, policy: policy.as_str() })
        };
        firmware.iter().flat_map(move |firmware| of(*firmware))
    };
    let mut names = Names::default();
    let moments = manifest.moments.iter().enumerate();
    let moments = moments.map(|(index, moment)| figures(&tried, index, moment, &pages, &mut names)).collect();
    Ok(Report {
        campaign: campaign.id.clone(),
        program: manifest.program.clone(),
        guest: guest(manifest),
        done: status.done,
        all: status.all,
        moments,
        outcomes: Outcome::ALL.map(Outcome::word).to_vec(),
        names: names.list,
        by_use: by_use(manifest),
        cells: columns().map(|column| tried.cell(column)).collect(),
        losses_by_use: columns().flat_map(|column| tried.groups(column, |page| &page.page_use)).collect(),
        losses_by_symbol: columns().flat_map(|column| tried.groups(column, |page| &page.symbol)).collect(),
        pairs: firmware.iter().flat_map(|firmware| tried.pairs(firmware)).collect(),
        replay: format!("seawall campaign replay {}", quoted(&campaign.directory)),
    })
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

/// Texts by their places.
#[derive(Default)]
struct Names {
    list: Vec<String>,
    places: BTreeMap<String, usize>,
}

impl Names {
    fn place(&mut self, name: &str) -> usize {
        if let Some(place) = self.places.get(name) {
            return *place;
        }
        self.list.push(name.to_owned());
        self.places.insert(name.to_owned(), self.list.len() - 1);
        self.list.len() - 1
    }
}

fn guest(manifest: &Manifest) -> Guest {
    let services = manifest.moments.first().map(|moment| moment.golden.services.keys().cloned().collect());
    Guest {
        kernel: format!("{} (BLAKE3 {})", manifest.kernel.name, manifest.kernel.blake3),
        command_line: manifest.command_line.clone(),
        memory: manifest.memory,
        horizon: manifest.horizon,
        services: services.unwrap_or_default(),
    }
}

fn figures(
    tried: &Tried<'_>,
    index: usize,
    moment: &Moment,
    pages: &[PlannedPage],
    names: &mut Names,
) -> MomentFigures {
    let mine: Vec<&PlannedPage> = pages.iter().filter(|page| page.moment == index).collect();
    let number =
        |page: &&PlannedPage| (page.page - seawall_machine::RAM_BASE) / seawall_machine::memory::PAGE_SIZE;
    let policies = tried.policies().iter().map(|policy| {
        let rows: Vec<Option<&Row>> = mine.iter().map(|page| tried.row(page, policy)).collect();
        (policy.clone(), results(tried.count(index, policy), &rows, names))
    });
    let results = policies.collect();
    MomentFigures {
        name: moment.name(),
        pages: moment.pages.values().map(|count| count.pages).sum(),
        touched: mine.len() as u64,
        steps: moment.golden.steps,
        page: mine.iter().map(number).collect(),
        page_use: mine.iter().map(|page| names.place(&page.page_use)).collect(),
        time: mine.iter().map(|page| page.time).collect(),
        symbol: mine.iter().map(|page| names.place(&page.symbol)).collect(),
        consumer: mine.iter().map(|page| names.place(consumer_word(page.consumer))).collect(),
        pc: mine.iter().map(|page| format!("{:x}", page.pc)).collect(),
        results,
    }
}

fn results(tried: u64, rows: &[Option<&Row>], names: &mut Names) -> Results {
    let outcome = |row: Option<&Row>| {
        let place = Outcome::ALL.iter().position(|outcome| row.is_some_and(|row| row.outcome == *outcome));
        place.map_or(-1, |place| place as i8)
    };
    let mut text =
        |of: fn(&Row) -> &str| rows.iter().map(|row| names.place(row.map_or("", of))).collect::<Vec<usize>>();
    Results {
        tried,
        outcome: rows.iter().copied().map(outcome).collect(),
        lost: text(|row| &row.lost_services),
        words: text(|row| &row.words),
    }
}

fn by_use(manifest: &Manifest) -> Vec<(String, u64, u64)> {
    let mut sums: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (name, count) in manifest.moments.iter().flat_map(|moment| &moment.pages) {
        let sum = sums.entry(name).or_default();
        *sum = (sum.0 + count.pages, sum.1 + count.touched);
    }
    sums.into_iter().map(|(name, (pages, touched))| (name.to_owned(), pages, touched)).collect()
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
