#!/bin/sh
# The init of the lab's guest. It starts the application, does what a machine does on a writable rootfs, prints each
# step on the console, and powers off. If something fails it ends, which is a kernel panic.
set -eu
# Without the pause, the panic would come before the serial console has printed the reason.
trap 'sleep 1' EXIT
scratch=/p2pfs/scratch

# This comes first, because python3 writes its compiled files.
echo "p2pfs guest scratch: $(df --block-size=1 --output=size,used,avail "$scratch" | tail -n 1)"

python3 -c 'import json, ssl, sqlite3; print("p2pfs guest ready", flush=True)'

# A new file, and one of the rootfs that is copied up.
echo new >/root/new
echo added >>/etc/hostname
[ "$(cat /root/new)" = new ]
case $(cat /etc/hostname) in *?added) echo 'p2pfs guest overlay: written and read' ;; *) exit 1 ;; esac

fallocate --length 64MiB "$scratch/swap"
chmod 600 "$scratch/swap"
mkswap "$scratch/swap"
swapon "$scratch/swap"
while read -r file _ kibibytes _; do
  [ "$file" = "$scratch/swap" ] && echo "p2pfs guest swap: $kibibytes KiB"
done </proc/swaps

# Third field of Documentation/block/stat.rst: sectors of 512 bytes.
read -r _ _ sectors _ </sys/block/nvme0n1/stat
echo "p2pfs guest read: $((sectors * 512)) bytes of its rootfs"

sync
echo o >/proc/sysrq-trigger
# PID 1 must not end before the machine does.
exec sleep 60
