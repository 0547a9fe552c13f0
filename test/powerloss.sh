#!/bin/sh
# Cuts the power of a disk under a store, at random instants. --help lists the options.
set -eu
. "$(dirname -- "$0")/../netlab/setup.sh"
setup_lab mkfs.ext4:e2fsprogs
exec node --disable-warning=ExperimentalWarning "$project/test/lab/powerloss/main.ts" "$@"
