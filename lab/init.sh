#!/bin/busybox sh
# The lab's first process: mounts what programs expect, then runs /lab/command, or gives a shell on the console.
#
# The command's stdout is the second serial port, between two marks with the word in /lab/word; its stderr is the
# console. The exit code is in the second mark; a mismatch in shadow mode makes it 1. /lab/terminal has the size of the
# terminal at the other end, if it is one. With /lab/from-port these files come by that port: the lab is booted without them,
# and a snapshot of it is good for all commands.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root TERM=linux
mount -t proc proc /proc
mount -t sysfs sys /sys
# It copies the pages that it makes a huge one of, and the kernel does not outlive a bad one among them that nobody has met yet.
echo 4000000000 > /sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs 2> /dev/null || true
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp
mount -t debugfs debug /sys/kernel/debug
hostname lab
cd /root || exit
if [ -e /lab/from-port ]; then
    exec 3<>/dev/ttyAMA1
    stty raw -echo <&3
    stty -F /dev/console -opost
    echo "seawall.lab: booted" > /dev/console
    printf '\005' >&3
    read -r length <&3
    head -c "$length" <&3 | (cd / && cpio -i) 2> /dev/null
fi
[ -e /lab/terminal ] || export TERM=dumb NO_COLOR=1

if [ -e /lab/command ]; then
    word=$(cat /lab/word)
    # No character is changed on its way out. `stty` waits for what was written before: so it does at the end, too.
    stty -F /dev/console -opost
    exec 3<>/dev/ttyAMA1
    stty raw -echo $(cat /lab/terminal 2>/dev/null) <&3
    echo "$word-begin" >&3
    sh /lab/command </dev/null >&3 2>/dev/console 3>&-
    code=$?
    # Linux with our kernel half, beside C: what both did must be the same (kernel/README.md).
    case $(cat /sys/module/kvm/parameters/seawall 2>/dev/null) in shadow) shadow-counts >&3 || code=1 ;; esac
    echo "$word-end $code" >&3
    stty raw <&3
    stty -F /dev/console opost
else
    stty -F /dev/ttyAMA0 $(cat /lab/terminal)
    echo "Seawall's lab: Linux $(uname -r). The end: exit, or Ctrl-A X."
    setsid cttyhack sh
fi
poweroff -f
