//! Programs at EL2 and EL1 of one CPU: words of code, with the rule of DDI 0487 that each shows.

use seawall_arm::{Reg, Registers as _};
use seawall_inject::{Exit, Inject as _};

use crate::cpu::{Cpu, Wait};
use crate::el2::{Banked, hcr};
use crate::memory::PAGE_SIZE;
use crate::tlb::{Fill, View};
use crate::vm::{Config, RAM_BASE, Vm};

const RAM: u64 = RAM_BASE;
/// Code of EL2, and its vectors.
const CODE: u64 = RAM + 0x1_0000;
const VECTORS: u64 = RAM + 0x2_0000;
/// Code of EL1, by IPA, which stage 2 maps to `GUEST_PA`.
const GUEST: u64 = 0x8_0000;
const GUEST_PA: u64 = RAM + 0x3_0000;
/// A page that stage 2 maps nothing of.
const UNMAPPED: u64 = 0x9_0000;
/// A page that stage 2 maps read-only.
const READ_ONLY: u64 = 0x9_1000;
/// Stage 2: two tables of level 2 and 3; VTCR_EL2: T0SZ 34 (1 GiB), SL0 0 (level 2), 4 KiB, PS 48 bits.
const TABLE2: u64 = RAM + 0x4_0000;
const TABLE3: u64 = RAM + 0x4_1000;
const VTCR: u64 = 0x22 | 5 << 16;

const HVC_0: u32 = 0xd400_0002;
const ERET: u32 = 0xd69f_03e0;

/// A machine whose EL2 is set up to run EL1 at `GUEST` under stage 2: the test adds code and registers.
struct Machine {
    vm: Vm,
}

impl Machine {
    fn new() -> Self {
        let mut vm = Vm::new(Config { memory_size: 2 << 20, el2: true, ..Config::default() }).expect("2 MiB");
        let page = |pa: u64, s2ap: u64| pa | 1 << 10 | 3 << 8 | s2ap << 6 | 0xf << 2 | 3;
        for (at, descriptor) in [
            (TABLE2, TABLE3 | 3),
            (TABLE3 + (GUEST >> 12 & 511) * 8, page(GUEST_PA, 3)),
            (TABLE3 + (READ_ONLY >> 12 & 511) * 8, page(GUEST_PA + PAGE_SIZE, 1)),
        ] {
            vm.memory_mut().store(at, &descriptor.to_le_bytes()).expect("in RAM");
        }
        let cpu = &mut vm.cpus[0];
        cpu.write_el2_register(crate::sysreg::id(3, 4, 2, 1, 0), TABLE2).expect("VTTBR_EL2");
        cpu.write_el2_register(crate::sysreg::id(3, 4, 2, 1, 2), VTCR).expect("VTCR_EL2");
        cpu.set_reg(Reg::VbarEl2, VECTORS);
        cpu.set_reg(Reg::VbarEl1, GUEST + 0x800);
        cpu.set_reg(Reg::ElrEl2, GUEST);
        // EL1h, DAIF.
        cpu.set_reg(Reg::SpsrEl2, 0x3c5);
        cpu.pc = CODE;
        let mut machine = Self { vm };
        machine.hcr(hcr::VM);
        machine.code(CODE, &[ERET]);
        machine
    }

    fn cpu(&mut self) -> &mut Cpu {
        &mut self.vm.cpus[0]
    }

    fn hcr(&mut self, bits: u64) {
        self.cpu().write_el2_register(seawall_arm::sysreg::HCR_EL2, bits).expect("HCR_EL2");
    }

    fn code(&mut self, at: u64, words: &[u32]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.vm.memory_mut().store(at, &bytes).expect("in RAM");
    }

    fn guest(&mut self, words: &[u32]) {
        self.code(GUEST_PA, words);
    }

    /// Runs so many steps.
    fn run(&mut self, steps: u64) -> Exit {
        self.vm.set_budget(Some(steps));
        self.vm.run().expect("no error").1
    }

    /// Runs until EL2's vectors are reached by a synchronous exception of EL1 or EL0: ESR_EL2.
    #[track_caller]
    fn trapped(&mut self, steps: u64) -> u64 {
        self.run(steps);
        assert_eq!((self.cpu().pc, self.cpu().exception_level()), (VECTORS + 0x400, 2));
        self.cpu().reg(Reg::EsrEl2)
    }

