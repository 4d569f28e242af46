//! The guest's own exceptions: class, syndrome, FAR, and what PSTATE becomes.

mod support;

use seawall_arm::Reg;
use support::{
    CODE, DATA, DEVICE, EL0, EL0T, EL1H, GUARDED, Guest, READ_ONLY, SCTLR_ON, SPAN, VECTORS, page_descriptor,
};

const LDR: u32 = 0xf940_0020; // ldr x0, [x1]
const STR: u32 = 0xf900_0020; // str x0, [x1]
const NOP: u32 = 0xd503_201f;
const BR: u32 = 0xd61f_0020; // br x1
const BLR: u32 = 0xd63f_0020; // blr x1
const ERET: u32 = 0xd69f_03e0;

/// ESR of one instruction at EL1 with X1 = DATA, MMU off.
fn esr_at_el1(word: u32) -> u64 {
    let mut guest = Guest::new(&[word]);
    guest.set(Reg::X(1), DATA);
    guest.steps(1);
    assert_eq!(guest.get(Reg::Pc), VECTORS + 0x200);
    guest.get(Reg::EsrEl1)
}

#[test]
fn undefined_instructions_are_undef_and_counted() {
    // udf #0; hlt #0; smc #0; mrs x0 of no register; paciza x0; ld64b x0, [x1]; a reserved word
    for word in [0x0000_0000, 0xd440_0000, 0xd400_0003, 0xd538_ffe0, 0xdac1_23e0, 0xf83f_d020, 0x6000_0000] {
        let mut guest = Guest::new(&[word]);
        guest.steps(1);
        assert_eq!(guest.taken(), [VECTORS + 0x200, 0x02000000, 0, CODE, EL1H], "{word:#x}");
        assert_eq!(guest.vm.undefined().count(), 1);
        assert_eq!(guest.vm.undefined().last().collect::<Vec<_>>(), [word]);
    }
}

#[test]
fn floating_point_is_trapped_as_not_there() {
    // fadd d0, d0, d0; ldr q0, [x1]
    assert_eq!(esr_at_el1(0x1e60_2800), 0x1fe00000);
    assert_eq!(esr_at_el1(0x3dc0_0020), 0x1fe00000);
}

#[test]
fn svc_returns_after_itself_and_brk_to_itself() {
    let mut guest = Guest::new(&[0xd400_00a1]);
    guest.set(Reg::Pstate, EL0T);
    guest.steps(1);
    assert_eq!(guest.taken(), [VECTORS + 0x400, 0x56000005, 0, CODE + 4, EL0T]);
    let mut guest = Guest::new(&[0xd420_00e0]);
    guest.steps(1);
    assert_eq!(guest.taken(), [VECTORS + 0x200, 0xf2000007, 0, CODE, EL1H]);
}

#[test]
fn an_illegal_return_sets_il_and_the_next_instruction_is_an_illegal_state_exception() {
    let mut guest = Guest::new(&[ERET, NOP]);
    guest.set(Reg::ElrEl1, CODE + 4);
    // EL2h: there is none. The flags, PAN and DAIF are taken over, UAO, DIT and BTYPE are not.
    guest.set(Reg::SpsrEl1, 0x8180_0fc9);
    guest.steps(1);
    assert_eq!(guest.get(Reg::Pstate), 0x8010_03c5);
    guest.steps(1);
    assert_eq!(guest.taken(), [VECTORS + 0x200, 0x3a000000, 0, CODE + 4, 0x8010_03c5]);
    assert_eq!(guest.get(Reg::Pstate), 0x8000_03c5);
}

#[test]
fn a_return_to_el0_switches_the_stack_pointer() {
    // eret; (EL0) mov x2, sp
    let mut guest = Guest::new(&[ERET, 0x9100_03e2]);
    guest.set(Reg::SpEl0, 0x1000);
    guest.set(Reg::SpEl1, 0x2000);
    guest.set(Reg::ElrEl1, CODE + 4);
    guest.set(Reg::SpsrEl1, 0);
    guest.steps(2);
    assert_eq!((guest.x(2), guest.get(Reg::SpEl1)), (0x1000, 0x2000));
    assert_eq!(guest.get(Reg::Pstate), 0);
}

#[test]
fn misaligned_pc_and_sp_have_their_own_classes() {
    let mut guest = Guest::new(&[BR]);
    guest.set(Reg::X(1), DATA + 2);
    guest.steps(2);
    assert_eq!(guest.taken(), [VECTORS + 0x200, 0x8a000000, DATA + 2, DATA + 2, 0x7c5]);
    // ldr x0, [sp]
    let mut guest = Guest::new(&[0xf940_03e0]);
    guest.set(Reg::SpEl1, DATA + 8);
    guest.steps(1);
    assert_eq!(guest.taken(), [VECTORS + 0x200, 0x9a000000, 0, CODE, EL1H]);
}

