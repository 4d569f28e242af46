//! The entry points, with a vCPU of the tests' in C's place.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::c::{Base, COUNT, Fault, KvmVcpu, NO_IPA, Registers, Sea, config, serror, written};
use crate::{
    seawall_rust_get_events, seawall_rust_predict_events, seawall_rust_sea_exit, seawall_rust_set_events,
};

/// What C has of the vCPU, and what it was asked.
#[derive(Default)]
struct State {
    registers: Registers,
    base: Base,
    loads: u32,
    stores: u32,
    walk: Option<i32>,
}

/// One at a time: C's functions are given no more than the vCPU.
static STATE: Mutex<Option<State>> = Mutex::new(None);
static ALONE: Mutex<()> = Mutex::new(());

fn with<T>(act: impl FnOnce(&mut State) -> T) -> T {
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    act(state.get_or_insert_default())
}

mod c {
    #![allow(unsafe_code)]

    use super::{Base, KvmVcpu, Registers, with};

    /// `seawall_load`.
    // SAFETY: no other symbol has this name in the tests' program.
    #[unsafe(no_mangle)]
    extern "C" fn seawall_load(_: &KvmVcpu, registers: &mut Registers) {
        with(|state| {
            state.loads += 1;
            *registers = state.registers;
        });
    }

    /// `seawall_store`.
    // SAFETY: as above.
    #[unsafe(no_mangle)]
    extern "C" fn seawall_store(_: &KvmVcpu, base: &Base, registers: &Registers) {
        with(|state| {
            state.stores += 1;
            state.base = *base;
            state.registers = *registers;
        });
    }

    /// `seawall_walk_level`.
    // SAFETY: as above.
    #[unsafe(no_mangle)]
    extern "C" fn seawall_walk_level(_: &KvmVcpu, _: u64, _: u64, level: &mut i32) -> bool {
        let found = with(|state| state.walk);
        *level = found.unwrap_or_default();
        found.is_some()
    }
}

const PC: usize = 0;
const PSTATE: usize = 1;
const ELR: usize = 2;
const SPSR: usize = 3;
const ESR: usize = 4;
const FAR: usize = 5;
const VBAR: usize = 6;

const POSTED: u32 = 1;
const VCPU: &KvmVcpu = &KvmVcpu::NONE;

/// A guest at EL1 whose last abort was at 0x8000_0000.
fn begin(bits: u32) -> MutexGuard<'static, ()> {
    let guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut registers = Registers {
        fault: Fault { esr: 0x9200_0010, far: 0x8000_0000, ipa: NO_IPA },
        ..Registers::default()
    };
    registers.reg[PC] = 0x4000_0000;
    registers.reg[PSTATE] = 0x3c5;
    registers.reg[VBAR] = 0x4008_0000;
    let base = Base { config: config::RAS | config::HAS_RUN | bits, ..Base::default() };
    with(|state| *state = State { registers, base, ..State::default() });
    guard
}

fn set(abi: u32, bytes: &[(usize, u8)]) -> i32 {
    let mut events = [0_u8; 64];
    for (offset, byte) in bytes {
        events[*offset] = *byte;
    }
    let mut base = with(|state| state.base);
    seawall_rust_set_events(VCPU, &mut base, abi, &zerocopy::transmute!(events))
}

/// `KVM_SET_VCPU_EVENTS` of an instruction abort with SET and EA, by the proposal.
#[test]
fn an_instruction_abort_is_one_load_and_one_store() {
    let _guard = begin(0);
    assert_eq!(set(POSTED, &[(3, 1), (4, 1), (17, 0x02)]), 0);
    with(|state| {
        let reg = state.registers.reg;
        assert_eq!((reg[ESR], reg[FAR], reg[ELR], reg[SPSR]), (0x8600_0210, 0x8000_0000, 0x4000_0000, 0x3c5));
        assert_eq!((reg[PC], reg[PSTATE]), (0x4008_0200, 0x40_03c5));
        let wrote =
            [PC, PSTATE, ELR, SPSR, ESR, FAR].iter().fold(written::NO_MMIO, |all, reg| all | 1 << reg);
        assert_eq!((state.loads, state.stores, state.registers.written), (1, 1, wrote));
    });
}

#[test]
fn events_that_ask_for_nothing_and_those_that_are_refused_look_at_no_register() {
    let _guard = begin(0);
    assert_eq!(set(POSTED, &[]), 0);
    assert_eq!(set(POSTED, &[(2, 1), (3, 1)]), -22, "both aborts");
    assert_eq!(set(0, &[(3, 1)]), -22, "a pad byte to mainline");
    with(|state| assert_eq!(state.stores, 0));
    assert_eq!(set(POSTED, &[(63, 1)]), -22, "a reserved word");
    with(|state| assert_eq!(state.stores, 0));
}

/// Mainline looks at the SError's arguments after it delivered the abort.
#[test]
fn an_abort_beside_a_bad_serror_is_stored_by_mainlines_rules_alone() {
    let events = [(0, 1), (1, 1), (2, 1), (11, 4)];
    let guard = begin(0);
    assert_eq!(set(0, &events), -22);
    with(|state| assert_eq!((state.stores, state.registers.reg[ESR]), (1, 0x9600_0010)));
    drop(guard);
    let _guard = begin(0);
    assert_eq!(set(POSTED, &events), -22);
    with(|state| assert_eq!(state.stores, 0));
}

