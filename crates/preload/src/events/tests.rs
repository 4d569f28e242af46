//! Whole calls, over the model of the kernel: which ioctls they are made of, and what the program sees.

use std::cell::RefCell;

use seawall_arm::{Reg, Registers};
use seawall_events::Layout;
use seawall_inject::{Errno, KvmVcpu, Way};

use super::{Call, Host, set_events};

use seawall_model::Kernel;
use seawall_model::guests::{guest, with};

const ENOTTY: Errno = Errno(25);
const ENOEXEC: Errno = Errno::ENOEXEC;
const EFAULT: Errno = Errno::EFAULT;
const EINVAL: Errno = Errno::EINVAL;

/// A call on a vCPU of a kernel that is not there.
struct Fake {
    kernel: Kernel,
    /// Behind the program's pointer.
    argument: Option<[u8; 64]>,
    /// Every ioctl fails with it; `KVM_HAS_DEVICE_ATTR` with ENOTTY only.
    broken: Option<Errno>,
    /// The n-th ioctl fails with EIO.
    fails_at: Option<usize>,
    calls: RefCell<Vec<&'static str>>,
}

impl Fake {
    fn new(bytes: [u8; 64]) -> Self {
        Self::speaking(Way::Assisted, bytes)
    }

    /// A kernel of which this is the way.
    fn speaking(way: Way, bytes: [u8; 64]) -> Self {
        let regs = [(Reg::Pc, 0x4008_0000), (Reg::VbarEl1, 0x4000_0000)];
        let mut vcpu = with(guest(0x3c5), &regs);
        vcpu.last_fault.far = 0xdead_0000;
        Self {
            kernel: Kernel::of(way, &vcpu),
            argument: Some(bytes),
            broken: None,
            fails_at: None,
            calls: RefCell::default(),
        }
    }

    fn reg(&self, reg: Reg) -> u64 {
        self.kernel.vcpu.borrow().reg(reg)
    }

    fn set_reg(self, reg: Reg, value: u64) -> Self {
        self.kernel.vcpu.borrow_mut().set_reg(reg, value);
        self
    }

    fn calls(&self) -> Vec<&'static str> {
        self.calls.take()
    }

    fn call(&self, name: &'static str) -> Result<(), Errno> {
        self.calls.borrow_mut().push(name);
        let n = self.calls.borrow().len();
        match self.broken {
            Some(errno) => Err(errno),
            None if self.fails_at == Some(n) => Err(Errno(5)),
            None => Ok(()),
        }
    }
}

impl KvmVcpu for Fake {
    fn set_vcpu_events(&self, bytes: &[u8; 64]) -> Result<(), Errno> {
        self.call("set_events")?;
        self.kernel.set_vcpu_events(bytes)
    }

    fn get_vcpu_events(&self) -> Result<[u8; 64], Errno> {
        self.call("get_events")?;
        self.kernel.get_vcpu_events()
    }

    fn get_one_reg(&self, id: u64) -> Result<u64, Errno> {
        self.call("get_reg")?;
        self.kernel.get_one_reg(id)
    }

    fn set_one_reg(&self, id: u64, value: u64) -> Result<(), Errno> {
        self.call("set_reg")?;
        self.kernel.set_one_reg(id, value)
    }
}

impl Call for Fake {
    fn pass(&self) -> Result<i32, Errno> {
        self.call("pass")?;
        self.kernel.set_vcpu_events(&self.argument.ok_or(EFAULT)?).map(|()| 0)
    }

    fn bytes(&self) -> Option<[u8; 64]> {
        self.calls.borrow_mut().push("read");
        if self.broken == Some(ENOTTY) { None } else { self.argument }
    }
}

/// The 64 bytes of the posted layout, of bytes at offsets.
fn bytes<const N: usize>(parts: [(usize, u8); N]) -> [u8; 64] {
    let mut bytes = [0; 64];
    for (offset, byte) in parts {
        bytes[offset] = byte;
    }
    bytes
}

/// One call in the posted layout, on a host of which nothing is known.
fn first_call(fake: &Fake) -> Result<i32, Errno> {
    set_events(fake, Layout::Posted, &Host::new())
}

