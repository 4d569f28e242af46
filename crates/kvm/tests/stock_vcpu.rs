//! A vCPU that its VMM runs by itself, over a stock kernel.

mod stock;

use seawall_arm::Target;
use seawall_events::wire::VCPU_EVENTS_SIZE;
use seawall_events::{
    Abi, AbortDelivery, Refusal, Reg, Registers as _, Vcpu as _, VcpuEvents, get_events_bytes,
};
use seawall_kvm::Errno;
use seawall_kvm::assist::{AssistError, Guest, Last};
use seawall_kvm::stock::{KernelEvents, StockError, StockVcpu};
use stock::{POSTED, Stock, VBAR, dabt, guest, iabt, nested, with_esr, with_serror};

impl KernelEvents for Stock {
    fn get_vcpu_events(&self) -> Result<[u8; VCPU_EVENTS_SIZE], Errno> {
        Ok(get_events_bytes(&*self.vcpu.borrow(), Abi::Mainline).map_err(Refusal::errno)?)
    }
}

#[test]
fn it_speaks_the_extended_abi_and_the_guest_finds_its_instruction_abort() {
    let stock = Stock::new(&guest(0x3c0));
    let mut vcpu = StockVcpu::new(&stock, Guest::Aarch64, true).after(Last::NoWalk);
    assert_eq!(vcpu.abi(), POSTED);
    let delivered = vcpu.set_events(&with_esr(iabt(), 0x210));
    assert_eq!(delivered, Ok(Some(AbortDelivery::Delivered(Target::El1))));
    assert_eq!(vcpu.reg(Reg::EsrEl1), Ok(0x8200_0210));
    assert_eq!(vcpu.reg(Reg::Pc), Ok(VBAR + 0x400));
    vcpu.set_reg(Reg::X(0), 7).unwrap();
    assert_eq!(stock.vcpu.borrow().reg(Reg::X(0)), 7);
}

#[test]
fn an_serror_that_waits_is_seen() {
    let stock = Stock::new(&guest(0x3c5));
    let mut vcpu = StockVcpu::new(&stock, Guest::Aarch64, true);
    let serror =
        VcpuEvents { serror_has_esr: true, serror_esr: 0x1_0000, ..with_serror(VcpuEvents::default()) };
    vcpu.set_events(&serror).unwrap();
    let events = vcpu.events().unwrap();
    assert!(events.serror_pending && events.serror_has_esr);
    assert_eq!(events.serror_esr, 0x1_0000);
}

#[test]
fn what_the_abi_forbids_is_refused_before_anything_is_done() {
    let before = guest(0x3c0);
    let stock = Stock::new(&before);
    let mut vcpu = StockVcpu::new(&stock, Guest::Aarch64, false);
    let refused = Err(StockError::Events(AssistError::Refused(Refusal::AbortEsrWithoutRas)));
    assert_eq!(vcpu.set_events(&with_esr(dabt(), 0x210)), refused);
    assert_eq!(*stock.vcpu.borrow(), before);
    assert_eq!(vcpu.run(), Err(StockError::Run));
}

/// `HCR_EL2.TEA`: Linux cannot be asked for that soundly.
#[test]
fn what_a_guest_hypervisor_takes_from_its_guest_is_refused() {
    let before = nested(0x3c5, 1 << 37);
    let stock = Stock::new(&before);
    let mut vcpu = StockVcpu::new(&stock, Guest::Nested, true);
    let error = vcpu.set_events(&dabt()).unwrap_err();
    assert_eq!(error, StockError::Events(AssistError::TakenByHypervisor { hcr_el2: 1 << 37 }));
    assert_eq!(error.errno(), Some(Errno(95)));
    assert_eq!(*stock.vcpu.borrow(), before);
}

#[test]
fn a_register_that_kvm_does_not_have_and_a_call_that_fails_are_told_apart() {
    let stock = Stock::new(&guest(0));
    let vcpu = StockVcpu::new(&stock, Guest::Aarch64, true);
    assert_eq!(vcpu.reg(Reg::X(31)), Err(StockError::NoRegister(Reg::X(31))));
    let hidden = StockError::Ioctl { call: "KVM_GET_ONE_REG", errno: Errno::ENOENT };
    assert_eq!(vcpu.reg(Reg::HcrEl2), Err(hidden));
}
