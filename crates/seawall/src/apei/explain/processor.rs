//! The Arm processor error section: UEFI 2.10, N.2.4.4.

use seawall_arm::{Dfsr, Esr};

use super::layout::{Field, Part, Spec, decimal, fields, hex, number};
use super::{Malformed, names};

/// Bytes before the first error information structure.
pub(super) const HEADER: usize = 40;
/// Bytes of an error information structure.
pub(super) const INFORMATION: usize = 32;
/// Bytes of a context before its registers.
const CONTEXT: usize = 8;

const SECTION: &[Spec] = &[
    hex("validation_bits", 0, 4),
    decimal("err_info_num", 4, 2),
    decimal("context_info_num", 6, 2),
    decimal("section_length", 8, 4),
    decimal("error_affinity_level", 12, 1).valid(1),
    hex("mpidr", 16, 8).valid(0),
    hex("midr", 24, 8),
    hex("running_state", 32, 4).valid(2).means(running),
    decimal("psci_state", 36, 4).valid(2),
];

const ERROR_INFORMATION: &[Spec] = &[
    decimal("version", 0, 1),
    decimal("length", 1, 1),
    hex("validation_bits", 2, 2),
    hex("error_type", 4, 1).means(error_type),
    decimal("multiple_error", 5, 2).valid(0).means(count),
    hex("flags", 7, 1).valid(1).means(information_flags),
    hex("error_info", 8, 8).valid(2),
    hex("virtual_fault_address", 16, 8).valid(3),
    hex("physical_fault_address", 24, 8).valid(4),
];

const CONTEXT_HEADER: &[Spec] = &[
    decimal("version", 0, 2),
    decimal("register_context_type", 2, 2).means(context_type),
    decimal("register_array_size", 4, 4),
];

fn running(state: u64) -> String {
    if state & 1 == 1 { "running" } else { "not running, see psci_state" }.into()
}

/// A bit set since UEFI 2.9A and a number before; the text gives the number's meaning too if it differs.
fn error_type(kind: u64) -> String {
    const BITS: &[(u32, &str)] = &[(1, "cache"), (2, "TLB"), (3, "bus"), (4, "micro-architectural")];
    const BEFORE: [&str; 4] = ["cache", "TLB", "bus", "micro-architectural"];
    let before = usize::try_from(kind).ok().and_then(|kind| BEFORE.get(kind));
    match (names::flags(kind, BITS), before) {
        (now, None) => now,
        (now, Some(before)) if now.is_empty() || kind & 1 == 1 => format!("{before} (before UEFI 2.9A)"),
        (now, Some(before)) => format!("{now}; before UEFI 2.9A: {before}"),
    }
}

fn count(more: u64) -> String {
    match more {
        0 => "one error".into(),
        1 => "several errors".into(),
        _ => format!("{more} errors"),
    }
}

fn information_flags(value: u64) -> String {
    names::flags(value, &[(0, "first captured"), (1, "last captured"), (2, "propagated"), (3, "overflow")])
}

