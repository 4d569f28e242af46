//! A guest on KVM.

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
pub(super) use here::run;

/// Nobody comes here: there is no KVM to be opened.
#[cfg(not(all(target_os = "linux", target_arch = "aarch64")))]
pub(super) fn run(
    _: &super::Args,
    _: seawall_vmm::Config,
    _: &seawall_vmm::Guest,
    _: super::Output,
    _: &super::Deadline,
) -> Result<u8, crate::Failure> {
    Err(crate::Failure::new(crate::exit::UNAVAILABLE, "--backend kvm: expected an aarch64 Linux host"))
}

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod here {
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
    use std::time::{Duration, Instant};

    use seawall::ledger::Ledger;
    use seawall::telemetry::{AccessReport, ErrorReport};
    use seawall::{Outcome, UnansweredOutcome};
    use seawall_vmm::{Config, End, Error, Guest, KvmMachine, Observer};
    use serde_json::json;

    use crate::Failure;
    use crate::run::Args;
    use crate::run::deadline::Deadline;
    use crate::run::ending::{Ending, Where};
    use crate::run::keyboard::{Keyboard, Typed};
    use crate::run::output::{Output, When};

    /// Between two looks at whether the UART has room for more keys.
    const PAUSE: Duration = Duration::from_millis(5);

    #[derive(Clone)]
    struct Watch {
        output: Arc<Mutex<Output>>,
        started: Instant,
    }

    impl Watch {
        fn output(&self) -> MutexGuard<'_, Output> {
            self.output.lock().unwrap_or_else(PoisonError::into_inner)
        }

        fn when(&self) -> When {
            When { time: self.started.elapsed(), instructions: None }
        }
    }

    impl Observer for Watch {
        fn console(&mut self, bytes: &[u8]) {
            self.output().console(bytes);
        }

        fn memory_error(&mut self, report: &ErrorReport, outcome: &Outcome) {
            self.output().memory_error(self.when(), report, outcome);
        }

        fn unanswered_access(&mut self, report: &AccessReport, outcome: &UnansweredOutcome) {
            self.output().unanswered(self.when(), report, outcome);
        }
    }

    /// Runs the guest to its end: the exit code.
    pub(in crate::run) fn run(
        args: &Args,
        config: Config,
        guest: &Guest,
        output: Output,
        deadline: &Deadline,
    ) -> Result<u8, Failure> {
        let watch = Watch { output: Arc::new(Mutex::new(output)), started: Instant::now() };
        let bad = config.ledger.with(Ledger::pages);
        let mut machine = KvmMachine::new(config, guest, Box::new(watch.clone()))?;
        let left = machine.ledger().with(Ledger::pages);
        watch.output().starts(watch.when(), None, bad - left, left);
        let gauges = machine.gauges();
        let _metrics = args.metrics(move || {
            // A guest whose records are not in its memory hears of it at its next error.
            let _ = gauges.gauge();
        })?;
        // It is asked for keys all the time.
        let (keyboard, guest_keyboard) = (args.keyboard(|| ()), machine.keyboard());
        let keyboard = Arc::new(Mutex::new(keyboard));
        let keys = keyboard.clone();
        // It ends with the process: nothing can be waited for that a read of a terminal would give up.
        std::thread::spawn(move || type_in(&keys, &guest_keyboard));
        // The run looks at the time itself.
        deadline.ends_by(|| ());
        let ended = run_with_reboots(args, &mut machine, guest, &watch, deadline);
        deadline.seen();
        // A terminal is as it was before anything is said.
        *keyboard.lock().unwrap_or_else(PoisonError::into_inner) = Keyboard::none();
        let ending = match ended? {
            End::TimeLimit => Ending::TimeLimit(args.timeout.unwrap_or_default()),
            end => Ending::Guest(end),
        };
        let text = ending.explain(Where::default());
        let written = machine.ledger().flush();
        let (when, mut output) = (watch.when(), watch.output());
        output.end(when, ending.name(), ending.code(), &text);
        if let Err(error) = written {
            output.note(&error);
        }
        output.finish(json!({
            "backend": "kvm",
            "policy": args.policy,
            "outcome": ending.name(),
            "text": text,
            "bad_pages": machine.ledger().with(Ledger::pages),
        }))?;
        Ok(ending.code())
    }

    /// Runs the guest to its end, or to that of its last reboot.
    fn run_with_reboots(
        args: &Args,
        machine: &mut KvmMachine,
        guest: &Guest,
        watch: &Watch,
        deadline: &Deadline,
    ) -> Result<End, Error> {
        let mut end = machine.run(deadline.left())?;
        for _ in 0..args.reboot {
            let ending = Ending::Guest(end.clone());
            if !ending.wants_reboot() {
                break;
            }
            let bad = machine.ledger().with(Ledger::pages);
            machine.reset(guest)?;
            let left = machine.ledger().with(Ledger::pages);
            watch.output().starts(watch.when(), Some(ending.name()), bad - left, left);
            end = machine.run(deadline.left())?;
        }
        Ok(end)
    }

    /// Types on the guest's console, at the pace at which the guest takes it. Who wants to leave need not wait for that.
    fn type_in(keyboard: &Mutex<Keyboard>, guest: &seawall_vmm::Keyboard) {
        let mut rest = Vec::new();
        loop {
            let mut keys = keyboard.lock().unwrap_or_else(PoisonError::into_inner);
            let typed = keys.typed(Duration::ZERO);
            if typed == Some(Typed::Leave) {
                *keys = Keyboard::none();
                std::process::exit(0);
            }
            let is_over = !keys.is_open();
            drop(keys);
            let is_new = match typed {
                Some(Typed::Bytes(bytes)) => {
                    rest.extend(bytes);
                    true
                }
                _ => false,
            };
            if rest.is_empty() && is_over {
                return;
            }
            if !rest.is_empty() {
                rest.drain(..guest.type_in(&rest));
            }
            if !is_new {
                std::thread::sleep(PAUSE);
            }
        }
    }
}
