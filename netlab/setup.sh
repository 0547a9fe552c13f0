# Sourced by the scripts that run the lab: sees to it that the machine has what the lab needs, installing it where it may.
# Leaves the project's directory in $project and the project's own node first on the path.

project=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)

# command:package, as Debian and its relatives call them
lab_tools='docker-registry:docker-registry skopeo:skopeo umoci:umoci mmdebstrap:mmdebstrap
  e2fsck:e2fsprogs ip:iproute2 tc:iproute2 iptables:iptables tar:tar getfattr:attr mount:mount losetup:mount nsenter:util-linux cmp:diffutils
  fusermount:fuse qemu-system-x86_64:qemu-system-x86 fsck.erofs:erofs-utils runc:runc perl:perl-base'

fail() {
  echo "$(basename "$0"): $*" >&2
  exit 1
}

# Packages that are missing, of command:package pairs.
missing_packages() {
  for pair in "$@"; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || echo "${pair#*:}"
  done | sort -u | tr '\n' ' '
}

# Installs the packages of the given command:package pairs that are missing.
require_tools() {
  missing=$(missing_packages "$@")
  [ -z "$missing" ] && return 0
  [ "$(id -u)" = 0 ] || fail "not installed: $missing(as root: apt-get install -y --no-install-recommends $missing)"
  command -v apt-get >/dev/null 2>&1 || fail "not installed, and there is no apt-get to install it: $missing"
  echo "Installing $missing..." >&2
  # Package lists may be absent or out of date: fetch them if it does not work without.
  # shellcheck disable=SC2086
  install() { DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing >&2; }
  install || { apt-get update >&2 && install; } || fail "could not install $missing"
  missing=$(missing_packages "$@")
  [ -z "$missing" ] || fail "still not there after the installation: $missing"
}

require_modules() {
  [ -x "$project/node_modules/.bin/node" ] && return 0
  command -v npm >/dev/null 2>&1 || fail 'the dependencies are not installed, and there is no npm to install them'
  echo 'Installing the dependencies (npm ci) ...' >&2
  (cd "$project" && npm ci >&2) || fail 'npm ci failed'
}

require_linux() {
  [ "$(uname -s)" = Linux ] || fail 'this needs Linux: network namespaces, FUSE, loop devices'
}

require_root() {
  [ "$(id -u)" = 0 ] || fail 'this needs root, for network namespaces and mounts; run it with sudo'
}

require_devices() {
  [ -e /dev/fuse ] || { command -v modprobe >/dev/null 2>&1 && modprobe fuse; } || fail 'there is no /dev/fuse'
  [ -e /dev/loop-control ] || { command -v modprobe >/dev/null 2>&1 && modprobe loop; } || fail 'there are no loop devices'
}

# All that the lab needs, and more command:package pairs.
setup_lab() {
  require_linux
  # Root's tools are not on everyone's path.
  PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
  # shellcheck disable=SC2086
  require_tools $lab_tools "$@"
  require_root
  require_devices
  require_modules
  PATH=$project/node_modules/.bin:$PATH
  export PATH
}
