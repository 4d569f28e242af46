#![forbid(unsafe_code)]
//! Campaigns: which pages of a running guest can go bad without killing it, page by page and policy by policy.
//!
//! - [`plan`] boots a guest on the software machine, keeps moments of it, traces from each on which pages anything
//!   consumes, and proves that the others do not matter: all of them bad at once leave the run as it is, to the bit
//! - [`run`] lets each of the other pages go bad under each policy and judges the guest by what its services say; on all
//!   cores, and from where an earlier run was stopped
//! - [`merge`] puts the results of all shards into one table, [`report`] makes a page for people and JSON of it
//! - [`replay`] runs one experiment again, with its console; [`verify`] a draw of them, and of the pages that the plan left
//!   out, and compares
//!
//! # A campaign's directory
//!
//! | file | what it is |
//! |---|---|
//! | `manifest.json` | the guest, the moments, the golden runs; its BLAKE3 is the campaign's id, which all results carry |
//! | `plan.parquet` | each page that something consumes, with the access that does so first |
//! | `moment-NAME.snapshot`, `disk-N` | where experiments begin |
//! | `results/I-of-N.parquet` | a shard's results |
//! | `results/*.journal` | results of a run that goes on, was killed, or was asked for a part of its shard |
//! | `results.parquet` | all results |
//! | `report.html`, `report.json` | what they come to |
//!
//! # Why a row is the same each time
//!
//! An experiment is a checkpoint of the golden run and the lines that go bad there. A checkpoint is a snapshot after a
//! fixed number of instructions since the moment, and taking one empties the TLBs; so it does not matter which machine
//! walked there, nor what ran on it before. No row has a time of the host in it.

pub mod engine;
mod error;
mod experiment;
mod golden;
mod manifest;
mod merge;
mod page_use;
mod pages;
mod plan;
mod report;
mod results;
mod run;
mod seen;
pub mod statistics;
mod table;
mod touched;
mod tried;
mod verify;

pub use error::{Error, Result};
pub use manifest::{Campaign, Firmware, Golden, Kept, Manifest, Moment, POLICIES, PageCount};
pub use merge::{Status, merge};
pub use pages::PlannedPage;
pub use plan::{Planned, Request, plan};
pub use report::{Cell, Group, Guest, MomentFigures, Pair, Report, Results, Share, report, write_report};
pub use results::{Outcome, Row};
pub use run::{Only, Progress, Replay, Shard, replay, run};
pub use verify::{Again, Verified, verify};
