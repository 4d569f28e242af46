//! ESR, ISS, fault status codes: round trips, fields and text.

use proptest::prelude::*;
use seawall_arm::{
    AccessSize, AsynchronousErrorType, DataAbort, ErrorState, Esr, ExceptionClass, FaultStatus,
    InstructionAbort, SError, Syndrome,
};

fn check_text(bits: u64, text: &str) {
    assert_eq!(Esr::from_bits(bits).to_string(), text);
}

#[test]
fn golden_values_read_as_they_were_measured() {
    check_text(
        0x9600_0010,
        "0x96000010 data abort from the same EL, IL, SET=UER DFSC 0x10 synchronous external abort",
    );
    check_text(
        0x9600_0050,
        "0x96000050 data abort from the same EL, IL, SET=UER WnR DFSC 0x10 synchronous external abort",
    );
    check_text(
        0x8200_0215,
        "0x82000215 instruction abort from a lower EL, IL, EA IFSC 0x15 synchronous external abort on table walk, level 1",
    );
    check_text(0xbe10_0c11, "0xbe100c11 SError, IL, rest=0x100000 AET=UER DFSC 0x11 asynchronous SError");
    check_text(0xbf00_0000, "0xbf000000 SError, IL, IDS implementation defined syndrome 0x0");
    check_text(
        0x97c0_c710,
        "0x97c0c710 data abort from the same EL, IL, ISV 8 bytes of x0 acquire/release SET=UER FnV EA CM \
         DFSC 0x10 synchronous external abort",
    );
    check_text(0x5600_1234, "0x56001234 SVC in AArch64 state, IL, imm16=0x1234");
    check_text(0x0200_0000, "0x02000000 unknown reason, IL");
    check_text(
        0x1fe0_0000,
        "0x1fe00000 trapped SME, SVE, Advanced SIMD or floating-point access, IL, CV=1 COND=0xe",
    );
    check_text(
        0x6232_d800,
        "0x6232d800 trapped MSR, MRS or system instruction, IL, Op0=0x3 Op2=0x1 Op1=0x3 CRn=0x6 Rt=0x0 CRm=0x0 Direction=0",
    );
    check_text(0xfe00_0000, "0xfe000000 unallocated exception class 0x3f, IL, ISS=0x0");
}

#[test]
fn data_abort_fields_are_where_the_manual_has_them() {
    let abort = DataAbort {
        isv: true,
        sas: AccessSize::Word,
        sse: true,
        srt: 17,
        sf: true,
        ar: true,
        vncr: true,
        set: ErrorState::Uncontainable,
        fnv: true,
        ea: true,
        cm: true,
        s1ptw: true,
        wnr: true,
        dfsc: FaultStatus::Permission { level: 3 },
    };
    assert_eq!(abort.iss(), 0x01b1_f7cf);
    assert_eq!(DataAbort::from_iss(0x01b1_f7cf), abort);
    for (iss, field) in [
        (1 << 24, DataAbort { isv: true, ..DataAbort::from_iss(0) }),
        (3 << 22, DataAbort { sas: AccessSize::Doubleword, ..DataAbort::from_iss(0) }),
        (1 << 21, DataAbort { sse: true, ..DataAbort::from_iss(0) }),
        (31 << 16, DataAbort { srt: 31, ..DataAbort::from_iss(0) }),
        (1 << 15, DataAbort { sf: true, ..DataAbort::from_iss(0) }),
        (1 << 14, DataAbort { ar: true, ..DataAbort::from_iss(0) }),
        (1 << 13, DataAbort { vncr: true, ..DataAbort::from_iss(0) }),
        (3 << 11, DataAbort { set: ErrorState::Restartable, ..DataAbort::from_iss(0) }),
        (1 << 10, DataAbort { fnv: true, ..DataAbort::from_iss(0) }),
        (1 << 9, DataAbort { ea: true, ..DataAbort::from_iss(0) }),
        (1 << 8, DataAbort { cm: true, ..DataAbort::from_iss(0) }),
        (1 << 7, DataAbort { s1ptw: true, ..DataAbort::from_iss(0) }),
        (1 << 6, DataAbort { wnr: true, ..DataAbort::from_iss(0) }),
        (0x21, DataAbort { dfsc: FaultStatus::Alignment, ..DataAbort::from_iss(0) }),
    ] {
        assert_eq!(field.iss(), iss);
    }
}

#[test]
fn instruction_abort_and_serror_fields_are_where_the_manual_has_them() {
    let abort = InstructionAbort {
        set: ErrorState::Restartable,
        fnv: true,
        ea: true,
        s1ptw: true,
        pfv: true,
        ..InstructionAbort::new(FaultStatus::External)
    };
    assert_eq!(abort.iss(), 0x5e90);
    let serror = SError {
        ids: false,
        iesb: true,
        aet: AsynchronousErrorType::Corrected,
        ea: true,
        dfsc: 0x11,
        rest: 0,
    };
    assert_eq!(serror.iss(), 0x3a11);
    assert_eq!(SError::from_iss(1 << 24).iss(), 1 << 24);
    assert!(SError::from_iss(1 << 24).ids);
}