    fn hpfar(&mut self) -> u64 {
        self.cpu().read_el2_register(crate::sysreg::id(3, 4, 6, 0, 4)).expect("HPFAR_EL2")
    }
}

/// D1.1: a CPU with EL2 comes out of reset at the highest Exception level.
#[test]
fn a_cpu_begins_at_el2_and_returns_to_el1() {
    let mut machine = Machine::new();
    assert_eq!(machine.cpu().pstate() & 0xf, 9);
    machine.guest(&[HVC_0]);
    machine.run(1);
    assert_eq!((machine.cpu().pc, machine.cpu().pstate() & 0xf), (GUEST, 5));
}

/// `AArch64.CallHypervisor`: EC 0x16, and the return address is the next instruction.
#[test]
fn hvc_goes_to_el2_unless_it_is_disabled() {
    let mut machine = Machine::new();
    machine.guest(&[0xd400_02e2]);
    assert_eq!(machine.trapped(2), 0x5a00_0017);
    assert_eq!(machine.cpu().reg(Reg::ElrEl2), GUEST + 4);
    let mut machine = Machine::new();
    machine.hcr(hcr::VM | hcr::HCD);
    machine.guest(&[0xd400_02e2]);
    machine.run(2);
    assert_eq!((machine.cpu().exception_level(), machine.cpu().reg(Reg::EsrEl1)), (1, 0x0200_0000));
}

/// The record of exits: HVC #0x17 and a load that stage 2 does not map, with a handler that steps over it by user space's help.
#[test]
fn an_exit_is_recorded_with_its_cost_and_changes_nothing() {
    const ERET: u32 = 0xd69f_03e0;
    let run = |is_recorded: bool| {
        let mut machine = Machine::new();
        machine.cpu().set_slot(1, UNMAPPED + 0x18);
        // nop; hvc #0x17; ldr w3, [x1]
        machine.guest(&[0xd503_201f, 0xd400_02e2, 0xb940_0023]);
        // nop; nop; eret
        machine.code(VECTORS + 0x400, &[0xd503_201f, 0xd503_201f, ERET]);
        if is_recorded {
            machine.vm.begin_exit_trace();
        }
        machine.run(40);
        (machine.vm.take_exits(), machine.vm.state_hash())
    };
    let (exits, hash) = run(true);
    let (none, plain) = run(false);
    assert_eq!((none.len(), hash), (0, plain));
    let seen: Vec<_> = exits
        .iter()
        .map(|exit| {
            let esr = exit.esr.map(seawall_arm::Esr::bits);
            (exit.instructions, exit.guest_steps, exit.host_steps, esr, exit.pc - GUEST, exit.hpfar)
        })
        .take(3)
        .collect();
    let page = Some(UNMAPPED >> 12 << 4);
    assert_eq!(
        seen,
        [
            (2, 1, 4, Some(0x5a00_0017), 8, None),
            (6, 0, 4, Some(0x9383_0007), 8, page),
            (10, 0, 4, Some(0x9383_0007), 8, page),
        ]
    );
    assert!(exits.iter().all(|exit| exit.cpu == 0 && !exit.to_user_space));
}

/// `AArch64.FaultSyndrome`: a data abort from a lower level, ISV with the access; HPFAR_EL2 has the page.
#[test]
fn a_load_that_stage_2_does_not_map_is_described_to_el2() {
    let mut machine = Machine::new();
    machine.cpu().set_slot(1, UNMAPPED + 0x18);
    // ldr w3, [x1]
    machine.guest(&[0xb940_0023]);
    // ISV, SAS 2, SRT 3; translation fault, level 3.
    assert_eq!(machine.trapped(2), 0x9383_0007);
    assert_eq!((machine.cpu().reg(Reg::FarEl2), machine.hpfar()), (UNMAPPED + 0x18, UNMAPPED >> 8));
    assert_eq!(machine.cpu().reg(Reg::ElrEl2), GUEST);
}

/// `AArch64.S2CheckPermissions`, with WnR.
#[test]
fn a_store_where_stage_2_lets_only_read_is_a_permission_fault() {
    let mut machine = Machine::new();
    machine.cpu().set_slot(1, READ_ONLY);
    // ldr x2, [x1]; str x2, [x1]
    machine.guest(&[0xf940_0022, 0xf900_0022]);
    assert_eq!(machine.trapped(3), 0x93c2_804f);
}

