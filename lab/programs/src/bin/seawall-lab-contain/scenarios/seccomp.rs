//! The whole of containment under seccomp filters, which consist of `seawall_host::seccomp` and `KVM_RUN`: a
//! thread that sets up, one that runs the vCPU and contains, the ledger's writer, and one that resets the
//! guest. Then each thread runs again with one rule fewer, which kills. A filter cannot be removed: each case
//! runs in a process of its own.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Scope;
use std::time::{Duration, Instant};
use std::{env, thread};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use seawall::apei::ghes::{Ghes, GhesRegion};
use seawall::ledger::{Keeper, Ledger};
use seawall::{AddressMap, Containment, Host, HostKnows, MemoryRegion, Now, Rules, Source};
use seawall_events::Reg;
use seawall_host::seccomp::{self, INSTALL, RUNTIME, Rule, Thread, allow};
use seawall_host::{Backing, sigbus};
use seawall_inject::{Exit, Inject as _, Injector, SystemEvent, Vcpu as _};
use seawall_kvm::probe::{Device, Extended, probe};
use seawall_kvm::{Bytes as _, GuestAddress, GuestMemoryMmap, Kvm, Vcpu, Vm, VmConfig};
use seawall_lab::Transcript;
use seawall_lab_machine::PoisonRegister;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule, apply_filter};
use vm_memory::FileOffset;

use crate::linux::text;
use crate::report::{Verdict, expect};
use crate::watch::poison;

/// The first argument of the VMM; then the file with its guest's memory, the thread whose filter lacks a
/// rule, and the rule.
///
/// The file belongs to the scenario: bad memory must not go back to the host when the VMM is killed.
const CHILD: &str = "--vmm-under-seccomp";
const KVM_RUN: u32 = 0xae80;

const RAM: u64 = 0x4000_0000;
const SIZE: u64 = 2 << 20;
const PAGE: u64 = 4096;
const VECTORS: u64 = RAM + 0x1000;
const CODE: u64 = RAM + 0x2000;
const RECORDS: GhesRegion = GhesRegion { base: RAM + 0x1_0000, sea: 32, polled: 1, poll_interval: 1000 };
/// The guest loads from each of these: the host knows that the first is bad, the others are bad in hardware.
const PAGES: u64 = RAM + 0x10_0000;
const BAD: u64 = 4;

/// 1: ldr x3, [x21]; add x21, x21, #4096; subs x20, x20, #1; b.ne 1b; PSCI SYSTEM_OFF
const PROGRAM: [u32; 7] =
    [0xf940_02a3, 0x9140_06b5, 0xf100_0694, 0x54ff_ffa1, 0x5280_0100, 0x72b0_8000, 0xd400_0002];
/// Continues after the load: mrs x9, elr_el1; add x9, x9, #4; msr elr_el1, x9; eret
const HANDLER: [u32; 4] = [0xd538_4029, 0x9100_1129, 0xd518_4029, 0xd69f_03e0];

/// The VMM's threads with a filter.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Installer,
    Vcpu,
    Writer,
    Resetter,
}

impl Which {
    const ALL: [(&str, Self); 4] = [
        ("installer", Self::Installer),
        ("vcpu", Self::Vcpu),
        ("writer", Self::Writer),
        ("resetter", Self::Resetter),
    ];

    /// Its rules, each once.
    fn rules(self) -> Vec<Rule> {
        let all: Vec<Rule> = match self {
            Self::Installer => RUNTIME.iter().chain(INSTALL.rules).copied().collect(),
            Self::Vcpu => seccomp::rules(Thread::Vcpu).copied().collect(),
            Self::Writer => seccomp::rules(Thread::LedgerWriter).copied().collect(),
            Self::Resetter => seccomp::rules(Thread::Other).copied().collect(),
        };
        let mut once = Vec::new();
        for rule in all {
            if !once.contains(&rule) {
                once.push(rule);
            }
        }
        once
    }

