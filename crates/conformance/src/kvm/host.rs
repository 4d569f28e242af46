//! `/dev/kvm` itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use seawall_arm::sysreg;
use seawall_events::wire::{VCPU_EVENTS_SIZE, system_reg_id};
use seawall_events::{Reg, VcpuEvents};
use seawall_inject::{Delivery, Exit, Inject, KvmVcpu as _, Vcpu as _, VcpuTraits};
use seawall_kvm::{Bytes as _, Gic, GuestAddress, GuestMemoryMmap, Kvm, Vcpu, Vm, VmConfig, Way};
use seawall_lab_machine::{PoisonRegister, hole, physical_address, set_events_unreadable};
use vmm_sys_util::signal::{Killable as _, SIGRTMIN, register_signal_handler};

use crate::backend::{Backend, Capability, El1, Error, HOST_HOLE, Interrupt, RAM, RAM_SIZE, Setup, TestVm};

/// `KVM_CAP_ARM_EL1_32BIT`.
const KVM_CAP_ARM_EL1_32BIT: u32 = 93;
/// `KVM_CAP_ARM_EL2`.
const KVM_CAP_ARM_EL2: u32 = 240;
/// Guest physical addresses of a GIC, as on QEMU's `virt`.
const DISTRIBUTOR: u64 = 0x0800_0000;
const REDISTRIBUTOR: u64 = 0x080a_0000;
/// The number of interrupted runs that count as a while.
const WHILE: usize = 3;
/// Size of a line that goes bad, bytes.
const LINE: u64 = 64;
/// Size of a page that the host knows to be bad, bytes.
const PAGE: u64 = 0x1000;

/// The poison register, which VMs share, or the reason why it is missing.
type Poison = Result<Arc<Mutex<PoisonRegister>>, String>;

/// The host.
pub(super) struct Host {
    kvm: Kvm,
    poison: Poison,
    hwpoison: Result<(), String>,
    cpu: Cpu,
    /// The kernel speaks the extended ABI itself.
    is_native: bool,
}

/// The features of a vCPU.
struct Cpu {
    /// True if EL0 can be in AArch32 state.
    aarch32_el0: bool,
    bti: bool,
    /// True if it has SCTLR2_EL1, with FEAT_DoubleFault2.
    sctlr2: bool,
}

extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

impl Host {
    /// Opens `/dev/kvm` and finds the features of a vCPU.
    pub(super) fn open() -> Result<Self, Error> {
        let kvm = Kvm::open()?;
        // The arrival of a signal ends a run; nothing else is left to do.
        register_signal_handler(SIGRTMIN(), nothing)
            .map_err(|error| Error::Other(format!("sigaction(SIGRTMIN): {error}")))?;
        let plain = VmConfig { sea_to_user: false, nisv_to_user: false, ..VmConfig::default() };
        let vm = kvm.create_vm(ram()?, plain)?;
        let cpu = Cpu::of(&vm.create_vcpu(0)?)?;
        let poison = match PoisonRegister::open() {
            Ok(register) if kvm.has_sea_to_user() => Ok(Arc::new(Mutex::new(register))),
            Ok(_) if !kvm.has_ras() => {
                Err("this host has no RAS, without which there are no SEA exits".into())
            }
            Ok(_) => Err("this kernel has no KVM_CAP_ARM_SEA_TO_USER; expected Linux 6.19 or newer".into()),
            Err(error) => Err(error.to_string()),
        };
        let is_native = kvm.way()? != Way::Assisted;
        Ok(Self { hwpoison: can_hwpoison(&vm), kvm, poison, cpu, is_native })
    }
}

impl Cpu {
    fn of(vcpu: &Vcpu) -> Result<Self, Error> {
        let field = |register, shift: u32| -> Result<u64, Error> {
            let name = || sysreg::name(register).unwrap_or("a system register");
            let register = vcpu.get_one_reg(system_reg_id(register));
            let register = register.map_err(|errno| Error::Other(format!("ONE_REG {}: {errno}", name())))?;
            Ok(register >> shift & 0xf)
        };
        Ok(Self {
            aarch32_el0: field(sysreg::ID_AA64PFR0_EL1, 0)? == 2,
            bti: field(sysreg::ID_AA64PFR1_EL1, 0)? != 0,
            sctlr2: field(sysreg::ID_AA64MMFR3_EL1, 4)? != 0 && field(sysreg::ID_AA64PFR1_EL1, 56)? != 0,
        })
    }
}

fn ram() -> Result<GuestMemoryMmap, Error> {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(RAM), RAM_SIZE as usize)])
        .map_err(|error| Error::Other(format!("guest memory: {error}")))
}

