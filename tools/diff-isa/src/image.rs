//! The program that runs sequences: one flat image of code and one of data, the same for both sides.
//!
//! For each sequence it copies the record's buffer to the buffer, loads the registers, runs the sequence, and
//! stores the registers and the buffer back into the record. A fault's handler (a signal handler in the
//! process, the EL1 vectors in the machine) records the fault and continues with the storing. At the end all
//! records are written to standard output.
#![allow(
    clippy::unnecessary_semicolon,
    clippy::used_underscore_binding,
    clippy::useless_conversion,
    reason = "in what dynasm! makes"
)]

use dynasmrt::aarch64::Aarch64Relocation;
use dynasmrt::{DynasmApi, DynasmError, DynasmLabelApi, VecAssembler, dynasm};

use crate::case::{Case, Fault, FaultKind, Outcome, State};
use crate::generate::Cpu;
use crate::layout::{self, record};

/// The meaning of a side's fault code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FaultCode {
    /// A Linux signal number.
    Signal,
    /// `ESR_EL1`.
    Syndrome,
}

/// The program.
pub(super) struct Image {
    /// At `layout::CODE`.
    pub(super) code: Vec<u8>,
    /// At `layout::RECORDS`.
    pub(super) records: Vec<u8>,
    /// The entry address.
    pub(super) entry: u64,
    /// The address at which a fault handler must continue.
    pub(super) store_state: u64,
    /// The addresses of the sequences' own words.
    pub(super) sequences: Vec<u64>,
}

/// Linux system call numbers for arm64.
const RT_SIGACTION: u32 = 134;
const SIGALTSTACK: u32 = 132;
const RT_SIGRETURN: u32 = 139;
const WRITE: u32 = 64;
/// The machine's EL1 ends the run on this call.
pub(super) const EXIT: u32 = 93;

/// Offsets in the arm64 signal frame that Linux passes to a handler: `siginfo_t.si_addr`, and `ucontext_t`'s
/// PC.
const SI_ADDR: u32 = 16;
const UC_PC: u32 = 440;

/// System registers as MRS and MSR name them: `o0:op1:CRn:CRm:op2`.
const TPIDR_EL0: u32 = 0x5e82;
const NZCV: u32 = 0x5a10;
const FPCR: u32 = 0x5a20;
const FPSR: u32 = 0x5a21;

/// The initial TPIDR_EL0.
const TPIDR: u64 = 0x5ea_0a11_0000_7154;

