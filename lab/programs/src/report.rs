//! A line for each scenario, and the judged parts of the guest's output.

use std::time::Duration;

/// The finding of a scenario, or the reason why it failed.
pub type Verdict = Result<String, String>;

/// The scenarios that were run.
#[derive(Debug, Default)]
pub struct Report {
    passed: u32,
    failed: u32,
}

impl Report {
    /// Prints the line of a scenario, and counts it.
    pub fn line(&mut self, name: &str, time: Duration, verdict: &Verdict) -> String {
        let (word, what) = match verdict {
            Ok(seen) => ("pass", seen),
            Err(why) => ("FAIL", why),
        };
        match verdict {
            Ok(_) => self.passed += 1,
            Err(_) => self.failed += 1,
        }
        format!("{word}  {name:<14} {:>5.1} s  {what}", time.as_secs_f64())
    }

    /// How many passed, and how many did not.
    pub fn summary(&self) -> String {
        format!("{} passed, {} failed", self.passed, self.failed)
    }

    /// Returns true if at least one scenario ran and all passed.
    pub fn all_passed(&self) -> bool {
        self.failed == 0 && self.passed > 0
    }
}

/// Fails a scenario unless both are the same.
///
/// # Errors
/// The expected and the actual value.
pub fn expect<T: PartialEq + std::fmt::Debug>(what: &str, got: &T, expected: &T) -> Result<(), String> {
    if got == expected {
        return Ok(());
    }
    Err(format!("{what}: expected {expected:x?}, got {got:x?}"))
}

/// A process's report of its SIGBUS: see `seawall-lab-victim`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sigbus {
    /// Of the process.
    pub name: String,
    /// `si_code`: 4 is `BUS_MCEERR_AR`, 3 `BUS_OBJERR`, which Linux sends for an error without a firmware record.
    pub code: i32,
    /// `si_addr`.
    pub address: u64,
    /// `si_addr_lsb`; 0 if the code has none.
    pub lsb: i32,
    /// The bad page's address in the process.
    pub page: u64,
}

impl Sigbus {
    /// `NAME: SIGBUS si_code=N si_addr=0xX lsb=N page=0xX`.
    pub fn parse(line: &str) -> Option<Self> {
        let (name, rest) = line.split_once(": SIGBUS ")?;
        let mut words = rest.split(' ');
        let mut value = |key| words.next()?.strip_prefix(key);
        Some(Self {
            name: name.to_owned(),
            code: value("si_code=")?.parse().ok()?,
            address: number(value("si_addr=")?)?,
            lsb: value("lsb=")?.parse().ok()?,
            page: number(value("page=")?)?,
        })
    }

    /// Checks for `BUS_MCEERR_AR` with the page's address and size.
    ///
    /// # Errors
    /// The actual values.
    pub fn expect_action_required(&self) -> Result<(), String> {
        expect(
            &format!("{}: si_code, si_addr, si_addr_lsb", self.name),
            &(self.code, self.address, self.lsb),
            &(4, self.page, 12),
        )
    }
}

/// The line with which a guest asks for bad memory: `bad memory please: 0xX [BYTES]`.
pub fn request(line: &str) -> Option<(u64, u64)> {
    /// The default size of bad memory in bytes.
    const LINE: u64 = 64;
    let (_, rest) = line.split_once("bad memory please: ")?;
    let mut words = rest.split_whitespace();
    let address = number(words.next()?)?;
    let size = match words.next() {
        Some(size) => size.parse().ok()?,
        None => LINE,
    };
    Some((address & !(size - 1), size))
}

/// The frame in `Memory failure: 0xX: recovery action for WHAT: Recovered`, with the WHAT.
pub fn recovered(line: &str) -> Option<(u64, &str)> {
    let (_, rest) = line.split_once("Memory failure: ")?;
    let (frame, rest) = rest.split_once(": recovery action for ")?;
    Some((number(frame)?, rest.strip_suffix(": Recovered")?))
}

fn number(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_passes_only_if_something_was_run_and_all_of_it_passed() {
        let mut report = Report::default();
        assert!(!report.all_passed());
        let line = report.line("data", Duration::from_millis(9849), &Ok("seen".into()));
        assert_eq!(line, "pass  data             9.8 s  seen");
        assert!(report.all_passed());
        let line = report.line("storm", Duration::from_secs(12), &Err("why".into()));
        assert_eq!(line, "FAIL  storm           12.0 s  why");
        assert!(!report.all_passed());
        assert_eq!(report.summary(), "1 passed, 1 failed");
    }

    #[test]
    fn a_process_says_what_its_sigbus_was() {
        let line = "p1: SIGBUS si_code=4 si_addr=0xffff8000 lsb=12 page=0xffff8000";
        let sigbus = Sigbus::parse(line).expect("a report");
        assert_eq!((sigbus.name.as_str(), sigbus.code, sigbus.page), ("p1", 4, 0xffff_8000));
        assert_eq!(sigbus.expect_action_required(), Ok(()));
        let other = Sigbus { code: 5, ..sigbus.clone() };
        assert!(other.expect_action_required().is_err());
        let other = Sigbus { address: 0xffff_8800, ..sigbus };
        assert!(other.expect_action_required().is_err());
        assert_eq!(Sigbus::parse("p1: SIGBUS si_code=4"), None);
    }

    #[test]
    fn a_request_names_a_line_or_as_much_as_it_says() {
        assert_eq!(request("data: bad memory please: 0x40001850"), Some((0x4000_1840, 64)));
        assert_eq!(request("init: bad memory please: 0x40010800 2048"), Some((0x4001_0800, 2048)));
        assert_eq!(request("data: nothing happened"), None);
    }

    #[test]
    fn a_page_that_was_taken_offline_is_known_by_linuxs_words() {
        let line = "[    3.142592] Memory failure: 0x48abc: recovery action for dirty LRU page: Recovered";
        assert_eq!(recovered(line), Some((0x48abc, "dirty LRU page")));
        assert_eq!(recovered("Memory failure: 0x48abc: recovery action for dirty LRU page: Failed"), None);
    }
}
