//! A vCPU of the model with memory around it.

use std::collections::HashSet;

use seawall_conformance::{RAM, RAM_SIZE};
use seawall_events::kernel::VcpuConfig;
use seawall_model::Vcpu;

pub(crate) struct Cpu {
    pub(crate) vcpu: Vcpu,
    ram: Vec<u8>,
    /// Addresses of bad lines, and of pages that the host knows to be bad.
    pub(crate) bad_lines: HashSet<u64>,
    pub(crate) bad_pages: HashSet<u64>,
}

impl Cpu {
    pub(crate) fn new(config: VcpuConfig, is_initialised: bool) -> Self {
        Self {
            vcpu: Vcpu { is_initialised, ..Vcpu::new(config) },
            ram: vec![0; RAM_SIZE as usize],
            bad_lines: HashSet::new(),
            bad_pages: HashSet::new(),
        }
    }

    /// Bytes of RAM; `None` if some of them are outside.
    pub(crate) fn bytes(&mut self, at: u64, len: usize) -> Option<&mut [u8]> {
        let start = usize::try_from(at.checked_sub(RAM)?).ok()?;
        self.ram.get_mut(start..start.checked_add(len)?)
    }

    /// A little-endian word of RAM.
    pub(crate) fn word(&mut self, at: u64) -> Option<u32> {
        let bytes = self.bytes(at, 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }
}
