//! The guest: it loads from a bad line, its handler reports to a device and returns to the load.

use std::error::Error;

use seawall::apei::ghes::GhesRegion;
use seawall_events::{Reg, SeaExit};
use seawall_inject::{Exit, Inject as _, Vcpu as _};
use seawall_kvm::{Bytes as _, GuestAddress, GuestMemoryMmap, Kvm, Vcpu, Vm, VmConfig};
use seawall_lab_machine::{PoisonRegister, physical_address};

const RAM: u64 = 0x4000_0000;
const SIZE: usize = 1 << 20;
pub(crate) const VECTORS: u64 = RAM + 0x1000;
pub(crate) const LOAD: u64 = RAM + 0x2000;
const REPORT: u64 = RAM + 0x3000;
/// A page with a line of bad memory.
pub(crate) const BAD_LINE: u64 = RAM + 0x4000;
/// A page that the host knows to be bad.
const BAD_PAGE: u64 = RAM + 0x5000;
/// A source of errors.
pub(crate) const SOURCE: GhesRegion = GhesRegion { base: RAM + 0x6000, sea: 1, polled: 0, poll_interval: 0 };
/// An address without memory: the VMM handles an access.
const DEVICE: u64 = 0x0900_0000;

/// EL1h, everything masked.
pub(crate) const PSTATE: u64 = 0x3c5;

/// A VM with bad memory, and its vCPU.
pub(crate) struct Guest {
    pub(crate) vm: Vm,
    pub(crate) vcpu: Vcpu,
    register: PoisonRegister,
    bad: u64,
}

impl Guest {
    pub(crate) fn new() -> Result<Self, Box<dyn Error>> {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(RAM), SIZE)])?;
        let vm = Kvm::open()?.create_vm(memory, VmConfig::default())?;
        let code: [(u64, &[u32]); 3] = [
            // mrs x0, esr_el1; str x0, [x2]; eret
            (VECTORS + 0x200, &[0xd538_5200, 0xf900_0040, 0xd69f_03e0]),
            // ldr x3, [x1]
            (LOAD, &[0xf940_0023]),
            // str x0, [x2]; b .-4
            (REPORT, &[0xf900_0040, 0x17ff_ffff]),
        ];
        for (address, words) in code {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            vm.memory().write_slice(&bytes, GuestAddress(address))?;
        }
        for page in [BAD_LINE, BAD_PAGE] {
            vm.memory().write_slice(&[1], GuestAddress(page))?;
        }
        let mut vcpu = vm.create_vcpu(0)?;
        vcpu.set_reg(Reg::VbarEl1, VECTORS)?;
        vcpu.set_reg(Reg::X(2), DEVICE)?;
        let mut register = PoisonRegister::open()?;
        let bad = physical_address(vm.host_address(BAD_LINE, 64)? as u64)?;
        register.poison(bad, 64)?;
        Ok(Self { vm, vcpu, register, bad })
    }

    /// Puts the guest before its load, with this in `ESR_EL1`.
    pub(crate) fn at_the_load(&mut self, esr: u64) -> Result<(), seawall_kvm::Error> {
        for (reg, value) in [(Reg::Pc, LOAD), (Reg::Pstate, PSTATE), (Reg::EsrEl1, esr)] {
            self.vcpu.set_reg(reg, value)?;
        }
        Ok(())
    }

    /// Loads from the bad line, until the SEA exit.
    pub(crate) fn consume(&mut self) -> Result<SeaExit, Box<dyn Error>> {
        self.at_the_load(0)?;
        self.vcpu.set_reg(Reg::X(1), BAD_LINE)?;
        match self.vcpu.run()? {
            Exit::Sea(sea) => Ok(sea),
            other => Err(unexpected("a SEA exit", &other)),
        }
    }

    /// Loads from the page that the host knows to be bad, until SIGBUS.
    pub(crate) fn touch_the_bad_page(&mut self) -> Result<(), Box<dyn Error>> {
        self.vm.hwpoison(BAD_PAGE, 0x1000)?;
        self.at_the_load(0)?;
        self.vcpu.set_reg(Reg::X(1), BAD_PAGE)?;
        match self.vcpu.run()? {
            Exit::Sigbus(sigbus) if sigbus.action_required => Ok(()),
            other => Err(unexpected("SIGBUS", &other)),
        }
    }

    /// Changes the program: from now on, each run is one store to the device.
    pub(crate) fn at_the_reports(&mut self) -> Result<(), Box<dyn Error>> {
        self.vcpu.set_reg(Reg::Pc, REPORT)?;
        self.vcpu.set_reg(Reg::Pstate, PSTATE)?;
        self.report()
    }

    /// Runs to the next store to the device.
    pub(crate) fn report(&mut self) -> Result<(), Box<dyn Error>> {
        match self.vcpu.run()? {
            Exit::Mmio(mmio) if mmio.is_write && mmio.phys_addr == DEVICE => Ok(()),
            other => Err(unexpected("a store to the device", &other)),
        }
    }

    /// Completes the store of the last exit.
    pub(crate) fn finish_the_store(&mut self) -> Result<(), Box<dyn Error>> {
        self.vcpu.set_immediate_exit(true);
        let exit = self.vcpu.run();
        self.vcpu.set_immediate_exit(false);
        match exit? {
            Exit::Intr => Ok(()),
            other => Err(unexpected("an interrupted run", &other)),
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.register.heal(self.bad);
    }
}

/// An error with the expectation and the finding.
pub(crate) fn unexpected(expected: &str, found: &impl std::fmt::Debug) -> Box<dyn Error> {
    format!("expected {expected}, got {found:x?}").into()
}
