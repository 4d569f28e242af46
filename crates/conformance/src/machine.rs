//! The software machine as a backend.

use std::cell::RefCell;
use std::sync::Arc;
use std::thread::JoinHandle;

use seawall_events::wire::VCPU_EVENTS_SIZE;
use seawall_events::{Reg, VcpuEvents};
use seawall_inject::{Delivery, Exit, GuestKind, Inject, Vcpu, VcpuTraits};
use seawall_machine::{Config, NoSyndrome, StorePolicy, Vm};

use crate::backend::{Backend, Capability, El1, Error, Interrupt, RAM_SIZE, Setup, TestVm};

/// Steps after which a guest counts as hung.
const BUDGET: u64 = 1_000_000;
/// Steps of a run that is interrupted after a while.
const WHILE: u64 = 1_000;

/// The software machine. Its guests are bounded by a budget of instructions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Machine;

impl Backend for Machine {
    fn name(&self) -> &'static str {
        "machine"
    }

    fn offers(&self, capability: Capability) -> Result<(), String> {
        let reason = match capability {
            Capability::Ras
            | Capability::NoRas
            | Capability::Bti
            | Capability::Poison
            | Capability::PoisonAbortsStores
            | Capability::PoisonKeepsStores => return Ok(()),
            Capability::Sctlr2 => "the machine's CPU has no SCTLR2_EL1 (FEAT_SCTLR2, FEAT_DoubleFault2)",
            Capability::Aarch32El0 | Capability::Aarch32El1 => "the machine's CPU has no AArch32 state",
            Capability::El2 | Capability::RouteToEl2 => "the machine has no EL2: the host plays it",
            Capability::HwPoison => "the machine's memory has no host pages that SIGBUS could tell of",
            Capability::HostHole => "the machine's memory has no host page behind which nothing answers",
            Capability::UninitialisedVcpu => "the machine's vCPUs are initialised when they are made",
            Capability::UnreadableEvents => "the machine's call takes bytes, not an address",
        };
        Err(reason.to_owned())
    }

    fn create(&self, setup: &Setup, _interrupt: Arc<Interrupt>) -> Result<Box<dyn TestVm>, Error> {
        if setup.el1 != El1::Aarch64 || setup.host_hole || !setup.initialised {
            return Err(Error::Other(format!("the machine cannot be made with {setup:?}")));
        }
        let config = Config {
            memory_size: RAM_SIZE,
            abi: setup.abi,
            ras: setup.ras,
            sea_to_user: setup.sea_to_user,
            no_syndrome: if setup.nisv_to_user { NoSyndrome::Exit } else { NoSyndrome::Fail },
            store_policy: if setup.stores_abort { StorePolicy::Abort } else { StorePolicy::Defer },
            ..Config::default()
        };
        Ok(Box::new(MachineVm { vm: RefCell::new(Vm::new(config)?) }))
    }

    fn kick(&self, _thread: &JoinHandle<()>) {}
}

/// The machine's CPUs are reached through `&mut Vm`, although reading a register changes nothing.
struct MachineVm {
    vm: RefCell<Vm>,
}

impl MachineVm {
    fn run_for(&mut self, steps: u64) -> Result<Exit, Error> {
        let mut vcpu = self.vm.get_mut().vcpu(0)?;
        vcpu.set_budget(Some(steps));
        Ok(vcpu.run()?)
    }
}

impl From<seawall_machine::Error> for Error {
    fn from(error: seawall_machine::Error) -> Self {
        const ENOENT: i32 = 2;
        const EINVAL: i32 = 22;
        const ENOSYS: i32 = 38;
        let number = match &error {
            seawall_machine::Error::Events(refused) => refused.refusal.errno().number(),
            seawall_machine::Error::NoRegister(_) => ENOENT,
            seawall_machine::Error::Mode(_) => EINVAL,
            seawall_machine::Error::NoSyndrome { .. } => ENOSYS,
            _ => return Self::Other(error.to_string()),
        };
        Self::Errno { number, text: error.to_string() }
    }
}

impl From<seawall_machine::memory::MemoryError> for Error {
    fn from(error: seawall_machine::memory::MemoryError) -> Self {
        Self::Other(error.to_string())
    }
}

fn not_there(what: &str) -> Error {
    Error::Other(format!("the machine has no {what}"))
}

impl Inject for MachineVm {
    type Error = Error;

    fn traits(&self) -> VcpuTraits {
        let Config { ras, abi, .. } = *self.vm.borrow().config();
        VcpuTraits { guest: GuestKind::Aarch64, ras, abi }
    }

    fn reg(&self, reg: Reg) -> Result<u64, Error> {
        Ok(self.vm.borrow_mut().vcpu(0)?.reg(reg)?)
    }

    fn set_reg(&mut self, reg: Reg, value: u64) -> Result<(), Error> {
        Ok(self.vm.get_mut().vcpu(0)?.set_reg(reg, value)?)
    }

    fn inject(&mut self, events: &VcpuEvents) -> Result<Delivery, Error> {
        Ok(self.vm.get_mut().vcpu(0)?.inject(events)?)
    }
}

impl Vcpu for MachineVm {
    fn run(&mut self) -> Result<Exit, Error> {
        self.run_for(BUDGET)
    }

    fn answer_mmio(&mut self, data: [u8; 8]) {
        if let Ok(mut vcpu) = self.vm.get_mut().vcpu(0) {
            vcpu.answer_mmio(data);
        }
    }
}

impl TestVm for MachineVm {
    fn events(&self) -> Result<VcpuEvents, Error> {
        Ok(self.vm.borrow_mut().vcpu(0)?.events()?)
    }

    fn set_events_bytes(&mut self, bytes: &[u8; VCPU_EVENTS_SIZE]) -> Result<Delivery, Error> {
        Ok(self.vm.get_mut().vcpu(0)?.set_events_bytes(bytes)?)
    }

    fn set_events_unreadable(&mut self) -> Result<(), Error> {
        Err(not_there("call that takes an address"))
    }

    fn events_bytes(&mut self) -> Result<[u8; VCPU_EVENTS_SIZE], Error> {
        Ok(self.vm.get_mut().vcpu(0)?.events_bytes()?)
    }

    fn run_at_once(&mut self) -> Result<Exit, Error> {
        self.run_for(0)
    }

    fn run_for_a_while(&mut self) -> Result<Exit, Error> {
        self.run_for(WHILE)
    }

    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), Error> {
        Ok(self.vm.borrow().memory().load(gpa, bytes)?)
    }

    fn write(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), Error> {
        Ok(self.vm.get_mut().memory_mut().store(gpa, bytes)?)
    }

    fn poison(&mut self, gpa: u64) -> Result<(), Error> {
        self.vm.get_mut().poison(gpa..gpa + 1)?;
        Ok(())
    }

    fn heal(&mut self, gpa: u64) -> Result<(), Error> {
        self.vm.get_mut().heal(gpa..gpa + 1)?;
        Ok(())
    }

    fn hwpoison(&mut self, _gpa: u64) -> Result<(), Error> {
        Err(not_there("host pages"))
    }

    fn remap(&mut self, _gpa: u64) -> Result<(), Error> {
        Err(not_there("host pages"))
    }

    fn host_address(&self, _gpa: u64) -> Result<u64, Error> {
        Err(not_there("host pages"))
    }
}
