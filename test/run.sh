#!/bin/sh
# Runs tests with the project's own node: all of them, or the given files. Options go to node --test.
set -eu
. "$(dirname -- "$0")/../netlab/setup.sh"
setup_lab
cd "$project"
files=
for argument in "$@"; do
  case $argument in -*) ;; *) files=given ;; esac
done
[ -n "$files" ] || set -- "$@" 'test/**/*.test.ts'
exec node --disable-warning=ExperimentalWarning --test --test-concurrency=2 "$@"
