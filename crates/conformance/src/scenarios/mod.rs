//! The groups of scenarios.

mod aarch32;
mod abort;
mod both;
mod ease;
mod errno;
mod esr;
mod get;
mod mainline;
mod mmio;
mod nested;
mod sea;
mod serror;
mod sigbus;
mod walk;

use seawall_events::{Reg, VcpuEvents};
use seawall_inject::Exit;

use crate::backend::Setup;
use crate::guest::{Guest, HOLE};
use crate::suite::Scenario;
use crate::trial::{Stop, Trial};

/// `group! { "group"; name needs Capability, Capability; … }` lists a group's functions.
macro_rules! group {
    ($group:literal; $($name:ident $(needs $($capability:ident),+)?;)*) => {
        pub(super) const ALL: &[crate::suite::Scenario] = &[$(crate::suite::Scenario {
            group: $group,
            name: stringify!($name),
            needs: &[$($(crate::backend::Capability::$capability),+)?],
            body: $name,
        }),*];
    };
}
use group;

const GROUPS: &[&[Scenario]] = &[
    abort::ALL,
    esr::ALL,
    serror::ALL,
    both::ALL,
    ease::ALL,
    mmio::ALL,
    get::ALL,
    errno::ALL,
    mainline::ALL,
    walk::ALL,
    sea::ALL,
    sigbus::ALL,
    aarch32::ALL,
    nested::ALL,
];

/// All scenarios, group by group.
pub(crate) fn all() -> impl Iterator<Item = Scenario> {
    GROUPS.iter().flat_map(|group| group.iter().copied())
}

/// A data abort, no ESR.
fn data_abort() -> VcpuEvents {
    VcpuEvents { ext_dabt_pending: true, ..VcpuEvents::default() }
}

/// An instruction abort, no ESR.
fn instruction_abort() -> VcpuEvents {
    VcpuEvents { ext_iabt_pending: true, ..VcpuEvents::default() }
}

/// An ISS for the abort.
fn with_iss(iss: u64, events: VcpuEvents) -> VcpuEvents {
    VcpuEvents { ext_abt_has_esr: true, ext_abt_esr: iss, ..events }
}

/// An SError, no ESR.
fn serror() -> VcpuEvents {
    VcpuEvents { serror_pending: true, ..VcpuEvents::default() }
}

/// An SError with an ESR.
fn serror_with(iss: u64) -> VcpuEvents {
    VcpuEvents { serror_has_esr: true, serror_esr: iss, ..serror() }
}

/// The address of a load of X2 from [`HOLE`] + 8: `FAR` of an abort injected then.
const ACCESSED: u64 = 0x0a00_1008;

/// A guest that stopped at its first instruction, an access to [`ACCESSED`]: MMIO or without a syndrome. X2 is
/// 0x1111, X3 is 0x2222.
fn stopped_at(trial: &Trial, setup: Setup, word: u32, pstate: u64) -> Result<Guest, Stop> {
    let mut guest = trial.guest(setup)?;
    guest.program(&[word])?;
    guest.set(Reg::Pstate, pstate)?;
    stop_again(&mut guest)?;
    Ok(guest)
}

/// Stops a restarted guest at the same instruction.
fn stop_again(guest: &mut Guest) -> Result<(), Stop> {
    guest.set(Reg::X(1), HOLE + 8)?;
    guest.set(Reg::X(2), 0x1111)?;
    guest.set(Reg::X(3), 0x2222)?;
    match guest.run()? {
        Exit::Mmio(mmio) if mmio.phys_addr == ACCESSED => Ok(()),
        Exit::Nisv(nisv) if nisv.fault_ipa == ACCESSED => Ok(()),
        exit => Err(Stop::Error(format!("expected an access to {ACCESSED:#x}, got {exit:x?}"))),
    }
}
