//! The run without an error: from a moment to the horizon, by checkpoints.
//!
//! A checkpoint is a snapshot after a fixed number of instructions. Taking one empties the TLBs, as going back to one does;
//! so every run that stops at the same checkpoints is the same, to the bit, and an experiment that begins at one of them
//! does what the golden run does until it meets the bad page.

use seawall_vmm::{End, Snapshot, SoftwareMachine};

use crate::error::{Error, Result};
use crate::seen::Watch;

/// Instructions between two looks at the time.
const SLICE: u64 = 100_000;

/// Lets the machine run until it has done so many instructions in all. The end, if it came before.
pub(crate) fn advance(machine: &mut SoftwareMachine, to: u64) -> Result<Option<End>> {
    loop {
        let left = to.saturating_sub(machine.instructions());
        if left == 0 {
            return Ok(None);
        }
        if let Some(end) = machine.run(Some(left))? {
            return Ok(Some(end));
        }
    }
}

/// Lets it run until the time is this, in whole slices. The end, if it came before.
pub(crate) fn advance_to_time(machine: &mut SoftwareMachine, time: u64) -> Result<Option<End>> {
    while machine.time() < time {
        let to = machine.instructions() + SLICE;
        if let Some(end) = advance(machine, to)? {
            return Ok(Some(end));
        }
    }
    Ok(None)
}

/// Lets it run until the watch has seen this, for at most so many instructions. Whether it has.
pub(crate) fn advance_until(
    machine: &mut SoftwareMachine,
    watch: &Watch,
    most: u64,
    is_seen: impl Fn(&crate::seen::Seen) -> bool,
) -> Result<bool> {
    let limit = machine.instructions() + most;
    while machine.instructions() < limit {
        let end = machine.run(Some(SLICE))?;
        if is_seen(&watch.seen()) {
            return Ok(true);
        }
        if end.is_some() {
            return Ok(false);
        }
    }
    Ok(false)
}

/// A golden run: its checkpoints, by number.
#[derive(Debug)]
pub(crate) struct Walk {
    machine: SoftwareMachine,
    stride: u64,
    /// Instructions at the moment.
    from: u64,
    next: usize,
}

impl Walk {
    /// From a moment. The machine must be at its snapshot.
    pub(crate) fn new(machine: SoftwareMachine, stride: u64) -> Self {
        let from = machine.instructions();
        Self { machine, stride, from, next: 0 }
    }

    /// The next checkpoint; at first the moment itself.
    pub(crate) fn next(&mut self) -> Result<Snapshot> {
        self.run_on()?;
        self.next += 1;
        Ok(self.machine.snapshot()?)
    }

    /// To where the next checkpoint is, without one there.
    pub(crate) fn run_on(&mut self) -> Result<()> {
        let to = self.from.saturating_add(self.stride.saturating_mul(self.next as u64));
        match advance(&mut self.machine, to)? {
            None => Ok(()),
            Some(end) => Err(Error::Guest(format!("ended before the horizon of the campaign: {end}"))),
        }
    }

    pub(crate) fn machine(&mut self) -> &mut SoftwareMachine {
        &mut self.machine
    }
}
