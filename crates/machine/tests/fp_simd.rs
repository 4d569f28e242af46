//! FP and AdvSIMD: who may use them, what memory does to their loads and stores, and results that the manual or
//! IEEE 754 give. All else is compared with `qemu-aarch64` by `cargo xtask diff-isa`.

mod support;

use seawall_arm::Reg;
use seawall_events::NisvExit;
use seawall_inject::Exit;
use seawall_machine::{Config, FpSimdState, NoSyndrome, StorePolicy};
use support::{CODE, DATA, EL0, EL0T, EL1H, Guest, HOLE, TABLES, VECTORS};

const FPEN: u64 = 3 << 20;
/// `fadd d0, d1, d2`
const FADD: u32 = 0x1e62_2820;
/// `fmadd d0, d1, d2, d3`
const FMADD: u32 = 0x1f42_0c20;
/// `fmaxnm d0, d1, d2`
const FMAXNM: u32 = 0x1e62_6820;
/// `ldr q0, [x1]`
const LDR_Q: u32 = 0x3dc0_0020;
/// `ldp q0, q2, [x1]`
const LDP_Q: u32 = 0xad40_0820;
/// `ld4 {v0.4s-v3.4s}, [x1]`
const LD4: u32 = 0x4c40_0820;
/// `ld1 {v0.16b-v3.16b}, [x1]`
const LD1: u32 = 0x4c40_2020;
/// `stp q0, q2, [x1]`
const STP_Q: u32 = 0xad00_0820;
/// `st4 {v0.4s-v3.4s}, [x1]`
const ST4: u32 = 0x4c00_0820;

fn state(guest: &mut Guest) -> FpSimdState {
    guest.vm.vcpu(0).expect("CPU 0").fp_simd().expect("CPU 0")
}

fn set_state(guest: &mut Guest, state: &FpSimdState) {
    guest.vm.vcpu(0).expect("CPU 0").set_fp_simd(state).expect("CPU 0");
}

fn enabled(mut guest: Guest) -> Guest {
    guest.set(Reg::CpacrEl1, FPEN);
    guest
}

/// A number of its own in each register.
fn marked() -> FpSimdState {
    let mut state = FpSimdState::default();
    for (i, v) in state.vregs.iter_mut().enumerate() {
        *v = 0x1111_1111_1111_1111_2222_2222_2222_2200 + i as u128;
    }
    state
}

/// DDI 0487, `CheckFPAdvSIMDEnabled64`: FPEN 00 and 10 trap both levels, 01 traps EL0.
#[test]
fn cpacr_traps_fp_with_class_7_before_anything_else_happens() {
    const MRS_FPCR: u32 = 0xd53b_4400;
    const MSR_FPSR: u32 = 0xd51b_4420;
    // With a misaligned SP as their base, or an address that is not mapped, loads trap the same.
    const LDR_Q_SP: u32 = 0x3dc0_03e0;
    for word in [FADD, LDR_Q, LDP_Q, LD4, ST4, LDR_Q_SP, MRS_FPCR, MSR_FPSR, 0x4e28_4820, 0x4f07_e7e0] {
        for (fpen, el0_traps, el1_traps) in
            [(0, true, true), (1, true, false), (2, true, true), (3, false, false)]
        {
            let mut guest = Guest::new(&[word]);
            guest.set(Reg::CpacrEl1, fpen << 20);
            let trap = |esr: u64| if esr >> 26 == 7 { Some(esr) } else { None };
            guest.set(Reg::SpEl1, 0x4000_0001);
            guest.run(1);
            let expected = el1_traps.then_some(0x1fe0_0000);
            assert_eq!(trap(guest.get(Reg::EsrEl1)), expected, "{word:#x} at EL1, FPEN {fpen}");
            if el1_traps {
                assert_eq!((guest.get(Reg::Pc), guest.get(Reg::ElrEl1)), (VECTORS + 0x200, CODE));
            }

            let mut guest = Guest::new(&[word]);
            guest.set(Reg::CpacrEl1, fpen << 20);
            guest.set(Reg::Pstate, EL0T);
            guest.run(1);
            let expected = el0_traps.then_some(0x1fe0_0000);
            assert_eq!(trap(guest.get(Reg::EsrEl1)), expected, "{word:#x} at EL0, FPEN {fpen}");
        }
    }
}

