//! Invalid calls and the order of the kernel's checks; descriptors; other requests.

use std::fs::File;
use std::os::fd::AsRawFd as _;

use crate::bytes::{Abi, DABT, Events, GARBAGE, IABT, NOTHING};
use crate::raw::{self, Pages};
use crate::report::{Not, Outcome, Report, expect, expect_call};
use crate::vcpu::{PC, VBAR, Vm, at_el1, failed, kvm, reg};

const EIO: i32 = 5;
const ENOEXEC: i32 = 8;
const EBADF: i32 = 9;
const EFAULT: i32 = 14;
const EINVAL: i32 = 22;
const ENOTTY: i32 = 25;

pub(crate) fn cases(abi: Abi, report: &mut Report) {
    report.case("a descriptor that is none is EBADF, whatever the events", not_open());
    report.case("a file that is no vCPU is ENOTTY, KVM's other descriptors EINVAL", not_a_vcpu());
    report.case("an uninitialised vCPU is ENOEXEC, whatever the events and the pointer", uninitialised());
    report.case("a bad pointer is EFAULT and nothing is done", bad_pointer());
    report.case("events in read-only memory and across two pages are read", odd_places(abi));
    report.case("reserved words and pad bytes are EINVAL and nothing is done", reserved(abi));
    report.case("errno stays as it was after success, and is set after failure", errno(abi));
    report.case("a duplicated descriptor is the same vCPU", duplicated(abi));
    report.case("a child of the process that made the VM gets EIO", child(abi));
    report.case("GET gives mainline's fields and not a byte more, and SET takes it back", get());
    report.case("other requests are what they were", others());
}

/// Events of each kind: the check of the vCPU comes before all of them.
fn any_events() -> [Events; 4] {
    [NOTHING, DABT, IABT, GARBAGE]
}

fn not_open() -> Outcome {
    for events in any_events() {
        let answer = raw::set_events_at(-1, events.0.as_ptr() as u64);
        expect_call("a good pointer", answer, Err(EBADF))?;
    }
    expect_call("a null pointer", raw::set_events_at(-1, 0), Err(EBADF))
}

fn not_a_vcpu() -> Outcome {
    let null = File::open("/dev/null").map_err(|error| error.to_string())?;
    let vm = Vm::new()?;
    let descriptors = [
        ("/dev/null", null.as_raw_fd(), ENOTTY),
        ("/dev/kvm", kvm()?, EINVAL),
        ("the VM", vm.fd.as_raw_fd(), EINVAL),
    ];
    for (name, fd, errno) in descriptors {
        for events in any_events() {
            expect_call(name, raw::set_events_at(fd, events.0.as_ptr() as u64), Err(errno))?;
        }
        expect_call(name, raw::set_events_at(fd, 0), Err(errno))?;
    }
    Ok(())
}

fn uninitialised() -> Outcome {
    let vm = Vm::new()?;
    let vcpu = vm.uninitialised(0)?;
    for events in any_events() {
        expect_call("a good pointer", vcpu.set_events(events), Err(ENOEXEC))?;
    }
    expect_call("a null pointer", raw::set_events_at(vcpu.fd(), 0), Err(ENOEXEC))?;
    expect_call("a kernel's pointer", raw::set_events_at(vcpu.fd(), 0xffff_8000_0000_0000), Err(ENOEXEC))
}

fn bad_pointer() -> Outcome {
    let (_vm, vcpu) = at_el1()?;
    let pages = Pages::new(0x2_0000).map_err(failed("mmap"))?;
    pages.write_bytes(0x1_0000 - 32, &IABT.0[..32]);
    pages.protect(0x1_0000, libc::PROT_NONE).map_err(failed("mprotect"))?;
    for (what, address) in [
        ("null", 0),
        ("the last byte of the address space", u64::MAX),
        ("a kernel's pointer", 0xffff_8000_0000_0000),
        ("memory without access", pages.address() + 0x1_0000),
        ("32 good bytes, then none", pages.address() + 0x1_0000 - 32),
        ("63 good bytes, then none", pages.address() + 0x1_0000 - 63),
        ("a good byte, then none", pages.address() + 0x1_0000 - 1),
    ] {
        expect_call(what, raw::set_events_at(vcpu.fd(), address), Err(EFAULT))?;
    }
    vcpu.expect(&[("PC", reg::PC, PC), ("ESR", reg::ESR, 0)])
}

