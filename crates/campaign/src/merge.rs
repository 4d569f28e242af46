//! The state of a campaign, and all its results in one table.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::experiment;
use crate::manifest::Campaign;
use crate::pages::{self, PlannedPage};
use crate::results::{self, Row};

/// How far a campaign is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Status {
    /// Experiments with a result.
    pub done: usize,
    /// Experiments.
    pub all: usize,
    /// The first without a result.
    pub next: Option<String>,
    /// Results whose first error was not where the golden run's trace said; 0 unless a host is broken.
    pub not_as_planned: usize,
}

impl Campaign {
    /// Where [`merge`] puts the results.
    pub fn merged_path(&self) -> PathBuf {
        self.directory.join("results.parquet")
    }

    /// The pages of the plan.
    ///
    /// # Errors
    /// [`Error`].
    pub fn pages(&self) -> Result<Vec<PlannedPage>> {
        pages::read(&self.plan_path(), self.manifest.moments.len())
    }

    /// All results that there are, in the plan's order, and how far the campaign is.
    ///
    /// # Errors
    /// [`Error`].
    pub fn rows(&self) -> Result<(Vec<Row>, Status)> {
        let pages = self.pages()?;
        let experiments = experiment::all(&self.manifest, &pages);
        let ids = experiment::ids(&experiments);
        let mut found = self.found(&ids)?;
        let path = self.merged_path();
        if path.exists() {
            for row in results::read(&path, &self.id)? {
                results::add(&mut found, row, &path, &ids)?;
            }
        }
        let next = (0..experiments.len()).find(|index| !found.contains_key(index));
        let status = Status {
            done: found.len(),
            all: experiments.len(),
            next: next.and_then(|index| experiments.get(index)).map(Experiment::id),
            not_as_planned: found.values().filter(|(row, _)| !row.as_planned).count(),
        };
        Ok((found.into_values().map(|(row, _)| row).collect(), status))
    }
}

use experiment::Experiment;

/// Puts all results into one table, in the plan's order: the same bytes, however they came about.
///
/// # Errors
/// [`Error::Missing`] unless `partial`; [`Error::Disagree`].
pub fn merge(campaign: &Campaign, partial: bool) -> Result<(PathBuf, Status)> {
    let (rows, status) = campaign.rows()?;
    if let Some(first) = status.next.clone().filter(|_| !partial) {
        return Err(Error::Missing { missing: status.all - status.done, all: status.all, first });
    }
    let path = campaign.merged_path();
    results::write(&path, &campaign.id, &rows)?;
    Ok((path, status))
}
