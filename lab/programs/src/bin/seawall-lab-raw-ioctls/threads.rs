//! Eight vCPUs of one VM, each on a thread of its own.

use std::sync::Barrier;
use std::thread;

use crate::bytes::{Abi, DABT, Events, GARBAGE, IABT};
use crate::raw;
use crate::report::{Not, Outcome, Report, expect_call};
use crate::vcpu::{PC, VBAR, Vcpu, Vm, kvm, reg};

const VCPUS: u64 = 8;
const ROUNDS: u64 = 250;

pub(crate) fn cases(abi: Abi, report: &mut Report) {
    let name = format!("{VCPUS} vCPU threads at once, {ROUNDS} rounds of 4 calls each");
    report.case(&name, at_once(abi));
}

fn at_once(abi: Abi) -> Outcome {
    let vm = Vm::new()?;
    let vcpus: Vec<Vcpu> = (0..VCPUS).map(|index| vm.vcpu(index, 0)).collect::<Result<_, Not>>()?;
    let start = Barrier::new(vcpus.len());
    thread::scope(|scope| {
        let threads: Vec<_> = (0..)
            .zip(&vcpus)
            .map(|(index, vcpu)| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    (0..ROUNDS).try_for_each(|round| one_round(abi, vcpu, index, round))
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err(Not::Passed("a thread panicked".into())))
        })
    })
}

/// Each thread and round has its own ISS, so that a mix-up shows.
fn one_round(abi: Abi, vcpu: &Vcpu, index: u64, round: u64) -> Outcome {
    let iss = index << 20 | round << 6;
    let take = |pstate, events: Events, answer, esr, pc| {
        vcpu.put(pstate)?;
        expect_call("the call", vcpu.set_events(events), answer)?;
        vcpu.expect(&[("ESR", reg::ESR, esr), ("PC", reg::PC, pc)])
    };
    take(0x3c5, DABT, Ok(0), 0x9600_0010, VBAR + 0x200)?;
    take(0x3c5, GARBAGE, Err(22), 0, PC)?;
    if abi.is_extended() {
        take(0x3c5, IABT.abort_esr(abi, iss), Ok(0), 0x8600_0010 | iss, VBAR + 0x200)?;
        take(0x000, DABT.abort_esr(abi, iss), Ok(0), 0x9200_0010 | iss, VBAR + 0x400)?;
    } else {
        take(0x3c5, IABT.abort_esr(abi, iss), Err(22), 0, PC)?;
        take(0x000, DABT, Ok(0), 0x9200_0010, VBAR + 0x400)?;
    }
    expect_call("KVM_GET_API_VERSION", raw::by_value(kvm()?, raw::KVM_GET_API_VERSION, 0), Ok(12))
}