#[test]
fn unaligned_accesses_fault_with_the_mmu_off_on_device_memory_and_with_sctlr_a() {
    let mut guest = Guest::new(&[LDR]);
    guest.set(Reg::X(1), DATA + 1);
    guest.steps(1);
    assert_eq!(guest.taken()[..3], [VECTORS + 0x200, 0x96000021, DATA + 1]);

    let mut guest = Guest::mapped(&[LDR, STR]);
    guest.set(Reg::X(1), DATA + 1);
    guest.steps(1);
    assert_eq!(guest.get(Reg::Pc), CODE + 4, "Normal memory");
    guest.set(Reg::SctlrEl1, SCTLR_ON | 2);
    guest.steps(1);
    assert_eq!(guest.taken()[..3], [VECTORS + 0x200, 0x96000061, DATA + 1]);

    let mut guest = Guest::mapped(&[LDR]);
    guest.change_page(DATA, DEVICE, 0);
    guest.set(Reg::X(1), DATA + 4);
    guest.steps(1);
    assert_eq!(guest.get(Reg::EsrEl1), 0x96000021);
}

#[test]
fn exclusives_and_ordered_accesses_may_be_unaligned_within_16_bytes() {
    // ldxr x2, [x1]; ldar x0, [x1]; ldadd x2, x3, [x1]
    for word in [0xc85f_7c22, 0xc8df_fc20, 0xf822_0023] {
        let mut guest = Guest::mapped(&[word]);
        guest.set(Reg::SctlrEl1, SCTLR_ON & !(1 << 6));
        guest.set(Reg::X(1), DATA + 7);
        guest.steps(1);
        assert_eq!(guest.get(Reg::Pc), CODE + 4, "{word:#x}");
        guest.set(Reg::Pc, CODE);
        guest.set(Reg::X(1), DATA + 9);
        guest.steps(1);
        assert_eq!(guest.taken()[..3], [VECTORS + 0x200, 0x96000021, DATA + 9], "{word:#x}");
    }
}

#[test]
fn translation_and_permission_faults_tell_level_and_direction() {
    let mut guest = Guest::mapped(&[STR]);
    guest.change_page(DATA, READ_ONLY, 0);
    guest.set(Reg::X(1), DATA + 0x18);
    guest.steps(1);
    assert_eq!(guest.taken(), [VECTORS + 0x200, 0x9600004f, DATA + 0x18, CODE, EL1H]);

    let mut guest = Guest::mapped(&[LDR]);
    guest.write(page_descriptor(DATA), 0);
    guest.set(Reg::X(1), DATA);
    guest.steps(1);
    assert_eq!(guest.get(Reg::EsrEl1), 0x96000007);
}

#[test]
fn an_atomic_on_a_read_only_page_faults_as_a_write_and_on_no_page_as_a_read() {
    // ldadd x2, x3, [x1]
    let mut guest = Guest::mapped(&[0xf822_0023]);
    guest.change_page(DATA, READ_ONLY, 0);
    guest.set(Reg::X(1), DATA);
    guest.steps(1);
    assert_eq!(guest.get(Reg::EsrEl1), 0x9600004f);
    let mut guest = Guest::mapped(&[0xf822_0023]);
    guest.write(page_descriptor(DATA), 0);
    guest.set(Reg::X(1), DATA);
    guest.steps(1);
    assert_eq!(guest.get(Reg::EsrEl1), 0x96000007);
}

#[test]
fn a_load_across_pages_faults_at_the_first_byte_of_the_bad_one() {
    let mut guest = Guest::mapped(&[LDR]);
    guest.write(page_descriptor(DATA + 0x1000), 0);
    guest.set(Reg::X(1), DATA + 0xffc);
    guest.steps(1);
    assert_eq!(guest.taken()[..3], [VECTORS + 0x200, 0x96000007, DATA + 0x1000]);
}

#[test]
fn a_cache_operation_that_does_not_translate_has_cm_and_wnr() {
    // dc civac, x1
    let mut guest = Guest::mapped(&[0xd50b_7e21]);
    guest.write(page_descriptor(DATA), 0);
    guest.set(Reg::X(1), DATA);
    guest.steps(1);
    assert_eq!(guest.get(Reg::EsrEl1), 0x96000147);
}

#[test]
fn pan_keeps_el1_out_of_el0s_pages_but_not_unprivileged_accesses() {
    // msr pan, #1; ldr x0, [x1]
    let mut guest = Guest::mapped(&[LDR, 0xd500_419f, LDR]);
    guest.change_page(DATA, EL0, 0);
    guest.set(Reg::X(1), DATA);
    guest.steps(2);
    assert_eq!(guest.get(Reg::Pc), CODE + 8);
    guest.steps(1);
    assert_eq!(guest.taken()[..2], [VECTORS + 0x200, 0x9600000f]);
    assert_eq!(guest.get(Reg::SpsrEl1), EL1H | 1 << 22);

    // msr pan, #1; ldtr x0, [x1]
    let mut guest = Guest::mapped(&[0xd500_419f, 0xf840_0820]);
    guest.change_page(DATA, EL0, 0);
    guest.set(Reg::X(1), DATA);
    guest.steps(2);
    assert_eq!(guest.get(Reg::Pc), CODE + 8);
}

