//! `KVM_GET_ONE_REG` and `KVM_SET_ONE_REG`.

use seawall_arm::{Pstate, Reg, Registers as _};
use seawall_events::wire::one_reg_id;
use seawall_inject::Errno;

use crate::Vcpu;
use crate::vcpu::SYSTEM;

/// Every register of the model.
pub fn registers() -> impl Iterator<Item = Reg> {
    (0..=30).map(Reg::X).chain(SYSTEM)
}

/// The register of an id.
pub(crate) fn register(id: u64) -> Option<Reg> {
    registers().find(|reg| one_reg_id(*reg) == Some(id))
}

const fn is_of_el2(reg: Reg) -> bool {
    use Reg::{ElrEl2, EsrEl2, FarEl2, HcrEl2, HcrxEl2, Sctlr2El2, SctlrEl2, SpsrEl2, VbarEl2, VsesrEl2};
    matches!(
        reg,
        ElrEl2 | SpsrEl2 | EsrEl2 | FarEl2 | VbarEl2 | SctlrEl2 | Sctlr2El2 | HcrEl2 | HcrxEl2 | VsesrEl2
    )
}

/// Returns true for KVM's core registers: a write to one narrows the others of a vCPU in AArch32 state.
const fn is_core(reg: Reg) -> bool {
    use Reg::{ElrEl1, Pc, Pstate, SpEl0, SpEl1, SpsrAbt, SpsrEl1, X};
    matches!(reg, X(_) | Pc | Pstate | SpEl0 | SpEl1 | ElrEl1 | SpsrEl1 | SpsrAbt)
}

impl Vcpu {
    /// `KVM_GET_ONE_REG`.
    ///
    /// # Errors
    /// ENOENT for a register of EL2, without an EL2.
    pub fn one_reg(&self, reg: Reg) -> Result<u64, Errno> {
        if is_of_el2(reg) && !self.config.el2 { Err(Errno::ENOENT) } else { Ok(self.reg(reg)) }
    }

    /// `KVM_SET_ONE_REG`.
    ///
    /// # Errors
    /// As [`Vcpu::one_reg`]; EINVAL for a mode that an AArch64 EL1 lacks. Source: Linux
    /// arch/arm64/kvm/guest.c, `set_core_reg`.
    pub fn set_one_reg(&mut self, reg: Reg, value: u64) -> Result<(), Errno> {
        self.one_reg(reg)?;
        if reg == Reg::Pstate && matches!(value & Pstate::M, 0x11..=0x1f) && !self.config.el1_aarch32 {
            return Err(Errno::EINVAL);
        }
        self.set_reg(reg, value);
        if is_core(reg) && self.pstate().is_aarch32() {
            self.narrow();
        }
        Ok(())
    }

    /// Narrows registers to 32 bits, as KVM does whenever a core register is written in AArch32 state.
    fn narrow(&mut self) {
        let (user, system) = (0x10, 0x1f);
        let is_banked = [user, system].contains(&self.pstate().masked(Pstate::M));
        for reg in (0..if is_banked { 15 } else { 31 }).map(Reg::X).chain([Reg::Pc]) {
            self.set_reg(reg, self.reg(reg) & 0xffff_ffff);
        }
    }
}