    /// Returns true for calls that only other programs or machines make. Here the memory is not locked or of
    /// huge pages, few pages are kept, in one pipe, the disk is not full, no file name is taken, and the
    /// runtime's other calls depend on its allocator and its clock. A kernel that takes the ESR needs no registers set.
    fn may_spare(self, rule: &Rule, is_native: bool) -> bool {
        let of_others: &[&str] = match self {
            Self::Writer => &["unlinkat", "getrandom"],
            Self::Resetter => &[
                "pipe2",
                "fcntl (F_SETPIPE_SZ)",
                "madvise (MADV_DONTNEED_LOCKED)",
                "madvise (MADV_POPULATE_WRITE)",
            ],
            Self::Vcpu if is_native => &["close", "ioctl (KVM_SET_ONE_REG)"],
            Self::Vcpu => &["close"],
            Self::Installer => &[],
        };
        let is_of_installer = INSTALL.rules.contains(rule);
        RUNTIME.contains(rule)
            || of_others.contains(&rule.to_string().as_str())
            || self == Self::Resetter && is_of_installer
    }
}

/// The rule to leave out, if any.
#[derive(Clone, Copy)]
struct LeftOut(Option<(Which, usize)>);

impl LeftOut {
    fn filter(self, which: Which) -> Result<BpfProgram, String> {
        let mut rules = which.rules();
        if let Self(Some((of, number))) = self {
            if of == which {
                rules.remove(number);
            }
        }
        let mut filter: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
        allow(&mut filter, &rules).map_err(text)?;
        if which == Which::Vcpu {
            allow(&mut filter, &[run_rule()]).map_err(text)?;
        }
        let arch = env::consts::ARCH.try_into().map_err(text)?;
        let filter = SeccompFilter::new(filter, SeccompAction::KillProcess, SeccompAction::Allow, arch);
        filter.map_err(text)?.try_into().map_err(text)
    }

    /// Starts a thread that does this under its filter.
    fn spawn<'scope, T: Send + 'scope>(
        self,
        scope: &'scope Scope<'scope, '_>,
        which: Which,
        act: impl FnOnce() -> Result<T, String> + Send + 'scope,
    ) -> Result<thread::ScopedJoinHandle<'scope, Result<T, String>>, String> {
        let filter = self.filter(which)?;
        Ok(scope.spawn(move || {
            apply_filter(&filter).map_err(text)?;
            act()
        }))
    }
}

/// The VMM's own call.
fn run_rule() -> Rule {
    const ARGUMENTS: &[seccomp::Argument] = &[seccomp::Argument { index: 1, mask: u32::MAX, value: KVM_RUN }];
    Rule { purpose: Some("KVM_RUN"), arguments: ARGUMENTS, ..INSTALL.rules[1] }
}

/// The host's answer for each page.
#[derive(Clone, Default)]
struct Teller(Arc<Mutex<Vec<HostKnows>>>);

