//! Accesses near to each other: of those by one base within a few bytes, the first asks the TLB for all.
//!
//! Between the first of them and the last no entry of a TLB may come or go, so that the later ones find what they would
//! have found themselves. Therefore what lies between are accesses and arithmetic alone, and if one of these accesses
//! must be left to the interpreter, all to the last one are.

use super::memory::Access;
use crate::decode::Insn;
use crate::decode::insn::SP;
use crate::jit::block::is_pure;
use crate::jit::enter::KEPT;

/// Bytes that a group spans at most. More would more often leave the page, which costs more than it saves.
const SPAN: i32 = 128;

/// How an access finds its place in RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// By the TLB.
    Own,
    /// By the TLB, for so many bytes from `lowest` above the base. Where these are is kept.
    First { lowest: i32, bytes: i32, kept: usize },
    /// So far above what is kept.
    Later { distance: i32, kept: usize },
}

/// A block's accesses, as known before it is translated.
#[derive(Debug)]
pub(super) struct Plan {
    checks: Vec<Check>,
    /// For each instruction the last one that the interpreter does, should it have to do this one.
    last: Vec<usize>,
}

/// Accesses by one base: for each its number, where it is from what the base was at the first, and its bytes.
struct Group {
    base: u8,
    is_store: bool,
    /// The change of the base since the first.
    moved: i32,
    members: Vec<(usize, i32, i32)>,
}

impl Group {
    /// The lowest byte, and the end, with one more access.
    fn with(&self, at: i32, bytes: i32) -> (i32, i32) {
        let low = self.members.iter().map(|member| member.1).fold(at, i32::min);
        let end = self.members.iter().map(|member| member.1 + member.2).fold(at + bytes, i32::max);
        (low, end)
    }
}

impl Plan {
    pub(super) fn of(insns: &[Insn]) -> Self {
        let mut plan = Self { checks: vec![Check::Own; insns.len()], last: (0..insns.len()).collect() };
        let (mut open, mut groups): (Vec<Group>, Vec<Group>) = (Vec::new(), Vec::new());
        for (k, insn) in insns.iter().enumerate() {
            let access = Access::of(insn);
            if access.is_none() && !is_pure(insn.op) && insn.op.arithmetic().is_none() {
                groups.append(&mut open);
                continue;
            }
            if let Some(access) = access.filter(|access| access.has_near_address()) {
                join(&mut open, &mut groups, (k, insn, access));
            }
            written(&mut open, &mut groups, insn, access);
        }
        groups.append(&mut open);
        groups.retain(|group| group.members.len() > 1);
        groups.sort_by_key(|group| group.members.first().map(|member| member.0));
        groups.truncate(KEPT);
        groups.iter().enumerate().for_each(|(kept, group)| plan.add(group, kept));
        plan
    }

    fn add(&mut self, group: &Group, kept: usize) {
        let [(first, at, bytes), .., (last, ..)] = group.members[..] else { return };
        let (lowest, end) = group.with(at, bytes);
        for (n, (k, at, _)) in group.members.iter().enumerate() {
            self.checks[*k] = if n == 0 {
                Check::First { lowest, bytes: end - lowest, kept }
            } else {
                Check::Later { distance: at - lowest, kept }
            };
        }
        // Groups that overlap end together.
        let from = (0..=first).find(|k| self.last[*k] >= first).unwrap_or(first);
        let to = self.last[first].max(last);
        self.last[from..=to].fill(to);
    }

    pub(super) fn check(&self, k: usize) -> Check {
        self.checks.get(k).copied().unwrap_or(Check::Own)
    }

    pub(super) fn last(&self, k: usize) -> usize {
        self.last.get(k).copied().unwrap_or(k)
    }
}

