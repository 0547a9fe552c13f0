#!/bin/sh
# Runs random actions and faults against daemons while readers compare every byte. --help lists the options.
set -eu
. "$(dirname -- "$0")/setup.sh"
setup_lab
exec node --disable-warning=ExperimentalWarning "$project/netlab/chaos/chaos.ts" "$@"
