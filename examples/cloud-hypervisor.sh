#!/bin/sh
# Boots an image as a VM in Cloud Hypervisor, which runs as a user without rights and shuts itself off from all files but
# those of the VM (Landlock).
#
#   examples/cloud-hypervisor.sh IMAGE KERNEL [KERNEL-ARGUMENT...]
#
# Run it as root, beside a running p2pfs daemon, with cloud-hypervisor 51 or later on the PATH. KERNEL is a bzImage, or
# a vmlinux with PVH, that has drivers for virtio-pci and ext4 built in; the user below must be able to read it. The
# guest's console is the terminal. The image has cli/overlay-init.sh as /sbin/overlay-init, which makes the read-only
# rootfs writable with the scratch.
#
# Settings, by environment:
#   VM_USER=65534:65534     the user and group, by number, that it runs as; one of its own for each VM is best
#   VM_SCRATCH=1GiB         how much the VM can write
#   VM_CPUS=1 VM_MEMORY=512 (MiB)
set -eu
[ $# -ge 2 ] || { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
image=$1 kernel=$2
shift 2
user=${VM_USER:-65534:65534}

# The directory that the mount is on. What is mounted there has mode 555, so the user gets through it; /run does, too.
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

# image_type=raw has to be said: a drive whose type is guessed takes no writes to its first sectors, where ext4 has its
# superblock. direct=on for the scratch, which is this VM's alone. Not for the rootfs: through the host's page cache, all
# VMs of an image share one copy of what they read.
setpriv --reuid="${user%:*}" --regid="${user#*:}" --groups="$(stat -c %g /dev/kvm)" --no-new-privs \
  cloud-hypervisor --landlock --serial tty --console off \
  --cpus "boot=${VM_CPUS:-1}" --memory "size=${VM_MEMORY:-512}M" \
  --disk "path=$drives/rootfs.img,readonly=on,image_type=raw" "path=$drives/scratch.img,image_type=raw,direct=on" \
  --kernel "$kernel" \
  --cmdline "root=/dev/vda ro console=ttyS0 panic=1 init=/sbin/overlay-init $*"