/// Checks that the kernel supports `madvise(MADV_HWPOISON)`, by an empty range.
fn can_hwpoison(vm: &Vm) -> Result<(), String> {
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0);
    if effective & CAP_SYS_ADMIN == 0 {
        return Err("MADV_HWPOISON needs root (CAP_SYS_ADMIN)".into());
    }
    if seawall_host::page_size() != PAGE {
        return Err("the host's pages are not of 4 KiB, as the scenarios take them to be".into());
    }
    vm.hwpoison(RAM, 0).map_err(|error| format!("the kernel has no CONFIG_MEMORY_FAILURE: {error}"))
}

/// Success for a capability that is there, or the reason for its absence.
fn either(there: bool, reason: &str) -> Result<(), String> {
    if there { Ok(()) } else { Err(reason.to_owned()) }
}

impl Backend for Host {
    fn name(&self) -> &'static str {
        "kvm"
    }

    fn offers(&self, capability: Capability) -> Result<(), String> {
        let extension = |number| self.kvm.check_extension(number) > 0;
        match capability {
            Capability::Ras => either(self.kvm.has_ras(), "this host has no RAS"),
            Capability::NoRas => either(!self.kvm.has_ras(), "this host has RAS"),
            Capability::Sctlr2 => either(
                self.cpu.sctlr2,
                "this CPU has no SCTLR2_EL1 with EASE (FEAT_SCTLR2, FEAT_DoubleFault2)",
            ),
            Capability::Bti => either(self.cpu.bti, "this CPU has no FEAT_BTI"),
            Capability::Aarch32El0 => either(self.cpu.aarch32_el0, "this CPU has no AArch32 at EL0"),
            Capability::Aarch32El1 => {
                either(extension(KVM_CAP_ARM_EL1_32BIT), "this CPU has no AArch32 at EL1 (lab: --cpu max)")
            }
            Capability::El2 => either(
                extension(KVM_CAP_ARM_EL2),
                "no nested virtualisation; expected FEAT_NV2 and kvm-arm.mode=nested (lab: --cpu max)",
            ),
            Capability::RouteToEl2 => either(self.is_native, "not tried: Linux 7.2 does not do it soundly"),
            Capability::Poison => self.poison.as_ref().map(|_| ()).map_err(Clone::clone),
            Capability::PoisonAbortsStores | Capability::PoisonKeepsStores => {
                Err("the lab's bad lines drop what is stored to them".into())
            }
            Capability::HwPoison => self.hwpoison.clone(),
            Capability::HostHole => self.poison.as_ref().map(|_| ()).map_err(Clone::clone),
            Capability::UninitialisedVcpu | Capability::UnreadableEvents => Ok(()),
        }
    }

    fn create(&self, setup: &Setup, interrupt: Arc<Interrupt>) -> Result<Box<dyn TestVm>, Error> {
        let config = VmConfig {
            abi: setup.abi,
            // Without it there is no poison either.
            sea_to_user: setup.sea_to_user && self.kvm.has_sea_to_user(),
            nisv_to_user: setup.nisv_to_user,
            el1: match setup.el1 {
                El1::Aarch64 => seawall_kvm::El1::Aarch64,
                El1::Aarch32 => seawall_kvm::El1::Aarch32,
                El1::BelowEl2 => seawall_kvm::El1::BelowEl2,
            },
            catch_sigbus: true,
        };
        let mut memory = ram()?;
        if setup.host_hole {
            let hole = Arc::new(hole(HOST_HOLE)?);
            memory = memory
                .insert_region(hole)
                .map_err(|error| Error::Other(format!("a hole in guest memory: {error}")))?;
        }
        let vm = self.kvm.create_vm(memory, config)?;
        let vcpu = if setup.initialised { vm.create_vcpu(0)? } else { vm.create_uninitialised_vcpu(0)? };
        // KVM does not run a virtual EL2 without a GIC.
        let gic =
            if setup.el1 == El1::BelowEl2 { Some(vm.create_gic(DISTRIBUTOR, REDISTRIBUTOR)?) } else { None };
        let poison = self.poison.clone();
        Ok(Box::new(KvmVm { vcpu, _gic: gic, vm, interrupt, poison, bad: Vec::new() }))
    }

    fn kick(&self, thread: &JoinHandle<()>) {
        // A thread that has ended needs no kick.
        let _ = thread.kill(SIGRTMIN());
    }
}

struct KvmVm {
    vcpu: Vcpu,
    _gic: Option<Gic>,
    vm: Vm,
    interrupt: Arc<Interrupt>,
    poison: Poison,
    /// Host physical addresses of lines that we turned bad.
    bad: Vec<u64>,
}

impl KvmVm {
    fn register(&self) -> Result<Arc<Mutex<PoisonRegister>>, Error> {
        self.poison.clone().map_err(Error::Other)
    }

    /// Host physical address of the line at `gpa`.
    fn line(&self, gpa: u64) -> Result<u64, Error> {
        let line = gpa & !(LINE - 1);
        Ok(physical_address(self.vm.host_address(line, LINE)? as u64)?)
    }
}

