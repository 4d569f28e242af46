//! A line for each case, and the totals.

use std::process::ExitCode;

/// The reason why a case did not pass.
pub(crate) enum Not {
    /// The result differs from the expectation.
    Passed(String),
    /// The host lacks a feature.
    Run(String),
}

pub(crate) type Outcome = Result<(), Not>;

impl From<String> for Not {
    fn from(why: String) -> Self {
        Self::Passed(why)
    }
}

#[derive(Default)]
pub(crate) struct Report {
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Report {
    pub(crate) fn case(&mut self, name: &str, outcome: Outcome) {
        match outcome {
            Ok(()) => {
                self.passed += 1;
                println!("ok    {name}");
            }
            Err(Not::Passed(why)) => {
                self.failed += 1;
                println!("FAIL  {name}: {why}");
            }
            Err(Not::Run(why)) => {
                self.skipped += 1;
                println!("skip  {name}: {why}");
            }
        }
    }

    pub(crate) fn end(self) -> ExitCode {
        println!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped);
        if self.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Compares two numbers, and shows both in hexadecimal if they differ.
pub(crate) fn expect(what: &str, got: u64, expected: u64) -> Outcome {
    if got == expected {
        return Ok(());
    }
    Err(format!("{what}: expected {expected:#x}, got {got:#x}").into())
}

/// Compares a call's result: its value, or its errno.
pub(crate) fn expect_call(what: &str, got: Result<i32, i32>, expected: Result<i32, i32>) -> Outcome {
    if got == expected {
        return Ok(());
    }
    Err(format!("{what}: expected {expected:?}, got {got:?}").into())
}
