#!/bin/sh
# Boots an image as a microVM in Firecracker, in the jail that its jailer makes: a chroot, a mount namespace and a user
# of its own.
#
#   examples/firecracker.sh IMAGE KERNEL [KERNEL-ARGUMENT...]
#
# Run it as root, beside a running p2pfs daemon, with firecracker and jailer of one release (static builds) on the PATH.
# KERNEL is an uncompressed vmlinux with drivers for virtio-mmio and ext4 built in. The guest's console is the terminal.
# The image has cli/overlay-init.sh as /sbin/overlay-init, which makes the read-only rootfs writable with the scratch.
#
# Settings, by environment:
#   VM_ID=vm-PID            the name of the VM: letters, digits and hyphens, unique on this host
#   VM_USER=65534:65534     the user and group, by number, that Firecracker runs as; one of its own for each VM is best
#   VM_SCRATCH=1GiB         how much the VM can write
#   VM_CPUS=1 VM_MEMORY=512 (MiB)
#   VM_JAILS=/srv/jailer    where jails are made
set -eu
[ $# -ge 2 ] || { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
image=$1 kernel=$2
shift 2
id=${VM_ID:-vm-$$}
user=${VM_USER:-65534:65534}
firecracker=$(command -v firecracker)

# The jailer makes <jails>/<name of the program>/<id>/root the root of the jail, and takes one that is there. It binds
# this directory with all that is mounted in it, so a mount below it is in the jail: nothing has to be linked or copied.
jail=${VM_JAILS:-/srv/jailer}/$(basename "$firecracker")/$id
mkdir -p "$(dirname "$jail")"
mkdir "$jail" "$jail/root" "$jail/root/drives"
drives=$jail/root/drives
clean_up() {
  # Ends with an error, and keeps the mount and the jail, while the VM still uses it.
  if [ -e "$drives/rootfs.img" ]; then p2pfs umount "$drives" >&2; fi
  # Only what is on this filesystem: never into a mount.
  rm -r --one-file-system "$jail"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# Puts rootfs.img and scratch.img there. It prints JSON with the image's config (Entrypoint, Env and so on), which a
# launcher passes to what it runs in the VM.
p2pfs mount "$image" "$drives" --scratch "${VM_SCRATCH:-1GiB}" --owner "$user" >&2

cp "$kernel" "$jail/root/vmlinux"
# Paths are those in the jail. Drives become /dev/vda, /dev/vdb in this order. io_engine Sync reads through the host's
# page cache, so all VMs of an image share one copy; Async does too, with io_uring, and adds up to 110 ms to the start.
# cache_type Unsafe: a flush of the guest is none of the host. The scratch ends with the VM: there is nothing to keep.
cat >"$jail/root/vm.json" <<EOT
{
  "boot-source": {
    "kernel_image_path": "/vmlinux",
    "boot_args": "console=ttyS0 reboot=k panic=1 pci=off init=/sbin/overlay-init $*"
  },
  "drives": [
    {
      "drive_id": "rootfs",
      "path_on_host": "/drives/rootfs.img",
      "is_root_device": true,
      "is_read_only": true,
      "io_engine": "Sync"
    },
    {
      "drive_id": "scratch",
      "path_on_host": "/drives/scratch.img",
      "is_root_device": false,
      "is_read_only": false,
      "cache_type": "Unsafe",
      "io_engine": "Sync"
    }
  ],
  "machine-config": {
    "vcpu_count": ${VM_CPUS:-1},
    "mem_size_mib": ${VM_MEMORY:-512}
  }
}
EOT
# Firecracker's user reads both.
chmod 444 "$jail/root/vmlinux" "$jail/root/vm.json"

jailer --id "$id" --exec-file "$firecracker" --uid "${user%:*}" --gid "${user#*:}" \
  --chroot-base-dir "${VM_JAILS:-/srv/jailer}" \
  -- --no-api --config-file /vm.json