#[test]
fn without_span_an_exception_sets_pan() {
    let mut guest = Guest::new(&[0xd400_0001]);
    guest.set(Reg::SctlrEl1, 0x30d5_0998 & !SPAN);
    guest.steps(1);
    assert_eq!(guest.get(Reg::Pstate), EL1H | 1 << 22);
}

#[test]
fn uao_makes_unprivileged_accesses_privileged() {
    // ldtr x0, [x1]; msr uao, #1; ldtr x0, [x1]
    let mut guest = Guest::mapped(&[0xd500_417f, 0xf840_0820, 0xd500_407f, 0xf840_0820]);
    guest.set(Reg::X(1), DATA);
    guest.steps(3);
    assert_eq!(guest.get(Reg::Pc), CODE + 12);
    guest.steps(1);
    assert_eq!(guest.taken()[..2], [VECTORS + 0x200, 0x9600000f]);
}

/// Branch from CODE to DATA, which is guarded and begins with `pad`; PC after it, and ESR.
fn branch_to(branch: u32, pad: u32) -> (u64, u64) {
    let mut guest = Guest::mapped(&[branch]);
    guest.code_at(DATA, &[pad]);
    guest.change_page(DATA, GUARDED, 0);
    guest.set(Reg::X(1), DATA);
    guest.steps(2);
    (guest.get(Reg::Pc), guest.get(Reg::EsrEl1))
}

#[test]
fn branches_into_guarded_pages_need_their_landing_pad() {
    const C: u32 = 0xd503_245f;
    const J: u32 = 0xd503_249f;
    const JC: u32 = 0xd503_24df;
    const PACIASP: u32 = 0xd503_233f;
    let landed = (DATA + 4, 0);
    let refused = |btype: u64| (VECTORS + 0x200, 0x3600_0000 | btype);
    // BR from an unguarded page: BTYPE 01, any pad will do.
    for pad in [C, J, JC, PACIASP] {
        assert_eq!(branch_to(BR, pad), landed, "{pad:#x}");
    }
    assert_eq!(branch_to(BR, NOP), refused(1));
    // BLR: BTYPE 10, not J.
    for pad in [C, JC, PACIASP] {
        assert_eq!(branch_to(BLR, pad), landed, "{pad:#x}");
    }
    assert_eq!(branch_to(BLR, J), refused(2));
    assert_eq!(branch_to(BLR, NOP), refused(2));
}

#[test]
fn a_branch_target_exception_keeps_btype_in_spsr() {
    let mut guest = Guest::mapped(&[BLR]);
    guest.code_at(DATA, &[NOP]);
    guest.change_page(DATA, GUARDED, 0);
    guest.set(Reg::X(1), DATA);
    guest.steps(2);
    assert_eq!(guest.taken(), [VECTORS + 0x200, 0x36000002, 0, DATA, EL1H | 2 << 10]);
    assert_eq!(guest.get(Reg::Pstate), EL1H);
}

#[test]
fn a_jump_within_guarded_pages_has_btype_11() {
    // At DATA: br x1, to DATA + 8: bti c.
    let mut guest = Guest::mapped(&[NOP]);
    guest.code_at(DATA, &[BR, NOP, 0xd503_245f]);
    guest.change_page(DATA, GUARDED, 0);
    guest.set(Reg::Pc, DATA);
    guest.set(Reg::X(1), DATA + 8);
    guest.steps(2);
    assert_eq!(guest.get(Reg::EsrEl1), 0x36000003);
}

#[test]
fn el0_reads_what_sctlr_lets_it() {
    // mrs x5, ctr_el0
    let mut guest = Guest::new(&[0xd53b_0025]);
    guest.set(Reg::Pstate, EL0T);
    guest.steps(1);
    // EC 0x18; op0 3, op2 1, op1 3, CRn 0, Rt 5, CRm 0, read.
    assert_eq!(guest.taken()[..2], [VECTORS + 0x400, 0x6232c0a1]);
    let mut guest = Guest::new(&[0xd53b_0025]);
    guest.set(Reg::SctlrEl1, 0x30d5_0998 | 1 << 15);
    guest.set(Reg::Pstate, EL0T);
    guest.steps(1);
    assert_eq!(guest.x(5), 0x8444_c004);
}

#[test]
fn el0_has_no_registers_of_el1() {
    // mrs x5, currentel
    let mut guest = Guest::new(&[0xd538_4245]);
    guest.set(Reg::Pstate, EL0T);
    guest.steps(1);
    assert_eq!(guest.taken()[..2], [VECTORS + 0x400, 0x02000000]);
    assert_eq!(guest.vm.undefined().last().collect::<Vec<_>>(), [0xd538_4245]);
}

#[test]
fn an_endless_loop_of_exceptions_uses_up_its_budget() {
    // VBAR where every fetch faults.
    let mut guest = Guest::mapped(&[0x0000_0000]);
    guest.set(Reg::VbarEl1, 0x7f_0000_0000);
    guest.steps(1000);
    assert_eq!(guest.get(Reg::EsrEl1), 0x86000005);
}
