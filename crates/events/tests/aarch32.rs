//! Section 3 of the facts: injection into AArch32 EL1.

mod guest;

use guest::{FAR, PC, POSTED, Vcpu, aarch32, check, dabt, iabt, serror, serror_esr, with_abort_esr};
use seawall_arm::Target;
use seawall_events::kernel::{
    AbortDelivery, LastFault, PendingSError, SErrorDelivery, VcpuConfig, VcpuState, VirtualSError,
    prepare_run, set_events,
};
use seawall_events::{Abi, Reg, Registers};

/// Supervisor mode, nothing masked; SPAN set.
const SVC: u64 = 0x13;
const EAE: u64 = 1 << 31;
const SPAN: u64 = 1 << 23;

fn handler_cpsr(cpsr: u64, sctlr: u64) -> u64 {
    let mut vcpu = aarch32(cpsr);
    vcpu.set_reg(Reg::SctlrEl1, sctlr);
    set_events(&mut vcpu, POSTED, &dabt()).unwrap();
    vcpu.reg(Reg::Pstate)
}

#[test]
fn data_abort_sets_dfsr_dfar_lr_plus_8_and_vector_16() {
    let mut vcpu = aarch32(SVC);
    vcpu.set_reg(Reg::FarEl1, 0xaaaa_bbbb_cccc_dddd);
    set_events(&mut vcpu, Abi::Mainline, &dabt()).unwrap();
    check(
        &vcpu,
        &[
            (Reg::EsrEl1, 0x08),
            (Reg::FarEl1, 0xaaaa_bbbb_0000_0000 | FAR),
            (Reg::X(20), PC + 8),
            (Reg::Pc, 0x8000_1010),
            (Reg::SpsrAbt, SVC),
            (Reg::Pstate, 0x197),
            (Reg::Ifsr32, 0),
        ],
    );
    assert!(!vcpu.mmio_waits);
}

#[test]
fn prefetch_abort_sets_ifsr_ifar_lr_plus_4_and_vector_12() {
    let mut vcpu = aarch32(SVC);
    vcpu.set_reg(Reg::FarEl1, 0xaaaa_bbbb_cccc_dddd);
    set_events(&mut vcpu, POSTED, &iabt()).unwrap();
    check(
        &vcpu,
        &[
            (Reg::Ifsr32, 0x08),
            (Reg::FarEl1, FAR << 32 | 0xcccc_dddd),
            (Reg::X(20), PC + 4),
            (Reg::Pc, 0x8000_100c),
            (Reg::EsrEl1, 0),
        ],
    );
}

#[test]
fn offsets_are_the_same_in_t32() {
    let mut vcpu = aarch32(SVC | 1 << 5);
    set_events(&mut vcpu, POSTED, &dabt()).unwrap();
    check(&vcpu, &[(Reg::X(20), PC + 8)]);
    let mut vcpu = aarch32(SVC | 1 << 5);
    set_events(&mut vcpu, POSTED, &iabt()).unwrap();
    check(&vcpu, &[(Reg::X(20), PC + 4)]);
}

#[test]
fn with_eae_the_fsr_is_in_lpae_form() {
    let mut vcpu = aarch32(SVC);
    vcpu.set_reg(Reg::TcrEl1, EAE);
    set_events(&mut vcpu, POSTED, &dabt()).unwrap();
    check(&vcpu, &[(Reg::EsrEl1, 0x210)]);
    let mut vcpu = aarch32(SVC);
    vcpu.set_reg(Reg::TcrEl1, EAE);
    set_events(&mut vcpu, POSTED, &iabt()).unwrap();
    check(&vcpu, &[(Reg::Ifsr32, 0x210)]);
}

#[test]
fn sctlr_v_puts_the_vectors_high() {
    let mut vcpu = aarch32(SVC);
    vcpu.set_reg(Reg::SctlrEl1, SPAN | 1 << 13);
    set_events(&mut vcpu, POSTED, &dabt()).unwrap();
    check(&vcpu, &[(Reg::Pc, 0xffff_0010)]);
}

#[test]
fn cpsr_keeps_nzcv_q_ge_dit_pan_and_f() {
    for kept in [0xf000_0000, 1 << 27, 0xf << 16, 1 << 24, 1 << 22, 1 << 6] {
        assert_eq!(handler_cpsr(SVC | kept, SPAN), 0x197 | kept, "{kept:#x}");
    }
}

#[test]
fn cpsr_loses_it_il_and_ss_and_sets_a_and_i() {
    for lost in [0x0600_fc00, 1 << 20, 1 << 21, 1 << 23, 1 << 9, 1 << 5] {
        assert_eq!(handler_cpsr(SVC | lost, SPAN), 0x197, "{lost:#x}");
    }
}

#[test]
fn cpsr_takes_e_t_ssbs_and_pan_from_sctlr() {
    assert_eq!(handler_cpsr(SVC, SPAN | 1 << 25), 0x197 | 1 << 9);
    assert_eq!(handler_cpsr(SVC, SPAN | 1 << 30), 0x197 | 1 << 5);
    assert_eq!(handler_cpsr(SVC, SPAN | 1 << 31), 0x197 | 1 << 23);
    assert_eq!(handler_cpsr(SVC, 0), 0x197 | 1 << 22);
}