#[test]
fn the_id_registers_and_cpacr_say_what_is_there() {
    // mrs x0, id_aa64pfr0_el1; mrs x2, id_aa64isar0_el1; msr cpacr_el1, x3; mrs x3, cpacr_el1
    let mut guest = Guest::new(&[0xd538_0400, 0xd538_0602, 0xd518_1043, 0xd538_1043]);
    guest.set(Reg::X(3), u64::MAX);
    guest.steps(4);
    // FP and AdvSIMD 0: there, without half-precision arithmetic.
    assert_eq!(guest.x(0) >> 16 & 0xff, 0);
    // AES 2 (with PMULL), SHA1 1, SHA2 1, CRC32 1; no RDM, no dot product.
    assert_eq!((guest.x(2) & 0xf_fff0, guest.x(2) >> 28 & 0xf, guest.x(2) >> 44 & 0xf), (0x1_1120, 0, 0));
    assert_eq!(guest.x(3), FPEN);
}

#[test]
fn sve_is_undefined_not_trapped() {
    let mut guest = Guest::new(&[0x0480_0000]);
    guest.run(1);
    assert_eq!(guest.get(Reg::EsrEl1), 0x0200_0000);
    assert!(!seawall_machine::is_allocated(0x0480_0000));
}

#[test]
fn an_exception_leaves_the_registers_alone() {
    let mut guest = enabled(Guest::new(&[0xd400_0001]));
    let before = FpSimdState { fpcr: 0x0340_0000, fpsr: 0x0800_009f, ..marked() };
    set_state(&mut guest, &before);
    guest.steps(1);
    assert_eq!(guest.get(Reg::Pc), VECTORS + 0x200);
    assert_eq!(state(&mut guest), before);
}

/// FAR and SEA exits of a load at `va`, when the line at DATA + 0x40 is poisoned: nothing of it is done.
fn consumed_at(word: u32, va: u64) -> Option<u64> {
    let mut guest = enabled(Guest::mapped(&[word]));
    guest.set(Reg::X(1), va);
    guest.set(Reg::X(2), 8);
    set_state(&mut guest, &marked());
    guest.poison(DATA + 0x40);
    match guest.run(1) {
        Exit::Sea(sea) => {
            assert_eq!((sea.esr.bits(), sea.gpa, sea.flags), (0x9200_0210, DATA, 1), "{word:#x}");
            assert_eq!((guest.get(Reg::Pc), guest.x(1), state(&mut guest)), (CODE, va, marked()));
            Some(sea.gva)
        }
        Exit::Intr => None,
        exit => panic!("unexpected {exit:?}"),
    }
}

#[test]
fn loads_consume_poison_access_by_access_and_do_nothing_by_halves() {
    for (word, va, far, name) in [
        (LDR_Q, DATA + 0x40, Some(DATA + 0x40), "ldr q"),
        (LDR_Q, DATA + 0x30, None, "ldr q before the line"),
        (LDR_Q, DATA + 0x31, Some(DATA + 0x31), "ldr q into the line: the access's address"),
        (0x3d40_0020, DATA + 0x7f, Some(DATA + 0x7f), "ldr b, the last byte"),
        (0x3d40_0020, DATA + 0x80, None, "ldr b behind the line"),
        (0x6d40_0820, DATA + 0x40, Some(DATA + 0x40), "ldp d"),
        (LDP_Q, DATA + 0x30, Some(DATA + 0x40), "ldp q: the second register's address"),
        (LDP_Q, DATA + 0x20, None, "ldp q before the line"),
        (0xacc1_0820, DATA + 0x30, Some(DATA + 0x40), "ldp q with writeback"),
        (LD4, DATA + 0x08, Some(DATA + 0x40), "ld4: the first element in the line"),
        (LD1, DATA + 0x3f, Some(DATA + 0x40), "ld1: the first byte in the line"),
        (LD1, DATA, None, "ld1 before the line"),
        // ld4 {v0.s-v3.s}[1], [x1], x2; ld2r {v0.8h, v1.8h}, [x1]
        (0x0de2_b020, DATA + 0x38, Some(DATA + 0x40), "ld4, one element each"),
        (0x4d60_c420, DATA + 0x3e, Some(DATA + 0x40), "ld2r"),
    ] {
        assert_eq!(consumed_at(word, va), far, "{name}");
    }
}

