//! The texts after the options: examples and exit codes.

use std::fmt::Write as _;

use crate::exit;

/// The text after the short help (`-h`).
pub(crate) const START: &str = "\
Start here:
  seawall demo                            the survivors under three policies, side by side
  seawall decode 0x92000210               an ESR in words
  dmesg | seawall decode --log            the aborts and hardware errors in a log
  seawall check                           checks external aborts against the ABI
  seawall probe                           the features of this host, and advice
  seawall wrap -- qemu-system-aarch64 -accel kvm ...
                                          a VMM as it is, whose guests survive memory errors
  seawall run --kernel vmlinuz --initrd initrd.gz
                                          Linux on the software machine, on any host
  seawall run --kernel guest.elf --poison 0x40210000@100000
                                          your own bare-metal guest, with memory that goes bad";

/// The text after the long help (`--help`), and in the manual.
pub(crate) fn start() -> String {
    format!("{START}\n\n{}", exit_codes())
}

/// The meaning of each exit code.
pub(crate) fn exit_codes() -> String {
    let mut text = String::from("Exit codes:");
    for (code, meaning) in exit::ALL {
        let _ = write!(text, "\n {code:>3}  {meaning}");
    }
    text
}

/// The text after the short help of `seawall wrap`.
pub(crate) const WRAP: &str = "\
Examples:
  seawall wrap -- qemu-system-aarch64 -accel kvm -M virt -cpu host -m 4G -drive file=guest.qcow2
  seawall wrap --dry-run --events errors.jsonl -- qemu-system-aarch64 -accel kvm ...
  seawall wrap --sigbus vmm -- qemu-system-aarch64 -accel kvm -M virt,ras=on ...
  seawall wrap --check -- qemu-system-aarch64
  seawall wrap --env -- qemu-system-aarch64        # for libvirt and systemd";

/// The text after the long help of `seawall wrap`.
pub(crate) fn wrap() -> String {
    format!(
        "{WRAP}\n\nBefore PROGRAM runs, the exit codes below tell why it does not. Once it runs, the exit code is its own.\n\n{}",
        exit_codes()
    )
}

/// The text after the short help of `seawall run`.
pub(crate) const RUN: &str = "\
Examples:
  seawall run --kernel vmlinuz --initrd initrd.gz --cpus 4 --memory 512M
  seawall run --kernel vmlinuz --initrd initrd.gz --poison page:heap --events events.jsonl
  seawall run --kernel guest.bin --poison 0x40210000@100_000 --policy serror --json

At a terminal Ctrl-A X leaves. seawall run --help has all options in full, and the exit codes";

const RUN_MORE: &str = "\
Examples:
  seawall run --kernel vmlinuz --initrd initrd.gz --cpus 4 --memory 512M
  seawall run --kernel vmlinuz --initrd initrd.gz --poison page:heap --events events.jsonl
  seawall run --kernel vmlinuz --initrd initrd.gz --poison page:heap --metrics 9184
  seawall run guest.elf
  seawall run --kernel guest.bin --load 0x40080000 --poison 0x40210000@100_000 --policy full
  seawall run --kernel guest.bin --poison 0x40210000+4K --policy serror --json
  seawall run --kernel vmlinuz --initrd initrd.gz --rule kernel-fetch=stop --dry-run
  seawall run --kernel vmlinuz --initrd initrd.gz --snapshot booted.snap@'Run /init'
  seawall run --restore booted.snap --poison page:heap --policy serror

At a terminal:
  Each key goes to the guest, Ctrl-C too. Ctrl-A X leaves; Ctrl-A Ctrl-A types one Ctrl-A. Leaving writes the ledger,
  the end event and the --json object, like every other end.
  SIGHUP, SIGINT and SIGTERM do the same from outside; a second one ends the process at once.

Pages with names:
  A guest names a page by a line on its console: `seawall: page NAME 0xADDRESS`, guest physical. `--poison page:NAME`
  turns the page bad at that line. If the guest ends without having named the page, the exit code is 13.

Numbers:
  A COUNT may have `_` between its digits and an exponent: 10_000_000, 1e9, 2.5e6. A SIZE may end in K, M or G (powers
  of 1024). An ADDR is hexadecimal with 0x.

Kinds of errors for --rule; an error is of the first kind that fits:
  nested        an abort of a nested guest, which the nested guest's hypervisor takes
  walk          the guest's page tables are bad
  no-address    the exit has no address
  kernel-fetch  code of the guest's kernel
  kernel-data   data that the guest's kernel used
  user-fetch    code of a process
  user-data     data that a process used

Answers for --rule:
  replay        the abort as it happened; the default for all kinds but nested
  data-abort    a data abort without an ISS
  serror        an SError
  stop          stops the guest; the default for nested
  host-first    the host restores the memory if it has a copy; this VMM has none, so it acts as replay does

Events:
  --events writes one JSON object a line: `event` (heal, poison, memory-error, device-error, reboot, end),
  `guest_time_ns` (the machine's own time), `instructions`, and the fields of the event; addresses and syndromes are
  hexadecimal strings. docs/telemetry.md has the fields of a memory error, and the numbers of --metrics.";

/// The text after the long help of `seawall run`.
pub(crate) fn run() -> String {
    format!("{RUN_MORE}\n\n{}", exit_codes())
}