const DABT: (usize, u8) = (2, 1);
const IABT: (usize, u8) = (3, 1);
const HAS_ESR: (usize, u8) = (4, 1);
/// ext_abt_esr = 0x1000600: ISV, FnV, EA.
const ESR: [(usize, u8); 2] = [(17, 0x06), (19, 0x01)];

#[test]
fn instruction_abort_reaches_a_stock_kernels_guest() {
    let fake = Fake::new(bytes([IABT]));
    assert_eq!(first_call(&fake), Ok(0));
    assert_eq!(fake.reg(Reg::EsrEl1), 0x8600_0010);
    assert_eq!(fake.reg(Reg::FarEl1), 0xdead_0000);
    assert_eq!((fake.reg(Reg::Pc), fake.reg(Reg::ElrEl1)), (0x4000_0200, 0x4008_0000));
}

#[test]
fn an_esr_is_ored_in_at_either_place() {
    let posted = Fake::new(bytes([IABT, HAS_ESR, ESR[0], ESR[1]]));
    assert_eq!(first_call(&posted), Ok(0));
    assert_eq!(posted.reg(Reg::EsrEl1), 0x8700_0610);
    let trailing = Fake::new(bytes([DABT, HAS_ESR, (57, 0x06), (59, 0x01)]));
    assert_eq!(set_events(&trailing, Layout::Trailing, &Host::new()), Ok(0));
    assert_eq!(trailing.reg(Reg::EsrEl1), 0x9700_0610);
}

#[test]
fn the_other_layouts_place_of_the_esr_is_a_reserved_word() {
    let posted = bytes([IABT, HAS_ESR, ESR[0], ESR[1]]);
    assert_eq!(set_events(&Fake::new(posted), Layout::Trailing, &Host::new()), Err(EINVAL));
    assert_eq!(first_call(&Fake::new(bytes([IABT, HAS_ESR, (56, 1)]))), Err(EINVAL));
}

#[test]
fn what_mainline_can_do_is_one_ioctl_of_the_kernels() {
    let host = Host::new();
    let fake = Fake::new(bytes([DABT, (0, 1), (1, 1), (8, 0x11)]));
    assert_eq!(set_events(&fake, Layout::Posted, &host), Ok(0));
    // Is it a vCPU? Does the kernel speak either layout? Has it RAS? Then the call.
    assert_eq!(fake.calls(), ["read", "set_events", "set_events", "set_events", "get_events", "set_events"]);
    assert_eq!(fake.reg(Reg::EsrEl1), 0x9600_0010);
    assert!(fake.kernel.vcpu.borrow().serror.pending);
    assert_eq!(set_events(&fake, Layout::Posted, &host), Ok(0));
    assert_eq!(fake.calls(), ["read", "set_events"]);
    // An ESR that ORs nothing in, and one that does not count.
    for bytes in [bytes([DABT, HAS_ESR]), bytes([DABT, (19, 1)]), bytes([HAS_ESR, (19, 1)])] {
        let fake = Fake::new(bytes);
        assert_eq!(set_events(&fake, Layout::Posted, &host), Ok(0));
        assert_eq!(fake.calls(), ["read", "set_events"]);
    }
}

#[test]
fn an_instruction_abort_takes_six_ioctls_after_the_bytes_were_read_once_the_host_is_known() {
    let fake = Fake::new(bytes([IABT, HAS_ESR, ESR[0], ESR[1]]));
    set_events(&fake, Layout::Posted, &known_host()).unwrap();
    let ioctls = ["read", "get_reg", "get_reg", "get_reg", "set_events", "get_reg", "set_reg"];
    assert_eq!(fake.calls(), ioctls);
}

#[test]
fn refused_events_leave_no_trace() {
    let refused = [
        bytes([DABT, IABT]),
        bytes([IABT, HAS_ESR, (19, 2)]),        // bit 25
        bytes([HAS_ESR, (23, 1)]),              // nothing pending
        bytes([(1, 1), (11, 2)]),               // an SError's, nothing pending
        bytes([DABT, (0, 1), (1, 1), (11, 2)]), // mainline would deliver the data abort
        bytes([DABT, (5, 1)]),
        bytes([DABT, (7, 1)]),
        bytes([DABT, (24, 1)]),
        bytes([DABT, (63, 1)]),
    ];
    for bytes in refused {
        let fake = Fake::new(bytes);
        let before = fake.kernel.vcpu.borrow().clone();
        assert_eq!(first_call(&fake), Err(EINVAL), "{bytes:?}");
        assert_eq!(*fake.kernel.vcpu.borrow(), before, "{bytes:?}");
    }
}

