//! Bytes in the formats of `hexdump -C`, `xxd` and plain hexadecimal.

use crate::parse;

/// The largest dump in bytes, including the lines that `*` stands for.
const LIMIT: usize = 4 << 20;

/// The bytes of digits alone, or of lines that each begin with an offset.
///
/// # Errors
/// A message with the expected form, and the line found.
pub(super) fn bytes(text: &str) -> Result<Vec<u8>, String> {
    let is_dump = text.trim_start().split([':', ' ', '\n']).next().is_some_and(|offset| {
        let rest = text.trim_start().get(offset.len()..).unwrap_or_default();
        offset.len() >= 7 && (rest.starts_with(':') || rest.starts_with("  "))
    });
    if let Some(bytes) = parse::bytes(text.trim()).filter(|bytes| !is_dump && !bytes.is_empty()) {
        return Ok(bytes);
    }
    let mut bytes: Vec<u8> = Vec::new();
    let mut first = None;
    let mut is_repeated = false;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if line == "*" {
            is_repeated = true;
            continue;
        }
        let refuse = || {
            let got: String = line.chars().take(60).collect();
            format!("expected hexadecimal digits, or `hexdump -C` or `xxd` of the bytes, got `{got}`")
        };
        let (offset, more) = parse_line(line).ok_or_else(refuse)?;
        let at =
            offset.checked_sub(*first.get_or_insert(offset)).filter(|at| *at <= LIMIT).ok_or_else(refuse)?;
        if is_repeated {
            repeat(&mut bytes, at);
            is_repeated = false;
        }
        if at != bytes.len() {
            return Err(format!(
                "expected the line of offset {:#x}, got that of {offset:#x}",
                offset - at + bytes.len()
            ));
        }
        bytes.extend(more);
    }
    if bytes.is_empty() { Err("expected hexadecimal digits, got none".into()) } else { Ok(bytes) }
}

/// `*`: repeats the line before, up to `end`.
fn repeat(bytes: &mut Vec<u8>, end: usize) {
    let start = bytes.len().saturating_sub(16);
    let line = bytes.get(start..).unwrap_or_default().to_vec();
    let missing = end.saturating_sub(bytes.len());
    bytes.extend(line.into_iter().cycle().take(missing));
}

/// The offset of a line, and its bytes: `00000000: 1100 0000  ....` of xxd, `00000000  11 00 |..|` of hexdump.
fn parse_line(line: &str) -> Option<(usize, Vec<u8>)> {
    let (offset, rest) = match line.split_once(':') {
        Some((offset, rest)) if !offset.contains(' ') => {
            let rest = rest.trim_start();
            (offset, rest.split_once("  ").map_or(rest, |(digits, _)| digits))
        }
        _ => {
            let (offset, rest) = line.split_once(' ').unwrap_or((line, ""));
            (offset, rest.split_once('|').map_or(rest, |(digits, _)| digits))
        }
    };
    let offset = usize::from_str_radix(offset.trim_start_matches("0x"), 16).ok()?;
    Some((offset, parse::bytes(rest)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_alone_may_be_grouped() {
        for text in ["11000000", "0x11000000", "11 00 00 00", "11:00:00:00", "1100 0000\n"] {
            assert_eq!(bytes(text), Ok(vec![0x11, 0, 0, 0]), "{text}");
        }
    }

    #[test]
    fn hexdump_and_xxd_come_to_the_same() {
        let expected: Vec<u8> = (0..18).collect();
        for text in [
            "00000000  00 01 02 03 04 05 06 07  08 09 0a 0b 0c 0d 0e 0f  |................|\n\
             00000010  10 11                                             |..|\n00000012\n",
            "00000000: 0001 0203 0405 0607 0809 0a0b 0c0d 0e0f  ................\n\
             00000010: 1011                                     ..\n",
            // Not from the beginning; the text column looks like digits.
            "00000100: 0001 0203 0405 0607 0809 0a0b 0c0d 0e0f  00 11 22 33 4455\n00000110: 1011  ab\n",
        ] {
            assert_eq!(bytes(text), Ok(expected.clone()), "{text}");
        }
    }

    #[test]
    fn a_star_stands_for_equal_lines() {
        let text = "00000000  aa 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|\n*\n\
                    00000030  01                                                |.|\n00000031\n";
        let bytes = bytes(text).unwrap();
        assert_eq!(bytes.len(), 49);
        assert_eq!((bytes[0], bytes[16], bytes[32], bytes[48]), (0xaa, 0xaa, 0xaa, 1));
    }

    #[test]
    fn a_line_that_is_missing_is_said() {
        let text = "00000000: 0001 0203 0405 0607 0809 0a0b 0c0d 0e0f  ...\n00000020: 1011  ..\n";
        assert_eq!(bytes(text), Err("expected the line of offset 0x10, got that of 0x20".into()));
    }

    #[test]
    fn a_star_cannot_ask_for_more_than_the_limit() {
        let refused = bytes("00000000  aa |.|\n*\nffffffff  01 |.|\n").unwrap_err();
        assert!(refused.starts_with("expected hexadecimal digits"), "{refused}");
    }

    #[test]
    fn what_is_no_hexadecimal_is_refused() {
        for text in ["", " ", "hello", "0x", "123", "00000000: 00zz"] {
            assert!(bytes(text).unwrap_err().starts_with("expected hexadecimal digits"), "{text}");
        }
    }
}
