//! The thread that contains: it is there before the VMM filters its threads' system calls, and does nothing else.

use std::any::Any;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use seawall::{
    Action, AddressMap, ContainError, Contained, Containment, Host as _, HostKnows, LinuxHost, Now, Source,
    StopReason,
};
use seawall_events::SeaExit;
use seawall_events::wire::{KVM_CAP_ARM_SEA_TO_USER, KVM_ENABLE_CAP, VCPU_EVENTS_SIZE};
use seawall_inject::{Errno, Exited, ExitedError, Injector, KvmVcpu as _, Last};
use seccompiler::BpfProgram;

use crate::calls::{Calls, Vcpu, ask};
use crate::desk::{Answer, Place, What};
use crate::files::VmId;
use crate::report::{Reporter, say};
use crate::{Settings, Sigbus, Wrap, filter};

/// `KVM_CHECK_EXTENSION`.
const KVM_CHECK_EXTENSION: u32 = 0xae03;

pub(crate) struct Helper<C: 'static> {
    wrap: &'static Wrap<C>,
    settings: Settings,
    reporter: Reporter,
    /// When each VM was made.
    born: HashMap<u32, (u32, Instant)>,
    vms: HashMap<u32, Guest>,
    /// Not installed yet. A VMM that filters all threads at once could not do so if this one had a filter of its own.
    filter: Option<BpfProgram>,
    /// The kernel has no SEA exits: it was said.
    said_missing: bool,
    has_given_ledger: bool,
}

/// What is known of one VM, from its first error on.
struct Guest {
    generation: u32,
    containment: Containment,
    injector: Option<Injector>,
    since: Instant,
}

impl<C: Calls> Helper<C> {
    pub(crate) fn new(wrap: &'static Wrap<C>, settings: Settings, reporter: Reporter) -> Self {
        let filter =
            filter::program().inspect_err(|error| say(format_args!("no filter of its own: {error}")));
        Self {
            wrap,
            settings,
            reporter,
            born: HashMap::new(),
            vms: HashMap::new(),
            filter: filter.ok(),
            said_missing: false,
            has_given_ledger: false,
        }
    }

    /// Serves the VMM's threads, for ever.
    pub(crate) fn run(mut self) {
        let desk = &self.wrap.desk;
        loop {
            desk.serve(|what, answer| {
                let served = catch_unwind(AssertUnwindSafe(|| self.serve(what, answer)));
                if let Err(panic) = served {
                    self.vms.clear();
                    say(format_args!(
                        "a mistake of Seawall's: {}; this error is left to the VMM",
                        words(&*panic)
                    ));
                }
            });
        }
    }

    fn serve(&mut self, what: What, answer: &mut dyn FnMut(Answer)) {
        match what {
            What::NewVm { fd, vm } => {
                self.new_vm(fd, vm);
                answer(Answer::GoOn);
                return;
            }
            What::Filtered { missing } => {
                let calls = filter::names(missing);
                say(format_args!(
                    "the VMM's seccomp filter for all of its threads forbids what containment needs: {calls}. Errors are \
                     left to the VMM. Add these calls to its filter, or let it filter each thread"
                ));
                return;
            }
            What::Say(once) => {
                answer(Answer::GoOn);
                say(once.text());
                return;
            }
            What::Sea { .. } | What::Sigbus { .. } => {}
        }
        self.confine();
        let done = match what {
            What::Sea { at, exit } => self.sea(at, exit),
            What::Sigbus { at, signal } => self.sigbus(at, &signal.into()),
            _ => Answer::Leave,
        };
        // What the VMM does with an error may be its end.
        if done == Answer::GoOn {
            answer(done);
        }
        self.reporter.flush();
        answer(done);
    }

    /// From its first error on the thread makes the calls of containment and no other.
    fn confine(&mut self) {
        let Some(program) = self.filter.take() else { return };
        if let Err(error) = seccompiler::apply_filter(&program) {
            say(format_args!("no filter of its own: {error}"));
        }
    }

    /// `KVM_CAP_ARM_SEA_TO_USER`, where the kernel has it.
    fn new_vm(&mut self, fd: i32, vm: VmId) {
        self.vms.remove(&vm.place);
        self.born.insert(vm.place, (vm.generation, Instant::now()));
        // SAFETY: it takes a number.
        let has =
            unsafe { ask(&self.wrap.calls, fd, KVM_CHECK_EXTENSION, KVM_CAP_ARM_SEA_TO_USER as *mut _) };
        let failure = match has {
            Ok(0) => {
                Some("this kernel has no KVM_CAP_ARM_SEA_TO_USER; expected Linux 6.19 or newer".to_owned())
            }
            Ok(_) => {
                self.enable(fd).err().map(|error| format!("KVM_CAP_ARM_SEA_TO_USER was refused: {error}"))
            }
            Err(error) => Some(format!("KVM_CHECK_EXTENSION failed: {error}")),
        };
        if let Some(failure) = failure {
            if !std::mem::replace(&mut self.said_missing, true) {
                say(format_args!("{failure}. Only errors that come as SIGBUS are contained"));
            }
        }
    }

    fn enable(&self, fd: i32) -> Result<(), Errno> {
        // `struct kvm_enable_cap`: cap, flags, four arguments, and nothing.
        let mut capability = [0_u32; 26];
        capability[0] = KVM_CAP_ARM_SEA_TO_USER;
        // SAFETY: the kernel reads the 104 bytes.
        unsafe { ask(&self.wrap.calls, fd, KVM_ENABLE_CAP, capability.as_mut_ptr().cast()) }.map(drop)
    }

