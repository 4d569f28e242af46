//! Guests that run, and guests of other kinds.

use std::os::fd::AsRawFd as _;

use seawall_lab_machine::{PoisonRegister, physical_address};

use crate::bytes::{Abi, DABT, Events, IABT};
use crate::raw;
use crate::report::{Not, Outcome, Report, expect, expect_call};
use crate::vcpu::{
    EL1_32BIT, HAS_EL2, HOLE, KVM_CAP_ARM_EL1_32BIT, KVM_CAP_ARM_EL2, KVM_CAP_ARM_SEA_TO_USER, PC, RAM, VBAR,
    Vcpu, Vm, failed, need, reg,
};

const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 95;

const KVM_EXIT_MMIO: u32 = 6;
const KVM_EXIT_ARM_SEA: u32 = 41;

/// At the synchronous vector of the current EL: mrs x2, esr_el1; str x2, [x0].
const HANDLER: [u32; 2] = [0xd538_5202, 0xf900_0002];

pub(crate) fn cases(abi: Abi, report: &mut Report) {
    report.case("an abort takes the place of a load that waits, at the load's address", waiting_load(abi));
    report.case("a fetch of bad memory becomes the abort that it was", bad_code(abi));
    report.case("a prefetch abort into AArch32 EL1, in a privileged mode", aarch32(abi, 0x1d3));
    report.case("a prefetch abort into AArch32 EL1, in user mode", aarch32(abi, 0x010));
    report.case("a data abort into AArch32 EL1 ignores an ESR", aarch32_data(abi));
    report.case(
        "an abort into an AArch32 EL1 that never ran is lost, as Linux has it",
        aarch32_that_never_ran(abi),
    );
    report.case("an instruction abort at virtual EL2", at_virtual_el2(abi));
    report.case(
        if abi.is_native() {
            "an abort that a guest hypervisor takes from its guest (HCR_EL2.TEA) is taken at EL2"
        } else {
            "an abort that a guest hypervisor takes from its guest (HCR_EL2.TEA) is EOPNOTSUPP"
        },
        taken_by_hypervisor(abi),
    );
    report.case("a number is reused by a vCPU of another kind", reused(abi));
}

fn waiting_load(abi: Abi) -> Outcome {
    let (events, esr) =
        if abi.is_extended() { (DABT.abort_esr(abi, 0x200), 0x9600_0210) } else { (DABT, 0x9600_0010) };
    let vm = Vm::new()?;
    vm.code(0, &[0xf940_0001]); // ldr x1, [x0]
    vm.code(0xa00, &HANDLER);
    let vcpu = vm.vcpu(0, 0)?;
    vcpu.put(0x3c5)?;
    vcpu.write(&[(reg::x(0), HOLE), (reg::x(1), 0x1234)])?;
    expect("the exit of the load", vcpu.run()?.into(), KVM_EXIT_MMIO.into())?;
    expect("its address", vcpu.exit_word(0x20), HOLE)?;
    expect_call("the call", vcpu.set_events(events), Ok(0))?;
    let at_handler = [("FAR", reg::FAR, HOLE), ("PC", reg::PC, VBAR + 0x200), ("x1", reg::x(1), 0x1234)];
    vcpu.expect(&at_handler)?;
    expect("the exit of the handler", vcpu.run()?.into(), KVM_EXIT_MMIO.into())?;
    expect("ESR as the guest read it", vcpu.exit_word(0x28), esr)?;
    vcpu.expect(&[("x1", reg::x(1), 0x1234)])
}

fn bad_code(abi: Abi) -> Outcome {
    need(KVM_CAP_ARM_SEA_TO_USER, "KVM_CAP_ARM_SEA_TO_USER")?;
    let mut register = PoisonRegister::open().map_err(|error| Not::Run(error.to_string()))?;
    let vm = Vm::new()?;
    raw::enable_cap(vm.fd.as_raw_fd(), KVM_CAP_ARM_SEA_TO_USER).map_err(failed("KVM_ENABLE_CAP"))?;
    vm.code(0x1000, &[0xd503_201f]); // nop
    vm.code(0xa00, &HANDLER);
    let vcpu = vm.vcpu(0, 0)?;
    vcpu.put(0x3c5)?;
    vcpu.write(&[(reg::x(0), HOLE), (reg::PC, RAM + 0x1000)])?;
    let physical =
        physical_address(vm.memory.address() + 0x1000).map_err(|error| Not::Run(error.to_string()))?;
    register.poison(physical, 64).map_err(|error| error.to_string())?;
    let ran = take_bad_code(abi, &vcpu);
    register.heal(physical);
    ran
}

