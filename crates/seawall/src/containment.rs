//! Containment from a reported error to a guest that goes on.

mod refuse;
mod steps;

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use seawall_inject::{Inject, SigbusExit};
use thiserror::Error;

use crate::error::PAGE;
use crate::storm::StormState;
use crate::unanswered::{Repeats, RepeatsState};
use crate::{
    Action, AddressMap, Contained, Decision, EvacuationThreshold, Host, HostKnows, Injection, MemoryError,
    Now, Outcome, Policy, RecordMemory, Source, StormGuard, Verdict,
};

#[cfg(feature = "records")]
mod records;

/// Handles the memory errors of one guest as a policy decides, and reports the outcome.
///
/// [`contain`](Containment::contain) does all of it. You supply its parts once: the addresses of the guest's
/// memory ([`with_addresses`](Containment::with_addresses)), the ledger of bad pages (`with_ledger`), a sink
/// for reports (`with_telemetry`), the host ([`with_host`](Containment::with_host)), and at each start of a
/// guest the place where it looks for records (`set_records`). All of them are optional.
///
/// `contain` consists of steps that you can also call one by one: [`decide_sea`](Containment::decide_sea) and
/// [`decide_sigbus`](Containment::decide_sigbus) decide without changing the guest, `record` (feature
/// `records`) writes the firmware's record for a guest that looks for one, and
/// [`inject`](Containment::inject) carries out the decision.
pub struct Containment {
    policy: Box<dyn Policy>,
    storm: StormGuard,
    repeats: Repeats,
    evacuation: EvacuationThreshold,
    addresses: AddressMap,
    host: Option<Box<dyn Host>>,
    #[cfg(feature = "ledger")]
    ledger: Option<std::sync::Arc<crate::ledger::Keeper>>,
    #[cfg(feature = "telemetry")]
    sink: Option<Box<dyn crate::telemetry::Sink + Send>>,
    #[cfg(feature = "records")]
    records: records::Records,
    host_page: u64,
    is_dry_run: bool,
}

/// The memory of a [`Containment`] about past errors, without its parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ContainmentState {
    storm: StormState,
    /// The time and the page of each.
    bad_pages: Vec<(Duration, u64)>,
    repeats: RepeatsState,
    #[cfg(feature = "records")]
    records: records::RecordsState,
}

/// A failure between an exit and its injection. The vCPU is unchanged, except after [`ContainError::Vcpu`],
/// where the backend failed.
#[derive(Debug, Error)]
pub enum ContainError<E: std::error::Error + 'static> {
    /// The backend failed.
    #[error(transparent)]
    Vcpu(#[from] E),
    /// The decision is about another vCPU, or this one has run since, so it is no longer at the error.
    #[error(
        "the decision is about a vCPU at PC {decided:#x}, and this one is at PC {found:#x}: give it the decision about \
         its own error, before it runs again"
    )]
    OtherVcpu {
        /// PC at the error.
        decided: u64,
        /// PC of this vCPU.
        found: u64,
    },
    /// The VM's ABI cannot express the policy's decision.
    #[error(
        "policy `{policy}` decided on an {injection}, but {refusal}: create the VM with the extended ABI, \
         or choose the policy `mainline`"
    )]
    NotInAbi {
        /// The policy's name.
        policy: &'static str,
        /// Its decision.
        injection: Injection,
        /// The reason.
        refusal: seawall_events::Refusal,
    },
}

impl Containment {
    /// A containment by this policy, with the default storm guard and threshold, and without other parts.
    pub fn new(policy: impl Policy + 'static) -> Self {
        Self {
            policy: Box::new(policy),
            storm: StormGuard::default(),
            repeats: Repeats::default(),
            evacuation: EvacuationThreshold::default(),
            addresses: AddressMap::default(),
            host: None,
            #[cfg(feature = "ledger")]
            ledger: None,
            #[cfg(feature = "telemetry")]
            sink: None,
            #[cfg(feature = "records")]
            records: records::Records::default(),
            host_page: PAGE,
            is_dry_run: false,
        }
    }

    /// Uses another storm guard.
    #[must_use]
    pub fn with_storm_guard(self, storm: StormGuard) -> Self {
        Self { storm, ..self }
    }

    /// Uses another threshold for the advice to evacuate.
    #[must_use]
    pub fn with_evacuation_threshold(self, evacuation: EvacuationThreshold) -> Self {
        Self { evacuation, ..self }
    }

    /// Sets the addresses of the guest's memory in this process, for SIGBUS and for the host.
    #[must_use]
    pub fn with_addresses(self, addresses: AddressMap) -> Self {
        Self { addresses, ..self }
    }

    /// Sets the addresses after a change of the memory slots.
    pub fn set_addresses(&mut self, addresses: AddressMap) {
        self.addresses = addresses;
    }

    /// Tells this host of bad pages. It needs [`Containment::with_addresses`].
    #[must_use]
    pub fn with_host(self, host: impl Host + 'static) -> Self {
        Self { host: Some(Box::new(host)), ..self }
    }

