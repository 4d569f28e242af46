//! Section 1 of the facts: the system call interface.

mod guest;

use seawall_arm::{Esr, sysreg};
use seawall_events::wire::{self, ArmNisv, ArmSea, Mmio};
use seawall_events::{Abi, Layout, MmioExit, NisvExit, Refusal, Reg, SeaExit, VcpuEvents};
use zerocopy::{FromBytes, IntoBytes};

const TRAILING: Abi = Abi::Extended(Layout::Trailing);
const POSTED: Abi = Abi::Extended(Layout::Posted);

/// 64 zero bytes except for these.
fn bytes(set: &[(usize, u8)]) -> [u8; 64] {
    let mut bytes = [0; 64];
    for (offset, value) in set {
        bytes[*offset] = *value;
    }
    bytes
}

#[test]
fn mainline_has_three_flags_and_the_serror_esr_at_8() {
    let wire = bytes(&[(0, 1), (1, 1), (2, 1), (8, 0x11), (9, 0x0c), (10, 0x10)]);
    let events = VcpuEvents {
        serror_pending: true,
        serror_has_esr: true,
        ext_dabt_pending: true,
        serror_esr: 0x10_0c11,
        ..VcpuEvents::default()
    };
    assert_eq!(VcpuEvents::from_bytes(Abi::Mainline, &wire), Ok(events));
    assert_eq!(events.to_bytes(Abi::Mainline), Ok(wire));
}

#[test]
fn posted_layout_adds_iabt_at_3_has_esr_at_4_and_the_abort_esr_at_16() {
    let wire = bytes(&[(3, 1), (4, 1), (17, 0xc7), (18, 0xc0), (19, 1)]);
    let events = VcpuEvents {
        ext_iabt_pending: true,
        ext_abt_has_esr: true,
        ext_abt_esr: 0x1c0_c700,
        ..VcpuEvents::default()
    };
    assert_eq!(VcpuEvents::from_bytes(POSTED, &wire), Ok(events));
    assert_eq!(events.to_bytes(POSTED), Ok(wire));
}

#[test]
fn trailing_layout_has_the_abort_esr_at_56() {
    let wire = bytes(&[(2, 1), (4, 1), (57, 0x02)]);
    let events = VcpuEvents {
        ext_dabt_pending: true,
        ext_abt_has_esr: true,
        ext_abt_esr: 0x200,
        ..VcpuEvents::default()
    };
    assert_eq!(VcpuEvents::from_bytes(TRAILING, &wire), Ok(events));
    assert_eq!(events.to_bytes(TRAILING), Ok(wire));
}

#[test]
fn any_non_zero_flag_byte_is_true() {
    let events = VcpuEvents::from_bytes(POSTED, &bytes(&[(0, 0x80), (1, 2), (2, 0xff)])).unwrap();
    assert!(events.serror_pending && events.serror_has_esr && events.ext_dabt_pending);
}

#[test]
fn every_pad_byte_must_be_zero() {
    for (abi, pads) in [(Abi::Mainline, 3..8), (POSTED, 5..8), (TRAILING, 5..8)] {
        for offset in pads {
            let refused = VcpuEvents::from_bytes(abi, &bytes(&[(offset, 1)]));
            assert_eq!(refused, Err(Refusal::PadNotZero { offset }), "{abi:?}");
        }
    }
}

#[test]
fn every_reserved_word_must_be_zero() {
    for (abi, reserved) in [(Abi::Mainline, 16..64), (POSTED, 24..64), (TRAILING, 16..56)] {
        for offset in reserved {
            let refused = VcpuEvents::from_bytes(abi, &bytes(&[(offset, 0x40)]));
            assert_eq!(refused, Err(Refusal::ReservedNotZero { offset: offset & !3 }), "{abi:?}");
        }
    }
}

