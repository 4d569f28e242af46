//! PSCI 1.1 with KVM's answers: over HVC, or for a guest with EL2 over SMC.
//!
//! Source: Arm DEN 0022, chapter 5; SMCCC (DEN 0028).

use seawall_inject::{Exit, SystemEvent};

use crate::cpu::{Cpu, Wait};
use crate::gic;
use crate::run::{Runner, Stop};

const SMCCC_VERSION: u64 = 0x8000_0000;
const PSCI_VERSION: u64 = 0x8400_0000;
const CPU_SUSPEND: u64 = 0x8400_0001;
const CPU_SUSPEND_64: u64 = 0xc400_0001;
const CPU_OFF: u64 = 0x8400_0002;
const CPU_ON: u64 = 0x8400_0003;
const CPU_ON_64: u64 = 0xc400_0003;
const AFFINITY_INFO: u64 = 0x8400_0004;
const AFFINITY_INFO_64: u64 = 0xc400_0004;
const MIGRATE_INFO_TYPE: u64 = 0x8400_0006;
const SYSTEM_OFF: u64 = 0x8400_0008;
const SYSTEM_RESET: u64 = 0x8400_0009;
const PSCI_FEATURES: u64 = 0x8400_000a;
const SYSTEM_RESET2: u64 = 0x8400_0012;
const SYSTEM_RESET2_64: u64 = 0xc400_0012;

const SUCCESS: u64 = 0;
const NOT_SUPPORTED: u64 = -1_i64 as u64;
const INVALID_PARAMETERS: u64 = -2_i64 as u64;
const ALREADY_ON: u64 = -4_i64 as u64;
const INTERNAL_FAILURE: u64 = -6_i64 as u64;
/// AFFINITY_INFO's answers.
const ON: u64 = 0;
const OFF: u64 = 1;

/// Bits of MPIDR that a target has; the others must be zero.
const AFFINITY: u64 = 0xff_00ff_ffff;
/// SYSTEM_RESET2's types.
const WARM_RESET: u64 = 0;
const VENDOR_RESETS: u64 = 1 << 31;
/// What a 32-bit function sees of an argument.
const WORD: u64 = 0xffff_ffff;

/// What an HVC asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// Nothing but what X0 becomes.
    Answer(u64),
    /// The host is to end the VM; a guest that comes back all the same sees a failure.
    Event(SystemEvent),
    /// To wait for an interrupt: KVM takes every state for a retention state.
    Suspend,
    Off,
    On {
        target: u64,
        entry: u64,
        context: u64,
    },
    AffinityInfo {
        target: u64,
        lowest_level: u64,
    },
}

impl Call {
    /// The call whose X0 to X3 are given. Only W0 counts as function number.
    fn new([function, first, second, third]: [u64; 4]) -> Self {
        match function & WORD {
            PSCI_VERSION | SMCCC_VERSION => Self::Answer(0x1_0001),
            // No trusted OS that would have to be migrated.
            MIGRATE_INFO_TYPE => Self::Answer(2),
            PSCI_FEATURES => Self::Answer(features(first & WORD)),
            CPU_SUSPEND | CPU_SUSPEND_64 => Self::Suspend,
            CPU_OFF => Self::Off,
            CPU_ON => Self::On { target: first & WORD, entry: second & WORD, context: third & WORD },
            CPU_ON_64 => Self::On { target: first, entry: second, context: third },
            AFFINITY_INFO => Self::AffinityInfo { target: first & WORD, lowest_level: second & WORD },
            AFFINITY_INFO_64 => Self::AffinityInfo { target: first, lowest_level: second },
            SYSTEM_OFF => Self::Event(SystemEvent::Shutdown),
            SYSTEM_RESET => Self::Event(SystemEvent::Reset),
            SYSTEM_RESET2 => Self::reset(first & WORD),
            SYSTEM_RESET2_64 => Self::reset(first),
            _ => Self::Answer(NOT_SUPPORTED),
        }
    }
}

