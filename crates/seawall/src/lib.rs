//! Containment: from a memory error that reached a guest to the smallest loss, for VMM authors.
//!
//! - [`MemoryError`]: what a SEA exit says, with what the vCPU was doing
//! - [`Policy`]: what to do about it; [`Rules`] is an operator's table, an answer for each kind of error
//! - [`Injection`]: an abort or SError that the ABI accepts; what it forbids cannot be built
//! - [`StormGuard`]: a guest that takes the same abort for ever is stopped, with the reason
//! - [`UnansweredAccess`]: an address where nobody is, or a device that KVM could not ask: the same abort
//! - [`apei`]: the firmware-first record that lets the guest take the page offline
//! - [`ledger`]: which pages are bad, over resets, restarts and migrations
//! - [`migration`]: a guest's memory on its way to another VMM, bad pages unread
//! - [`telemetry`]: what happened, as a line of JSON, `tracing` events and `metrics`
//! - [`Containment`]: the above in one call, over any [`Vcpu`](seawall_inject::Vcpu), with an [`Outcome`]
//!   that says what the guest saw
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

/// The code of docs/embedding.md compiles, and does what it says.
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

pub use address_map::{AddressMap, BadRegion, Region};
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
