//! The steps of `KVM_RUN` around the guest.

use seawall_arm::{Esr, ExceptionLevel, Reg, Registers as _, Target, hcr};
use seawall_events::SeaExit;
use seawall_events::kernel::{
    LastFault, PendingSError, SeaPolicy, handle_guest_sea, inject_fetch_from_hole, inject_held,
};

use crate::Vcpu;

impl Vcpu {
    /// Returns true if the guest hypervisor runs, or its user space.
    pub fn is_hyp_context(&self) -> bool {
        let el2 = self.pstate().exception_level() == ExceptionLevel::El2;
        self.config.el2 && (el2 || self.reg(Reg::HcrEl2) & hcr::TGE != 0)
    }

    /// The steps of `KVM_RUN` before it enters the guest: it completes the waiting access, and injects a held
    /// SError. `load` maps registers that are loaded into the CPU, which happens between the two. With
    /// `immediate_exit` nothing is injected.
    pub fn begin_run(&mut self, immediate: bool, load: impl Fn(&mut Self)) {
        self.has_run = true;
        let waiting = self.waiting.take();
        if let Some(waiting) = &waiting {
            self.write_loaded(waiting);
        }
        let mut unstepped = self.clone();
        if let Some(waiting) = &waiting {
            self.step_over(waiting);
        }
        load(self);
        if immediate || !self.serror.held_for_el2 {
            return;
        }
        // KVM's own entry takes a held SError, before the CPU's.
        let changes_context = !self.is_hyp_context();
        load(&mut unstepped);
        match inject_held(&mut unstepped) {
            // It does not step over the access before, unless it changes from a guest to its hypervisor.
            PendingSError::Taken(target) if target == Target::El1 || !changes_context => *self = unstepped,
            _ => {
                inject_held(self);
            }
        }
    }

    /// A synchronous external abort, which the CPU takes to the host: the exit, or `None` if the guest goes
    /// on with KVM's fallback.
    pub fn sea_exit(&mut self, esr: Esr, address: u64) -> Option<SeaExit> {
        self.aborted(esr, address);
        let policy = SeaPolicy { to_user: true, guest_has_ras: self.config.ras };
        handle_guest_sea(self, policy).ok()
    }

    /// A fetch from an address without memory: KVM injects an abort.
    pub fn fetch_from_hole(&mut self, esr: Esr) {
        self.aborted(esr, self.reg(Reg::Pc));
        inject_fetch_from_hole(self);
    }

    /// An abort at stage 2, with virtual addresses equal to physical ones.
    pub fn aborted(&mut self, esr: Esr, address: u64) {
        self.last_fault = LastFault { esr, far: address, ipa: Some(address & !0xfff) };
    }
}
