//! Measurements of the host before any comparison.

use std::fmt;

use seawall_arm::{Pstate, Reg, hcr};
use seawall_events::VcpuEvents;
use seawall_events::kernel::VcpuConfig;
use seawall_events::wire::VCPU_EVENTS_SIZE;
use seawall_inject::Exit;

use super::code::Code;
use super::{Guest, Subject, configuration};

/// The bits that a register keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bits {
    /// Bits that keep the written value.
    pub writable: u64,
    /// Bits that are always 1.
    pub ones: u64,
}

impl Bits {
    /// Every bit is kept.
    pub const ALL: Self = Self { writable: !0, ones: 0 };

    /// The kept part of a value.
    pub const fn keep(self, value: u64) -> u64 {
        value & self.writable | self.ones
    }

    /// From the values read after writing zeros and after writing ones.
    const fn measured(zeros: u64, ones: u64) -> Self {
        Self { writable: ones & !zeros, ones: ones & zeros }
    }
}

/// The kept bits of a register that configures exceptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The register.
    pub reg: Reg,
    /// The bits kept by `KVM_SET_ONE_REG`.
    pub stored: Bits,
    /// The bits kept after a run that exits at once: KVM in VHE mode loads the register for that.
    pub touched: Bits,
    /// The bits kept after the register was loaded into the CPU for a run.
    pub loaded: Bits,
}

/// The host's CPU and KVM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// The kind of the vCPUs.
    pub guest: Guest,
    /// The configuration that events depend on.
    pub config: VcpuConfig,
    /// Registers that do not keep all bits.
    pub kept: Vec<Kept>,
    /// Bits of PSTATE that remain after the guest was entered.
    pub pstate: u64,
    /// The bits among TCO and ALLINT that the CPU's own exception entry sets in PSTATE.
    pub entry_sets: u64,
    /// The bits among NZCV and DIT that the CPU's own exception entry clears in PSTATE although the
    /// architecture keeps them, as QEMU's does.
    pub entry_loses: u64,
    /// True if EL2 does not see the SPSR of the CPU's own entry to an AArch32 mode, as with QEMU.
    pub hides_spsr: bool,
    /// True if EL0 can be AArch32.
    pub aarch32_el0: bool,
    /// True if there is a bad line.
    pub poison: bool,
}

impl Cpu {
    /// A CPU that keeps every bit, for comparing models with models.
    pub fn perfect(guest: Guest) -> Self {
        let sctlr2 = guest != Guest::Aarch32;
        let config = VcpuConfig {
            ras: true,
            mte: false,
            sctlr2,
            el2: guest == Guest::Nested,
            el1_aarch32: guest == Guest::Aarch32,
        };
        let pstate = match guest {
            Guest::Aarch32 => 0xffff_ffff & !(Pstate::SS | Pstate::IL),
            _ => Pstate::NZCV | Pstate::DAIF | Pstate::M | Pstate::IL | Pstate::PAN | Pstate::BTYPE,
        };
        let aarch32_el0 = guest == Guest::Aarch64;
        Self {
            guest,
            config,
            kept: Vec::new(),
            pstate,
            entry_sets: 0,
            entry_loses: 0,
            hides_spsr: false,
            aarch32_el0,
            poison: true,
        }
    }

    /// Measures the host. The subject is left in an undefined state.
    ///
    /// # Errors
    /// The failure of a call.
    pub fn measure(
        guest: Guest,
        code: &Code,
        poison: bool,
        subject: &mut impl Subject,
    ) -> Result<Self, String> {
        let mut cpu = Self { poison, ..Self::perfect(guest) };
        subject.begin(true, SCRATCH)?;
        let events = VcpuEvents::from_bytes(seawall_events::Abi::Mainline, &subject.events()?);
        cpu.config.ras = events.map_err(|refusal| refusal.to_string())?.serror_has_esr;
        cpu.config.sctlr2 = guest != Guest::Aarch32 && subject.reg(Reg::Sctlr2El1).is_ok();
        cpu.aarch32_el0 = guest == Guest::Aarch64 && subject.set_reg(Reg::Pstate, 0x10).is_ok();
        subject.reset()?;
        let registers = configuration(guest).iter().copied();
        for reg in registers.filter(|reg| cpu.config.sctlr2 || !is_sctlr2(*reg)) {
            cpu.kept.push(measure_register(guest, reg, code, subject)?);
        }
        cpu.measure_pstate(code, subject)?;
        Ok(cpu)
    }

