//! The rest of the audit: two ESRs in one call, the masks of an SError, and the host's actions before anyone
//! asked for an injection.

mod guest;

use guest::{PC, POSTED, VBAR, check, dabt, el1_unmasked, guest, serror, serror_esr, with_abort_esr};
use seawall_arm::{Esr, Target};
use seawall_events::kernel::{LastFault, PendingSError, SErrorDelivery, get_events, prepare_run, set_events};
use seawall_events::{Abi, Reg, VcpuEvents};

#[test]
fn an_esr_for_the_abort_and_one_for_the_serror_go_in_one_call() {
    let mut vcpu = el1_unmasked();
    let events = VcpuEvents { ext_dabt_pending: true, ..with_abort_esr(serror_esr(0x11), 0x240) };
    set_events(&mut vcpu, POSTED, &events).unwrap();
    check(&vcpu, &[(Reg::EsrEl1, 0x9600_0250), (Reg::Pc, VBAR + 0x200)]);
    assert_eq!(get_events(&vcpu).unwrap(), serror_esr(0x11));
}

#[test]
fn of_daif_only_a_masks_an_serror() {
    for (pstate, delivery) in [
        (0x2c5, SErrorDelivery::Delivered(Target::El1)), // D, I, F
        (0x105, SErrorDelivery::Pending),                // A
    ] {
        let mut vcpu = guest(pstate);
        let applied = set_events(&mut vcpu, POSTED, &serror()).unwrap();
        assert_eq!(applied.serror, Some(delivery), "{pstate:#x}");
    }
}

#[test]
fn an_abort_that_firmware_claimed_leaves_no_trace_in_the_guest() {
    // The host saw it (last_fault) and APEI took it: the host does not ask for the exit, and the guest goes
    // on.
    let mut vcpu = guest(5);
    vcpu.last_fault.esr = Esr::from_bits(0x9200_0210);
    let before = vcpu.clone();
    assert_eq!(prepare_run(&mut vcpu), PendingSError::None);
    assert_eq!(vcpu, before);
    assert!(!get_events(&vcpu).unwrap().ext_dabt_pending);
}

#[test]
fn after_a_fault_on_a_poisoned_host_page_the_abort_has_the_exact_address() {
    // SIGBUS told the VMM the page; the guest's report comes from the stage 2 fault itself.
    let mut vcpu = guest(0x3c5);
    vcpu.last_fault =
        LastFault { esr: Esr::from_bits(0x9383_0007), far: 0x4020_0a48, ipa: Some(0x4020_0000) };
    set_events(&mut vcpu, Abi::Mainline, &dabt()).unwrap();
    check(&vcpu, &[(Reg::EsrEl1, 0x9600_0010), (Reg::FarEl1, 0x4020_0a48), (Reg::ElrEl1, PC)]);
}

#[test]
fn where_ras_is_missing_an_abort_and_an_serror_without_an_esr_are_accepted() {
    for abi in Abi::ALL {
        let mut vcpu = el1_unmasked();
        vcpu.config.ras = false;
        let applied = set_events(&mut vcpu, abi, &VcpuEvents { ext_dabt_pending: true, ..serror() }).unwrap();
        assert_eq!(applied.serror, Some(SErrorDelivery::Pending), "{abi:?}");
        check(&vcpu, &[(Reg::EsrEl1, 0x9600_0010)]);
        assert_eq!(vcpu.serror.vsesr, 1 << 24);
    }
}

#[test]
fn an_serror_of_a_fresh_vcpu_leaves_every_other_register_alone() {
    let before = guest(5);
    let mut after = before.clone();
    set_events(&mut after, POSTED, &serror_esr(0x2)).unwrap();
    let changed: Vec<usize> = (0..before.regs.len()).filter(|n| before.regs[*n] != after.regs[*n]).collect();
    // PC, PSTATE, ELR_EL1, SPSR_EL1, ESR_EL1, in the order of `examples/own_vcpu/vcpu.rs`.
    assert_eq!(changed, [31, 32, 33, 34, 35]);
    assert!(!after.mmio_waits);
}
