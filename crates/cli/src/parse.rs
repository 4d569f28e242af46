//! Parsers for numbers, sizes and ranges in options.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::IntErrorKind;
use std::path::PathBuf;

use tracing_subscriber::filter::{LevelFilter, Targets};

/// A number: `0x` hexadecimal (with or without `_`), or decimal.
pub(crate) fn number(text: &str) -> Result<u64, String> {
    let digits = text.replace('_', "");
    let parsed = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => digits.parse(),
    };
    match parsed {
        // from_str accepts a sign.
        Ok(number) if !text.contains('+') => Ok(number),
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => {
            Err(format!("expected a number of at most 64 bits, got `{text}`"))
        }
        _ => Err(format!("expected a number such as 0x40080000 or 4096, got `{text}`")),
    }
}

/// A count: a [`number`], or decimal with an exponent, such as `1e9` or `2.5e6`.
pub(crate) fn count(text: &str) -> Result<u64, String> {
    let expected = || {
        format!("expected a whole number of at most 64 bits, such as 1000, 10_000_000 or 1e9, got `{text}`")
    };
    let digits = text.replace('_', "");
    let Some((digits, exponent)) = digits.split_once(['e', 'E']).filter(|_| !digits.starts_with("0x")) else {
        return number(text).map_err(|_| expected());
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction_digits = fraction.trim_end_matches('0');
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) || !is_digits(exponent) {
        return Err(expected());
    }
    let digits: Option<u64> = format!("{whole}{fraction_digits}").parse().ok();
    let shift = exponent
        .parse::<u32>()
        .ok()
        .and_then(|exponent| exponent.checked_sub(u32::try_from(fraction_digits.len()).ok()?));
    let scale = shift.and_then(|shift| 10_u64.checked_pow(shift));
    digits.zip(scale).and_then(|(digits, scale)| digits.checked_mul(scale)).ok_or_else(expected)
}

/// A size in bytes, with an optional suffix K, M or G (powers of 1024).
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.trim_end_matches(['B', 'b', 'i']).char_indices().last() {
        Some((n, 'K' | 'k')) => (&text[..n], 10),
        Some((n, 'M' | 'm')) => (&text[..n], 20),
        Some((n, 'G' | 'g')) => (&text[..n], 30),
        _ => (text, 0),
    };
    let value =
        number(digits).map_err(|_| format!("expected a size such as 64M or 0x100000, got `{text}`"))?;
    match value.checked_shl(shift) {
        Some(size) if size >> shift == value => Ok(size),
        _ => Err(format!("a size of {text} does not fit 64 bits")),
    }
}

/// An address to listen on: an address with a port, or a port on this host alone.
pub(crate) fn listen(text: &str) -> Result<SocketAddr, String> {
    let here = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    text.parse().or_else(|_| text.parse().map(here)).map_err(|_| {
        format!(
            "expected a port up to 65535, which is one of 127.0.0.1, or an address with a port such as 0.0.0.0:9184 \
             or [::1]:9184, got `{text}`"
        )
    })
}

/// The targets of the log: a level, or `TARGET=LEVEL`, separated by commas.
pub(crate) fn log(text: &str) -> Result<Targets, String> {
    // `LevelFilter` parses an empty text as `error`.
    let is_level = |level: &str| !level.is_empty() && level.parse::<LevelFilter>().is_ok();
    let is_part = |part: &str| part.rsplit('=').next().is_some_and(is_level);
    let targets = text.parse().ok().filter(|_| text.split(',').all(is_part));
    targets.ok_or_else(|| {
        format!("expected error, warn, info, debug, trace or off, or TARGET=LEVEL such as seawall=warn, got `{text}`")
    })
}

/// A requested snapshot: `FILE[@COUNT]` or `FILE@TEXT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keep {
    pub(crate) path: PathBuf,
    pub(crate) when: Moment,
}

/// The moment of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// After this many instructions.
    Count(u64),
    /// When the guest writes a line that contains this text.
    Line(String),
    /// When the run ends.
    End,
}

/// `FILE`, `FILE@COUNT` or `FILE@TEXT`; text that begins with a digit is a count.
pub(crate) fn keep(text: &str) -> Result<Keep, String> {
    let expected = |reason: &str| format!("expected FILE, FILE@COUNT or FILE@TEXT: {reason}");
    let (path, when) = match text.split_once('@') {
        None => (text, Moment::End),
        Some((_, "")) => return Err(expected("nothing behind @")),
        Some((path, when)) if when.starts_with(|c: char| c.is_ascii_digit()) => {
            (path, Moment::Count(count(when).map_err(|reason| expected(&reason))?))
        }
        Some((path, line)) => (path, Moment::Line(line.to_owned())),
    };
    if path.is_empty() {
        return Err(expected("FILE is empty"));
    }
    Ok(Keep { path: path.into(), when })
}

/// The place and time of bad memory: `ADDR[+LEN][@COUNT]` or `page:NAME[+LEN][@COUNT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Poison {
    pub(crate) place: Place,
    /// Size in bytes, at least 1.
    pub(crate) len: u64,
    /// The number of instructions after which it goes bad, from the start of the run or from the naming of
    /// its page; 0 is at once.
    pub(crate) after: u64,
}

/// The start of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A physical address. The range ends below 2^64.
    Address(u64),
    /// A page with this name on the guest's console.
    Page(String),
}