/// `AArch64.InstructionAbort`: from a lower level.
#[test]
fn a_fetch_that_stage_2_does_not_map_goes_to_el2() {
    let mut machine = Machine::new();
    machine.cpu().set_slot(1, UNMAPPED);
    // br x1
    machine.guest(&[0xd61f_0020]);
    assert_eq!(machine.trapped(3), 0x8200_0007);
    assert_eq!(machine.hpfar(), UNMAPPED >> 8);
}

/// `AArch64.S1Walk`: S1PTW, and HPFAR_EL2 has the descriptor's page, not the access's.
#[test]
fn a_walk_of_stage_1_that_stage_2_does_not_map_is_told_apart() {
    let mut machine = Machine::new();
    // msr ttbr0_el1, x1; msr tcr_el1, x2; isb; msr sctlr_el1, x3; isb
    machine.guest(&[0xd518_2001, 0xd518_2042, 0xd503_3fdf, 0xd518_1003, 0xd503_3fdf]);
    machine.cpu().set_slot(1, UNMAPPED);
    // T0SZ 25: the walk begins at level 1.
    machine.cpu().set_slot(2, 0x19 | 5 << 32);
    machine.cpu().set_slot(3, 0x30d5_0999);
    // The first fetch behind it walks.
    assert_eq!(machine.trapped(7), 0x8200_0087);
    assert_eq!((machine.cpu().reg(Reg::FarEl2), machine.hpfar()), (GUEST + 20, UNMAPPED >> 8));
}

/// HCR_EL2.TEA: EL2 takes the External abort, else EL1; SET 0, EA.
#[test]
fn bad_memory_goes_to_el2_if_it_asks_for_that() {
    for (tea, level, esr) in [(hcr::TEA, 2, 0x9200_0210), (0, 1, 0x9600_0210)] {
        let mut machine = Machine::new();
        machine.hcr(hcr::VM | tea);
        machine.cpu().set_slot(1, GUEST + 0x400);
        machine.guest(&[0xf940_0022]);
        machine.vm.poison(GUEST_PA + 0x400..GUEST_PA + 0x440).expect("in RAM");
        machine.run(2);
        let reg = if level == 2 { Reg::EsrEl2 } else { Reg::EsrEl1 };
        assert_eq!((machine.cpu().exception_level(), machine.cpu().reg(reg)), (level, esr), "TEA {tea:#x}");
    }
}

/// SCTLR2_EL1.EASE, which counts with HCRX_EL2.SCTLR2En; SCTLR2_EL2.EASE.
#[test]
fn with_ease_an_external_abort_is_taken_at_the_vector_of_serrors() {
    for (hcrx, control, offset) in [(1 << 15, 1 << 5, 0x380), (0, 1 << 5, 0x200), (1 << 15, 0, 0x200)] {
        let mut machine = Machine::new();
        machine.cpu().write_el2_register(seawall_arm::sysreg::HCRX_EL2, hcrx).expect("HCRX_EL2");
        machine.cpu().set_sctlr2(Banked::El10, control).expect("SCTLR2_EL1");
        machine.cpu().set_slot(1, GUEST + 0x400);
        machine.guest(&[0xf940_0022]);
        machine.vm.poison(GUEST_PA + 0x400..GUEST_PA + 0x440).expect("in RAM");
        machine.run(2);
        assert_eq!(machine.cpu().pc, GUEST + 0x800 + offset, "HCRX_EL2 {hcrx:#x}, SCTLR2_EL1 {control:#x}");
    }
    let mut machine = Machine::new();
    machine.cpu().set_sctlr2(Banked::El20, 1 << 5).expect("SCTLR2_EL2");
    machine.cpu().set_slot(1, RAM + 0x400);
    // ldr x2, [x1]
    machine.code(CODE, &[0xf940_0022]);
    machine.vm.poison(RAM + 0x400..RAM + 0x440).expect("in RAM");
    machine.run(1);
    assert_eq!((machine.cpu().pc, machine.cpu().reg(Reg::EsrEl2)), (VECTORS + 0x380, 0x9600_0210));
}

