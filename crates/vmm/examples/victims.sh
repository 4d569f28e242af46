#!/bin/busybox sh
# init of a guest in which memory goes bad under three processes, one after the other, while a fourth goes on:
# see boot.rs.
export PATH=/bin
for mount in devtmpfs:/dev proc:/proc tmpfs:/tmp; do
    busybox mount -t ${mount%:*} none ${mount#*:}
done
# Each has a file of its own, so that what is bad of it is nobody else's.
for name in witness code text data; do busybox cp /bin/victim /tmp/$name; done
/tmp/witness witness > /tmp/log & witness=$!
for name in code text data; do
    /tmp/$name $name
    echo "init: $name ended with $?"
done
# From here on without new processes: without a firmware record Linux does not take a bad page offline, so
# what was `data`'s is free memory now, and bad for whoever gets it next.
wait $witness
echo "init: witness ended with $?"
while read line; do echo "init: it said: $line"; done < /tmp/log
while read line; do case $line in *Corrupted*) echo "init: $line" ;; esac; done < /proc/meminfo
echo o > /proc/sysrq-trigger
read forever
