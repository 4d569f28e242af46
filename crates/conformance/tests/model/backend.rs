//! The model as a backend.

use std::sync::Arc;
use std::thread::JoinHandle;

use seawall_conformance::{Backend, Capability, El1, Error, Interrupt, Setup, TestVm};
use seawall_events::kernel::{VcpuConfig, get_events, get_events_bytes, set_events, set_events_bytes};
use seawall_events::{Abi, Reg, Registers, VcpuEvents};
use seawall_inject::{Delivery, Exit, GuestKind, Inject, InjectError, Last, VcpuTraits, Way};
use seawall_model::Kernel;

use crate::cpu::Cpu;
use crate::step;

/// Steps after which a guest counts as hung.
const BUDGET: usize = 1000;

/// The model; its extended ABI is its own, or that of [`Injector`](seawall_inject::Injector) over a kernel
/// with this way to it.
#[derive(Clone, Copy)]
pub(crate) struct Model(pub(crate) Option<Way>);

pub(crate) struct ModelVm {
    cpu: Cpu,
    setup: Setup,
    way: Option<Way>,
}

impl Backend for Model {
    fn name(&self) -> &'static str {
        "model"
    }

    fn offers(&self, capability: Capability) -> Result<(), String> {
        match (capability, self.0) {
            (Capability::Aarch32El0, _) => Err("the model runs A32 at EL1 only".into()),
            (Capability::RouteToEl2, Some(Way::Assisted)) => {
                Err("a stock kernel cannot be asked for that safely (Injector::check_nested)".into())
            }
            _ => Ok(()),
        }
    }

    fn create(&self, setup: &Setup, _interrupt: Arc<Interrupt>) -> Result<Box<dyn TestVm>, Error> {
        let config = VcpuConfig {
            ras: setup.ras,
            mte: false,
            sctlr2: true,
            el2: setup.el1 == El1::BelowEl2,
            el1_aarch32: setup.el1 == El1::Aarch32,
        };
        let cpu = Cpu::new(config, setup.initialised);
        Ok(Box::new(ModelVm { cpu, setup: *setup, way: self.0 }))
    }

    fn kick(&self, _thread: &JoinHandle<()>) {}
}

/// The kernel's errnos.
fn refused(refusal: seawall_events::Refusal) -> Error {
    Error::Errno { number: refusal.errno().number(), text: refusal.to_string() }
}

fn injected(error: InjectError) -> Error {
    Error::Errno { number: error.errno().0, text: error.to_string() }
}

impl ModelVm {
    fn apply(&mut self, events: &VcpuEvents) -> Result<Delivery, Error> {
        let (vcpu, abi) = (&mut self.cpu.vcpu, self.setup.abi);
        if let (Some(way), Abi::Extended(_)) = (self.way, abi) {
            let kernel = Kernel::of(way, vcpu);
            let delivery = kernel.injector().inject(&kernel, Last::Any, events).map_err(injected);
            *vcpu = kernel.vcpu.into_inner();
            return delivery;
        }
        let applied = set_events(vcpu, abi, events).map_err(|refused_by| refused(refused_by.refusal))?;
        Ok(Delivery::of(vcpu, events, &applied))
    }
}

fn not_ram(gpa: u64) -> Error {
    Error::Other(format!("{gpa:#x} is not RAM"))
}

impl Inject for ModelVm {
    type Error = Error;

    fn traits(&self) -> VcpuTraits {
        let Setup { abi, ras, el1, .. } = self.setup;
        let guest = match el1 {
            El1::Aarch64 => GuestKind::Aarch64,
            El1::Aarch32 => GuestKind::Aarch32,
            El1::BelowEl2 => GuestKind::Nested,
        };
        VcpuTraits { guest, ras, abi }
    }

    fn reg(&self, reg: Reg) -> Result<u64, Error> {
        Ok(self.cpu.vcpu.reg(reg))
    }

    fn set_reg(&mut self, reg: Reg, value: u64) -> Result<(), Error> {
        self.cpu.vcpu.set_reg(reg, value);
        Ok(())
    }

    fn inject(&mut self, events: &VcpuEvents) -> Result<Delivery, Error> {
        // Like assisted injection: a vCPU runs once before.
        self.cpu.vcpu.has_run |= self.setup.abi != Abi::Mainline;
        self.apply(events)
    }
}

impl seawall_inject::Vcpu for ModelVm {
    fn run(&mut self) -> Result<Exit, Error> {
        match step::run(&mut self.cpu, BUDGET) {
            Exit::Nisv(_) if !self.setup.nisv_to_user => {
                Err(Error::Errno { number: 38, text: "no syndrome".into() })
            }
            exit => Ok(exit),
        }
    }

    fn answer_mmio(&mut self, data: [u8; 8]) {
        self.cpu.vcpu.answer_mmio(data);
    }
}

impl TestVm for ModelVm {
    fn events(&self) -> Result<VcpuEvents, Error> {
        get_events(&self.cpu.vcpu).map_err(refused)
    }

    fn set_events_bytes(&mut self, bytes: &[u8; 64]) -> Result<Delivery, Error> {
        // The kernel checks that the vCPU is initialised before it looks at the events.
        get_events(&self.cpu.vcpu).map_err(refused)?;
        let events = VcpuEvents::from_bytes(self.setup.abi, bytes).map_err(refused)?;
        self.apply(&events)
    }

    fn set_events_unreadable(&mut self) -> Result<(), Error> {
        let applied = set_events_bytes(&mut self.cpu.vcpu, self.setup.abi, || None);
        applied.map(|_| ()).map_err(|refused_by| refused(refused_by.refusal))
    }

    fn events_bytes(&mut self) -> Result<[u8; 64], Error> {
        get_events_bytes(&self.cpu.vcpu, self.setup.abi).map_err(refused)
    }

    fn run_at_once(&mut self) -> Result<Exit, Error> {
        Ok(step::run(&mut self.cpu, 0))
    }

    fn run_for_a_while(&mut self) -> Result<Exit, Error> {
        Ok(step::run(&mut self.cpu, BUDGET))
    }

    fn read(&self, _gpa: u64, _bytes: &mut [u8]) -> Result<(), Error> {
        Err(Error::Other("the model's groups do not read memory".into()))
    }

    fn write(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), Error> {
        self.cpu.bytes(gpa, bytes.len()).ok_or_else(|| not_ram(gpa))?.copy_from_slice(bytes);
        Ok(())
    }

    fn poison(&mut self, gpa: u64) -> Result<(), Error> {
        self.cpu.bad_lines.insert(gpa & !63);
        Ok(())
    }

    fn heal(&mut self, gpa: u64) -> Result<(), Error> {
        self.cpu.bad_lines.remove(&(gpa & !63));
        Ok(())
    }

    fn hwpoison(&mut self, gpa: u64) -> Result<(), Error> {
        self.cpu.bad_pages.insert(gpa & !0xfff);
        Ok(())
    }

    fn remap(&mut self, gpa: u64) -> Result<(), Error> {
        self.cpu.bad_pages.remove(&(gpa & !0xfff));
        Ok(())
    }

    fn host_address(&self, gpa: u64) -> Result<u64, Error> {
        Ok(gpa)
    }
}
