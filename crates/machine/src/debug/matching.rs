//! What a breakpoint and a watchpoint match.

use seawall_arm::ExceptionClass;

use super::{COUNT, Debug, Point};
use crate::cpu::Cpu;
use crate::memory::PAGE_SIZE;
use crate::trap::Intent;

/// ISS of a breakpoint, watchpoint or software step: IFSC or DFSC = debug exception.
pub(super) const DEBUG_EXCEPTION: u32 = 0x22;
/// Bits of an address that are compared: 48 down to 0 (no FEAT_LVA).
const ADDRESS: u64 = (1 << 49) - 1;

/// Fields of DBGBCRn_EL1 and DBGWCRn_EL1 that are in both: PMC or PAC, HMC, SSC, LBN.
impl Point {
    fn field(self, low: u32, width: u32) -> u64 {
        self.control >> low & ((1 << width) - 1)
    }

    /// DBGBCRn_EL1.BT.
    fn breakpoint_type(self) -> u64 {
        self.field(20, 4)
    }

    /// True if it is for this Exception level, in Non-secure state.
    /// Source: `AArch64.StateMatch`, without EL3.
    fn matches_state(self, el: u8) -> bool {
        let (levels, hmc, ssc) = (self.field(1, 2), self.field(13, 1), self.field(14, 2));
        if el == 2 {
            // Secure state alone: SSC = 10.
            return ssc == 3 || hmc != 0 && ssc != 2;
        }
        let is_secure_only = ssc == 2 || ssc == 3 && hmc == 0;
        let level = if el == 0 { levels & 2 } else { levels & 1 };
        !is_secure_only && level != 0
    }

    /// The bytes of an aligned doubleword (a word, if the address is not aligned to more) that are watched:
    /// their first address, and DBGWCRn_EL1.BAS as far as it counts.
    fn watched_bytes(self) -> u64 {
        if self.value & 4 == 0 { self.field(5, 8) } else { self.field(5, 4) }
    }

    /// log2 of the bytes whose addresses are not told apart: DBGWCRn_EL1.MASK, or those of `watched_bytes`.
    fn watched_shift(self) -> u32 {
        let mask = self.field(24, 5) as u32;
        let bytes = if self.value & 4 == 0 { 3 } else { 2 };
        mask.max(bytes)
    }

    /// Source: `AArch64.WatchpointByteMatch`. A MASK of 1 or 2 is reserved: it is taken for none.
    fn watches(self, va: u64) -> bool {
        let is_near = ((va ^ self.value) & ADDRESS) >> self.watched_shift() == 0;
        is_near && self.watched_bytes() >> (va & if self.value & 4 == 0 { 7 } else { 3 }) & 1 != 0
    }

    /// True if a byte of the page at `va` may be one that is watched.
    fn watches_in_page(self, va: u64) -> bool {
        let shift = self.watched_shift().max(PAGE_SIZE.trailing_zeros());
        ((va ^ self.value) & ADDRESS) >> shift == 0
    }
}

impl Debug {
    /// True if a breakpoint that `linked` names compares the context, and finds it.
    fn linked_context_matches(&self, linked: u64, contextidr: u64) -> bool {
        self.breakpoints.get(linked as usize).is_some_and(|point| {
            point.is_enabled() && point.breakpoint_type() == 3 && point.value as u32 == contextidr as u32
        })
    }

    /// Source: `AArch64.BreakpointMatch`, `AArch64.BreakpointValueMatch`.
    pub(super) fn breakpoint_matches(&self, pc: u64, el: u8, contextidr: u64) -> bool {
        self.breakpoints.iter().any(|point| {
            let matches_address = (pc ^ point.value) & ADDRESS & !3 == 0;
            let matches_value = match point.breakpoint_type() {
                0 => matches_address,
                1 => matches_address && self.linked_context_matches(point.field(16, 4), contextidr),
                2 => point.value as u32 == contextidr as u32,
                // Linked by another one; or there is no such type.
                _ => false,
            };
            point.is_enabled() && point.matches_state(el) && matches_value
        })
    }

    /// True if an instruction in the page at `pc` may match.
    pub(super) fn may_break_in_page(&self, pc: u64) -> bool {
        self.breakpoints.iter().any(|point| {
            let is_address = point.breakpoint_type() < 2;
            point.is_enabled() && (!is_address || (pc ^ point.value) & ADDRESS & !(PAGE_SIZE - 1) == 0)
        })
    }

    /// Source: `AArch64.WatchpointMatch`.
    fn watchpoint_matches(&self, point: Point, va: u64, write: bool, el: u8, contextidr: u64) -> bool {
        let accesses = point.field(3, 2);
        let is_linked = point.field(20, 1) != 0;
        point.is_enabled()
            && point.matches_state(el)
            && accesses & if write { 2 } else { 1 } != 0
            && (!is_linked || self.linked_context_matches(point.field(16, 4), contextidr))
            && point.watches(va)
    }
}

impl Cpu {
    /// True if the page at `va` must stay out of the TLB.
    pub(crate) fn watches_in_page(&self, va: u64) -> bool {
        self.debug.watching
            && (0..COUNT).any(|n| {
                self.debug
                    .watchpoints
                    .get(n)
                    .is_some_and(|point| point.is_enabled() && point.watches_in_page(va))
            })
    }

    /// Look for watchpoints on the `len` bytes at `va`, accessed with the rights of EL1 or EL0. `None`: one
    /// matches, the exception is recorded; FAR is the first address that does.
    pub(crate) fn check_watchpoints(
        &mut self,
        va: u64,
        len: u64,
        intent: Intent,
        privileged: bool,
    ) -> Option<()> {
        if !self.debug.watching || !self.debug_exceptions_enabled() {
            return Some(());
        }
        let level = if privileged { self.exception_level().max(1) } else { 0 };
        let (el, contextidr) = (level, self.sys.contextidr);
        let matches = |va: u64| {
            let points = &self.debug.watchpoints;
            points.iter().any(|point| self.debug.watchpoint_matches(*point, va, intent.write, el, contextidr))
        };
        let Some(far) = (0..len).map(|n| va.wrapping_add(n)).find(|va| matches(*va)) else { return Some(()) };
        let class = self.debug_class(ExceptionClass::WATCHPOINT_LOWER, ExceptionClass::WATCHPOINT_SAME);
        self.raise(class, intent.iss() | DEBUG_EXCEPTION, Some(far));
        None
    }
}