fn odd_places(abi: Abi) -> Outcome {
    let (events, esr) = if abi.is_extended() { (IABT, 0x8600_0010) } else { (DABT, 0x9600_0010) };
    let (_vm, vcpu) = at_el1()?;
    let pages = Pages::new(0x2_0000).map_err(failed("mmap"))?;
    let places = [0x1_0000 - 1, 0x1_0000 - 31, 0x1_0000 - 40, 0x1_0000 - 63, 0x2_0000 - 64];
    for offset in places {
        pages.write_bytes(offset, &events.0);
        pages.protect(0, libc::PROT_READ).map_err(failed("mprotect"))?;
        vcpu.put(0x3c5)?;
        expect_call("the call", raw::set_events_at(vcpu.fd(), pages.address() + offset as u64), Ok(0))?;
        vcpu.expect(&[("PC", reg::PC, VBAR + 0x200), ("ESR", reg::ESR, esr)])?;
        pages.protect(0, libc::PROT_READ | libc::PROT_WRITE).map_err(failed("mprotect"))?;
        pages.write_bytes(offset, &NOTHING.0);
    }
    Ok(())
}

fn reserved(abi: Abi) -> Outcome {
    let (_vm, vcpu) = at_el1()?;
    let pads = if abi.is_extended() { 5..8 } else { 3..8 };
    for offset in pads.chain(abi.reserved()) {
        for events in [NOTHING, DABT] {
            let answer = vcpu.set_events(events.byte(offset, 1));
            expect_call(&format!("byte {offset}"), answer, Err(EINVAL))?;
        }
    }
    vcpu.expect(&[("PC", reg::PC, PC), ("ESR", reg::ESR, 0)])
}

fn errno(abi: Abi) -> Outcome {
    let (_vm, vcpu) = at_el1()?;
    let good = if abi.is_extended() { IABT.abort_esr(abi, 0x200) } else { DABT };
    let (answer, errno) = raw::errno_after(vcpu.fd(), &good.0);
    expect_call("a good call", answer, Ok(0))?;
    expect("errno after it", errno as u64, 77)?;
    let (answer, errno) = raw::errno_after(vcpu.fd(), &GARBAGE.0);
    expect_call("a bad call", answer, Err(EINVAL))?;
    expect("errno after it", errno as u64, EINVAL as u64)
}

fn duplicated(abi: Abi) -> Outcome {
    let (events, esr) = if abi.is_extended() { (IABT, 0x8600_0010) } else { (DABT, 0x9600_0010) };
    let (_vm, vcpu) = at_el1()?;
    let other = vcpu.fd.try_clone().map_err(|error| error.to_string())?;
    expect_call("by the copy", raw::set_events_at(other.as_raw_fd(), events.0.as_ptr() as u64), Ok(0))?;
    vcpu.expect(&[("PC", reg::PC, VBAR + 0x200), ("ESR", reg::ESR, esr)])
}

fn child(abi: Abi) -> Outcome {
    let (_vm, vcpu) = at_el1()?;
    let good = if abi.is_extended() { IABT } else { DABT };
    for events in [good, NOTHING, GARBAGE] {
        expect_call("in the child", raw::set_events_in_child(vcpu.fd(), &events.0), Err(EIO))?;
    }
    vcpu.expect(&[("PC", reg::PC, PC)])?;
    expect_call("in the parent, after it", vcpu.set_events(good), Ok(0))?;
    vcpu.expect(&[("PC", reg::PC, VBAR + 0x200)])
}

fn get() -> Outcome {
    let (_vm, vcpu) = at_el1()?;
    let got = vcpu.get_events()?;
    let (pending, _, esr) = got.serror();
    expect("serror_pending", pending.into(), 0)?;
    expect("serror_esr", esr, 0)?;
    if let Some(offset) = (2..8).chain(16..64).find(|offset| got.0[*offset] != 0) {
        return Err(Not::Passed(format!("byte {offset}: expected 0, got {}", got.0[offset])));
    }
    expect_call("SET of what GET gave", vcpu.set_events(got), Ok(0))?;
    vcpu.expect(&[("PC", reg::PC, PC)])
}

fn others() -> Outcome {
    let kvm = kvm()?;
    expect_call("KVM_GET_API_VERSION", raw::by_value(kvm, raw::KVM_GET_API_VERSION, 0), Ok(12))?;
    let vcpu_events = raw::by_value(kvm, raw::KVM_CHECK_EXTENSION, 41);
    expect_call("KVM_CAP_VCPU_EVENTS", vcpu_events, Ok(1))?;
    let none = raw::by_value(kvm, raw::KVM_CHECK_EXTENSION, 0xffff);
    expect_call("a capability that is none", none, Ok(0))?;
    expect_call("on no descriptor", raw::by_value(-1, raw::KVM_GET_API_VERSION, 0), Err(EBADF))?;
    let null = File::open("/dev/null").map_err(|error| error.to_string())?;
    let answer = raw::by_value(null.as_raw_fd(), raw::KVM_GET_API_VERSION, 0);
    expect_call("on /dev/null", answer, Err(ENOTTY))
}
