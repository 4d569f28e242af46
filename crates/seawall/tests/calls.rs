//! The cost of a containment on a stock kernel: each ioctl, from the decision to the guest's position after
//! it.

use std::time::{Duration, SystemTime};

use seawall::{AddressMap, Containment, MemoryRegion, Now, Rules, SigbusExit, Source};
use seawall_events::{Reg, Registers as _, SeaExit};
use seawall_inject::{Exited, Last};
use seawall_model::guests::{FAR, PC, guest, with};
use seawall_model::{Call, Kernel, Vcpu};

/// The ioctls of one containment, and the ESR that the guest's handler reads.
fn contain(vcpu: &Vcpu, source: &Source, last: Last) -> (Vec<Call>, u64) {
    let kernel = Kernel::stock(vcpu);
    let mut exited = Exited::new(&kernel, kernel.injector(), last);
    let ram = MemoryRegion { guest: 0x8000_0000, host: 0x7f00_0000_0000, size: 1 << 30 };
    let mut containment = Containment::new(Rules::FULL).with_addresses(AddressMap::new([ram]).unwrap());
    let now = Now { vcpu: 0, running: Duration::ZERO, time: SystemTime::UNIX_EPOCH, exited: None };
    assert_eq!(containment.contain(&mut exited, source, None, &now).unwrap().stop(), None);
    let esr = kernel.vcpu.borrow().reg(Reg::EsrEl1);
    (kernel.calls.into_inner(), esr)
}

#[test]
fn after_a_sea_exit_it_takes_eight() {
    use Call::{GetOneReg, SetOneReg, SetVcpuEvents};
    for (exit, esr) in [(0x9200_0210, 0x9200_0210), (0x8200_0210, 0x8200_0210)] {
        let exit = SeaExit { flags: 1, esr: seawall_arm::Esr::from_bits(exit), gva: FAR, gpa: 0x8020_0000 };
        let (calls, found) = contain(&guest(0), &Source::Sea(exit), Last::NoWalk);
        let to_inject = [SetVcpuEvents, GetOneReg(Reg::EsrEl1), SetOneReg(Reg::EsrEl1)];
        let to_decide = [GetOneReg(Reg::Pc), GetOneReg(Reg::Pstate), GetOneReg(Reg::TcrEl1)];
        let to_see = [GetOneReg(Reg::Pc), GetOneReg(Reg::FarEl1)];
        assert_eq!(calls, [&to_decide[..], &to_inject, &to_see].concat());
        assert_eq!(found, esr);
    }
}

/// The cases are the kernel's own data abort, one after an earlier injection, and a fetch that the FAR
/// reveals.
#[test]
fn after_sigbus_it_takes_eight_to_ten() {
    let sigbus = SigbusExit { address: 0x7f00_0020_0000, lsb: 12, action_required: true }.into();
    let old = [(Reg::EsrEl1, 0x9200_0010)];
    let mut fetch = guest(0);
    fetch.last_fault.far = PC;
    for (vcpu, number, esr) in [
        (guest(0), 8, 0x9200_0010),
        (with(guest(0), &old), 9, 0x9200_0010),
        (fetch.clone(), 9, 0x8200_0010),
        (with(fetch, &old), 10, 0x8200_0010),
    ] {
        let (calls, found) = contain(&vcpu, &sigbus, Last::Any);
        assert_eq!((calls.len(), found), (number, esr), "{calls:?}");
    }
}