    /// Runs to an exit with every bit of PSTATE set except the mode and IL.
    fn measure_pstate(&mut self, code: &Code, subject: &mut impl Subject) -> Result<(), String> {
        let (store, mode) = match self.guest {
            Guest::Aarch64 => ("str x2, [x28]", 5),
            Guest::Nested => ("str x2, [x28]", 9),
            // Without T, and without IT, which A32 does not use.
            Guest::Aarch32 => ("str r2, [r7]", 0x13),
        };
        let all = match self.guest {
            Guest::Aarch32 => 0xffff_ffff & !(Pstate::IL | Pstate::T | Pstate::IT | Pstate::M) | mode,
            _ => 0xffff_ffff & !(Pstate::IL | Pstate::M) | mode,
        };
        subject.begin(true, SCRATCH)?;
        for reg in self.kept.iter().map(|kept| kept.reg).collect::<Vec<_>>() {
            subject.set_reg(reg, self.stored(reg, 0))?;
        }
        for reg in [7, 28] {
            subject.set_reg(Reg::X(reg), SCRATCH)?;
        }
        for reg in [Reg::VbarEl1, Reg::VbarEl2] {
            if reg == Reg::VbarEl1 || self.guest == Guest::Nested {
                subject.set_reg(reg, code.tables().first().copied().unwrap_or(0))?;
            }
        }
        let program = code.programs().iter().find(|program| program.text == store);
        let program = program.ok_or(format!("there is no program {store:?}"))?;
        subject.set_reg(Reg::Pc, program.start)?;
        subject.set_reg(Reg::Pstate, all)?;
        let exit = subject.run(false)?;
        if !matches!(exit, Exit::Mmio(_)) {
            return Err(format!("expected an MMIO exit of {store:?} at PSTATE {all:#x}, got {exit:?}"));
        }
        let there = subject.reg(Reg::Pstate)?;
        self.pstate = there | Pstate::IL | Pstate::M;
        if self.guest == Guest::Aarch32 {
            self.pstate |= Pstate::T;
        }
        if self.guest != Guest::Aarch32 {
            subject.run(true)?;
            // IL: the first instruction takes an exception.
            subject.set_reg(Reg::Pstate, Pstate::NZCV | Pstate::DIT | Pstate::IL | mode)?;
            subject.run(false)?;
            let entered = subject.reg(Reg::Pstate)?;
            self.entry_sets = entered & (Pstate::TCO | Pstate::ALLINT);
            self.entry_loses = self.pstate & (Pstate::NZCV | Pstate::DIT) & !entered;
        }
        if self.guest == Guest::Aarch32 {
            subject.run(true)?;
            subject.set_reg(Reg::SpsrAbt, 0)?;
            subject.set_reg(Reg::Pstate, 0x1d3)?;
            let mut serror_pending = [0; VCPU_EVENTS_SIZE];
            serror_pending[0] = 1;
            subject.set_events(&serror_pending);
            subject.set_reg(Reg::Pstate, 0xd3)?;
            subject.run(false)?;
            self.hides_spsr = subject.reg(Reg::SpsrAbt)? == 0;
        }
        Ok(())
    }

    /// The part of a value that `KVM_SET_ONE_REG` keeps.
    pub fn stored(&self, reg: Reg, value: u64) -> u64 {
        self.bits(reg, |kept| kept.stored).keep(value)
    }

    /// The part of a value that is kept after a run that exits at once.
    pub fn touched(&self, reg: Reg, value: u64) -> u64 {
        self.bits(reg, |kept| kept.touched).keep(value)
    }

