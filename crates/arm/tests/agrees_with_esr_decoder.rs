//! Comparison of our decoder with `aarch64-esr-decoder`, an independent implementation, on every value that
//! it accepts: class, fields by name, place and value, fault status and error state by meaning.

use aarch64_esr_decoder::{FieldInfo, decode};
use proptest::prelude::*;
use seawall_arm::{Esr, FaultStatus, Syndrome};

/// The DDI 0487 name for a field that the other decoder names differently.
fn our_name(class: u8, name: &str) -> &str {
    match (class, name) {
        // It calls [19:16] of an MCRR Opc2; the manual calls it Opc1.
        (0x04 | 0x0c, "Opc2") => "Opc1",
        _ => name,
    }
}

fn check(bits: u64) -> bool {
    let Ok(theirs) = decode(bits) else { return false };
    let esr = Esr::from_bits(bits);
    let top = |name: &str| theirs.iter().find(|field| field.name == name).map(|field| field.value);
    assert_eq!(top("EC"), Some(esr.ec().bits().into()));
    assert_eq!(top("IL"), Some(esr.il().into()));
    assert_eq!(top("ISS"), Some(esr.iss().into()));
    assert_eq!(top("ISS2"), Some(esr.iss2().into()));
    assert!(esr.ec().name().is_some(), "{bits:#x}: a class that it knows");
    assert_eq!(Esr::new(esr.ec(), esr.il(), esr.syndrome().iss()).with_iss2(esr.iss2()), esr);

    let iss = theirs.iter().find(|field| field.name == "ISS").unwrap();
    for field in iss.subfields.iter().filter(|field| field.name != "RES0") {
        let name = our_name(esr.ec().bits(), field.name);
        let ours = esr.fields().find(|ours| ours.name == name);
        let ours = ours.unwrap_or_else(|| panic!("{bits:#x}: no field {name}"));
        assert_eq!(usize::from(ours.lsb), field.start, "{bits:#x} {name}");
        assert_eq!(usize::from(ours.msb), field.start + field.width - 1, "{bits:#x} {name}");
        assert_eq!(u64::from(ours.value), field.value, "{bits:#x} {name}");
        check_meaning(esr, field);
    }
    true
}

/// Compares the fault status by the words for kind and level, and the error state by its abbreviation.
fn check_meaning(esr: Esr, field: &FieldInfo) {
    let Some(text) = &field.description else { return };
    let status = match esr.syndrome() {
        Syndrome::DataAbort(abort) => abort.dfsc,
        Syndrome::InstructionAbort(abort) => abort.ifsc,
        Syndrome::SError(serror) if field.name == "AET" => {
            let aet = serror.aet.to_string();
            assert!(text.contains(&format!("({aet})")), "{:#x}: {text} against {aet}", esr.bits());
            return;
        }
        _ => return,
    };
    match field.name {
        "DFSC" | "IFSC" => {
            let level = text.split("level ").nth(1).and_then(|rest| rest.split(['.', ' ']).next());
            let level = level.map(|level| level.parse::<i8>().unwrap());
            assert_eq!(level, status.level(), "{:#x}: {text} against {status}", esr.bits());
            let kind = |text: &str| {
                let text = text.to_lowercase();
                let text = text.split(" (").next().unwrap().split(',').next().unwrap().to_string();
                text.trim_end_matches('.').replace(" on memory access", "")
            };
            let on_walk = text.contains("on translation table walk or hardware") && !text.contains("not on");
            assert_eq!(on_walk, status.to_string().contains("on table walk"), "{text} against {status}");
            let words = |text: &str| kind(text).split(" on ").next().unwrap().to_string();
            assert_eq!(words(text), words(&status.to_string()), "{:#x}", esr.bits());
        }
        "SET" => {
            let set = match esr.syndrome() {
                Syndrome::DataAbort(abort) => abort.set,
                Syndrome::InstructionAbort(abort) => abort.set,
                _ => return,
            };
            assert!(text.contains(&format!("({set})")), "{:#x}: {text} against {set}", esr.bits());
        }
        _ => {}
    }
}

#[test]
#[cfg_attr(miri, ignore = "half a million values")]
fn every_abort_iss_with_a_fault_status_it_knows() {
    let mut accepted = 0;
    for class in [0x20_u64, 0x21, 0x24, 0x25, 0x2f] {
        for low in 0..0x8000_u64 {
            for high in [0, 0x100_0000, 0x1ff_8000] {
                accepted += u32::from(check(class << 26 | 1 << 25 | high | low));
            }
        }
    }
    assert!(accepted > 50_000, "only {accepted} values were compared");
}

#[test]
#[cfg_attr(miri, ignore = "its decoder takes minutes under Miri")]
fn every_class_it_knows_with_each_single_bit_of_iss() {
    let mut accepted = 0;
    for class in 0..64_u64 {
        for bits in (0..25).map(|n| 1 << n).chain([0, 0x1ff_ffff, 0x22]) {
            accepted += u32::from(check(class << 26 | bits));
        }
    }
    assert!(accepted > 300, "only {accepted} values were compared");
}

/// Miri looks for undefined behaviour, and takes a thousand times as long.
const CASES: u32 = if cfg!(miri) { 4 } else { 200_000 };

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_class_and_iss(class in 0..64_u64, iss in 0..0x200_0000_u64, clear: u64, iss2 in 0..32_u64) {
        // Few values have all RES0 bits clear: thin out the rest.
        check(class << 26 | 1 << 25 | iss);
        check(class << 26 | iss & clear & (clear >> 7));
        check(iss2 << 32 | class << 26 | iss & 0xffff);
    }
}

#[test]
fn the_codes_it_does_not_know_are_those_of_later_extensions() {
    let unknown: Vec<u8> = (0..64)
        .filter(|code| decode(0x9600_0000 | u64::from(*code)).is_err())
        .filter(|code| !matches!(FaultStatus::from_bits(*code), FaultStatus::Reserved(_)))
        .collect();
    // FEAT_D128: level -2.
    assert_eq!(unknown, [0x12, 0x22, 0x2a, 0x2c]);
}
