//! SEA exits.

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::Ordering;

use libc::siginfo_t;
use seawall::{Answer, ErrorKind, Rules};
use seawall_arm::{Reg, Registers as _};
use seawall_wrap::{Settings, Wrap};

use crate::fake::{
    EXIT_INTR, EXIT_MMIO, EXIT_SEA, Fake, KVM_ARM_VCPU_INIT, KVM_ENABLE_CAP, Step, Vmm, errno, lock,
};

extern "C" fn no_signal(_: c_int, _: *mut siginfo_t, _: *mut c_void) {}

const SEA: Step = Step::Sea { gpa: 0x8020_0000 };

/// A wrapped VMM: each test has statics of its own.
macro_rules! vmm {
    ($settings:expr) => {{
        static WRAP: Wrap<Fake> = Wrap::new(Fake::new());
        WRAP.start($settings, no_signal).expect("it starts");
        let fake: &'static Fake = WRAP.calls();
        (Vmm::new(&WRAP, fake), fake, &WRAP)
    }};
}

fn steps(fake: &Fake, steps: &[Step]) {
    *lock(&fake.steps) = steps.iter().rev().copied().collect();
    fake.runs.store(0, Ordering::Relaxed);
}

/// DDI 0487, ESR_EL1: EC 0x24, IL, SET and EA as the exit had them.
#[test]
fn an_error_is_contained_and_the_vmm_sees_the_next_exit() {
    let (vmm, fake, _) = vmm!(Settings::default());
    assert_eq!(fake.enabled.load(Ordering::Relaxed), 245);
    steps(fake, &[SEA]);
    // SAFETY: it points to this thread's errno.
    unsafe { *libc::__errno_location() = 77 };
    assert_eq!(vmm.run(), (0, EXIT_MMIO));
    assert_eq!((errno(), fake.runs.load(Ordering::Relaxed)), (77, 2));
    assert_eq!(fake.look(|vcpu| vcpu.reg(Reg::EsrEl1)), 0x9200_0210);
    assert_eq!(fake.look(|vcpu| vcpu.reg(Reg::Pc)), 0xffff_8000_1000_0800 + 0x400);
}

#[test]
fn what_is_no_memory_error_comes_as_the_kernel_gives_it() {
    let (vmm, fake, _) = vmm!(Settings::default());
    for failure in [libc::EINTR, libc::EAGAIN, libc::EFAULT, libc::ENOEXEC] {
        steps(fake, &[Step::Fails(failure)]);
        assert_eq!((vmm.run().0, errno()), (-1, failure));
        assert_eq!(fake.runs.load(Ordering::Relaxed), 1);
    }
    assert_eq!(vmm.run(), (0, EXIT_MMIO));
    assert_eq!((vmm.ioctl(vmm.vm, 0x1234, null_mut()), errno()), (-1, libc::ENOTTY));
}

/// EHWPOISON is 133: each VMM takes a `KVM_RUN` that fails for the end of its guest.
#[test]
fn a_storm_ends_with_a_run_that_fails_and_no_other_runs_until_a_reset() {
    let (vmm, fake, _) = vmm!(Settings::default());
    for n in 0..16 {
        fake.set_guest(0x40_1040);
        steps(fake, &[SEA]);
        assert_eq!(vmm.run(), (0, EXIT_MMIO), "{n}");
    }
    fake.set_guest(0x40_1040);
    steps(fake, &[SEA]);
    assert_eq!((vmm.run().0, errno()), (-1, 133));
    assert_eq!(fake.look(|vcpu| vcpu.reg(Reg::Pc)), 0x40_1040, "nothing was injected");
    assert_eq!((vmm.run().0, errno()), (-1, 133));
    assert_eq!(fake.runs.load(Ordering::Relaxed), 1);
    assert_eq!(vmm.ioctl(vmm.vcpu, KVM_ARM_VCPU_INIT, null_mut()), 0);
    assert_eq!(vmm.run(), (0, EXIT_MMIO));
}

#[test]
fn a_rule_that_stops_fails_the_run() {
    let rules = Rules::default().with(ErrorKind::UserData, Answer::Stop);
    let (vmm, fake, _) = vmm!(Settings { rules, ..Settings::default() });
    steps(fake, &[SEA]);
    assert_eq!((vmm.run().0, errno()), (-1, 133));
    assert_eq!(fake.runs.load(Ordering::Relaxed), 1);
}

/// QEMU 10.0 on Arm runs the vCPU again after an exit that it does not know.
#[test]
fn a_vmm_that_runs_on_after_exits_that_were_left_to_it_is_stopped() {
    let (vmm, fake, _) = vmm!(Settings::default());
    *lock(&fake.vcpu) = None;
    for n in 0..16 {
        steps(fake, &[SEA]);
        assert_eq!(vmm.run(), (0, EXIT_SEA), "{n}");
    }
    steps(fake, &[SEA]);
    assert_eq!((vmm.run().0, errno()), (-1, 133));
}

/// KVM's own way with nobody to ask: an SError without an ESR.
#[test]
fn a_dry_run_gives_the_guest_what_kvm_gives_it_and_writes_the_event() {
    let folder = tempfile::tempdir().unwrap();
    let events = folder.path().join("events");
    let settings = Settings { dry_run: true, events: Some(events.clone()), ..Settings::default() };
    let (vmm, fake, _) = vmm!(settings);
    steps(fake, &[SEA]);
    assert_eq!(vmm.run(), (0, EXIT_MMIO));
    assert!(fake.look(|vcpu| vcpu.serror.pending) || fake.look(|vcpu| vcpu.reg(Reg::EsrEl1)) == 0xbf00_0000);
    let lines = std::fs::read_to_string(&events).unwrap();
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["event"], &lines[0]["dry_run"]), (&"wrapped".into(), &true.into()));
    assert_eq!((&lines[1]["event"], &lines[1]["gpa"]), (&"memory-error".into(), &"0x80200000".into()));
    assert_eq!(lines[1]["guest"], "dry-run");
}