/// `ADDR[+LEN][@COUNT]` or `page:NAME[+LEN][@COUNT]`; LEN is 64 by default.
pub(crate) fn poison(text: &str) -> Result<Poison, String> {
    let expected = |reason: String| {
        format!(
            "expected ADDR[+LEN][@COUNT], such as 0x40210000+64@1000, or page:NAME[+LEN][@COUNT]: {reason}"
        )
    };
    let (place, after) = match text.split_once('@') {
        Some((place, after)) => (place, count(after).map_err(expected)?),
        None => (text, 0),
    };
    let (place, len) = match place.split_once('+') {
        Some((start, len)) => (start, size(len).map_err(expected)?),
        None => (place, 64),
    };
    if len == 0 {
        return Err(expected("LEN is 0".into()));
    }
    let place = match place.strip_prefix("page:") {
        Some("") => return Err(expected("NAME is empty".into())),
        Some(name) => Place::Page(name.to_owned()),
        None => Place::Address(number(place).map_err(expected)?),
    };
    if matches!(place, Place::Address(start) if start.checked_add(len).is_none()) {
        return Err(expected("the range ends past 2^64".into()));
    }
    Ok(Poison { place, len, after })
}

/// Bytes in hexadecimal; blanks, colons and underscores between digits are skipped.
pub(crate) fn bytes(text: &str) -> Option<Vec<u8>> {
    let text = text.strip_prefix("0x").unwrap_or(text);
    let digits: Vec<u32> = text
        .chars()
        .filter(|c| !c.is_whitespace() && !matches!(c, ':' | '_' | ','))
        .map(|c| c.to_digit(16))
        .collect::<Option<_>>()?;
    if digits.len() % 2 != 0 {
        return None;
    }
    Some(digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_hexadecimal_with_0x_and_decimal_without() {
        assert_eq!(number("0x4008_0000"), Ok(0x4008_0000));
        assert_eq!(number("4096"), Ok(4096));
        assert_eq!(number("10"), Ok(10));
        assert!(number("0x").unwrap_err().contains("got `0x`"));
        for wrong in ["-1", "+5", "0x+5", ""] {
            assert!(number(wrong).is_err(), "{wrong}");
        }
        assert!(number("0x1ffffffffffffffff").unwrap_err().contains("at most 64 bits"));
    }

    #[test]
    fn counts_may_have_an_exponent_and_underscores() {
        for (text, expected) in [
            ("0", 0),
            ("1000", 1000),
            ("10_000_000", 10_000_000),
            ("1e9", 1_000_000_000),
            ("1E3", 1000),
            ("2.5e6", 2_500_000),
            ("1.50e1", 15),
            ("1_0e0_2", 1000),
            ("0x1e9", 0x1e9),
            ("1844674407370955161.5e1", u64::MAX),
        ] {
            assert_eq!(count(text), Ok(expected), "{text}");
        }
        for wrong in ["", "e9", "1e", "1.5", "1.55e1", "1e20", "1e-3", "1e+3", "-1", ".5e1", "1e9e9", "1x"] {
            let expected = format!(
                "expected a whole number of at most 64 bits, such as 1000, 10_000_000 or 1e9, got `{wrong}`"
            );
            assert_eq!(count(wrong), Err(expected));
        }
    }

    #[test]
    fn sizes_have_binary_suffixes() {
        assert_eq!(size("64M"), Ok(64 << 20));
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("1G"), Ok(1 << 30));
        assert_eq!(size("0x1000"), Ok(4096));
        assert_eq!(size("512"), Ok(512));
        assert!(size("17179869184G").unwrap_err().contains("does not fit"));
        assert!(size("M").is_err());
    }

    #[test]
    fn poison_is_a_line_now_unless_said_otherwise() {
        let at = |start, len, after| Ok(Poison { place: Place::Address(start), len, after });
        assert_eq!(poison("0x40210000"), at(0x4021_0000, 64, 0));
        assert_eq!(poison("0x40210000+4K@100000"), at(0x4021_0000, 4096, 100_000));
        for wrong in ["", "x", "0x40210000+0", "0xffffffffffffffff+64", "0x40210000@", "0x40210000+64@x"] {
            assert!(poison(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn poison_may_be_at_a_page_that_the_guest_will_name() {
        let page = |name: &str, len, after| Ok(Poison { place: Place::Page(name.into()), len, after });
        assert_eq!(poison("page:anon"), page("anon", 64, 0));
        assert_eq!(poison("page:file-text+4K@2000"), page("file-text", 4096, 2000));
        for wrong in ["page:", "page:+64", "page:x+0", "page:x@y"] {
            assert!(poison(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_port_alone_is_of_this_host_alone() {
        let check = |text: &str, address: &str| assert_eq!(listen(text), Ok(address.parse().unwrap()));
        check("9184", "127.0.0.1:9184");
        check("0", "127.0.0.1:0");
        check("0.0.0.0:9184", "0.0.0.0:9184");
        check("[::1]:9184", "[::1]:9184");
        for wrong in ["", "65536", "127.0.0.1", "localhost:9184", ":9184", "-1"] {
            assert!(listen(wrong).unwrap_err().contains("expected a port up to 65535"), "{wrong}");
        }
    }

    #[test]
    fn a_log_is_of_a_level_or_of_targets_with_levels() {
        for right in ["warn", "ERROR", "off", "seawall=debug", "info,seawall=trace"] {
            assert!(log(right).is_ok(), "{right}");
        }
        for wrong in ["", "lout", "seawall", "seawall=lout", "warn,"] {
            assert!(log(wrong).unwrap_err().starts_with("expected error, warn,"), "{wrong}");
        }
    }

    #[test]
    fn bytes_may_be_grouped() {
        assert_eq!(bytes("00 01:0a_ff"), Some(vec![0, 1, 10, 255]));
        assert_eq!(bytes("0x0102"), Some(vec![1, 2]));
        assert_eq!(bytes("012"), None);
        assert_eq!(bytes("0g"), None);
    }
}