const CONTEXTS: [(&str, usize, &[&str]); 8] = [
    (
        "AArch32 general purpose registers",
        4,
        &[
            "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11", "r12", "r13_sp",
            "r14_lr", "r15_pc",
        ],
    ),
    (
        "AArch32 EL1 system registers",
        4,
        &[
            "dfar", "dfsr", "ifar", "isr", "mair0", "mair1", "midr", "mpidr", "nmrr", "prrr", "sctlr",
            "spsr", "spsr_abt", "spsr_fiq", "spsr_irq", "spsr_svc", "spsr_und", "tpidrprw", "tpidruro",
            "tpidrurw", "ttbcr", "ttbr0", "ttbr1", "dacr",
        ],
    ),
    (
        "AArch32 EL2 system registers",
        4,
        &[
            "elr_hyp",
            "hamair0",
            "hamair1",
            "hcr",
            "hcr2",
            "hdfar",
            "hifar",
            "hpfar",
            "hsr",
            "htcr",
            "htpidr",
            "httbr",
            "spsr_hyp",
            "vtcr",
            "vttbr",
            "dacr32_el2",
        ],
    ),
    ("AArch32 secure system registers", 4, &["sctlr", "spsr_mon"]),
    (
        "AArch64 general purpose registers",
        8,
        &[
            "x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14",
            "x15", "x16", "x17", "x18", "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28",
            "x29", "x30", "sp",
        ],
    ),
    (
        "AArch64 EL1 system registers",
        8,
        &[
            "elr_el1",
            "esr_el1",
            "far_el1",
            "isr_el1",
            "mair_el1",
            "midr_el1",
            "mpidr_el1",
            "sctlr_el1",
            "sp_el0",
            "sp_el1",
            "spsr_el1",
            "tcr_el1",
            "tpidr_el0",
            "tpidr_el1",
            "tpidrro_el0",
            "ttbr0_el1",
            "ttbr1_el1",
        ],
    ),
    (
        "AArch64 EL2 system registers",
        8,
        &[
            "elr_el2",
            "esr_el2",
            "far_el2",
            "hacr_el2",
            "hcr_el2",
            "hpfar_el2",
            "mair_el2",
            "sctlr_el2",
            "sp_el2",
            "spsr_el2",
            "tcr_el2",
            "tpidr_el2",
            "ttbr0_el2",
            "vtcr_el2",
            "vttbr_el2",
        ],
    ),
    (
        "AArch64 EL3 system registers",
        8,
        &[
            "elr_el3",
            "esr_el3",
            "far_el3",
            "mair_el3",
            "sctlr_el3",
            "sp_el3",
            "spsr_el3",
            "tcr_el3",
            "tpidr_el3",
            "ttbr0_el3",
        ],
    ),
];

fn context(kind: u64) -> Option<&'static (&'static str, usize, &'static [&'static str])> {
    CONTEXTS.get(usize::try_from(kind).ok()?)
}

fn context_type(kind: u64) -> String {
    match (context(kind), kind) {
        (Some((name, ..)), _) => (*name).to_owned(),
        (None, 8) => "a system register by its encoding".into(),
        _ => "reserved".into(),
    }
}

/// The parts of an Arm processor error section at `base`, as far as its bytes reach, and the problems found.
pub(super) fn section(bytes: &[u8], base: usize) -> (Vec<Part>, Option<Malformed>) {
    let part = |name: String, at: usize, size: usize, fields| Part { name, offset: base + at, size, fields };
    let validation = number(bytes, 0, 4).unwrap_or(0);
    let fields_of_section = fields(SECTION, bytes, base, validation);
    let mut parts = vec![part("Arm processor error".into(), 0, HEADER.min(bytes.len()), fields_of_section)];
    let lacks = |at: usize, expected: String| {
        Some(Malformed::short(base + at, expected, bytes.len().saturating_sub(at)))
    };
    if bytes.len() < HEADER {
        return (parts, lacks(0, format!("{HEADER} bytes of an Arm processor error")));
    }
    let mut at = HEADER;
    for n in 0..number(bytes, 4, 2).unwrap_or(0) {
        let Some(structure) = bytes.get(at..at + INFORMATION) else {
            return (parts, lacks(at, format!("{INFORMATION} bytes of error information {n}")));
        };
        let validation = number(structure, 2, 2).unwrap_or(0);
        let mut all = fields(ERROR_INFORMATION, structure, base + at, validation);
        if validation >> 2 & 1 == 1 {
            all.extend(error_info(structure, base + at + 8));
        }
        parts.push(part(format!("error information {n}"), at, INFORMATION, all));
        at += INFORMATION;
    }
    for n in 0..number(bytes, 6, 2).unwrap_or(0) {
        let size = number(bytes, at + 4, 4).and_then(|size| usize::try_from(size).ok()?.checked_add(CONTEXT));
        let structure = size.and_then(|size| bytes.get(at..at.checked_add(size)?));
        let Some(structure) = structure else {
            let expected = size.unwrap_or(CONTEXT);
            return (parts, lacks(at, format!("{expected} bytes of context {n}")));
        };
        let mut all = fields(CONTEXT_HEADER, structure, base + at, 0);
        all.extend(registers(structure, base + at));
        parts.push(part(format!("context {n}"), at, structure.len(), all));
        at += structure.len();
    }
    (parts, None)
}

