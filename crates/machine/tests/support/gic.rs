//! The interrupt controller, as a guest's code would set it up.

use seawall_arm::Reg;
use seawall_inject::{Exit, Inject as _, Vcpu as _};

use super::Guest;

/// MSR from X3.
pub(crate) mod msr {
    pub(crate) const CNTV_CVAL_EL0: u32 = 0xd51b_e343;
    pub(crate) const CNTV_CTL_EL0: u32 = 0xd51b_e323;
    pub(crate) const CNTP_CVAL_EL0: u32 = 0xd51b_e243;
    pub(crate) const CNTP_CTL_EL0: u32 = 0xd51b_e223;
    pub(crate) const CNTKCTL_EL1: u32 = 0xd518_e103;
    pub(crate) const ICC_PMR_EL1: u32 = 0xd518_4603;
    pub(crate) const ICC_IGRPEN0_EL1: u32 = 0xd518_ccc3;
    pub(crate) const ICC_IGRPEN1_EL1: u32 = 0xd518_cce3;
}

/// Where [`execute`] puts its instruction.
const SCRATCH: u64 = 0x400a_0000;

/// Let a CPU execute one instruction at EL1 with x3 and x1 given; gives its x0. PC, PSTATE, x0, x1 and x3 are as they
/// were then.
pub(crate) fn execute(guest: &mut Guest, cpu: usize, word: u32, x3: u64, x1: u64) -> u64 {
    guest.code_at(SCRATCH, &[word]);
    let mut vcpu = guest.vm.vcpu(cpu).expect("a CPU");
    let kept = [Reg::Pc, Reg::Pstate, Reg::X(0), Reg::X(1), Reg::X(3)];
    let before = kept.map(|reg| vcpu.reg(reg).expect("a register"));
    for (reg, value) in kept.into_iter().zip([SCRATCH, 0x3c5, before[2], x1, x3]) {
        vcpu.set_reg(reg, value).expect("a register");
    }
    vcpu.set_budget(Some(1));
    assert_eq!(vcpu.run(), Ok(Exit::Intr));
    assert_eq!(vcpu.reg(Reg::Pc), Ok(SCRATCH + 4));
    let x0 = vcpu.reg(Reg::X(0)).expect("a register");
    vcpu.set_budget(None);
    for (reg, value) in kept.into_iter().zip(before) {
        vcpu.set_reg(reg, value).expect("a register");
    }
    x0
}

/// Store a word to a register of the controller.
pub(crate) fn store(guest: &mut Guest, pa: u64, value: u64) {
    // str w3, [x1]
    execute(guest, 0, 0xb900_0023, value, pa);
}

/// Opens a CPU's interface and its SGIs and PPIs, and SPI 40 to CPU 0: all in group 1, priority 0.
pub(crate) fn open(guest: &mut Guest, cpu: usize) {
    let frame = 0x080a_0000 + 0x2_0000 * cpu as u64;
    for (pa, value) in [
        (0x0800_0000, 3),
        (0x0800_0084, 0xffff_ffff),
        (0x0800_0104, 1 << 8),
        (frame + 0x14, 0),
        (frame + 0x1_0080, 0xffff_ffff),
        (frame + 0x1_0100, 0xffff_ffff),
    ] {
        store(guest, pa, value);
    }
    for (word, value) in [(msr::ICC_PMR_EL1, 0xff), (msr::ICC_IGRPEN0_EL1, 1), (msr::ICC_IGRPEN1_EL1, 1)] {
        execute(guest, cpu, word, value, 0);
    }
}
