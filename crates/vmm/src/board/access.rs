//! Accesses where the guest has no RAM: a device answers, or nobody does.

use std::sync::atomic::Ordering;

use seawall::telemetry::AccessReport;
use seawall::{Action, ContainError, Now, Unanswered, UnansweredAccess};
use seawall_events::{MmioExit, NisvExit};
use seawall_inject::{Inject, Vcpu};
use vm_device::bus::MmioAddress;
use vm_device::device_manager::MmioManager as _;

use super::{Board, End, lock};
use crate::layout;

impl Board {
    /// An access with a syndrome.
    pub(super) fn access<V: Vcpu>(
        &self,
        vcpu: &mut V,
        mmio: &MmioExit,
        now: &Now,
    ) -> Result<Option<End>, ContainError<V::Error>> {
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
            return self.refuse(vcpu, UnansweredAccess::mmio(mmio, why), now);
        }
        self.does_something_else();
        if !mmio.is_write {
            vcpu.answer_mmio(data);
        }
        // Only the console can have told of it.
        Ok(if mmio.is_write && self.console.stands_still() { self.panicked() } else { None })
    }

    /// An access without a syndrome: the instruction's request to the device is not known.
    pub(super) fn access_without_syndrome<V: Inject>(
        &self,
        vcpu: &mut V,
        nisv: &NisvExit,
        now: &Now,
    ) -> Result<Option<End>, ContainError<V::Error>> {
        let gpa = nisv.fault_ipa;
        // KVM has the interrupt controller in the kernel.
        let is_gic = layout::GIC_DISTRIBUTOR.contains(&gpa) || layout::GIC_REDISTRIBUTORS.contains(&gpa);
        let is_device = is_gic || self.bus.mmio_device(MmioAddress(gpa)).is_some();
        let why = if is_device { Unanswered::NoSyndrome } else { Unanswered::NoDevice };
        self.refuse(vcpu, UnansweredAccess::nisv(nisv, why), now)
    }

    /// Injects the external abort of an access that nobody answers, and tells the observer of it. It is no memory error: there
    /// is no record of it, and nothing in the ledger.
    fn refuse<V: Inject>(
        &self,
        vcpu: &mut V,
        access: UnansweredAccess,
        now: &Now,
    ) -> Result<Option<End>, ContainError<V::Error>> {
        let outcome = lock(&self.containment).refuse(vcpu, access, now)?;
        self.is_repeating.store(true, Ordering::Relaxed);
        if outcome.told.is_some() {
            self.console.unanswered_access(&AccessReport::new(&outcome, now), &outcome);
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