#[test]
fn stores_do_not_consume_unless_the_policy_says_so() {
    for (word, name) in [(0x3d80_0020, "str q"), (STP_Q, "stp q"), (ST4, "st4")] {
        assert_eq!(consumed_at(word, DATA + 0x40), None, "{name}");
    }
    for (word, va, far, name) in [
        (0x3d80_0020, DATA + 0x40, DATA + 0x40, "str q"),
        (STP_Q, DATA + 0x30, DATA + 0x40, "stp q: the second register"),
        (ST4, DATA + 0x3c, DATA + 0x40, "st4: the second element"),
    ] {
        let config = Config { store_policy: StorePolicy::Abort, ..Config::default() };
        let mut guest = enabled(Guest::with(&[word], config).map());
        guest.set(Reg::X(1), va);
        set_state(&mut guest, &marked());
        guest.poison(DATA + 0x40);
        let Exit::Sea(sea) = guest.run(1) else { panic!("{name} does not abort") };
        assert_eq!((sea.esr.bits(), sea.gva), (0x9200_0250, far), "{name}");
        assert_eq!(guest.read(DATA + 0x38), 0, "{name}: nothing was written");
    }
}

/// A page that is not mapped behind one that is: the fault is of the part that touches it, and nothing was done.
#[test]
fn an_access_that_faults_in_its_second_page_changes_nothing() {
    for (word, back, far, name) in [
        (LDR_Q, 8, 0, "ldr q"),
        (LDP_Q, 16, 0, "ldp q"),
        (LD4, 20, 0, "ld4"),
        (STP_Q, 16, 0, "stp q"),
        (ST4, 20, 0, "st4"),
    ] {
        let mut guest = enabled(Guest::mapped(&[word]));
        guest.change_page(DATA + 0x1000, 0, 1);
        guest.set(Reg::X(1), DATA + 0x1000 - back);
        set_state(&mut guest, &marked());
        guest.steps(1);
        assert_eq!(guest.get(Reg::Pc), VECTORS + 0x200, "{name}");
        assert_eq!(guest.get(Reg::FarEl1), DATA + 0x1000 + far, "{name}");
        assert_eq!(guest.get(Reg::EsrEl1) & !0x40, 0x9600_0007, "{name}: translation, level 3");
        assert_eq!((state(&mut guest), guest.read(DATA + 0xff8)), (marked(), 0), "{name}");
    }
}

#[test]
fn an_access_over_a_page_boundary_is_whole() {
    // ld1 {v0.16b-v3.16b}, [x1]; st4 {v0.16b-v3.16b}, [x2]; ld4 {v4.16b-v7.16b}, [x2]
    let mut guest = enabled(Guest::mapped(&[LD1, 0x4c00_0040, 0x4c40_0044]));
    for i in 0..8 {
        let value = 0x0706_0504_0302_0100 + i * 0x0808_0808_0808_0808;
        guest.write(DATA + 0xff0 + 8 * i, value);
    }
    guest.set(Reg::X(1), DATA + 0xff0);
    guest.set(Reg::X(2), DATA + 0x1fdd);
    guest.steps(3);
    let v = state(&mut guest).vregs;
    assert_eq!(v[0], 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100);
    assert_eq!(v[3], 0x3f3e_3d3c_3b3a_3938_3736_3534_3332_3130);
    assert_eq!(v[4..8], v[0..4]);
    assert_eq!(guest.read(DATA + 0x1fdd) as u32, 0x3020_1000);
}