    fn sea(&mut self, at: Place, exit: SeaExit) -> Answer {
        let map = self.wrap.slots.map(at.vm);
        if self.settings.sigbus == Sigbus::Vmm && self.wrap.chain.has_handler() && !self.settings.dry_run {
            if let Some(gpa) = exit.gva_valid().and(exit.gpa_valid()) {
                if told(&map, gpa) {
                    self.reporter.note(format_args!(
                        "vCPU {}: the host was told that gpa {gpa:#x} is bad; the VMM's handler of SIGBUS gets it next",
                        at.number
                    ));
                    return Answer::GoOn;
                }
            }
        }
        match self.contain(at, map, &Source::Sea(exit), Last::NoWalk) {
            // What KVM does when nobody is told: an SError.
            Answer::Leave if self.settings.dry_run => self.serror(at),
            answer => answer,
        }
    }

    fn sigbus(&mut self, at: Place, source: &Source) -> Answer {
        let map = self.wrap.slots.map(at.vm);
        self.contain(at, map, source, Last::Any)
    }

    fn contain(&mut self, at: Place, map: AddressMap, source: &Source, last: Last) -> Answer {
        let Self { settings, reporter, vms, born, has_given_ledger, .. } = self;
        let vcpu = Vcpu { calls: &self.wrap.calls, fd: at.fd };
        let guest = match vms.entry(at.vm.place) {
            Entry::Occupied(there) if there.get().generation == at.vm.generation => there.into_mut(),
            entry => {
                let ledger = reporter.ledger().filter(|_| !std::mem::replace(has_given_ledger, true));
                let born = born.get(&at.vm.place).filter(|(generation, _)| *generation == at.vm.generation);
                let since = born.map_or_else(Instant::now, |(_, since)| *since);
                let guest = Guest::new((at.vm.generation, since), settings, reporter, ledger);
                entry.insert_entry(guest).into_mut()
            }
        };
        match guest.contain(vcpu, map, source, last, at.number) {
            Ok(contained) => {
                if let Some(outcome) = contained.outcome() {
                    reporter.note(format_args!("vCPU {}: {outcome}", at.number));
                } else {
                    reporter.note(&contained);
                }
                let is_dry = matches!(&contained, Contained::Error(outcome) if matches!(outcome.action, Action::DryRun(_)));
                if is_dry {
                    return Answer::Leave;
                }
                match contained.stop() {
                    None => Answer::GoOn,
                    // A dry run's guest goes the way of one without us, and memory of the VMM's own is its affair.
                    Some(_) if settings.dry_run => Answer::Leave,
                    Some(StopReason::NotGuests { .. }) => Answer::Leave,
                    Some(_) => {
                        say("the guest must not run on: KVM_RUN fails with EHWPOISON until it is reset");
                        Answer::Stop
                    }
                }
            }
            Err(error) if has_injected(&error) => {
                say(format_args!("vCPU {}: {error}", at.number));
                Answer::GoOn
            }
            Err(error) => {
                say(format_args!("vCPU {}: {error}; the error is left to the VMM", at.number));
                Answer::Leave
            }
        }
    }

    fn serror(&self, at: Place) -> Answer {
        let mut events = [0; VCPU_EVENTS_SIZE];
        events[0] = 1;
        let vcpu = Vcpu { calls: &self.wrap.calls, fd: at.fd };
        match vcpu.set_vcpu_events(&events) {
            Ok(()) => Answer::GoOn,
            Err(error) => {
                say(format_args!("vCPU {}: KVM_SET_VCPU_EVENTS failed: {error}", at.number));
                Answer::Leave
            }
        }
    }
}

impl Guest {
    fn new(
        (generation, since): (u32, Instant),
        settings: &Settings,
        reporter: &Reporter,
        ledger: Option<std::sync::Arc<seawall::ledger::Keeper>>,
    ) -> Self {
        let containment = Containment::new(settings.rules)
            .with_host(LinuxHost)
            .with_host_page(seawall_host::page_size())
            .with_telemetry(reporter.sink())
            .with_dry_run(settings.dry_run);
        let containment = match ledger {
            Some(ledger) => containment.with_ledger(ledger),
            None => containment,
        };
        Self { generation, containment, injector: None, since }
    }

    fn contain<C: Calls>(
        &mut self,
        vcpu: Vcpu<'_, C>,
        map: AddressMap,
        source: &Source,
        last: Last,
        number: u32,
    ) -> Result<Contained, ContainError<ExitedError>> {
        let now = Now::new(number, self.since.elapsed());
        let injector = match self.injector {
            Some(injector) => injector,
            None => Injector::probe(&vcpu).map_err(|error| ContainError::Vcpu(error.into()))?,
        };
        self.injector = Some(injector);
        self.containment.set_addresses(map);
        self.containment.contain(&mut Exited::new(vcpu, injector, last), source, None, &now)
    }
}

/// The host's page around `gpa`: the kernel knows that it is bad.
fn told(map: &AddressMap, gpa: u64) -> bool {
    let page = seawall_host::page_size();
    let start = gpa & !(page - 1);
    let mut ranges = map.host_ranges(start..start.saturating_add(page)).peekable();
    ranges.peek().is_some() && ranges.all(|range| LinuxHost.tell(range) == HostKnows::Told)
}

/// The guest has taken an abort, though not the one that was decided on.
fn has_injected(error: &ContainError<ExitedError>) -> bool {
    matches!(error, ContainError::Vcpu(ExitedError::Events(error)) if error.has_injected())
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic")
}