    /// Sets the host that is told of bad pages from now on; `None` for no host.
    pub fn set_host(&mut self, host: Option<Box<dyn Host>>) {
        self.host = host;
    }

    /// Enters bad pages in this ledger.
    #[cfg(feature = "ledger")]
    #[must_use]
    pub fn with_ledger(self, ledger: std::sync::Arc<crate::ledger::Keeper>) -> Self {
        Self { ledger: Some(ledger), ..self }
    }

    /// Reports errors and unanswered accesses to this sink. The call runs on the thread of the vCPU, and
    /// errors of other vCPUs wait meanwhile.
    #[cfg(feature = "telemetry")]
    #[must_use]
    pub fn with_telemetry(self, sink: impl crate::telemetry::Sink + Send + 'static) -> Self {
        Self { sink: Some(Box::new(sink)), ..self }
    }

    /// Sets or clears the dry run: see [`Containment::set_dry_run`].
    #[must_use]
    pub fn with_dry_run(self, is_dry_run: bool) -> Self {
        Self { is_dry_run, ..self }
    }

    /// Sets the size of the host's pages in bytes: see [`Containment::set_host_page`].
    #[must_use]
    pub fn with_host_page(mut self, bytes: u64) -> Self {
        self.set_host_page(bytes);
        self
    }

    /// Sets the size in bytes of the host's pages behind the guest's memory: a power of two, 4096 by default.
    /// An error costs such a page as a whole, or a page of the guest if those are larger
    /// ([`MemoryError::range`]).
    pub fn set_host_page(&mut self, bytes: u64) {
        self.host_page = bytes.checked_next_power_of_two().unwrap_or(PAGE);
    }

    /// Sets or clears the dry run. In a dry run everything is decided and reported, but nothing is entered,
    /// recorded or injected, and the host is not told. It shows in production what Seawall would do.
    pub fn set_dry_run(&mut self, is_dry_run: bool) {
        self.is_dry_run = is_dry_run;
    }

    /// The policy.
    pub fn policy(&self) -> &dyn Policy {
        &*self.policy
    }

    /// Handles a reboot of the guest: the containment forgets the old guest's errors and injections, and
    /// keeps the host's bad pages. Call `set_records` again for the new guest.
    pub fn reset(&mut self) {
        self.storm.forget();
        self.repeats = Repeats::default();
        #[cfg(feature = "records")]
        self.records.reset(None);
    }

    /// The state to keep in a snapshot.
    pub fn state(&self) -> ContainmentState {
        ContainmentState {
            storm: self.storm.state(),
            bad_pages: self.evacuation.noted().collect(),
            repeats: self.repeats.state(),
            #[cfg(feature = "records")]
            records: self.records.state(),
        }
    }

    /// Restores a state, as far as the guards can hold it.
    pub fn set_state(&mut self, state: &ContainmentState) {
        self.storm.set_state(&state.storm);
        self.evacuation.remember(state.bad_pages.iter().copied());
        self.repeats.set_state(&state.repeats);
        #[cfg(feature = "records")]
        self.records.set_state(&state.records);
    }

    /// Contains the error that ended a vCPU's run: decides, enters the page in the ledger, writes its record,
    /// injects, reads back what the guest will see, and tells the host and the sink. The vCPU can run again
    /// unless [`Contained::stop`] gives a reason.
    ///
    /// `memory`: the guest's memory with its records (`set_records`); without it no record is written.
    ///
    /// # Errors
    /// [`ContainError`]; nothing was injected then, unless the backend failed after it.
    pub fn contain<V: Inject>(
        &mut self,
        vcpu: &mut V,
        source: &Source,
        memory: Option<&dyn RecordMemory>,
        now: &Now,
    ) -> Result<Contained, ContainError<V::Error>> {
        let decision = match source {
            Source::Sea(exit) => self.decide_sea(vcpu, exit, now.running)?,
            Source::Sigbus(exit) => {
                let ranges = self.guest_ranges(exit);
                let met = self.addresses.guest(exit.address);
                let touched = ranges.iter().position(|range| met.is_some_and(|met| range.contains(&met)));
                let touched = touched.unwrap_or(0);
                let Some(range) = ranges.get(touched) else {
                    return Ok(Contained::NotGuests(*exit));
                };
                for (number, range) in ranges.iter().enumerate() {
                    if !exit.action_required || number != touched {
                        self.found(range.clone(), memory, now);
                    }
                }
                if !exit.action_required {
                    return Ok(Contained::Found(range.clone()));
                }
                self.decide_sigbus(vcpu, range.clone(), now.running)?
            }
            Source::SigbusAt(range) => self.decide_sigbus(vcpu, range.clone(), now.running)?,
        };
        let mut outcome = self.act(vcpu, decision, memory, now)?;
        outcome.took = now.exited.map(|exited| exited.elapsed());
        if !self.is_dry_run && !matches!(outcome.action, Action::Waiting | Action::Repaired) {
            outcome.host = self.tell_host(&outcome.error, source);
        }
        self.tell(&outcome, now);
        Ok(Contained::Error(outcome))
    }