#[test]
fn a_masked_serror_is_pending_and_get_shows_it() {
    let _guard = begin(0);
    assert_eq!(set(POSTED, &[(0, 1), (1, 1), (8, 0x11), (9, 0x0c), (10, 0x10)]), 0);
    let mut base = with(|state| state.base);
    assert_eq!((base.serror, base.vsesr), (serror::PENDING, 0x10_0c11));
    let mut words = [u64::MAX; 8];
    assert_eq!(seawall_rust_get_events(VCPU, &mut base, POSTED, &mut words), 0);
    let mut expected = [0; 64];
    expected[..11].copy_from_slice(&[1, 1, 0, 0, 0, 0, 0, 0, 0x11, 0x0c, 0x10]);
    let bytes: [u8; 64] = zerocopy::transmute!(words);
    assert_eq!(bytes, expected);
}

/// A stage 2 fault on the walk: FSC 0x14 + the level at which C's walk finds the descriptor, or nothing at all.
#[test]
fn an_abort_on_a_walk_has_the_level_that_c_finds() {
    let guard = begin(0);
    let on_walk = Fault { esr: 0x9200_0087, far: 0x8000_0000, ipa: 0x4100_0000 };
    with(|state| (state.registers.fault, state.walk) = (on_walk, Some(2)));
    assert_eq!(set(POSTED, &[(2, 1)]), 0);
    with(|state| assert_eq!(state.registers.reg[ESR], 0x9600_0016));
    drop(guard);
    let _guard = begin(0);
    with(|state| state.registers.fault = on_walk);
    assert_eq!(set(POSTED, &[(2, 1)]), 0);
    with(|state| assert_eq!((state.stores, state.registers.reg[PC]), (0, 0x4000_0000)));
}

/// `HCR_EL2.TEA` of a guest hypervisor, whose guest runs.
#[test]
fn an_abort_that_a_guest_hypervisor_takes_is_written_to_el2s_registers() {
    let _guard = begin(config::EL2);
    with(|state| {
        state.registers.reg[17] = 0x4010_0000;
        state.registers.reg[20] = 1 << 37;
    });
    assert_eq!(set(POSTED, &[(3, 1)]), 0);
    with(|state| {
        let reg = state.registers.reg;
        assert_eq!((reg[13], reg[14], reg[15], reg[16]), (0x4000_0000, 0x3c5, 0x8200_0010, 0x8000_0000));
        assert_eq!((reg[PC], reg[ESR]), (0x4010_0400, 0));
    });
}

#[test]
fn a_prediction_changes_its_copies_and_asks_for_no_other() {
    let _guard = begin(0);
    let (mut base, mut copy) = with(|state| (state.base, state.registers));
    let mut events = [0_u8; 64];
    events[2] = 1;
    assert_eq!(seawall_rust_predict_events(VCPU, &mut base, &mut copy, 0, &zerocopy::transmute!(events)), 0);
    assert_eq!(copy.reg[ESR], 0x9600_0010);
    with(|state| assert_eq!((state.loads, state.stores), (0, 0)));
}

/// api.rst, `KVM_EXIT_ARM_SEA`: flags, esr, gva, gpa.
#[test]
fn an_exit_is_the_masked_syndrome_and_the_addresses_that_are_valid() {
    let exit = |fault: Fault, ras| {
        let mut sea: Sea = [u64::MAX; 4];
        seawall_rust_sea_exit(&fault, ras, &mut sea);
        sea
    };
    // ISV, SAS, SRT and the like are not the VMM's; SET is, of a guest with RAS.
    let fault = Fault { esr: 0x93c8_1a10, far: 0xffff_0000_1234_5678, ipa: 0x4123_4000 };
    assert_eq!(exit(fault, true), [1, 0x9200_1a10, 0xffff_0000_1234_5678, 0x4123_4000]);
    assert_eq!(exit(fault, false), [1, 0x9200_0210, 0xffff_0000_1234_5678, 0x4123_4000]);
    assert_eq!(exit(Fault { ipa: NO_IPA, ..fault }, true), [0, 0x9200_1a10, 0xffff_0000_1234_5678, 0]);
    // FnV: no address.
    assert_eq!(exit(Fault { esr: 0x9200_0410, ..fault }, true), [0, 0x9200_0410, 0, 0]);
}

/// `struct seawall_base`, `struct seawall_regs` and `SEAWALL_REGS` of seawall.h.
#[test]
fn the_layouts_are_those_of_the_header() {
    assert_eq!((size_of::<Base>(), size_of::<Registers>(), COUNT), (16, 24 + 8 + 22 * 8, 22));
    let header = include_str!("../linux/seawall.h");
    let names = header.split("enum seawall_reg {").nth(1).and_then(|rest| rest.split('}').next());
    let names: std::vec::Vec<&str> =
        names.unwrap_or_default().split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    assert_eq!(names.len(), COUNT + 1);
    for (number, name) in [(0, "PC"), (10, "X20"), (13, "ELR_EL2"), (21, "HCRX_EL2")] {
        assert_eq!(names[number].strip_prefix("SEAWALL_"), Some(name));
    }
}