    /// The part of a value that the CPU keeps.
    pub fn loaded(&self, reg: Reg, value: u64) -> u64 {
        self.bits(reg, |kept| kept.loaded).keep(value)
    }

    fn bits(&self, reg: Reg, which: impl Fn(&Kept) -> Bits) -> Bits {
        self.kept.iter().find(|kept| kept.reg == reg).map_or(Bits::ALL, which)
    }
}

/// The target of the store in a vCPU's first run.
pub(super) const SCRATCH: u64 = 0x2000_0000;

/// Returns true if the CPU holds it while EL1 runs, but not while a virtual EL2 runs.
pub(super) fn is_of_el1(reg: Reg) -> bool {
    matches!(reg, Reg::SctlrEl1 | Reg::Sctlr2El1 | Reg::VbarEl1 | Reg::TcrEl1)
}

fn is_sctlr2(reg: Reg) -> bool {
    matches!(reg, Reg::Sctlr2El1 | Reg::Sctlr2El2)
}

fn measure_register(guest: Guest, reg: Reg, code: &Code, subject: &mut impl Subject) -> Result<Kept, String> {
    // Stage 1 stays off.
    const SCTLR_M: u64 = 1;
    let ones = if matches!(reg, Reg::SctlrEl1 | Reg::SctlrEl2) { !SCTLR_M } else { !0 };
    let mut read = [[0; 3]; 2];
    for (n, value) in [0, ones].into_iter().enumerate() {
        for (reg, value) in quiet(guest, code, is_of_el1(reg)) {
            subject.set_reg(reg, value)?;
        }
        let before = subject.reg(reg)?;
        subject.set_reg(reg, value)?;
        let stored = subject.reg(reg)?;
        subject.run(true)?;
        let touched = subject.reg(reg)?;
        // A guest hypervisor cannot run with all bits of its registers set.
        if guest != Guest::Nested {
            subject.run(false)?;
            subject.run(true)?;
        }
        read[n] = [stored, touched, subject.reg(reg)?];
        subject.set_reg(reg, before)?;
    }
    let [zeros, ones] = read;
    let [stored, touched, loaded] = [0, 1, 2].map(|n| Bits::measured(zeros[n], ones[n]));
    Ok(Kept { reg, stored, touched, loaded })
}

/// Registers in which a vCPU runs the report, at EL1 or at a virtual EL2.
fn quiet(guest: Guest, code: &Code, el1: bool) -> Vec<(Reg, u64)> {
    let (base, pstate) = match guest {
        Guest::Aarch64 => (28, 0x3c5),
        Guest::Aarch32 => (7, 0x1d3),
        Guest::Nested => (28, if el1 { 0x3c5 } else { 0x3c9 }),
    };
    let rest = [
        (Reg::VbarEl1, code.report()),
        (Reg::X(base), SCRATCH),
        (Reg::Pc, code.report()),
        (Reg::Pstate, pstate),
    ];
    let hcr = (guest == Guest::Nested).then_some((Reg::HcrEl2, hcr::E2H));
    hcr.into_iter().chain(rest).collect()
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let VcpuConfig { ras, mte, sctlr2, .. } = self.config;
        writeln!(f, "host: {:?}, ras {ras}, mte {mte}, sctlr2 {sctlr2}", self.guest)?;
        writeln!(f, "      AArch32 at EL0 {}, poison register {}", self.aarch32_el0, self.poison)?;
        writeln!(f, "      PSTATE keeps {:#x}", self.pstate)?;
        writeln!(f, "      the CPU's own entry sets {:#x}, loses {:#x}", self.entry_sets, self.entry_loses)?;
        writeln!(
            f,
            "      the SPSR of its entry to AArch32 is {}",
            if self.hides_spsr { "not seen" } else { "seen" }
        )?;
        for Kept { reg, stored, loaded, .. } in &self.kept {
            write!(f, "      {reg:?}: KVM keeps {:#x}, sets {:#x}", stored.writable, stored.ones)?;
            if stored != loaded {
                write!(f, "; after a run {:#x}, {:#x}", loaded.writable, loaded.ones)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
