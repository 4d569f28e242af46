//! A guest on KVM: it runs on threads of its own while the loop does its checks.

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
pub(super) use here::machine;

/// Never called, because there is no KVM to open.
#[cfg(not(all(target_os = "linux", target_arch = "aarch64")))]
pub(super) fn machine(
    _: seawall_vmm::Config,
    _: &seawall_vmm::Guest,
    _: &crate::watch::Watch,
) -> Result<Box<dyn super::machine::Machine>, crate::Failure> {
    Err(crate::Failure::new(crate::exit::UNAVAILABLE, "--backend kvm: expected an aarch64 Linux host"))
}

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod here {
    use std::sync::Arc;
    use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};
    use std::thread;
    use std::time::{Duration, Instant};

    use seawall::ledger::Keeper;
    use seawall_vmm::{Config, End, Error, Gauges, Guest, Keyboard, KvmMachine, Pauser};

    use crate::Failure;
    use crate::run::machine::{Machine, Slice};
    use crate::run::output::When;
    use crate::watch::Watch;

    /// The interval between checks of the time.
    const SLICE: Duration = Duration::from_millis(50);
    /// The interval between checks of the input, and of the guest's room for more.
    const KEY_SLICE: Duration = Duration::from_millis(5);

    /// A machine that ran, and its result.
    type Ran = (KvmMachine, Result<Option<End>, Error>);

    struct OnKvm {
        /// `Some` while the guest stands still.
        machine: Option<KvmMachine>,
        /// Returns the machine when its guest has ended or was paused.
        running: Option<Receiver<Ran>>,
        watch: Watch,
        pauser: Pauser,
        gauges: Gauges,
        keyboard: Keyboard,
        /// Takes input; `Some` once there was any.
        typist: Option<SyncSender<Vec<u8>>>,
        ledger: Arc<Keeper>,
        started: Instant,
    }

    /// A machine with this guest, observed by `watch`.
    pub(in crate::run) fn machine(
        config: Config,
        guest: &Guest,
        watch: &Watch,
    ) -> Result<Box<dyn Machine>, Failure> {
        let watch = watch.for_other_threads();
        let machine = KvmMachine::new(config, guest, Box::new(watch.clone()))?;
        Ok(Box::new(OnKvm {
            pauser: machine.pauser(),
            gauges: machine.gauges(),
            keyboard: machine.keyboard(),
            ledger: machine.ledger().clone(),
            machine: Some(machine),
            running: None,
            watch,
            typist: None,
            started: Instant::now(),
        }))
    }

    impl OnKvm {
        fn start(&mut self) -> Result<(), Failure> {
            let Some(mut machine) = self.machine.take() else { return Ok(()) };
            let (watch, (sender, running)) = (self.watch.clone(), mpsc::sync_channel(1));
            let run = move || {
                let ended = machine.run_for(None);
                // If the command has failed, nobody waits for the guest any more.
                let _ = sender.send((machine, ended));
                watch.wake();
            };
            thread::Builder::new().name("guest".to_owned()).spawn(run).map_err(Error::Thread)?;
            self.running = Some(running);
            Ok(())
        }

        fn came_back(&mut self, (machine, ended): Ran) -> Result<Option<End>, Failure> {
            self.machine = Some(machine);
            self.running = None;
            Ok(ended?)
        }
    }

    impl Machine for OnKvm {
        fn name(&self) -> &'static str {
            "kvm"
        }

        fn run(&mut self, slice: Slice) -> Result<Option<End>, Failure> {
            self.start()?;
            self.watch.wait(if slice.is_typed_to { KEY_SLICE } else { SLICE });
            match self.running.as_ref().map(Receiver::try_recv) {
                Some(Ok(ran)) => self.came_back(ran),
                Some(Err(TryRecvError::Empty)) => Ok(None),
                Some(Err(TryRecvError::Disconnected)) | None => Err(Error::Panicked.into()),
            }
        }

        fn stop(&mut self) -> Result<(), Failure> {
            let Some(running) = &self.running else { return Ok(()) };
            // A vCPU may be waiting for somebody to see its guest's actions.
            self.watch.close();
            self.pauser.pause();
            let ran = running.recv().map_err(|_| Error::Panicked)?;
            // An end that comes only now is not the end of the run.
            self.came_back(ran).map(drop)
        }

        fn waker(&self) -> Box<dyn Fn() + Send> {
            let watch = self.watch.clone();
            Box::new(move || watch.wake())
        }

        /// Types on a thread that may wait: a vCPU holds its UART while its guest's console has no room.
        fn type_in(&mut self, bytes: &[u8]) -> usize {
            if bytes.is_empty() {
                return 0;
            }
            let keyboard = &self.keyboard;
            let typist = self.typist.get_or_insert_with(|| {
                let (sender, typed) = mpsc::sync_channel(0);
                let keyboard = keyboard.clone();
                thread::spawn(move || type_all(&keyboard, &typed));
                sender
            });
            match typist.try_send(bytes.to_vec()) {
                Ok(()) => bytes.len(),
                Err(_) => 0,
            }
        }

        fn reset(&mut self, guest: &Guest) -> Result<(), Failure> {
            Ok(self.machine.as_mut().ok_or(Error::Panicked)?.reset(guest)?)
        }

        fn gauge(&mut self) {
            // A guest whose records are not in its memory learns of it at its next error.
            let _ = self.gauges.gauge();
        }

        fn ledger(&self) -> &Arc<Keeper> {
            &self.ledger
        }

        fn when(&self) -> When {
            When { time: self.started.elapsed(), instructions: None }
        }
    }

    /// Types on the guest's console, at the guest's pace.
    fn type_all(keyboard: &Keyboard, typed: &Receiver<Vec<u8>>) {
        for mut bytes in typed {
            loop {
                bytes.drain(..keyboard.type_in(&bytes));
                if bytes.is_empty() {
                    break;
                }
                thread::sleep(KEY_SLICE);
            }
        }
    }
}