impl Call {
    /// SYSTEM_RESET2: a warm reset, or one of the vendor's, which here are the same.
    fn reset(kind: u64) -> Self {
        match kind {
            WARM_RESET | VENDOR_RESETS.. => Self::Event(SystemEvent::Reset),
            _ => Self::Answer(INVALID_PARAMETERS),
        }
    }
}

fn features(function: u64) -> u64 {
    match function {
        SMCCC_VERSION | PSCI_VERSION | CPU_SUSPEND | CPU_SUSPEND_64 | CPU_OFF | CPU_ON | CPU_ON_64
        | AFFINITY_INFO | AFFINITY_INFO_64 | MIGRATE_INFO_TYPE | SYSTEM_OFF | SYSTEM_RESET
        | SYSTEM_RESET2 | SYSTEM_RESET2_64 | PSCI_FEATURES => SUCCESS,
        _ => NOT_SUPPORTED,
    }
}

/// What AFFINITY_INFO answers of all CPUs, given as MPIDR and whether each is on: ON if one of
/// those that match down to the level is.
fn affinity_info(cpus: impl Iterator<Item = (u64, bool)>, target: u64, lowest_level: u64) -> u64 {
    if target & !AFFINITY != 0 || lowest_level > 3 {
        return INVALID_PARAMETERS;
    }
    let ignored = (1u64 << (8 * lowest_level)) - 1;
    let states = cpus.filter(|(mpidr, _)| (target ^ mpidr) & AFFINITY & !ignored == 0).map(|(_, on)| on);
    match states.reduce(|one, other| one || other) {
        None => INVALID_PARAMETERS,
        Some(true) => ON,
        Some(false) => OFF,
    }
}

impl Runner<'_> {
    /// HVC, or SMC where there is EL2: the call is answered, and may stop the CPU.
    pub(crate) fn firmware_call(&mut self) -> Option<Stop> {
        let call = Call::new([0, 1, 2, 3].map(|n| self.cpu.slot(n)));
        let (x0, stop) = match call {
            Call::Answer(x0) => (x0, None),
            Call::Event(event) => (INTERNAL_FAILURE, Some(Stop::Exit(Exit::SystemEvent(event)))),
            Call::Suspend => {
                self.cpu.wait = Wait::Interrupt;
                (SUCCESS, Some(Stop::Wait))
            }
            Call::Off => {
                self.cpu.wait = Wait::Off;
                (INTERNAL_FAILURE, Some(Stop::Wait))
            }
            Call::On { target, entry, context } => (self.turn_on(target, entry, context), None),
            Call::AffinityInfo { target, lowest_level } => {
                let others = self.others.iter().map(|cpu| (cpu.mpidr(), cpu.wait != Wait::Off));
                let cpus = others.chain([(self.cpu.mpidr(), true)]);
                (affinity_info(cpus, target, lowest_level), None)
            }
        };
        self.cpu.set_slot(0, x0);
        stop
    }

    /// CPU_ON: the CPU comes out of reset at `entry` with `context` in X0.
    fn turn_on(&mut self, target: u64, entry: u64, context: u64) -> u64 {
        let has_affinity = |cpu: &Cpu| cpu.mpidr() & AFFINITY == target;
        if has_affinity(self.cpu) {
            return ALREADY_ON;
        }
        let Some((index, cpu)) = self.others.iter_mut().find(|(_, cpu)| has_affinity(cpu)) else {
            return INVALID_PARAMETERS;
        };
        if cpu.wait != Wait::Off {
            return ALREADY_ON;
        }
        cpu.reset(self.config);
        cpu.wait = Wait::No;
        cpu.pc = entry;
        cpu.set_slot(0, context);
        self.gic.reset_interface(index);
        self.refresh_signals();
        SUCCESS
    }
}

