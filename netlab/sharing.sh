#!/bin/sh
# Shows what a host that has one version of an image fetches for the next. --json prints JSON.
set -eu
. "$(dirname -- "$0")/setup.sh"
answer_help "$@"
setup_lab
exec node --disable-warning=ExperimentalWarning "$project/netlab/bench/sharing.ts" "$@"
