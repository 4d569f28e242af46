//! `cargo xtask kernel bench`: instructions of each ioctl, C's and ours, in one kernel on Seawall's machine, where a nanosecond
//! is an instruction.

use std::time::Duration;

use crate::lab::error::{Error, Result};
use crate::lab::machine::Machine;
use crate::lab::session::Ended;
use crate::lab::{HostKernel, Lab, preload};

/// What is measured, and what is promised of it: ours to C's.
const PROMISES: [(&str, &str, f64); 3] = [
    ("get", "KVM_GET_VCPU_EVENTS", 1.1),
    ("set-nothing", "KVM_SET_VCPU_EVENTS of nothing", 1.2),
    ("set-data-abort", "KVM_SET_VCPU_EVENTS of a data abort", 1.2),
];
/// C alone, then Rust: instructions by the clock, from one system call to the next.
const LINE: &str = "for who in off on; do echo $who > /sys/module/kvm/parameters/seawall && \
                    seawall-lab-raw-ioctls cost | sed \"s/^/$who /\" || exit 1; done";
const LIMIT: Duration = Duration::from_secs(300);

/// Prints a line for each; 1 if a promise is missed.
pub(super) fn run() -> Result<u8> {
    let machine = Machine::default();
    let lab = Lab::prepare(&machine, HostKernel::Seawall)?;
    let guests = preload::prepare(&lab)?;
    let mut output = Vec::new();
    let ended = lab.run(&machine, &[], &guests, &[LINE.to_owned()], LIMIT, &mut output)?;
    let output = String::from_utf8_lossy(&output);
    if ended != Ended::Exited(0) {
        return Err(Error::failed(format!("the measurement did not end well: {ended:?}\n{output}")));
    }
    println!("{:<38} {:>6} {:>6} {:>6}  promised", "instructions", "C", "Rust", "ratio");
    let mut missed = 0;
    for (name, about, promise) in PROMISES {
        let (c, rust) = (figure(&output, "off", name)?, figure(&output, "on", name)?);
        let ratio = f64::from(rust) / f64::from(c);
        println!(
            "{about:<38} {c:>6} {rust:>6} {ratio:>6.2}  {promise:.1}{}",
            if ratio > promise { "  MISSED" } else { "" }
        );
        missed |= u8::from(ratio > promise);
    }
    Ok(missed)
}

/// The figure in a line `WHO NAME FIGURE`.
fn figure(output: &str, who: &str, name: &str) -> Result<u32> {
    let start = format!("{who} {name} ");
    let found = output.lines().find_map(|line| line.strip_prefix(&start)?.trim().parse().ok());
    found.ok_or_else(|| Error::failed(format!("expected a line \"{start}FIGURE\", got:\n{output}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_that_of_its_line() {
        let output = "off get 571\noff set-nothing 682\non get 600\n";
        assert_eq!(figure(output, "on", "get"), Ok(600));
        assert_eq!(figure(output, "off", "set-nothing"), Ok(682));
        assert!(figure(output, "on", "set-nothing").is_err());
    }
}
