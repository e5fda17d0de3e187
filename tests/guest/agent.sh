# SPDX-License-Identifier: GPL-2.0-only
# The guest's process 1 after the initramfs: takes jobs from the host until it is
# switched off.  A job is a folder in the exchange share with `command` and `stdin`;
# its number comes in over the second serial port and goes back when it is done.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LANG=C.UTF-8 TERM=dumb
exchange=/run/guest/exchange
. "$exchange/places"

mkdir -p /lib/modules
mount --bind "$modules" /lib/modules
ln -sf "$tools/sbin/ipvsadm" /usr/sbin/ipvsadm
for library in "$tools"/lib/*; do
    [ -e "/usr/lib/x86_64-linux-gnu/${library##*/}" ] || ln -s "$library" /usr/lib/x86_64-linux-gnu/
done
ip link set lo up
hostname guest
stty raw -echo </dev/ttyS1
exec 3<>/dev/ttyS1
echo ready >&3

while IFS= read -r number <&3; do
    job=$exchange/$number
    setsid /bin/sh "$job/command" <"$job/stdin" >"$job/stdout" 2>"$job/stderr" 3>&-
    echo "done $number $?" >&3
done
