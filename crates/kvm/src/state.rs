//! The state of a vCPU and of an interrupt controller at one moment, to continue elsewhere: plain data, on
//! any host.

use seawall_arm::sysreg;
use seawall_events::wire::system_reg_id;
use serde::{Deserialize, Serialize};

/// `KVM_REG_SIZE_MASK`, shifted down.
const SIZE_SHIFT: u32 = 52;
/// Bits [31:16] of an id: the kind of register (`KVM_REG_ARM_COPROC_MASK`).
const KIND_SHIFT: u32 = 16;
/// Firmware's pseudo-registers: `KVM_REG_ARM_FW`, `KVM_REG_ARM_FW_FEAT_BMAP`.
const FIRMWARE: [u64; 2] = [0x14, 0x16];
/// `KVM_REG_ARM_TIMER_CNT`. It has the encoding of CNTV_CVAL_EL0, and `KVM_REG_ARM_TIMER_CVAL` that of
/// CNTVCT_EL0. The kernel's headers swapped them, and keep it so (api.rst, `KVM_SET_ONE_REG`).
pub(crate) const TIMER_CNT: u64 = system_reg_id(sysreg::CNTV_CVAL_EL0);
/// `KVM_REG_ARM_PTIMER_CNT`: CNTPCT_EL0.
pub(crate) const PTIMER_CNT: u64 = system_reg_id(sysreg::CNTPCT_EL0);
/// MPIDR_EL1.
pub(crate) const MPIDR: u64 = system_reg_id(sysreg::MPIDR_EL1);

/// A vCPU that stands still. `Vcpu::save` makes it and `Vcpu::restore` uses it; it fits only a VM like its
/// own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedVcpu {
    /// All registers of `KVM_GET_REG_LIST`, in its order.
    pub(crate) registers: Vec<Register>,
    /// `struct kvm_mp_state`.
    pub(crate) mp_state: u32,
    /// `struct kvm_vcpu_events`, mainline's layout.
    pub(crate) events: Vec<u8>,
}

/// A register by its ONE_REG id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Register {
    pub(crate) id: u64,
    /// The value, with the size that the id gives.
    pub(crate) value: Vec<u8>,
}

/// Size in bytes of a register with this id.
pub(crate) fn register_size(id: u64) -> usize {
    1 << (id >> SIZE_SHIFT & 0xf)
}

impl Register {
    /// Returns true if the value has the size that its id gives.
    pub(crate) fn is_whole(&self) -> bool {
        self.value.len() == register_size(self.id)
    }

    /// Returns true for counters, which belong to the VM, not to the vCPU.
    pub(crate) fn is_counter(&self) -> bool {
        matches!(self.id, TIMER_CNT | PTIMER_CNT)
    }

    fn is_firmware(&self) -> bool {
        FIRMWARE.contains(&(self.id >> KIND_SHIFT & 0xfff))
    }
}

impl SavedVcpu {
    /// The registers of the vCPU in the order in which to set them: the firmware registers decide which
    /// others exist.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = &Register> {
        let (firmware, others): (Vec<_>, Vec<_>) =
            self.registers.iter().filter(|register| !register.is_counter()).partition(|r| r.is_firmware());
        firmware.into_iter().chain(others)
    }

    /// The VM's counters as this vCPU saw them.
    pub(crate) fn counters(&self) -> impl Iterator<Item = &Register> {
        self.registers.iter().filter(|register| register.is_counter())
    }

    /// `MPIDR_EL1`.
    pub fn mpidr(&self) -> Option<u64> {
        let register = self.registers.iter().find(|register| register.id == MPIDR)?;
        register.value.first_chunk().map(|value| u64::from_le_bytes(*value))
    }
}

/// A GICv3 whose vCPUs stand still, without LPIs. `Gic::save` makes it and `Gic::restore` uses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedGic {
    /// The registers that [`distributor`] lists.
    pub(crate) distributor: Vec<u32>,
    /// Line levels of the INTIDs from 32 on, 32 in each word.
    pub(crate) levels: Vec<u32>,
    pub(crate) cpus: Vec<GicCpuState>,
}

