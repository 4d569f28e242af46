//! The options of `seawall-lab-diff`.

use clap::ValueEnum;

/// Compares the model of KVM/arm64's external aborts with the kernel that this runs on.
#[derive(Debug, clap::Parser)]
#[command(name = "seawall-lab-diff", version)]
pub struct Diff {
    /// Seed of every sequence
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Number of sequences
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub sequences: u64,
    /// Number of the first sequence
    #[arg(long, default_value_t = 0)]
    pub from: u64,
    /// Kind of the vCPUs
    #[arg(long, value_enum, default_value_t = GuestArg::Aarch64)]
    pub guest: GuestArg,
    /// ABI of the VM; both in turn by default
    #[arg(long, value_enum)]
    pub abi: Option<AbiArg>,
    /// Part of the sequences to run; everything by default
    #[arg(long, value_enum)]
    pub only: Option<OnlyArg>,
    /// Print the sequences
    #[arg(long)]
    pub verbose: bool,
}

/// The kind of the vCPUs.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum GuestArg {
    /// AArch64 at EL1 and EL0
    Aarch64,
    /// AArch32 at EL1 and EL0
    Aarch32,
    /// A virtual EL2, HCR_EL2.E2H is 1
    Nested,
    /// A virtual EL2, HCR_EL2.E2H is 0
    NestedE2h0,
}

/// The ABI of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AbiArg {
    /// The kernel itself
    Mainline,
    /// Assisted injection
    Extended,
}

/// A part of the sequences.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum OnlyArg {
    /// KVM_SET_VCPU_EVENTS and registers, no run of the guest
    Events,
    /// No SErrors
    Aborts,
    /// No aborts
    Serrors,
}
