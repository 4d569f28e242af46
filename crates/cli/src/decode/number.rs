//! Numbers as they appear in logs: with and without `0x`, in brackets, in pairs, in the middle of a line.

use std::num::IntErrorKind;

use seawall_arm::Esr;

use super::log::rules::{self, Register};

/// The register of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Esr,
    Dfsr,
    Ifsr,
    Spsr,
}

/// A number, and notes on how it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) kind: Kind,
    pub(super) value: u64,
    pub(super) notes: Vec<String>,
}

/// The numbers of all arguments. An argument that is not a number may be a line of a log; all arguments
/// together may be one, split at its blanks.
///
/// # Errors
/// A message with the expected form.
pub(super) fn all(arguments: &[String], kind: Kind) -> Result<Vec<Given>, String> {
    let each: Result<Vec<Vec<Given>>, String> =
        arguments.iter().map(|argument| one(argument, kind)).collect();
    match each {
        Ok(given) => Ok(given.concat()),
        Err(reason) if arguments.len() == 1 => Err(reason),
        Err(reason) => match by_rules(&arguments.join(" "), kind) {
            none if none.is_empty() => Err(reason),
            found => Ok(found),
        },
    }
}

/// The number of an argument, or those of a line.
fn one(argument: &str, kind: Kind) -> Result<Vec<Given>, String> {
    match number(argument, kind) {
        Ok(mut given) => {
            // No ESR is that small: class 0 comes with IL.
            if kind == Kind::Esr && given.notes.is_empty() && (1..Esr::IL).contains(&given.value) {
                let value = given.value;
                given.notes.push(format!(
                    "{value:#x} is no ESR; the FSR of a 32-bit kernel is read by --dfsr or --ifsr"
                ));
            }
            Ok(vec![given])
        }
        Err(reason) => {
            in_line(argument, kind).map_err(|of_line| if of_line.is_empty() { reason } else { of_line })
        }
    }
}

/// Brackets, quotes and punctuation around a number.
fn peel(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || "()[]{}<>\"'`,;:.=".contains(c))
}

/// A number alone.
fn number(text: &str, kind: Kind) -> Result<Given, String> {
    let peeled = peel(text);
    if let (Some((class, esr)), Kind::Esr) = (peeled.split_once('/'), kind) {
        return pair(text, class, esr);
    }
    let digits = peeled.replace('_', "");
    if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        return Ok(Given { kind, value: radix(text, hex, 16)?, notes: Vec::new() });
    }
    let is_decimal = digits.bytes().all(|byte| byte.is_ascii_digit());
    let is_hex = matches!(kind, Kind::Dfsr | Kind::Ifsr) || digits.len() >= 7 || !is_decimal;
    let value = radix(text, &digits, if is_hex { 16 } else { 10 })?;
    // A kernel writes leading zeroes; numbers below 10 are the same either way.
    let is_ambiguous = is_decimal && digits.len() > 1 && !digits.starts_with('0');
    let notes = match kind {
        Kind::Esr | Kind::Spsr if is_ambiguous => vec![both_readings(&digits, is_hex, kind)],
        _ => Vec::new(),
    };
    Ok(Given { kind, value, notes })
}

fn radix(text: &str, digits: &str, radix: u32) -> Result<u64, String> {
    match u64::from_str_radix(digits, radix) {
        // from_str_radix accepts a sign.
        Ok(number) if !digits.starts_with('+') => Ok(number),
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => {
            Err(format!("expected a number of at most 64 bits, got `{text}`"))
        }
        _ => Err(format!(
            "expected a number such as 0x96000210 or 0000000096000210, or a line of a log, got `{text}`; a \
             kvm_vcpu_events is 64 bytes, 128 hex digits"
        )),
    }
}

/// `0x25/0x96000210`: the class, and the ESR with that class.
fn pair(text: &str, class: &str, esr: &str) -> Result<Given, String> {
    let prefixed = |text: &str| if text.starts_with("0x") { text.to_owned() } else { format!("0x{text}") };
    let mut given = number(&prefixed(esr), Kind::Esr)?;
    let class = number(&prefixed(class), Kind::Esr)?.value;
    let own = Esr::from_bits(given.value).ec().bits();
    if class != u64::from(own) {
        given
            .notes
            .push(format!("`{text}`: the class of {:#x} is {own:#04x}, not {class:#04x}", given.value));
    }
    Ok(given)
}

