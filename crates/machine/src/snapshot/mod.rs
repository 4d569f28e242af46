//! Snapshots: a whole machine at one moment, to go back to, to make more machines of, to keep in a file.
//!
//! A snapshot holds what the guest can ever see, and the budgets that the host gave. TLBs and decoded
//! instructions are no part of it: taking a snapshot drops the former, as going back to it does, so that
//! what follows is the same to the bit, and a page's decoded instructions go with the page.
//!
//! RAM is kept as an image in a file without a name and the pages that were written to since: another
//! snapshot of the same machine costs what changed, and machines of one snapshot share all pages of its image
//! that they have not written to themselves.

mod file;
mod hash;
mod state;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

pub use file::{FORMAT_VERSION, Limits, SnapshotError};
pub use hash::StateHash;
use state::State;

use crate::memory::{Memory, MemoryError};
use crate::pages::Contents;
use crate::tlb::Tlb;
use crate::vm::{Config, Error, RAM_BASE, Vm};

/// A whole [`Vm`] at one moment. A clone is the same snapshot and costs nothing.
#[derive(Clone)]
pub struct Snapshot(Arc<Inner>);

struct Inner {
    config: Config,
    state: State,
    contents: Arc<Contents>,
}

impl Snapshot {
    fn new(config: Config, state: State, contents: Arc<Contents>) -> Self {
        Self(Arc::new(Inner { config, state, contents }))
    }

    /// What its machine was created with.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The machine's time, in steps.
    pub fn time(&self) -> u64 {
        self.0.state.visible.now
    }

    /// A new machine that goes on from here. Machines may be made and run on different threads; all of
    /// them share the pages of RAM that they do not write to.
    ///
    /// # Errors
    /// [`Error::Memory`] if the host refuses the memory.
    pub fn machine(&self) -> Result<Vm, Error> {
        let Inner { config, state, contents } = &*self.0;
        let size = config.memory_size;
        let memory =
            Memory::holding(RAM_BASE, contents.clone()).map_err(|_| MemoryError::HostMemory { size })?;
        let mut vm = Vm::with(*config, memory);
        state.apply(&mut vm);
        Ok(vm)
    }
}

impl fmt::Debug for Snapshot {
    /// Of which machine and when, not all of RAM.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { config, state, .. } = &*self.0;
        f.debug_struct("Snapshot")
            .field("config", config)
            .field("time", &state.visible.now)
            .finish_non_exhaustive()
    }
}

impl Vm {
    /// The machine as it is now. It costs what was written to since the last snapshot or restore; now and
    /// then, and mostly the first time, all that the guest has ever touched.
    ///
    /// # Errors
    /// [`Error::Memory`] if the host has no room for RAM's image; the machine is as it was.
    pub fn snapshot(&mut self) -> Result<Snapshot, Error> {
        self.drop_translations();
        let contents = self.memory.capture()?;
        Ok(Snapshot::new(self.config, State::of(self), contents))
    }

    /// The machine is again as it was when the snapshot was taken, and goes on as it then did, to the bit.
    /// It costs what was written to since, if this machine took the snapshot, was made of it, or went back
    /// to it or to one of the same image before.
    ///
    /// # Errors
    /// [`Error::Memory`] if the host refuses memory, which it can only if RAM's image is another one. The
    /// machine is as it was then.
    pub fn restore(&mut self, snapshot: &Snapshot) -> Result<(), Error> {
        let Inner { config, state, contents } = &*snapshot.0;
        if self.config != *config {
            let (alarm, kick, translation) = (self.alarm, self.kick.clone(), self.translation());
            *self = Self { alarm, kick, ..snapshot.machine()? };
            self.set_translation(translation);
            return Ok(());
        }
        self.drop_translations();
        if self.memory.revert(contents)? {
            self.icache.clear(&mut self.memory);
        }
        for page in self.memory.take_stale_code() {
            self.icache.drop_page(page);
        }
        state.apply(self);
        Ok(())
    }

    /// Does what the CPUs were still to do about decoded instructions, and drops their TLBs.
    fn drop_translations(&mut self) {
        for index in 0..self.cpus.len() {
            if let Ok(mut runner) = self.runner(index) {
                runner.attend();
                runner.cpu.tlbs().for_each(Tlb::clear);
            }
        }
    }
}