#[test]
fn an_esr_without_ras_is_refused() {
    for bytes in [bytes([HAS_ESR]), bytes([(1, 1)]), bytes([IABT, HAS_ESR])] {
        let fake = Fake::new(bytes);
        fake.kernel.vcpu.borrow_mut().config.ras = false;
        assert_eq!(first_call(&fake), Err(EINVAL));
        assert_eq!(fake.reg(Reg::Pc), 0x4008_0000);
    }
    let fake = Fake::new(bytes([IABT]));
    fake.kernel.vcpu.borrow_mut().config.ras = false;
    assert_eq!(first_call(&fake), Ok(0));
}

#[test]
fn an_uninitialised_vcpu_comes_before_a_bad_pointer_and_bad_events() {
    for argument in [Some(bytes([DABT, IABT])), Some(bytes([IABT])), Some(bytes([DABT])), None] {
        for host in [Host::new(), known_host()] {
            let fake = Fake { argument, broken: Some(ENOEXEC), ..Fake::new([0; 64]) };
            assert_eq!(set_events(&fake, Layout::Posted, &host), Err(ENOEXEC), "{argument:?}");
        }
    }
}

/// A stock kernel with RAS.
fn known_host() -> Host {
    let host = Host::new();
    set_events(&Fake::new(bytes([IABT, HAS_ESR])), Layout::Posted, &host).unwrap();
    host
}

#[test]
fn a_pointer_that_cannot_be_read_is_left_to_the_kernel() {
    let fake = Fake { argument: None, ..Fake::new([0; 64]) };
    assert_eq!(first_call(&fake), Err(EFAULT));
    assert_eq!(fake.calls(), ["read", "pass"]);
}

#[test]
fn what_is_no_vcpu_is_left_to_the_kernel() {
    let fake = Fake { broken: Some(ENOTTY), ..Fake::new(bytes([IABT])) };
    assert_eq!(first_call(&fake), Err(ENOTTY));
    assert_eq!(fake.calls(), ["read", "pass"]);
}

#[test]
fn what_can_be_read_but_is_no_vcpu_tells_nothing_of_the_kernel() {
    let host = Host::new();
    let vm = Fake { broken: Some(EINVAL), ..Fake::new(bytes([IABT, HAS_ESR])) };
    assert_eq!(set_events(&vm, Layout::Posted, &host), Err(EINVAL));
    let native = Fake::speaking(Way::Native(Layout::Posted), bytes([IABT]));
    assert_eq!(set_events(&native, Layout::Posted, &host), Ok(0));
    assert_eq!(native.calls().last(), Some(&"pass"));
}

#[test]
fn a_kernel_that_speaks_the_layout_is_left_alone() {
    let host = Host::new();
    let native = |bytes| Fake::speaking(Way::Native(Layout::Posted), bytes);
    let fake = native(bytes([IABT, HAS_ESR, ESR[0], ESR[1]]));
    assert_eq!(set_events(&fake, Layout::Posted, &host), Ok(0));
    assert_eq!(fake.calls(), ["read", "set_events", "set_events", "pass"]);
    assert_eq!(fake.reg(Reg::EsrEl1), 0x8700_0610);
    let fake = native(bytes([DABT, IABT]));
    assert_eq!(set_events(&fake, Layout::Posted, &host), Err(EINVAL));
    assert_eq!(fake.calls(), ["pass"]);
}

#[test]
fn a_kernel_that_speaks_the_other_layout_gets_it() {
    let fake = Fake::speaking(Way::Native(Layout::Trailing), bytes([IABT, HAS_ESR, ESR[0], ESR[1]]));
    let host = Host::new();
    assert_eq!(set_events(&fake, Layout::Posted, &host), Ok(0));
    assert_eq!(fake.reg(Reg::EsrEl1), 0x8700_0610);
    fake.calls();
    assert_eq!(set_events(&fake, Layout::Trailing, &host), Err(EINVAL));
    assert_eq!(fake.calls(), ["pass"]);
}