/// Both readings of bare digits, for stderr.
fn both_readings(digits: &str, is_hex: bool, kind: Kind) -> String {
    let reading = |radix| match u64::from_str_radix(digits, radix) {
        Ok(value) if kind == Kind::Esr => Esr::from_bits(value).to_string(),
        Ok(value) => format!("{value:#x}"),
        Err(_) => "more than 64 bits".into(),
    };
    let (hex, decimal) = (reading(16), reading(10));
    if is_hex {
        return format!("`{digits}` is read as hexadecimal: {hex}; in decimal it would be {decimal}");
    }
    let fsr = match kind {
        Kind::Esr => "; the FSR of a 32-bit kernel is read by --dfsr or --ifsr",
        _ => "",
    };
    format!("`{digits}` is read as decimal: {decimal}; in hexadecimal it would be {hex}{fsr}")
}

/// The values of this kind that [`rules`] finds in a line of a log. Without an option, which means an ESR, an
/// FSR counts too.
fn by_rules(line: &str, kind: Kind) -> Vec<Given> {
    let of_kind = |found: rules::Found| {
        let kind = match (kind, found.register) {
            (Kind::Esr, Register::Esr) => Kind::Esr,
            (Kind::Esr, Register::Dfsr) => Kind::Dfsr,
            (Kind::Esr, Register::Ifsr) => Kind::Ifsr,
            (Kind::Dfsr | Kind::Ifsr, Register::Dfsr | Register::Ifsr) => kind,
            _ => return None,
        };
        Some(Given { kind, value: found.value, notes: Vec::new() })
    };
    rules::registers(line.as_bytes()).into_iter().filter_map(of_kind).collect()
}

