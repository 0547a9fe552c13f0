#!/bin/sh
# Limits on the disk, and full disks, with real daemons. --help lists the options.
set -eu
. "$(dirname -- "$0")/setup.sh"
setup_lab
exec node --disable-warning=ExperimentalWarning "$project/netlab/disk/disk.ts" "$@"
