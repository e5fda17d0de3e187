#!/bin/busybox sh
# SPDX-License-Identifier: GPL-2.0-only
# The guest's first process, from the initramfs: builds a root out of the host's
# files (read-only, by 9p) with a layer in memory over them, and starts the agent.
/bin/busybox --install -s /bin
export PATH=/bin

fail() {
    echo "guest init: $*" >/dev/console
    poweroff -f
}

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
while read -r module; do
    insmod "/modules/$module" || fail "cannot load $module"
done </modules/order

share=trans=virtio,version=9p2000.L,msize=262144
mount -t 9p -o "ro,$share,cache=loose" hostroot /host || fail "cannot mount the host's root"
mount -t tmpfs -o mode=755 memory /memory
mkdir /memory/upper /memory/work
layers=lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work
mount -t overlay -o "$layers" root /new || fail "cannot lay memory over the host's root"

mount -t proc proc /new/proc
mount -t sysfs sysfs /new/sys
mount -t bpf -o mode=700 bpffs /new/sys/fs/bpf
mount -t cgroup2 cgroup2 /new/sys/fs/cgroup
mount -t devtmpfs devtmpfs /new/dev
mkdir -p /new/dev/pts /new/dev/shm
mount -t devpts -o mode=620,ptmxmode=666 devpts /new/dev/pts
mount -t tmpfs -o mode=1777 shm /new/dev/shm
mount -t tmpfs -o mode=755 run /new/run
mkdir -p /new/run/lock /new/run/netns /new/run/guest/exchange
mount -t 9p -o "$share,cache=none" exchange /new/run/guest/exchange || fail "cannot mount the exchange folder"

umount /proc /sys
exec switch_root /new /bin/sh /run/guest/exchange/agent.sh