/// Assembles `cases` (at most `layout::CAPACITY`) into one image. With `first`, the first case's words are at
/// that address, or as soon after it as possible.
pub(super) fn build(cases: &[Case], cpu: Cpu, first: Option<u64>) -> Result<Image, DynasmError> {
    let mut ops: VecAssembler<Aarch64Relocation> = VecAssembler::new(layout::CODE as usize);
    let records_size = cases.len() as u64 * record::SIZE;

    let store_state = layout::CODE + ops.offset().0 as u64;
    // Every register but the PC belongs to the sequence. TPIDR_EL0 serves as scratch: sequences read it as
    // well.
    dynasm!(ops
        ; .arch aarch64
        ; ->store_state:
        ; msr TPIDR_EL0, x0
        ; ->load_running:
        ; movz x0, (layout::RUNNING as u32) & 0xffff
        ; movk x0, (layout::RUNNING >> 16) as u32, lsl 16
        ; ldr x0, [x0]
        ; stp x1, x2, [x0, 8]
        ; stp x3, x4, [x0, 24]
        ; stp x5, x6, [x0, 40]
        ; stp x7, x8, [x0, 56]
        ; stp x9, x10, [x0, 72]
        ; stp x11, x12, [x0, 88]
        ; stp x13, x14, [x0, 104]
        ; stp x15, x16, [x0, 120]
        ; stp x17, x18, [x0, 136]
        ; stp x19, x20, [x0, 152]
        ; stp x21, x22, [x0, 168]
        ; stp x23, x24, [x0, 184]
        ; stp x25, x26, [x0, 200]
        ; stp x27, x28, [x0, 216]
        ; stp x29, x30, [x0, 232]
        ; mrs x1, TPIDR_EL0
        ; str x1, [x0]
        ; mov x1, sp
        ; str x1, [x0, record::SP as u32]
        ; mrs x1, NZCV
        ; str x1, [x0, record::NZCV as u32]
    );
    for_each_pair(|first, offset| {
        dynasm!(ops ; .arch aarch64 ; stp Q(first), Q(first + 1), [x0, offset]);
    });
    dynasm!(ops
        ; .arch aarch64
        ; mrs x1, FPCR
        ; str x1, [x0, record::FPCR as u32]
        ; mrs x1, FPSR
        ; str x1, [x0, record::FPSR as u32]
    );
    copy_buffer(&mut ops, Direction::ToRecord);
    dynasm!(ops
        ; .arch aarch64
        ; movz x1, (layout::RUNNING as u32) & 0xffff
        ; movk x1, (layout::RUNNING >> 16) as u32, lsl 16
        ; ldr x1, [x1, 8]
        ; br x1
        // x0 = record, x1 = address after the sequence; all but x0, x1, x30 are loaded.
        ; ->load_state:
        ; movz x2, (layout::RUNNING as u32) & 0xffff
        ; movk x2, (layout::RUNNING >> 16) as u32, lsl 16
        ; stp x0, x1, [x2]
    );
    copy_buffer(&mut ops, Direction::FromRecord);
    if cpu == Cpu::Max {
        ops.push_u32(MSR_DIT_0);
    }
    for_each_pair(|first, offset| {
        dynasm!(ops ; .arch aarch64 ; ldp Q(first), Q(first + 1), [x0, offset]);
    });
    dynasm!(ops
        ; .arch aarch64
        ; ldr x1, [x0, record::FPCR as u32]
        ; msr FPCR, x1
        ; ldr x1, [x0, record::FPSR as u32]
        ; msr FPSR, x1
        ; ldr x1, [x0, record::SP as u32]
        ; mov sp, x1
        ; ldr x1, [x0, record::NZCV as u32]
        ; msr NZCV, x1
        ; ldr x1, [x0, record::TPIDR as u32]
        ; msr TPIDR_EL0, x1
        ; clrex
        ; ldp x2, x3, [x0, 16]
        ; ldp x4, x5, [x0, 32]
        ; ldp x6, x7, [x0, 48]
        ; ldp x8, x9, [x0, 64]
        ; ldp x10, x11, [x0, 80]
        ; ldp x12, x13, [x0, 96]
        ; ldp x14, x15, [x0, 112]
        ; ldp x16, x17, [x0, 128]
        ; ldp x18, x19, [x0, 144]
        ; ldp x20, x21, [x0, 160]
        ; ldp x22, x23, [x0, 176]
        ; ldp x24, x25, [x0, 192]
        ; ldp x26, x27, [x0, 208]
        ; ldp x28, x29, [x0, 224]
        ; ret
        // x0 = signal, x1 = siginfo, x2 = ucontext.
        ; ->signal_handler:
        ; movz x3, (layout::RUNNING as u32) & 0xffff
        ; movk x3, (layout::RUNNING >> 16) as u32, lsl 16
        ; ldr x3, [x3]
        ; str x0, [x3, record::FAULT as u32]
        ; ldr x4, [x2, UC_PC]
        ; str x4, [x3, record::FAULT_PC as u32]
        ; ldr x4, [x1, SI_ADDR]
        ; str x4, [x3, record::FAULT_ADDRESS as u32]
        ; adr x4, ->store_state
        ; str x4, [x2, UC_PC]
        ; movz x8, RT_SIGRETURN
        ; svc 0
    );

    let entry = layout::CODE + ops.offset().0 as u64;
    install_handlers(&mut ops);
    if let Some(first) = first {
        dynasm!(ops ; .arch aarch64 ; b ->first);
        while layout::CODE + (ops.offset().0 as u64) + PROLOGUE < first {
            ops.push_u32(0);
        }
        dynasm!(ops ; .arch aarch64 ; ->first:);
    }
    let mut sequences = Vec::with_capacity(cases.len());
    for (i, case) in cases.iter().enumerate() {
        let record = layout::RECORDS + i as u64 * record::SIZE;
        dynasm!(ops
            ; .arch aarch64
            ; movz x0, (record as u32) & 0xffff
            ; movk x0, (record >> 16) as u32, lsl 16
            ; adr x1, >next
            ; bl ->load_state
            ; ldr x30, [x0, 30 * 8]
            ; ldr x1, [x0, 8]
            ; ldr x0, [x0]
        );
        let start = layout::CODE + ops.offset().0 as u64;
        sequences.push(start);
        for word in case.words(start) {
            ops.push_u32(word);
        }
        dynasm!(ops
            ; .arch aarch64
            ; b ->store_state
            ; next:
        );
    }
    dynasm!(ops
        ; .arch aarch64
        ; movz x0, 1
        ; movz x1, (layout::RECORDS as u32) & 0xffff
        ; movk x1, (layout::RECORDS >> 16) as u32, lsl 16
        ; movz x2, (records_size as u32) & 0xffff
        ; movk x2, (records_size >> 16) as u32, lsl 16
        ; movz x8, WRITE
        ; svc 0
        ; movz x0, 0
        ; movz x8, EXIT
        ; svc 0
    );
    let code = ops.finalize()?;
    assert!(
        code.len() as u64 <= layout::DATA - layout::CODE,
        "the code of {} sequences runs into the data",
        cases.len()
    );
    Ok(Image { code, records: records(cases), entry, store_state, sequences })
}

