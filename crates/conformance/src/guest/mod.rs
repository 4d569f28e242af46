//! A guest to inject into: a program of a few words, and handlers at every vector that read their registers
//! and report them by MMIO.

mod handlers;
mod tables;
pub(crate) mod words;

use seawall_events::{MmioExit, NisvExit, Reg, VcpuEvents};
use seawall_inject::{Delivery, Exit};

use crate::backend::{El1, Setup, TestVm};
use crate::trial::Stop;

pub(crate) use handlers::{Report, Report32};
pub(crate) use tables::{
    DATA_EL0, DATA_EL1, SPARE_EL0, SPARE_EL1, Table, USER_CODE, descriptor_of, other_level_1,
};

/// The address of programs.
pub(crate) const CODE: u64 = 0x4008_0000;
/// `VBAR_EL1`.
pub(crate) const VECTORS: u64 = 0x4009_0000;
/// `VBAR_EL2`.
pub(crate) const VECTORS_EL2: u64 = 0x400a_0000;
/// A page of data.
pub(crate) const DATA: u64 = 0x4020_0000;
/// A page of code that a program jumps to.
pub(crate) const SPARE: u64 = 0x4030_0000;
/// An address without RAM to which handlers report.
pub(crate) const REPORT: u64 = 0x0a00_0000;
/// An address without RAM that programs access.
pub(crate) const HOLE: u64 = 0x0a00_1000;

/// PSTATE: EL1h, D, A, I and F masked.
pub(crate) const EL1H: u64 = 0x3c5;
/// The same with SErrors unmasked.
pub(crate) const EL1H_A_CLEAR: u64 = 0x2c5;
/// EL1 with SP_EL0, all masked.
pub(crate) const EL1T: u64 = 0x3c4;
/// EL0, all masked.
pub(crate) const EL0: u64 = 0x3c0;
/// EL0 with SErrors unmasked.
pub(crate) const EL0_A_CLEAR: u64 = 0x2c0;
/// EL2h, all masked.
pub(crate) const EL2H: u64 = 0x3c9;

/// `SCTLR_EL1` with the MMU off: RES1 bits, SPAN.
pub(crate) const SCTLR: u64 = 0x30d5_0980;
/// M, C, I.
const SCTLR_MMU: u64 = 0x1005;

/// The Exception level that took an exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    El1,
    El2,
}

/// A vCPU at the first instruction of a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) level: Level,
    pub(crate) pc: u64,
    pub(crate) pstate: u64,
    pub(crate) esr: u64,
    pub(crate) far: u64,
    pub(crate) elr: u64,
    pub(crate) spsr: u64,
}

impl Default for Taken {
    /// The synchronous vector of the current level with SP_ELx, from EL1h at [`CODE`] with all masked, and no
    /// ESR: the caller sets the rest.
    fn default() -> Self {
        Self {
            level: Level::El1,
            pc: 0x4009_0200,
            pstate: 0x3c5,
            esr: 0,
            far: 0,
            elr: 0x4008_0000,
            spsr: 0x3c5,
        }
    }
}

/// A VM with a program in it.
pub(crate) struct Guest {
    vm: Box<dyn TestVm>,
}

impl Guest {
    /// MMU off, EL1h (EL2h with a virtual EL2, Supervisor mode in AArch32), all masked, PC at [`CODE`].
    pub(crate) fn new(mut vm: Box<dyn TestVm>, setup: Setup) -> Result<Self, Stop> {
        if !setup.initialised {
            return Ok(Self { vm });
        }
        match setup.el1 {
            El1::Aarch64 => vm.write(VECTORS, &handlers::el1())?,
            El1::Aarch32 => vm.write(VECTORS, &handlers::aarch32())?,
            El1::BelowEl2 => {
                vm.write(VECTORS, &handlers::el1())?;
                vm.write(VECTORS_EL2, &handlers::el2())?;
                vm.set_reg(Reg::VbarEl2, VECTORS_EL2)?;
            }
        }
        vm.set_reg(Reg::VbarEl1, VECTORS)?;
        if setup.el1 == El1::Aarch32 {
            // RES1 bits, and SPAN.
            vm.set_reg(Reg::SctlrEl1, 0x00c5_0078)?;
        } else {
            vm.set_reg(Reg::SctlrEl1, SCTLR)?;
        }
        vm.set_reg(Reg::Pc, CODE)?;
        vm.set_reg(Reg::X(8), REPORT + 0x40)?;
        Ok(Self { vm })
    }

    /// Puts a program at [`CODE`].
    pub(crate) fn program(&mut self, words: &[u32]) -> Result<(), Stop> {
        self.words(CODE, words)
    }