#[test]
fn spsr_abt_has_dit_at_21() {
    let mut vcpu = aarch32(SVC | 1 << 24);
    set_events(&mut vcpu, POSTED, &dabt()).unwrap();
    check(&vcpu, &[(Reg::SpsrAbt, SVC | 1 << 21), (Reg::Pstate, 0x197 | 1 << 24)]);
}

#[test]
fn the_abort_esr_is_ignored() {
    let mut vcpu = aarch32(SVC);
    set_events(&mut vcpu, POSTED, &with_abort_esr(dabt(), 0x1c0_c700)).unwrap();
    check(&vcpu, &[(Reg::EsrEl1, 0x08)]);
}

#[test]
fn from_user_mode_it_is_the_same() {
    let mut vcpu = aarch32(0x10);
    set_events(&mut vcpu, POSTED, &dabt()).unwrap();
    check(&vcpu, &[(Reg::Pc, 0x8000_1010), (Reg::SpsrAbt, 0x10), (Reg::Pstate, 0x197)]);
}

#[test]
fn unmasked_serror_is_lost_after_dfsr_was_overwritten() {
    for abi in [Abi::Mainline, POSTED] {
        let mut vcpu = aarch32(SVC);
        let applied = set_events(&mut vcpu, abi, &serror_esr(0x11)).unwrap();
        assert_eq!(applied.serror, Some(SErrorDelivery::Lost));
        check(&vcpu, &[(Reg::EsrEl1, 0xbe00_0011), (Reg::Pc, PC), (Reg::Pstate, SVC)]);
        assert!(!vcpu.serror.pending);
    }
}

/// A vCPU without any KVM_RUN so far.
struct NeverRan(Vcpu);

impl Registers for NeverRan {
    fn reg(&self, reg: Reg) -> u64 {
        self.0.reg(reg)
    }
    fn set_reg(&mut self, reg: Reg, value: u64) {
        self.0.set_reg(reg, value);
    }
}

impl VcpuState for NeverRan {
    fn config(&self) -> VcpuConfig {
        self.0.config
    }
    fn last_fault(&self) -> LastFault {
        self.0.last_fault
    }
    fn walk_level(&self, _: u64, _: u64) -> Option<i8> {
        None
    }
    fn drop_mmio(&mut self) {
        self.0.mmio_waits = false;
    }
    fn serror(&self) -> VirtualSError {
        self.0.serror
    }
    fn set_serror(&mut self, serror: VirtualSError) {
        self.0.serror = serror;
    }
    fn has_run(&self) -> bool {
        false
    }
}

/// KVM's exception entry depends on HCR_EL2.RW, which the first KVM_RUN clears. Measured on Linux 7.2.12.
#[test]
fn a_vcpu_that_never_ran_takes_no_abort_but_has_its_fsr_and_far() {
    for (events, written) in [
        (dabt(), [(Reg::EsrEl1, 0x08), (Reg::FarEl1, FAR)]),
        (iabt(), [(Reg::Ifsr32, 0x08), (Reg::FarEl1, FAR << 32)]),
    ] {
        let mut vcpu = NeverRan(aarch32(SVC));
        let applied = set_events(&mut vcpu, POSTED, &events).unwrap();
        assert_eq!(applied.abort, Some(AbortDelivery::NotDelivered));
        check(&vcpu.0, &written);
        check(&vcpu.0, &[(Reg::Pc, PC), (Reg::Pstate, SVC), (Reg::X(20), 0), (Reg::SpsrAbt, 0)]);
    }
}

/// The reason is the same; the lower level that it seems to come from is AArch32. Measured on Linux 7.2.12.
#[test]
fn a_vcpu_that_never_ran_takes_an_unmasked_serror_into_aarch64_state() {
    let mut vcpu = NeverRan(aarch32(SVC));
    let applied = set_events(&mut vcpu, Abi::Mainline, &serror_esr(0x11)).unwrap();
    assert_eq!(applied.serror, Some(SErrorDelivery::Delivered(Target::El1)));
    check(&vcpu.0, &[(Reg::EsrEl1, 0xbe00_0011), (Reg::Pc, 0x8000_1780), (Reg::Pstate, 0x3c5)]);
}

#[test]
fn masked_serror_waits_and_is_taken_as_an_asynchronous_data_abort() {
    for (ttbcr, dfsr) in [(0, 0x406), (EAE, 0x211)] {
        let mut vcpu = aarch32(SVC | 1 << 8);
        vcpu.set_reg(Reg::TcrEl1, ttbcr);
        vcpu.set_reg(Reg::FarEl1, 0x1234);
        set_events(&mut vcpu, POSTED, &serror()).unwrap();
        assert_eq!(prepare_run(&mut vcpu), PendingSError::Waits);
        vcpu.set_reg(Reg::Pstate, SVC);
        assert_eq!(prepare_run(&mut vcpu), PendingSError::Taken(Target::El1));
        check(
            &vcpu,
            &[(Reg::EsrEl1, dfsr), (Reg::Pc, 0x8000_1010), (Reg::X(20), PC + 8), (Reg::FarEl1, 0x1234)],
        );
    }
}