fn take_bad_code(abi: Abi, vcpu: &Vcpu) -> Outcome {
    expect("the exit of the fetch", vcpu.run()?.into(), KVM_EXIT_ARM_SEA.into())?;
    expect("its ESR", vcpu.exit_word(0x28), 0x8200_0210)?;
    let instruction = vcpu.set_events(IABT.abort_esr(abi, 0x210));
    let esr = if abi.is_extended() {
        expect_call("an instruction abort", instruction, Ok(0))?;
        0x8600_0210
    } else {
        expect_call("an instruction abort", instruction, Err(EINVAL))?;
        expect_call("a data abort", vcpu.set_events(DABT), Ok(0))?;
        0x9600_0010
    };
    expect("the exit of the handler", vcpu.run()?.into(), KVM_EXIT_MMIO.into())?;
    expect("ESR as the guest read it", vcpu.exit_word(0x28), esr)?;
    vcpu.expect(&[("FAR", reg::FAR, RAM + 0x1000), ("ELR", reg::ELR, RAM + 0x1000)])
}

/// An AArch32 guest whose load waits for its data.
fn aarch32_guest(pstate: u64) -> Result<(Vm, Vcpu), Not> {
    need(KVM_CAP_ARM_EL1_32BIT, "AArch32 EL1")?;
    let vm = Vm::new()?;
    vm.code(0, &[0xe590_1000]); // ldr r1, [r0]
    let vcpu = vm.vcpu(0, EL1_32BIT)?;
    vcpu.put(pstate)?;
    vcpu.write(&[(reg::x(0), HOLE)])?;
    expect("the exit of the load", vcpu.run()?.into(), KVM_EXIT_MMIO.into())?;
    vcpu.write(&[(reg::FAR, 0x1111_1111_2222_2222), (reg::ESR, 0x5)])?;
    Ok((vm, vcpu))
}

/// `LR_abt` is `X20`, `DFSR` is `ESR_EL1`, `IFAR` and `DFAR` are `FAR_EL1`.
fn aarch32(abi: Abi, pstate: u64) -> Outcome {
    let (_vm, vcpu) = aarch32_guest(pstate)?;
    if !abi.is_extended() {
        return expect_call("the call", vcpu.set_events(IABT), Err(EINVAL));
    }
    expect_call("the call", vcpu.set_events(IABT.abort_esr(abi, 0x200)), Ok(0))?;
    expect("mode", vcpu.read(reg::PSTATE)? & 0x1f, 0x17)?;
    vcpu.expect(&[
        ("PC", reg::PC, VBAR + 12),
        ("LR_abt", reg::x(20), PC + 4),
        ("IFSR", reg::IFSR32, 0x8),
        ("DFSR", reg::ESR, 0x5),
        ("IFAR and DFAR", reg::FAR, HOLE << 32 | 0x2222_2222),
    ])
}

fn aarch32_data(abi: Abi) -> Outcome {
    let (_vm, vcpu) = aarch32_guest(0x010)?;
    let events = if abi.is_extended() { DABT.abort_esr(abi, 0x200) } else { DABT };
    expect_call("the call", vcpu.set_events(events), Ok(0))?;
    expect("mode", vcpu.read(reg::PSTATE)? & 0x1f, 0x17)?;
    vcpu.expect(&[
        ("PC", reg::PC, VBAR + 16),
        ("LR_abt", reg::x(20), PC + 8),
        ("DFSR", reg::ESR, 0x8),
        ("IFAR and DFAR", reg::FAR, 0x1111_1111 << 32 | HOLE),
    ])
}

/// Linux drops the abort of an AArch32 vCPU that never ran, with and without the library.
fn aarch32_that_never_ran(abi: Abi) -> Outcome {
    need(KVM_CAP_ARM_EL1_32BIT, "AArch32 EL1")?;
    let vm = Vm::new()?;
    let vcpu = vm.vcpu(0, EL1_32BIT)?;
    vcpu.put(0x010)?;
    vcpu.write(&[(reg::FAR, 0x1111_1111_2222_2222), (reg::ESR, 0x5)])?;
    if abi.is_native() {
        // No entry, but what it would have reported: IFSR, and an IFAR that is the last exit's, 0.
        expect_call("the call", vcpu.set_events(IABT), Ok(0))?;
        let reported = [("IFSR", reg::IFSR32, 0x8), ("DFSR", reg::ESR, 0x5), ("FAR", reg::FAR, 0x2222_2222)];
        vcpu.expect(&reported)?;
    } else if abi.is_extended() {
        expect_call("the call", vcpu.set_events(IABT), Ok(0))?;
        vcpu.expect(&[("DFSR", reg::ESR, 0x5), ("FAR", reg::FAR, 0x1111_1111_2222_2222)])?;
    } else {
        expect_call("the call", vcpu.set_events(DABT), Ok(0))?;
    }
    vcpu.expect(&[("PC", reg::PC, PC), ("PSTATE", reg::PSTATE, 0x010)])
}

