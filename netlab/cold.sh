#!/bin/sh
# Starts programs on hosts that have nothing, over slow links to the registry: p2pfs beside a plain pull. --help for more.
set -eu
. "$(dirname -- "$0")/setup.sh"
setup_lab npm:npm containerd:containerd ctr:containerd
exec node --disable-warning=ExperimentalWarning "$project/netlab/bench/cold.ts" "$@"
