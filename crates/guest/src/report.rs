//! A parser for the demo guest's console, with the guest's own report of its outcome.
//!
//! Only complete lines in the fixed formats of the crate's documentation count; the reader shows other lines.
//! Nothing is assumed: a guest that never reported is an error, and so is a truncated or malformed line.

use std::str::FromStr;

/// The start of the console line printed once every task has run a round (or was killed before): the time to
/// place poison.
pub const READY: &str = "[ready]";

/// The end of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelEnd {
    /// It ran until every task was done or dead.
    Ok,
    /// It panicked; everything that was alive is lost.
    Panic,
}

/// The end of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskState {
    /// It ran all its rounds.
    Alive,
    /// The kernel killed it, and went on.
    Killed,
    /// It went down with the kernel.
    Lost,
}

/// The check of a task's results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// Each of its rounds gave the known value.
    Ok,
    /// A round gave another value: memory was corrupted silently.
    Bad,
    /// It never finished a round.
    None,
}

/// A task's line in the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskReport {
    /// Counted from 1.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// Its end.
    pub state: TaskState,
    /// Rounds it finished.
    pub rounds: u64,
    /// The check of the results of these rounds.
    pub checksum: Checksum,
}

/// The kernel's counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Frames taken out of use.
    pub retired: u64,
    /// Pages of text brought back from their clean copy.
    pub recovered: u64,
    /// Tasks killed.
    pub killed: u64,
    /// Synchronous external aborts from EL0 that the kernel handled.
    pub seas: u64,
    /// SErrors taken.
    pub serrors: u64,
}

/// The kind of an aborted access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// An instruction fetch (ESR.EC = 0x20).
    Fetch,
    /// A load (ESR.EC = 0x24, WnR = 0).
    Load,
    /// A store (ESR.EC = 0x24, WnR = 1).
    Store,
}

/// An `[sea]` line: an abort as the guest's handler saw it, and the handler's action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sea {
    /// The task that ran.
    pub task: u32,
    /// ESR_EL1.
    pub esr: u64,
    /// FAR_EL1, if the guest took it as valid (FnV = 0).
    pub far: Option<u64>,
    /// The kind of access by the ESR.
    pub access: Access,
    /// Physical address of the frame that was taken out of use.
    pub retired: Option<u64>,
    /// Physical address of the frame that now holds the clean copy.
    pub clean: Option<u64>,
    /// The handler's own words.
    pub text: String,
}

/// A `[panic]` line: the exception that ended the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Panic {
    /// The reason in the kernel's words.
    pub reason: String,
    /// Offset of the vector taken, from VBAR_EL1.
    pub vector: u64,
    /// ESR_EL1.
    pub esr: u64,
    /// ELR_EL1.
    pub elr: u64,
    /// FAR_EL1, valid or not.
    pub far: u64,
    /// SPSR_EL1.
    pub spsr: u64,
}

/// Everything that the demo guest's console reports to a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The end of the kernel.
    pub kernel: KernelEnd,
    /// Its counters; `None` if a second panic kept it from reading them.
    pub counters: Option<Counters>,
    /// The tasks, in the order of their numbers; fewer than four only after a second panic.
    pub tasks: Vec<TaskReport>,
    /// The aborts it handled, oldest first.
    pub seas: Vec<Sea>,
    /// The exceptions it panicked on: none, one, or two if the first panic met another.
    pub panics: Vec<Panic>,
    /// True if the guest reported that it was ready.
    pub ready: bool,
}

/// The reason why a console is not a report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// The guest did not reach its end.
    #[error("no line `report: kernel=...`: the guest did not come to its own end")]
    NoReport,
    /// A line lacks a field, or has a wrong value there.
    #[error("console line {line}: expected {field}=..., found {text:?}")]
    Field {
        /// Line number, from 1.
        line: usize,
        /// The field looked for.
        field: &'static str,
        /// The whole line.
        text: String,
    },
}

impl Report {
    /// Reads a console.
    ///
    /// # Errors
    /// [`ReportError::NoReport`] if the guest's last line is missing, [`ReportError::Field`] for a line of a
    /// known kind with a missing or wrong field.
    pub fn parse(console: &str) -> Result<Self, ReportError> {
        let mut end = None;
        let mut report = Self {
            kernel: KernelEnd::Panic,
            counters: None,
            tasks: Vec::new(),
            seas: Vec::new(),
            panics: Vec::new(),
            ready: false,
        };
        for (index, text) in console.lines().enumerate() {
            let line = Line { number: index + 1, text };
            if text.starts_with("report: task=") {
                report.tasks.push(line.task()?);
            } else if text.starts_with("report: kernel=") {
                end = Some(line.kernel()?);
                report.counters = if text.contains("retired=") { Some(line.counters()?) } else { None };
            } else if text.starts_with("[sea] ") {
                report.seas.push(line.sea()?);
            } else if text.starts_with("[panic] ") {
                report.panics.push(line.panic()?);
            } else if text.starts_with(READY) {
                report.ready = true;
            }
        }
        report.kernel = end.ok_or(ReportError::NoReport)?;
        Ok(report)
    }

