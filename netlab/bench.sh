#!/bin/sh
# Measures p2pfs beside what it replaces, on this machine. --json for machines, --runs N for more or fewer repetitions.
set -eu
. "$(dirname -- "$0")/setup.sh"
setup_lab fio:fio containerd:containerd ctr:containerd
exec node --disable-warning=ExperimentalWarning "$project/netlab/bench/bench.ts" "$@"