fn virtual_el2(pstate: u64) -> Result<(Vm, Vcpu), Not> {
    need(KVM_CAP_ARM_EL2, "virtual EL2 (kvm-arm.mode=nested)")?;
    let vm = Vm::new()?;
    let vcpu = vm.vcpu(0, HAS_EL2)?;
    vcpu.put(pstate)?;
    vcpu.write(&[(reg::VBAR_EL2, VBAR), (reg::ESR_EL2, 0)])?;
    Ok((vm, vcpu))
}

fn at_virtual_el2(abi: Abi) -> Outcome {
    let (_vm, vcpu) = virtual_el2(0x3c9)?;
    if !abi.is_extended() {
        return expect_call("the call", vcpu.set_events(IABT), Err(EINVAL));
    }
    expect_call("the call", vcpu.set_events(IABT.abort_esr(abi, 0x200)), Ok(0))?;
    vcpu.expect(&[
        ("ESR_EL2", reg::ESR_EL2, 0x8600_0210),
        ("PC", reg::PC, VBAR + 0x200),
        ("ELR_EL2", reg::ELR_EL2, PC),
        ("ESR_EL1", reg::ESR, 0),
    ])
}

/// Linux would save the CPU's present registers as the guest's EL1 registers: it does not load the vCPU for
/// this ioctl before it switches it to EL2. So the library refuses instead of asking it. A kernel that does this ioctl on the
/// registers in memory can.
fn taken_by_hypervisor(abi: Abi) -> Outcome {
    const TEA: u64 = 1 << 37;
    let (_vm, vcpu) = virtual_el2(0x3c5)?;
    vcpu.write(&[(reg::HCR_EL2, vcpu.read(reg::HCR_EL2)? | TEA)])?;
    if abi.is_native() {
        expect_call("the call", vcpu.set_events(IABT.abort_esr(abi, 0x200)), Ok(0))?;
        return vcpu.expect(&[
            ("ESR_EL2", reg::ESR_EL2, 0x8200_0210),
            ("PC", reg::PC, VBAR + 0x400),
            // SCTLR_EL2.SPAN is 0: PAN is set.
            ("PSTATE", reg::PSTATE, 0x40_03c9),
            ("ELR_EL2", reg::ELR_EL2, PC),
            ("ESR_EL1", reg::ESR, 0),
        ]);
    }
    let expected = if abi.is_extended() { EOPNOTSUPP } else { EINVAL };
    expect_call("the call", vcpu.set_events(IABT.abort_esr(abi, 0x200)), Err(expected))?;
    vcpu.expect(&[("PC", reg::PC, PC), ("ESR_EL1", reg::ESR, 0), ("ESR_EL2", reg::ESR_EL2, 0)])
}

/// An AArch64 vCPU, then under the same number a vCPU with AArch32 EL1, or with an EL2.
fn reused(abi: Abi) -> Outcome {
    let is_aarch32 = need(KVM_CAP_ARM_EL1_32BIT, "AArch32 EL1").is_ok();
    if !is_aarch32 {
        need(KVM_CAP_ARM_EL2, "AArch32 EL1, and no virtual EL2")?;
    }
    let vm = Vm::new()?;
    let first = vm.vcpu(0, 0)?;
    first.put(0x3c5)?;
    let good: Events = if abi.is_extended() { IABT } else { DABT };
    expect_call("the first", first.set_events(good), Ok(0))?;
    let number = first.fd();
    drop(first);
    // Held by something that is no vCPU meanwhile, so that the next descriptor is another one.
    let holder = raw::duplicate_to(&vm.fd, number).map_err(failed("dup2"))?;
    let (_other_vm, other) = if is_aarch32 { aarch32_guest(0x010)? } else { virtual_el2(0x3c9)? };
    let same = raw::replace(&other.fd, holder).map_err(failed("dup2"))?;
    expect("the number", same.as_raw_fd() as u64, number as u64)?;
    expect_call("the other", raw::set_events_at(number, good.0.as_ptr() as u64), Ok(0))?;
    let offset = match (is_aarch32, abi.is_extended()) {
        (true, true) => 12,
        (true, false) => 16,
        (false, _) => 0x200,
    };
    other.expect(&[("PC", reg::PC, VBAR + offset)])
}