impl Host for Teller {
    fn tell(&mut self, bad: Range<u64>) -> HostKnows {
        let knows = match seawall_host::tell(bad) {
            seawall_host::HostKnows::Told => HostKnows::Told,
            seawall_host::HostKnows::Kept => HostKnows::Kept,
            seawall_host::HostKnows::Unknown => HostKnows::Unknown,
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(knows);
        knows
    }
}

/// The VMM, if this process is one.
pub(super) fn child_if_asked() -> Option<ExitCode> {
    let mut arguments = env::args().skip(1);
    if arguments.next()? != CHILD {
        return None;
    }
    let memory = arguments.next().unwrap_or_default();
    let which = arguments.next().unwrap_or_default();
    let which = Which::ALL.iter().find(|(name, _)| *name == which).map(|(_, which)| *which);
    let number = arguments.next().and_then(|number| number.parse().ok());
    let is_privileged = arguments.next().is_some();
    match vmm(Path::new(&memory), LeftOut(which.zip(number)), is_privileged) {
        Ok(()) => Some(ExitCode::SUCCESS),
        Err(error) => {
            println!("{error}");
            Some(ExitCode::FAILURE)
        }
    }
}

fn vmm(memory: &Path, left_out: LeftOut, is_privileged: bool) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(text)?;
    let path = folder.path().join("ledger");
    let probed = probed()?;
    thread::scope(|scope| {
        left_out.spawn(scope, Which::Installer, || install(&probed))?.join().map_err(panicked)?
    })?;
    let (vm, mut vcpu) = machine(memory)?;
    let arrived = arrived()?;
    let host = vm.host_address(RAM, SIZE).map_err(text)? as u64;
    let mut register = turn_bad(&vm)?;
    if !is_privileged {
        give_up_privilege()?;
    }
    let teller = Teller::default();
    let (keeper, writer) = Keeper::with_writer(&path).map_err(text)?;
    let keeper = Arc::new(keeper);
    let told = thread::scope(|scope| {
        let (vm, arrived) = (&vm, &arrived);
        let writer = left_out.spawn(scope, Which::Writer, || {
            writer.run();
            Ok(())
        })?;
        let mut containment = containment(host, teller.clone(), keeper.clone())?;
        let vcpu = left_out.spawn(scope, Which::Vcpu, move || {
            run(&mut vcpu, &mut containment, vm.memory())?;
            Ok((vcpu, containment))
        })?;
        drop(vcpu.join().map_err(panicked)??);
        keeper.flush().map_err(text)?;
        expect("pages in the ledger's file", &pages_in(&path)?, &BAD)?;
        let told = std::mem::take(&mut *teller.0.lock().unwrap_or_else(PoisonError::into_inner));
        let of_reset = keeper.clone();
        let resetter = left_out.spawn(scope, Which::Resetter, move || reset(vm, arrived, &of_reset))?;
        resetter.join().map_err(panicked)??;
        keeper.flush().map_err(text)?;
        expect("pages in the ledger's file, healed", &pages_in(&path)?, &0)?;
        drop(keeper);
        writer.join().map_err(panicked)??;
        Ok::<_, String>(told)
    });
    register.heal_all();
    let knows = if is_privileged { HostKnows::Told } else { HostKnows::Kept };
    expect("how the host was told", &told?, &vec![knows; BAD as usize - 1])
}

/// A VM of a VMM that uses `kvm-ioctls` alone.
type Probed = (kvm_ioctls::Kvm, kvm_ioctls::VmFd, kvm_ioctls::VcpuFd);

fn probed() -> Result<Probed, String> {
    let kvm = kvm_ioctls::Kvm::new().map_err(text)?;
    let vm = kvm.create_vm_with_ipa_size(40).map_err(text)?;
    let vcpu = vm.create_vcpu(0).map_err(text)?;
    let mut init = kvm_bindings::kvm_vcpu_init::default();
    vm.get_preferred_target(&mut init).map_err(text)?;
    vcpu.vcpu_init(&init).map_err(text)?;
    Ok((kvm, vm, vcpu))
}

fn install((kvm, vm, vcpu): &Probed) -> Result<(), String> {
    use seawall_events::wire::KVM_CAP_ARM_SEA_TO_USER as SEA_TO_USER;
    sigbus::install().map_err(text)?;
    if kvm.check_extension_raw(SEA_TO_USER.into()) <= 0 {
        return Err("expected KVM_CAP_ARM_SEA_TO_USER".to_owned());
    }
    let capability = kvm_bindings::kvm_enable_cap { cap: SEA_TO_USER, ..Default::default() };
    vm.enable_cap(&capability).map_err(text)?;
    Injector::probe(vcpu).map(|_| ()).map_err(text)
}