    /// Carries out a decision.
    fn act<V: Inject>(
        &mut self,
        vcpu: &mut V,
        mut decision: Decision,
        memory: Option<&dyn RecordMemory>,
        now: &Now,
    ) -> Result<Outcome, ContainError<V::Error>> {
        if self.is_dry_run {
            return Ok(self.inject_here(vcpu, decision)?);
        }
        let range = decision.error.range();
        if let Some(range) = &range {
            self.enter(range.clone(), true, now);
        }
        if let Verdict::HostFirst(_) = decision.verdict {
            let is_repaired = range.zip(self.host.as_mut()).is_some_and(|(range, host)| host.repair(range));
            if is_repaired {
                self.strike_out(&decision.error);
                return Ok(self.repaired(decision));
            }
            decision = decision.guest_first();
        }
        #[cfg(feature = "records")]
        if let Some(memory) = memory {
            // The abort alone is better than no abort.
            if self.record(memory, &mut decision, now.time).is_err() {
                decision.recorded = crate::Recorded::Unwritable;
            }
        }
        let recorded = decision.recorded;
        Ok(self.inject_here(vcpu, decision).inspect_err(|_| self.retract(memory, recorded))?)
    }

    /// The guest's memory behind a SIGBUS: the range of 2^`si_addr_lsb` bytes around `si_addr`, which the host
    /// takes away as a whole.
    pub fn guest_ranges(&self, exit: &SigbusExit) -> Vec<Range<u64>> {
        let size = 1_u64.checked_shl(exit.lsb.into()).unwrap_or(1 << 63);
        let start = exit.address & !(size - 1);
        self.addresses.guest_ranges(start..start.saturating_add(size)).collect()
    }

    /// Enters bad memory that no vCPU has touched yet in the ledger, and tells a guest that looks for
    /// records.
    fn found(&mut self, range: Range<u64>, memory: Option<&dyn RecordMemory>, now: &Now) {
        if self.is_dry_run {
            return;
        }
        self.enter(range.clone(), false, now);
        #[cfg(feature = "records")]
        if let (Some(memory), Some(ghes)) = (memory, self.records()) {
            // A guest that cannot be told may still never touch it.
            let _ = ghes.announce(memory, range, now.time);
        }
        #[cfg(not(feature = "records"))]
        let _ = memory;
    }

    #[cfg_attr(not(feature = "ledger"), allow(clippy::unused_self))]
    fn enter(&self, range: Range<u64>, is_consumed: bool, now: &Now) {
        #[cfg(feature = "ledger")]
        if let Some(ledger) = &self.ledger {
            use crate::ledger::Cause;
            ledger.insert(range, if is_consumed { Cause::Consumed } else { Cause::Found }, now.time);
        }
        #[cfg(not(feature = "ledger"))]
        let _ = (range, is_consumed, now);
    }

    /// Removes the page that the host has repaired.
    #[cfg_attr(not(feature = "ledger"), allow(clippy::unused_self))]
    fn strike_out(&self, error: &MemoryError) {
        #[cfg(feature = "ledger")]
        if let (Some(ledger), Some(range)) = (&self.ledger, error.range()) {
            ledger.remove(range);
        }
        #[cfg(not(feature = "ledger"))]
        let _ = error;
    }

    /// Takes back the record, because no abort follows: the guest would take it for that of another error.
    #[cfg_attr(not(feature = "records"), allow(clippy::unused_self))]
    fn retract(&mut self, memory: Option<&dyn RecordMemory>, recorded: crate::Recorded) {
        #[cfg(feature = "records")]
        if let (crate::Recorded::AtSource(source), Some(memory), Some(ghes)) =
            (recorded, memory, self.records())
        {
            let _ = ghes.retract(memory, source);
        }
        #[cfg(not(feature = "records"))]
        let _ = (memory, recorded);
    }

    /// Tells the host of the page that an exit named, in the host's page size, unless the report came from
    /// the host. A larger page that the guest gives up also contains good memory of the host.
    fn tell_host(&mut self, error: &MemoryError, source: &Source) -> Option<HostKnows> {
        let host = self.host.as_mut()?;
        if !matches!(source, Source::Sea(_)) {
            return Some(HostKnows::Told);
        }
        let page = error.named? & !(self.host_page - 1);
        let range = page..page.saturating_add(self.host_page);
        let told = self.addresses.host_ranges(range).map(|bad| host.tell(bad));
        // The worst answer counts.
        told.max_by_key(|knows| *knows as u8)
    }

    #[cfg_attr(not(feature = "telemetry"), allow(clippy::unused_self))]
    fn tell(&mut self, outcome: &Outcome, now: &Now) {
        #[cfg(feature = "telemetry")]
        if let Some(sink) = &mut self.sink {
            if let Some(report) = crate::telemetry::ErrorReport::new(outcome, now) {
                sink.error(&report);
            }
        }
        #[cfg(not(feature = "telemetry"))]
        let _ = (outcome, now);
    }
}

impl fmt::Debug for Containment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Containment")
            .field("policy", &self.policy.name())
            .field("state", &self.state())
            .field("is_dry_run", &self.is_dry_run)
            .finish_non_exhaustive()
    }
}