/// A bad line in a table of stage 2: an External abort on a walk, EL2's whatever TEA says, at stage 2's level.
#[test]
fn a_bad_table_of_stage_2_is_el2s() {
    let mut machine = Machine::new();
    machine.guest(&[HVC_0]);
    machine.vm.poison(TABLE3 + (GUEST >> 12) * 8..TABLE3 + (GUEST >> 12) * 8 + 64).expect("in RAM");
    assert_eq!(machine.trapped(2), 0x8200_0217);
}

/// `AArch64.TakeVirtualSErrorException`: at EL1 once PSTATE.A is clear, with VSESR_EL2; HCR_EL2.VSE is clear then.
#[test]
fn a_virtual_serror_waits_for_pstate_a_or_nmea() {
    for (daif, nmea, is_taken) in [(0x3c5, 0, false), (0x2c5, 0, true), (0x3c5, 1 << 2, true)] {
        let mut machine = Machine::new();
        machine.hcr(hcr::VM | hcr::AMO | hcr::VSE);
        machine.cpu().write_el2_register(seawall_arm::sysreg::VSESR_EL2, 0x100_0001).expect("VSESR_EL2");
        machine.cpu().write_el2_register(seawall_arm::sysreg::HCRX_EL2, 1 << 15).expect("HCRX_EL2");
        machine.cpu().set_sctlr2(Banked::El10, nmea).expect("SCTLR2_EL1");
        machine.cpu().set_reg(Reg::SpsrEl2, daif);
        machine.guest(&[0xd503_201f]);
        machine.run(2);
        let expected = if is_taken { (GUEST + 0xb80, 0xbf00_0001) } else { (GUEST + 4, 0) };
        assert_eq!((machine.cpu().pc, machine.cpu().reg(Reg::EsrEl1)), expected, "{daif:#x} {nmea:#x}");
        assert_eq!(machine.cpu().reg(Reg::HcrEl2) & hcr::VSE == 0, is_taken);
    }
}

/// `AArch64.vESBOperation`: a masked one is put off into VDISR_EL2, which EL1 reads as DISR_EL1.
#[test]
fn esb_puts_a_masked_virtual_serror_off() {
    let mut machine = Machine::new();
    machine.hcr(hcr::VM | hcr::AMO | hcr::VSE);
    machine.cpu().write_el2_register(seawall_arm::sysreg::VSESR_EL2, 0x100_0001).expect("VSESR_EL2");
    // esb; mrs x0, disr_el1
    machine.guest(&[0xd503_221f, 0xd538_c120]);
    machine.run(3);
    assert_eq!(machine.cpu().slot(0), 0x8100_0001);
    assert_eq!(machine.cpu().reg(Reg::HcrEl2) & hcr::VSE, 0);
}

/// D1.3.6: a physical interrupt of EL2's is taken from EL1 whatever PSTATE masks.
#[test]
fn a_physical_interrupt_leaves_el1_though_it_is_masked() {
    let mut machine = Machine::new();
    machine.hcr(hcr::VM | hcr::IMO);
    // b .
    machine.guest(&[0x1400_0000]);
    machine.run(5);
    machine.cpu().set_signals(crate::gic::Signals::IRQ);
    machine.run(1);
    assert_eq!((machine.cpu().pc, machine.cpu().exception_level()), (VECTORS + 0x480, 2));
}

/// `AArch64.CheckForWFxTrap`: ISS.TI.
#[test]
fn waits_are_trapped_before_they_begin() {
    for (bit, word, esr) in [(hcr::TWI, 0xd503_207f, 0x07e0_0000), (hcr::TWE, 0xd503_205f, 0x07e0_0001)] {
        let mut machine = Machine::new();
        machine.hcr(hcr::VM | bit);
        machine.guest(&[word]);
        // ERET sets the event register, which the first WFE would take.
        machine.run(1);
        machine.cpu().event = false;
        assert_eq!(machine.trapped(1), esr);
        assert_eq!(machine.cpu().wait, Wait::No);
    }
}

