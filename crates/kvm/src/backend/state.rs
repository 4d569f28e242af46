//! Transfer of a vCPU's and an interrupt controller's state from one VM to another.

use kvm_bindings::{
    KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO,
    KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, KVM_DEV_ARM_VGIC_LINE_LEVEL_INFO_SHIFT, RegList,
    VGIC_LEVEL_INFO_LINE_LEVEL, kvm_device_attr, kvm_mp_state,
};

use super::{Error, Gic, Vcpu, failed};
use crate::Errno;
use crate::state::{
    CLEARS, GicCpuState, GicRegister, INTERFACE, MPIDR, REDISTRIBUTOR, Register, SavedGic, SavedVcpu,
    affinity, distributor, register_size,
};
use seawall_inject::KvmVcpu as _;

/// More registers than any CPU without SVE has, and no more than `kvm-bindings` takes.
const MAX_REGISTERS: usize = 500;
/// The interrupts of a GIC that [`Vm::create_gic`](super::Vm::create_gic) made.
const INTERRUPTS: u32 = Gic::SPIS + 32;

impl Vcpu {
    /// The whole state of the vCPU: registers, power state, a pending SError. An MMIO access of the last exit
    /// is completed first. State outside of runs, such as a SIGBUS not reported yet, stays here: the guest's
    /// next access meets it again.
    ///
    /// # Errors
    /// [`Error::Ioctl`], [`Error::Register`].
    pub fn save(&mut self) -> Result<SavedVcpu, Error> {
        self.complete_waiting_mmio()?;
        let mut list = RegList::new(MAX_REGISTERS).map_err(|_| Error::Memory)?;
        self.fd.get_reg_list(&mut list).map_err(failed("KVM_GET_REG_LIST"))?;
        let registers = list.as_slice().iter().map(|id| {
            let value = self.register(*id)?;
            Ok(Register { id: *id, value })
        });
        let registers = registers.collect::<Result<_, Error>>()?;
        let mp_state = self.fd.get_mp_state().map_err(failed("KVM_GET_MP_STATE"))?.mp_state;
        let events = self.events_bytes()?.to_vec();
        Ok(SavedVcpu { registers, mp_state, events })
    }

    /// Gives the vCPU the state of another one, from a VM with the same configuration. It must not have run
    /// yet. [`Vcpu::restore_counters`] restores the counters of the VM.
    ///
    /// # Errors
    /// [`Error::Register`] if this host's CPU differs; [`Error::Ioctl`].
    pub fn restore(&mut self, state: &SavedVcpu) -> Result<(), Error> {
        state.in_order().try_for_each(|register| self.set_register(register))?;
        let events = state.events.as_slice().try_into();
        let events = events.map_err(|_| Error::OtherState { what: "the size of kvm_vcpu_events" })?;
        self.set_vcpu_events(events).map_err(|errno| Error::Ioctl { call: "KVM_SET_VCPU_EVENTS", errno })?;
        let mp_state = kvm_mp_state { mp_state: state.mp_state };
        self.fd.set_mp_state(mp_state).map_err(failed("KVM_SET_MP_STATE"))
    }

    /// Sets the VM's counters from this vCPU's state. They apply to all its vCPUs, so call it for one of
    /// them; call it last, because the counters run from then on. To the guest no time has passed since its
    /// vCPU was saved.
    ///
    /// # Errors
    /// [`Error::Register`].
    pub fn restore_counters(&mut self, state: &SavedVcpu) -> Result<(), Error> {
        state.counters().try_for_each(|register| self.set_register(register))
    }

    fn register(&self, id: u64) -> Result<Vec<u8>, Error> {
        let mut value = vec![0; register_size(id)];
        let read = self.fd.get_one_reg(id, &mut value);
        read.map_err(|error| Error::Register { id, errno: error.into() })?;
        Ok(value)
    }

    /// Sets a register. Some registers describe the CPU and cannot be written: those must be equal.
    fn set_register(&self, register: &Register) -> Result<(), Error> {
        let Register { id, value } = register;
        if !register.is_whole() {
            return Err(Error::OtherState { what: "the sizes of registers" });
        }
        let Err(error) = self.fd.set_one_reg(*id, value) else { return Ok(()) };
        match self.register(*id) {
            Ok(here) if here == *value => Ok(()),
            _ => Err(Error::Register { id: *id, errno: error.into() }),
        }
    }
}

impl Gic {
    /// The whole state of the interrupt controller, except for LPIs. No vCPU may run; `vcpus` are all vCPUs,
    /// in order.
    ///
    /// # Errors
    /// [`Error::Ioctl`], EBUSY if a vCPU runs.
    pub fn save(&self, vcpus: &[Vcpu]) -> Result<SavedGic, Error> {
        let cpus = vcpus.iter().map(|vcpu| self.save_cpu(mpidr(vcpu)?)).collect::<Result<_, _>>()?;
        let read = |register: GicRegister| self.word(KVM_DEV_ARM_VGIC_GRP_DIST_REGS, register.offset.into());
        let distributor = distributor(INTERRUPTS).map(read).collect::<Result<_, _>>()?;
        let levels = shared().map(|first| self.word(KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, levels(first)));
        Ok(SavedGic { distributor, levels: levels.collect::<Result<_, _>>()?, cpus })
    }

