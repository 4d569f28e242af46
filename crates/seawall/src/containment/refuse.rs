//! The handling of unanswered accesses.

use seawall_arm::Pstate;
use seawall_events::Reg;
use seawall_inject::Inject;

use super::{ContainError, Containment};
use crate::{Action, Injection, Now, UnansweredAccess, UnansweredOutcome};

impl Containment {
    /// Injects the external data abort of an unanswered access, and reads back what the guest will see: the
    /// guest's kernel knows how to handle it. The policy and a dry run do not change this, because it is not
    /// a memory error: nothing is recorded.
    ///
    /// A kernel that repeats the same access is stopped, unless [it does something
    /// else](Containment::does_something_else).
    ///
    /// # Errors
    /// [`ContainError::Vcpu`]; nothing was injected then, unless the backend failed after it.
    pub fn refuse<V: Inject>(
        &mut self,
        vcpu: &mut V,
        access: UnansweredAccess,
        now: &Now,
    ) -> Result<UnansweredOutcome, ContainError<V::Error>> {
        let pc = vcpu.reg(Reg::Pc)?;
        let level = Pstate::from_bits(vcpu.reg(Reg::Pstate)?).exception_level();
        let action = if let Err(reason) = self.repeats.note(&access, pc, level, now.running) {
            Action::Stop(reason)
        } else {
            let injection = Injection::from(access.injection());
            let traits = vcpu.traits();
            let has_iss = traits.ras && injection.check(traits.abi).is_ok();
            let injection = if has_iss { injection } else { injection.without_iss() };
            Action::Injected { injection, guest: vcpu.inject(&injection.events())? }
        };
        let told = self.repeats.tell(now.running, matches!(action, Action::Stop(_)));
        let took = now.exited.map(|exited| exited.elapsed());
        let outcome = UnansweredOutcome { access, pc, level, action, told, took };
        self.tell_of_access(&outcome, now);
        Ok(outcome)
    }

    #[cfg_attr(not(feature = "telemetry"), allow(clippy::unused_self))]
    fn tell_of_access(&mut self, outcome: &UnansweredOutcome, now: &Now) {
        #[cfg(feature = "telemetry")]
        if let Some(sink) = &mut self.sink {
            let report = crate::telemetry::AccessReport::new(outcome, now);
            sink.count_access(&report);
            if outcome.told.is_some() {
                sink.access(&report);
            }
        }
        #[cfg(not(feature = "telemetry"))]
        let _ = (outcome, now);
    }

    /// Notes that the guest did something visible to the host other than an unanswered access.
    pub fn does_something_else(&mut self) {
        self.repeats.forget();
    }
}