#[test]
fn a_vmm_that_asks_for_the_exits_itself_gets_them() {
    let (vmm, fake, _) = vmm!(Settings::default());
    let mut capability = [245_u32, 0];
    assert_eq!(vmm.ioctl(vmm.vm, KVM_ENABLE_CAP, capability.as_mut_ptr().cast()), 0);
    steps(fake, &[SEA]);
    assert_eq!(vmm.run(), (0, EXIT_SEA));
}

#[test]
fn a_forked_process_has_no_helper_and_a_vm_of_its_own_gets_one() {
    let (vmm, fake, wrap) = vmm!(Settings::default());
    wrap.forked();
    steps(fake, &[SEA]);
    assert_eq!(vmm.run(), (0, EXIT_SEA));
    let again = Vmm::new(wrap, fake);
    steps(fake, &[SEA]);
    assert_eq!(again.run(), (0, EXIT_MMIO));
}

#[test]
fn a_mistake_of_ours_leaves_the_exit_to_the_vmm_and_the_next_error_is_contained() {
    let (vmm, fake, _) = vmm!(Settings::default());
    steps(fake, &[SEA]);
    fake.panics.store(1, Ordering::Relaxed);
    assert_eq!(vmm.run(), (0, EXIT_SEA));
    steps(fake, &[SEA]);
    assert_eq!(vmm.run(), (0, EXIT_MMIO));
}

#[test]
fn an_injection_that_the_kernel_refuses_leaves_the_exit_to_the_vmm() {
    let (vmm, fake, _) = vmm!(Settings::default());
    steps(fake, &[SEA]);
    *lock(&fake.vcpu) = None;
    assert_eq!(vmm.run(), (0, EXIT_SEA));
}

/// A filter on all threads, as QEMU's `-sandbox` installs it; classic BPF: `ret ALLOW`, `ret KILL_PROCESS`.
#[test]
fn a_filter_for_all_threads_that_forbids_containment_leaves_the_exits_to_the_vmm() {
    let (vmm, fake, wrap) = vmm!(Settings::default());
    let filter = |action: u32| -> [u64; 1] { [0x06 | u64::from(action) << 32] };
    for (action, expected) in [(0x7fff_0000, EXIT_MMIO), (0x8000_0000, EXIT_SEA)] {
        let program = filter(action);
        let fprog = [1, program.as_ptr() as u64];
        // SAFETY: a struct sock_fprog: one instruction, and where it is.
        unsafe { wrap.filtered(fprog.as_ptr().cast()) };
        steps(fake, &[SEA]);
        assert_eq!(vmm.run(), (0, expected), "{action:#x}");
    }
}

/// Another page and another instruction each time: no storm.
#[test]
fn ten_thousand_errors_leave_no_descriptor_and_no_memory_behind() {
    let (vmm, fake, _) = vmm!(Settings { quiet: true, ..Settings::default() });
    let once = |n: u64| {
        fake.set_guest(0x40_0000 + 4 * n);
        steps(fake, &[Step::Sea { gpa: 0x8000_0000 + 4096 * n }]);
        assert_eq!(vmm.run(), (0, EXIT_MMIO), "{n}");
    };
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    // KiB.
    let memory = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    (0..1000).for_each(once);
    let before = (descriptors(), memory());
    (1000..10_000).for_each(once);
    assert_eq!(descriptors(), before.0);
    assert!(memory() < before.1 + 1024, "{} KiB before, {} KiB after", before.1, memory());
}

#[test]
fn a_thousand_vms_come_and_go_and_the_last_is_contained() {
    let (_, fake, wrap) = vmm!(Settings::default());
    for _ in 0..1000 {
        let vmm = Vmm::new(wrap, fake);
        vmm.set_memory(0, 0x8000_0000, 0x7000_0000_0000, 0x1000_0000);
        steps(fake, &[SEA]);
        assert_eq!(vmm.run(), (0, EXIT_MMIO));
        wrap.closed(vmm.vm);
        wrap.closed(vmm.vcpu);
    }
}

/// Whoever sent it expects KVM_RUN to come back.
#[test]
fn a_signal_during_a_containment_makes_the_run_fail_with_eintr() {
    use std::os::unix::thread::JoinHandleExt as _;
    extern "C" fn kick(_: c_int) {}
    // SAFETY: the handler does nothing; a zeroed sigaction is one.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = kick as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGUSR1, &raw const action, null_mut());
    }
    let (vmm, fake, _) = vmm!(Settings::default());
    steps(fake, &[SEA]);
    // The helper waits for the vCPU's registers as long as the test has them.
    let held = lock(&fake.vcpu);
    let runs = std::thread::spawn(move || (vmm.run(), errno()));
    for _ in 0..100 {
        std::thread::sleep(std::time::Duration::from_millis(1));
        // SAFETY: the thread is there: it waits for the helper.
        unsafe { libc::pthread_kill(runs.as_pthread_t(), libc::SIGUSR1) };
    }
    drop(held);
    assert_eq!(runs.join().unwrap(), ((-1, EXIT_INTR), libc::EINTR));
    assert_eq!(fake.look(|vcpu| vcpu.reg(Reg::EsrEl1)), 0x9200_0210, "contained");
}
