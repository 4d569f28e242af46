//! Containment for VMM authors: it reduces a memory error of a guest to the smallest loss.
//!
//! - [`MemoryError`]: the content of a SEA exit, with the state of the vCPU
//! - [`Policy`]: the decision on an error; [`Rules`] is an operator's table with an answer for each kind of
//!   error
//! - [`Injection`]: an abort or SError that the ABI accepts; code cannot build one that it forbids
//! - [`StormGuard`]: stops a guest that takes the same abort forever, and gives the reason
//! - [`UnansweredAccess`]: an access to an address without a device, or one that KVM could not describe; it
//!   gets the same abort
//! - [`apei`]: the firmware-first record with which the guest takes the page offline
//! - [`ledger`]: the bad pages, kept over resets, restarts and migrations
//! - [`migration`]: the transfer of a guest's memory to another VMM, without reading bad pages
//! - [`telemetry`]: reports as lines of JSON, `tracing` events and `metrics`
//! - [`Containment`]: all of the above in one call, over any [`Vcpu`](seawall_inject::Vcpu), with an
//!   [`Outcome`] that says what the guest saw
//!
//! ```no_run
//! use seawall::{Containment, Now, Rules};
//! use seawall_inject::{Exit, Vcpu};
//!
//! fn run<V: Vcpu>(vcpu: &mut V) -> Result<(), Box<dyn std::error::Error>> {
//!     let mut containment = Containment::new(Rules::default());
//!     let started = std::time::Instant::now();
//!     loop {
//!         match vcpu.run()? {
//!             Exit::Sea(sea) => {
//!                 let contained = containment.contain(vcpu, &sea.into(), None, &Now::new(0, started.elapsed()))?;
//!                 eprintln!("{contained}");
//!                 if let Some(reason) = contained.stop() {
//!                     return Err(reason.into());
//!                 }
//!             }
//!             // MMIO, PSCI and the rest are as they were.
//!             _ => return Ok(()),
//!         }
//!     }
//! }
//! ```
#![forbid(unsafe_code)]

/// The code of docs/embedding.md, compiled and run as doc tests.
#[cfg(all(doctest, feature = "records", feature = "telemetry", feature = "migration"))]
#[doc = include_str!("../../../docs/embedding.md")]
mod embedding {}

mod address_map;
#[cfg(feature = "records")]
pub mod apei;
mod containment;
mod decision;
mod error;
mod evacuation;
mod host;
mod injection;
#[cfg(feature = "ledger")]
pub mod ledger;
mod memory;
#[cfg(feature = "migration")]
pub mod migration;
mod now;
mod outcome;
mod policy;
mod stop;
mod storm;
#[cfg(feature = "telemetry")]
pub mod telemetry;
mod unanswered;

pub use address_map::{AddressMap, BadRegion, MemoryRegion};
pub use containment::{ContainError, Containment, ContainmentState};
pub use decision::{Decision, Recorded, Verdict};
pub use error::{Access, MemoryError, Nested, Source};
pub use evacuation::{Evacuate, EvacuationThreshold};
#[cfg(all(feature = "host", target_os = "linux"))]
pub use host::LinuxHost;
pub use host::{Host, HostKnows};
pub use injection::{ExternalAbort, Injection, Iss, SErrorInjection};
pub use memory::{RecordError, RecordMemory};
pub use now::Now;
pub use outcome::{Action, Contained, Outcome};
pub use policy::{Answer, BadRule, BadRules, ErrorKind, Policy, Response, Rule, Rules};
pub use seawall_inject::{Delivery, SigbusExit};
pub use stop::StopReason;
pub use storm::StormGuard;
pub use unanswered::{Unanswered, UnansweredAccess, UnansweredOutcome};