/// `AArch64.CheckFPAdvSIMDTrap`: CPTR_EL2.FPEN, after EL1's own.
#[test]
fn fp_is_trapped_by_el2_behind_el1() {
    let mut machine = Machine::new();
    machine.cpu().set_reg(Reg::CpacrEl1, 3 << 20);
    // fmov s0, wzr
    machine.guest(&[0x1e27_03e0]);
    assert_eq!(machine.trapped(2), 0x1fe0_0000);
    let mut machine = Machine::new();
    machine.guest(&[0x1e27_03e0]);
    machine.run(2);
    assert_eq!((machine.cpu().exception_level(), machine.cpu().reg(Reg::EsrEl1)), (1, 0x1fe0_0000));
}

/// `AArch64.CheckForSMCUndefOrTrap`; else PSCI answers: PSCI_VERSION.
#[test]
fn smc_is_the_firmwares_unless_el2_traps_it() {
    let mut machine = Machine::new();
    machine.hcr(hcr::VM | hcr::TSC);
    machine.guest(&[0xd400_0003]);
    assert_eq!(machine.trapped(2), 0x5e00_0000);
    assert_eq!(machine.cpu().reg(Reg::ElrEl2), GUEST);
    let mut machine = Machine::new();
    machine.cpu().set_slot(0, 0x8400_0000);
    machine.guest(&[0xd400_0003]);
    machine.run(2);
    assert_eq!((machine.cpu().slot(0), machine.cpu().pc), (0x1_0001, GUEST + 4));
}

/// D24.2: with E2H what names a register of EL1 means EL2's at EL2; EL12 names EL1's.
#[test]
fn el2_and_el1_have_registers_of_their_own() {
    let mut machine = Machine::new();
    // msr far_el1, x1; msr far_el12, x2; eret
    machine.code(CODE, &[0xd518_6001, 0xd51d_6002, ERET]);
    machine.cpu().set_slot(1, 0x11);
    machine.cpu().set_slot(2, 0x22);
    // mrs x3, far_el1; hvc #0
    machine.guest(&[0xd538_6003, HVC_0]);
    machine.trapped(5);
    assert_eq!(
        (machine.cpu().slot(3), machine.cpu().reg(Reg::FarEl2), machine.cpu().reg(Reg::FarEl1)),
        (0x22, 0x11, 0x22)
    );
}

/// `AArch64.AT`: from EL2 with TGE = 0 it is the regime of EL1, by stage 1 alone: PAR_EL1 has the IPA.
#[test]
fn at_finds_the_ipa_and_at_of_both_stages_the_address() {
    let mut machine = Machine::new();
    machine.cpu().set_slot(1, GUEST);
    // at s1e1r, x1; mrs x2, par_el1; at s12e1r, x1; mrs x3, par_el1
    machine.code(CODE, &[0xd508_7801, 0xd538_7402, 0xd50c_7881, 0xd538_7403]);
    machine.run(4);
    let address = |par: u64| (par & 1, par & 0xffff_ffff_f000);
    assert_eq!([2, 3].map(|n| address(machine.cpu().slot(n))), [(0, GUEST), (0, GUEST_PA)]);
    let mut machine = Machine::new();
    machine.cpu().set_slot(1, UNMAPPED);
    machine.code(CODE, &[0xd508_7801, 0xd538_7402, 0xd50c_7881, 0xd538_7403]);
    machine.run(4);
    // F, FST translation level 3, S.
    assert_eq!(machine.cpu().slot(3) & 0x3ff, 1 << 9 | 7 << 1 | 1);
}

/// D12.2: CNTVCT_EL0 below EL2 is behind by CNTVOFF_EL2; at EL2 it is not.
#[test]
fn the_virtual_counter_of_el1_has_an_offset() {
    let mut machine = Machine::new();
    // mrs x2, cntvct_el0; eret
    machine.code(CODE, &[0xd53b_e042, ERET]);
    machine.guest(&[0xd53b_e043, HVC_0]);
    machine.cpu().write_el2_register(crate::sysreg::id(3, 4, 14, 0, 3), 1000).expect("CNTVOFF_EL2");
    machine.trapped(4);
    assert_eq!((machine.cpu().slot(2), machine.cpu().slot(3)), (0, 1000_u64.wrapping_neg()));
}