fn machine(memory: &Path) -> Result<(Vm, Vcpu), String> {
    let file = File::options().read(true).write(true).open(memory).map_err(text)?;
    let region = (GuestAddress(RAM), SIZE as usize, Some(FileOffset::new(file, 0)));
    let memory = GuestMemoryMmap::from_ranges_with_files([region]).map_err(text)?;
    let vm = Kvm::open().map_err(text)?.create_vm(memory, VmConfig::default()).map_err(text)?;
    for (address, words) in [(VECTORS + 0x200, &HANDLER[..]), (CODE, &PROGRAM[..])] {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        vm.memory().write_slice(&bytes, GuestAddress(address)).map_err(text)?;
    }
    let mut vcpu = vm.create_vcpu(0).map_err(text)?;
    for (reg, value) in [(Reg::Pc, CODE), (Reg::VbarEl1, VECTORS), (Reg::X(20), BAD), (Reg::X(21), PAGES)] {
        vcpu.set_reg(reg, value).map_err(text)?;
    }
    Ok((vm, vcpu))
}

fn turn_bad(vm: &Vm) -> Result<PoisonRegister, String> {
    let mut register = PoisonRegister::open().map_err(text)?;
    // Not the page after them, which is good.
    vm.memory().write_slice(&[1; 8], GuestAddress(PAGES + BAD * PAGE)).map_err(text)?;
    for page in (PAGES..).step_by(PAGE as usize).take(BAD as usize) {
        vm.memory().write_slice(&[1; 8], GuestAddress(page)).map_err(text)?;
        if page == PAGES {
            vm.hwpoison(page, PAGE).map_err(text)?;
        } else {
            poison(&mut register, vm.memory(), page, 64)?;
        }
    }
    Ok(register)
}

/// Gives up the privilege, once the register has its addresses: it takes physical ones, which need root.
fn give_up_privilege() -> Result<(), String> {
    let mut sets = capabilities(None).map_err(text)?;
    sets.effective.remove(CapabilitySet::SYS_ADMIN);
    sets.permitted.remove(CapabilitySet::SYS_ADMIN);
    set_capabilities(None, sets).map_err(text)
}

fn containment(host: u64, teller: Teller, keeper: Arc<Keeper>) -> Result<Containment, String> {
    let map = AddressMap::new([MemoryRegion { guest: RAM, host, size: SIZE }]).map_err(text)?;
    let mut containment =
        Containment::new(Rules::default()).with_addresses(map).with_host(teller).with_ledger(keeper);
    // Nobody reads the records.
    containment.set_patience(Duration::ZERO);
    Ok(containment)
}

/// The vCPU's thread: until the guest powers off.
fn run(vcpu: &mut Vcpu, containment: &mut Containment, memory: &GuestMemoryMmap) -> Result<(), String> {
    let mut ghes = Ghes::new(RECORDS);
    ghes.reset(memory).map_err(text)?;
    containment.set_records(Some(ghes));
    let mut as_serror = Containment::new(Rules::SERROR);
    let started = Instant::now();
    loop {
        let source: Source = match vcpu.run().map_err(text)? {
            Exit::Sea(sea) => sea.into(),
            Exit::Sigbus(sigbus) => sigbus.into(),
            Exit::SystemEvent(SystemEvent::Shutdown) => break,
            other => return Err(format!("expected a memory error or power-off, got {other:x?}")),
        };
        let now = Now::new(0, started.elapsed());
        let contained = containment.contain(vcpu, &source, Some(memory), &now).map_err(text)?;
        if let Some(reason) = contained.stop() {
            return Err(reason.to_string());
        }
    }
    // An SError, which the guest has masked: this reaches another check.
    let source = Source::SigbusAt(PAGES..PAGES + PAGE);
    let now = Now::new(0, started.elapsed());
    let contained = as_serror.contain(vcpu, &source, None, &now).map_err(text)?;
    contained.stop().map_or(Ok(()), |reason| Err(reason.to_string()))
}

