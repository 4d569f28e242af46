//! A vCPU.

use std::os::fd::AsRawFd as _;

use kvm_bindings::{kvm_vcpu_events, kvm_vcpu_init};
use kvm_ioctls::VcpuFd;
use seawall_events::wire::{
    ArmNisv, ArmSea, KVM_EXIT_ARM_LDST64B, KVM_EXIT_ARM_NISV, KVM_EXIT_ARM_SEA, KVM_EXIT_INTR, KVM_EXIT_MMIO,
    KVM_EXIT_SYSTEM_EVENT, KVM_SET_VCPU_EVENTS, Mmio, VCPU_EVENTS_SIZE, one_reg_id,
};
use seawall_events::{Abi, AbortDelivery, Exit, Layout, Reg, SystemEvent, VcpuEvents, check_extended};
use vm_memory::GuestMemoryMmap;
use zerocopy::FromBytes;

use super::{El1, Error, Vm, Way, failed, kick, sigbus};
use crate::Errno;
use crate::assist::{self, AssistError, Guest, Kernel, Last};
use crate::stock::KernelEvents;

/// A vCPU. It may be moved to a thread of its own, and is run there.
#[derive(Debug)]
pub struct Vcpu {
    pub(super) fd: VcpuFd,
    abi: Abi,
    way: Way,
    guest: Guest,
    ras: bool,
    last: Last,
    /// `KVM_RUN` was called.
    has_run: bool,
    /// Keeps what the guest runs on.
    _memory: GuestMemoryMmap,
}

impl Vcpu {
    pub(super) fn new(fd: VcpuFd, vm: &Vm) -> Self {
        let guest = match vm.config.el1 {
            El1::Aarch64 => Guest::Aarch64,
            El1::Aarch32 => Guest::Aarch32,
            El1::BelowEl2 | El1::BelowEl2E2h0 => Guest::Nested,
        };
        Self {
            fd,
            abi: vm.config.abi,
            way: Way::Assisted,
            guest,
            ras: vm.ras,
            last: Last::NoWalk,
            has_run: false,
            _memory: vm.memory.clone(),
        }
    }

    /// `KVM_ARM_VCPU_INIT`; again, it resets the vCPU.
    pub(super) fn init(&mut self, init: &kvm_vcpu_init) -> Result<(), Error> {
        self.fd.vcpu_init(init).map_err(failed("KVM_ARM_VCPU_INIT"))?;
        self.last = Last::Any;
        if self.abi != Abi::Mainline {
            self.way = self.find_way();
        }
        Ok(())
    }

    /// `KVM_ARM_VCPU_INIT` again: the vCPU as it comes out of reset. An MMIO access of the last exit is
    /// completed before, as KVM would else do it after, and step the PC that the vCPU was reset to.
    ///
    /// # Errors
    /// [`Error::Ioctl`].
    pub fn reset(&mut self, vm: &Vm) -> Result<(), Error> {
        self.complete_waiting_mmio()?;
        self.init(&vm.vcpu_init()?)
    }

    /// Completes the access of the last exit, if it was one.
    pub(super) fn complete_waiting_mmio(&mut self) -> Result<(), Error> {
        if self.fd.get_kvm_run().exit_reason == KVM_EXIT_MMIO { self.complete_mmio() } else { Ok(()) }
    }

    /// How this vCPU has the extended ABI.
    pub fn way(&self) -> Way {
        self.way
    }

    /// Asks the kernel for the extended ABI by events that ask for nothing: `ext_abt_esr` without
    /// `ext_abt_has_esr` is a reserved word that is not zero to a kernel that does not know it.
    pub(super) fn find_way(&self) -> Way {
        let nothing = VcpuEvents { ext_abt_esr: 1, ..VcpuEvents::default() };
        let knows = |layout: &Layout| {
            let bytes = nothing.to_bytes(Abi::Extended(*layout));
            bytes.is_ok_and(|bytes| self.set_vcpu_events(&bytes).is_ok())
        };
        [Layout::Posted, Layout::Trailing].into_iter().find(knows).map_or(Way::Assisted, Way::Native)
    }

