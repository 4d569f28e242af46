//! A test case: an initial state and a short sequence; and its outcome.

use crate::layout;
use crate::template::BranchOffset;

/// Registers and memory before a sequence, or after it.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct State {
    /// X0 to X30.
    pub(super) x: [u64; 31],
    /// SP.
    pub(super) sp: u64,
    /// NZCV in bits `[31:28]`.
    pub(super) nzcv: u64,
    /// V0 to V31.
    pub(super) v: [u128; 32],
    /// FPCR.
    pub(super) fpcr: u64,
    /// FPSR.
    pub(super) fpsr: u64,
    /// The data buffer, which starts at `layout::BUFFER`.
    pub(super) buffer: Vec<u8>,
}

/// A correction that depends on a unit's address.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fix {
    /// The last word branches over this many of the units that follow.
    Branch(BranchOffset, usize),
    /// The first word is an ADR of the address after this many of the units that follow.
    Adr(usize),
    /// The last word is a PC-relative literal access to this address.
    Literal(u64),
}

/// One instruction under test, with the instructions that it needs around it. Sequences are made and shrunk
/// by units.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    /// The group, for reports.
    pub(super) name: &'static str,
    /// Instruction words.
    pub(super) words: Vec<u32>,
    /// The correction to make when the address is known.
    pub(super) fix: Option<Fix>,
}

/// A sequence and the state it starts from.
#[derive(Clone)]
pub(super) struct Case {
    /// The initial state.
    pub(super) initial: State,
    /// The units, in order.
    pub(super) units: Vec<Unit>,
}

/// The reason why a sequence stopped early.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FaultKind {
    /// An undefined instruction (SIGILL; EC 0x00, 0x18 or 0x07).
    Undefined,
    /// A memory fault (SIGSEGV; a data or instruction abort).
    Memory,
    /// A misaligned access or PC (SIGBUS).
    Alignment,
    /// BRK (SIGTRAP; EC 0x3c).
    Breakpoint,
    /// Anything else: the raw signal number or syndrome.
    Other(u64),
}

/// A fault, as user space sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fault {
    /// The kind.
    pub(super) kind: FaultKind,
    /// The instruction.
    pub(super) pc: u64,
    /// The data address, for memory faults; otherwise 0.
    pub(super) address: u64,
}

/// The end of a sequence.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Registers and buffer at the end, or at the fault.
    pub(super) state: State,
    /// None if the sequence ran to its end.
    pub(super) fault: Option<Fault>,
}

impl Case {
    /// The words of the sequence, for address `pc`.
    pub(super) fn words(&self, pc: u64) -> Vec<u32> {
        let mut starts = Vec::with_capacity(self.units.len() + 1);
        let mut count = 0;
        for unit in &self.units {
            starts.push(count);
            count += unit.words.len();
        }
        starts.push(count);

        let mut words = Vec::with_capacity(count);
        for (i, unit) in self.units.iter().enumerate() {
            words.extend_from_slice(&unit.words);
            let target = |skip: usize| starts[(i + 1 + skip).min(self.units.len())];
            let last = words.len() - 1;
            match unit.fix {
                None => {}
                Some(Fix::Branch(offset, skip)) => {
                    words[last] = offset.set(words[last], (target(skip) - last) as u32);
                }
                Some(Fix::Adr(skip)) => {
                    // ADR's immediate in words is [23:5], like a conditional branch's.
                    let first = starts[i];
                    words[first] = BranchOffset::Imm19.set(words[first], (target(skip) - first) as u32);
                }
                Some(Fix::Literal(address)) => {
                    let from = pc + last as u64 * 4;
                    let offset = (address.wrapping_sub(from) >> 2) as u32;
                    words[last] = BranchOffset::Imm19.set(words[last], offset);
                }
            }
        }
        words
    }
}

impl Outcome {
    /// The first difference, in words, `(what, here, there)`.
    pub(super) fn difference(&self, other: &Self) -> Option<(String, String, String)> {
        let hex = |v: u64| format!("{v:#018x}");
        let fault = |f: &Option<Fault>| {
            f.map_or("no fault".to_owned(), |f| {
                format!("{:?} at pc {:#x}, address {:#x}", f.kind, f.pc, f.address)
            })
        };
        if self.fault != other.fault {
            return Some(("fault".into(), fault(&self.fault), fault(&other.fault)));
        }
        let (a, b) = (&self.state, &other.state);
        if let Some(i) = (0..a.x.len()).find(|&i| a.x[i] != b.x[i]) {
            return Some((format!("x{i}"), hex(a.x[i]), hex(b.x[i])));
        }
        if a.sp != b.sp {
            return Some(("sp".into(), hex(a.sp), hex(b.sp)));
        }
        if a.nzcv != b.nzcv {
            return Some(("nzcv".into(), hex(a.nzcv), hex(b.nzcv)));
        }
        if let Some(i) = (0..a.v.len()).find(|&i| a.v[i] != b.v[i]) {
            let hex = |v: u128| format!("{v:#034x}");
            return Some((format!("v{i}"), hex(a.v[i]), hex(b.v[i])));
        }
        if a.fpcr != b.fpcr {
            return Some(("fpcr".into(), hex(a.fpcr), hex(b.fpcr)));
        }
        if a.fpsr != b.fpsr {
            return Some(("fpsr".into(), hex(a.fpsr), hex(b.fpsr)));
        }
        let i = a.buffer.iter().zip(&b.buffer).position(|(a, b)| a != b)?;
        let what = format!("memory at {:#x}", layout::BUFFER + i as u64);
        Some((what, format!("{:#04x}", a.buffer[i]), format!("{:#04x}", b.buffer[i])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(units: Vec<Unit>) -> Case {
        Case { initial: State::default(), units }
    }

    fn unit(words: &[u32], fix: Option<Fix>) -> Unit {
        Unit { name: "", words: words.to_vec(), fix }
    }

    const NOP: u32 = 0xd503_201f;

    #[test]
    fn a_branch_skips_whole_units_and_stops_at_the_end_of_the_sequence() {
        let units = vec![
            unit(&[0x5400_0001], Some(Fix::Branch(BranchOffset::Imm19, 1))),
            unit(&[NOP, NOP], None),
            unit(&[0x1400_0000], Some(Fix::Branch(BranchOffset::Imm26, 9))),
            unit(&[NOP], None),
        ];
        // b.ne +12; nop; nop; b +8; nop
        assert_eq!(case(units).words(0x1000), [0x5400_0061, NOP, NOP, 0x1400_0002, NOP]);
    }

    #[test]
    fn a_register_branch_gets_the_address_of_its_target_by_adr() {
        let units = vec![
            unit(&[0x1000_0003, 0xd61f_0060], Some(Fix::Adr(1))),
            unit(&[NOP], None),
            unit(&[NOP], None),
        ];
        // adr x3, +12; br x3
        assert_eq!(case(units).words(0x1000)[..2], [0x1000_0063, 0xd61f_0060]);
    }

    #[test]
    fn a_literal_is_reached_from_where_the_load_stands() {
        let units = vec![unit(&[NOP], None), unit(&[0x5800_0002], Some(Fix::Literal(0x2000)))];
        // At 0x1004: ldr x2, +0xffc
        assert_eq!(case(units).words(0x1000)[1], 0x5800_7fe2);
    }
}