#[test]
fn reserved_words_are_looked_at_before_pad_bytes() {
    let refused = VcpuEvents::from_bytes(POSTED, &bytes(&[(7, 1), (60, 1)]));
    assert_eq!(refused, Err(Refusal::ReservedNotZero { offset: 60 }));
}

#[test]
fn mainline_has_no_words_for_an_instruction_abort_or_an_esr() {
    for events in [
        guest::iabt(),
        guest::with_abort_esr(guest::dabt(), 0x200),
        VcpuEvents { ext_abt_esr: 1, ..VcpuEvents::default() },
    ] {
        assert_eq!(events.to_bytes(Abi::Mainline), Err(Refusal::NotInMainline));
    }
}

#[test]
fn ioctl_numbers_are_linux_s_in_either_abi() {
    assert_eq!(wire::KVM_GET_VCPU_EVENTS, 0x8040_ae9f);
    assert_eq!(wire::KVM_SET_VCPU_EVENTS, 0x4040_aea0);
    assert_eq!(wire::VCPU_EVENTS_SIZE, 64);
    // _IOR and _IOW hold the size in [29:16].
    assert_eq!(wire::KVM_GET_VCPU_EVENTS >> 16 & 0x3fff, 64);
    assert_eq!(wire::KVM_SET_VCPU_EVENTS >> 16 & 0x3fff, 64);
    assert_eq!(wire::KVM_RUN, 0xae80);
    assert_eq!(wire::KVM_ENABLE_CAP, 0x4068_aea3);
    assert_eq!(wire::KVM_GET_ONE_REG, 0x4010_aeab);
    assert_eq!(wire::KVM_SET_ONE_REG, 0x4010_aeac);
    assert_eq!(wire::KVM_ARM_VCPU_INIT, 0x4020_aeae);
    assert_eq!(wire::KVM_ARM_PREFERRED_TARGET, 0x8020_aeaf);
}

#[test]
fn capabilities_are_linux_s() {
    assert_eq!(wire::KVM_CAP_VCPU_EVENTS, 41);
    assert_eq!(wire::KVM_CAP_ARM_INJECT_SERROR_ESR, 158);
    assert_eq!(wire::KVM_CAP_ARM_NISV_TO_USER, 177);
    assert_eq!(wire::KVM_CAP_ARM_INJECT_EXT_DABT, 178);
    assert_eq!(wire::KVM_CAP_ARM_SEA_TO_USER, 245);
}

/// A `struct kvm_run` with an exit: 256 bytes suffice.
fn kvm_run(reason: u32, union: &[u8]) -> [u8; 256] {
    let mut run = [0; 256];
    run[8..12].copy_from_slice(&reason.to_le_bytes());
    run[0x20..0x20 + union.len()].copy_from_slice(union);
    run
}

#[test]
fn sea_exit_is_read_from_kvm_run_at_its_offsets() {
    let mut union = [0; 32];
    union[0] = 1; // flags @0x20
    union[8..16].copy_from_slice(&0x9200_0210_u64.to_le_bytes()); // esr @0x28
    union[16..24].copy_from_slice(&0xffff_8000_0050_0123_u64.to_le_bytes()); // gva @0x30
    union[24..32].copy_from_slice(&0x8020_0000_u64.to_le_bytes()); // gpa @0x38
    let run = kvm_run(41, &union);
    assert_eq!(run[wire::KVM_RUN_EXIT_REASON], 41);
    assert_eq!(wire::KVM_EXIT_ARM_SEA, 41);
    assert_eq!(wire::KVM_RUN_IMMEDIATE_EXIT, 1);
    let sea = ArmSea::read_from_prefix(&run[wire::KVM_RUN_UNION..]).unwrap().0;
    let exit =
        SeaExit { flags: 1, esr: Esr::from_bits(0x9200_0210), gva: 0xffff_8000_0050_0123, gpa: 0x8020_0000 };
    assert_eq!(SeaExit::from(sea), exit);
    assert_eq!(ArmSea::from(exit).as_bytes(), union);
}

