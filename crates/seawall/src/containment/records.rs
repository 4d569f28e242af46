//! The step between the decision and the injection: the firmware's record of the error.

use std::time::{Duration, SystemTime};

use super::{Containment, ContainmentState};
use crate::apei::cper::Severity;
use crate::apei::ghes::{Ghes, Report};
use crate::{Decision, RecordError, RecordMemory, Recorded, Verdict};

/// The guest's position for records, and the patience with it.
#[derive(Clone, Debug)]
pub(super) struct Records {
    ghes: Option<Ghes>,
    /// The time since which a record is unacknowledged and a vCPU had to wait for it.
    busy_since: Option<Duration>,
    patience: Duration,
}

/// The default for the longest time that a vCPU waits for the guest to acknowledge a record.
const PATIENCE: Duration = Duration::from_secs(1);

impl Default for Records {
    /// A guest without records.
    fn default() -> Self {
        Self { ghes: None, busy_since: None, patience: PATIENCE }
    }
}

/// The part of [`Records`] that a snapshot keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct RecordsState {
    ghes: Option<Ghes>,
    busy_since: Option<Duration>,
}

impl Records {
    pub(super) fn reset(&mut self, ghes: Option<Ghes>) {
        (self.ghes, self.busy_since) = (ghes, None);
    }

    pub(super) fn state(&self) -> RecordsState {
        RecordsState { ghes: self.ghes.clone(), busy_since: self.busy_since }
    }

    pub(super) fn set_state(&mut self, state: &RecordsState) {
        self.ghes.clone_from(&state.ghes);
        self.busy_since = state.busy_since;
    }
}

impl ContainmentState {
    /// The guest's error sources.
    pub fn records(&self) -> Option<&Ghes> {
        self.records.ghes.as_ref()
    }
}

impl Containment {
    /// Sets the longest time that a vCPU waits for the guest to acknowledge a record, by the clock passed to
    /// the containment. The default is one second. Set zero if no other vCPU can run meanwhile.
    pub fn set_patience(&mut self, patience: Duration) {
        self.records.patience = patience;
    }

    /// Sets the guest's error sources from now on. See [`Ghes::reset`].
    pub fn set_records(&mut self, ghes: Option<Ghes>) {
        self.records.reset(ghes);
    }

    /// The guest's error sources.
    pub fn records(&mut self) -> Option<&mut Ghes> {
        self.records.ghes.as_mut()
    }

    /// Writes the record of the error if the guest looks for records, an abort will be injected that makes it look, and
    /// the error has an address. `time` is the record's.
    ///
    /// While the guest has not acknowledged an earlier record the decision becomes [`Verdict::Wait`] for at
    /// most a second ([`Containment::set_patience`]). After that the record goes to another source; if all
    /// sources are taken the guest gets the abort without a record.
    ///
    /// There is one record at a time because Linux reads all sources at each abort, whichever CPU took it
    /// (`ghes_notify_sea`). A CPU that is about to read its own record would take that of another CPU, whose abort is still
    /// to come; the other CPU would then find nothing, and its process would be killed for an error without an address.
    ///
    /// A guest that reads record after record and repeats the access gets the abort alone from half the storm guard's
    /// limit on. Linux with `PREEMPT_RT` leaves a record to a thread, and the process may run often before that thread does.
    /// An abort without a record ends the process at once.
    ///
    /// # Errors
    /// The memory's; the decision is unchanged.
    pub fn record(
        &mut self,
        memory: &dyn RecordMemory,
        decision: &mut Decision,
        time: SystemTime,
    ) -> Result<(), RecordError> {
        let Verdict::Inject(injection) = decision.verdict else { return Ok(()) };
        let records = &mut self.records;
        let (Some(ghes), Some(range)) = (&mut records.ghes, decision.error.range()) else { return Ok(()) };
        if !injection.has_abort() || self.is_dry_run {
            return Ok(());
        }
        let address = decision.error.named.unwrap_or(range.start);
        if ghes.outstanding(memory)?.0 == 0 {
            records.busy_since = None;
        } else {
            // A guest that did not acknowledge in time is not waited for again until it has acknowledged:
            // otherwise a storm would never end.
            let since = *records.busy_since.get_or_insert(decision.now);
            if decision.now.saturating_sub(since) < records.patience {
                // The access is repeated, which is not a storm.
                self.storm.take_back(&decision.error);
                decision.verdict = Verdict::Wait;
                return Ok(());
            }
        }
        if self.storm.is_half_way(&decision.error) {
            return Ok(());
        }
        decision.recorded = match ghes.report(memory, address, range, Severity::Recoverable, time)? {
            Report::Written { source } => Recorded::AtSource(source),
            Report::Busy => Recorded::Unacknowledged,
        };
        Ok(())
    }
}
