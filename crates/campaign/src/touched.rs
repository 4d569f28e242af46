//! The pages that something consumes, as a traced run has them, and the draw of a sample.

use std::collections::BTreeMap;

use seawall_machine::memory::{LINE_SIZE, PAGE_SIZE};
use seawall_machine::{Fate, FirstUse, Trace};

use crate::manifest::{Golden, PageCount};
use crate::page_use::{PageUses, Symbols};
use crate::pages::PlannedPage;
use crate::plan::Request;

/// The pages that something consumes, by address.
pub(crate) fn touched(
    trace: &Trace,
    begin: u64,
    moment: usize,
    golden: &Golden,
    uses: &PageUses,
    symbols: Option<&Symbols>,
) -> Vec<PlannedPage> {
    let mut by_page: BTreeMap<u64, Vec<(u64, Fate)>> = BTreeMap::new();
    for (line, fate) in trace.fates() {
        by_page.entry(line & !(PAGE_SIZE - 1)).or_default().push((line, fate));
    }
    let of_page = |(page, fates): (u64, Vec<(u64, Fate)>)| {
        let first: FirstUse = fates.iter().find_map(|(_, fate)| match fate {
            Fate::Consumed(first) => Some(*first),
            Fate::Overwritten { .. } => None,
        })?;
        let time = first.time.saturating_sub(begin);
        let checkpoint = golden.checkpoints.partition_point(|at| *at < time).saturating_sub(1);
        let at = golden.checkpoints.get(checkpoint).copied().unwrap_or_default();
        let overwritten = fates.iter().filter_map(|(line, fate)| match fate {
            Fate::Overwritten { time } if time.saturating_sub(begin) <= at => {
                Some(1 << (line % PAGE_SIZE / LINE_SIZE))
            }
            _ => None,
        });
        let symbol = symbols.filter(|_| first.el == 1).and_then(|symbols| symbols.name(first.pc));
        Some(PlannedPage {
            moment,
            page,
            checkpoint,
            lines: !overwritten.fold(0_u64, |lines, line| lines | line),
            time,
            pc: first.pc,
            symbol: symbol.unwrap_or(if first.el == 0 { "a process" } else { "unknown" }).to_owned(),
            el: first.el,
            consumer: first.consumer,
            page_use: uses.of_page(page).to_owned(),
            draw: 0,
            chosen: false,
        })
    };
    by_page.into_iter().filter_map(of_page).collect()
}

/// Draws the pages one after the other, by a hash of seed, moment and page; those that come first are the sample.
pub(crate) fn choose(pages: &mut [PlannedPage], request: &Request, moment: &str) {
    let most = request.sample.unwrap_or(u64::MAX);
    let key = |page: &PlannedPage| {
        *blake3::hash(format!("{} {moment} {:#x}", request.seed, page.page).as_bytes()).as_bytes()
    };
    let mut order: Vec<([u8; 32], usize)> =
        pages.iter().enumerate().map(|(n, page)| (key(page), n)).collect();
    order.sort_unstable();
    for (draw, (_, n)) in (0..).zip(order) {
        if let Some(page) = pages.get_mut(n) {
            (page.draw, page.chosen) = (draw, draw < most);
        }
    }
}

/// The pages of RAM by use.
pub(crate) fn count(touched: &[PlannedPage], uses: &PageUses, ram: u64) -> BTreeMap<String, PageCount> {
    let mut counts: BTreeMap<String, PageCount> = BTreeMap::new();
    for page in (seawall_machine::RAM_BASE..seawall_machine::RAM_BASE + ram).step_by(PAGE_SIZE as usize) {
        counts.entry(uses.of_page(page).to_owned()).or_default().pages += 1;
    }
    for page in touched {
        let count = counts.entry(page.page_use.clone()).or_default();
        count.touched += 1;
        count.chosen += u64::from(page.chosen);
    }
    counts
}
