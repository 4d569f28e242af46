//! The results: a row for each experiment; journals of runs that go on, and tables of those that are done.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::manifest::Campaign;
use crate::table::{self, Column, Columns};

/// How an experiment came out, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Every service lives, and the kernel did not complain.
    AllAlive,
    /// Every service lives; the kernel complained (an oops).
    AliveAfterOops,
    /// Some services are lost, others live.
    SomeLost,
    /// The kernel lives, and no service does.
    WorkloadLost,
    /// The kernel panicked.
    Panic,
    /// Nothing goes on, and nothing says why.
    Hang,
    /// A service computed or read something else than it must.
    WrongResult,
}

impl Outcome {
    /// All, the best first.
    pub const ALL: [Self; 7] = [
        Self::AllAlive,
        Self::AliveAfterOops,
        Self::SomeLost,
        Self::WorkloadLost,
        Self::Panic,
        Self::Hang,
        Self::WrongResult,
    ];

    /// Its word in tables.
    pub const fn word(self) -> &'static str {
        match self {
            Self::AllAlive => "all-alive",
            Self::AliveAfterOops => "alive-after-oops",
            Self::SomeLost => "some-lost",
            Self::WorkloadLost => "workload-lost",
            Self::Panic => "panic",
            Self::Hang => "hang",
            Self::WrongResult => "wrong-result",
        }
    }

    /// True if every service lives with the right results.
    pub const fn is_survived(self) -> bool {
        matches!(self, Self::AllAlive | Self::AliveAfterOops)
    }

    /// True if the guest as a whole goes on: its kernel and at least one service.
    pub const fn keeps_guest(self) -> bool {
        matches!(self, Self::AllAlive | Self::AliveAfterOops | Self::SomeLost)
    }

    fn by_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.word() == word)
    }
}

/// The result of an experiment. Same campaign and id, same row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// `FIRMWARE-MOMENT-PAGE-POLICY`.
    pub id: String,
    /// `dt` or `acpi`.
    pub firmware: String,
    /// The number of the moment.
    pub moment: u32,
    /// Physical address of the page.
    pub page: u64,
    /// The use of the page.
    pub page_use: String,
    /// The answer.
    pub policy: String,
    /// How it came out.
    pub outcome: Outcome,
    /// How many services were lost.
    pub lost: u32,
    /// Which, and why: `NAME (WHY)`.
    pub lost_services: String,
    /// The kernel's own words: of its panic, or its first complaint.
    pub words: String,
    /// Memory errors that the guest met.
    pub errors: u64,
    /// Those that a device met.
    pub device_errors: u64,
    /// True if the first was met where the golden run's trace said.
    pub as_planned: bool,
    /// Time of the first use, nanoseconds since the moment.
    pub time: u64,
    /// Virtual address of the instruction of the first use.
    pub pc: String,
    /// Its function.
    pub symbol: String,
    /// Its Exception level.
    pub el: u8,
    /// The outcome.
    pub consumer: String,
    /// Instructions from the checkpoint to the judgement.
    pub steps: u64,
}

/// By the experiment's place in the plan: a result, and the file that it is from.
pub(crate) type Found = BTreeMap<usize, (Row, PathBuf)>;

fn columns(rows: &[Row]) -> Columns {
    let texts = |of: fn(&Row) -> String| Column::Text(rows.iter().map(of).collect());
    let numbers = |of: fn(&Row) -> u64| Column::Number(rows.iter().map(|row| of(row) as i64).collect());
    vec![
        ("id", texts(|row| row.id.clone())),
        ("firmware", texts(|row| row.firmware.clone())),
        ("moment", numbers(|row| row.moment.into())),
        ("page", numbers(|row| row.page)),
        ("page_use", texts(|row| row.page_use.clone())),
        ("policy", texts(|row| row.policy.clone())),
        ("outcome", texts(|row| row.outcome.word().to_owned())),
        ("lost", numbers(|row| row.lost.into())),
        ("lost_services", texts(|row| row.lost_services.clone())),
        ("words", texts(|row| row.words.clone())),
        ("errors", numbers(|row| row.errors)),
        ("device_errors", numbers(|row| row.device_errors)),
        ("as_planned", Column::Flag(rows.iter().map(|row| row.as_planned).collect())),
        ("time", numbers(|row| row.time)),
        ("pc", texts(|row| row.pc.clone())),
        ("symbol", texts(|row| row.symbol.clone())),
        ("el", numbers(|row| row.el.into())),
        ("consumer", texts(|row| row.consumer.clone())),
        ("steps", numbers(|row| row.steps)),
    ]
}

/// Writes rows, which are in the plan's order.
pub(crate) fn write(path: &Path, campaign: &str, rows: &[Row]) -> Result<()> {
    table::write(path, campaign, &columns(rows))
}

pub(crate) fn read(path: &Path, campaign: &str) -> Result<Vec<Row>> {
    let table = table::read(path, campaign, columns(&[]))?;
    let rows = match table.first() {
        Some((_, Column::Text(ids))) => ids.len(),
        _ => 0,
    };
    let bad = |row| Error::content(path, "results of experiments", format!("something else in row {row}"));
    (0..rows).map(|row| of_table(&table, row).ok_or_else(|| bad(row))).collect()
}

