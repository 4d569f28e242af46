//! A vCPU as the kernel half sees it: registers in a map, and what the kernel keeps beside them.

use std::collections::{HashMap, HashSet};

use seawall_conformance::{RAM, RAM_SIZE};
use seawall_events::kernel::{LastFault, VcpuConfig, VcpuState, VirtualSError};
use seawall_events::{Reg, Registers};

/// A load or store that waits for the VMM.
#[derive(Clone, Copy)]
pub(crate) struct Waiting {
    /// The register that is loaded.
    pub(crate) load: Option<u8>,
    pub(crate) data: [u8; 8],
    /// Size of the instruction, bytes.
    pub(crate) insn: u64,
}

pub(crate) struct Cpu {
    pub(crate) regs: HashMap<Reg, u64>,
    pub(crate) config: VcpuConfig,
    pub(crate) last_fault: LastFault,
    pub(crate) serror: VirtualSError,
    pub(crate) waiting: Option<Waiting>,
    pub(crate) initialised: bool,
    pub(crate) has_run: bool,
    ram: Vec<u8>,
    /// Addresses of bad lines, and of pages that the host knows to be bad.
    pub(crate) bad_lines: HashSet<u64>,
    pub(crate) bad_pages: HashSet<u64>,
}

impl Cpu {
    pub(crate) fn new(config: VcpuConfig, initialised: bool) -> Self {
        let pstate = match config {
            VcpuConfig { el1_aarch32: true, .. } => 0x1d3,
            VcpuConfig { el2: true, .. } => 0x3c9,
            _ => 0x3c5,
        };
        Self {
            regs: HashMap::from([(Reg::Pstate, pstate)]),
            config,
            last_fault: LastFault::default(),
            serror: VirtualSError::default(),
            waiting: None,
            initialised,
            has_run: false,
            ram: vec![0; RAM_SIZE as usize],
            bad_lines: HashSet::new(),
            bad_pages: HashSet::new(),
        }
    }

    /// Bytes of RAM; `None` if some of them are not.
    pub(crate) fn bytes(&mut self, at: u64, len: usize) -> Option<&mut [u8]> {
        let start = usize::try_from(at.checked_sub(RAM)?).ok()?;
        self.ram.get_mut(start..start.checked_add(len)?)
    }

    /// A little-endian word of RAM.
    pub(crate) fn word(&mut self, at: u64) -> Option<u32> {
        let bytes = self.bytes(at, 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }

    pub(crate) fn is_aarch32(&self) -> bool {
        self.reg(Reg::Pstate) >> 4 & 1 != 0
    }
}

impl Registers for Cpu {
    fn reg(&self, reg: Reg) -> u64 {
        self.regs.get(&reg).copied().unwrap_or(0)
    }

    fn set_reg(&mut self, reg: Reg, value: u64) {
        if !matches!(reg, Reg::X(31..)) {
            self.regs.insert(reg, value);
        }
    }
}

impl VcpuState for Cpu {
    fn config(&self) -> VcpuConfig {
        self.config
    }

    fn last_fault(&self) -> LastFault {
        self.last_fault
    }

    fn walk_level(&self, _va: u64, _descriptor_ipa: u64) -> Option<i8> {
        None
    }

    fn drop_mmio(&mut self) {
        self.waiting = None;
    }

    fn serror(&self) -> VirtualSError {
        self.serror
    }

    fn set_serror(&mut self, serror: VirtualSError) {
        self.serror = serror;
    }

    fn is_initialised(&self) -> bool {
        self.initialised
    }

    fn has_run(&self) -> bool {
        self.has_run
    }
}
