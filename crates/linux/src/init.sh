#!/bin/busybox sh
# The first process. What it does is on the kernel's command line:
#
#   seawall.workload=workload   five processes, each telling that it lives; who ended how (the default)
#   seawall.workload=services   the five, and a database, a web server with its client and a compressor, each checking its results
#   seawall.workload=sixteen    sixteen processes with memory of their own, and how much of it is bad at the end
#   seawall.workload=device     a process that uses a device by accesses that no syndrome describes, and a witness
#   seawall.workload=vectors    names the kernel's exception vectors, which it lives by, and sleeps
#   seawall.workload=stress     tools on known data, and the kernel's self-tests of its ciphers
#   seawall.workload=shell      a shell on the console
#   seawall.rounds=100          how long the processes work, in rounds of 10 ms and more
#   seawall.sigbus=die          or handle: the processes handle SIGBUS
#   seawall.root=disk           the root is the ext4 on the first disk, which has this file as its init
#
# At the end it says what the kernel complained of, and powers off.
export PATH=/bin HOME=/root TERM=linux
busybox echo "seawall: init"
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t devtmpfs dev /dev
busybox --install -s /bin

option() {
    for word in $(cat /proc/cmdline); do
        case $word in seawall.$1=*) echo "${word#*=}"; return ;; esac
    done
    echo "$2"
}