fn of_table(table: &Columns, row: usize) -> Option<Row> {
    let column = |name: &str| table.iter().find(|(this, _)| *this == name).map(|(_, column)| column);
    let text = |name: &str| match column(name) {
        Some(Column::Text(values)) => values.get(row).cloned(),
        _ => None,
    };
    let number = |name: &str| match column(name) {
        Some(Column::Number(values)) => values.get(row).map(|value| *value as u64),
        _ => None,
    };
    let Some(Column::Flag(as_planned)) = column("as_planned") else { return None };
    Some(Row {
        id: text("id")?,
        firmware: text("firmware")?,
        moment: number("moment")?.try_into().ok()?,
        page: number("page")?,
        page_use: text("page_use")?,
        policy: text("policy")?,
        outcome: Outcome::by_word(&text("outcome")?)?,
        lost: number("lost")?.try_into().ok()?,
        lost_services: text("lost_services")?,
        words: text("words")?,
        errors: number("errors")?,
        device_errors: number("device_errors")?,
        as_planned: *as_planned.get(row)?,
        time: number("time")?,
        pc: text("pc")?,
        symbol: text("symbol")?,
        el: number("el")?.try_into().ok()?,
        consumer: text("consumer")?,
        steps: number("steps")?,
    })
}

/// The journal of a run: rows as they come, each whole or not at all. A process has one of its own, so that one that is
/// thought to be dead does no harm.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// The first line names the campaign.
    pub(crate) fn new(folder: &Path, campaign: &str) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|error| Error::file(folder, error))?;
        for number in 0_u32.. {
            let path = folder.join(format!("{}-{number}.journal", std::process::id()));
            match OpenOptions::new().append(true).create_new(true).open(&path) {
                Ok(mut file) => {
                    writeln!(file, "{campaign}").map_err(|error| Error::file(&path, error))?;
                    return Ok(Self { path, file });
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::file(&path, error)),
            }
        }
        Err(Error::content(folder, "a folder with a place for a journal", "one that is full"))
    }

    pub(crate) fn write(&mut self, row: &Row) -> Result<()> {
        let mut line = serde_json::to_vec(row)
            .map_err(|error| Error::content(&self.path, "a row that can be written", error.to_string()))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(|error| Error::file(&self.path, error))
    }

    /// Its rows are in a table now.
    pub(crate) fn remove(self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn read_journal(path: &Path, campaign: &str) -> Result<Vec<Row>> {
    let file = File::open(path).map_err(|error| Error::file(path, error))?;
    let mut lines = BufReader::new(file).lines();
    let first = lines.next().transpose().map_err(|error| Error::file(path, error))?.unwrap_or_default();
    if first.len() == campaign.len() && first != campaign {
        return Err(Error::content(path, format!("results of campaign {campaign}"), first));
    }
    // A run that was killed may have left half a line, which is the last.
    Ok(lines.map_while(std::result::Result::ok).map_while(|line| serde_json::from_str(&line).ok()).collect())
}

impl Campaign {
    /// All results that there are, of shards that are done, that go on and that were killed.
    ///
    /// # Errors
    /// [`Error::Disagree`] if two differ; [`Error::Content`] if some are of another campaign.
    pub(crate) fn found(&self, ids: &BTreeMap<String, usize>) -> Result<Found> {
        let folder = self.results();
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::new()),
            entries => entries.map_err(|error| Error::file(&folder, error))?,
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        // A run turns its journal into a table while others look: what is gone by now is in a table that comes later.
        paths.sort_by_key(|path| path.extension().is_some_and(|extension| extension == "parquet"));
        let mut found = Found::new();
        for path in paths {
            let rows = match path.extension().and_then(|extension| extension.to_str()) {
                Some("parquet") => read(&path, &self.id)?,
                Some("journal") => match read_journal(&path, &self.id) {
                    Err(Error::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                        continue;
                    }
                    rows => rows?,
                },
                _ => continue,
            };
            for row in rows {
                add(&mut found, row, &path, ids)?;
            }
        }
        Ok(found)
    }
}

/// The columns of a row that another row has otherwise.
fn differing(row: &Row, other: &Row) -> String {
    let columns = |row: &Row| columns(std::slice::from_ref(row));
    let of = columns(row).into_iter().zip(columns(other)).filter(|(own, other)| own != other);
    let texts = of.map(|((name, column), _)| format!("{name} {column}"));
    texts.collect::<Vec<_>>().join(", ")
}

/// Adds a row, which must be what another file says.
pub(crate) fn add(found: &mut Found, row: Row, path: &Path, ids: &BTreeMap<String, usize>) -> Result<()> {
    let index = *ids.get(&row.id).ok_or_else(|| {
        Error::content(path, "results of experiments of this campaign", format!("one of {}", row.id))
    })?;
    match found.get(&index) {
        Some((known, first)) if *known != row => Err(Error::Disagree {
            id: row.id.clone(),
            paths: (first.clone(), path.to_owned()),
            first: differing(known, &row),
            second: differing(&row, known),
        }),
        Some(_) => Ok(()),
        None => {
            found.insert(index, (row, path.to_owned()));
            Ok(())
        }
    }
}
