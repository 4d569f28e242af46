//! A machine with a guest on it, as the loop of a run sees it: the same for the software machine and for KVM.

use std::ops::Range;
use std::sync::Arc;

use seawall::ledger::Keeper;
use seawall_vmm::{End, Guest, GuestExit, Snapshot};
use serde_json::Value;

use super::ending::{Ending, Where};
use super::output::When;
use crate::{Failure, exit};

/// The limits of a machine's run before the loop checks the input, the time and the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    /// True if a user types, and expects an echo.
    pub(super) is_typed_to: bool,
    /// The number of instructions, if they are counted.
    pub(super) instructions: u64,
}

/// A machine with a guest on it.
pub(super) trait Machine {
    /// Its name on the command line: `--backend`.
    fn name(&self) -> &'static str;

    /// Lets the guest run for a slice, until it did something for the loop, or until it was
    /// [woken](Self::waker). Returns the guest's end, if it ended. Otherwise the guest may run on in the
    /// background.
    fn run(&mut self, slice: Slice) -> Result<Option<End>, Failure>;

    /// Stops the guest until [`run`](Self::run) continues it.
    fn stop(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    /// A function that makes [`run`](Self::run) return at once, from any thread.
    fn waker(&self) -> Box<dyn Fn() + Send>;

    /// Types this on the guest's console; returns how many bytes it had room for.
    fn type_in(&mut self, bytes: &[u8]) -> usize;

    /// Starts the guest again after its end: [`seawall_vmm::SoftwareMachine::reset`].
    fn reset(&mut self, guest: &Guest) -> Result<(), Failure>;

    /// Brings the gauges of `metrics` up to date.
    fn gauge(&mut self);

    /// The bad pages.
    fn ledger(&self) -> &Arc<Keeper>;

    /// The guest's time, and its number of instructions if they are counted.
    fn when(&self) -> When;

    /// The position of a guest that stands still, if the machine knows it.
    fn place(&mut self) -> Where {
        Where::default()
    }

    /// The end of a guest in an endless loop that this machine recognises.
    fn is_stuck(&mut self) -> Result<Option<Ending>, Failure> {
        Ok(None)
    }

    /// Turns memory bad, physical addresses.
    fn poison(&mut self, _range: Range<u64>) -> Result<(), Failure> {
        Err(needs_software("--poison", "memory goes bad at will"))
    }

    /// A snapshot of the machine's present state.
    fn snapshot(&mut self) -> Result<Snapshot, Failure> {
        Err(needs_software("--snapshot", "a run can be gone back to"))
    }

    /// Records the exits of the guest's own guests from now on.
    fn trace_exits(&mut self) -> Result<(), Failure> {
        Err(needs_software("--trace-exits", "the guest's own guests are seen"))
    }

    /// The exits that were recorded since the last call.
    fn take_exits(&mut self) -> Vec<GuestExit> {
        Vec::new()
    }

    /// Facts about a run that only this machine knows: fields of the JSON object at its end.
    fn report(&self) -> Vec<(&'static str, Value)> {
        Vec::new()
    }
}

/// An option that KVM cannot serve, and the reason.
pub(super) fn needs_software(option: &str, what: &str) -> Failure {
    let message =
        format!("--backend kvm and {option}: only on the software machine {what}; leave one of them out");
    Failure::new(exit::USAGE, message)
}
