#![forbid(unsafe_code)]
//! One set of scenarios about external aborts, with literal expectations, for every backend of Seawall.
//!
//! - [`Scenario`]: a small guest, an action on it, and the result that it must see; [`scenarios()`] lists
//!   them
//! - [`Backend`], [`TestVm`]: the interface to the thing under test; [`Machine`] is the software machine,
//!   [`kvm()`] is `/dev/kvm`
//! - [`run`]: runs one scenario, bounded in time, and returns an [`Entry`]
//!
//! An expectation is a number from the Arm ARM, from Linux or from a measurement. The code under test never
//! computes it. State is checked twice: by `KVM_GET_ONE_REG` right after the injection, and by the guest's
//! own handler, which reads its registers and reports them by MMIO.
//!
//! ```
//! use std::sync::Arc;
//! use seawall_conformance::{Backend, LIMIT, Machine, Verdict, run, scenarios};
//!
//! let backend: Arc<dyn Backend> = Arc::new(Machine);
//! let scenario = scenarios().find(|scenario| scenario.name() == "a_data_abort_at_el1").unwrap();
//! assert_eq!(run(&backend, &scenario, LIMIT).verdict, Verdict::Passed);
//! ```

mod backend;
mod guest;
mod kvm;
mod machine;
mod scenarios;
mod suite;
mod trial;

pub use backend::{Backend, Capability, El1, Error, HOST_HOLE, Interrupt, RAM, RAM_SIZE, Setup, TestVm};
pub use kvm::kvm;
pub use machine::Machine;
pub use suite::{Entry, LIMIT, Scenario, Totals, Verdict, run};
pub use trial::Mismatch;

/// All scenarios, group by group.
pub fn scenarios() -> impl Iterator<Item = Scenario> {
    scenarios::all()
}