# Once: what is on the disk goes on.
root_on_disk() {
    for module in /lib/storage/*; do
        [ -e "$module" ] && insmod "$module"
    done
    mkdir /disk
    for try in 1 2 3 4 5; do
        mount -t ext4 -o noatime /dev/vda /disk 2>/dev/null && break
        sleep 0.1
    done
    umount /dev /sys /proc
    exec switch_root /disk /init
}

# Runs a program to its end and says what that was; fails if it is not the end of its rounds.
supervise() {
    "$@" 2>/dev/null
    code=$?
    case $code in
        0) echo "workload: $1 ended: all rounds done" ;;
        1) echo "workload: $1 ended: wrong result" ;;
        3) echo "workload: $1 ended: SIGBUS, handled" ;;
        132) echo "workload: $1 ended: SIGILL" ;;
        135) echo "workload: $1 ended: SIGBUS" ;;
        137) echo "workload: $1 ended: SIGKILL" ;;
        139) echo "workload: $1 ended: SIGSEGV" ;;
        *) echo "workload: $1 ended: exit code $code" ;;
    esac
    return $code
}

workload() {
    rounds=$(option rounds 100)
    handle=
    [ "$(option sigbus die)" = handle ] && handle=handle
    # Who has this open keeps what is in it: see the program `anonymous`.
    mkfifo /run/keep
    exec 3<>/run/keep
    pids=
    for name in code anonymous shared-a shared-b witness; do
        supervise $name $rounds $handle &
        pids="$pids $!"
    done
    all=0
    live=0
    for pid in $pids; do
        all=$((all + 1))
        wait $pid && live=$((live + 1))
    done
    echo "workload: $live of $all live"
}

# What a service returns for a program of its own that failed, unless by a signal: 1 is for wrong results alone.
failure() {
    if [ $1 -gt 128 ]; then echo $1; else echo 4; fi
}

# The number that a whole number of rounds adds up to.
database() {
    n=0
    while [ $n -lt $1 ]; do
        n=$((n + 1))
        got=$(sqlite3 /var/accounts "UPDATE account SET balance = balance + $n WHERE id = $n % 64;
            SELECT sum(balance), count(*), min(length(note)) FROM account; PRAGMA quick_check") || return $(failure $?)
        [ "$(echo $got)" = "$((n * (n + 1) / 2))|64|400 ok" ] || return 1
        echo "database: alive $n"
        usleep 30000
    done
}

# A page of the web server's, as its client sees it.
web() {
    n=0
    while [ $n -lt $1 ]; do
        n=$((n + 1))
        wget -q -O /run/page http://127.0.0.1/numbers || return $(failure $?)
        got=$(md5sum </run/page) || return $(failure $?)
        [ "$got" = "c8b58510b45cc3bd0855d35d748cbce4  -" ] || return 1
        echo "web: alive $n"
        usleep 30000
    done
}

# Packs and unpacks.
compressor() {
    n=0
    while [ $n -lt $1 ]; do
        n=$((n + 1))
        # By its path: the shell's own would come first.
        head -c 4000 /srv/numbers | /usr/bin/bzip2 -1 >/run/packed || return $(failure $?)
        got=$(/usr/bin/bzip2 -dcs </run/packed | md5sum) || return $(failure $?)
        [ "$got" = "5b9a715808f2b7bca234139f14440739  -" ] || return 1
        echo "compressor: alive $n"
        usleep 30000
    done
}

services() {
    set -o pipefail
    echo 0 >/proc/sys/kernel/kptr_restrict
    ifconfig lo 127.0.0.1 up
    httpd -p 127.0.0.1:80 -h /srv
    sqlite3 /var/accounts "CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER, note TEXT);
        WITH RECURSIVE n (id) AS (SELECT 0 UNION ALL SELECT id + 1 FROM n WHERE id < 63)
        INSERT INTO account SELECT id, 0, hex(zeroblob(200)) FROM n"
    # Who is asked answers at once, whatever the services do.
    census &
    renice -n -20 -p $! >/dev/null
    rounds=$(option rounds 100)
    mkfifo /run/keep
    exec 3<>/run/keep
    for name in database web compressor; do
        supervise $name $rounds &
    done
    for name in code anonymous shared-a shared-b witness; do
        supervise $name $((rounds * 10)) &
    done
    # All have begun: their first rounds are done.
    sleep 0.3
    echo "campaign: begin"
    n=0
    while [ $n -lt $rounds ]; do
        n=$((n + 1))
        echo "init: alive $n"
        usleep 100000
    done
    echo "campaign: end"
}

# Answers what is typed: the use of each page of memory, the kernel's symbols. On the virtio console, if there is one.
census() {
    to=/dev/console
    [ -e /dev/hvc0 ] && to=/dev/hvc0
    stty -F $to -echo
    while read -r line; do
        case $line in
            'seawall: census' | 'seawall: symbols') echo "census begin" >$to ;;
            *) continue ;;
        esac
        case $line in
            *census)
                for file in kpageflags kpagecount iomem; do
                    gzip -c /proc/$file | base64 | sed "s/^/census $file /" >$to
                done
                ;;
            *symbols) grep -i ' [tw] ' /proc/kallsyms | gzip -c | base64 | sed "s/^/census symbols /" >$to ;;
        esac
        echo "census end" >$to
    done <$to
}

sixteen() {
    rounds=$(option rounds 100)
    handle=
    [ "$(option sigbus die)" = handle ] && handle=handle
    # A pipe of 16 pages: one of each.
    mkfifo /run/keep
    exec 3<>/run/keep
    for n in $(seq 16); do
        supervise anonymous $rounds $handle &
    done
    wait
    grep HardwareCorrupted /proc/meminfo
}

use_device() {
    rounds=$(option rounds 100)
    # Linux lets no process map what a driver has.
    driver=/sys/bus/amba/drivers/rtc-pl031
    [ -e $driver/9010000.pl031 ] && echo 9010000.pl031 >$driver/unbind
    supervise witness $rounds &
    supervise device $rounds
    wait
}

# The image begins at _text, on a boundary of 2 MiB, and "Kernel code" with it or soon after. The vector of the kernel's own
# exceptions is at 0x200, that of its interrupts at 0x280.
vectors() {
    echo 0 >/proc/sys/kernel/kptr_restrict
    symbol() { grep -m 1 " $1\$" /proc/kallsyms | cut -d ' ' -f 1; }
    code=$(grep 'Kernel code' /proc/iomem | sed 's/^ *//; s/-.*//')
    table=$(((0x$code & ~0x1fffff) + 0x$(symbol vectors) - 0x$(symbol _text)))
    printf 'seawall: page of-exceptions 0x%x\nseawall: page of-interrupts 0x%x\n' $((table + 0x200)) $((table + 0x280))
    echo "seawall: vectors"
    sleep 10
}