/// Heals the memory, because only good memory may go back to the host.
impl Drop for KvmVm {
    fn drop(&mut self) {
        if let Ok(register) = &self.poison {
            let mut register = register.lock().unwrap_or_else(PoisonError::into_inner);
            self.bad.iter().for_each(|line| register.heal(*line));
        }
    }
}

impl From<seawall_kvm::Error> for Error {
    fn from(error: seawall_kvm::Error) -> Self {
        match error.errno() {
            Some(errno) => Self::Errno { number: errno.0, text: error.to_string() },
            None => Self::Other(error.to_string()),
        }
    }
}

impl From<seawall_lab_machine::Error> for Error {
    fn from(error: seawall_lab_machine::Error) -> Self {
        Self::Other(error.to_string())
    }
}

impl Inject for KvmVm {
    type Error = Error;

    fn traits(&self) -> VcpuTraits {
        self.vcpu.traits()
    }

    fn reg(&self, reg: Reg) -> Result<u64, Error> {
        Ok(self.vcpu.reg(reg)?)
    }

    fn set_reg(&mut self, reg: Reg, value: u64) -> Result<(), Error> {
        Ok(self.vcpu.set_reg(reg, value)?)
    }

    fn inject(&mut self, events: &VcpuEvents) -> Result<Delivery, Error> {
        Ok(self.vcpu.inject(events)?)
    }
}

impl seawall_inject::Vcpu for KvmVm {
    /// An interrupt that nobody waits for, such as a late kick, does not concern the guest.
    fn run(&mut self) -> Result<Exit, Error> {
        loop {
            match self.vcpu.run()? {
                Exit::Intr if !self.interrupt.is_expired() => {}
                exit => return Ok(exit),
            }
        }
    }

    fn answer_mmio(&mut self, data: [u8; 8]) {
        self.vcpu.answer_mmio(data);
    }
}

impl TestVm for KvmVm {
    fn events(&self) -> Result<VcpuEvents, Error> {
        Ok(self.vcpu.events()?)
    }

    fn set_events_bytes(&mut self, bytes: &[u8; VCPU_EVENTS_SIZE]) -> Result<Delivery, Error> {
        Ok(self.vcpu.set_events_bytes(bytes)?)
    }

    fn set_events_unreadable(&mut self) -> Result<(), Error> {
        let refused = |error: std::io::Error| Error::Errno {
            number: error.raw_os_error().unwrap_or(0),
            text: format!("KVM_SET_VCPU_EVENTS failed: {error}"),
        };
        set_events_unreadable(&self.vcpu).map_err(refused)
    }

    fn events_bytes(&mut self) -> Result<[u8; VCPU_EVENTS_SIZE], Error> {
        Ok(self.vcpu.events_bytes()?)
    }

    fn run_at_once(&mut self) -> Result<Exit, Error> {
        self.vcpu.set_immediate_exit(true);
        let exit = self.vcpu.run();
        self.vcpu.set_immediate_exit(false);
        Ok(exit?)
    }

    fn run_for_a_while(&mut self) -> Result<Exit, Error> {
        self.interrupt.want(true);
        let mut last = self.vcpu.run();
        // The first kick may come before the guest did anything.
        for _ in 1..WHILE {
            if matches!(last, Ok(Exit::Intr)) {
                last = self.vcpu.run();
            }
        }
        self.interrupt.want(false);
        Ok(last?)
    }

    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), Error> {
        let read = self.vm.memory().read_slice(bytes, GuestAddress(gpa));
        read.map_err(|error| Error::Other(format!("guest memory at {gpa:#x}: {error}")))
    }

    fn write(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), Error> {
        let written = self.vm.memory().write_slice(bytes, GuestAddress(gpa));
        written.map_err(|error| Error::Other(format!("guest memory at {gpa:#x}: {error}")))
    }

    fn poison(&mut self, gpa: u64) -> Result<(), Error> {
        // A page that was never written is a page of zeros that the whole host shares.
        let mut byte = [0];
        self.read(gpa, &mut byte)?;
        self.write(gpa, &byte)?;
        let line = self.line(gpa)?;
        let register = self.register()?;
        register.lock().unwrap_or_else(PoisonError::into_inner).poison(line, LINE)?;
        self.bad.push(line);
        Ok(())
    }

    fn heal(&mut self, gpa: u64) -> Result<(), Error> {
        let line = self.line(gpa)?;
        let register = self.register()?;
        register.lock().unwrap_or_else(PoisonError::into_inner).heal(line);
        self.bad.retain(|bad| *bad != line);
        Ok(())
    }

    fn hwpoison(&mut self, gpa: u64) -> Result<(), Error> {
        Ok(self.vm.hwpoison(gpa & !(PAGE - 1), PAGE)?)
    }

    fn remap(&mut self, gpa: u64) -> Result<(), Error> {
        self.vm.heal(gpa & !(PAGE - 1), PAGE)?;
        Ok(())
    }

    fn host_address(&self, gpa: u64) -> Result<u64, Error> {
        Ok(self.vm.host_address(gpa, 1)? as u64)
    }
}
