//! A process loses a page of its code, which Linux can read again from a disk, but not from tmpfs.

use crate::linux::{Linux, Run};
use crate::report::{Verdict, expect};

/// A fetch at EL0: SET and EA.
const FETCH: u64 = 0x8200_0210;

/// Written data must have left memory before it is run: only clean pages can be read again.
pub(super) const LINUX: Linux = Linux {
    disk: true,
    script: "
for module in /modules/*; do insmod $module; done
mke2fs /dev/vda >/tmp/mke2fs 2>&1 || cat /tmp/mke2fs
mount -t ext4 /dev/vda /disk
cp /bin/seawall-lab-victim /disk/ext4
umount /disk
mount -t ext4 -o ro /dev/vda /disk
grep ' /disk ' /proc/mounts
/disk/ext4 ext4 fetch
echo \"init: ext4 ended with $?\"
cp /bin/seawall-lab-victim /tmp/kept
/tmp/kept kept fetch
echo \"init: kept ended with $?\"
",
    ..Linux::DEFAULT
};

pub(super) fn judge(run: &Run) -> Verdict {
    run.line("/dev/vda /disk ext4 ro")?;
    run.expect_outcomes(2, Some(FETCH), true)?;
    let [(on_disk, _), (on_tmpfs, _)] = run.seen.bad[..] else {
        return Err(format!("expected two pages made bad, got {:x?}", run.seen.bad));
    };
    let right = run.line("ext4: right ")?;
    let (before, after) = moved(right).ok_or_else(|| format!("expected two addresses: {right}"))?;
    expect("where the code on ext4 was", &before, &on_disk)?;
    if after >> 12 == before >> 12 {
        return Err(format!("expected the code in another page, it still is in the bad one: {right}"));
    }
    run.line("init: ext4 ended with 0")?;
    let sigbus = run.only_sigbus()?;
    sigbus.expect_action_required()?;
    expect("who got SIGBUS", &sigbus.name, &"kept".to_owned())?;
    run.line("init: kept ended with 3")?;
    run.expect_each_offline(&[(on_disk, "clean LRU page"), (on_tmpfs, "dirty LRU page")])?;
    run.expect_alive(8)?;
    Ok(format!(
        "ext4: not killed, the code read anew to {after:#x}; tmpfs: SIGBUS si_code 4; both offline, 8 kB"
    ))
}

/// The addresses of `NAME: right N times, at 0xX, then at 0xX`.
fn moved(line: &str) -> Option<(u64, u64)> {
    let (before, after) = line.split_once(", at 0x")?.1.split_once(", then at 0x")?;
    Some((u64::from_str_radix(before, 16).ok()?, u64::from_str_radix(after, 16).ok()?))
}
