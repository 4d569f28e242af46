//! A vCPU.

use std::os::fd::{AsRawFd, RawFd};

use kvm_bindings::kvm_vcpu_init;
use kvm_ioctls::VcpuFd;
use seawall_arm::{Esr, Target};
use seawall_events::wire::{
    ArmNisv, ArmSea, KVM_EXIT_ARM_LDST64B, KVM_EXIT_ARM_NISV, KVM_EXIT_ARM_SEA, KVM_EXIT_INTR, KVM_EXIT_MMIO,
    KVM_EXIT_SYSTEM_EVENT, Mmio, VCPU_EVENTS_SIZE, one_reg_id,
};
use seawall_events::{Abi, Reg, VcpuEvents};
use seawall_host::sigbus;
use seawall_inject::{
    Delivery, Exit, GuestKind, Inject, InjectError, Injector, KvmVcpu, Last, SigbusExit, SystemEvent,
    VcpuTraits, Way,
};
use vm_memory::GuestMemoryMmap;
use zerocopy::FromBytes;

use super::{Error, Vm, failed, kick};
use crate::Errno;

/// A vCPU. You can move it to a thread of its own and run it there.
#[derive(Debug)]
pub struct Vcpu {
    pub(super) fd: VcpuFd,
    abi: Abi,
    /// Known once the vCPU is initialised.
    injector: Option<Injector>,
    last: Last,
    /// True once `KVM_RUN` was called.
    has_run: bool,
    /// Keeps the guest's memory alive.
    _memory: GuestMemoryMmap,
}

impl Vcpu {
    pub(super) fn new(fd: VcpuFd, vm: &Vm) -> Self {
        Self {
            fd,
            abi: vm.config.abi,
            injector: None,
            last: Last::NoWalk,
            has_run: false,
            _memory: vm.memory.clone(),
        }
    }

    /// `KVM_ARM_VCPU_INIT`; another call resets the vCPU.
    pub(super) fn init(&mut self, init: &kvm_vcpu_init) -> Result<(), Error> {
        self.fd.vcpu_init(init).map_err(failed("KVM_ARM_VCPU_INIT"))?;
        self.last = Last::Any;
        if self.injector.is_none() {
            self.injector = Some(self.injector()?);
        }
        Ok(())
    }

    /// `KVM_ARM_VCPU_INIT` again: the vCPU as after a reset. An MMIO access of the last exit is completed
    /// first; otherwise KVM would complete it later and step the PC of the reset vCPU.
    ///
    /// # Errors
    /// [`Error::Ioctl`].
    pub fn reset(&mut self, vm: &Vm) -> Result<(), Error> {
        self.complete_waiting_mmio()?;
        self.init(&vm.vcpu_init()?)
    }

    /// Completes the access of the last exit, if it was an MMIO exit.
    pub(super) fn complete_waiting_mmio(&mut self) -> Result<(), Error> {
        if self.fd.get_kvm_run().exit_reason == KVM_EXIT_MMIO { self.complete_mmio() } else { Ok(()) }
    }

    /// The injector for this vCPU, with the way to the extended ABI on this kernel.
    ///
    /// # Errors
    /// [`Error::Events`]: the vCPU is not initialised.
    pub fn injector(&self) -> Result<Injector, Error> {
        self.injector.map_or_else(|| Ok(Injector::probe(&self.fd)?), Ok)
    }

    /// The way to the extended ABI for this vCPU.
    pub fn way(&self) -> Way {
        self.injector.map_or(Way::Assisted, |injector| injector.way)
    }

    /// `KVM_SET_VCPU_EVENTS` with the bytes of the system call in the layout of the VM's ABI, by this vCPU's
    /// way to it; returns the guest's position after it.
    ///
    /// # Errors
    /// [`Error::Events`].
    pub fn set_events_bytes(&mut self, bytes: &[u8; VCPU_EVENTS_SIZE]) -> Result<Delivery, Error> {
        // The kernel checks that the vCPU is initialised before it looks at the events.
        self.injector()?;
        let events = VcpuEvents::from_bytes(self.abi, bytes).map_err(InjectError::from)?;
        self.inject(&events)
    }

