# What `cargo xtask lab` shows when nothing else is asked for.
echo "kernel        $(uname -r)"
echo "CPUs, memory  $(nproc), $(awk '/^MemTotal/ { print int($2 / 1024) " MiB" }' /proc/meminfo)"
echo "/dev/kvm      $([ -c /dev/kvm ] && echo present || echo MISSING)"
echo "poison        $([ -e /proc/device-tree/poison@b000000 ] && poison count) bad ranges; register at 0x0b000000"
echo "programs      $(cd /bin && for file in *; do [ -L $file ] || [ $file = busybox ] || printf '%s ' $file; done)"
if [ -x /bin/seawall ] && seawall --help | grep -q '^ *probe'; then
    echo
    seawall probe
fi
[ -c /dev/kvm ]
