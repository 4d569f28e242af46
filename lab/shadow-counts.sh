#!/bin/busybox sh
# The calls that shadow mode compared since the host booted, and the first difference. Fails if there is one.
# A mount of its own: fake-einj hides the other.
mkdir -p /run/shadow
mount -t debugfs debug /run/shadow 2>/dev/null
cd /run/shadow/seawall || exit
cat difference
awk '{ all += $3; bad += $5; each = each " " $1 " " $3 }
     END { printf "shadow:%s; %d calls compared, %d mismatches\n", each, all, bad; exit bad > 0 }' counts
