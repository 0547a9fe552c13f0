#!/bin/sh
# Shows what versions of an image have in common: what a host that has one fetches for the next. --json for machines.
set -eu
. "$(dirname -- "$0")/setup.sh"
setup_lab
exec node --disable-warning=ExperimentalWarning "$project/netlab/bench/sharing.ts" "$@"