#[test]
fn a_store_to_decoded_code_in_two_pages_is_seen_in_both() {
    // The words at DATA are run once, then 64 bytes over two pages are written by one st1.
    const MOV_1: u32 = 0xd280_0020; // mov x0, #1
    const MOV_7: u32 = 0xd280_00e0; // mov x0, #7
    const ADD_1: u32 = 0x9100_0400; // add x0, x0, #1
    const RET: u32 = 0xd65f_03c0;
    // blr x3; st1 {v0.16b-v3.16b}, [x1]; isb; mov x4, x0; blr x3
    let mut guest =
        enabled(Guest::mapped(&[0xd63f_0060, 0x4c00_2020, 0xd503_3fdf, 0xaa00_03e4, 0xd63f_0060]));
    let target = DATA + 0x1ffc;
    guest.code_at(target, &[MOV_1, RET]);
    guest.set(Reg::X(1), DATA + 0x1fe0);
    guest.set(Reg::X(3), target);
    let mut values = FpSimdState::default();
    values.vregs[1] = u128::from(MOV_7) << 96;
    values.vregs[2] = u128::from(RET) << 32 | u128::from(ADD_1);
    set_state(&mut guest, &values);
    guest.steps(10);
    assert_eq!((guest.x(4), guest.x(0)), (1, 8));
}

#[test]
fn sctlr_a_asks_for_the_alignment_of_elements() {
    for (word, misaligned, aligned, name) in [
        (LDR_Q, 8, 16, "ldr q"),
        (LDP_Q, 8, 16, "ldp q"),
        (LD4, 2, 4, "ld4 of words"),
        (ST4, 2, 4, "st4 of words"),
    ] {
        for (offset, faults) in [(misaligned, true), (aligned, false)] {
            let mut guest = enabled(Guest::mapped(&[word]));
            let sctlr = guest.get(Reg::SctlrEl1);
            guest.set(Reg::SctlrEl1, sctlr | 2);
            guest.set(Reg::X(1), DATA + offset);
            guest.steps(1);
            let esr = guest.get(Reg::EsrEl1) & !0x40;
            assert_eq!(esr, if faults { 0x9600_0021 } else { 0 }, "{name} at +{offset}");
        }
    }
}

/// ESR_EL2.ISV: FP and AdvSIMD accesses have no syndrome.
#[test]
fn a_device_gives_no_syndrome() {
    for (word, iss, name) in [
        (0xbd40_0020, 0x07, "ldr s"),
        (0xbd00_0020, 0x47, "str s"),
        (LDR_Q, 0x07, "ldr q"),
        (LD4, 0x07, "ld4"),
        (STP_Q, 0x47, "stp q"),
    ] {
        let config = Config { no_syndrome: NoSyndrome::Exit, ..Config::default() };
        let mut guest = enabled(Guest::with(&[word], config));
        guest.set(Reg::X(1), HOLE);
        assert_eq!(guest.run(1), Exit::Nisv(NisvExit { esr_iss: iss, fault_ipa: HOLE }), "{name}");
    }
}

#[test]
fn a_page_table_in_bad_memory_is_consumed_by_fp_loads() {
    let mut guest = enabled(Guest::mapped(&[LDR_Q]));
    guest.set(Reg::X(1), DATA);
    guest.poison(TABLES[2]);
    let Exit::Sea(sea) = guest.run(1) else { panic!("not consumed") };
    assert_eq!((sea.esr.bits(), sea.gva, sea.flags & 1), (0x9200_0217, DATA, 0));
}

#[test]
fn el0_uses_its_own_rights() {
    let mut guest = enabled(Guest::mapped(&[LDR_Q]));
    guest.change_page(DATA, EL0, 0);
    guest.code_at(DATA + 0x100, &[LDR_Q, LDR_Q]);
    guest.set(Reg::X(1), DATA);
    guest.set(Reg::Pstate, EL0T);
    guest.set(Reg::Pc, DATA + 0x100);
    guest.steps(1);
    assert_eq!(guest.get(Reg::Pc), DATA + 0x104);
    guest.set(Reg::X(1), DATA + 0x1000);
    guest.steps(1);
    assert_eq!((guest.get(Reg::EsrEl1), guest.get(Reg::Pstate)), (0x9200_000f, EL1H));
}