/// A guest that arrived by migration.
fn arrived() -> Result<Vm, String> {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(RAM), SIZE as usize)]).map_err(text)?;
    let vm = Kvm::open().map_err(text)?.create_vm(memory, VmConfig::default()).map_err(text)?;
    vm.memory().write_slice(&[1; 2 * PAGE as usize], GuestAddress(RAM)).map_err(text)?;
    Ok(vm)
}

/// The thread that resets the guest, and takes one by migration: its bad memory becomes holes, which devices
/// read.
fn reset(vm: &Vm, arrived: &Vm, keeper: &Keeper) -> Result<(), String> {
    // And one page that nobody has told yet.
    let pages = PAGES..PAGES + (BAD + 1) * PAGE;
    let host = vm.host_address(pages.start, pages.end - pages.start).map_err(text)? as u64;
    heal(host..host + (pages.end - pages.start))?;
    keeper.remove(pages);
    arrived.make_holes(std::slice::from_ref(&(RAM..RAM + PAGE))).map_err(text)?;
    let is_good = |gpa| arrived.read(gpa, &mut [0]).is_ok();
    expect("reads of a hole, and beside it", &[is_good(RAM), is_good(RAM + PAGE)], &[false, true])
}

#[allow(unsafe_code, reason = "the machine's own function heals anonymous memory")]
fn heal(host: Range<u64>) -> Result<(), String> {
    // SAFETY: this is the guest memory's mapping, and the guest has ended.
    unsafe { seawall_host::heal(host, Backing::SHARED) }.map(|_| ()).map_err(text)
}

fn pages_in(path: &Path) -> Result<u64, String> {
    Ok(Ledger::load(path).map_err(text)?.map_or(0, |ledger| ledger.pages()))
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> String {
    "a thread panicked".to_owned()
}

/// The end of the VMM, and its last output.
fn try_vmm(arguments: &[&str]) -> Result<(ExitStatus, String), String> {
    let memory = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).map_err(text)?);
    memory.set_len(SIZE).map_err(text)?;
    let path = format!("/proc/{}/fd/{}", std::process::id(), memory.as_raw_fd());
    let program = env::current_exe().map_err(text)?;
    let output = Command::new(program).args([CHILD, &path]).args(arguments).output().map_err(text)?;
    PoisonRegister::open().map_err(text)?.heal_all();
    Ok((output.status, String::from_utf8_lossy(&output.stdout).trim_end().to_owned()))
}

pub(super) fn run_all(said: &Transcript) -> Verdict {
    const SIGSYS: i32 = 31;
    for arguments in [&["-", "-"][..], &["-", "-", "privileged"]] {
        let (status, words) = try_vmm(arguments)?;
        said.add(format!("VMM under all rules: {words}"));
        expect("the VMM's end under all rules", &status.code(), &Some(0))?;
    }
    let is_native = matches!(probe().device, Device::Arm64 { extended: Extended::Native(_), .. });
    let (mut needed, mut spared, mut wrong) = (0, 0, Vec::new());
    for (name, which) in Which::ALL {
        for (number, rule) in which.rules().iter().enumerate() {
            let number = number.to_string();
            let (mut status, mut words) = try_vmm(&[name, &number])?;
            if status.success() && !which.may_spare(rule, is_native) {
                // Rules that only the privilege leads to.
                (status, words) = try_vmm(&[name, &number, "privileged"])?;
            }
            said.add(format!("{name} without {rule}: {status} {words}"));
            match status.signal() {
                Some(SIGSYS) => needed += 1,
                None if status.success() && which.may_spare(rule, is_native) => spared += 1,
                _ => wrong.push(format!("{name} without {rule}: {status}")),
            }
        }
    }
    if !wrong.is_empty() {
        return Err(format!("expected SIGSYS: {}", wrong.join("; ")));
    }
    Ok(format!(
        "{BAD} errors on 4 filtered threads; without any one of {needed} rules the VMM is killed; {spared} are for others"
    ))
}
