//! The time of each ioctl, on a vCPU that never ran. Under QEMU's `-icount shift=0` a nanosecond is an instruction.

use std::process::ExitCode;
use std::time::Instant;

use crate::bytes::{DABT, NOTHING};
use crate::raw;
use crate::report::Not;
use crate::vcpu::at_el1;

const CALLS: u32 = 2000;

/// A line for each: what it is, nanoseconds of a call.
pub(crate) fn print() -> ExitCode {
    match measure() {
        Ok(lines) => {
            for (name, nanoseconds) in lines {
                println!("{name} {nanoseconds}");
            }
            ExitCode::SUCCESS
        }
        Err(Not::Passed(why) | Not::Run(why)) => {
            eprintln!("seawall-lab-raw-ioctls: {why}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<[(&'static str, u128); 3], Not> {
    let (_vm, vcpu) = at_el1()?;
    let of = |call: &dyn Fn() -> bool| {
        let round = || {
            let start = Instant::now();
            let all = (0..CALLS).all(|_| call());
            (all, start.elapsed().as_nanos() / u128::from(CALLS))
        };
        // The first round warms up what is warm for a VMM that does this more than once.
        round();
        match round() {
            (true, nanoseconds) => Ok(nanoseconds),
            (false, _) => Err(Not::Passed("a call failed".into())),
        }
    };
    Ok([
        ("get", of(&|| raw::get_events(vcpu.fd()).is_ok())?),
        ("set-nothing", of(&|| vcpu.set_events(NOTHING).is_ok())?),
        ("set-data-abort", of(&|| vcpu.set_events(DABT).is_ok())?),
    ])
}
