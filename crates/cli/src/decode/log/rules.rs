//! The places of registers in the lines of logs.
//!
//! A rule depends on the text before a number, not on the program that wrote the line: a QEMU dump in a Linux
//! log is found like one alone.

use std::sync::LazyLock;

use regex::bytes::{Captures, Regex, RegexBuilder, RegexSet, RegexSetBuilder};
use seawall_arm::Esr;

/// The register of a number in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::decode) enum Register {
    Esr,
    Dfsr,
    Ifsr,
}

/// A register in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::decode) struct Found {
    /// The name of the rule, for JSON's `found_as`.
    pub(super) rule: &'static str,
    /// Start and end of its digits in the line, in bytes.
    pub(super) at: (usize, usize),
    pub(in crate::decode) register: Register,
    pub(in crate::decode) value: u64,
}

/// The register of a rule's number.
#[derive(Clone, Copy)]
enum Reading {
    Esr,
    /// `ISS[24:0]` of an SError.
    SErrorIss,
    /// An FSR: `IFSR` if the name begins so, otherwise `DFSR`.
    Fsr,
    /// An FSR of a 32-bit kernel, or an ESR of a 64-bit one, by its size.
    Either,
}

struct Rule {
    name: &'static str,
    /// Group `v` is the number, group `k` (if there) the register's name or the kind of abort.
    pattern: &'static str,
    reading: Reading,
}

/// In the order of precedence: a number belongs to the first rule that finds it.
const RULES: &[Rule] = &[
    // Linux: "Internal error: synchronous external abort: 0000000096000210 [#1] SMP", 32-bit "Internal error: : 1008".
    Rule {
        name: "oops",
        pattern: r"internal error:.*?: (?:0x)?(?P<v>[0-9a-f]{1,16}) \[#[0-9]",
        reading: Reading::Either,
    },
    // Linux, 32-bit and early 64-bit: "Unhandled fault: external abort on non-linefetch (0x1008) at 0xf0a2c000".
    Rule {
        name: "unhandled-fault",
        pattern: r"unhandled (?P<k>prefetch abort|fault):.*?\(0x(?P<v>[0-9a-f]{1,16})\)",
        reading: Reading::Either,
    },
    // Linux, 32-bit: "cat: unhandled page fault (11) at 0x00000000, code 0x817".
    Rule {
        name: "page-fault-code",
        pattern: r"unhandled page fault \([0-9]+\) at (?:0x)?[0-9a-f]+, code (?:0x)?(?P<v>[0-9a-f]{1,8})\b",
        reading: Reading::Either,
    },
    // Linux: "SError Interrupt on CPU0, code 0x00000000be000011 -- SError", "Bad mode in ... handler ..., code 0x...".
    Rule {
        name: "serror-code",
        pattern: r"(?:serror|bad mode)\b.*?\bcode:? (?:0x)?(?P<v>[0-9a-f]{7,16})\b",
        reading: Reading::Esr,
    },
    // TF-A: "exception reason=1 syndrome=0xbf000002".
    Rule {
        name: "ea-syndrome",
        pattern: r"exception reason ?= ?[0-9]+,? syndrome ?= ?(?:0x)?(?P<v>[0-9a-f]{7,16})\b",
        reading: Reading::Esr,
    },
    // KVM's kvm_vcpu_events.exception.serror_esr and VSESR_EL2: an ISS.
    Rule {
        name: "serror-iss",
        pattern: r#"\b(?:serror_esr|vsesr(?:_el2)?)\b["']?\s*[:=]?\s*["']?0x(?P<v>[0-9a-f]{1,16})\b"#,
        reading: Reading::SErrorIss,
    },
    // "ESR = 0x96000004", "esr_el1 2000000", "ESR:f2000800", "with ESR 0x25/0x96000010", "HSR=0x93820007", "exit_esr":"0x...".
    Rule {
        name: "esr",
        pattern: r#"\b(?:[a-z0-9]+_)*(?:esr|hsr)(?:_el[123])?\b["']?\s*(?:\b(?:is|was|value)\b\s*)?[:=]?\s*["']?(?:0x[0-9a-f]{1,2}/)?(?:0x(?P<v>[0-9a-f]{1,16})|(?P<w>[0-9a-f]{7,16}))\b"#,
        reading: Reading::Esr,
    },
    // "DFSR 0x8", "FSR=00001008", "(FSR=0x00001c06)", "FSR 0x811".
    Rule {
        name: "fsr",
        pattern: r#"\b(?P<k>[di]?fsr)\b["']?(?:\s*[:=]\s*["']?(?:0x)?|\s+0x)(?P<v>[0-9a-f]{1,8})\b"#,
        reading: Reading::Fsr,
    },
];

/// A pattern as a regular expression over bytes: ASCII, in any case.
pub(super) fn regex(pattern: &str) -> Regex {
    let built = RegexBuilder::new(pattern).unicode(false).case_insensitive(true).build();
    built.expect("a constant pattern, which the tests compile")
}

static SET: LazyLock<RegexSet> = LazyLock::new(|| {
    let patterns = RULES.iter().map(|rule| rule.pattern);
    let built = RegexSetBuilder::new(patterns).unicode(false).case_insensitive(true).build();
    built.expect("constant patterns, which the tests compile")
});

static REGEXES: LazyLock<Vec<Regex>> =
    LazyLock::new(|| RULES.iter().map(|rule| regex(rule.pattern)).collect());