#[test]
fn fault_status_codes_are_the_manual_s() {
    use FaultStatus as F;
    for (code, status) in [
        (0x00, F::AddressSize { level: 0 }),
        (0x03, F::AddressSize { level: 3 }),
        (0x29, F::AddressSize { level: -1 }),
        (0x04, F::Translation { level: 0 }),
        (0x07, F::Translation { level: 3 }),
        (0x2b, F::Translation { level: -1 }),
        (0x09, F::AccessFlag { level: 1 }),
        (0x0f, F::Permission { level: 3 }),
        (0x10, F::External),
        (0x11, F::TagCheck),
        (0x13, F::ExternalOnWalk { level: -1 }),
        (0x14, F::ExternalOnWalk { level: 0 }),
        (0x15, F::ExternalOnWalk { level: 1 }),
        (0x17, F::ExternalOnWalk { level: 3 }),
        (0x18, F::Ecc),
        (0x1b, F::EccOnWalk { level: -1 }),
        (0x1f, F::EccOnWalk { level: 3 }),
        (0x21, F::Alignment),
        (0x23, F::GranuleProtectionOnWalk { level: -1 }),
        (0x27, F::GranuleProtectionOnWalk { level: 3 }),
        (0x28, F::GranuleProtection),
        (0x30, F::TlbConflict),
        (0x31, F::UnsupportedAtomicUpdate),
        (0x34, F::Lockdown),
        (0x35, F::UnsupportedExclusive),
        (0x19, F::Reserved(0x19)),
        (0x3f, F::Reserved(0x3f)),
    ] {
        assert_eq!(F::from_bits(code), status);
        assert_eq!(status.bits(), code, "{status:?}");
    }
}

#[test]
fn all_64_fault_status_codes_survive() {
    for code in 0..64 {
        assert_eq!(FaultStatus::from_bits(code).bits(), code);
    }
}

#[test]
fn external_statuses_are_those_that_kvm_takes_for_an_sea_and_the_d128_walk() {
    let external: Vec<u8> = (0..64).filter(|code| FaultStatus::from_bits(*code).is_external()).collect();
    assert_eq!(external, [0x10, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f]);
}

#[test]
fn a_level_that_no_code_has_becomes_the_nearest() {
    assert_eq!(FaultStatus::Translation { level: 9 }.bits(), 0x07);
    assert_eq!(FaultStatus::Permission { level: -9 }.bits(), 0x0c);
    assert_eq!(FaultStatus::EccOnWalk { level: i8::MIN }.bits(), 0x1b);
}

#[test]
fn classes_have_the_manual_s_values() {
    let values: Vec<u8> = ExceptionClass::ALL.iter().map(|class| class.bits()).collect();
    assert_eq!(
        values,
        [
            0x00, 0x01, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0c, 0x0d, 0x0e, 0x11, 0x12, 0x13,
            0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f, 0x20, 0x21, 0x22, 0x24,
            0x25, 0x26, 0x27, 0x28, 0x2c, 0x2d, 0x2f, 0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x38, 0x3a, 0x3c,
            0x3d
        ]
    );
    assert_eq!(ExceptionClass::DATA_ABORT_LOWER.bits(), 0x24);
    assert_eq!(ExceptionClass::INSTRUCTION_ABORT_SAME.bits(), 0x21);
    assert_eq!(ExceptionClass::SERROR.bits(), 0x2f);
    assert_eq!(ExceptionClass::SYSREG.bits(), 0x18);
    assert_eq!(ExceptionClass::FP_ASIMD.bits(), 0x07);
    assert_eq!(ExceptionClass::BRK64.bits(), 0x3c);
}

#[test]
fn iss2_of_a_data_abort_has_its_fields() {
    let esr = Esr::from_bits(0x9600_0010).with_iss2(0x60);
    assert_eq!(esr.bits(), 0x60_9600_0010);
    let set: Vec<_> = esr.fields().filter(|field| field.lsb >= 32 && field.value != 0).collect();
    assert_eq!(set.iter().map(|field| field.name).collect::<Vec<_>>(), ["Overlay", "DirtyBit"]);
}

#[test]
fn fields_never_overlap_and_go_down() {
    for class in 0..64_u64 {
        for iss in [0, 1 << 24] {
            let mut above = 25;
            let esr = Esr::from_bits(class << 26 | iss);
            for field in esr.fields().filter(|field| field.lsb < 32) {
                assert!(field.msb >= field.lsb && field.msb < above, "{class:#x} {field:?}");
                above = field.lsb;
            }
        }
    }
}

/// Miri looks for undefined behaviour, and takes a thousand times as long.
const CASES: u32 = if cfg!(miri) { 16 } else { 100_000 };

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_u64_decodes_to_something_and_encodes_back_to_itself(bits: u64) {
        let esr = Esr::from_bits(bits);
        prop_assert_eq!(esr.bits(), bits);
        let parts = Esr::new(esr.ec(), esr.il(), esr.syndrome().iss()).with_iss2(esr.iss2());
        prop_assert_eq!(parts.bits(), bits & 0x00ff_ffff_ffff_ffff);
        let start = format!("{bits:#010x} ");
        prop_assert!(esr.to_string().starts_with(&start));
    }

    #[test]
    fn every_iss_survives_each_class(iss in 0..0x200_0000_u32) {
        prop_assert_eq!(DataAbort::from_iss(iss).iss(), iss);
        prop_assert_eq!(InstructionAbort::from_iss(iss).iss(), iss);
        prop_assert_eq!(SError::from_iss(iss).iss(), iss);
        for class in [0x20, 0x24, 0x2f] {
            let esr = Esr::new(ExceptionClass::from_bits(class), true, iss);
            let is_other = matches!(esr.syndrome(), Syndrome::Other(_));
            prop_assert!(!is_other);
            prop_assert_eq!(esr.syndrome().iss(), iss);
        }
    }
}
