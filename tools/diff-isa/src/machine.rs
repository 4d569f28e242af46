//! The other side: the same image at EL0 of the software Arm machine, with the MMU on. A tiny EL1 does the
//! work of the Linux kernel for the process: it answers the few system calls, and records faults.
#![allow(clippy::unnecessary_semicolon, clippy::used_underscore_binding, reason = "in what dynasm! makes")]

use dynasmrt::aarch64::Aarch64Relocation;
use dynasmrt::{DynasmApi, DynasmError, DynasmLabelApi, VecAssembler, dynasm};
use seawall_arm::Reg;
use seawall_inject::{Exit, Inject as _, SystemEvent, Vcpu as _};
use seawall_machine::{Config, Vm};

use crate::case::Outcome;
use crate::image::{self, EXIT, FaultCode, Image};
use crate::layout::{self, record};

/// RAM: from 0x4000_0000 to `layout::UNMAPPED`.
const RAM_BASE: u64 = 0x4000_0000;
const RAM_SIZE: u64 = layout::UNMAPPED - RAM_BASE;
/// EL1's code: the vector table, then the handler.
const VECTORS: u64 = RAM_BASE;
/// EL1's stack grows down from here.
const STACK_TOP: u64 = RAM_BASE + 0x10_0000;
/// Translation tables: levels 1, 2 and 3.
const TABLES: [u64; 3] = [RAM_BASE + 0x10_0000, RAM_BASE + 0x10_1000, RAM_BASE + 0x10_2000];

/// SCTLR_EL1: M, C, I on; EL0 may use DC and IC and read CTR (UCI, UCT, DZE); nothing traps (nTWI, nTWE); no
/// alignment checks (A, SA, SA0 clear). A Linux process has the same, except for SP, which QEMU's user mode
/// does not check.
const SCTLR: u64 = 0x30d0_0800 | 1 | 1 << 2 | 1 << 12 | 1 << 14 | 1 << 15 | 1 << 16 | 1 << 18 | 1 << 26;
/// TCR_EL1: 39-bit TTBR0 region, 4 KiB granule, write-back, inner shareable, TBI0, no TTBR1, 40-bit IPA.
const TCR: u64 = T0SZ_39_BITS | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 2 << 32 | 1 << 37;
const T0SZ_39_BITS: u64 = 64 - 39;
/// MAIR_EL1: attribute 0 is normal write-back memory.
const MAIR: u64 = 0xff;

/// CPACR_EL1.FPEN: FP and AdvSIMD at EL0 and EL1.
const CPACR: u64 = 3 << 20;

/// PSCI functions that end a run.
const SYSTEM_OFF: u32 = 0x8400_0008;
const SYSTEM_RESET: u32 = 0x8400_0009;

/// Steps after which a run is abandoned.
const BUDGET: u64 = 200_000_000;

/// Runs an image to its end.
pub(super) fn run(image: &Image) -> Result<Vec<Outcome>, String> {
    let mut vm = Vm::new(Config { memory_size: RAM_SIZE, ..Config::default() })
        .map_err(|e| format!("machine: {e}"))?;
    let kernel = kernel(image.store_state).map_err(|e| format!("cannot assemble EL1: {e}"))?;
    let memory = vm.memory_mut();
    for (address, bytes) in [
        (VECTORS, kernel.as_slice()),
        (TABLES[0], &table(level_1)),
        (TABLES[1], &table(level_2)),
        (TABLES[2], &table(|i| level_3(i, image))),
        (layout::CODE, &image.code),
        (layout::RECORDS, &image.records),
    ] {
        memory.store(address, bytes).map_err(|e| format!("machine: cannot load {address:#x}: {e}"))?;
    }
    start(&mut vm, image)?;

    let mut records = vec![0; image.records.len()];
    vm.memory_mut().load(layout::RECORDS, &mut records).map_err(|e| format!("machine: {e}"))?;
    Ok(image::outcomes(&records, FaultCode::Syndrome))
}

