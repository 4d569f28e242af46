//! The smallest sequence that still differs.

use seawall_arm::{Pstate, Reg};
use seawall_events::wire::VCPU_EVENTS_SIZE;

use super::{Sequence, Step};

/// Makes a sequence smaller as long as `differs` returns true: fewer steps, then fewer bits in the events and
/// in the initial registers. It calls `differs` at most `budget` times.
pub fn shrink(sequence: &Sequence, mut budget: u32, mut differs: impl FnMut(&Sequence) -> bool) -> Sequence {
    let mut best = sequence.clone();
    let mut changed = true;
    while changed && budget > 0 {
        changed = false;
        for candidate in candidates(&best) {
            if budget == 0 {
                break;
            }
            budget -= 1;
            if differs(&candidate) {
                best = candidate;
                changed = true;
                break;
            }
        }
    }
    best
}

/// Sequences that are a little simpler, the greatest simplifications first.
fn candidates(from: &Sequence) -> Vec<Sequence> {
    let mut all = Vec::new();
    let count = from.steps.len();
    if count > 2 {
        all.push(with_steps(from, from.steps[..count / 2].to_vec()));
    }
    for n in (0..count).rev() {
        let mut steps = from.steps.clone();
        steps.remove(n);
        all.push(with_steps(from, steps));
    }
    for (n, step) in from.steps.iter().enumerate() {
        for simpler in simpler_steps(*step) {
            let mut steps = from.steps.clone();
            steps[n] = simpler;
            all.push(with_steps(from, steps));
        }
    }
    for (n, (reg, value)) in from.start.iter().enumerate() {
        for simpler in simpler_values(*reg, *value) {
            let mut candidate = from.clone();
            candidate.start[n].1 = simpler;
            all.push(candidate);
        }
    }
    all
}

fn with_steps(from: &Sequence, steps: Vec<Step>) -> Sequence {
    Sequence { steps, ..from.clone() }
}

fn simpler_steps(step: Step) -> Vec<Step> {
    match step {
        Step::Events(bytes) => {
            let nonzero = (0..VCPU_EVENTS_SIZE).filter(|n| bytes[*n] != 0);
            let without = |n: usize| {
                let mut bytes = bytes;
                bytes[n] = 0;
                Step::Events(bytes)
            };
            nonzero.map(without).collect()
        }
        Step::Write(reg, value) => {
            simpler_values(reg, value).into_iter().map(|value| Step::Write(reg, value)).collect()
        }
        Step::Answer(data) if data != [0; 8] => vec![Step::Answer([0; 8])],
        _ => Vec::new(),
    }
}

/// 0, or the value with one bit less. PSTATE keeps its mode.
fn simpler_values(reg: Reg, value: u64) -> Vec<u64> {
    let (removable, kept) = match reg {
        Reg::Pstate => (value & !Pstate::M, value & Pstate::M),
        Reg::Pc | Reg::VbarEl1 | Reg::VbarEl2 | Reg::X(7 | 25..=28) => (0, value),
        _ => (value, 0),
    };
    if removable == 0 {
        return Vec::new();
    }
    let bits = (0..64).map(|n| 1_u64 << n).filter(|bit| removable & bit != 0);
    std::iter::once(kept).chain(bits.map(|bit| value & !bit)).filter(|simpler| *simpler != value).collect()
}
