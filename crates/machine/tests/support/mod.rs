//! A guest for tests: words of A64 code at [`CODE`], vectors that loop on the spot at [`VECTORS`], and an
//! identity map to switch on.
#![allow(dead_code)]

pub(crate) mod arbitrary;
pub(crate) mod gic;
pub(crate) mod sysreg;

use seawall_arm::Reg;
use seawall_inject::{Exit, Inject as _, Vcpu as _};
use seawall_machine::{Config, Vm};

/// Where the code is.
pub(crate) const CODE: u64 = 0x4008_0000;
/// VBAR_EL1. Every vector is `b .`.
pub(crate) const VECTORS: u64 = 0x4009_0000;
/// A page of data, in the 2 MiB that are mapped by pages.
pub(crate) const DATA: u64 = 0x4020_0000;
/// Where there is no RAM.
pub(crate) const HOLE: u64 = 0x0a00_0000;
/// Translation tables: levels 1, 2 and 3.
pub(crate) const TABLES: [u64; 3] = [0x4100_0000, 0x4100_1000, 0x4100_2000];

/// SCTLR_EL1 with the MMU on: reset value, M, C, I.
pub(crate) const SCTLR_ON: u64 = 0x30d5_0998 | 0x1005;
/// SCTLR_EL1.SPAN.
pub(crate) const SPAN: u64 = 1 << 23;
/// TCR_EL1: 39-bit TTBR0 region, 4 KiB granule, no TTBR1, 40-bit addresses.
pub(crate) const TCR: u64 = 0x19 | 1 << 23 | 2 << 32;
/// TCR_EL1.HA and HD.
pub(crate) const HARDWARE_UPDATE: u64 = 3 << 39;

// Descriptor bits.
pub(crate) const PAGE: u64 = 3;
pub(crate) const BLOCK: u64 = 1;
pub(crate) const AF: u64 = 1 << 10;
pub(crate) const NORMAL: u64 = 3 << 8;
pub(crate) const DEVICE: u64 = 1 << 2;
pub(crate) const EL0: u64 = 1 << 6;
pub(crate) const READ_ONLY: u64 = 1 << 7;
pub(crate) const GUARDED: u64 = 1 << 50;
pub(crate) const DBM: u64 = 1 << 51;

/// PSTATE: EL1h with DAIF set; EL0.
pub(crate) const EL1H: u64 = 0x3c5;
pub(crate) const EL0T: u64 = 0x3c0;

/// `b .`
pub(crate) const LOOP: u32 = 0x1400_0000;

pub(crate) struct Guest {
    pub(crate) vm: Vm,
}

impl Guest {
    /// MMU off, EL1h, DAIF set, 32 MiB.
    pub(crate) fn new(code: &[u32]) -> Guest {
        Guest::with(code, Config::default())
    }

    pub(crate) fn with(code: &[u32], config: Config) -> Guest {
        let vm = Vm::new(Config { memory_size: 32 << 20, ..config }).expect("32 MiB");
        let mut guest = Guest { vm };
        guest.code_at(CODE, code);
        for vector in 0..16 {
            guest.code_at(VECTORS + 0x80 * vector, &[LOOP]);
        }
        guest.set(Reg::Pc, CODE);
        guest.set(Reg::VbarEl1, VECTORS);
        guest
    }

    /// The same with the MMU on: RAM mapped to itself by blocks, the 2 MiB at [`DATA`] by pages, all for EL1.
    pub(crate) fn mapped(code: &[u32]) -> Guest {
        Guest::new(code).map()
    }

    pub(crate) fn map(mut self) -> Guest {
        let leaf = NORMAL | AF;
        self.write(TABLES[0], DEVICE | AF | BLOCK);
        self.write(TABLES[0] + 8, TABLES[1] | 3);
        for n in 0..16 {
            let block = 0x4000_0000 + (n << 21);
            self.write(TABLES[1] + 8 * n, block | leaf | BLOCK);
        }
        self.write(TABLES[1] + 8, TABLES[2] | 3);
        for n in 0..512 {
            self.write(TABLES[2] + 8 * n, (DATA + (n << 12)) | leaf | PAGE);
        }
        self.set(Reg::MairEl1, 0x00ff);
        self.set(Reg::TcrEl1, TCR);
        self.set(Reg::Ttbr0El1, TABLES[0]);
        self.set(Reg::SctlrEl1, SCTLR_ON);
        self
    }

    /// Add bits to the descriptor of a page in the 2 MiB at [`DATA`].
    pub(crate) fn change_page(&mut self, va: u64, set: u64, clear: u64) {
        let descriptor = page_descriptor(va);
        let value = self.read(descriptor);
        self.write(descriptor, value & !clear | set);
    }

    pub(crate) fn code_at(&mut self, pa: u64, words: &[u32]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.vm.memory_mut().store(pa, &bytes).expect("in RAM");
    }

    pub(crate) fn write(&mut self, pa: u64, value: u64) {
        self.vm.memory_mut().store(pa, &value.to_le_bytes()).expect("in RAM");
    }

    pub(crate) fn read(&self, pa: u64) -> u64 {
        let mut bytes = [0; 8];
        self.vm.memory().load(pa, &mut bytes).expect("in RAM");
        u64::from_le_bytes(bytes)
    }

    pub(crate) fn poison(&mut self, pa: u64) {
        self.vm.poison(pa..pa + 1).expect("in RAM");
    }

    pub(crate) fn set(&mut self, reg: Reg, value: u64) {
        self.vm.vcpu(0).expect("CPU 0").set_reg(reg, value).expect("a register that it has");
    }

    pub(crate) fn get(&mut self, reg: Reg) -> u64 {
        self.vm.vcpu(0).expect("CPU 0").reg(reg).expect("a register that it has")
    }

    pub(crate) fn x(&mut self, n: u8) -> u64 {
        self.get(Reg::X(n))
    }

    /// Run at most so many steps.
    pub(crate) fn run(&mut self, steps: u64) -> Exit {
        let mut vcpu = self.vm.vcpu(0).expect("CPU 0");
        vcpu.set_budget(Some(steps));
        vcpu.run().expect("a run that ends")
    }

    /// Run so many steps and nothing else.
    pub(crate) fn steps(&mut self, steps: u64) {
        assert_eq!(self.run(steps), Exit::Intr);
    }

    /// What an exception left: (PC, ESR, FAR, ELR, SPSR).
    pub(crate) fn taken(&mut self) -> [u64; 5] {
        [Reg::Pc, Reg::EsrEl1, Reg::FarEl1, Reg::ElrEl1, Reg::SpsrEl1].map(|reg| self.get(reg))
    }
}

/// Address of the descriptor of a page in the 2 MiB at [`DATA`].
pub(crate) fn page_descriptor(va: u64) -> u64 {
    TABLES[2] + 8 * ((va - DATA) >> 12)
}
