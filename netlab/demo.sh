#!/bin/sh
# Shows p2pfs on one machine: a registry and three hosts. Two of them read an image from the third.
set -eu
. "$(dirname -- "$0")/setup.sh"
answer_help "$@"
setup_lab
exec node --disable-warning=ExperimentalWarning "$project/netlab/scenarios/demo.ts" "$@"
