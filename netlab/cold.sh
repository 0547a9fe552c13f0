#!/bin/sh
# Starts programs on empty hosts, over slow links to the registry, with p2pfs and with a plain pull. --help lists the
# options.
set -eu
. "$(dirname -- "$0")/setup.sh"
setup_lab npm:npm containerd:containerd ctr:containerd
exec node --disable-warning=ExperimentalWarning "$project/netlab/bench/cold.ts" "$@"
