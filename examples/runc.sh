#!/bin/sh
# Runs a command in a container of runc, with an image's tree as its root.
#
#   examples/runc.sh IMAGE COMMAND [ARGUMENT...]
#
# Run it as root, beside a running p2pfs daemon. The container sees a writable copy of the image; what it writes ends
# with it.
#
# Settings, by environment:
#   CONTAINER_ID=p2pfs-PID  the name of the container, unique on this host
#   CONTAINER_WRITES=1GiB   how much it can write
set -eu
[ $# -ge 2 ] || { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
image=$1
shift
id=${CONTAINER_ID:-p2pfs-$$}

# Only root gets below a directory of mode 700, so setuid programs of the image work in the container, and nobody else on
# this host gets at them: see docs/operating.md, Other users of the host.
bundle=$(mktemp -d /run/p2pfs-runc.XXXXXX)
mkdir "$bundle/rootfs"
clean_up() {
  if mountpoint -q "$bundle/rootfs"; then p2pfs umount "$bundle/rootfs" >&2; fi
  rm -r --one-file-system "$bundle"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

p2pfs mount "$image" "$bundle/rootfs" --as tree --writable --size "${CONTAINER_WRITES:-1GiB}" >&2

# runc's own template, with the command in the place of its shell. A runtime takes Env, User and WorkingDir from the
# config that p2pfs mount prints.
runc spec --bundle "$bundle"
python3 - "$bundle/config.json" "$@" <<'EOT'
import json, sys
path, *command = sys.argv[1:]
with open(path) as file: spec = json.load(file)
spec["process"]["args"] = command
spec["process"]["terminal"] = False
spec["root"]["readonly"] = False
with open(path, "w") as file: json.dump(spec, file)
EOT
runc run --bundle "$bundle" "$id"