/// The state that a GICv3 has for one vCPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GicCpuState {
    /// The registers that [`REDISTRIBUTOR`] lists.
    pub(crate) redistributor: Vec<u32>,
    /// Line levels of INTIDs 0 to 31.
    pub(crate) levels: u32,
    /// The registers that [`INTERFACE`] lists, if they exist.
    pub(crate) interface: Vec<Option<u64>>,
}

/// Offset from a register that sets bits to the one that clears them: GICD_ISENABLER and ICENABLER,
/// GICD_ISACTIVER and ICACTIVER, and a redistributor's.
pub(crate) const CLEARS: u32 = 0x80;

/// A register of distributor or redistributor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GicRegister {
    pub(crate) offset: u32,
    /// True if a write sets bits, and a write at [`CLEARS`] from it clears them. (ISPENDR is not such a
    /// register here: a write replaces its value.)
    pub(crate) sets: bool,
}

const fn plain(offset: u32) -> GicRegister {
    GicRegister { offset, sets: false }
}

const fn sets(offset: u32) -> GicRegister {
    GicRegister { offset, sets: true }
}

/// The distributor's registers for INTIDs 32 to `interrupts`, in the order in which to write them. IIDR is
/// the first, because it selects KVM's behaviour; routes come before anything pending. CTLR comes before the
/// enable and pending bits: KVM queues an interrupt for its vCPU when it becomes pending while all three are
/// set, and never later. With CTLR last, a timer that had fired before the guest was saved stayed pending
/// forever (Linux 7.3).
///
/// Source: IHI 0069 (GICv3), 12.8; Linux, Documentation/virt/kvm/devices/arm-vgic-v3.rst.
pub(crate) fn distributor(interrupts: u32) -> impl Iterator<Item = GicRegister> {
    const CTLR: u32 = 0;
    const IIDR: u32 = 0x8;
    const STATUSR: u32 = 0x10;
    const IGROUPR: u32 = 0x80;
    const ISENABLER: u32 = 0x100;
    const ISPENDR: u32 = 0x200;
    const ISACTIVER: u32 = 0x300;
    const IPRIORITYR: u32 = 0x400;
    const ICFGR: u32 = 0xc00;
    const IROUTER: u32 = 0x6000;
    // The words of a register with `bits` bits for each interrupt.
    let words = move |base: u32, bits: u32| (bits..interrupts * bits / 32).map(move |n| base + 4 * n);
    [IIDR, CTLR, STATUSR]
        .into_iter()
        .chain(words(IROUTER, 64))
        .chain(words(IGROUPR, 1))
        .chain(words(ICFGR, 2))
        .chain(words(IPRIORITYR, 8))
        .map(plain)
        .chain(words(ISENABLER, 1).map(sets))
        .chain(words(ISPENDR, 1).map(plain))
        .chain(words(ISACTIVER, 1).map(sets))
}

/// A redistributor's registers, in the order in which to write them. LPI registers are missing, because there
/// are no LPIs.
///
/// Source: IHI 0069, 12.10, 12.11.
pub(crate) const REDISTRIBUTOR: [GicRegister; 17] = {
    const SGI: u32 = 0x1_0000;
    [
        plain(0x0),         // CTLR
        plain(0x10),        // STATUSR
        plain(0x14),        // WAKER
        plain(SGI + 0x80),  // IGROUPR0
        plain(SGI + 0xc00), // ICFGR0, ICFGR1
        plain(SGI + 0xc04),
        plain(SGI + 0x400), // IPRIORITYR0 to 7
        plain(SGI + 0x404),
        plain(SGI + 0x408),
        plain(SGI + 0x40c),
        plain(SGI + 0x410),
        plain(SGI + 0x414),
        plain(SGI + 0x418),
        plain(SGI + 0x41c),
        sets(SGI + 0x100),  // ISENABLER0
        plain(SGI + 0x200), // ISPENDR0
        sets(SGI + 0x300),  // ISACTIVER0
    ]
};

