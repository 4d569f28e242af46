//! The translator against the interpreter: instructions that are made of the input's words and are mostly such as get
//! translated, budgets, poison and registers of its choice. The two are equal after each budget.

use seawall_events::{Reg, VcpuEvents};
use seawall_inject::{Exit, Inject as _, Vcpu as _};
use seawall_machine::memory::Memory;
use seawall_machine::{Config, FpSimdState, RAM_BASE, Translation, Vm};

const RAM_SIZE: u64 = 0x1_0000;
const VECTORS: u64 = RAM_BASE;
const CODE: u64 = RAM_BASE + 0x1000;
const DATA: u64 = RAM_BASE + 0x4000;
/// Translation tables of levels 1 to 3, which map RAM to itself.
const TABLES: u64 = RAM_BASE + 0x8000;
/// TCR_EL1: 39 bits, EPD1, write-back; SCTLR_EL1: RES1, and M, C, I.
const TCR: u64 = 0x19 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 1 << 32;
const SCTLR: u64 = 0x30d0_0980 | 1 | 1 << 2 | 1 << 12;
/// A page of Normal memory, with its access flag.
const PAGE: u64 = 3 << 8 | 1 << 10 | 3;
/// GP, of a guarded page (FEAT_BTI).
const GUARDED: u64 = 1 << 50;
/// Goes on behind the instruction that trapped: mrs x0, elr_el1; add x0, x0, #4; msr elr_el1, x0; eret.
const SKIP: [u32; 4] = [0xd538_4020, 0x9100_1000, 0xd518_4020, 0xd69f_03e0];

/// An instruction's fixed bits and those that the input chooses. Registers are X0 to X7, in X8 to X15 are addresses.
const TEMPLATES: &[(u32, u32)] = &[
    // Data processing: shifted, extended, with carry, conditional, two and three sources, immediates, bit fields.
    (0x0b00_0000, 0xe0c7_7ce7),
    (0x0a00_0000, 0xe0e7_7ce7),
    (0x0b20_0000, 0xe007_fce7),
    (0x1a00_0000, 0xe007_00e7),
    (0x1a80_0000, 0xe007_f4e7),
    (0x3a40_0000, 0xc007_f8ef),
    (0x1ac0_0000, 0x8007_2ce7),
    (0x1b00_0000, 0x8007_9ce7),
    (0x9b20_0000, 0x0087_9ce7),
    (0x5ac0_0000, 0x8000_1ce7),
    (0x1100_0000, 0xe07f_fce7),
    (0x1200_0000, 0xe07f_fce7),
    (0x1280_0000, 0xe07f_ffe7),
    (0x1300_0000, 0xe07f_fce7),
    (0x1380_0000, 0x8047_7ce7),
    (0x1000_0000, 0xe0ff_ffe7),
    // Loads and stores on X8 to X15.
    (0x3900_0100, 0xc0c0_7ce7),
    (0x3800_0100, 0xc0df_fce7),
    (0x3820_6900, 0xc0c7_90e7),
    (0x2800_0100, 0xc1c7_9ce7),
    (0x3d00_0100, 0xc0c0_7ce7),
    (0x2c00_0100, 0xc1c7_9ce7),
    (0x0880_fd00, 0xc040_00e7),
    (0x0800_7d00, 0xc047_80e7),
    (0x3820_0100, 0xc0c7_70e7),
    // Branches within 16 instructions, both ways.
    (0x1400_0000, 0x0000_000f),
    (0x17ff_fff0, 0x0000_000f),
    (0x5400_0000, 0x0000_01ef),
    (0x54ff_fe00, 0x0000_01ef),
    (0x3400_0000, 0x8100_01e7),
    (0x34ff_fe00, 0x8100_01e7),
    (0x3600_0000, 0x81f8_01e7),
    (0x3607_fe00, 0x81f8_01e7),
    (0xd61f_0100, 0x0060_00e0),
    (0xd61f_0200, 0x0060_0020),
    // BTI of all kinds, and PACIASP.
    (0xd503_241f, 0x0000_00c0),
    (0xd503_241f, 0x0000_00c0),
    (0xd503_233f, 0x0000_0000),
    // Flags, system registers, and whatever else.
    (0xd538_4100, 0x0000_0007),
    (0xd518_4200, 0x0000_02e7),
    (0xd50b_7420, 0x0000_0007),
    (0xd50b_7428, 0x0000_0007),
    (0xd538_2040, 0x0000_0007),
    (0xd538_5200, 0x0000_0007),
    (0xd53b_0020, 0x0000_00c7),
    // FP and AdvSIMD: two sources and one, comparisons, moves from and to general registers, three vectors, copies,
    // immediates; FPSR and FPCR.
    (0x1e20_0800, 0x0047_f0e7),
    (0x1e20_4000, 0x0041_80e7),
    (0x1e20_2000, 0x0047_00f8),
    (0x1e26_0000, 0x8041_00e7),
    (0x0e20_0400, 0x60c7_f8e7),
    (0x0e00_0400, 0x601f_78e7),
    (0x0f00_0400, 0x6007_f8e7),
    (0xd51b_4400, 0x0020_0027),
    (0x0000_0000, 0xffff_ffff),
];

