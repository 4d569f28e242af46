//! A machine with a guest on it, as the loop of a run sees it: the same for the software machine and for KVM.

use std::ops::Range;
use std::sync::Arc;

use seawall::ledger::Keeper;
use seawall_vmm::{End, Guest, Snapshot};
use serde_json::Value;

use super::ending::{Ending, Where};
use super::output::When;
use crate::{Failure, exit};

/// How far a machine runs before the loop looks around: what is typed, the time, the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    /// Somebody types, and expects an echo.
    pub(super) is_typed_to: bool,
    /// Instructions, where they are counted.
    pub(super) instructions: u64,
}

/// A machine with a guest on it.
pub(super) trait Machine {
    /// Its name on the command line: `--backend`.
    fn name(&self) -> &'static str;

    /// Lets the guest run for a slice, or until it did something that the loop is to see, or was [woken](Self::waker).
    /// Gives how the guest ended, if it did. Where it did not it may run on in the background.
    fn run(&mut self, slice: Slice) -> Result<Option<End>, Failure>;

    /// The guest stands still, until [`run`](Self::run) lets it go on.
    fn stop(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    /// Makes [`run`](Self::run) come back at once, from any thread.
    fn waker(&self) -> Box<dyn Fn() + Send>;

    /// Types this on the guest's console: how many bytes there was room for.
    fn type_in(&mut self, bytes: &[u8]) -> usize;

    /// The guest, which has ended, starts again: [`seawall_vmm::SoftwareMachine::reset`].
    fn reset(&mut self, guest: &Guest) -> Result<(), Failure>;

    /// Brings the gauges of `metrics` up to date.
    fn gauge(&mut self);

    /// The bad pages.
    fn ledger(&self) -> &Arc<Keeper>;

    /// The guest's time, and how many instructions it did if they are counted.
    fn when(&self) -> When;

    /// Where the guest is that stands still, as far as the machine knows.
    fn place(&mut self) -> Where {
        Where::default()
    }

    /// The end of a guest that does the same for ever, which this machine knows of.
    fn is_stuck(&mut self) -> Result<Option<Ending>, Failure> {
        Ok(None)
    }

    /// Turns memory bad, physical addresses.
    fn poison(&mut self, _range: Range<u64>) -> Result<(), Failure> {
        Err(needs_software("--poison", "memory goes bad at will"))
    }

    /// The machine as it is now.
    fn snapshot(&mut self) -> Result<Snapshot, Failure> {
        Err(needs_software("--snapshot", "a run can be gone back to"))
    }

    /// What this machine alone knows of a run: fields of the JSON object at its end.
    fn report(&self) -> Vec<(&'static str, Value)> {
        Vec::new()
    }
}

/// An option that KVM cannot serve, and why.
pub(super) fn needs_software(option: &str, what: &str) -> Failure {
    let message =
        format!("--backend kvm and {option}: only on the software machine {what}; leave one of them out");
    Failure::new(exit::USAGE, message)
}
