#!/bin/sh
# Measures reads that miss, alone and beside a seed of 500 MB onto the same host. --rate N is the rate of the links in
# Mbit/s, --size N the seed's size in MiB, --runs N sets the repetitions, --registry seeds from a registry, too, --seed-limit RATE
# limits seeds on the host, --json prints JSON.
set -eu
. "$(dirname -- "$0")/setup.sh"
answer_help "$@"
setup_lab
exec node --disable-warning=ExperimentalWarning "$project/netlab/bench/background.ts" "$@"