    /// Mainline's rules: the abort is delivered before the SError's arguments are checked.
    fn set_mainline(&self, injector: Injector, events: &VcpuEvents) -> Result<Delivery, Error> {
        events.to_bytes(Abi::Mainline).map_err(InjectError::from)?;
        injector.check_nested(self, events)?;
        let abort = VcpuEvents { ext_dabt_pending: events.ext_dabt_pending, ..VcpuEvents::default() };
        let delivery = injector.inject(self, self.last, &abort)?;
        if !events.serror_pending {
            return Ok(delivery);
        }
        let serror = VcpuEvents { ext_dabt_pending: false, ..*events };
        match (delivery, injector.inject(self, self.last, &serror)?) {
            // The SError waits behind the abort; or it was taken at the abort's own vector, which ESR tells.
            (
                Delivery::AtVector { target, pc, esr, far },
                Delivery::SErrorPending | Delivery::NotDelivered,
            ) => {
                let esr = match (injector.guest, target) {
                    (GuestKind::Aarch32, _) => esr,
                    (_, Target::El1) => Esr::from_bits(self.reg(Reg::EsrEl1)?),
                    (_, Target::El2) => Esr::from_bits(self.reg(Reg::EsrEl2)?),
                };
                Ok(Delivery::AtVector { target, pc, esr, far })
            }
            (_, after_serror) => Ok(after_serror),
        }
    }

    /// `KVM_GET_VCPU_EVENTS`.
    ///
    /// # Errors
    /// [`Error::Ioctl`].
    pub fn events(&self) -> Result<VcpuEvents, Error> {
        let bytes = self.events_bytes()?;
        Ok(VcpuEvents::from_bytes(Abi::Mainline, &bytes).map_err(InjectError::from)?)
    }

    /// `KVM_GET_VCPU_EVENTS` with the kernel's bytes, mainline's layout.
    ///
    /// # Errors
    /// [`Error::Ioctl`].
    pub fn events_bytes(&self) -> Result<[u8; VCPU_EVENTS_SIZE], Error> {
        let failed = |errno| Error::Ioctl { call: "KVM_GET_VCPU_EVENTS", errno };
        self.get_vcpu_events().map_err(failed)
    }

    /// Makes the next run return at once, after the completion of a waiting MMIO access.
    pub fn set_immediate_exit(&mut self, immediate: bool) {
        self.fd.set_kvm_immediate_exit(immediate.into());
    }

    /// Completes the MMIO access of the last exit without running the guest further. A VMM calls this before
    /// it sets registers, because until then KVM has yet to write the loaded register and to step PC.
    ///
    /// Source: api.rst, `KVM_RUN`, on `KVM_EXIT_MMIO` and `immediate_exit`.
    ///
    /// # Errors
    /// [`Error::Ioctl`] with any errno but EINTR.
    pub fn complete_mmio(&mut self) -> Result<(), Error> {
        self.set_immediate_exit(true);
        self.has_run = true;
        let ran = self.fd.run().map(|_| ()).map_err(Errno::from);
        self.set_immediate_exit(false);
        match ran {
            Ok(()) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(Error::Ioctl { call: "KVM_RUN", errno }),
        }
    }

    /// The exit that `kvm_run` holds.
    fn exit(&mut self) -> Exit {
        let run = self.fd.get_kvm_run();
        let reason = run.exit_reason;
        // SAFETY: the union is plain data, all of it readable as bytes.
        let mut exit = decode(reason, unsafe { &run.__bindgen_anon_1.padding });
        if let Exit::Mmio(mmio) = &mut exit {
            // KVM leaves the data of the last exit there, and gives it to a load without an answer.
            let written = if mmio.is_write { mmio.len as usize } else { 0 };
            mmio.data.iter_mut().skip(written).for_each(|byte| *byte = 0);
            run.__bindgen_anon_1.mmio.data = mmio.data;
        }
        exit
    }
}

fn sigbus_exit(signal: sigbus::Signal) -> Exit {
    let sigbus::Signal { address, lsb, action_required } = signal;
    Exit::Sigbus(SigbusExit { address, lsb, action_required })
}

/// The vCPU's file descriptor, for system calls that this crate lacks.
impl AsRawFd for Vcpu {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// The exit of a `kvm_run.exit_reason` and its union.
pub(super) fn decode(reason: u32, union: &[u8]) -> Exit {
    fn prefix<T: FromBytes + zerocopy::KnownLayout + zerocopy::Immutable>(union: &[u8]) -> Option<T> {
        T::read_from_prefix(union).ok().map(|(value, _)| value)
    }
    let exit = match reason {
        KVM_EXIT_ARM_SEA => prefix::<ArmSea>(union).map(|sea| Exit::Sea(sea.into())),
        KVM_EXIT_MMIO => prefix::<Mmio>(union).map(|mmio| Exit::Mmio(mmio.into())),
        KVM_EXIT_ARM_NISV | KVM_EXIT_ARM_LDST64B => {
            prefix::<ArmNisv>(union).map(|nisv| Exit::Nisv(nisv.into()))
        }
        KVM_EXIT_SYSTEM_EVENT => prefix::<[u8; 4]>(union).map(|kind| {
            Exit::SystemEvent(match u32::from_ne_bytes(kind) {
                kvm_bindings::KVM_SYSTEM_EVENT_SHUTDOWN => SystemEvent::Shutdown,
                kvm_bindings::KVM_SYSTEM_EVENT_RESET => SystemEvent::Reset,
                kvm_bindings::KVM_SYSTEM_EVENT_CRASH => SystemEvent::Crash,
                other => SystemEvent::Other(other),
            })
        }),
        KVM_EXIT_INTR => Some(Exit::Intr),
        _ => None,
    };
    exit.unwrap_or(Exit::Other(reason))
}

impl KvmVcpu for Vcpu {
    fn set_vcpu_events(&self, bytes: &[u8; VCPU_EVENTS_SIZE]) -> Result<(), Errno> {
        KvmVcpu::set_vcpu_events(&self.fd, bytes)
    }