/// The registers in a line, from left to right.
pub(in crate::decode) fn registers(line: &[u8]) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    for (rule, regex) in SET.matches(line).into_iter().filter_map(|n| RULES.get(n).zip(REGEXES.get(n))) {
        for captures in regex.captures_iter(line) {
            let Some(next) = rule.read(&captures) else { continue };
            if found.iter().all(|known| known.at != next.at) {
                found.push(next);
            }
        }
    }
    found.sort_by_key(|found| found.at);
    found
}

/// A hexadecimal number in a line.
pub(super) fn hexadecimal(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

impl Rule {
    fn read(&self, captures: &Captures) -> Option<Found> {
        let digits = captures.name("v").or_else(|| captures.name("w"))?;
        let name = captures.name("k").map_or(&b""[..], |name| name.as_bytes());
        let is_instruction = name.first().is_some_and(|c| matches!(c, b'i' | b'I' | b'p' | b'P'));
        let value = hexadecimal(digits.as_bytes())?;
        let fsr = if is_instruction { Register::Ifsr } else { Register::Dfsr };
        let (register, value) = match self.reading {
            // A register that was never written.
            _ if value == 0 => return None,
            Reading::SErrorIss if value <= Esr::ISS_MASK => (Register::Esr, SERROR | value),
            Reading::Fsr => (fsr, value),
            Reading::Either if value <= FSR_MASK => (fsr, value),
            // Linux marks a prefetch abort by this bit: FSR_LNX_PF.
            Reading::Either if value & !FSR_MASK == 1 << 31 => (Register::Ifsr, value & FSR_MASK),
            // Bits [63:56] are RES0: a number with any of them set is an address.
            Reading::Esr | Reading::Either if value >> 56 == 0 => (Register::Esr, value),
            _ => return None,
        };
        Some(Found { rule: self.name, at: (digits.start(), digits.end()), register, value })
    }
}

/// EC of an SError, and IL.
const SERROR: u64 = 0x2f << 26 | Esr::IL;
/// FnV `[16]` and the bits below it.
const FSR_MASK: u64 = 0x1_ffff;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: &[(&str, Register, u64)]) {
        let found: Vec<_> = registers(line.as_bytes())
            .iter()
            .map(|found| (found.rule, found.register, found.value))
            .collect();
        assert_eq!(found, expected, "{line}");
    }

    #[test]
    fn an_oops_of_a_64_bit_kernel_has_an_esr() {
        for line in [
            "Internal error: synchronous external abort: 96000210 [#1] SMP",
            "[    3.1] Internal error: synchronous external abort: 0000000096000210 [#1]  SMP",
            "Internal error: Oops: 0x96000210 [#1] PREEMPT SMP",
        ] {
            check(line, &[("oops", Register::Esr, 0x9600_0210)]);
        }
    }

    #[test]
    fn an_oops_of_a_32_bit_kernel_has_an_fsr() {
        check("Internal error: Oops: 5 [#1] SMP ARM", &[("oops", Register::Dfsr, 0x5)]);
        check("Internal error: Oops: 817 [#1] PREEMPT SMP ARM", &[("oops", Register::Dfsr, 0x817)]);
        check("Internal error: : 1008 [#1] SMP ARM", &[("oops", Register::Dfsr, 0x1008)]);
        check("Internal error: : 1406 [#2] ARM", &[("oops", Register::Dfsr, 0x1406)]);
        check("Internal error: Oops: 80000005 [#1] SMP ARM", &[("oops", Register::Ifsr, 0x5)]);
        check("Internal error: Oops - undefined instruction: 0 [#1] SMP ARM", &[]);
    }

    #[test]
    fn the_class_of_a_pair_is_no_value() {
        check("...with ESR 0x25/0x96000010", &[("esr", Register::Esr, 0x9600_0010)]);
        check("...with ESR 0x0/0x2000000", &[("esr", Register::Esr, 0x200_0000)]);
    }

    #[test]
    fn words_that_look_like_numbers_are_none() {
        for line in [
            " ESR : EC 0x25  IL 0x1  ISS 0x00000010",
            "HSR_EC: 0x0024 (DABT_LOW), PC: 0xffff800008012345",
            "  ESR decode follows",
            "esr bad",
            "FSR bad",
            "FSR dead beef",
            "FPSR 0x00000000  FPCR 0x00000000",
            "esr: 0",
            "esr_el1        = 0x0000000000000000",
            "DFSR 0x00000000  DFAR 0x00000000",
            "ESR_EL2: ffff000000081234",
            "usermode code 0x1000 -- done",
            "EDAC MC0: 1 CE on DIMM (syndrome:0x9600 page:0x1)",
            "Oops: 0002 [#1] SMP PTI",
            "fieldesr 0x96000004",
        ] {
            check(line, &[]);
        }
    }

    #[test]
    fn the_iss_of_a_virtual_serror_has_its_class_added() {
        check("serror_esr: 0x100c11", &[("serror-iss", Register::Esr, 0xbe10_0c11)]);
        check("VSESR_EL2 = 0x1000c11", &[("serror-iss", Register::Esr, 0xbf00_0c11)]);
    }

    #[test]
    fn several_registers_of_a_line_are_found_in_their_order() {
        check(
            " DFSR 0x00000008  DFAR 0x10000000  IFSR 0x00000005  IFAR 0x00000000",
            &[("fsr", Register::Dfsr, 0x8), ("fsr", Register::Ifsr, 0x5)],
        );
    }

    #[test]
    fn bytes_that_are_no_text_do_no_harm() {
        let found = registers(b"\xff\xfe esr 0x96000004 \x80");
        assert_eq!(found.len(), 1);
    }
}
