//! Shrinks a differing sequence to the shortest one that still differs.

use crate::case::{Case, Outcome};
use crate::generate::Cpu;
use crate::report::Mismatch;
use crate::{Plan, Sides, image, layout};

/// The mismatch of case `at` of a batch, made as small as possible.
pub(super) fn mismatch(sides: &Sides, plan: &Plan, at: usize, pair: &(Outcome, Outcome)) -> Mismatch {
    let original = &plan.cases[at];
    let address = image::build(&plan.cases, plan.cpu, None).ok().and_then(|i| i.sequences.get(at).copied());
    // Many candidates in one image are quick, but have other addresses, which some sequences can see (ADR,
    // BL).
    for first in [None, address] {
        if let Some((case, pair)) = smallest(sides, original, plan.cpu, first) {
            return describe(plan, at, &case, first, &pair, true);
        }
    }
    // It differs only after the sequences before it. Show the original.
    describe(plan, at, original, address, pair, false)
}

/// The failing case of a batch that one side could not run.
pub(super) fn locate_error(sides: &Sides, plan: &Plan, error: &str) -> String {
    let guilty =
        plan.cases.iter().position(|case| sides.run(std::slice::from_ref(case), plan.cpu, None).is_err());
    match guilty {
        None => format!("batch {}: {error}", plan.index),
        Some(at) => {
            let words = plan.cases[at].words(layout::CODE);
            let words: Vec<String> = words.iter().map(|w| format!("{w:08x}")).collect();
            format!("batch {}, sequence {at}: {error}; words: {}", plan.index, words.join(" "))
        }
    }
}

/// Tries all ways to make the case simpler until none of them still differs.
fn smallest(sides: &Sides, case: &Case, cpu: Cpu, first: Option<u64>) -> Option<(Case, (Outcome, Outcome))> {
    const ROUNDS: usize = 200;
    let mut best = first_differing(sides, vec![case.clone()], cpu, first)?;
    for _ in 0..ROUNDS {
        match first_differing(sides, simpler(&best.0), cpu, first) {
            Some(found) => best = found,
            None => break,
        }
    }
    Some(best)
}

/// The first candidate that differs. They share one image, or with `first` each has its own image at that
/// address.
fn first_differing(
    sides: &Sides,
    mut candidates: Vec<Case>,
    cpu: Cpu,
    first: Option<u64>,
) -> Option<(Case, (Outcome, Outcome))> {
    let differs = |(machine, qemu): &(Outcome, Outcome)| machine.difference(qemu).is_some();
    if first.is_some() {
        return candidates.into_iter().find_map(|case| {
            let pair = sides.run(std::slice::from_ref(&case), cpu, first).ok()?.pop()?;
            differs(&pair).then_some((case, pair))
        });
    }
    candidates.truncate(layout::CAPACITY);
    let pairs = sides.run(&candidates, cpu, None).ok()?;
    candidates.into_iter().zip(pairs).find(|(_, pair)| differs(pair))
}

/// Cases with fewer units, largest cuts first, then with fewer registers set, then with plain memory.
fn simpler(case: &Case) -> Vec<Case> {
    let mut candidates = Vec::new();
    let count = case.units.len();
    let mut cut = count / 2;
    while cut > 0 {
        for start in (0..=count - cut).step_by(cut) {
            let mut shorter = case.clone();
            shorter.units.drain(start..start + cut);
            candidates.push(shorter);
        }
        cut /= 2;
    }
    for i in 0..case.initial.x.len() {
        if case.initial.x[i] != 0 {
            let mut simple = case.clone();
            simple.initial.x[i] = 0;
            candidates.push(simple);
        }
    }
    for i in 0..case.initial.v.len() {
        if case.initial.v[i] != 0 {
            let mut simple = case.clone();
            simple.initial.v[i] = 0;
            candidates.push(simple);
        }
    }
    for (fpcr, fpsr) in [(0, case.initial.fpsr), (case.initial.fpcr, 0)] {
        let mut simple = case.clone();
        (simple.initial.fpcr, simple.initial.fpsr) = (fpcr, fpsr);
        if simple.initial != case.initial {
            candidates.push(simple);
        }
    }
    let mut simple = case.clone();
    simple.initial.nzcv = 0;
    simple.initial.sp = 0;
    if simple.initial != case.initial {
        candidates.push(simple.clone());
    }
    if simple.initial.buffer.iter().any(|&byte| byte != 0) {
        simple.initial.buffer.fill(0);
        candidates.push(simple);
    }
    candidates
}

fn describe(
    plan: &Plan,
    at: usize,
    case: &Case,
    first: Option<u64>,
    pair: &(Outcome, Outcome),
    shrunk: bool,
) -> Mismatch {
    let address = image::build(std::slice::from_ref(case), plan.cpu, first)
        .ok()
        .and_then(|i| i.sequences.first().copied());
    let (what, machine, qemu) = pair.0.difference(&pair.1).unwrap_or_default();
    let registers = case.initial.x.iter().enumerate().filter(|&(_, &x)| x != 0);
    let vectors = case.initial.v.iter().enumerate().filter(|&(_, &v)| v != 0);
    Mismatch {
        batch: plan.index,
        sequence: at,
        cpu: plan.cpu.option(),
        shrunk,
        units: case.units.iter().map(|unit| unit.name).collect(),
        address: address.unwrap_or(layout::CODE),
        words: case.words(address.unwrap_or(layout::CODE)),
        registers: registers.map(|(i, &x)| (format!("x{i}"), x)).collect(),
        vectors: vectors.map(|(i, &v)| (format!("v{i}"), v)).collect(),
        fpcr: case.initial.fpcr,
        fpsr: case.initial.fpsr,
        nzcv: case.initial.nzcv,
        sp: case.initial.sp,
        what,
        machine,
        qemu,
    }
}
