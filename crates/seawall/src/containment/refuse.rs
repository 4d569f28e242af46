//! What an access that nobody answers comes to.

use std::time::Duration;

use seawall_arm::Pstate;
use seawall_events::Reg;
use seawall_inject::Vcpu;

use super::{Action, ContainError, Containment};
use crate::{Injection, UnansweredAccess, UnansweredOutcome};

impl<P> Containment<P> {
    /// Injects the external data abort of an access that nobody answers, and reads back what the guest will see: it is the
    /// guest's kernel that knows what to do about it. Whatever the policy, and in a dry run too, as it is no memory error:
    /// nothing is recorded.
    ///
    /// A kernel that makes the same access again and again is stopped, unless [it does something
    /// else](Containment::does_something_else).
    ///
    /// `now`: as for [`Containment::handle`].
    ///
    /// # Errors
    /// [`ContainError::Vcpu`]; nothing was injected then, unless the backend failed after it.
    pub fn refuse<V: Vcpu>(
        &mut self,
        vcpu: &mut V,
        access: UnansweredAccess,
        now: Duration,
    ) -> Result<UnansweredOutcome, ContainError<V::Error>> {
        let pc = vcpu.reg(Reg::Pc)?;
        let level = Pstate::from_bits(vcpu.reg(Reg::Pstate)?).exception_level();
        let action = if let Err(reason) = self.repeats.note(&access, pc, level, now) {
            Action::Stop(reason)
        } else {
            let injection = Injection::from(access.injection());
            let has_iss = self.guest.ras && injection.check(vcpu.abi()).is_ok();
            let injection = if has_iss { injection } else { injection.without_iss() };
            Action::Injected { injection, guest: vcpu.set_events(&injection.events())? }
        };
        let told = self.repeats.tell(now, matches!(action, Action::Stop(_)));
        Ok(UnansweredOutcome { access, pc, level, action, told })
    }

    /// The guest did something that the host saw, and that is no access that nobody answers.
    pub fn does_something_else(&mut self) {
        self.repeats.forget();
    }
}