/// The CPU interface's registers, by the numbers of `KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS`, in the order in which
/// to write them: ICC_CTLR_EL1.CBPR decides the meaning of ICC_BPR1_EL1. The number of active priorities
/// registers depends on the host.
pub(crate) const INTERFACE: [u16; 15] = [
    sysreg::ICC_SRE_EL1,
    sysreg::ICC_CTLR_EL1,
    sysreg::ICC_PMR_EL1,
    sysreg::ICC_BPR0_EL1,
    sysreg::ICC_BPR1_EL1,
    sysreg::ICC_AP0R0_EL1,
    sysreg::ICC_AP0R1_EL1,
    sysreg::ICC_AP0R2_EL1,
    sysreg::ICC_AP0R3_EL1,
    sysreg::ICC_AP1R0_EL1,
    sysreg::ICC_AP1R1_EL1,
    sysreg::ICC_AP1R2_EL1,
    sysreg::ICC_AP1R3_EL1,
    sysreg::ICC_IGRPEN0_EL1,
    sysreg::ICC_IGRPEN1_EL1,
];

/// Bits [63:32] of a vCPU's attribute: its affinity, from MPIDR_EL1.
pub(crate) fn affinity(mpidr: u64) -> u64 {
    let aff3 = mpidr >> 32 & 0xff;
    let others = mpidr & 0xff_ffff;
    aff3 << 56 | others << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Linux uapi `asm/kvm.h`: sizes of X0, FPSR, V0, of a firmware register and of a cache's geometry.
    #[test]
    fn a_registers_size_is_in_its_id() {
        assert_eq!(register_size(0x6030_0000_0010_0000), 8);
        assert_eq!(register_size(0x6020_0000_0010_00d4), 4);
        assert_eq!(register_size(0x6040_0000_0010_0054), 16);
        assert_eq!(register_size(0x6030_0000_0014_0000), 8);
        assert_eq!(register_size(0x6020_0000_0011_0000), 4);
        assert!(!Register { id: 0x6030_0000_0010_0000, value: vec![0; 4] }.is_whole());
    }

    fn state(ids: &[u64]) -> SavedVcpu {
        let register = |id: &u64| Register { id: *id, value: vec![0; register_size(*id)] };
        SavedVcpu { registers: ids.iter().map(register).collect(), mp_state: 0, events: Vec::new() }
    }

    #[test]
    fn firmware_is_set_first_and_counters_are_the_vms() {
        let (x0, psci, bitmap) = (0x6030_0000_0010_0000, 0x6030_0000_0014_0000, 0x6030_0000_0016_0000);
        let state = state(&[x0, TIMER_CNT, MPIDR, PTIMER_CNT, psci, bitmap]);
        let order: Vec<u64> = state.in_order().map(|register| register.id).collect();
        assert_eq!(order, [psci, bitmap, x0, MPIDR]);
        assert_eq!(state.counters().map(|r| r.id).collect::<Vec<_>>(), [TIMER_CNT, PTIMER_CNT]);
    }

    /// arm-vgic-v3.rst: Aff3 in [63:56], Aff2 to Aff0 in [55:32]. Bits 31 and 30 of MPIDR are not part of the
    /// affinity.
    #[test]
    fn a_vcpus_attributes_have_its_affinity_above() {
        assert_eq!(affinity(0x0000_00ab_80cd_ef12), 0xabcd_ef12_0000_0000);
    }

    #[test]
    fn every_interrupt_of_the_distributor_has_all_of_its_registers() {
        let all: Vec<_> = distributor(64).collect();
        let offsets: Vec<u32> = all.iter().map(|register| register.offset).collect();
        let mut expected = vec![0x8, 0x0, 0x10];
        expected.extend((0x6100..0x6200).step_by(4)); // IROUTER32 to 63
        expected.push(0x84);
        expected.extend([0xc08, 0xc0c]);
        expected.extend([0x420, 0x424, 0x428, 0x42c, 0x430, 0x434, 0x438, 0x43c]);
        expected.extend([0x104, 0x204, 0x304]);
        assert_eq!(offsets, expected);
        let sets: Vec<u32> = all.iter().filter(|register| register.sets).map(|r| r.offset).collect();
        assert_eq!(sets, [0x104, 0x304]);
    }

    /// The encodings of DDI 0487: S3_0_C4_C6_0, S3_0_C12_C12_5.
    #[test]
    fn registers_of_the_cpu_interface_go_by_their_encoding() {
        assert_eq!(INTERFACE[2], 0xc230);
        assert_eq!(INTERFACE[0], 0xc665);
    }
}
