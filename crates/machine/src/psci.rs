//! PSCI 1.1 over HVC, as far as one CPU needs it, with KVM's answers.
//!
//! Source: Arm DEN 0022, chapter 5; SMCCC (DEN 0028).

use seawall_events::SystemEvent;

const SMCCC_VERSION: u64 = 0x8000_0000;
const PSCI_VERSION: u64 = 0x8400_0000;
const AFFINITY_INFO: u64 = 0x8400_0004;
const AFFINITY_INFO_64: u64 = 0xc400_0004;
const MIGRATE_INFO_TYPE: u64 = 0x8400_0006;
const SYSTEM_OFF: u64 = 0x8400_0008;
const SYSTEM_RESET: u64 = 0x8400_0009;
const PSCI_FEATURES: u64 = 0x8400_000a;

const NOT_SUPPORTED: u64 = -1_i64 as u64;
const INVALID_PARAMETERS: u64 = -2_i64 as u64;
const INTERNAL_FAILURE: u64 = -6_i64 as u64;
/// Bits of MPIDR that AFFINITY_INFO's target has.
const AFFINITY: u64 = 0xff_00ff_ffff;

/// What an HVC leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// What X0 becomes.
    pub(crate) x0: u64,
    /// What the host is told.
    pub(crate) event: Option<SystemEvent>,
}

/// Answer the call whose X0 to X2 are given. Only W0 counts as function number.
pub(crate) fn call(arguments: [u64; 3], mpidr: u64) -> Answer {
    let [function, first, second] = arguments;
    let function = function & 0xffff_ffff;
    let x0 = match function {
        PSCI_VERSION | SMCCC_VERSION => 0x1_0001,
        // No trusted OS that would have to be migrated.
        MIGRATE_INFO_TYPE => 2,
        AFFINITY_INFO | AFFINITY_INFO_64 => affinity_info(first, second, mpidr),
        PSCI_FEATURES => features(first & 0xffff_ffff),
        // The host is to end the VM; a guest that comes back all the same sees a failure.
        SYSTEM_OFF => return Answer { x0: INTERNAL_FAILURE, event: Some(SystemEvent::Shutdown) },
        SYSTEM_RESET => return Answer { x0: INTERNAL_FAILURE, event: Some(SystemEvent::Reset) },
        _ => NOT_SUPPORTED,
    };
    Answer { x0, event: None }
}

/// 0: the CPU is on.
fn affinity_info(target: u64, lowest_level: u64, mpidr: u64) -> u64 {
    if lowest_level > 3 {
        return INVALID_PARAMETERS;
    }
    let ignored = (1u64 << (8 * lowest_level)) - 1;
    let differs = (target ^ mpidr) & AFFINITY & !ignored;
    if differs == 0 { 0 } else { INVALID_PARAMETERS }
}

fn features(function: u64) -> u64 {
    match function {
        SMCCC_VERSION | PSCI_VERSION | AFFINITY_INFO | AFFINITY_INFO_64 | MIGRATE_INFO_TYPE | SYSTEM_OFF
        | SYSTEM_RESET | PSCI_FEATURES => 0,
        _ => NOT_SUPPORTED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_1_1_and_unknown_functions_are_not_supported() {
        assert_eq!(call([0x8400_0000, 0, 0], 0).x0, 0x1_0001);
        assert_eq!(call([0x8400_0003, 0, 0], 0).x0, u64::MAX);
        assert_eq!(call([0x8400_000a, 0x8400_0008, 0], 0).x0, 0);
        assert_eq!(call([0x8400_000a, 0x8400_0003, 0], 0).x0, u64::MAX);
    }

    #[test]
    fn the_only_cpu_is_on_and_others_do_not_exist() {
        let mpidr = 1 << 31;
        assert_eq!(call([0xc400_0004, 0, 0], mpidr).x0, 0);
        assert_eq!(call([0xc400_0004, 1, 0], mpidr).x0, u64::MAX - 1);
    }

    #[test]
    fn off_and_reset_are_events_for_the_host() {
        assert_eq!(call([0x8400_0008, 0, 0], 0).event, Some(SystemEvent::Shutdown));
        assert_eq!(call([0x8400_0009, 0, 0], 0).event, Some(SystemEvent::Reset));
    }
}
