#!/bin/sh
# Runs the daemon's code on many simulated hosts. --help lists the options.
set -eu
. "$(dirname -- "$0")/setup.sh"
setup_lab
exec node --disable-warning=ExperimentalWarning "$project/netlab/simulator/simulate.ts" "$@"
