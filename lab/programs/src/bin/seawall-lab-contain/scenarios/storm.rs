//! The guest's own exception vectors go bad: it can handle no injection.

use std::time::Duration;

use seawall::StopReason;
use seawall_vmm::End;

use crate::linux::{Linux, Run};
use crate::report::{Verdict, expect};

/// The time limit from the moment at which the vectors go bad to the guest's end.
const LIMIT: Duration = Duration::from_secs(5);

/// Root's kallsyms shows addresses, in their order. The image begins at `_text`, on a boundary of 2 MiB where it was loaded
/// (Linux, Documentation/arch/arm64/booting.rst), and "Kernel code" with it or soon after.
///
/// The sixteen vectors of 128 bytes each take 2048 bytes (DDI 0487, D1.4). With mitigations of Spectre on
/// this CPU, other tables would precede this one (`__bp_harden_el1_vectors`), and the result would be an oops
/// instead of a storm.
pub(super) const LINUX: Linux = Linux {
    words: "mitigations=off",
    script: "
echo 0 >/proc/sys/kernel/kptr_restrict
symbol() { grep -m 1 \" $1\\$\" /proc/kallsyms | cut -d ' ' -f 1; }
code=$(grep 'Kernel code' /proc/iomem | sed 's/^ *//; s/-.*//')
vectors=$(((0x$code & ~0x1fffff) + 0x$(symbol vectors) - 0x$(symbol _text)))
echo \"init: bad memory please: $(printf 0x%x $vectors) 2048\"
sleep 10
echo 'init: nothing happened'
",
    ..Linux::DEFAULT
};

pub(super) fn judge(run: &Run) -> Verdict {
    expect("ranges made bad", &run.seen.bad.len(), &1)?;
    let End::Stopped(StopReason::Storm { pc, times, .. }) = run.end else {
        return Err(format!("expected a storm, the guest {}", run.end));
    };
    expect("PC, from the table of the vectors on", &(pc & 0x7ff), &0x200)?;
    // One more than the guard allows; they are visible one by one.
    expect("times at that PC", &times, &17)?;
    let after = run.after.ok_or("nothing went bad")?;
    if after > LIMIT {
        return Err(format!("expected the end within {LIMIT:?}, it took {after:?}"));
    }
    Ok(format!("{} ms after that: {}", after.as_millis(), run.end))
}