    /// The task with this name.
    pub fn task(&self, name: &str) -> Option<&TaskReport> {
        self.tasks.iter().find(|task| task.name == name)
    }
}

/// One line of the console.
#[derive(Clone, Copy)]
struct Line<'a> {
    number: usize,
    text: &'a str,
}

impl<'a> Line<'a> {
    /// The value of `key=value`, without a trailing comma or colon.
    fn find(self, key: &str) -> Option<&'a str> {
        let word = |word: &'a str| word.strip_prefix(key)?.strip_prefix('=');
        self.text.split_whitespace().find_map(word).map(|value| value.trim_end_matches([',', ':']))
    }

    fn error(self, field: &'static str) -> ReportError {
        ReportError::Field { line: self.number, field, text: self.text.to_owned() }
    }

    fn word(self, field: &'static str) -> Result<&'a str, ReportError> {
        self.find(field).filter(|value| !value.is_empty()).ok_or_else(|| self.error(field))
    }

    fn decimal<T: FromStr>(self, field: &'static str) -> Result<T, ReportError> {
        self.word(field)?.parse().map_err(|_| self.error(field))
    }

    fn hex(self, field: &'static str) -> Result<u64, ReportError> {
        let digits = self.word(field)?.strip_prefix("0x").ok_or_else(|| self.error(field))?;
        u64::from_str_radix(digits, 16).map_err(|_| self.error(field))
    }

    /// A hex field that may be absent, or `unknown`.
    fn hex_if_known(self, field: &'static str) -> Result<Option<u64>, ReportError> {
        match self.find(field) {
            None | Some("unknown") => Ok(None),
            Some(_) => self.hex(field).map(Some),
        }
    }

    /// A field with one of a few words.
    fn one_of<T: Copy>(self, field: &'static str, words: &[(&str, T)]) -> Result<T, ReportError> {
        let found = self.word(field)?;
        let known = words.iter().find(|(word, _)| *word == found);
        known.map(|(_, value)| *value).ok_or_else(|| self.error(field))
    }

    fn task(self) -> Result<TaskReport, ReportError> {
        Ok(TaskReport {
            number: self.decimal("task")?,
            name: self.word("name")?.to_owned(),
            state: self.one_of(
                "state",
                &[("alive", TaskState::Alive), ("killed", TaskState::Killed), ("lost", TaskState::Lost)],
            )?,
            rounds: self.decimal("rounds")?,
            checksum: self.one_of(
                "checksum",
                &[("ok", Checksum::Ok), ("bad", Checksum::Bad), ("none", Checksum::None)],
            )?,
        })
    }

    fn kernel(self) -> Result<KernelEnd, ReportError> {
        self.one_of("kernel", &[("ok", KernelEnd::Ok), ("panic", KernelEnd::Panic)])
    }

    fn counters(self) -> Result<Counters, ReportError> {
        Ok(Counters {
            retired: self.decimal("retired")?,
            recovered: self.decimal("recovered")?,
            killed: self.decimal("killed")?,
            seas: self.decimal("seas")?,
            serrors: self.decimal("serrors")?,
        })
    }

    fn sea(self) -> Result<Sea, ReportError> {
        let accesses = [(" fetch: ", Access::Fetch), (" load: ", Access::Load), (" store: ", Access::Store)];
        let said = accesses.iter().find_map(|(word, access)| Some((*access, self.text.split_once(word)?.1)));
        let (access, text) = said.ok_or_else(|| self.error("fetch, load or store"))?;
        self.word("far")?;
        Ok(Sea {
            task: self.decimal("task")?,
            esr: self.hex("esr")?,
            far: self.hex_if_known("far")?,
            access,
            retired: self.hex_if_known("frame")?,
            clean: self.hex_if_known("clean")?,
            text: text.to_owned(),
        })
    }

    fn panic(self) -> Result<Panic, ReportError> {
        let words = self.text.strip_prefix("[panic] ").and_then(|rest| rest.split_once(": "));
        let (reason, _) = words.ok_or_else(|| self.error("vector"))?;
        Ok(Panic {
            reason: reason.to_owned(),
            vector: self.hex("vector")?,
            esr: self.hex("esr")?,
            elr: self.hex("elr")?,
            far: self.hex("far")?,
            spsr: self.hex("spsr")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTAINED: &str = "\
[boot] EL1, MMU on, 4 tasks: web db batch log
[ready] every task has run a round
[sea] task=1 esr=0x82000210 far=0x0000000000401040 fetch: frame=0x40099000 retired, clean=0x400b8000, nothing lost
[sea] task=2 esr=0x92000610 far=unknown load: no address, no frame retired, task killed
[task 2] db killed
report: task=1 name=web state=alive rounds=64 checksum=ok
report: task=2 name=db state=killed rounds=1 checksum=none
report: kernel=ok retired=1 recovered=2 killed=3 seas=4 serrors=5
";

    #[test]
    fn report_of_a_contained_guest_gives_tasks_counters_and_aborts() {
        let report = Report::parse(CONTAINED).unwrap();
        assert_eq!(report.kernel, KernelEnd::Ok);
        assert_eq!(
            report.counters,
            Some(Counters { retired: 1, recovered: 2, killed: 3, seas: 4, serrors: 5 })
        );
        assert!(report.ready);
        assert!(report.panics.is_empty());
        assert_eq!(report.tasks.len(), 2);
        assert_eq!(
            report.task("web"),
            Some(&TaskReport {
                number: 1,
                name: "web".to_owned(),
                state: TaskState::Alive,
                rounds: 64,
                checksum: Checksum::Ok,
            })
        );
        assert_eq!(report.task("db").unwrap().state, TaskState::Killed);
        assert_eq!(report.task("db").unwrap().checksum, Checksum::None);
        assert_eq!(
            report.seas,
            [
                Sea {
                    task: 1,
                    esr: 0x8200_0210,
                    far: Some(0x40_1040),
                    access: Access::Fetch,
                    retired: Some(0x4009_9000),
                    clean: Some(0x400b_8000),
                    text: "frame=0x40099000 retired, clean=0x400b8000, nothing lost".to_owned(),
                },
                Sea {
                    task: 2,
                    esr: 0x9200_0610,
                    far: None,
                    access: Access::Load,
                    retired: None,
                    clean: None,
                    text: "no address, no frame retired, task killed".to_owned(),
                },
            ]
        );
    }

    #[test]
    fn report_of_a_panic_within_a_panic_has_no_counters() {
        let report = Report::parse(
            "[panic] SError that nobody asked for: vector=0x580 esr=0xbf000c11 elr=0x0000000000401040 \
             far=0x0000000000000000 spsr=0x60000000\n\n\
             [panic] again while panicking: vector=0x200 esr=0x96000010 elr=0x1 far=0x2 spsr=0x3c5\n\
             report: kernel=panic\n",
        )
        .unwrap();
        assert_eq!(report.kernel, KernelEnd::Panic);
        assert_eq!(report.counters, None);
        assert_eq!(report.panics.len(), 2);
        assert_eq!(report.panics[0].reason, "SError that nobody asked for");
        assert_eq!(report.panics[0].vector, 0x580);
        assert_eq!(report.panics[0].esr, 0xbf00_0c11);
        assert_eq!(report.panics[1].spsr, 0x3c5);
    }

    #[test]
    fn console_without_an_end_is_no_report() {
        assert_eq!(Report::parse(""), Err(ReportError::NoReport));
        assert_eq!(
            Report::parse("report: task=1 name=web state=alive rounds=1 checksum=ok\n"),
            Err(ReportError::NoReport)
        );
    }

    #[test]
    fn malformed_line_is_named_with_the_field_that_is_wrong() {
        let wrong = |line: &str, expect: &str| {
            let error = Report::parse(&format!("{line}\nreport: kernel=ok\n")).unwrap_err();
            assert!(matches!(error, ReportError::Field { line: 1, field, .. } if field == expect), "{error}");
        };
        wrong("report: task=1 name=", "name");
        wrong("report: task=one name=web state=alive rounds=1 checksum=ok", "task");
        wrong("report: task=1 name=web state=well rounds=1 checksum=ok", "state");
        wrong("report: task=1 name=web state=alive rounds=1 checksum=maybe", "checksum");
        wrong("report: kernel=tired", "kernel");
        wrong("report: kernel=ok retired=1 recovered=x killed=0 seas=0 serrors=0", "recovered");
        wrong("[sea] task=1 esr=82000010 far=0x0 fetch: frame=0x0", "esr");
        wrong("[sea] task=1 esr=0x82000010 fetch: frame=0x0", "far");
        wrong("[sea] task=1 esr=0x82000010 far=0x0 jump: frame=0x0", "fetch, load or store");
        wrong("[panic] SError: vector=0x580 esr=0xbf000c11", "elr");
    }
}
