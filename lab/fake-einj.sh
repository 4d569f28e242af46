#!/bin/sh
# fake-einj: stands in for a firmware that can inject errors (ACPI EINJ), so that a program written for one runs
# unmodified. The table is there, and so are debugfs' files; what is written to `error_inject` poisons the physical
# address in `param1`. Good for one injection; `notrigger` must be written first, as the kernel's selftest does.
set -e
mount -t tmpfs tables /sys/firmware
mkdir -p /sys/firmware/acpi/tables
echo EINJ >/sys/firmware/acpi/tables/EINJ
umount /sys/kernel/debug 2>/dev/null || true
mount -t tmpfs einj /sys/kernel/debug
einj=/sys/kernel/debug/apei/einj
mkdir -p $einj
for file in error_type param1 param2 flags; do : >$einj/$file; done
mkfifo $einj/notrigger $einj/error_inject
(
    cat $einj/notrigger >/dev/null
    poison "$(cat $einj/param1)"
    cat $einj/error_inject >/dev/null
) &
