#!/bin/sh
# Measures how a file of weights comes to a host that has only the registry, against skopeo and umoci. --rate N limits the
# host's link to N Mbit/s, --size N is the file's size in MiB, --layer gzip|zstd|none chooses layers, --runs N sets the
# repetitions, --json prints JSON.
set -eu
. "$(dirname -- "$0")/setup.sh"
answer_help "$@"
setup_lab zstd:zstd
exec node --disable-warning=ExperimentalWarning "$project/netlab/bench/weights.ts" "$@"
