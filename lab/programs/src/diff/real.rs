//! The real kernel.

use std::collections::HashMap;

use seawall_arm::{Pstate, Reg, hcr};
use seawall_events::wire::VCPU_EVENTS_SIZE;
use seawall_events::{Abi, VcpuEvents};
use seawall_inject::{Exit, Inject as _, KvmVcpu as _, Vcpu as _};
use seawall_kvm::{Bytes as _, El1, Gic, GuestAddress, GuestMemoryMmap, Kvm, Vcpu, Vm, VmConfig};
use seawall_lab_machine::{PoisonRegister, physical_address};

use super::code::{HIGH, POISON, RAM};
use super::cpu::SCRATCH;
use super::{Code, Guest, Set, Subject};

/// The address of the interrupt controller, which no sequence uses.
const GIC: u64 = 0x4800_0000;

/// `/dev/kvm`, and the memory that all VMs share: it holds the programs, and nobody writes to it.
#[derive(Debug)]
pub struct Host {
    kvm: Kvm,
    memory: GuestMemoryMmap,
    guest: Guest,
    e2h0: bool,
    report: u64,
    probes: Vec<u64>,
    poison: Option<PoisonRegister>,
}

impl Host {
    /// Opens `/dev/kvm`, puts the code into memory, and turns a line bad if this is the lab's machine.
    /// `e2h0`: a virtual EL2 has no E2H (`FEAT_E2H0`); otherwise it always has.
    ///
    /// # Errors
    /// The failure of a call.
    pub fn open(guest: Guest, e2h0: bool, code: &Code) -> Result<Self, Box<dyn std::error::Error>> {
        let regions = [RAM, HIGH].map(|(start, size)| (GuestAddress(start), size as usize));
        let regions = if guest == Guest::Aarch32 { &regions[..] } else { &regions[..1] };
        let memory = GuestMemoryMmap::from_ranges(regions)?;
        for (address, bytes) in code.memory() {
            memory.write_slice(&bytes, GuestAddress(address))?;
        }
        let kvm = Kvm::open()?;
        let mut host = Self {
            kvm,
            memory,
            guest,
            e2h0,
            report: code.report(),
            probes: code.probes().to_vec(),
            poison: None,
        };
        let config = VmConfig { sea_to_user: false, ..host.config(Abi::Mainline) };
        let vm = host.kvm.create_vm(host.memory.clone(), config)?;
        vm.memory().write_slice(&[0; 8], GuestAddress(POISON))?;
        // Without RAS no SEA reaches the host.
        let register = if host.kvm.has_ras() { PoisonRegister::open().ok() } else { None };
        if let Some(mut register) = register {
            register.poison(physical_address(vm.host_address(POISON, 64)? as u64)?, 64)?;
            host.poison = Some(register);
        }
        Ok(host)
    }

    /// Returns true if there is a bad line.
    pub fn has_poison(&self) -> bool {
        self.poison.is_some()
    }

    /// Registers in which a vCPU runs the report at `pc`, which stores to `address`; SErrors are not masked.
    fn quiet(&self, pc: u64, address: u64) -> Vec<(Reg, u64)> {
        let table = self.report;
        let (base, pstate, el2): (u8, u64, &[(Reg, u64)]) = match self.guest {
            Guest::Aarch64 => (28, 0x2c5, &[]),
            Guest::Aarch32 => (7, 0xd3, &[]),
            Guest::Nested => {
                (28, 0x2c9, &[(Reg::HcrEl2, hcr::E2H | hcr::AMO), (Reg::SctlrEl2, 0), (Reg::VbarEl2, table)])
            }
        };
        let rest = [
            (Reg::SctlrEl1, 0),
            (Reg::VbarEl1, table),
            (Reg::X(base), address),
            (Reg::Pc, pc),
            (Reg::Pstate, pstate),
        ];
        el2.iter().copied().chain(rest).collect()
    }

    fn config(&self, abi: Abi) -> VmConfig {
        let el1 = match self.guest {
            Guest::Aarch64 => El1::Aarch64,
            Guest::Aarch32 => El1::Aarch32,
            Guest::Nested if self.e2h0 => El1::BelowEl2E2h0,
            Guest::Nested => El1::BelowEl2,
        };
        VmConfig { abi, el1, sea_to_user: self.kvm.has_sea_to_user(), ..VmConfig::default() }
    }

    /// A vCPU in its own VM.
    ///
    /// # Errors
    /// The failure of a call.
    pub fn subject(&self, abi: Abi) -> Result<Real<'_>, seawall_kvm::Error> {
        let vm = self.kvm.create_vm(self.memory.clone(), self.config(abi))?;
        let vcpu = vm.create_vcpu(0)?;
        let second = vm.create_vcpu(1)?;
        let gic = match self.guest {
            Guest::Nested => Some(vm.create_gic(GIC, GIC + 0x1_0000)?),
            Guest::Aarch64 | Guest::Aarch32 => None,
        };
        let idle = HashMap::new();
        let mut real = Real { host: self, abi, vm, vcpu, second, _gic: gic, powered_on: true, idle };
        real.touch_code()?;
        Ok(real)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(register) = &mut self.poison {
            register.heal_all();
        }
    }
}

