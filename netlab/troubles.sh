#!/bin/sh
# Reads an image on many hosts while something goes wrong in their region. --help lists the options.
set -eu
. "$(dirname -- "$0")/setup.sh"
setup_lab
# A read that waits takes a thread.
export UV_THREADPOOL_SIZE=64
exec node --disable-warning=ExperimentalWarning "$project/netlab/bench/troubles.ts" "$@"
