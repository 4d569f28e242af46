//! A vCPU of a VM with a page of memory, by raw ioctls.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::sync::LazyLock;

use crate::bytes::Events;
use crate::raw::{self, Answer, Pages};
use crate::report::{Not, Outcome, expect};

/// Guest physical address of the memory; 64 KiB of it.
pub(crate) const RAM: u64 = 0x4000_0000;
const RAM_SIZE: usize = 0x1_0000;
/// The guests' code and vectors.
pub(crate) const PC: u64 = RAM;
pub(crate) const VBAR: u64 = RAM + 0x800;
/// An empty address.
pub(crate) const HOLE: u64 = 0x5000_0000;

/// ONE_REG ids (Documentation/virt/kvm/api.rst, 4.68).
pub(crate) mod reg {
    const CORE: u64 = 0x6030_0000_0010_0000;
    const SYSREG: u64 = 0x6030_0000_0013_0000;
    pub(crate) const fn x(n: u64) -> u64 {
        CORE + 2 * n
    }
    pub(crate) const PC: u64 = CORE + 0x40;
    pub(crate) const PSTATE: u64 = CORE + 0x42;
    pub(crate) const ELR: u64 = CORE + 0x46;
    pub(crate) const ESR: u64 = SYSREG + 0xc290;
    pub(crate) const FAR: u64 = SYSREG + 0xc300;
    pub(crate) const VBAR: u64 = SYSREG + 0xc600;
    pub(crate) const HCR_EL2: u64 = SYSREG + 0xe088;
    pub(crate) const ELR_EL2: u64 = SYSREG + 0xe201;
    pub(crate) const IFSR32: u64 = SYSREG + 0xe281;
    pub(crate) const ESR_EL2: u64 = SYSREG + 0xe290;
    pub(crate) const VBAR_EL2: u64 = SYSREG + 0xe600;
}

/// `KVM_ARM_VCPU_INIT` features, and the capabilities that announce them.
pub(crate) const EL1_32BIT: u32 = 1 << 1;
pub(crate) const PSCI_0_2: u32 = 1 << 2;
pub(crate) const HAS_EL2: u32 = 1 << 7;
pub(crate) const KVM_CAP_ARM_EL1_32BIT: u32 = 93;
pub(crate) const KVM_CAP_ARM_EL2: u32 = 240;
pub(crate) const KVM_CAP_ARM_SEA_TO_USER: u32 = 245;

static KVM: LazyLock<Result<File, String>> = LazyLock::new(|| {
    let opened = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    opened.map_err(|error| format!("cannot open /dev/kvm: {error}"))
});

/// `/dev/kvm`.
pub(crate) fn kvm() -> Result<RawFd, Not> {
    KVM.as_ref().map(File::as_raw_fd).map_err(|why| Not::Passed(why.clone()))
}

/// Skips the case if the host lacks a capability.
pub(crate) fn need(capability: u32, name: &str) -> Outcome {
    match raw::by_value(kvm()?, raw::KVM_CHECK_EXTENSION, capability.into()) {
        Ok(0) => Err(Not::Run(format!("this host has no {name}"))),
        Ok(_) => Ok(()),
        Err(errno) => Err(Not::Passed(format!("KVM_CHECK_EXTENSION: errno {errno}"))),
    }
}

/// Names the call that failed.
pub(crate) fn failed(call: &'static str) -> impl Fn(i32) -> Not {
    move |errno| Not::Passed(format!("{call}: errno {errno}"))
}

pub(crate) struct Vm {
    pub(crate) fd: OwnedFd,
    pub(crate) memory: Pages,
}

impl Vm {
    pub(crate) fn new() -> Result<Self, Not> {
        let fd = raw::create_vm(kvm()?).map_err(failed("KVM_CREATE_VM"))?;
        let memory = Pages::new(RAM_SIZE).map_err(failed("mmap"))?;
        raw::set_memory(fd.as_raw_fd(), RAM, &memory).map_err(failed("KVM_SET_USER_MEMORY_REGION"))?;
        Ok(Self { fd, memory })
    }

    /// Puts instructions at an offset of the memory.
    pub(crate) fn code(&self, offset: usize, words: &[u32]) {
        for (n, word) in words.iter().enumerate() {
            self.memory.write_u32(offset + 4 * n, *word);
        }
    }

    pub(crate) fn uninitialised(&self, index: u64) -> Result<Vcpu, Not> {
        let fd = raw::create_vcpu(self.fd.as_raw_fd(), index).map_err(failed("KVM_CREATE_VCPU"))?;
        let run = Pages::of_vcpu(kvm()?, fd.as_raw_fd()).map_err(failed("mmap of the vCPU"))?;
        Ok(Vcpu { fd, run })
    }

    pub(crate) fn vcpu(&self, index: u64, features: u32) -> Result<Vcpu, Not> {
        let vcpu = self.uninitialised(index)?;
        raw::init(self.fd.as_raw_fd(), vcpu.fd(), PSCI_0_2 | features)
            .map_err(failed("KVM_ARM_VCPU_INIT"))?;
        Ok(vcpu)
    }
}

pub(crate) struct Vcpu {
    pub(crate) fd: OwnedFd,
    run: Pages,
}

/// A vCPU in its own VM, at EL1h, about to fetch from [`PC`].
pub(crate) fn at_el1() -> Result<(Vm, Vcpu), Not> {
    let vm = Vm::new()?;
    let vcpu = vm.vcpu(0, 0)?;
    vcpu.put(0x3c5)?;
    Ok((vm, vcpu))
}

impl Vcpu {
    pub(crate) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// PC, VBAR, no abort so far, and this PSTATE.
    pub(crate) fn put(&self, pstate: u64) -> Outcome {
        self.write(&[(reg::PSTATE, pstate), (reg::PC, PC), (reg::VBAR, VBAR), (reg::ESR, 0), (reg::FAR, 0)])
    }

    pub(crate) fn write(&self, regs: &[(u64, u64)]) -> Outcome {
        for (id, value) in regs {
            raw::set_reg(self.fd(), *id, *value)
                .map_err(|errno| format!("KVM_SET_ONE_REG {id:#x} = {value:#x}: errno {errno}"))?;
        }
        Ok(())
    }

    pub(crate) fn read(&self, id: u64) -> Result<u64, Not> {
        raw::get_reg(self.fd(), id).map_err(|errno| format!("KVM_GET_ONE_REG {id:#x}: errno {errno}").into())
    }

    pub(crate) fn expect(&self, regs: &[(&str, u64, u64)]) -> Outcome {
        regs.iter().try_for_each(|(name, id, expected)| expect(name, self.read(*id)?, *expected))
    }

    pub(crate) fn set_events(&self, events: Events) -> Answer {
        raw::set_events_at(self.fd(), events.0.as_ptr() as u64)
    }

    pub(crate) fn get_events(&self) -> Result<Events, Not> {
        raw::get_events(self.fd()).map(Events).map_err(failed("KVM_GET_VCPU_EVENTS"))
    }

    /// Runs to the next exit, and returns its reason.
    pub(crate) fn run(&self) -> Result<u32, Not> {
        raw::run(self.fd()).map_err(failed("KVM_RUN"))?;
        Ok(self.run.read_u32(0x08))
    }

    /// A word of the exit, by its offset in `struct kvm_run`.
    pub(crate) fn exit_word(&self, offset: usize) -> u64 {
        self.run.read_u64(offset)
    }
}
