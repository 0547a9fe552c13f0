# Sourced by the scripts that run the lab. Installs what the lab needs and the machine lacks, where it may. Leaves the
# project's directory in $project, and puts the project's own node first on the path.

project=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd) || exit 1

# Each entry is COMMAND:PACKAGE, with the package's name on Debian and its relatives. A package that brings a shared
# library and no command stands with the library's file name, as in libNAME.so.N:PACKAGE.
lab_tools='docker-registry:docker-registry skopeo:skopeo umoci:umoci mmdebstrap:mmdebstrap e2fsck:e2fsprogs
  ip:iproute2 tc:iproute2 iptables:iptables tar:tar getfattr:attr mount:mount losetup:mount nsenter:util-linux
  cmp:diffutils qemu-system-x86_64:qemu-system-x86 fsck.erofs:erofs-utils runc:runc fio:fio perl:perl-base
  fusermount:fuse libfuse.so.2:libfuse2 mandoc:mandoc zsh:zsh fish:fish'

fail() {
  echo "$(basename "$0"): $*" >&2
  exit 1
}

# Whether the machine has a command, or a shared library.
is_there() {
  case $1 in
    *.so.*) ldconfig -p | grep -q "^[[:space:]]*$1 " ;;
    *) command -v "$1" >/dev/null 2>&1 ;;
  esac
}

# The packages that are missing, of such entries.
missing_packages() {
  for pair in "$@"; do
    is_there "${pair%%:*}" || echo "${pair#*:}"
  done | sort -u | tr '\n' ' '
}

# Installs those that are missing.
require_tools() {
  missing=$(missing_packages "$@")
  [ -z "$missing" ] && return 0
  [ "$(id -u)" = 0 ] || fail "not installed: $missing(as root: apt-get install -y --no-install-recommends $missing)"
  command -v apt-get >/dev/null 2>&1 || fail "not installed, and there is no apt-get to install it: $missing"
  echo "Installing $missing..." >&2
  # Package lists may be absent or out of date: they are fetched if the first attempt fails.
  # shellcheck disable=SC2086
  install() { DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing >&2; }
  install || { apt-get update >&2 && install; } || fail "could not install $missing"
  missing=$(missing_packages "$@")
  [ -z "$missing" ] || fail "still not there after the installation: $missing"
}

require_modules() {
  [ -x "$project/node_modules/.bin/node" ] && return 0
  # npm ci would empty the directory that the link leads to.
  [ ! -L "$project/node_modules" ] || fail "no dependencies in $(readlink "$project/node_modules"): install them there"
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
  [ -e /dev/loop-control ] || { command -v modprobe >/dev/null 2>&1 && modprobe loop; } ||
    fail 'there are no loop devices'
}

# Ends with what stands at the head of the script, which has its options, if it was asked for help.
answer_help() {
  case ${1-} in
    -h | --help)
      sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
      exit 0
      ;;
  esac
}

# Prepares the machine for the lab. Takes further entries like those of lab_tools.
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