    /// Gives the interrupt controller the state of another one. `vcpus` are all vCPUs, in order, already
    /// [restored](Vcpu::restore): the controller depends on their state.
    ///
    /// # Errors
    /// [`Error::OtherState`] if the other one had another configuration, [`Error::Ioctl`].
    pub fn restore(&self, state: &SavedGic, vcpus: &[Vcpu]) -> Result<(), Error> {
        let registers: Vec<_> = distributor(INTERRUPTS).collect();
        let is_alike = state.distributor.len() == registers.len()
            && state.levels.len() == shared().count()
            && state.cpus.len() == vcpus.len();
        if !is_alike {
            return Err(Error::OtherState { what: "how many interrupts and vCPUs there are" });
        }
        for (register, value) in registers.iter().zip(&state.distributor) {
            self.set_words(KVM_DEV_ARM_VGIC_GRP_DIST_REGS, 0, *register, *value)?;
        }
        for (vcpu, state) in vcpus.iter().zip(&state.cpus) {
            self.restore_cpu(mpidr(vcpu)?, state)?;
        }
        for (first, level) in shared().zip(&state.levels) {
            self.set_word(KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, levels(first), *level)?;
        }
        Ok(())
    }

    fn save_cpu(&self, mpidr: u64) -> Result<GicCpuState, Error> {
        let cpu = affinity(mpidr);
        let read = |register: &GicRegister| {
            self.word(KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, cpu | u64::from(register.offset))
        };
        Ok(GicCpuState {
            redistributor: REDISTRIBUTOR.iter().map(read).collect::<Result<_, _>>()?,
            levels: self.word(KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, cpu | levels(0))?,
            interface: INTERFACE
                .iter()
                .map(|id| self.interface(cpu | u64::from(*id)))
                .collect::<Result<_, _>>()?,
        })
    }

    fn restore_cpu(&self, mpidr: u64, state: &GicCpuState) -> Result<(), Error> {
        let cpu = affinity(mpidr);
        if state.redistributor.len() != REDISTRIBUTOR.len() || state.interface.len() != INTERFACE.len() {
            return Err(Error::OtherState { what: "the registers of its interrupt controller" });
        }
        for (register, value) in REDISTRIBUTOR.iter().zip(&state.redistributor) {
            self.set_words(KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, cpu, *register, *value)?;
        }
        for (id, value) in INTERFACE.iter().zip(&state.interface) {
            if let Some(value) = value {
                self.set_value(KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, cpu | u64::from(*id), value)?;
            }
        }
        self.set_word(KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, cpu | levels(0), state.levels)
    }

    /// A register of the CPU interface, if it exists.
    fn interface(&self, attribute: u64) -> Result<Option<u64>, Error> {
        let mut value = 0_u64;
        match self.get(KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, attribute, &mut value) {
            Ok(()) => Ok(Some(value)),
            Err(Errno::ENXIO | Errno::EINVAL) => Ok(None),
            Err(errno) => Err(Error::Ioctl { call: GET, errno }),
        }
    }

    fn word(&self, group: u32, attribute: u64) -> Result<u32, Error> {
        // The kernel writes 32 bits; room for 64 costs nothing.
        let mut value = [0_u32; 2];
        self.get(group, attribute, &mut value).map_err(|errno| Error::Ioctl { call: GET, errno })?;
        let [low, _] = value;
        Ok(low)
    }

    /// Gives a register this value, even if writes to it only set bits.
    fn set_words(&self, group: u32, cpu: u64, register: GicRegister, value: u32) -> Result<(), Error> {
        let attribute = cpu | u64::from(register.offset);
        if register.sets {
            self.set_word(group, attribute + u64::from(CLEARS), !value)?;
        }
        self.set_word(group, attribute, value)
    }

    fn set_word(&self, group: u32, attribute: u64, value: u32) -> Result<(), Error> {
        self.set_value(group, attribute, &[value, 0])
    }

    fn get<T: Copy>(&self, group: u32, attribute: u64, value: &mut T) -> Result<(), Errno> {
        const { assert!(size_of::<T>() == 8) };
        let addr = std::ptr::from_mut(value) as u64;
        let mut attribute = kvm_device_attr { group, attr: attribute, addr, flags: 0 };
        // SAFETY: the kernel writes 32 or 64 bits of plain integer to a live, aligned value of 64 bits.
        unsafe { self.fd.get_device_attr(&mut attribute) }.map_err(Errno::from)
    }

    fn set_value<T: Copy>(&self, group: u32, attribute: u64, value: &T) -> Result<(), Error> {
        const { assert!(size_of::<T>() == 8) };
        let addr = std::ptr::from_ref(value) as u64;
        let attribute = kvm_device_attr { group, attr: attribute, addr, flags: 0 };
        self.fd.set_device_attr(&attribute).map_err(failed("KVM_SET_DEVICE_ATTR(VGIC_V3)"))
    }
}

const GET: &str = "KVM_GET_DEVICE_ATTR(VGIC_V3)";

fn mpidr(vcpu: &Vcpu) -> Result<u64, Error> {
    vcpu.get_one_reg(MPIDR).map_err(|errno| Error::Register { id: MPIDR, errno })
}

/// The first INTID of each 32 shared interrupts.
fn shared() -> impl Iterator<Item = u32> {
    (32..INTERRUPTS).step_by(32)
}

/// The attribute of the levels of 32 lines.
fn levels(first: u32) -> u64 {
    u64::from(VGIC_LEVEL_INFO_LINE_LEVEL << KVM_DEV_ARM_VGIC_LINE_LEVEL_INFO_SHIFT | first)
}