/// Runs from `image.entry` at EL0 until EL1 asks for SYSTEM_OFF.
fn start(vm: &mut Vm, image: &Image) -> Result<(), String> {
    let mut vcpu = vm.vcpu(0).map_err(|e| format!("machine: {e}"))?;
    for (reg, value) in [
        (Reg::MairEl1, MAIR),
        (Reg::TcrEl1, TCR),
        (Reg::Ttbr0El1, TABLES[0]),
        (Reg::SctlrEl1, SCTLR),
        (Reg::CpacrEl1, CPACR),
        (Reg::VbarEl1, VECTORS),
        (Reg::SpEl1, STACK_TOP),
        (Reg::Pstate, 0),
        (Reg::Pc, image.entry),
    ] {
        vcpu.set_reg(reg, value).map_err(|e| format!("machine: {reg:?}: {e}"))?;
    }
    vcpu.set_budget(Some(BUDGET));
    let exit = vcpu.run().map_err(|e| format!("machine: {e}"))?;
    let pc = vcpu.reg(Reg::Pc).unwrap_or_default();
    let esr = vcpu.reg(Reg::EsrEl1).unwrap_or_default();
    match exit {
        Exit::SystemEvent(SystemEvent::Shutdown) => Ok(()),
        Exit::SystemEvent(SystemEvent::Reset) => {
            let elr = vcpu.reg(Reg::ElrEl1).unwrap_or_default();
            Err(format!("machine: unexpected exception, ESR_EL1 {esr:#x}, ELR_EL1 {elr:#x}"))
        }
        exit => Err(format!("machine: unexpected exit {exit:?} at pc {pc:#x}, ESR_EL1 {esr:#x}")),
    }
}

/// The vector table and the handler of synchronous exceptions from EL0.
fn kernel(store_state: u64) -> Result<Vec<u8>, DynasmError> {
    const ESR_EL1: u32 = 0x4290;
    const ELR_EL1: u32 = 0x4201;
    const FAR_EL1: u32 = 0x4300;
    const EC_SVC64: u32 = 0x15;
    let mut ops: VecAssembler<Aarch64Relocation> = VecAssembler::new(VECTORS as usize);
    for offset in (0..0x800).step_by(0x80) {
        if offset == 0x400 {
            dynasm!(ops ; .arch aarch64 ; b ->from_el0);
        } else {
            dynasm!(ops
                ; .arch aarch64
                ; movz x0, SYSTEM_RESET & 0xffff
                ; movk x0, SYSTEM_RESET >> 16, lsl 16
                ; hvc 0
            );
        }
        dynasm!(ops ; .arch aarch64 ; .align 0x80);
    }
    dynasm!(ops
        ; .arch aarch64
        ; ->from_el0:
        ; sub sp, sp, 32
        ; stp x0, x1, [sp]
        ; stp x2, x3, [sp, 16]
        ; mrs x0, ESR_EL1
        ; lsr x1, x0, 26
        ; cmp x1, EC_SVC64
        ; b.eq ->system_call
        ; movz x2, (layout::RUNNING as u32) & 0xffff
        ; movk x2, (layout::RUNNING >> 16) as u32, lsl 16
        ; ldr x2, [x2]
        ; str x0, [x2, record::FAULT as u32]
        ; mrs x1, ELR_EL1
        ; str x1, [x2, record::FAULT_PC as u32]
        ; mrs x1, FAR_EL1
        ; str x1, [x2, record::FAULT_ADDRESS as u32]
        ; movz x1, (store_state as u32) & 0xffff
        ; movk x1, (store_state >> 16) as u32, lsl 16
        ; msr ELR_EL1, x1
        ; ldp x2, x3, [sp, 16]
        ; ldp x0, x1, [sp]
        ; add sp, sp, 32
        ; eret
        // Any system call but exit returns 0.
        ; ->system_call:
        ; cmp x8, EXIT
        ; b.eq ->off
        ; ldp x2, x3, [sp, 16]
        ; ldp x0, x1, [sp]
        ; add sp, sp, 32
        ; movz x0, 0
        ; eret
        ; ->off:
        ; movz x0, SYSTEM_OFF & 0xffff
        ; movk x0, SYSTEM_OFF >> 16, lsl 16
        ; hvc 0
        ; b ->off
    );
    ops.finalize()
}

/// 512 descriptors.
fn table(descriptor: impl Fn(u64) -> u64) -> Vec<u8> {
    (0..512).flat_map(|i| descriptor(i).to_le_bytes()).collect()
}

