#!/bin/sh
# Measures start, mounts and memory of a daemon that has many images, or large ones. Words choose the states whose names have them.
set -eu
. "$(dirname -- "$0")/setup.sh"
answer_help "$@"
setup_lab
exec node --disable-warning=ExperimentalWarning "$project/test/bench/size.ts" "$@"
