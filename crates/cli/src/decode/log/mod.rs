//! `seawall decode --log`: a log of any size is read line by line, and what it says of aborts and hardware errors is
//! explained as it comes.

mod edac;
mod finding;
mod hardware;
mod line;
pub(super) mod rules;
mod sea;

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::path::Path;

use finding::{Finding, Place};
use hardware::Records;
use line::{LIMIT, Line, Lines};
use rules::Register;
use sea::SeaExits;

use super::number::Kind;
use super::register;
use crate::{Failure, exit, out};

/// How findings are written.
#[derive(Clone, Copy)]
pub(super) struct Style {
    /// A JSON object on a line.
    pub(super) json: bool,
    /// The fields of each value.
    pub(super) fields: bool,
}

/// Lines that were cut, of which each is said.
const CUT_LINES_SAID: u64 = 5;

pub(super) fn main(path: &Path, style: Style) -> Result<u8, Failure> {
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
                out::stderr(format!(
                    "note: line {count} is longer than {LIMIT} bytes; the rest of it was not looked at"
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
        out::stderr(format!("note: {cut} lines are longer than {LIMIT} bytes"));
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

/// Who reads stdout.
#[derive(PartialEq)]
enum Reader {
    There,
    Gone,
}

/// Writes a finding at once, as the log may still be growing.
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

/// What is remembered from line to line.
#[derive(Default)]
struct Scanner {
    exits: SeaExits,
    records: Records,
}

impl Scanner {
    /// What is over with this line.
    fn take(&mut self, line: &Line) -> Vec<Finding> {
        let mut registers = rules::registers(line.bytes);
        // A number at the cut may go on behind it.
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

    /// What is over with the log.
    fn end(&mut self) -> Vec<Finding> {
        let mut found: Vec<Finding> = self.exits.end().into_iter().collect();
        found.extend(self.records.end());
        found
    }
}
