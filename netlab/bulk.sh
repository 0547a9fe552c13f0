#!/bin/sh
# Measures how a file of weights comes from a peer, by each value of --bulk. --rate N limits the links to N Mbit/s,
# --size N is the file's size in MiB, --runs N sets the repetitions, --json prints JSON. --pairs measures two readers of two
# holders at once instead, and --receivers N so many readers of one.
set -eu
. "$(dirname -- "$0")/setup.sh"
answer_help "$@"
setup_lab
exec node --disable-warning=ExperimentalWarning "$project/netlab/bench/bulk.ts" "$@"
