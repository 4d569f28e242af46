//! SIGBUS during a run, under a VMM that has a handler of its own. One test: the disposition is the process's.

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};

use libc::siginfo_t;
use seawall_arm::{Reg, Registers as _};
use seawall_wrap::{Settings, Wrap};

use crate::fake::{Fake, Step, Vmm, errno, lock};

static WRAP: Wrap<Fake> = Wrap::new(Fake::new());
static VMMS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn ours(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel calls it with these.
    unsafe { WRAP.on_sigbus(signal, info, context) };
}

extern "C" fn vmms(_: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel gave it.
    VMMS.store(unsafe { (*info).si_addr() } as usize, Ordering::Relaxed);
}

#[test]
fn an_error_of_the_guests_is_contained_and_any_other_is_the_vmms() {
    const HOST: u64 = 0x7000_0000_0000;
    let fake = WRAP.calls();
    fake.has_signals.store(true, Ordering::Relaxed);
    WRAP.start(Settings::default(), ours).unwrap();
    let vmm = Vmm::new(&WRAP, fake);
    vmm.set_memory(0, 0x8000_0000, HOST, 0x1000_0000);

    // The VMM registers its handler, and is given back what it registered.
    // SAFETY: zeroed sigactions are such, and both are live.
    unsafe {
        let (mut new, mut old): (libc::sigaction, libc::sigaction) = (std::mem::zeroed(), std::mem::zeroed());
        new.sa_sigaction = vmms as *const () as usize;
        new.sa_flags = libc::SA_SIGINFO;
        assert_eq!(WRAP.sigaction(&raw const new, null_mut(), ours), 0);
        assert_eq!(WRAP.sigaction(std::ptr::null(), &raw mut old, ours), 0);
        assert_eq!((old.sa_sigaction, old.sa_flags), (new.sa_sigaction, new.sa_flags));
    }

    // A page of the guest's: contained, and KVM_RUN fails with EINTR as it did. Nobody knows a load from a fetch.
    lock(&fake.steps).push(Step::Sigbus { address: HOST + 0x20_0000 });
    assert_eq!((vmm.run().0, errno()), (-1, libc::EINTR));
    assert_eq!(VMMS.load(Ordering::Relaxed), 0);
    assert_eq!(fake.look(|vcpu| vcpu.reg(Reg::EsrEl1)) >> 26, 0x24);
    assert_eq!(fake.look(|vcpu| vcpu.reg(Reg::Pc)), 0xffff_8000_1000_0c00);

    // Outside of a run it is the VMM's own, at once.
    seawall_lab_machine::send_sigbus(4, HOST + 0x3000, 12).unwrap();
    assert_eq!(VMMS.load(Ordering::Relaxed), (HOST + 0x3000) as usize);

    // Memory that is not the guest's: the first run reports it, and the next one meets it again.
    fake.set_guest(0x40_1040);
    for _ in 0..2 {
        lock(&fake.steps).push(Step::Sigbus { address: 0x1234_5000 });
        assert_eq!((vmm.run().0, errno()), (-1, libc::EINTR));
    }
    assert_eq!(VMMS.load(Ordering::Relaxed), 0x1234_5000);
    assert_eq!(fake.look(|vcpu| vcpu.reg(Reg::Pc)), 0x40_1040, "nothing was injected");
}