    /// `KVM_SET_VCPU_EVENTS` with the bytes of the system call in the layout of the VM's ABI, by whichever
    /// way this vCPU has it.
    ///
    /// # Errors
    /// [`Error::Events`].
    pub fn set_events_bytes(
        &mut self,
        bytes: &[u8; VCPU_EVENTS_SIZE],
    ) -> Result<Option<AbortDelivery>, Error> {
        match (self.abi, self.way) {
            (Abi::Mainline, _) => {
                if let Ok(events) = VcpuEvents::from_bytes(Abi::Mainline, bytes) {
                    return self.set_mainline(&events);
                }
                // The kernel finds what is wrong with them.
                self.set_vcpu_events(bytes).map_err(set_failed)?;
                Ok(None)
            }
            (abi, _) => {
                let events =
                    VcpuEvents::from_bytes(abi, bytes).map_err(|refusal| self.refused(refusal.into()))?;
                seawall_events::Vcpu::set_events(self, &events)
            }
        }
    }

    /// Mainline's rules: the abort is delivered before the SError's arguments are looked at.
    fn set_mainline(&self, events: &VcpuEvents) -> Result<Option<AbortDelivery>, Error> {
        self.check_nested(events)?;
        let dabt = VcpuEvents { ext_dabt_pending: events.ext_dabt_pending, ..VcpuEvents::default() };
        let delivery = assist::set_events(self, self.guest, self.last, self.ras, &dabt)?;
        if events.serror_pending {
            let serror = VcpuEvents { ext_dabt_pending: false, ..*events };
            let bytes = serror.to_bytes(Abi::Mainline).map_err(AssistError::from)?;
            self.set_vcpu_events(&bytes).map_err(set_failed)?;
        }
        Ok(delivery)
    }

    /// Before anything is asked of a stock kernel for a guest hypervisor: [`assist::check_nested`].
    fn check_nested(&self, events: &VcpuEvents) -> Result<(), Error> {
        if self.guest == Guest::Nested {
            assist::check_nested(self, events)?;
        }
        Ok(())
    }

    /// `KVM_GET_VCPU_EVENTS` as the kernel gives it, mainline's layout.
    ///
    /// # Errors
    /// [`Error::Ioctl`].
    pub fn events_bytes(&self) -> Result<[u8; VCPU_EVENTS_SIZE], Error> {
        let failed = |errno| Error::Ioctl { call: "KVM_GET_VCPU_EVENTS", errno };
        KernelEvents::get_vcpu_events(&self.fd).map_err(failed)
    }

    /// `KVM_SET_VCPU_EVENTS` with an address that the kernel cannot read: for tests of what it looks at first.
    ///
    /// # Errors
    /// [`Error::Events`]: EFAULT, or what the kernel found before.
    pub fn set_events_unreadable(&self) -> Result<(), Error> {
        let request = libc::Ioctl::from(KVM_SET_VCPU_EVENTS);
        // SAFETY: the kernel only reads from the address, and nothing is mapped there.
        match unsafe { libc::ioctl(self.fd.as_raw_fd(), request, std::ptr::null::<kvm_vcpu_events>()) } {
            0 => Ok(()),
            _ => Err(set_failed(vmm_sys_util::errno::Error::last().into())),
        }
    }

    /// Makes the next run return at once, after the completion of a waiting MMIO access.
    pub fn set_immediate_exit(&mut self, immediate: bool) {
        self.fd.set_kvm_immediate_exit(immediate.into());
    }

    /// Completes the MMIO access of the last exit without running the guest further: what a VMM does before it
    /// sets registers, for until then KVM has yet to write the loaded register and to step PC.
    ///
    /// Source: api.rst, `KVM_RUN`, on `KVM_EXIT_MMIO` and `immediate_exit`.
    ///
    /// # Errors
    /// [`Error::Ioctl`] with anything but EINTR.
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

    /// The kernel looks whether the vCPU is initialised before it looks at the events.
    fn refused(&self, refusal: AssistError) -> Error {
        match self.set_vcpu_events(&[0; VCPU_EVENTS_SIZE]) {
            Err(errno) => set_failed(errno),
            Ok(()) => refusal.into(),
        }
    }

    /// The exit that `kvm_run` holds.
    fn exit(&mut self) -> Exit {
        let run = self.fd.get_kvm_run();
        let reason = run.exit_reason;
        // SAFETY: the union is plain data, all of it readable as bytes.
        let mut exit = decode(reason, unsafe { &run.__bindgen_anon_1.padding });
        if let Exit::Mmio(mmio) = &mut exit {
            // KVM leaves there what the last exit had in it, and gives it to a load without an answer.
            let written = if mmio.is_write { mmio.len as usize } else { 0 };
            mmio.data.iter_mut().skip(written).for_each(|byte| *byte = 0);
            run.__bindgen_anon_1.mmio.data = mmio.data;
        }
        exit
    }
}