/// Bytes of code before a sequence's own words.
const PROLOGUE: u64 = 7 * 4;

/// MSR DIT, #0.
const MSR_DIT_0: u32 = 0xd503_405f;

/// The even numbers of V registers, and the offset of their pairs in a record.
fn for_each_pair(mut f: impl FnMut(u8, i32)) {
    (0..32).step_by(2).for_each(|first| f(first, record::V as i32 + i32::from(first) * 16));
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToRecord,
    FromRecord,
}

/// Copies the buffer to or from the record in x0. Uses x1 to x5.
fn copy_buffer(ops: &mut VecAssembler<Aarch64Relocation>, direction: Direction) {
    dynasm!(ops
        ; .arch aarch64
        ; add x1, x0, record::BUFFER as u32
        ; movz x2, (layout::BUFFER as u32) & 0xffff
        ; movk x2, (layout::BUFFER >> 16) as u32, lsl 16
        ; movz x3, (layout::BUFFER_SIZE / 16) as u32
    );
    match direction {
        Direction::ToRecord => dynasm!(ops
            ; .arch aarch64
            ; copy:
            ; ldp x4, x5, [x2], 16
            ; stp x4, x5, [x1], 16
        ),
        Direction::FromRecord => dynasm!(ops
            ; .arch aarch64
            ; copy:
            ; ldp x4, x5, [x1], 16
            ; stp x4, x5, [x2], 16
        ),
    }
    dynasm!(ops
        ; .arch aarch64
        ; sub x3, x3, 1
        ; cbnz x3, <copy
    );
}

/// sigaltstack, then the handler for SIGILL, SIGTRAP, SIGBUS, SIGSEGV. The machine's EL1 answers 0 to these calls.
fn install_handlers(ops: &mut VecAssembler<Aarch64Relocation>) {
    const ONSTACK_SIGINFO: u64 = 0x0800_0004;
    dynasm!(ops
        ; .arch aarch64
        ; movz x9, (layout::SIGNAL_ARGUMENTS as u32) & 0xffff
        ; movk x9, (layout::SIGNAL_ARGUMENTS >> 16) as u32, lsl 16
        ; movz x10, (layout::SIGNAL_STACK as u32) & 0xffff
        ; movk x10, (layout::SIGNAL_STACK >> 16) as u32, lsl 16
        ; stp x10, xzr, [x9]
        ; movz x10, layout::SIGNAL_STACK_SIZE as u32
        ; str x10, [x9, 16]
        ; mov x0, x9
        ; movz x1, 0
        ; movz x8, SIGALTSTACK
        ; svc 0
        // struct sigaction: handler, flags, restorer, mask.
        ; adr x10, ->signal_handler
        ; movz x11, (ONSTACK_SIGINFO as u32) & 0xffff
        ; movk x11, (ONSTACK_SIGINFO >> 16) as u32, lsl 16
        ; stp x10, x11, [x9]
        ; stp xzr, xzr, [x9, 16]
    );
    for signal in [SIGILL, SIGTRAP, SIGBUS, SIGSEGV] {
        dynasm!(ops
            ; .arch aarch64
            ; movz x0, signal as u32
            ; mov x1, x9
            ; movz x2, 0
            ; movz x3, 8
            ; movz x8, RT_SIGACTION
            ; svc 0
        );
    }
}

