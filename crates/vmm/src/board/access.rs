//! Accesses where the guest has no RAM: a device answers, or nobody does.

use std::sync::atomic::Ordering;
use std::time::Duration;

use seawall::telemetry::{self, AccessReport, Circumstances, Facades, Sink as _};
use seawall::{Action, ContainError, Unanswered, UnansweredAccess};
use seawall_events::{MmioExit, NisvExit};
use seawall_inject::Vcpu;
use vm_device::bus::MmioAddress;
use vm_device::device_manager::MmioManager as _;

use super::{Board, End, Served, lock};
use crate::layout;

impl Board {
    /// An access with a syndrome.
    pub(super) fn access<V: Vcpu>(&self, vcpu: &mut V, mmio: &MmioExit) -> Served {
        let address = MmioAddress(mmio.phys_addr);
        let mut data = mmio.data;
        let done = match data.get_mut(..mmio.len as usize) {
            Some(bytes) if mmio.is_write => self.bus.mmio_write(address, bytes).is_ok(),
            Some(bytes) => self.bus.mmio_read(address, bytes).is_ok(),
            None => false,
        };
        if !done {
            let is_device = self.bus.mmio_device(address).is_some();
            let why = if is_device { Unanswered::PastDevice } else { Unanswered::NoDevice };
            return Served::Unanswered(UnansweredAccess::mmio(mmio, why));
        }
        self.does_something_else();
        if !mmio.is_write {
            vcpu.answer_mmio(data);
        }
        // Only the console can have told of it.
        let end = if mmio.is_write && self.console.stands_still() { self.panicked() } else { None };
        end.map_or(Served::Done, Served::End)
    }

    /// An access without a syndrome: the instruction's request to the device is not known.
    pub(super) fn access_without_syndrome(&self, nisv: &NisvExit) -> Served {
        let gpa = nisv.fault_ipa;
        // KVM has the interrupt controller in the kernel.
        let is_gic = layout::GIC_DISTRIBUTOR.contains(&gpa) || layout::GIC_REDISTRIBUTORS.contains(&gpa);
        let is_device = is_gic || self.bus.mmio_device(MmioAddress(gpa)).is_some();
        let why = if is_device { Unanswered::NoSyndrome } else { Unanswered::NoDevice };
        Served::Unanswered(UnansweredAccess::nisv(nisv, why))
    }

    /// Injects the external abort of an access that nobody answers, and tells of it: the observer, `tracing` and `metrics`
    /// ([`Facades`]). It is no memory error: there is no record of it, and nothing in the ledger. `now`: how long the guest
    /// has been running; `at` is asked when the injection is done. Gives how the guest ended, if it did.
    ///
    /// # Errors
    /// As [`Containment::refuse`](seawall::Containment::refuse).
    pub fn refuse<V: Vcpu>(
        &self,
        vcpu: &mut V,
        access: UnansweredAccess,
        now: Duration,
        at: impl FnOnce() -> Circumstances,
    ) -> Result<Option<End>, ContainError<V::Error>> {
        let outcome = lock(&self.containment).refuse(vcpu, access, now)?;
        self.is_repeating.store(true, Ordering::Relaxed);
        let report = AccessReport::new(&outcome, &at());
        telemetry::accesses(&report);
        if outcome.told.is_some() {
            Facades.access(&report);
            self.console.unanswered_access(&report, &outcome);
        }
        Ok(match outcome.action {
            Action::Stop(reason) => Some(End::Stopped(reason)),
            _ => None,
        })
    }

    /// The guest does not only make accesses that nobody answers.
    pub(super) fn does_something_else(&self) {
        // Most accesses find nothing to forget.
        if self.is_repeating.load(Ordering::Relaxed) && self.is_repeating.swap(false, Ordering::Relaxed) {
            lock(&self.containment).does_something_else();
        }
    }
}
