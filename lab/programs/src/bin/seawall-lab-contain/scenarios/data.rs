//! A process loses a page of its data, once in each way.

use seawall_vmm::End;

use crate::linux::{Linux, Run};
use crate::report::{Verdict, expect};
use crate::watch::Road;

/// A load at EL0: SET and EA.
const LOAD: u64 = 0x9200_0210;
/// The shell's line about a process that handled SIGBUS: see `seawall-lab-victim`.
const ENDED: &str = "init: data ended with 3";

pub(super) const ACPI: Linux = Linux {
    script: "
seawall-lab-victim data load
echo \"init: data ended with $?\"
",
    ..Linux::DEFAULT
};

pub(super) fn judge_acpi(run: &Run) -> Verdict {
    run.expect_outcomes(1, Some(LOAD), true)?;
    judge_offline(run)
}

/// Checks that the process was told by `BUS_MCEERR_AR`, and that Linux took the page offline.
fn judge_offline(run: &Run) -> Verdict {
    let sigbus = run.only_sigbus()?;
    sigbus.expect_action_required()?;
    run.line(ENDED)?;
    run.expect_offline("dirty LRU page")?;
    run.expect_alive(4)?;
    Ok(format!("SIGBUS si_code 4 at {:#x}, lsb 12; its page offline, 4 kB; the guest lives", sigbus.address))
}

pub(super) const SIGBUS: Linux = Linux { road: Road::Host, ..ACPI };

pub(super) fn judge_sigbus(run: &Run) -> Verdict {
    run.expect_outcomes(1, None, true)?;
    judge_offline(run)
}

/// Nothing tells Linux which page is bad. The page belongs to a file, so no other process gets it.
pub(super) const FDT: Linux = Linux {
    acpi: false,
    script: "
seawall-lab-victim data load /tmp/page
echo \"init: data ended with $?\"
",
    ..Linux::DEFAULT
};

pub(super) fn judge_fdt(run: &Run) -> Verdict {
    /// The line's place in the page.
    const OFFSET: u64 = 2048;
    run.expect_outcomes(1, Some(LOAD), false)?;
    let sigbus = run.only_sigbus()?;
    expect("si_code, si_addr", &(sigbus.code, sigbus.address), &(3, sigbus.page + OFFSET))?;
    run.line(ENDED)?;
    run.expect_alive(0)?;
    Ok(format!("SIGBUS si_code 3 at {:#x}; the guest lives", sigbus.address))
}

pub(super) const SERROR: Linux = Linux { policy: "serror", ..FDT };

pub(super) fn judge_serror(run: &Run) -> Verdict {
    let message = "Kernel panic - not syncing: Asynchronous SError Interrupt".to_owned();
    expect("the guest's end", &run.end, &End::Panic { message })?;
    expect("errors met", &run.seen.outcomes.len(), &1)?;
    Ok(format!("{}", run.end))
}