#[test]
fn fpcr_and_fpsr_hold_what_this_cpu_has_of_them() {
    // msr fpcr, x0; mrs x1, fpcr; msr fpsr, x0; mrs x2, fpsr
    let mut guest = enabled(Guest::new(&[0xd51b_4400, 0xd53b_4401, 0xd51b_4420, 0xd53b_4422]));
    guest.set(Reg::X(0), u64::MAX);
    guest.steps(4);
    assert_eq!((guest.x(1), guest.x(2)), (0x07c0_0000, 0x0800_009f));
}

const FZ: u32 = 1 << 24;
const DN: u32 = 1 << 25;
const AHP: u32 = 1 << 26;
const UP: u32 = 1 << 22;
const DOWN: u32 = 2 << 22;
const ZERO: u32 = 3 << 22;
const IOC: u32 = 1;
const DZC: u32 = 2;
const OFC: u32 = 4;
const UFC: u32 = 8;
const IXC: u32 = 16;
const IDC: u32 = 128;
const QC: u32 = 1 << 27;

/// V0 and FPSR after one instruction on V1, V2 and V3; once with the flags clear, once with IXC set before, when
/// the host's arithmetic may answer.
fn check(word: u32, fpcr: u32, operands: [u128; 3], value: u128, flags: u32) {
    for before in [0, IXC] {
        let mut guest = enabled(Guest::new(&[word]));
        let mut initial = FpSimdState { fpcr, fpsr: before, ..FpSimdState::default() };
        initial.vregs[1..4].copy_from_slice(&operands);
        set_state(&mut guest, &initial);
        guest.steps(1);
        let after = state(&mut guest);
        let name = format!("{word:#010x}, FPCR {fpcr:#x}");
        assert_eq!(format!("{:#x}", after.vregs[0]), format!("{value:#x}"), "{name}");
        assert_eq!(after.fpsr, flags | before, "{name}");
    }
}

const ONE: u128 = 0x3ff0_0000_0000_0000;
const THREE: u128 = 0x4008_0000_0000_0000;
const INFINITY: u128 = 0x7ff0_0000_0000_0000;
const DEFAULT_NAN: u128 = 0x7ff8_0000_0000_0000;
const FDIV: u32 = 0x1e62_1820;
const FMUL_S: u32 = 0x1e22_0820;

/// IEEE 754 and `FPRoundBase`.
#[test]
fn rounding_overflow_and_division_by_zero_follow_fpcr() {
    for (mode, third) in [
        (0, 0x3fd5_5555_5555_5555),
        (UP, 0x3fd5_5555_5555_5556),
        (DOWN, 0x3fd5_5555_5555_5555),
        (ZERO, 0x3fd5_5555_5555_5555),
    ] {
        check(FDIV, mode, [ONE, THREE, 0], third, IXC);
    }
    check(FDIV, 0, [ONE, 0, 0], INFINITY, DZC);
    check(FDIV, 0, [0, 0, 0], DEFAULT_NAN, IOC);
    // The largest double doubled.
    let largest = 0x7fef_ffff_ffff_ffff;
    for (mode, result) in [(0, INFINITY), (UP, INFINITY), (DOWN, largest), (ZERO, largest)] {
        check(FADD, mode, [largest, largest, 0], result, OFC | IXC);
    }
    // 1 - 1 is -0 only if rounding down.
    for (mode, zero) in [(0, 0), (DOWN, 1 << 63)] {
        check(FADD, mode, [ONE, ONE | 1 << 63, 0], zero, 0);
    }
}

/// `FPRoundBase`: underflow is detected before rounding; flushing raises no inexact. `FPUnpack`: a flushed operand.
#[test]
fn underflow_is_before_rounding_and_flushing_has_its_own_flags() {
    // 0x1.fffffep-126 × 0.5 rounds up to the smallest normal number.
    check(FMUL_S, 0, [0x00ff_ffff, 0x3f00_0000, 0], 0x0080_0000, UFC | IXC);
    check(FMUL_S, FZ, [0x00ff_ffff, 0x3f00_0000, 0], 0, UFC);
    // A denormal that is exact.
    check(FMUL_S, 0, [0x0100_0000, 0x3e80_0000, 0], 0x0040_0000, 0);
    check(FMUL_S, FZ, [0x0040_0000, 0x4080_0000, 0], 0, IDC);
}

