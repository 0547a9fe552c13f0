#!/bin/sh
# Runs tests that need neither root nor the lab, with the project's own node: all of them, or the given files.
# Options go to node --test.
set -eu
cd "$(dirname -- "$0")/.."
if ! [ -x node_modules/.bin/node ]; then
  # npm ci would empty the directory that a link leads to.
  [ ! -L node_modules ] || { echo "unit.sh: no dependencies in $(readlink node_modules): install them there" >&2 && exit 1; }
  npm ci >&2
fi
files=
for argument in "$@"; do
  case $argument in -*) ;; *) files=given ;; esac
done
# Without files node would run all tests, those of the lab too.
[ -n "$files" ] || set -- "$@" 'test/unit/**/*.test.ts'
exec node_modules/.bin/node --disable-warning=ExperimentalWarning --test --test-concurrency=2 "$@"
