#!/bin/sh
# Attacks daemons as strangers and bad members would, and shows what honest hosts notice. --help lists the options.
set -eu
. "$(dirname -- "$0")/setup.sh"
setup_lab
exec node --disable-warning=ExperimentalWarning "$project/netlab/hostile/hostile.ts" "$@"