/// The TLB of the regime that is parked sees what the one in use sees: stores to pages that get decoded instructions,
/// fetches whose pages have other numbers, and what the host did to memory.
#[test]
fn a_parked_tlb_sees_dropped_writes_fetches_and_poison_as_the_one_in_use() {
    use crate::cpu::{Invalidation, Maintenance};
    let fill = |tlb: &mut crate::tlb::Tlb| {
        let fill = Fill { va: 0x1000, page: 7, strict: false, shift: 12, global: true };
        tlb.fill_read(View::El1, fill);
        tlb.fill_write(View::El1, fill);
        tlb.fill_fetch(1, fill);
    };
    let held = |cpu: &mut Cpu, of| {
        let tlb = cpu.tlb_of(of);
        [&tlb.read[1], &tlb.write[1], &tlb.fetch[1]].map(|array| array.entry(0x1000).covers(0x1000, 1))
    };
    let both = [Banked::El10, Banked::El20];
    for (what, left) in
        [(Invalidation::WritesTo(7), [true, false, true]), (Invalidation::Fetches, [true, true, false])]
    {
        for of in both {
            let mut machine = Machine::new();
            let cpu = machine.cpu();
            for of in both {
                fill(cpu.tlb_of(of));
            }
            // Whichever regime it is entered with.
            cpu.invalidate(Maintenance { of, what });
            assert_eq!(both.map(|of| held(cpu, of)), [left; 2], "{what:?}");
        }
    }
    let mut machine = Machine::new();
    for of in both {
        fill(machine.cpu().tlb_of(of));
    }
    machine.vm.poison(RAM..RAM + 64).expect("in RAM");
    machine.code(CODE, &[0x1400_0000]);
    machine.run(1);
    assert_eq!(held(machine.cpu(), Banked::El10), [false; 3]);
    assert!(!held(machine.cpu(), Banked::El20)[0]);
}

/// TLBI VMALLE1 at EL2 with TGE = 0 is about EL1's entries; ALLE2 about EL2's own.
#[test]
fn maintenance_is_of_the_regime_that_it_names() {
    let fill = Fill { va: 0x1000, page: 7, strict: false, shift: 12, global: true };
    // tlbi vmalle1; tlbi alle2
    for (word, left) in [(0xd508_871f, [false, true]), (0xd50c_871f, [true, false])] {
        let mut machine = Machine::new();
        machine.code(CODE, &[word]);
        machine.run(0);
        for of in [Banked::El10, Banked::El20] {
            machine.cpu().tlb_of(of).fill_read(View::El1, fill);
        }
        // The host wrote the code: the CPU has to look at that first, which drops its TLBs.
        machine.cpu().host_touched_memory = false;
        machine.run(1);
        let held = [Banked::El10, Banked::El20]
            .map(|of| machine.cpu().tlb_of(of).read[1].entry(0x1000).covers(0x1000, 1));
        assert_eq!(held, left, "{word:#x}");
    }
}

/// Entries of the EL1&0 regime have no VMID: another VTTBR_EL2 drops them, the same one keeps them.
#[test]
fn a_guest_finds_nothing_of_another_stage_2() {
    let fill = Fill { va: UNMAPPED, page: 7, strict: false, shift: 12, global: true };
    for (vttbr, is_kept) in [(TABLE2, true), (TABLE2 | 1 << 48, false)] {
        let mut machine = Machine::new();
        machine.guest(&[HVC_0]);
        machine.trapped(2);
        machine.cpu().tlb_of(Banked::El10).fill_read(View::El1, fill);
        machine.cpu().write_el2_register(crate::sysreg::id(3, 4, 2, 1, 0), vttbr).expect("VTTBR_EL2");
        machine.cpu().set_pstate(0x3c5);
        let held = machine.cpu().tlb.read[1].entry(UNMAPPED).covers(UNMAPPED, 1);
        assert_eq!(held, is_kept, "{vttbr:#x}");
    }
}

