//! A vCPU that its VMM runs with its own ioctls, over a stock kernel.

use seawall_arm::Esr;
use seawall_arm::Target;
use seawall_events::{Refusal, Reg, Registers as _, VcpuEvents};
use seawall_inject::{
    Delivery, Errno, Exited, ExitedError, GuestKind, Inject as _, InjectError, Last, VcpuTraits,
};
use seawall_model::guests::{FAR, VBAR, dabt, guest, iabt, nested, with_esr, with_serror};
use seawall_model::{Kernel, POSTED};

#[test]
fn it_speaks_the_extended_abi_and_the_guest_finds_its_instruction_abort() {
    let stock = Kernel::stock(&guest(0x3c0));
    let mut vcpu = Exited::new(&stock, stock.injector(), Last::NoWalk);
    let expected = VcpuTraits { guest: GuestKind::Aarch64, ras: true, abi: POSTED };
    assert_eq!(vcpu.traits(), expected);
    let delivered = vcpu.inject(&with_esr(iabt(), 0x210));
    let (target, pc, esr) = (Target::El1, VBAR + 0x400, Esr::from_bits(0x8200_0210));
    assert_eq!(delivered, Ok(Delivery::AtVector { target, pc, esr, far: FAR }));
    assert_eq!(vcpu.reg(Reg::EsrEl1), Ok(0x8200_0210));
    assert_eq!(vcpu.reg(Reg::Pc), Ok(VBAR + 0x400));
    vcpu.set_reg(Reg::X(0), 7).unwrap();
    assert_eq!(stock.vcpu.borrow().reg(Reg::X(0)), 7);
}

#[test]
fn an_serror_that_waits_is_pending() {
    let stock = Kernel::stock(&guest(0x3c5));
    let mut vcpu = Exited::new(&stock, stock.injector(), Last::Any);
    let serror =
        VcpuEvents { serror_has_esr: true, serror_esr: 0x1_0000, ..with_serror(VcpuEvents::default()) };
    assert_eq!(vcpu.inject(&serror), Ok(Delivery::SErrorPending));
    assert_eq!(stock.vcpu.borrow().serror.vsesr, 0x1_0000);
}

#[test]
fn what_the_abi_forbids_is_refused_before_anything_is_done() {
    let mut before = guest(0x3c0);
    before.config.ras = false;
    let stock = Kernel::stock(&before);
    let mut vcpu = Exited::new(&stock, stock.injector(), Last::Any);
    let refused = Err(ExitedError::Events(InjectError::Refused(Refusal::AbortEsrWithoutRas)));
    assert_eq!(vcpu.inject(&with_esr(dabt(), 0x210)), refused);
    assert_eq!(*stock.vcpu.borrow(), before);
}

/// `HCR_EL2.TEA`: Linux cannot deliver that soundly.
#[test]
fn what_a_guest_hypervisor_takes_from_its_guest_is_refused() {
    let before = nested(0x3c5, 1 << 37);
    let stock = Kernel::stock(&before);
    let mut vcpu = Exited::new(&stock, stock.injector(), Last::Any);
    let error = vcpu.inject(&dabt()).unwrap_err();
    assert_eq!(error, ExitedError::Events(InjectError::TakenByHypervisor { hcr_el2: 1 << 37 }));
    assert_eq!(error.errno(), Errno(95));
    assert_eq!(*stock.vcpu.borrow(), before);
}

#[test]
fn a_register_that_kvm_does_not_have_and_a_call_that_fails_are_told_apart() {
    let stock = Kernel::stock(&guest(0));
    let vcpu = Exited::new(&stock, stock.injector(), Last::Any);
    assert_eq!(vcpu.reg(Reg::X(31)), Err(ExitedError::NoRegister(Reg::X(31))));
    let hidden = ExitedError::Ioctl { call: "KVM_GET_ONE_REG", errno: Errno::ENOENT };
    assert_eq!(vcpu.reg(Reg::HcrEl2), Err(hidden));
}
