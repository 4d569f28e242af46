//! The errors of a campaign.

use std::io;
use std::path::{Path, PathBuf};

use seawall::ContainError;
use seawall_files::ReadError;

use crate::fdt::FdtError;
use crate::kernel::KernelError;
use crate::layout;
use crate::load::LoadError;

/// Why a guest cannot be made or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read the {what} {}: {source}", .path.display())]
    Read {
        /// What it is for.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// Why.
        source: ReadError,
    },
    /// A file is bigger than the guest's memory.
    #[error(
        "the {what} {} does not fit: it has {}, the guest's memory {memory}; give the guest more memory", .path.display(),
        bytes(*.size)
    )]
    TooBig {
        /// What it is for.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// Bytes, if they are known.
        size: Option<u64>,
        /// Bytes of RAM.
        memory: u64,
    },
    /// A file is no initramfs that Linux could take.
    #[error("{}: expected an initramfs, got {what}", .path.display())]
    NoInitramfs {
        /// Its path.
        path: PathBuf,
        /// What it is, and what to do.
        what: String,
    },
    /// A file is no kernel for this machine.
    #[error("{}: {source}", .path.display())]
    Kernel {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: KernelError,
    },
    /// The guest does not fit into its memory.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The device tree cannot be written.
    #[error(transparent)]
    Fdt(#[from] FdtError),
    /// The tables of ACPI do not fit.
    #[error(transparent)]
    Firmware(#[from] crate::firmware::TooBig),
    /// The record of a memory error cannot be written.
    #[error("the record of a memory error cannot be written: {0}")]
    Record(#[source] seawall::RecordError),
    /// Linux takes no such command line.
    #[error("expected a command line of at most {limit} bytes, got {size}: Linux would cut it off")]
    CommandLine {
        /// Bytes.
        size: usize,
        /// Bytes.
        limit: usize,
    },
    /// No memory of this size can be made.
    #[error(
        "expected a memory size that is a multiple of 2 MiB and that this host has, got {size} bytes: {reason}"
    )]
    Memory {
        /// Bytes.
        size: u64,
        /// Why not.
        reason: String,
    },
    /// So many vCPUs cannot be.
    #[error("expected 1 to {max} vCPUs, got {got}", max = layout::MAX_CPUS)]
    Cpus {
        /// How many were asked for.
        got: u32,
    },
    /// EL2 for a guest on KVM.
    #[error("expected a guest without EL2 on KVM: only the software machine gives its guest EL2")]
    NoEl2,
    /// More devices than there is room for.
    #[error(transparent)]
    TooManyDevices(#[from] crate::board::TooManyDevices),
    /// The interrupt controller has no such input.
    #[error("the interrupt controller has no SPI {0}")]
    NoInterrupt(u32),
    /// KVM failed.
    #[error(transparent)]
    Kvm(#[from] seawall_kvm::Error),
    /// A memory error could not be handled on KVM.
    #[error(transparent)]
    KvmContain(#[from] ContainError<seawall_kvm::Error>),
    /// The software machine failed.
    #[error(transparent)]
    Machine(#[from] seawall_machine::Error),
    /// A snapshot cannot be written or read.
    #[error(transparent)]
    Snapshot(#[from] seawall_machine::SnapshotError),
    /// A snapshot's file holds a machine, but not the devices that this VMM has around it.
    #[error("the snapshot is not one of a guest of this VMM: expected its devices, got something else")]
    NoDevices,
    /// A snapshot is of a machine that is made otherwise.
    #[error("the snapshot is of a machine with {snapshot}, this one has {machine}")]
    OtherMachine {
        /// What the snapshot's has.
        snapshot: String,
        /// What the other has.
        machine: String,
    },
    /// A guest could not be sent.
    #[error(transparent)]
    Send(#[from] seawall::migration::SendError),
    /// A guest did not come.
    #[error(transparent)]
    Receive(#[from] seawall::migration::ReceiveError),
    /// A guest changed hands, or did not.
    #[error(transparent)]
    Handover(#[from] seawall::migration::HandoverError),
    /// A stream holds a guest, but not one of this VMM.
    #[error("the guest is of another VMM, or of another release of this: its state is not known here")]
    OtherVmm,
    /// A memory error could not be handled on the software machine.
    #[error(transparent)]
    MachineContain(#[from] ContainError<seawall_machine::Error>),
    /// No thread can be made for a vCPU.
    #[error("cannot start a vCPU's thread: {0}")]
    Thread(#[source] io::Error),
    /// A vCPU's thread panicked: a defect of this program, or of an observer.
    #[error("a vCPU's thread panicked")]
    Panicked,
}

impl Error {
    /// A guest's file was not read.
    pub(crate) fn reading(what: &'static str, path: &Path, error: ReadError) -> Self {
        let path = path.to_owned();
        match error {
            ReadError::TooBig { got: size, limit: memory } => Self::TooBig { what, path, size, memory },
            source => Self::Read { what, path, source },
        }
    }
}

fn bytes(size: Option<u64>) -> String {
    size.map_or_else(|| "more bytes".to_owned(), |size| format!("{size} bytes"))
}
