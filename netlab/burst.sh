#!/bin/sh
# Starts a program on many empty hosts at once. --help lists the options.
set -eu
. "$(dirname -- "$0")/setup.sh"
setup_lab npm:npm
exec node --disable-warning=ExperimentalWarning "$project/netlab/bench/burst.ts" "$@"