/// A snapshot in the middle of a guest of the guest goes on to the bit; a machine without EL2 has nothing of it.
#[test]
fn a_snapshot_below_el2_goes_on_to_the_bit() {
    let mut machine = Machine::new();
    machine.hcr(hcr::VM | hcr::IMO | hcr::AMO);
    // add x0, x0, #1; hvc #0; b . - 8; EL2 returns.
    machine.guest(&[0x9100_0400, HVC_0, 0x17ff_fffe]);
    machine.code(VECTORS + 0x400, &[ERET]);
    machine.run(1001);
    let snapshot = machine.vm.snapshot().expect("room");
    let mut file = Vec::new();
    snapshot.save(&mut file).expect("into memory");
    let hashes = |vm: &mut Vm| {
        (0..4)
            .map(|_| {
                vm.set_budget(Some(37));
                vm.run().expect("no error");
                vm.state_hash()
            })
            .collect::<Vec<_>>()
    };
    let mut loaded = crate::Snapshot::load(&*file).expect("a snapshot").machine().expect("memory");
    assert_eq!(loaded.state_hash(), machine.vm.state_hash());
    let expected = hashes(&mut machine.vm);
    assert_eq!(hashes(&mut loaded), expected);
    machine.vm.restore(&snapshot).expect("room");
    assert_eq!(hashes(&mut machine.vm), expected);
}

/// The state hash sees what EL2 has.
#[test]
fn the_state_hash_sees_el2() {
    let mut machine = Machine::new();
    let before = machine.vm.state_hash();
    machine.cpu().write_el2_register(crate::sysreg::id(3, 4, 13, 0, 2), 1).expect("TPIDR_EL2");
    assert_ne!(machine.vm.state_hash(), before);
}

/// D24.2: ID_AA64PFR0_EL1.EL2, ID_AA64MMFR1_EL1.VH, VMIDBits and HCX, ID_AA64MMFR4_EL1.E2H0, ID_AA64PFR1_EL1.DF2 and
/// ID_AA64MMFR3_EL1.SCTLRX: there with EL2, and not without.
#[test]
fn identification_registers_say_what_is_there() {
    let value = |el2, register: u16| {
        let config = Config { memory_size: 2 << 20, el2, ..Config::default() };
        let mut vm = Vm::new(config).expect("2 MiB");
        vm.cpus[0].read_system_register(register, 0).expect("a register")
    };
    let id = |crm, op2| crate::sysreg::id(3, 0, 0, crm, op2);
    for (register, difference) in [
        (id(4, 0), 1 << 8),
        (id(4, 1), 1 << 56),
        (id(7, 1), 1 << 8 | 2 << 4 | 1 << 40),
        (id(7, 3), 1 << 4),
        (id(7, 4), 0xf << 24),
        (id(7, 2), 0),
        (id(6, 1), 0),
    ] {
        assert_eq!(value(true, register) ^ value(false, register), difference, "{register:#x}");
    }
}

/// Nobody answers: an External abort without EA, at the access.
#[test]
fn an_access_that_no_device_answers_is_an_external_abort() {
    let mut machine = Machine::new();
    machine.cpu().set_slot(1, 0x0c00_0008);
    // str x2, [x1]
    machine.code(CODE, &[0xf900_0022]);
    assert!(matches!(machine.run(10), Exit::Mmio(_)));
    let mut vcpu = machine.vm.vcpu(0).expect("a CPU");
    vcpu.refuse_mmio().expect("a CPU");
    let [esr, far, pc] = [Reg::EsrEl2, Reg::FarEl2, Reg::Pc].map(|reg| vcpu.reg(reg).expect("a register"));
    assert_eq!((esr, far, pc), (0x9600_0050, 0x0c00_0008, VECTORS + 0x200));
}

/// D1.3: PSTATE changes when an instruction completes. One that a BR landed at and that traps leaves BTYPE in the SPSR.
#[test]
fn an_instruction_that_a_branch_landed_at_and_that_traps_keeps_btype() {
    // br x1, not through X16 or X17 and not from a guarded page: BTYPE 01. Then mrs x0, id_aa64pfr0_el1; udf #0; svc #0.
    for (word, hcr, is_el2) in [(0xd538_0400, hcr::TID3, true), (0, 0, false), (0xd400_0001, 0, false)] {
        let mut machine = Machine::new();
        machine.hcr(hcr::VM | hcr);
        machine.cpu().set_slot(1, GUEST + 16);
        machine.guest(&[0xd61f_0020, 0, 0, 0, word]);
        machine.run(3);
        let spsr = machine.cpu().reg(if is_el2 { Reg::SpsrEl2 } else { Reg::SpsrEl1 });
        assert_eq!((machine.cpu().exception_level() == 2, spsr >> 10 & 3), (is_el2, 1), "{word:#010x}");
    }
}
