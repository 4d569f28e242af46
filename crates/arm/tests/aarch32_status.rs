//! DFSR and IFSR, in short-descriptor and LPAE form.

use seawall_arm::{Dfsr, FaultStatus, FsrFormat, FsrStatus, Ifsr};

#[test]
fn what_kvm_injects_is_an_external_abort_in_either_form() {
    let external = FsrStatus::Fault(FaultStatus::External);
    assert_eq!(Dfsr::new(FsrFormat::Short, external).unwrap().bits(), 0x008);
    assert_eq!(Dfsr::new(FsrFormat::Lpae, external).unwrap().bits(), 0x210);
    assert_eq!(Ifsr::new(FsrFormat::Short, external).unwrap().bits(), 0x008);
    assert_eq!(Ifsr::new(FsrFormat::Lpae, external).unwrap().bits(), 0x210);
}

#[test]
fn short_codes_are_the_manual_s() {
    use FaultStatus as F;
    for (fs, status) in [
        (0x01, FsrStatus::Fault(F::Alignment)),
        (0x02, FsrStatus::Debug),
        (0x03, FsrStatus::Fault(F::AccessFlag { level: 1 })),
        (0x04, FsrStatus::CacheMaintenance),
        (0x05, FsrStatus::Fault(F::Translation { level: 1 })),
        (0x06, FsrStatus::Fault(F::AccessFlag { level: 2 })),
        (0x07, FsrStatus::Fault(F::Translation { level: 2 })),
        (0x08, FsrStatus::Fault(F::External)),
        (0x09, FsrStatus::Domain { level: 1 }),
        (0x0b, FsrStatus::Domain { level: 2 }),
        (0x0c, FsrStatus::Fault(F::ExternalOnWalk { level: 1 })),
        (0x0d, FsrStatus::Fault(F::Permission { level: 1 })),
        (0x0e, FsrStatus::Fault(F::ExternalOnWalk { level: 2 })),
        (0x0f, FsrStatus::Fault(F::Permission { level: 2 })),
        (0x10, FsrStatus::Fault(F::TlbConflict)),
        (0x14, FsrStatus::Fault(F::Lockdown)),
        (0x15, FsrStatus::Fault(F::UnsupportedExclusive)),
        (0x16, FsrStatus::AsynchronousSError),
        (0x18, FsrStatus::AsynchronousEcc),
        (0x19, FsrStatus::Fault(F::Ecc)),
        (0x1c, FsrStatus::Fault(F::EccOnWalk { level: 1 })),
        (0x1e, FsrStatus::Fault(F::EccOnWalk { level: 2 })),
        (0x00, FsrStatus::Reserved(0)),
    ] {
        assert_eq!(FsrStatus::from_short(fs), status);
        assert_eq!(status.to_short(), Some(fs));
    }
}

#[test]
fn every_code_of_either_form_survives() {
    for fs in 0..32 {
        assert_eq!(FsrStatus::from_short(fs).to_short(), Some(fs));
    }
    for status in 0..64 {
        assert_eq!(FsrStatus::from_lpae(status).to_lpae(), Some(status));
    }
}

#[test]
fn fs_4_lies_at_bit_10() {
    let dfsr = Dfsr::new(FsrFormat::Short, FsrStatus::AsynchronousSError).unwrap();
    assert_eq!(dfsr.bits(), 0x406);
    assert_eq!(Dfsr::from_bits(0x406).status(), FsrStatus::AsynchronousSError);
}

#[test]
fn a_form_without_a_code_for_a_fault_says_so() {
    let level_3 = FsrStatus::Fault(FaultStatus::Translation { level: 3 });
    assert_eq!(Dfsr::new(FsrFormat::Short, level_3), None);
    assert_eq!(Dfsr::new(FsrFormat::Lpae, level_3).unwrap().bits(), 0x207);
    assert_eq!(Ifsr::new(FsrFormat::Lpae, FsrStatus::Domain { level: 1 }), None);
}

#[test]
fn lpae_has_no_level_0_nor_what_only_aarch64_has() {
    // STATUS 0b000000 is the address size fault of the table base register; no other fault has a level 0.
    assert_eq!(FsrStatus::from_lpae(0x00), FsrStatus::Fault(FaultStatus::AddressSize { level: 0 }));
    assert_eq!(FsrStatus::from_lpae(0x04), FsrStatus::Reserved(0x04));
    for fault in [
        FaultStatus::Translation { level: 0 },
        FaultStatus::AccessFlag { level: 0 },
        FaultStatus::Permission { level: 0 },
        FaultStatus::ExternalOnWalk { level: -1 },
        // In LPAE form its code, 0x11, is the asynchronous SError's.
        FaultStatus::TagCheck,
        FaultStatus::GranuleProtection,
        FaultStatus::UnsupportedAtomicUpdate,
    ] {
        assert_eq!(FsrStatus::Fault(fault).to_lpae(), None, "{fault}");
        assert_eq!(Dfsr::new(FsrFormat::Lpae, FsrStatus::Fault(fault)), None, "{fault}");
    }
}

#[test]
fn text_names_form_flags_and_fault() {
    for (dfsr, text) in [
        (0x0000_0008, "DFSR 0x8 short-descriptor, synchronous external abort"),
        (0x0001_3a10, "DFSR 0x13a10 LPAE FnV CM ExT WnR, synchronous external abort"),
        (0x0000_c406, "DFSR 0xc406 short-descriptor AET=UER, asynchronous SError"),
        (0x0000_4219, "DFSR 0x4219 LPAE AET=UEU, asynchronous parity or ECC error"),
        (0x0000_c008, "DFSR 0xc008 short-descriptor AET=11, synchronous external abort"),
        (0x0000_1008, "DFSR 0x1008 short-descriptor ExT, synchronous external abort"),
        (0x0000_1406, "DFSR 0x1406 short-descriptor ExT, asynchronous SError"),
        (0x0000_1211, "DFSR 0x1211 LPAE ExT, asynchronous SError"),
        (0x0000_0817, "DFSR 0x817 short-descriptor WnR domain=1, translation fault, level 2"),
    ] {
        assert_eq!(Dfsr::from_bits(dfsr).to_string(), text);
    }
    assert_eq!(
        Ifsr::from_bits(0x1_1210).to_string(),
        "IFSR 0x11210 LPAE FnV ExT, synchronous external abort"
    );
}