# check WHAT EXPECTED: whether standard input is that.
check() {
    all=$((all + 1))
    got=$(cat)
    if [ "$got" = "$2" ]; then
        right=$((right + 1))
        echo "stress: $1: right"
    else
        echo "stress: $1: WRONG: expected $2, got $got"
    fi
}

stress() {
    all=0
    right=0
    cd /tmp || return
    # Lehmer's generator: 5000 numbers below 2^31 - 1, whose products a double holds.
    awk 'BEGIN { x = 1; for (i = 0; i < 5000; i++) { x = x * 16807 % 2147483647; print x } }' >numbers
    sum=25aac596b7784b72cc5c817a8c6d60e3ec346a18c36589b22880478fd7c97aff
    sha256sum <numbers | cut -c -64 >out
    check sha256sum $sum <out
    md5sum <numbers | cut -c -32 >out
    check md5sum c8b58510b45cc3bd0855d35d748cbce4 <out
    sha512sum <numbers | cut -c -32 >out
    check sha512sum 5f6eb685796ebe5bbd27f5aa95084473 <out
    crc32 numbers | cut -c -8 >out
    check crc32 3c3bb146 <out
    sort numbers | sha256sum | cut -c -64 >out
    check sort 104ed001767639a8773a2fc607d1081925c820e5e436bf4efd9b454ed8d573d6 <out
    sort -n numbers | sha256sum | cut -c -64 >out
    check "sort -n" b637d13f8235be7a0a1bd6889af1effa6c9e8237153c35e68f66a728427bff8b <out
    gzip -c numbers | gunzip -c | sha256sum | cut -c -64 >out
    check "gzip, gunzip" $sum <out
    bzip2 -c numbers | bunzip2 -c | sha256sum | cut -c -64 >out
    check "bzip2, bunzip2" $sum <out
    tr -cd 7 <numbers | wc -c >out
    check "tr, wc" 4426 <out
    awk '{ s += $1 } END { printf "%.0f\n", s }' numbers >out
    check "awk, sum" 5363477410055 <out
    # Square roots by Newton's method, quotients, a series: each double to its last bit.
    awk '{ r = $1 / 65536; for (i = 0; i < 10; i++) r = (r + $1 / r) / 2; s += r; h += 1e9 / $1; t = t * 0.75 - $1 / 3 }
        END { printf "%.17g %.17g %.17g\n", s, h, t }' numbers >out
    check "awk, doubles" "154532350.10708711 183925.13914211345 -1386319846.4506085" <out
    cd /
    echo "stress: $right of $all right"
    ciphers
}

# Loads the ciphers that use the CPU's vector and cryptographic instructions: the kernel tests each against another
# implementation.
ciphers() {
    for module in /lib/modules/*; do
        [ -e "$module" ] || continue
        insmod "$module" || echo "kernel: $module was refused"
    done
    all=$(grep -c '^selftest' /proc/crypto)
    passed=$(grep -c '^selftest *: passed' /proc/crypto)
    echo "kernel: $passed of $all ciphers passed their self-tests"
}

# What the kernel says of bad memory that it was told of is no complaint.
complaints() {
    dmesg | grep -v 'Memory failure' | grep -E 'WARNING|BUG|Oops|Internal error|self-tests? .*failed|failed .*self-test|alg: .*fail|Unable to handle|stall|lockup|Unknown symbol|unexpected|inconsisten|mismatch|corrupt' >/tmp/complaints
    if [ -s /tmp/complaints ]; then
        sed 's/^/kernel: /' /tmp/complaints
    else
        echo "kernel: no complaint"
    fi
}

[ "$(option root none)" = disk ] && [ -e /lib/storage ] && root_on_disk

case $(option workload workload) in
    services) services ;;
    shell)
        echo "Linux $(uname -r)"
        echo "The end: exit."
        setsid cttyhack sh
        ;;
    stress) stress ;;
    sixteen) sixteen ;;
    device) use_device ;;
    vectors) vectors ;;
    *) workload ;;
esac
complaints
poweroff -f