#[test]
fn mmio_nisv_and_ldst64b_exits_are_read_from_kvm_run_at_their_offsets() {
    assert_eq!((wire::KVM_EXIT_MMIO, wire::KVM_EXIT_ARM_NISV, wire::KVM_EXIT_ARM_LDST64B), (6, 28, 42));
    let mut union = [0; 0x15];
    union[..8].copy_from_slice(&0x0900_0000_u64.to_le_bytes()); // phys_addr @0x20
    union[8] = b'A'; // data @0x28
    union[0x10] = 4; // len @0x30
    union[0x14] = 1; // is_write @0x34
    let run = kvm_run(6, &union);
    let mmio = Mmio::read_from_prefix(&run[wire::KVM_RUN_UNION..]).unwrap().0;
    let expected =
        MmioExit { phys_addr: 0x0900_0000, data: [b'A', 0, 0, 0, 0, 0, 0, 0], len: 4, is_write: true };
    assert_eq!(MmioExit::from(mmio), expected);

    let mut union = [0; 16];
    union[..8].copy_from_slice(&0x46_u64.to_le_bytes()); // esr_iss @0x20
    union[8..].copy_from_slice(&0x0a00_0010_u64.to_le_bytes()); // fault_ipa @0x28
    let run = kvm_run(28, &union);
    let nisv = ArmNisv::read_from_prefix(&run[wire::KVM_RUN_UNION..]).unwrap().0;
    assert_eq!(NisvExit::from(nisv), NisvExit { esr_iss: 0x46, fault_ipa: 0x0a00_0010 });
}

#[test]
fn one_reg_ids_are_linux_s() {
    for (reg, id) in [
        (Reg::X(0), 0x6030_0000_0010_0000),
        (Reg::X(30), 0x6030_0000_0010_003c),
        (Reg::SpEl0, 0x6030_0000_0010_003e),
        (Reg::Pc, 0x6030_0000_0010_0040),
        (Reg::Pstate, 0x6030_0000_0010_0042),
        (Reg::SpEl1, 0x6030_0000_0010_0044),
        (Reg::ElrEl1, 0x6030_0000_0010_0046),
        (Reg::SpsrEl1, 0x6030_0000_0010_0048),
        (Reg::SpsrAbt, 0x6030_0000_0010_004a),
        (Reg::SctlrEl1, 0x6030_0000_0013_c080),
        (Reg::Sctlr2El1, 0x6030_0000_0013_c083),
        (Reg::TcrEl1, 0x6030_0000_0013_c102),
        (Reg::EsrEl1, 0x6030_0000_0013_c290),
        (Reg::FarEl1, 0x6030_0000_0013_c300),
        (Reg::VbarEl1, 0x6030_0000_0013_c600),
        (Reg::DisrEl1, 0x6030_0000_0013_c609),
        (Reg::HcrEl2, 0x6030_0000_0013_e088),
        (Reg::HcrxEl2, 0x6030_0000_0013_e092),
        (Reg::Ifsr32, 0x6030_0000_0013_e281),
        (Reg::EsrEl2, 0x6030_0000_0013_e290),
        (Reg::FarEl2, 0x6030_0000_0013_e300),
        (Reg::VbarEl2, 0x6030_0000_0013_e600),
    ] {
        assert_eq!(wire::one_reg_id(reg), Some(id), "{reg:?}");
    }
    assert_eq!(wire::one_reg_id(Reg::X(31)), None);
    for (register, id) in [
        (sysreg::VSESR_EL2, 0x6030_0000_0013_e293),
        (sysreg::ID_AA64PFR0_EL1, 0x6030_0000_0013_c020),
        (sysreg::ID_AA64PFR1_EL1, 0x6030_0000_0013_c021),
        (sysreg::ID_AA64MMFR3_EL1, 0x6030_0000_0013_c03b),
    ] {
        assert_eq!(wire::system_reg_id(register), id);
    }
}
