//! Snapshots of a run, to a file and from one.

use std::io::{BufReader, BufWriter};
use std::path::Path;

use seawall_files::Replacement;
use seawall_vmm::Snapshot;

use super::machine::Machine;
use crate::parse::{Keep, Moment};
use crate::{Failure, exit};

/// The requested snapshots whose moments are to come.
pub(super) struct Keeper<'a>(Vec<&'a Keep>);

impl<'a> Keeper<'a> {
    pub(super) fn new(keeps: &'a [Keep]) -> Self {
        Self(keeps.iter().collect())
    }

    /// Instructions until the first is due, if that is known.
    pub(super) fn left(&self, now: u64) -> u64 {
        let due = self.0.iter().filter_map(|keep| match keep.when {
            Moment::Count(count) => Some(count.saturating_sub(now).max(1)),
            _ => None,
        });
        due.min().unwrap_or(u64::MAX)
    }

    /// Takes those that are due by the number of instructions; returns the files' names.
    pub(super) fn at_count(&mut self, machine: &mut dyn Machine) -> Result<Vec<&'a Path>, Failure> {
        if self.0.is_empty() {
            return Ok(Vec::new());
        }
        let now = machine.when().instructions.unwrap_or_default();
        self.take_if(machine, |when| matches!(when, Moment::Count(count) if *count <= now))
    }

    /// Takes those that are due by a line of the console.
    pub(super) fn at_line(
        &mut self,
        machine: &mut dyn Machine,
        line: &str,
    ) -> Result<Vec<&'a Path>, Failure> {
        self.take_if(machine, |when| matches!(when, Moment::Line(text) if line.contains(text)))
    }

    /// Takes those that are due when the run ends.
    pub(super) fn at_end(&mut self, machine: &mut dyn Machine) -> Result<Vec<&'a Path>, Failure> {
        self.take_if(machine, |when| matches!(when, Moment::End))
    }

    /// The files that were not written, because their moments never came.
    pub(super) fn missed(&self) -> impl Iterator<Item = &'a Path> {
        self.0.iter().map(|keep| keep.path.as_path())
    }

    fn take_if(
        &mut self,
        machine: &mut dyn Machine,
        is_due: impl Fn(&Moment) -> bool,
    ) -> Result<Vec<&'a Path>, Failure> {
        let (due, rest) = self.0.iter().partition(|keep| is_due(&keep.when));
        self.0 = rest;
        due.into_iter().map(|keep| write(machine, keep)).collect()
    }
}

fn write<'a>(machine: &mut dyn Machine, keep: &'a Keep) -> Result<&'a Path, Failure> {
    let failure = |error: &dyn std::fmt::Display| {
        Failure::new(exit::FILE, format!("--snapshot {}: {error}", keep.path.display()))
    };
    let snapshot = machine.snapshot()?;
    let mut file = Replacement::new(&keep.path).map_err(|error| failure(&error))?;
    snapshot.save(BufWriter::new(&mut file)).map_err(|error| failure(&with_source(&error)))?;
    file.finish().map_err(|error| failure(&error))?;
    Ok(&keep.path)
}

/// Reads the snapshot from which a run continues: of a machine with as much RAM as the default limit, or as
/// `memory`.
pub(super) fn load(path: &Path, memory: u64, has_disks: bool) -> Result<Snapshot, Failure> {
    let failure = |error: &dyn std::fmt::Display| {
        Failure::new(exit::FILE, format!("--restore {}: {error}", path.display()))
    };
    let file = seawall_files::open_regular(path).map_err(|error| failure(&error))?;
    let limits = Snapshot::limits(memory, has_disks);
    Snapshot::load_within(BufReader::new(file), &limits).map_err(|error| failure(&with_source(&error)))
}

/// An error with its causes.
fn with_source(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