/// The registers of a context, as far as its bytes reach.
fn registers(structure: &[u8], base: usize) -> Vec<Field> {
    let Some((_, size, names)) = number(structure, 2, 2).and_then(context) else { return Vec::new() };
    let specs = names.iter().enumerate().map(|(n, name)| {
        let spec = hex(name, CONTEXT + n * size, *size);
        match *name {
            "esr_el1" | "esr_el2" | "esr_el3" | "hsr" => spec.means(|esr| Esr::from_bits(esr).to_string()),
            "dfsr" => spec.means(|dfsr| Dfsr::from_bits(dfsr as u32).to_string()),
            _ => spec,
        }
    });
    specs.filter_map(|spec| spec.read(structure, base, 0)).collect()
}

/// The fields within `error_info` of a cache, TLB or bus error, by their own validation bits; the first seven are the
/// same in all three. UEFI 2.10, tables N.20 to N.22.
fn error_info(structure: &[u8], offset: usize) -> Vec<Field> {
    const TRANSACTION: &[&str] = &["instruction", "data access", "generic"];
    const OPERATION: &[&str] = &[
        "generic error",
        "generic read",
        "generic write",
        "data read",
        "data write",
        "instruction fetch",
        "prefetch",
    ];
    const CACHE_OPERATION: &[&str] = &["eviction", "snooping", "snooped", "management"];
    const TLB_OPERATION: &[&str] = &["local management operation", "external management operation"];
    const PARTICIPATION: &[&str] =
        &["request of this processor", "response of this processor", "seen by this processor", "generic"];
    const SPACE: &[&str] = &["external memory", "internal memory", "unknown", "device memory"];
    const CACHE: u64 = 1 << 1;
    const TLB: u64 = 1 << 2;
    const BUS: u64 = 1 << 3;
    let (kind, info) = (number(structure, 4, 1).unwrap_or(0), number(structure, 8, 8).unwrap_or(0));
    let field = |name, bit: u32, msb: u32, lsb: u32, words: &[&str], more: &[&str]| {
        let value = info >> lsb & ((1 << (msb - lsb + 1)) - 1);
        let word = words.iter().chain(more).nth(value as usize).copied();
        let meaning = word.unwrap_or(if words.is_empty() { "" } else { "reserved" }).to_owned();
        Field { name, offset, size: 8, value: value.to_string(), valid: Some(info >> bit & 1 == 1), meaning }
    };
    let operations = match kind {
        CACHE => CACHE_OPERATION,
        TLB => TLB_OPERATION,
        _ => &[],
    };
    let mut all = vec![
        field("transaction_type", 0, 17, 16, TRANSACTION, &[]),
        field("operation", 1, 21, 18, OPERATION, operations),
        field("level", 2, 24, 22, &[], &[]),
        field("processor_context_corrupt", 3, 25, 25, &["not corrupted", "corrupted"], &[]),
        field("corrected", 4, 26, 26, &["not corrected", "corrected"], &[]),
        field("precise_pc", 5, 27, 27, &["imprecise", "precise"], &[]),
        field("restartable_pc", 6, 28, 28, &["not restartable", "restartable"], &[]),
    ];
    if kind == BUS {
        all.extend([
            field("participation_type", 7, 30, 29, PARTICIPATION, &[]),
            field("time_out", 8, 31, 31, &["no timeout", "timed out"], &[]),
            field("address_space", 9, 33, 32, SPACE, &[]),
            field("memory_access_attributes", 10, 42, 34, &[], &[]),
            field("access_mode", 11, 43, 43, &["secure", "normal"], &[]),
        ]);
    }
    all
}