/// `FPProcessNaNs`: signaling before quiet, first before second; `FPProcessNaN`.
#[test]
fn nans_go_through_in_arms_order() {
    let (quiet, other, signaling) =
        (0xfff8_0000_0000_0011, 0x7ff8_0000_0000_0022, 0x7ff0_0000_0000_0033_u128);
    let quieted = signaling | 1 << 51;
    check(FADD, 0, [quiet, other, 0], quiet, 0);
    check(FADD, 0, [quiet, signaling, 0], quieted, IOC);
    check(FADD, DN, [quiet, other, 0], DEFAULT_NAN, 0);
    check(FADD, DN, [quiet, signaling, 0], DEFAULT_NAN, IOC);
    // The addend is first; 0 times infinity beats a quiet NaN.
    check(FMADD, 0, [other, ONE, quiet], quiet, 0);
    check(FMADD, 0, [0, INFINITY, quiet], DEFAULT_NAN, IOC);
    check(FMADD, 0, [0, INFINITY, signaling], quieted, IOC);
    // A number beats a quiet NaN, not a signaling one.
    check(FMAXNM, 0, [quiet, ONE, 0], ONE, 0);
    check(FMAXNM, 0, [signaling, ONE, 0], quieted, IOC);
    // fmin d0, d1, d2: -0 is the lesser zero.
    check(0x1e62_5820, 0, [0, 1 << 63, 0], 1 << 63, 0);
}

#[test]
fn fused_operations_round_once() {
    // (1 + 2^-52)(1 - 2^-52) - 1 = -2^-104
    let (a, b) = (0x3ff0_0000_0000_0001, 0x3fef_ffff_ffff_fffe);
    check(FMADD, 0, [a, b, 0xbff0_0000_0000_0000], 0xb970_0000_0000_0000, 0);
    // frecps d0, d1, d2: 2 - 1 × 3; and infinity times zero is 2.
    check(0x5e62_fc20, 0, [ONE, THREE, 0], 0xbff0_0000_0000_0000, 0);
    check(0x5e62_fc20, 0, [INFINITY, 0, 0], 0x4000_0000_0000_0000, 0);
}

/// `RecipEstimate`, `RecipSqrtEstimate`: both give 511/512 for 1.
#[test]
fn estimates_are_the_architectures() {
    check(0x5ea1_d820, 0, [0x3f80_0000, 0, 0], 0x3f7f_8000, 0);
    check(0x7ea1_d820, 0, [0x3f80_0000, 0, 0], 0x3f7f_8000, 0);
    check(0x5ea1_d820, 0, [0, 0, 0], 0x7f80_0000, DZC);
    // 2^-129 has a reciprocal too large for a single.
    check(0x5ea1_d820, 0, [0x0010_0000, 0, 0], 0x7f80_0000, OFC | IXC);
    check(0x5ea1_d820, DOWN, [0x0010_0000, 0, 0], 0x7f7f_ffff, OFC | IXC);
}