/// The values of a line: those that [`rules`] finds, or the only number with a prefix or 7 digits.
///
/// # Errors
/// A message with the expected form; empty if the line has no number at all.
fn in_line(line: &str, kind: Kind) -> Result<Vec<Given>, String> {
    let found = by_rules(line, kind);
    if !found.is_empty() {
        return Ok(found);
    }
    let is_number = |word: &&str| {
        let word = peel(word);
        let digits = word.strip_prefix("0x").unwrap_or(word);
        let is_long = word.len() > digits.len() || digits.len() >= 7;
        is_long
            && digits.contains(|c: char| c.is_ascii_digit())
            && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let numbers: Vec<&str> = line.split_whitespace().filter(is_number).collect();
    match numbers.as_slice() {
        [] => Err(String::new()),
        [only] => Ok(vec![number(only, kind)?]),
        several => Err(format!(
            "expected one number, or a line of a log that says which of its numbers is a syndrome, got {}: {}",
            several.len(),
            several.join(" ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, kind: Kind, value: u64) {
        let given = one(text, kind).unwrap();
        assert_eq!(given.iter().map(|given| given.value).collect::<Vec<_>>(), [value], "{text}");
    }

    #[test]
    fn an_fsr_without_a_prefix_is_hexadecimal_whatever_its_length() {
        for (text, value) in [
            ("5", 0x5),
            ("17", 0x17),
            ("805", 0x805),
            ("817", 0x817),
            ("c06", 0xc06),
            ("1008", 0x1008),
            ("1211", 0x1211),
            ("1406", 0x1406),
            ("00001c06", 0x1c06),
            ("(0x1406)", 0x1406),
        ] {
            check(text, Kind::Dfsr, value);
            check(text, Kind::Ifsr, value);
            assert_eq!(number(text, Kind::Dfsr).unwrap().notes, [""; 0], "{text}");
        }
    }

    #[test]
    fn a_bare_esr_is_hexadecimal_from_7_digits_on() {
        for (text, value) in [
            ("2000000", 0x200_0000),
            ("2000003", 0x200_0003),
            ("96000210", 0x9600_0210),
            ("0000000096000210", 0x9600_0210),
            ("BE000C11", 0xbe00_0c11),
            ("be00", 0xbe00),
            ("101", 101),
            ("999999", 999_999),
            ("0x101", 0x101),
            ("0x9600_0210", 0x9600_0210),
        ] {
            check(text, Kind::Esr, value);
        }
    }

    #[test]
    fn what_could_be_decimal_or_hexadecimal_says_both() {
        let notes = |text| number(text, Kind::Esr).unwrap().notes.concat();
        assert_eq!(
            notes("2000000"),
            "`2000000` is read as hexadecimal: 0x02000000 unknown reason, IL; in decimal it would be 0x001e8480 \
             unknown reason"
        );
        assert_eq!(
            notes("1008"),
            "`1008` is read as decimal: 0x000003f0 unknown reason; in hexadecimal it would be 0x00001008 unknown \
             reason; the FSR of a 32-bit kernel is read by --dfsr or --ifsr"
        );
        for text in ["0x2000000", "0000000096000210", "BE000C11", "be00", "9"] {
            assert_eq!(notes(text), "", "{text}");
        }
    }

    #[test]
    fn what_is_too_small_for_an_esr_may_be_an_fsr() {
        for text in ["0x1008", "c06"] {
            let notes = one(text, Kind::Esr).unwrap()[0].notes.concat();
            assert!(
                notes.ends_with("is no ESR; the FSR of a 32-bit kernel is read by --dfsr or --ifsr"),
                "{notes}"
            );
            assert_eq!(one(text, Kind::Dfsr).unwrap()[0].notes, [""; 0]);
        }
        assert_eq!(one("0x2000000", Kind::Esr).unwrap()[0].notes, [""; 0]);
    }

    #[test]
    fn what_stands_around_a_number_is_peeled_off() {
        for text in [
            "0x96000004,",
            "(0x96000004)",
            "[96000004]",
            "0x96000004:",
            "\"0x96000004\"",
            "(0x96000004),",
            "<0x96000004>.",
            "=0x96000004",
            "0x25/0x96000004",
            "25/96000004,",
        ] {
            check(text, Kind::Esr, 0x9600_0004);
        }
    }

    #[test]
    fn a_class_that_is_not_the_esr_s_is_said() {
        assert_eq!(
            number("0x24/0x96000210", Kind::Esr).unwrap().notes,
            ["`0x24/0x96000210`: the class of 0x96000210 is 0x25, not 0x24"]
        );
    }

    #[test]
    fn a_line_has_its_value_in_it() {
        let data = |value| vec![Given { kind: Kind::Dfsr, value, notes: Vec::new() }];
        let line = "Unhandled fault: imprecise external abort (0x1406) at 0x76f3f000";
        assert_eq!(one(line, Kind::Esr), Ok(data(0x1406)));
        assert_eq!(one(line, Kind::Dfsr), Ok(data(0x1406)));
        let words: Vec<String> =
            "Internal error: Oops: 96000004 [#1] SMP".split(' ').map(str::to_owned).collect();
        let esr = Given { kind: Kind::Esr, value: 0x9600_0004, notes: Vec::new() };
        assert_eq!(all(&words, Kind::Esr), Ok(vec![esr]));
    }

    #[test]
    fn a_line_of_no_known_form_with_one_number_is_that_number() {
        check("the board says 0x92000210 and stops", Kind::Esr, 0x9200_0210);
        let refused = one("the board says 0x92000210 at 0x40080000", Kind::Esr).unwrap_err();
        assert!(refused.ends_with("got 2: 0x92000210 0x40080000"), "{refused}");
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", "0x", "0xzz", "-1", "+5", "0x+5", "hello", "/", "0x25/", "."] {
            let refused = one(text, Kind::Esr).unwrap_err();
            assert!(refused.contains("expected a number such as 0x96000210"), "{text}: {refused}");
        }
        assert!(one("0x1ffffffffffffffff", Kind::Esr).unwrap_err().contains("at most 64 bits"));
    }
}
