//! A filter of system calls that a VMM puts on all of its threads, asked for the calls of the helper's before any is made: a
//! call that is not in it would kill the process.
//!
//! Source: seccomp(2); Linux `Documentation/networking/filter.rst`, classic BPF as seccomp has it.

use seawall_host::seccomp::Rule;

/// `struct seccomp_data`, as words: the call's number, the architecture, the program counter, and six arguments.
type Data = [u32; 16];

/// An instruction: code, jump if true, jump if false, constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Instruction {
    pub(crate) code: u16,
    pub(crate) jt: u8,
    pub(crate) jf: u8,
    pub(crate) k: u32,
}

const RET_ALLOW: u32 = 0x7fff_0000;
const RET_LOG: u32 = 0x7ffc_0000;
const ACTION: u32 = 0xffff_0000;

/// `AUDIT_ARCH_AARCH64`, `AUDIT_ARCH_X86_64`.
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;
#[cfg(not(target_arch = "aarch64"))]
const ARCH: u32 = 0xc000_003e;

/// True if the filter lets such a call pass. Where the rule says nothing of an argument, it is 0.
pub(crate) fn allows(program: &[Instruction], rule: &Rule) -> bool {
    let mut data: Data = [0; 16];
    data[0] = rule.call as u32;
    data[1] = ARCH;
    for argument in rule.arguments {
        if let Some(word) = data.get_mut(4 + 2 * usize::from(argument.index)) {
            *word |= argument.value & argument.mask;
        }
    }
    let action = run(program, &data).unwrap_or(0) & ACTION;
    action == RET_ALLOW || action == RET_LOG
}

/// What the program returns; `None` if it is none that the kernel would have taken.
fn run(program: &[Instruction], data: &Data) -> Option<u32> {
    let (mut a, mut x, mut memory) = (0_u32, 0_u32, [0_u32; 16]);
    let mut at = 0_usize;
    // There are no jumps back.
    loop {
        let Instruction { code, jt, jf, k } = *program.get(at)?;
        at += 1;
        let operand = if code & 0x08 == 0 { k } else { x };
        match code & 0x07 {
            // BPF_LD, BPF_LDX: a word of the data, the size of it, a constant, a cell.
            0x00 | 0x01 => {
                let value = match code & 0xe0 {
                    0x20 => *data.get(k as usize / 4)?,
                    0x80 => size_of::<Data>() as u32,
                    0x00 => k,
                    0x60 => *memory.get(k as usize)?,
                    _ => return None,
                };
                let is_load = code & 0x01 == 0;
                *(if is_load { &mut a } else { &mut x }) = value;
            }
            0x02 => *memory.get_mut(k as usize)? = a,
            0x03 => *memory.get_mut(k as usize)? = x,
            0x04 => a = calculate(code & 0xf0, a, operand)?,
            0x05 => {
                let is_true = match code & 0xf0 {
                    0x00 => {
                        at = at.checked_add(k as usize)?;
                        continue;
                    }
                    0x10 => a == operand,
                    0x20 => a > operand,
                    0x30 => a >= operand,
                    0x40 => a & operand != 0,
                    _ => return None,
                };
                at += usize::from(if is_true { jt } else { jf });
            }
            // BPF_RET: a constant, or A.
            0x06 => return Some(if code & 0x18 == 0x10 { a } else { k }),
            // BPF_MISC: TAX, TXA.
            _ if code & 0xf8 == 0 => x = a,
            _ => a = x,
        }
    }
}

/// BPF_ALU.
fn calculate(operation: u16, a: u32, operand: u32) -> Option<u32> {
    Some(match operation {
        0x00 => a.wrapping_add(operand),
        0x10 => a.wrapping_sub(operand),
        0x20 => a.wrapping_mul(operand),
        0x30 => a.checked_div(operand)?,
        0x40 => a | operand,
        0x50 => a & operand,
        0x60 => a.checked_shl(operand)?,
        0x70 => a.checked_shr(operand)?,
        0x80 => a.wrapping_neg(),
        0x90 => a.checked_rem(operand)?,
        0xa0 => a ^ operand,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use seawall_host::seccomp::{RUNTIME, TELL, allow};
    use seccompiler::{SeccompAction, SeccompFilter};

    use super::*;

    /// A filter as rust-vmm's VMMs make them: what is not allowed kills.
    fn program(rules: &[Rule], default: SeccompAction, then: SeccompAction) -> Vec<Instruction> {
        let mut filter = BTreeMap::new();
        allow(&mut filter, rules).unwrap();
        let arch = std::env::consts::ARCH.try_into().unwrap();
        let filter = SeccompFilter::new(filter, default, then, arch).unwrap();
        let program: seccompiler::BpfProgram = filter.try_into().unwrap();
        program.into_iter().map(|i| Instruction { code: i.code, jt: i.jt, jf: i.jf, k: i.k }).collect()
    }

    #[test]
    fn a_filter_that_lists_what_is_allowed_allows_just_that() {
        let program = program(TELL.rules, SeccompAction::KillProcess, SeccompAction::Allow);
        assert!(TELL.rules.iter().all(|rule| allows(&program, rule)));
        let others: Vec<_> = RUNTIME.iter().filter(|rule| allows(&program, rule)).collect();
        let names: Vec<_> = others.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["rt_sigprocmask"], "which is in both");
    }

    /// As QEMU's `-sandbox`.
    #[test]
    fn a_filter_that_lists_what_is_forbidden_allows_the_rest() {
        let forbidden = [TELL.rules[0]];
        let program = program(&forbidden, SeccompAction::Allow, SeccompAction::Trap);
        let allowed: Vec<_> = TELL.rules.iter().map(|rule| allows(&program, rule)).collect();
        assert_eq!(allowed.iter().position(|allowed| !allowed), Some(0));
        assert_eq!(allowed.iter().filter(|allowed| !**allowed).count(), 1);
    }

    #[test]
    fn what_is_no_program_allows_nothing() {
        assert!(!allows(&[], &TELL.rules[0]));
        let past_the_end = Instruction { code: 0x05, jt: 0, jf: 0, k: 7 };
        assert!(!allows(&[past_the_end], &TELL.rules[0]));
        let all = Instruction { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 };
        assert!(allows(&[all], &TELL.rules[0]));
    }
}
