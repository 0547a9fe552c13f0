#!/bin/sh
# Mounts an image of the region by its tag while its registry is dead. --help lists the options.
set -eu
. "$(dirname -- "$0")/setup.sh"
setup_lab
exec node --disable-warning=ExperimentalWarning "$project/netlab/bench/outage.ts" "$@"
