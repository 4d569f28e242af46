//! Gauges: numbers that the program sets on request.

use metrics::gauge;

use super::facades;

/// Sets the gauges of the records that the guest has not acknowledged, of consumed errors (`sea`) and found
/// ones (`polled`), and of those that wait for a free source (`queued`). The guest acknowledges at any time,
/// so call this whenever the numbers are read.
///
/// # Errors
/// [`RecordError`](crate::RecordError).
#[cfg(feature = "records")]
pub fn records(
    ghes: &crate::apei::ghes::Ghes,
    memory: &dyn crate::RecordMemory,
) -> Result<(), crate::RecordError> {
    let (sea, polled) = ghes.outstanding(memory)?;
    for (kind, count) in [("sea", sea), ("polled", polled), ("queued", ghes.waiting().count())] {
        gauge!(facades::RECORDS_OUTSTANDING, "kind" => kind).set(number(count as u64));
    }
    Ok(())
}

/// Sets the gauge of the bad pages. Call it when the ledger changes.
#[cfg(feature = "ledger")]
pub fn ledger(ledger: &crate::ledger::Ledger) {
    gauge!(facades::LEDGER_PAGES).set(number(ledger.pages()));
}

#[allow(clippy::cast_precision_loss, reason = "there are never 2^53 of anything here")]
fn number(count: u64) -> f64 {
    count as f64
}
