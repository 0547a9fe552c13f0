#!/bin/sh
# Measures p2pfs and what it replaces on this machine. --json prints JSON, --runs N sets the repetitions.
set -eu
. "$(dirname -- "$0")/setup.sh"
answer_help "$@"
setup_lab fio:fio containerd:containerd ctr:containerd
exec node --disable-warning=ExperimentalWarning "$project/netlab/bench/bench.ts" "$@"