/// A failed `KVM_SET_VCPU_EVENTS` before which nothing was done.
fn set_failed(errno: Errno) -> Error {
    AssistError::Kernel { call: "KVM_SET_VCPU_EVENTS", errno }.into()
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

impl Kernel for Vcpu {
    fn set_vcpu_events(&self, bytes: &[u8; VCPU_EVENTS_SIZE]) -> Result<(), Errno> {
        Kernel::set_vcpu_events(&self.fd, bytes)
    }

    fn get_one_reg(&self, id: u64) -> Result<u64, Errno> {
        Kernel::get_one_reg(&self.fd, id)
    }

    fn set_one_reg(&self, id: u64, value: u64) -> Result<(), Errno> {
        Kernel::set_one_reg(&self.fd, id, value)
    }
}

impl seawall_events::Vcpu for Vcpu {
    type Error = Error;

    /// [`Exit::Sigbus`] if a page that the guest touched is known to the host as bad: by the run that met
    /// it, or if that run had another exit to report, by the next. A [`Kicker`](super::Kicker) ends it.
    fn run(&mut self) -> Result<Exit, Error> {
        // Also where the run fails: it may have met another fault.
        self.last = Last::Any;
        if let Some(sigbus) = sigbus::take() {
            return Ok(Exit::Sigbus(sigbus));
        }
        self.has_run = true;
        let immediate_exit = &raw mut self.fd.get_kvm_run().immediate_exit;
        // SAFETY: kvm_run is mapped as long as the vCPU's `fd` is, which is borrowed until the run is over.
        let ran =
            unsafe { kick::kickable(immediate_exit, || sigbus::recording(|| self.fd.run().map(|_| ()))) };
        let exit = match ran {
            Ok(()) => self.exit(),
            Err(error) => match (sigbus::take(), Errno(error.errno())) {
                (Some(sigbus), _) => Exit::Sigbus(sigbus),
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

    fn set_events(&mut self, events: &VcpuEvents) -> Result<Option<AbortDelivery>, Error> {
        let asked = events.ext_dabt_pending || events.ext_iabt_pending;
        match (self.abi, self.way) {
            (Abi::Mainline, _) => {
                events.to_bytes(Abi::Mainline).map_err(AssistError::from)?;
                self.set_mainline(events)
            }
            // Where a kernel that has the ABI delivered to is not asked: its word is taken.
            (Abi::Extended(_), Way::Native(layout)) => {
                let bytes = events.to_bytes(Abi::Extended(layout)).map_err(AssistError::from)?;
                self.set_vcpu_events(&bytes).map_err(set_failed)?;
                Ok(asked.then_some(AbortDelivery::Delivered(seawall_arm::Target::El1)))
            }
            (Abi::Extended(_), Way::Assisted) => {
                if self.guest == Guest::Aarch32 && !self.has_run {
                    // Until the first run KVM's exception entry takes EL1 for AArch64, and loses aborts.
                    self.complete_mmio()?;
                }
                if let Err(refusal) = check_extended(self.ras, events) {
                    return Err(self.refused(refusal.into()));
                }
                self.check_nested(events)?;
                Ok(assist::set_events(self, self.guest, self.last, self.ras, events)?)
            }
        }
    }

    fn events(&self) -> Result<VcpuEvents, Error> {
        let bytes = self.events_bytes()?;
        Ok(VcpuEvents::from_bytes(Abi::Mainline, &bytes).map_err(AssistError::from)?)
    }

    fn reg(&self, reg: Reg) -> Result<u64, Error> {
        let id = one_reg_id(reg).ok_or(Error::NoRegister(reg))?;
        self.get_one_reg(id).map_err(|errno| Error::Ioctl { call: "KVM_GET_ONE_REG", errno })
    }

    fn set_reg(&mut self, reg: Reg, value: u64) -> Result<(), Error> {
        let id = one_reg_id(reg).ok_or(Error::NoRegister(reg))?;
        self.set_one_reg(id, value).map_err(|errno| Error::Ioctl { call: "KVM_SET_ONE_REG", errno })
    }

    fn abi(&self) -> Abi {
        self.abi
    }
}