const TABLE: u64 = 3;
/// A block or page: valid, AF, inner shareable, attribute 0. EL1 read-write, not executable at EL0.
const BLOCK: u64 = 1 | 1 << 10 | 3 << 8 | UXN;
const PAGE: u64 = BLOCK | 2;
const UXN: u64 = 1 << 54;
const PXN: u64 = 1 << 53;
/// `AP[1]`: EL0 has access. `AP[2]`: read-only.
const EL0: u64 = 1 << 6;
const READ_ONLY: u64 = 1 << 7;

/// The gibibyte of RAM.
fn level_1(i: u64) -> u64 {
    if i == RAM_BASE >> 30 { TABLES[1] | TABLE } else { 0 }
}

/// EL1's 2 MiB, and the 2 MiB of the image.
fn level_2(i: u64) -> u64 {
    match RAM_BASE + (i << 21) {
        RAM_BASE => RAM_BASE | BLOCK,
        layout::CODE => TABLES[2] | TABLE,
        _ => 0,
    }
}

/// The image: code up to its end, data up to `layout::END`, both as in the ELF file.
fn level_3(i: u64, image: &Image) -> u64 {
    let address = layout::CODE + (i << 12);
    if address < layout::CODE + image.code.len() as u64 {
        (address | PAGE | EL0 | READ_ONLY | PXN) & !UXN
    } else if (layout::DATA..layout::END).contains(&address) {
        address | PAGE | EL0 | PXN
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Case, Fault, FaultKind, State, Unit};
    use crate::generate::Cpu;

    /// Runs words from registers that are all 0 except X1, and an empty buffer.
    fn end_of(x1: u64, words: &[u32]) -> Outcome {
        let mut x = [0; 31];
        x[1] = x1;
        let initial = State { x, buffer: vec![0; layout::BUFFER_SIZE as usize], ..State::default() };
        let units = vec![Unit { name: "", words: words.to_vec(), fix: None }];
        let image = image::build(&[Case { initial, units }], Cpu::Max, Some(0x4100_1000)).unwrap();
        assert_eq!(image.sequences, [0x4100_1000]);
        run(&image).unwrap().remove(0)
    }

    #[test]
    fn a_sequence_leaves_its_registers_flags_and_memory_in_the_outcome() {
        // str w1, [x1]; subs x2, x1, x1; mov sp, x1
        let end = end_of(0x4108_7f04, &[0xb900_0021, 0xeb01_0022, 0x9100_003f]);
        assert_eq!(end.fault, None);
        assert_eq!((end.state.x[1], end.state.x[2], end.state.sp), (0x4108_7f04, 0, 0x4108_7f04));
        assert_eq!(end.state.nzcv, 0x6000_0000);
        assert_eq!(end.state.buffer[..9], [0, 0, 0, 0, 0x04, 0x7f, 0x08, 0x41, 0]);
    }

    #[test]
    fn a_fault_ends_a_sequence_with_its_kind_pc_and_address() {
        let fault = |x1, word| end_of(x1, &[0xd503_201f, word]).fault;
        // ldr x3, [x1]; udf #0; brk #0; br x1; br to an odd address
        for (x1, word, kind, pc, address) in [
            (0x4200_0123, 0xf940_0023, FaultKind::Memory, 0x4100_1004, 0x4200_0123),
            (0, 0x0000_0000, FaultKind::Undefined, 0x4100_1004, 0),
            (0, 0xd420_0000, FaultKind::Breakpoint, 0x4100_1004, 0),
            (0x4108_8000, 0xd61f_0020, FaultKind::Memory, 0x4108_8000, 0x4108_8000),
            (0x4100_1002, 0xd61f_0020, FaultKind::Alignment, 0x4100_1002, 0),
        ] {
            assert_eq!(fault(x1, word), Some(Fault { kind, pc, address }), "{word:#010x}");
        }
    }

    /// The words that `undefined::comparable` leaves out because QEMU has the feature, and more of the kind.
    #[test]
    fn words_of_features_that_the_id_registers_do_not_name_are_undefined() {
        for (word, what) in [
            (0x9181_0420, "FEAT_MTE: addg x0, x1, #16, #1"),
            (0xd181_0420, "FEAT_MTE: subg x0, x1, #16, #1"),
            (0x9adf_1020, "FEAT_MTE: irg x0, x1"),
            (0x9ac2_1420, "FEAT_MTE: gmi x0, x1, x2"),
            (0x9ac2_0020, "FEAT_MTE: subp x0, x1, x2"),
            (0xbac2_0020, "FEAT_MTE: subps x0, x1, x2"),
            (0xd920_0821, "FEAT_MTE: stg x1, [x1]"),
            (0xd960_0020, "FEAT_MTE: ldg x0, [x1]"),
            (0x6900_0820, "FEAT_MTE: stgp x0, x2, [x1]"),
            (0xd9a0_1421, "FEAT_MTE: st2g x1, [x1], #16"),
            (0xd503_419f, "FEAT_MTE: msr tco, #1"),
            (0xd50b_7461, "FEAT_MTE: dc gva, x1"),
            (0xd50b_7481, "FEAT_MTE: dc gzva, x1"),
            (0xd50b_7a61, "FEAT_MTE: dc cgvac, x1"),
            (0xc8df_7c20, "FEAT_LOR: ldlar x0, [x1]"),
            (0xc89f_7c20, "FEAT_LOR: stllr x0, [x1]"),
            (0xd500_403f, "FEAT_FlagM2: xaflag"),
            (0xd500_405f, "FEAT_FlagM2: axflag"),
            (0xd50b_7381, "FEAT_SPECRES: cfp rctx, x1"),
            (0xd50b_7d21, "FEAT_DPB2: dc cvadp, x1"),
            (0xd53b_2400, "FEAT_RNG: mrs x0, rndr"),
            (0xdac1_0020, "FEAT_PAuth: pacia x0, x1"),
            (0x9ac2_3020, "FEAT_PAuth: pacga x0, x1, x2"),
            (0xd71f_0822, "FEAT_PAuth: braa x1, x2"),
            (0xf820_0420, "FEAT_PAuth: ldraa x0, [x1]"),
            (0xdac0_2020, "FEAT_CSSC: abs x0, x1"),
            (0x5400_0030, "FEAT_HBC: bc.eq"),
            (0xf83f_d020, "FEAT_LS64: ld64b x0, [x1]"),
            (0xd503_1000, "FEAT_WFxT: wfet x0"),
            (0xd503_323f, "FEAT_XS: dsb oshnxs"),
            (0x1ee0_2820, "FEAT_FP16: fadd h0, h1, h0"),
            (0x0e40_1420, "FEAT_FP16: fadd v0.4h, v1.4h, v0.4h"),
            (0x2e40_8420, "FEAT_RDM: sqrdmlah v0.4h, v1.4h, v0.4h"),
            (0x0e80_9420, "FEAT_DotProd: sdot v0.2s, v1.8b, v0.8b"),
            (0x2e80_c420, "FEAT_FCMA: fcmla v0.2s, v1.2s, v0.2s, #0"),
            (0x1e7e_0020, "FEAT_JSCVT: fjcvtzs w0, d1"),
            (0x1e68_4020, "FEAT_FRINTTS: frint32z d0, d1"),
            (0x0e20_ec20, "FEAT_FHM: fmlal v0.2s, v1.2h, v0.2h"),
            (0x1e63_4020, "FEAT_BF16: bfcvt h0, s1"),
            (0x4e80_a420, "FEAT_I8MM: smmla v0.4s, v1.16b, v0.16b"),
            (0xce60_8020, "FEAT_SHA512: sha512h q0, q1, v0.2d"),
            (0xce00_0020, "FEAT_SHA3: eor3 v0.16b, v1.16b, v0.16b, v0.16b"),
            (0x0480_0000, "no SVE"),
            (0xc080_0000, "no SME"),
        ] {
            let expected = Fault { kind: FaultKind::Undefined, pc: 0x4100_1000, address: 0 };
            assert_eq!(end_of(layout::MIDDLE, &[word]).fault, Some(expected), "{what}");
        }
    }

    #[test]
    fn outcomes_of_different_ends_differ_in_the_first_register_that_does() {
        // movz x5, #1; movz x9, #2
        let (one, other) = (end_of(0, &[0xd280_0025]), end_of(0, &[0xd280_0025, 0xd280_0049]));
        assert_eq!(one.difference(&one), None);
        let (what, ..) = one.difference(&other).unwrap();
        assert_eq!(what, "x9");
    }
}