    fn get_vcpu_events(&self) -> Result<[u8; VCPU_EVENTS_SIZE], Errno> {
        KvmVcpu::get_vcpu_events(&self.fd)
    }

    fn get_one_reg(&self, id: u64) -> Result<u64, Errno> {
        KvmVcpu::get_one_reg(&self.fd, id)
    }

    fn set_one_reg(&self, id: u64, value: u64) -> Result<(), Errno> {
        KvmVcpu::set_one_reg(&self.fd, id, value)
    }
}

impl Inject for Vcpu {
    type Error = Error;

    fn traits(&self) -> VcpuTraits {
        // `init` has asked before there is a vCPU to ask.
        let (guest, ras) =
            self.injector.map_or((GuestKind::Aarch64, true), |injector| (injector.guest, injector.ras));
        VcpuTraits { guest, ras, abi: self.abi }
    }

    fn reg(&self, reg: Reg) -> Result<u64, Error> {
        let id = one_reg_id(reg).ok_or(Error::NoRegister(reg))?;
        self.get_one_reg(id).map_err(|errno| Error::Ioctl { call: "KVM_GET_ONE_REG", errno })
    }

    fn set_reg(&mut self, reg: Reg, value: u64) -> Result<(), Error> {
        let id = one_reg_id(reg).ok_or(Error::NoRegister(reg))?;
        self.set_one_reg(id, value).map_err(|errno| Error::Ioctl { call: "KVM_SET_ONE_REG", errno })
    }

    fn inject(&mut self, events: &VcpuEvents) -> Result<Delivery, Error> {
        let injector = self.injector()?;
        if self.abi == Abi::Mainline {
            return self.set_mainline(injector, events);
        }
        if injector.guest == GuestKind::Aarch32 && !self.has_run {
            // Until the first run KVM's exception entry takes EL1 for AArch64, and loses aborts.
            self.complete_mmio()?;
        }
        Ok(injector.inject(self, self.last, events)?)
    }
}

impl seawall_inject::Vcpu for Vcpu {
    /// [`Exit::Sigbus`] if the host knows that a page touched by the guest is bad: reported by the run that
    /// met it or, if that run had another exit to report, by the next. A [`Kicker`](super::Kicker) ends the
    /// run.
    fn run(&mut self) -> Result<Exit, Error> {
        // This holds even if the run fails: it may have met another fault.
        self.last = Last::Any;
        if let Some(signal) = sigbus::take() {
            return Ok(sigbus_exit(signal));
        }
        self.has_run = true;
        let immediate_exit = &raw mut self.fd.get_kvm_run().immediate_exit;
        // SAFETY: kvm_run is mapped as long as the vCPU's `fd` is, which is borrowed until the run is over.
        let ran =
            unsafe { kick::kickable(immediate_exit, || sigbus::recording(|| self.fd.run().map(|_| ()))) };
        let exit = match ran {
            Ok(()) => self.exit(),
            Err(error) => match (sigbus::take(), Errno(error.errno())) {
                (Some(signal), _) => sigbus_exit(signal),
                (None, Errno::EINTR) => Exit::Intr,
                (None, errno) => return Err(Error::Ioctl { call: "KVM_RUN", errno }),
            },
        };
        if let Exit::Sea(_) | Exit::Mmio(_) | Exit::Nisv(_) = exit {
            self.last = Last::NoWalk;
        }
        Ok(exit)
    }

    fn answer_mmio(&mut self, data: [u8; 8]) {
        let run = self.fd.get_kvm_run();
        if run.exit_reason == KVM_EXIT_MMIO {
            run.__bindgen_anon_1.mmio.data = data;
        }
    }
}