/// MPIDR_EL1 of a CPU: RES1 bit 31, and its affinity.
pub(crate) fn mpidr(cpu: usize) -> u64 {
    let affinity = u64::from(gic::affinity(cpu));
    1 << 31 | affinity & 0xff_ffff | (affinity & 0xff00_0000) << 8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(function: u64, arguments: [u64; 3]) -> Call {
        let [first, second, third] = arguments;
        Call::new([function, first, second, third])
    }

    #[test]
    fn the_version_is_1_1_and_unknown_functions_are_not_supported() {
        assert_eq!(call(0x8400_0000, [0; 3]), Call::Answer(0x1_0001));
        assert_eq!(call(0x8400_0013, [0; 3]), Call::Answer(u64::MAX));
        for (function, answer) in [
            (0x8400_0008, 0),
            (0x8400_0001, 0),
            (0xc400_0003, 0),
            (0x8400_0002, 0),
            (0x8400_0012, 0),
            (0xc400_0012, 0),
            (0x8400_0005, u64::MAX),
            (0x8400_0013, u64::MAX),
            (0xc400_0002, u64::MAX),
        ] {
            assert_eq!(call(0x8400_000a, [function, 0, 0]), Call::Answer(answer), "{function:#x}");
        }
    }

    #[test]
    fn only_w0_is_the_function_and_32_bit_calls_have_32_bit_arguments() {
        let wide = [0xffff_ffff_0000_0001, 0xffff_ffff_4008_0000, 0xffff_ffff_0000_0007];
        assert_eq!(call(0xdead_beef_8400_0003, wide), Call::On { target: 1, entry: 0x4008_0000, context: 7 });
        assert_eq!(call(0xc400_0003, wide), Call::On { target: wide[0], entry: wide[1], context: wide[2] });
    }

    #[test]
    fn affinity_info_tells_of_all_cpus_that_match() {
        let cpus = || [(0x8000_0000, true), (0x8000_0001, false), (0x8000_0100, false)].into_iter();
        let info = |target, level| affinity_info(cpus(), target, level);
        assert_eq!([info(0, 0), info(1, 0), info(2, 0)], [0, 1, u64::MAX - 1]);
        assert_eq!([info(0, 1), info(1, 1), info(0x100, 1)], [0, 0, 1]);
        assert_eq!([info(0, 3), info(0, 4)], [0, u64::MAX - 1]);
    }

    /// DEN 0022, 5.1.4 and 5.1.5: a target_cpu has zeroes but for the affinity fields: bits 63:40 and 31:24. KVM checks
    /// them for both functions.
    #[test]
    fn a_target_with_bits_that_must_be_zero_is_invalid() {
        let cpus = || [(0x8000_0000, true), (0x8000_0001, false)].into_iter();
        for target in [0x8000_0001, 0x0100_0001, 0x100_0000_0001, 1 << 63 | 1] {
            for level in 0..=3 {
                assert_eq!(affinity_info(cpus(), target, level), u64::MAX - 1, "{target:#x}, level {level}");
            }
        }
        // A 32-bit call does not see the upper half.
        let call = call(0x8400_0004, [0xffff_ff00_0000_0001, 0, 0]);
        assert_eq!(call, Call::AffinityInfo { target: 1, lowest_level: 0 });
    }

    /// DEN 0022, 5.1.10: reset types 0 (warm reset of the system) and those of the vendor, from bit 31 up; KVM's answers.
    #[test]
    fn a_reset_of_a_type_that_there_is_not_is_invalid() {
        for (reset, expected) in [
            (0, Call::Event(SystemEvent::Reset)),
            (0x8000_0000, Call::Event(SystemEvent::Reset)),
            (1, Call::Answer(u64::MAX - 1)),
            (0x7fff_ffff, Call::Answer(u64::MAX - 1)),
        ] {
            assert_eq!(call(0x8400_0012, [reset, 0, 0]), expected, "{reset:#x}");
            assert_eq!(call(0xc400_0012, [reset, 0, 0]), expected, "{reset:#x}");
        }
    }

    #[test]
    fn off_and_reset_are_events_for_the_host() {
        assert_eq!(call(0x8400_0008, [0; 3]), Call::Event(SystemEvent::Shutdown));
        assert_eq!(call(0x8400_0009, [0; 3]), Call::Event(SystemEvent::Reset));
    }

    #[test]
    fn sixteen_cpus_make_a_cluster() {
        assert_eq!(
            [0, 1, 15, 16, 122].map(mpidr),
            [0x8000_0000, 0x8000_0001, 0x8000_000f, 0x8000_0100, 0x8000_070a]
        );
    }
}
