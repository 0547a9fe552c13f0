#!/bin/sh
# Shows on one machine what p2pfs does: a registry, three hosts, an image that two of them read from the third.
set -eu
. "$(dirname -- "$0")/setup.sh"
setup_lab
exec node --disable-warning=ExperimentalWarning "$project/netlab/scenarios/demo.ts" "$@"
