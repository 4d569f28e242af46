//! `seawall decode --log`: reads a log of any size line by line, and explains the aborts and hardware errors
//! in it as they come.

mod edac;
mod finding;
mod hardware;
mod line;
pub(super) mod rules;
mod sea;

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::path::Path;

use anstream::adapter::strip_bytes;
use finding::{Finding, Place};
use hardware::Records;
use line::{LIMIT, Line, Lines};
use rules::Register;
use sea::SeaExits;

use super::number::Kind;
use super::{Notes, register};
use crate::{Failure, exit};

/// The format of findings.
#[derive(Clone, Copy)]
pub(super) struct Style {
    /// One JSON object on each line.
    pub(super) json: bool,
    /// Shows the fields of each value.
    pub(super) fields: bool,
}

/// The number of truncated lines that are each reported.
const CUT_LINES_SAID: u64 = 5;

pub(super) fn main(path: &Path, style: Style, notes: Notes) -> Result<u8, Failure> {
    let name = if path == Path::new("-") { "stdin".to_owned() } else { path.display().to_string() };
    let cannot = |error: io::Error| Failure::new(exit::FILE, format!("cannot read {name}: {error}"));
    let log: Box<dyn BufRead> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::with_capacity(1 << 16, File::open(path).map_err(cannot)?))
    };
    let mut scanner = Scanner::default();
    let mut lines = Lines::new(log);
    let (mut count, mut found, mut cut) = (0, 0_u64, 0_u64);
    while let Some(line) = lines.next().map_err(cannot)? {
        count = line.number;
        if line.is_cut {
            cut += 1;
            if cut <= CUT_LINES_SAID {
                notes.say(format!(
                    "line {count} is longer than {LIMIT} bytes; the rest of it was not looked at"
                ));
            }
        }
        for finding in scanner.take(&line) {
            found += 1;
            if write(&finding, style)? == Reader::Gone {
                return Ok(0);
            }
        }
    }
    for finding in scanner.end() {
        found += 1;
        if write(&finding, style)? == Reader::Gone {
            return Ok(0);
        }
    }
    if cut > CUT_LINES_SAID {
        notes.say(format!("{cut} lines are longer than {LIMIT} bytes"));
    }
    if found > 0 {
        return Ok(0);
    }
    let expected = "expected a line such as `Internal error: Oops: 0000000096000210 [#1]`, `esr 0x96000210` or \
                    `{1}[Hardware Error]: ...`";
    Err(Failure::new(
        exit::UNEXPECTED,
        format!("nothing to explain in the {count} lines of {name}: {expected}"),
    ))
}

/// True while stdout has a reader.
#[derive(PartialEq)]
enum Reader {
    There,
    Gone,
}

/// Writes a finding at once, because the log may still be growing.
fn write(finding: &Finding, style: Style) -> Result<Reader, Failure> {
    let text = if style.json {
        let text = serde_json::to_string(finding)
            .map_err(|error| Failure::new(exit::UNEXPECTED, format!("cannot write JSON: {error}")))?;
        format!("{text}\n")
    } else {
        finding.in_words(style.fields)
    };
    let mut stdout = anstream::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(Reader::There),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(Failure::new(exit::FILE, format!("cannot write to stdout: {error}"))),
    }
}

/// State between lines: exits and records in progress.
#[derive(Default)]
struct Scanner {
    exits: SeaExits,
    records: Records,
}

impl Scanner {
    /// The findings that end with this line.
    fn take(&mut self, line: &Line) -> Vec<Finding> {
        // Colour codes stand between words, and hide their start.
        let plain: Vec<u8>;
        let mut line = *line;
        if line.bytes.contains(&0x1b) {
            plain = strip_bytes(line.bytes).into_vec();
            line.bytes = &plain;
        }
        let line = &line;
        let mut registers = rules::registers(line.bytes);
        // A number at the cut may continue after it.
        registers.retain(|found| !line.is_cut || found.at.1 < line.bytes.len());
        let exit = self.exits.take(line, &mut registers);
        let mut found: Vec<Finding> = exit.into_iter().collect();
        found.extend(registers.into_iter().filter_map(|found| {
            let kind = match found.register {
                Register::Esr => Kind::Esr,
                Register::Dfsr => Kind::Dfsr,
                Register::Ifsr => Kind::Ifsr,
            };
            let explained = register::explain(kind, found.value).ok()?;
            Some(Finding { place: Place::new(line, found.rule), explained })
        }));
        found.extend(edac::error(line));
        found.extend(self.records.take(line));
        found
    }

    /// The findings that end with the log.
    fn end(&mut self) -> Vec<Finding> {
        let mut found: Vec<Finding> = self.exits.end().into_iter().collect();
        found.extend(self.records.end());
        found
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Words of logs, whole and in pieces.
    const WORDS: [&str; 24] = [
        "{1}[Hardware Error]: ",
        "[Hardware Error]: ",
        "Hardware error from APEI Generic Hardware Error Source: 0",
        "event severity: ",
        " Error 0, type: recoverable",
        "  section_type: memory error",
        "  error_type: 3, multi-bit ECC",
        "  error_status: (0x",
        "physical_address: 0x",
        "node:0 card:99999999999 ",
        "mc_event 1 Corrected error: a on b (address: 0xffffffffffffffff page:0xffffffffffffffff)",
        "EDAC MC0: 1 UE a on b (page:0xffffffffffffffff offset:0xffffffffffffffff)",
        "arm_event MPIDR: 0x1",
        "KVM_EXIT_ARM_SEA ",
        "exit_reason 41 flags 0x1 esr 0x92000210 gva 0x1 gpa",
        "Internal error: : ",
        " [#1]",
        "esr 0x",
        "96000210",
        "ffffffffffffffff",
        "\x1b[31m",
        "\n",
        ": ",
        "(0x",
    ];

    proptest! {
        #[test]
        fn any_log_is_read_to_its_end(
            words in proptest::collection::vec(prop_oneof![
                (0..WORDS.len()).prop_map(|n| WORDS[n].as_bytes().to_vec()),
                proptest::collection::vec(any::<u8>(), 0..8),
            ], 0..64),
        ) {
            let log = words.concat();
            let mut lines = Lines::new(&log[..]);
            let mut scanner = Scanner::default();
            let mut found = Vec::new();
            while let Some(line) = lines.next().unwrap() {
                found.extend(scanner.take(&line));
            }
            found.extend(scanner.end());
            for finding in found {
                prop_assert!(finding.place.line >= 1 && finding.place.last_line >= finding.place.line);
                prop_assert!(!finding.in_words(true).is_empty());
                prop_assert!(serde_json::to_string(&finding).is_ok());
            }
        }
    }
}
