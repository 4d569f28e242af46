//! Reasons to stop a guest.

use std::time::Duration;

use thiserror::Error;

use crate::{ErrorKind, Unanswered};

/// The reason not to run a guest again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum StopReason {
    /// The same access aborts forever: the guest does not, or cannot, handle it.
    #[error(
        "the guest took the same abort {times} times at PC {pc:#x}{}: it does not handle it (are its \
         vectors or page tables bad?)", match .gva { Some(gva) => format!(", address {gva:#x}"), None => String::new() }
    )]
    Storm {
        /// PC of the access.
        pc: u64,
        /// The address, if known.
        gva: Option<u64>,
        /// The number of aborts within the guard's period.
        times: usize,
    },
    /// The guest's kernel repeats an unanswered access and does nothing else.
    #[error(
        "the guest's kernel made the same access {times} times at PC {pc:#x} and did nothing else: address {gpa:#x}, {why}. \
         It does not handle the external abort (does its handler return to the access?)"
    )]
    Unanswered {
        /// PC of the access.
        pc: u64,
        /// Guest physical address.
        gpa: u64,
        /// The reason why the access is unanswered.
        why: Unanswered,
        /// The number of accesses.
        times: u32,
    },
    /// Errors come faster than memory can fail: the guest causes them itself, or reads an entire bad range
    /// over and over.
    #[error(
        "the guest took more than {errors} memory errors within {} s: it does not keep away from what it was told is \
         bad", .within.as_secs()
    )]
    Flood {
        /// The allowed number of errors.
        errors: u32,
        /// The period.
        within: Duration,
    },
    /// The vCPU touched memory of the VMM itself that the host knows to be bad.
    #[error("a vCPU touched bad memory at host address {address:#x}, which is not known to be the guest's")]
    NotGuests {
        /// `si_addr`.
        address: u64,
    },
    /// The policy stops the guest for errors of this kind.
    #[error("the policy stops a guest at this kind of error: {0}")]
    Policy(ErrorKind),
    /// The guest hypervisor takes the abort from its own guest, and stock kernels cannot deliver that
    /// soundly.
    #[error(
        "the abort of a nested guest is its hypervisor's to take, and stock kernels cannot be asked for that: with a \
         kernel that has the extended ABI, let the policy replay errors of the kind `nested`"
    )]
    Nested,
}

impl StopReason {
    /// The name for programs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Storm { .. } | Self::Unanswered { .. } => "storm",
            Self::Flood { .. } => "flood",
            Self::NotGuests { .. } => "not-guests",
            Self::Policy(_) => "policy",
            Self::Nested => "nested",
        }
    }
}