/// Tables for RAM, whose first two pages of code are guarded or not.
fn map(memory: &mut Memory, guarded: bool) {
    let mut entry = |address: u64, value: u64| memory.store(address, &value.to_le_bytes()).expect("in RAM");
    entry(TABLES + 8 * (RAM_BASE >> 30), (TABLES + 0x1000) | 3);
    entry(TABLES + 0x1000, (TABLES + 0x2000) | 3);
    for n in 0..RAM_SIZE >> 12 {
        let page = RAM_BASE + (n << 12);
        let is_guarded = guarded && (CODE..CODE + 0x2000).contains(&page);
        entry(TABLES + 0x2000 + 8 * n, page | PAGE | if is_guarded { GUARDED } else { 0 });
    }
}

/// A machine, and what the input makes of it.
struct Side {
    vm: Vm,
}

impl Side {
    fn new(translation: Translation, head: [u8; 8], code: &[u8]) -> Side {
        let mut vm = Vm::new(Config { memory_size: RAM_SIZE, ..Config::default() }).expect("a machine");
        vm.set_translation(translation);
        let memory = vm.memory_mut();
        for vector in 0..16 {
            let words = SKIP.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
            memory.store(VECTORS + vector * 0x80, &words).expect("in RAM");
        }
        for (n, bytes) in code.chunks_exact(5).enumerate() {
            let (template, chosen) = TEMPLATES[usize::from(bytes[0]) % TEMPLATES.len()];
            let bits = u32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]);
            let word = template ^ bits & chosen;
            memory.store(CODE + 4 * n as u64, &word.to_le_bytes()).expect("in RAM");
        }
        map(memory, head[7] & 4 != 0);
        if head[0] & 1 != 0 {
            let line = DATA + u64::from(head[1]) * 64 % 0x1000;
            vm.poison(line..line + 1).expect("in RAM");
        }
        let mut cpu = vm.vcpu(0).expect("a CPU");
        for n in 0..=30 {
            let value = match n {
                8..=14 => DATA + u64::from(head[2].wrapping_mul(n)) * 8,
                15..=17 => CODE + u64::from(head[3] & 63) * 4,
                _ => {
                    u64::from(head[4]).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(n.into())
                        >> (head[5] & 63)
                }
            };
            cpu.set_reg(Reg::X(n), value).expect("a register");
        }
        // Numbers, and any bits; inexact, after which the host's arithmetic may answer, is set or not.
        let vregs = std::array::from_fn(|n| {
            let number = f64::from(head[4]) * 1.1 - f64::from(n as u8);
            let single = u128::from((number as f32).to_bits()) << 64;
            if n % 3 == 0 {
                u128::from(head[5]).wrapping_mul(u128::MAX / 0x1235) << n
            } else {
                single | u128::from(number.to_bits())
            }
        });
        let fpsr = u32::from(head[7] & 1) << 4;
        cpu.set_fp_simd(&FpSimdState { vregs, fpsr, ..FpSimdState::default() }).expect("any state");
        for (reg, value) in
            [(Reg::SpEl1, DATA + 0x800), (Reg::VbarEl1, VECTORS), (Reg::CpacrEl1, 3 << 20), (Reg::Pc, CODE)]
        {
            cpu.set_reg(reg, value).expect("a register");
        }
        if head[7] & 2 != 0 {
            let regs =
                [(Reg::MairEl1, 0xff), (Reg::TcrEl1, TCR), (Reg::Ttbr0El1, TABLES), (Reg::SctlrEl1, SCTLR)];
            for (reg, value) in regs {
                cpu.set_reg(reg, value).expect("a register");
            }
        }
        Side { vm }
    }

    /// Run, and answer as a VMM might. Gives what came.
    fn run(&mut self, budget: u64) -> String {
        let mut cpu = self.vm.vcpu(0).expect("a CPU");
        cpu.set_budget(Some(budget));
        let exit = cpu.run();
        let said = format!("{exit:?}");
        match exit {
            Ok(Exit::Sea(sea)) => {
                let events = VcpuEvents {
                    ext_iabt_pending: sea.is_fetch(),
                    ext_dabt_pending: !sea.is_fetch(),
                    ..VcpuEvents::default()
                };
                cpu.inject(&events).expect("well formed");
            }
            Ok(Exit::Mmio(_)) => cpu.answer_mmio([0x5a; 8]),
            _ => {}
        }
        said
    }
}

/// See the module.
pub(super) fn body(data: &[u8]) {
    let Some((&head, code)) = data.split_first_chunk::<8>() else { return };
    let mut sides = [Translation::Off, Translation::AtFirstUse].map(|mode| Side::new(mode, head, code));
    // Small budgets and large ones.
    for n in 0..12_u8 {
        let budget = if n % 3 == 2 { 300 } else { 1 + u64::from(head[6].wrapping_mul(n) ^ head[7]) % 40 };
        let said = sides.each_mut().map(|side| side.run(budget));
        assert_eq!(said[0], said[1], "budget {n}");
        let hashes = sides.each_ref().map(|side| side.vm.state_hash());
        assert_eq!(hashes[0], hashes[1], "after budget {n}, {budget} steps");
    }
}
