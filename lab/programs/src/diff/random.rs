//! Sequences from a seed.

use rand::seq::IndexedRandom as _;
use rand::{Rng, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use seawall_arm::{Pstate, Reg, hcr, hcrx};
use seawall_events::wire::VCPU_EVENTS_SIZE;
use seawall_events::{Abi, VcpuEvents};

use super::code::{HOLE, POISON};
use super::{Code, Cpu, Guest, Sequence, Step, configuration, written};

/// The parts of sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Only {
    /// Everything.
    #[default]
    All,
    /// `KVM_SET_VCPU_EVENTS` and registers, no run.
    Events,
    /// No SErrors.
    Aborts,
    /// No aborts.
    SErrors,
}

/// Sequence number `index` of a seed.
pub fn sequence(cpu: &Cpu, code: &Code, abi: Abi, only: Only, seed: u64, index: u64) -> Sequence {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(index);
    Source { cpu, code, abi, only, random }.sequence()
}

struct Source<'a> {
    cpu: &'a Cpu,
    code: &'a Code,
    abi: Abi,
    only: Only,
    random: ChaCha8Rng,
}

impl Source<'_> {
    fn sequence(&mut self) -> Sequence {
        let fresh = self.one_in(512);
        let thorough = self.one_in(8);
        let scratch = self.mmio_address();
        let start = written(self.cpu.guest).filter_map(|reg| Some((reg, self.value(reg)?))).collect();
        let count = self.random.random_range(2..10);
        let mut steps = Vec::new();
        for _ in 0..count {
            self.add_steps(&mut steps);
        }
        if self.only == Only::Events {
            steps.retain(|step| matches!(step, Step::Events(_) | Step::Write(..)));
        }
        Sequence { abi: self.abi, fresh, thorough, scratch, start, steps }
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.random.random_ratio(1, n)
    }

    /// An address without memory, 16 bytes aligned, in the VM's 40 bits of physical address space.
    fn mmio_address(&mut self) -> u64 {
        let page: u64 = match self.random.random_range(0..4) {
            0 => self.random.random_range(0x0_0001..0x4_0000),
            _ if self.cpu.guest == Guest::Aarch32 => self.random.random_range(0x8_0000..0xf_0000),
            1 => self.random.random_range(0x8_0000..0x10_0000),
            _ => self.random.random_range(0x8_0000..0x1000_0000),
        };
        page << 12 | self.random.random_range(0..256) << 4
    }

    fn value(&mut self, reg: Reg) -> Option<u64> {
        if matches!(reg, Reg::Sctlr2El1 | Reg::Sctlr2El2) && !self.cpu.config.sctlr2 {
            return None;
        }
        let mmio_base = if self.cpu.guest == Guest::Aarch32 { 7 } else { 28 };
        Some(match reg {
            Reg::X(n) if n == mmio_base => self.mmio_address(),
            Reg::X(25) => HOLE,
            Reg::X(26) => POISON,
            Reg::X(0) if self.one_in(4) => 0x8000_0000,
            // For the rest one value suffices to show an unexpected write.
            Reg::X(n) if !matches!(n, 0..=3 | 20) => match self.cpu.guest {
                Guest::Aarch32 => 0x5ea0_0000 | u64::from(n),
                _ => 0x5ea0_0000_0000_0000 | u64::from(n),
            },
            Reg::Pc => self.pc(),
            Reg::Pstate => self.pstate(),
            Reg::VbarEl1 | Reg::VbarEl2 => self.vbar(),
            Reg::SpsrEl1 | Reg::SpsrEl2 if !self.one_in(4) => self.pstate(),
            Reg::ElrEl1 if !self.one_in(4) => self.pc(),
            reg if configuration(self.cpu.guest).contains(&reg) => self.configuration(reg),
            _ => self.number(),
        })
    }

    /// Any number, often one with a single bit or none.
    fn number(&mut self) -> u64 {
        match self.random.random_range(0..4) {
            0 => 0,
            1 => 1 << self.random.random_range(0..64),
            2 => self.random.random::<u64>() & self.random.random::<u64>(),
            _ => self.random.random(),
        }
    }

    fn pc(&mut self) -> u64 {
        if self.one_in(8) {
            return self.number();
        }
        self.code.programs().choose(&mut self.random).map_or(0, |program| program.start)
    }

    fn vbar(&mut self) -> u64 {
        if self.one_in(8) {
            return self.number();
        }
        self.code.tables().choose(&mut self.random).copied().unwrap_or(0)
    }

    /// A value that a sequence may set: nothing that turns on stage 1 or a guest hypervisor's traps.
    fn configuration(&mut self, reg: Reg) -> u64 {
        const SCTLR_M: u64 = 1;
        const SCTLR_UMA: u64 = 1 << 9;
        const HCR: u64 = hcr::AMO | hcr::TGE | hcr::TEA | hcr::E2H | HCR_IMO | HCR_FMO;
        const HCR_FMO: u64 = 1 << 3;
        const HCR_IMO: u64 = 1 << 4;
        const EAE: u64 = 1 << 31;
        match reg {
            Reg::SctlrEl1 | Reg::SctlrEl2 => self.number() & !SCTLR_M | SCTLR_UMA,
            Reg::Sctlr2El1 | Reg::Sctlr2El2 => self.number(),
            Reg::HcrEl2 => self.random.random::<u64>() & self.random.random::<u64>() & HCR,
            Reg::HcrxEl2 => self.random.random::<u64>() & (hcrx::TMEA | hcrx::SCTLR2EN),
            Reg::TcrEl1 if self.cpu.guest == Guest::Aarch32 => self.random.random::<u64>() & EAE,
            _ => 0,
        }
    }

    fn pstate(&mut self) -> u64 {
        const AARCH64: &[u64] = &[0, 4, 5, 5];
        const NESTED: &[u64] = &[0, 4, 5, 5, 8, 9, 9];
        const AARCH32: &[u64] = &[0x10, 0x11, 0x12, 0x13, 0x17, 0x1b, 0x1f];
        let modes = match self.cpu.guest {
            Guest::Aarch64 => AARCH64,
            Guest::Nested => NESTED,
            Guest::Aarch32 => AARCH32,
        };
        let mut mode = modes.choose(&mut self.random).copied().unwrap_or(0);
        if self.cpu.aarch32_el0 && self.one_in(16) {
            mode = 0x10;
        }
        let bits = match self.random.random_range(0..8) {
            0 => self.random.random(),
            1..=3 => self.random.random::<u64>() & (Pstate::NZCV | Pstate::DAIF),
            // IT outside T32 code would not run.
            4..=5 if self.cpu.guest == Guest::Aarch32 => {
                self.random.random::<u64>() & 0xffff_ffff & !(Pstate::IL | Pstate::IT | Pstate::T)
            }
            _ => self.random.random::<u64>() & 0xffff_ffff & !Pstate::IL,
        };
        bits & !Pstate::M | mode
    }

    fn add_steps(&mut self, steps: &mut Vec<Step>) {
        match self.random.random_range(0..100) {
            0..=39 => {
                steps.push(Step::Events(self.events()));
                if self.cpu.guest == Guest::Nested && self.one_in(3) {
                    self.change_context(steps);
                }
            }
            40..=59 => {
                let Some(program) = self.code.programs().choose(&mut self.random) else { return };
                steps.push(Step::Write(Reg::Pc, program.start));
                if self.cpu.guest == Guest::Aarch32 {
                    let state = if program.thumb { Pstate::T } else { 0 };
                    let pstate = self.pstate() & !(Pstate::T | Pstate::IT) | state;
                    steps.push(Step::Write(Reg::Pstate, pstate));
                }
                steps.push(Step::Run);
            }
            60..=74 => steps.push(Step::Run),
            75..=78 => steps.push(Step::RunImmediate),
            79..=84 => steps.push(Step::Answer(self.random.random())),
            85..=91 => {
                let pstate = self.pstate();
                steps.push(Step::Write(Reg::Pstate, pstate));
            }
            92 => steps.push(Step::Reset),
            _ => {
                let reg = configuration(self.cpu.guest).choose(&mut self.random).copied();
                if let Some((reg, value)) = reg.and_then(|reg| Some((reg, self.value(reg)?))) {
                    steps.push(Step::Write(reg, value));
                }
            }
        }
    }

    /// Switches from the guest hypervisor to its guest, or back, and runs.
    fn change_context(&mut self, steps: &mut Vec<Step>) {
        for reg in [Reg::HcrEl2, Reg::Pstate, Reg::Pc] {
            if let Some(value) = self.value(reg) {
                steps.push(Step::Write(reg, value));
            }
        }
        steps.push(Step::Run);
    }

    fn events(&mut self) -> [u8; VCPU_EVENTS_SIZE] {
        let extended = self.abi != Abi::Mainline;
        let events = VcpuEvents {
            serror_pending: self.random.random() && self.only != Only::Aborts,
            serror_has_esr: self.random.random(),
            ext_dabt_pending: self.random.random() && self.only != Only::SErrors,
            ext_iabt_pending: extended && self.one_in(3) && self.only != Only::SErrors,
            ext_abt_has_esr: extended && self.random.random(),
            serror_esr: self.iss(),
            ext_abt_esr: if extended { self.iss() } else { 0 },
        };
        let mut bytes = events.to_bytes(self.abi).unwrap_or([0; VCPU_EVENTS_SIZE]);
        if self.one_in(8) {
            // Any non-zero byte is true.
            for byte in bytes.iter_mut().take(5).filter(|byte| **byte != 0) {
                *byte = self.random.random_range(1..=255);
            }
        }
        if self.one_in(12) {
            bytes[self.random.random_range(0..VCPU_EVENTS_SIZE)] = self.random.random();
        }
        bytes
    }

    /// Mostly an ISS; sometimes more.
    fn iss(&mut self) -> u64 {
        match self.random.random_range(0..10) {
            0 => self.number(),
            1 => 0,
            2 => 1 << self.random.random_range(0..26),
            _ => self.random.random::<u64>() & 0x1ff_ffff,
        }
    }
}
