#!/bin/sh
# Makes the read-only rootfs of a VM writable. Goes into the image as /sbin/overlay-init; the kernel gets
# init=/sbin/overlay-init. An overlay of the root drive and of a second drive (the scratch: ext4, writable) becomes the root,
# and the real init runs in it as PID 1. There the scratch is /p2pfs/scratch, for what an overlay cannot hold, like a swap
# file. The rootfs below is out of reach: nothing finds each file twice, nobody changes it under the overlay.
#
# Kernel arguments:
#   p2pfs.scratch=/dev/...  the scratch; by default the first other writable drive of the root drive's kind
#   p2pfs.init=/...         the real init; /sbin/init by default
#
# Needs mount, mkdir, sleep and chroot in the rootfs, busybox's or others, and overlayfs in the kernel or as its module. If
# something fails it says what and ends, which is a kernel panic: panic=-1 makes that the end of the VM.

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
umask 022

# A drive may be there a little later than the root drive: the kernel looks for them in parallel. Seconds.
patience=5

fail() {
  echo "overlay-init: $*"
  # A serial console takes time to print it, and the panic would not wait.
  sleep 1
  exit 1
}

is_mounted() {
  while read -r _ point _; do [ "$point" = "$1" ] && return; done </proc/mounts
  return 1
}

has_overlay() {
  # Lines are "nodev\tNAME" for file systems without a drive.
  while read -r _ name; do [ "$name" = overlay ] && return; done </proc/filesystems
  return 1
}

# Name of the root drive, as in /sys/block.
root_drive() {
  while read -r _ _ device _ point _; do [ "$point" = / ] && number=$device; done </proc/self/mountinfo
  while IFS='=' read -r key value; do [ "$key" = DEVNAME ] && echo "$value"; done <"/sys/dev/block/$number/uevent"
}

# Path of the first writable drive beside the root drive that begins with the same two letters: nv, vd, sd, xv.
other_drive() {
  for path in /sys/block/"${1%"${1#??}"}"*; do
    [ "${path##*/}" != "$1" ] && read -r ro 2>/dev/null <"$path/ro" && [ "$ro" = 0 ] && echo "/dev/${path##*/}" && return
  done
}

[ -e /proc/self ] || mount -t proc proc /proc || fail 'cannot mount /proc: does the rootfs have mount, and the directory?'
is_mounted /sys || mount -t sysfs sysfs /sys || fail 'cannot mount /sys'
# Some kernels do it by themselves. Until then there may be no /dev/null.
is_mounted /dev || mount -t devtmpfs devtmpfs /dev || fail 'cannot mount /dev'

init=/sbin/init scratch=
read -r arguments </proc/cmdline
for argument in $arguments; do
  case $argument in
    p2pfs.scratch=*) scratch=${argument#*=} ;;
    p2pfs.init=*) init=${argument#*=} ;;
  esac
done

has_overlay || modprobe overlay 2>/dev/null || {
  read -r release </proc/sys/kernel/osrelease
  insmod "/lib/modules/$release/kernel/fs/overlayfs/overlay.ko" 2>/dev/null
}
has_overlay || fail 'this kernel has no overlayfs, and no module of it could be loaded'

given=$scratch
[ -n "$given" ] || root=$(root_drive)
while
  [ -n "$given" ] || scratch=$(other_drive "$root")
  ! [ -b "$scratch" ]
do
  [ $((patience -= 1)) -ge 0 ] || fail "no scratch drive: ${given:-a writable one beside $root} is not there"
  sleep 1
done

# Nothing can be made on the rootfs, so the mount points are on a tmpfs over a directory that any image has.
for work in /run /mnt /tmp; do [ -d "$work" ] && break; done
mount -t tmpfs -o mode=755 tmpfs "$work" || fail "cannot mount a tmpfs on $work"
mkdir "$work/scratch" "$work/root"
mount -t ext4 -o noatime "$scratch" "$work/scratch" || fail "cannot mount the scratch $scratch: is it ext4, and writable?"
mkdir -p "$work/scratch/upper" "$work/scratch/work"
mount -t overlay -o "lowerdir=/,upperdir=$work/scratch/upper,workdir=$work/scratch/work" overlay "$work/root" ||
  fail "cannot mount the overlay on $scratch"

cd "$work/root" || fail 'the overlay is not there'
mkdir -p p2pfs/scratch
mount --move "$work/scratch" p2pfs/scratch || fail 'cannot move the scratch into the overlay'
# /proc last: mount itself reads it.
for point in dev sys proc; do mount --move "/$point" "$point" || fail "cannot move /$point into the overlay"; done
# Not pivot_root, which not every image has: as switch_root does it.
mount --move . / || fail 'cannot make the overlay the root'
exec chroot . "$init" "$@"