    /// Writes words to guest memory.
    pub(crate) fn words(&mut self, gpa: u64, words: &[u32]) -> Result<(), Stop> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        Ok(self.vm.write(gpa, &bytes)?)
    }

    /// Writes 64 bits to guest memory.
    pub(crate) fn write(&mut self, gpa: u64, value: u64) -> Result<(), Stop> {
        Ok(self.vm.write(gpa, &value.to_le_bytes())?)
    }

    /// Reads 64 bits of guest memory.
    pub(crate) fn read(&self, gpa: u64) -> Result<u64, Stop> {
        let mut bytes = [0; 8];
        self.vm.read(gpa, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Writes the translation tables and switches the MMU on; see [`tables`].
    pub(crate) fn mmu_on(&mut self) -> Result<(), Stop> {
        tables::write(self)?;
        for (reg, value) in tables::REGISTERS {
            self.set(reg, value)?;
        }
        self.set(Reg::SctlrEl1, SCTLR | SCTLR_MMU)
    }

    /// Returns to the beginning of the program, in this PSTATE. A waiting MMIO access is completed first;
    /// otherwise KVM would step PC later.
    pub(crate) fn restart(&mut self, pstate: u64) -> Result<(), Stop> {
        self.vm.run_at_once()?;
        self.set(Reg::Pstate, pstate)?;
        self.set(Reg::Pc, CODE)
    }

    /// The vCPU and its memory.
    pub(crate) fn vm(&mut self) -> &mut dyn TestVm {
        &mut *self.vm
    }

    pub(crate) fn set(&mut self, reg: Reg, value: u64) -> Result<(), Stop> {
        self.vm.set_reg(reg, value).map_err(|error| Stop::Error(format!("{reg:?} = {value:#x}: {error}")))
    }

    pub(crate) fn get(&self, reg: Reg) -> Result<u64, Stop> {
        self.vm.reg(reg).map_err(|error| Stop::Error(format!("{reg:?}: {error}")))
    }

    /// The next exit. A guest without one is an error.
    pub(crate) fn run(&mut self) -> Result<Exit, Stop> {
        match self.vm.run()? {
            Exit::Intr => {
                let pc = self.get(Reg::Pc)?;
                Err(Stop::Error(format!("the guest hung: no exit, PC is {pc:#x}")))
            }
            exit => Ok(exit),
        }
    }

    /// The next exit, which must be an MMIO access.
    pub(crate) fn run_to_mmio(&mut self) -> Result<MmioExit, Stop> {
        match self.run()? {
            Exit::Mmio(mmio) => Ok(mmio),
            exit => Err(self.lost("an MMIO exit", &exit)),
        }
    }

    /// The next exit, which must be an access without a syndrome.
    pub(crate) fn run_to_nisv(&mut self) -> Result<NisvExit, Stop> {
        match self.run()? {
            Exit::Nisv(nisv) => Ok(nisv),
            exit => Err(self.lost("a NISV exit", &exit)),
        }
    }

    fn lost(&self, expected: &str, exit: &Exit) -> Stop {
        let state = [Reg::Pc, Reg::EsrEl1, Reg::FarEl1, Reg::ElrEl1];
        let state = state.map(|reg| format!("{reg:?} {:#x}", self.vm.reg(reg).unwrap_or(0))).join(", ");
        Stop::Error(format!("expected {expected}, got {exit:x?}; {state}"))
    }

    /// The value of X2 that the program reports at [`REPORT`] + 0x40.
    pub(crate) fn reported(&mut self) -> Result<u64, Stop> {
        match self.run()? {
            Exit::Mmio(MmioExit { phys_addr, data, len: 8, is_write: true })
                if phys_addr == REPORT + 0x40 =>
            {
                Ok(u64::from_le_bytes(data))
            }
            exit => Err(self.lost("the program's report", &exit)),
        }
    }

    pub(crate) fn inject(&mut self, events: &VcpuEvents) -> Result<Delivery, Stop> {
        Ok(self.vm.inject(events)?)
    }

    /// The pending events.
    pub(crate) fn events(&self) -> Result<VcpuEvents, Stop> {
        Ok(self.vm.events()?)
    }

    /// The state of a taken exception by `KVM_GET_ONE_REG`.
    pub(crate) fn taken(&self, level: Level) -> Result<Taken, Stop> {
        let [esr, far, elr, spsr] = match level {
            Level::El1 => [Reg::EsrEl1, Reg::FarEl1, Reg::ElrEl1, Reg::SpsrEl1],
            Level::El2 => [Reg::EsrEl2, Reg::FarEl2, Reg::ElrEl2, Reg::SpsrEl2],
        };
        Ok(Taken {
            level,
            pc: self.get(Reg::Pc)?,
            pstate: self.get(Reg::Pstate)?,
            esr: self.get(esr)?,
            far: self.get(far)?,
            elr: self.get(elr)?,
            spsr: self.get(spsr)?,
        })
    }

    /// Runs the handler to the end of its report. Another run returns from the exception.
    pub(crate) fn handler_report(&mut self) -> Result<Report, Stop> {
        Ok(Report::from_words(self.report_words(8)?))
    }

    /// The same for the handlers of AArch32.
    pub(crate) fn handler_report32(&mut self) -> Result<Report32, Stop> {
        Ok(Report32::from_words(self.report_words(4)?))
    }

    /// Words of `len` bytes, stored one after the other at [`REPORT`]; the eighth ends the report.
    fn report_words<const N: usize>(&mut self, len: u32) -> Result<[u64; N], Stop> {
        let mut words = [0; N];
        for (n, word) in words.iter_mut().enumerate() {
            let at = REPORT + u64::from(len) * n as u64;
            match self.run()? {
                Exit::Mmio(mmio) if mmio.phys_addr == at && mmio.len == len && mmio.is_write => {
                    *word = u64::from_le_bytes(mmio.data);
                }
                exit => return Err(self.lost(&format!("word {n} of the handler's report"), &exit)),
            }
        }
        Ok(words)
    }
}