/// A vCPU of the kernel.
#[derive(Debug)]
pub struct Real<'a> {
    host: &'a Host,
    abi: Abi,
    vm: Vm,
    vcpu: Vcpu,
    /// A vCPU that only touches pages.
    second: Vcpu,
    /// A vCPU with EL2 does not run without one.
    _gic: Option<Gic>,
    powered_on: bool,
    /// The values of registers that only `set_reg` changes, if everything is correct.
    idle: HashMap<u8, u64>,
}

impl Real<'_> {
    /// Lets the second vCPU fetch from each page of code, so that the host maps it.
    fn touch_code(&mut self) -> Result<(), seawall_kvm::Error> {
        for probe in &self.host.probes {
            self.second.complete_mmio()?;
            for (reg, value) in self.host.quiet(*probe, SCRATCH) {
                self.second.set_reg(reg, value)?;
            }
            self.second.run()?;
        }
        self.second.complete_mmio()
    }

    /// Brings the vCPU to a state in which a pending SError is taken at once, and reported by a store to
    /// `scratch`, like everything else.
    fn drain(&mut self, scratch: u64) -> Result<(), String> {
        if !self.powered_on {
            self.reset()?;
        }
        self.run(true)?;
        // A guest with EL2 may have two pending, one held and one not.
        for _ in 0..2 {
            for (reg, value) in self.host.quiet(self.host.report, scratch) {
                self.set_reg(reg, value)?;
            }
            let exit = self.run(false)?;
            if !matches!(exit, Exit::Mmio(mmio) if mmio.phys_addr == scratch) {
                return Err(format!("expected the report at {scratch:#x} between sequences, got {exit:x?}"));
            }
            self.run(true)?;
            let events = VcpuEvents::from_bytes(Abi::Mainline, &self.events()?);
            if !events.map_err(|why| why.to_string())?.serror_pending {
                return Ok(());
            }
        }
        Err("an SError is still pending between sequences".into())
    }
}

fn described<T>(call: &str, result: Result<T, seawall_kvm::Error>) -> Result<T, String> {
    result.map_err(|error| format!("{call}: {error}"))
}

impl Subject for Real<'_> {
    fn begin(&mut self, fresh: bool, scratch: u64) -> Result<(), String> {
        if fresh {
            *self = described("a new VM", self.host.subject(self.abi))?;
            return Ok(());
        }
        self.drain(scratch)
    }

    fn set_reg(&mut self, reg: Reg, value: u64) -> Result<(), String> {
        match reg {
            Reg::X(n @ (4..=6 | 8..=19 | 21..=27 | 29..=30)) if self.idle.insert(n, value) == Some(value) => {
                return Ok(());
            }
            // KVM narrows registers then.
            Reg::Pstate if value & Pstate::NRW != 0 => self.idle.clear(),
            _ => {}
        }
        described(&format!("set {reg:?} to {value:#x}"), self.vcpu.set_reg(reg, value))
    }

    fn reg(&self, reg: Reg) -> Result<u64, String> {
        described(&format!("get {reg:?}"), self.vcpu.reg(reg))
    }

    /// By mainline's ABI the bytes go to the kernel as they are: its checks are compared, and both requests of one call.
    fn set_events(&mut self, bytes: &[u8; VCPU_EVENTS_SIZE]) -> Set {
        if self.abi == Abi::Mainline {
            let errno = self.vcpu.set_vcpu_events(bytes).err().map_or(0, |errno| errno.0);
            return Set { errno, delivery: None };
        }
        match self.vcpu.set_events_bytes(bytes) {
            Ok(delivery) => Set { errno: 0, delivery: Some(delivery) },
            Err(error) => Set { errno: error.errno().map_or(-1, |errno| errno.0), delivery: None },
        }
    }

    fn events(&self) -> Result<[u8; VCPU_EVENTS_SIZE], String> {
        described("GET", self.vcpu.events_bytes())
    }

    fn answer(&mut self, data: [u8; 8]) {
        self.vcpu.answer_mmio(data);
    }

    fn run(&mut self, immediate: bool) -> Result<Exit, String> {
        self.vcpu.set_immediate_exit(immediate);
        let exit = described("KVM_RUN", self.vcpu.run())?;
        if matches!(exit, Exit::SystemEvent(_)) {
            self.powered_on = false;
        }
        Ok(exit)
    }

    fn reset(&mut self) -> Result<(), String> {
        self.powered_on = true;
        self.idle.clear();
        described("KVM_ARM_VCPU_INIT", self.vcpu.reset(&self.vm))?;
        // PSCI stops every vCPU, and the reset may unmap memory.
        described("KVM_ARM_VCPU_INIT", self.second.reset(&self.vm))?;
        described("touching the code", self.touch_code())
    }
}