#[test]
fn a_degraded_injection_is_eio_and_the_guest_takes_the_kernels_abort() {
    // read, ESR_EL2, PSTATE, the mark, the data abort, ESR_EL1: the seventh would write ESR_EL1.
    let fake = Fake { fails_at: Some(7), ..Fake::new(bytes([IABT])) };
    assert_eq!(set_events(&fake, Layout::Posted, &known_host()), Err(Errno(5)));
    assert_eq!((fake.reg(Reg::EsrEl1), fake.reg(Reg::Pc)), (0x9600_0010, 0x4000_0200));
}

#[test]
fn prefetch_abort_reaches_an_aarch32_guest_in_user_mode() {
    let fake = Fake::new(bytes([IABT])).set_reg(Reg::Pstate, 0x10).set_reg(Reg::Pc, 0x8000);
    {
        let mut vcpu = fake.kernel.vcpu.borrow_mut();
        vcpu.config.el1_aarch32 = true;
        vcpu.set_reg(Reg::VbarEl1, 0x4000);
    }
    assert_eq!(first_call(&fake), Ok(0));
    assert_eq!((fake.reg(Reg::Pc), fake.reg(Reg::X(20))), (0x400c, 0x8004));
    assert_eq!((fake.reg(Reg::Ifsr32), fake.reg(Reg::EsrEl1)), (0x8, 0));
    assert_eq!(fake.reg(Reg::FarEl1), 0xdead_0000 << 32);
    assert_eq!(fake.reg(Reg::Pstate) & 0x1f, 0x17);
}

#[test]
fn instruction_abort_reaches_virtual_el2() {
    let fake = Fake::new(bytes([IABT, HAS_ESR, ESR[0], ESR[1]])).set_reg(Reg::Pstate, 0x3c9);
    {
        let mut vcpu = fake.kernel.vcpu.borrow_mut();
        vcpu.config.el2 = true;
        vcpu.set_reg(Reg::VbarEl2, 0x5000_0000);
    }
    assert_eq!(first_call(&fake), Ok(0));
    assert_eq!((fake.reg(Reg::EsrEl2), fake.reg(Reg::Pc)), (0x8700_0610, 0x5000_0200));
    assert_eq!(fake.reg(Reg::EsrEl1), 0);
}

/// Facts, section 3, nested; `HCR_EL2.TEA` is bit 37.
#[test]
fn what_a_guest_hypervisor_takes_from_its_own_guest_is_refused_untouched() {
    let nested = |argument| {
        let fake = Fake::new(argument).set_reg(Reg::Pstate, 0x3c5).set_reg(Reg::HcrEl2, 1 << 37);
        fake.kernel.vcpu.borrow_mut().config.el2 = true;
        fake
    };
    for argument in [bytes([IABT]), bytes([DABT, HAS_ESR, ESR[0], ESR[1]])] {
        let fake = nested(argument);
        let before = fake.kernel.vcpu.borrow().clone();
        assert_eq!(first_call(&fake), Err(Errno(95)));
        assert_eq!(*fake.kernel.vcpu.borrow(), before);
    }
    // Mainline's own call is the program's affair.
    assert_eq!(first_call(&nested(bytes([DABT]))), Ok(0));
}

#[test]
fn any_byte_that_is_not_zero_is_true() {
    let fake = Fake::new(bytes([(3, 0xff), (4, 0x80), ESR[0], ESR[1]]));
    assert_eq!(first_call(&fake), Ok(0));
    assert_eq!(fake.reg(Reg::EsrEl1), 0x8700_0610);
    let plain = Fake::new(bytes([(2, 0xff)]));
    assert_eq!(first_call(&plain), Ok(0));
    assert_eq!(plain.reg(Reg::EsrEl1), 0x9600_0010);
}

#[test]
fn asking_what_the_kernel_speaks_changes_nothing() {
    for way in [Way::Assisted, Way::Native(Layout::Posted), Way::Native(Layout::Trailing)] {
        let fake = Fake::speaking(way, [0; 64]);
        let before = fake.kernel.vcpu.borrow().clone();
        assert_eq!(Host::new().way(&fake), Ok(way));
        assert_eq!(*fake.kernel.vcpu.borrow(), before);
    }
}