/// `FPConvert`, `FPToFixed`.
#[test]
fn conversions_know_half_precision_saturation_and_odd_rounding() {
    const FROM_HALF: u32 = 0x1ee2_4020;
    const TO_HALF: u32 = 0x1e23_c020;
    check(FROM_HALF, 0, [0x7c00, 0, 0], 0x7f80_0000, 0);
    // The alternative half precision has 2^16 × 1.111…: 131008.
    check(FROM_HALF, AHP, [0x7fff, 0, 0], 0x47ff_e000, 0);
    check(TO_HALF, AHP, [0x7f80_0000, 0, 0], 0x7fff, IOC);
    check(TO_HALF, 0, [0x4780_0000, 0, 0], 0x7c00, OFC | IXC);
    // A half-precision denormal is not flushed.
    check(FROM_HALF, FZ, [0x0001, 0, 0], 0x3380_0000, 0);
    // fcvtxn s0, d1: to odd.
    check(0x7e61_6820, 0, [0x3ff0_0000_0000_0001, 0, 0], 0x3f80_0001, IXC);
    // frintx d0, d1: 2.5 to 2, inexact.
    check(0x1e67_4020, 0, [0x4004_0000_0000_0000, 0, 0], 0x4000_0000_0000_0000, IXC);
    for (word, double, result, flags) in [
        (0x1e78_0020, 0x41e6_5a0b_c000_0000_u128, 0x7fff_ffff, IOC), // fcvtzs w0, d1: 3.0e9
        (0x1e78_0020, 0xc1e6_5a0b_c000_0000, 0x8000_0000, IOC),
        (0x1e78_0020, DEFAULT_NAN, 0, IOC),
        (0x1e64_0020, 0x4004_0000_0000_0000, 3, IXC), // fcvtas w0, d1: 2.5
    ] {
        let mut guest = enabled(Guest::new(&[word]));
        let mut initial = FpSimdState::default();
        initial.vregs[1] = double;
        set_state(&mut guest, &initial);
        guest.steps(1);
        assert_eq!((guest.x(0), state(&mut guest).fpsr), (result, flags), "{word:#x} of {double:#x}");
    }
}

/// `FPCompare`.
#[test]
fn comparisons_set_nzcv_and_only_fcmpe_minds_quiet_nans() {
    for (word, a, b, nzcv, flags) in [
        (0x1e62_2020, ONE, THREE, 8, 0),
        (0x1e62_2020, THREE, ONE, 2, 0),
        (0x1e62_2020, 0, 1 << 63, 6, 0),
        (0x1e62_2020, DEFAULT_NAN, ONE, 3, 0),
        (0x1e62_2030, DEFAULT_NAN, ONE, 3, IOC),
        (0x1e62_2020, DEFAULT_NAN ^ 3 << 50, ONE, 3, IOC),
    ] {
        let mut guest = enabled(Guest::new(&[word]));
        let mut initial = FpSimdState::default();
        initial.vregs[1..3].copy_from_slice(&[a, b]);
        set_state(&mut guest, &initial);
        guest.steps(1);
        assert_eq!((guest.get(Reg::Pstate) >> 28, state(&mut guest).fpsr), (nzcv, flags), "{a:#x} {b:#x}");
    }
}

#[test]
fn a_vector_of_64_bits_clears_the_rest_and_raises_no_flag_for_it() {
    // fadd v0.2s, v1.2s, v2.2s: the upper halves would be invalid.
    let upper = 0x7f80_0000_7f80_0000_u128 << 64;
    check(
        0x0e22_d420,
        0,
        [upper | 0x3f80_0000_4000_0000, upper ^ 0x8000_0000_u128 << 64 | 0x3f80_0000_3f80_0000, 0],
        0x4000_0000_4040_0000,
        0,
    );
    // sqadd v0.16b, v1.16b, v2.16b
    check(0x4e22_0c20, 0, [0x7f, 1, 0], 0x7f, QC);
    check(0x4e22_0c20, 0, [0x7e, 1, 0], 0x7f, 0);
}

/// FIPS 197, appendix B: the state of round 1, 193de3be a0f4e22b 9ac68d2a e9f84808, and what ShiftRows and SubBytes
/// make of it, d4bf5d30 e0b452ae b84111f1 1e2798e5; the first byte is the lowest. `PolynomialMult`.
#[test]
fn cryptography() {
    // aese v0.16b, v1.16b with V0 = 0
    let state = 0x0848_f8e9_2a8d_c69a_2be2_f4a0_bee3_3d19;
    check(0x4e28_4820, 0, [state, 0, 0], 0xe598_271e_f111_41b8_ae52_b4e0_305d_bfd4, 0);
    // pmull v0.1q, v1.1d, v2.1d: (x + 1)(x + 1) = x^2 + 1
    check(0x0ee2_e020, 0, [3, 3, 0], 5, 0);
    check(0x0ee2_e020, 0, [1 << 63, 1 << 63, 0], 1 << 126, 0);
}
