//! The plan's table: each page that something consumes, with the access that does so first.

use std::path::Path;

use seawall_machine::Consumer;

use crate::error::{Error, Result};
use crate::table::{self, Column, Columns};

/// A page that something consumes between its moment and the horizon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedPage {
    /// Its moment, by its place in the manifest.
    pub moment: usize,
    /// Physical address.
    pub page: u64,
    /// The checkpoint that its experiments begin at, the last before the first use.
    pub checkpoint: usize,
    /// The lines that go bad there, a bit each: all that DC ZVA did not overwrite before.
    pub lines: u64,
    /// Time of the first use since the moment, nanoseconds.
    pub time: u64,
    /// Virtual address of the instruction; 0 for a device.
    pub pc: u64,
    /// The kernel's function around it.
    pub symbol: String,
    /// Exception level.
    pub el: u8,
    /// Its consumer.
    pub consumer: Consumer,
    /// The use of the page, by the kernel's own account.
    pub page_use: String,
    /// Its place in the drawing of its moment's pages, from 0.
    pub draw: u64,
    /// True if there are experiments with it.
    pub chosen: bool,
}

impl PlannedPage {
    /// Moment, checkpoint and address: the order in which one machine gets to the pages.
    pub(crate) fn place(&self) -> (usize, usize, u64) {
        (self.moment, self.checkpoint, self.page)
    }

    /// One that nothing consumes.
    pub(crate) fn unused(moment: usize, page: u64) -> Self {
        Self {
            moment,
            page,
            checkpoint: 0,
            lines: u64::MAX,
            time: 0,
            pc: 0,
            symbol: "nothing".to_owned(),
            el: 0,
            consumer: Consumer::Load,
            page_use: "not used".to_owned(),
            draw: 0,
            chosen: false,
        }
    }
}

const CONSUMERS: [(Consumer, &str); 5] = [
    (Consumer::Load, "load"),
    (Consumer::Store, "store"),
    (Consumer::Fetch, "fetch"),
    (Consumer::Walk, "walk"),
    (Consumer::Device, "device"),
];

pub(crate) fn consumer_word(consumer: Consumer) -> &'static str {
    CONSUMERS.iter().find(|(this, _)| *this == consumer).map_or("unknown", |(_, word)| word)
}

pub(crate) fn write(path: &Path, pages: &[PlannedPage]) -> Result<()> {
    let numbers =
        |of: fn(&PlannedPage) -> u64| Column::Number(pages.iter().map(|page| of(page) as i64).collect());
    let texts = |of: fn(&PlannedPage) -> String| Column::Text(pages.iter().map(of).collect());
    let columns = vec![
        ("moment", numbers(|page| page.moment as u64)),
        ("page", numbers(|page| page.page)),
        ("checkpoint", numbers(|page| page.checkpoint as u64)),
        ("lines", numbers(|page| page.lines)),
        ("time", numbers(|page| page.time)),
        ("pc", texts(|page| format!("{:#x}", page.pc))),
        ("symbol", texts(|page| page.symbol.clone())),
        ("el", numbers(|page| page.el.into())),
        ("consumer", texts(|page| consumer_word(page.consumer).to_owned())),
        ("use", texts(|page| page.page_use.clone())),
        ("draw", numbers(|page| page.draw)),
        ("chosen", Column::Flag(pages.iter().map(|page| page.chosen).collect())),
    ];
    table::write(path, "plan", &columns)
}

pub(crate) fn read(path: &Path, moments: usize) -> Result<Vec<PlannedPage>> {
    let number = || Column::Number(Vec::new());
    let text = || Column::Text(Vec::new());
    let columns = vec![
        ("moment", number()),
        ("page", number()),
        ("checkpoint", number()),
        ("lines", number()),
        ("time", number()),
        ("pc", text()),
        ("symbol", text()),
        ("el", number()),
        ("consumer", text()),
        ("use", text()),
        ("draw", number()),
        ("chosen", Column::Flag(Vec::new())),
    ];
    let table = table::read(path, "plan", columns)?;
    let rows = table.first().map_or(0, |(_, column)| match column {
        Column::Number(values) => values.len(),
        _ => 0,
    });
    (0..rows).map(|row| page(&table, row, moments).ok_or_else(|| bad(path, row))).collect()
}

fn bad(path: &Path, row: usize) -> Error {
    Error::content(path, "a plan's pages", format!("something else in row {row}"))
}

fn page(table: &Columns, row: usize, moments: usize) -> Option<PlannedPage> {
    let column = |name: &str| table.iter().find(|(this, _)| *this == name).map(|(_, column)| column);
    let number = |name: &str| match column(name) {
        Some(Column::Number(values)) => values.get(row).map(|value| *value as u64),
        _ => None,
    };
    let text = |name: &str| match column(name) {
        Some(Column::Text(values)) => values.get(row).cloned(),
        _ => None,
    };
    let Some(Column::Flag(chosen)) = column("chosen") else { return None };
    let consumer = text("consumer")?;
    Some(PlannedPage {
        moment: usize::try_from(number("moment")?).ok().filter(|moment| *moment < moments)?,
        page: number("page")?,
        checkpoint: usize::try_from(number("checkpoint")?).ok()?,
        lines: number("lines")?,
        time: number("time")?,
        pc: u64::from_str_radix(text("pc")?.strip_prefix("0x")?, 16).ok()?,
        symbol: text("symbol")?,
        el: u8::try_from(number("el")?).ok()?,
        consumer: CONSUMERS.iter().find(|(_, word)| *word == consumer)?.0,
        page_use: text("use")?,
        draw: number("draw")?,
        chosen: *chosen.get(row)?,
    })
}
