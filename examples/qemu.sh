#!/bin/sh
# Boots an image as a VM in QEMU, which runs as a user without rights.
#
#   examples/qemu.sh IMAGE KERNEL [KERNEL-ARGUMENT...]
#
# Run it as root, beside a running p2pfs daemon. KERNEL is a bzImage with drivers for NVMe and ext4 built in, such as
# the one of Debian's linux-image-cloud-amd64; the user below must be able to read it. The guest's console is the
# terminal. The image has cli/overlay-init.sh as /sbin/overlay-init, which makes the read-only rootfs writable with the
# scratch.
#
# Settings, by environment:
#   VM_USER=65534:65534     the user and group, by number, that QEMU runs as; one of its own for each VM is best
#   VM_SCRATCH=1GiB         how much the VM can write
#   VM_CPUS=1 VM_MEMORY=512 (MiB)
#   VM_ROOT_IO=...          QEMU's options for reads of the rootfs: see below
set -eu
[ $# -ge 2 ] || { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
image=$1 kernel=$2
shift 2
user=${VM_USER:-65534:65534}

# Through the host's page cache, all VMs of an image share one copy of what they read. With cache=none each read goes
# past that cache to the p2pfs daemon: choose it where memory is short. The scratch is this VM's alone: nothing is shared.
root_io=${VM_ROOT_IO:-cache=writeback,aio=io_uring}
scratch_io=cache=none,aio=io_uring

# The directory that the mount is on. What is mounted there has mode 555, so QEMU's user gets through it; /run does, too.
drives=$(mktemp -d /run/p2pfs-vm.XXXXXX)
clean_up() {
  # Ends with an error, and keeps the mount, while a VM still uses it.
  if [ -e "$drives/rootfs.img" ]; then p2pfs umount "$drives" >&2; fi
  rmdir "$drives"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# Puts rootfs.img and scratch.img there. It prints JSON with the image's config (Entrypoint, Env and so on), which a
# launcher passes to what it runs in the VM.
p2pfs mount "$image" "$drives" --scratch "${VM_SCRATCH:-1GiB}" --owner "$user" >&2

# /dev/kvm is its group's. Without it QEMU emulates the CPU, which is slow.
groups=--clear-groups
[ ! -e /dev/kvm ] || groups=--groups=$(stat -c %g /dev/kvm)

# Both drives are namespaces of one NVMe controller, so the kernel finds them in this order. With a kernel or initrd
# that has virtio: -drive if=virtio instead of if=none, no -device, and root=/dev/vda.
# -no-reboot and panic=-1: a VM that reboots or panics ends.
setpriv --reuid="${user%:*}" --regid="${user#*:}" "$groups" --no-new-privs \
  qemu-system-x86_64 -nodefaults -no-user-config -no-reboot -display none -serial stdio \
  -accel kvm -accel tcg -cpu max -smp "${VM_CPUS:-1}" -m "${VM_MEMORY:-512}M" \
  -device nvme,id=nvme,serial=p2pfs \
  -drive "if=none,id=root,format=raw,readonly=on,file=$drives/rootfs.img,$root_io" \
  -device nvme-ns,drive=root,bus=nvme,nsid=1 \
  -drive "if=none,id=scratch,format=raw,file=$drives/scratch.img,$scratch_io" \
  -device nvme-ns,drive=scratch,bus=nvme,nsid=2 \
  -kernel "$kernel" \
  -append "root=/dev/nvme0n1 ro rootwait console=ttyS0 panic=-1 init=/sbin/overlay-init $*"