/// The access becomes one of the group of its base, if it is near enough; else it begins another.
fn join(open: &mut Vec<Group>, groups: &mut Vec<Group>, (k, insn, access): (usize, &Insn, Access)) {
    let (base, is_store) = (insn.rn, access.data.is_store());
    let (displacement, bytes) = (insn.imm as i32, access.bytes());
    let found = open.iter().position(|group| group.base == base && group.is_store == is_store);
    if let Some(n) = found {
        let at = open[n].moved + displacement;
        let (low, end) = open[n].with(at, bytes);
        if end - low <= SPAN {
            open[n].members.push((k, at, bytes));
            return;
        }
        groups.push(open.swap_remove(n));
    }
    open.push(Group { base, is_store, moved: 0, members: vec![(k, displacement, bytes)] });
}

/// The instruction's effect on the bases.
fn written(open: &mut Vec<Group>, groups: &mut Vec<Group>, insn: &Insn, access: Option<Access>) {
    let change = access.map_or(0, |access| access.change(insn));
    let loads = |access: Access, slot| access.loads(insn).contains(&Some(slot));
    let mut n = 0;
    while let Some(group) = open.get_mut(n) {
        let base = group.base;
        let is_written = match access {
            Some(access) => loads(access, base),
            None => insn.rd == base,
        };
        let moves = base == insn.rn && change != 0;
        // SP stays aligned to 16 bytes, as it was when the first access looked.
        let is_lost = is_written || moves && (base == SP && change % 16 != 0 || group.moved.abs() > SPAN);
        if is_lost {
            groups.push(open.swap_remove(n));
            continue;
        }
        group.moved += if moves { change } else { 0 };
        n += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::Check::{First, Later, Own};
    use super::*;
    use crate::decode::decode;

    fn checks(words: &[u32]) -> (Vec<Check>, Vec<usize>) {
        let insns: Vec<Insn> = words.iter().map(|word| decode(*word)).collect();
        let Plan { checks, last } = Plan::of(&insns);
        (checks, last)
    }

    #[test]
    fn loads_by_one_base_with_arithmetic_between_ask_once_and_go_to_the_interpreter_together() {
        // ldr x1, [x0, #16]; add x2, x2, x1; ldr w3, [x0]; nop
        let (checks, last) = checks(&[0xf940_0801, 0x8b01_0042, 0xb940_0003, 0xd503_201f]);
        let first = First { lowest: 0, bytes: 24, kept: 0 };
        assert_eq!(checks, [first, Own, Later { distance: 0, kept: 0 }, Own]);
        assert_eq!(last, [2, 2, 2, 3]);
    }

    #[test]
    fn a_base_that_is_written_back_stays_the_same_and_one_that_is_loaded_or_computed_is_another() {
        // stp x29, x30, [sp, #-32]!; stp x19, x20, [sp, #16]
        let first = First { lowest: -32, bytes: 32, kept: 0 };
        assert_eq!(checks(&[0xa9be_7bfd, 0xa901_53f3]).0, [first, Later { distance: 16, kept: 0 }]);
        // ldr x0, [x0]; ldr x1, [x0]
        assert_eq!(checks(&[0xf940_0000, 0xf940_0001]).0, [Own, Own]);
        // ldr x1, [x0]; add x0, x0, x2; ldr x1, [x0]
        assert_eq!(checks(&[0xf940_0001, 0x8b02_0000, 0xf940_0001]).0, [Own, Own, Own]);
    }

    #[test]
    fn loads_and_stores_places_far_apart_and_those_around_a_system_register_are_not_one_group() {
        // ldr x1, [x0]; str x1, [x0]
        assert_eq!(checks(&[0xf940_0001, 0xf900_0001]).0, [Own, Own]);
        // ldr x1, [x0]; ldr x1, [x0, #128]
        assert_eq!(checks(&[0xf940_0001, 0xf940_4001]).0, [Own, Own]);
        // ldr x1, [x0]; mrs x2, tcr_el1; ldr x1, [x0]
        assert_eq!(checks(&[0xf940_0001, 0xd538_2042, 0xf940_0001]).0, [Own, Own, Own]);
    }
}