const SIGILL: u64 = 4;
const SIGTRAP: u64 = 5;
const SIGBUS: u64 = 7;
const SIGSEGV: u64 = 11;

/// The initial records.
fn records(cases: &[Case]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(cases.len() * record::SIZE as usize);
    for case in cases {
        let state = &case.initial;
        let words =
            state.x.iter().chain([&state.sp, &state.nzcv, &0, &0, &0, &TPIDR, &state.fpcr, &state.fpsr, &0]);
        bytes.extend(words.flat_map(|word| word.to_le_bytes()));
        bytes.extend(state.v.iter().flat_map(|v| v.to_le_bytes()));
        bytes.extend_from_slice(&state.buffer);
    }
    bytes
}

/// The outcomes in the records after the run.
pub(super) fn outcomes(records: &[u8], code: FaultCode) -> Vec<Outcome> {
    records.chunks_exact(record::SIZE as usize).map(|bytes| outcome(bytes, code)).collect()
}

fn outcome(bytes: &[u8], code: FaultCode) -> Outcome {
    let (words, buffer) = bytes.split_at(record::BUFFER as usize);
    let word = |offset: u64| {
        let at = offset as usize;
        words[at..at + 8].iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
    };
    let mut x = [0; 31];
    for (i, x) in x.iter_mut().enumerate() {
        *x = word(i as u64 * 8);
    }
    let kind = match code {
        FaultCode::Signal => signal_kind(word(record::FAULT)),
        FaultCode::Syndrome => syndrome_kind(word(record::FAULT)),
    };
    let fault = kind.map(|kind| Fault {
        kind,
        pc: word(record::FAULT_PC),
        address: if kind == FaultKind::Memory { canonical(word(record::FAULT_ADDRESS)) } else { 0 },
    });
    let mut v = [0; 32];
    for (i, v) in v.iter_mut().enumerate() {
        let at = record::V + i as u64 * 16;
        *v = u128::from(word(at)) | u128::from(word(at + 8)) << 64;
    }
    let state = State {
        x,
        sp: word(record::SP),
        nzcv: word(record::NZCV),
        v,
        fpcr: word(record::FPCR),
        fpsr: word(record::FPSR),
        buffer: buffer.to_vec(),
    };
    Outcome { state, fault }
}

/// An access over the end of mapped memory may report its own address or that of the page on which it failed
/// (FAR_EL1: "any address in the naturally-aligned block that caused the abort" is not more exact for it).
fn canonical(address: u64) -> u64 {
    if (layout::END - 16..layout::END).contains(&address) { layout::END } else { address }
}

fn signal_kind(signal: u64) -> Option<FaultKind> {
    match signal {
        0 => None,
        SIGILL => Some(FaultKind::Undefined),
        SIGTRAP => Some(FaultKind::Breakpoint),
        SIGBUS => Some(FaultKind::Alignment),
        SIGSEGV => Some(FaultKind::Memory),
        other => Some(FaultKind::Other(other)),
    }
}

/// The kind of fault by exception class, and for data aborts by fault status, as Linux turns them into
/// signals.
fn syndrome_kind(esr: u64) -> Option<FaultKind> {
    const ALIGNMENT_FAULT: u64 = 0x21;
    match (esr >> 26) & 0x3f {
        _ if esr == 0 => None,
        0x00 | 0x07 | 0x18 => Some(FaultKind::Undefined),
        0x24 if esr & 0x3f == ALIGNMENT_FAULT => Some(FaultKind::Alignment),
        0x20 | 0x24 => Some(FaultKind::Memory),
        0x22 | 0x26 => Some(FaultKind::Alignment),
        0x3c => Some(FaultKind::Breakpoint),
        _ => Some(FaultKind::Other(esr)),
    }
}
