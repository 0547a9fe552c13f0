#!/bin/sh
# Runs the tests that need neither root nor the lab, with the project's own node: all of them, or the given files.
set -eu
cd "$(dirname -- "$0")/.."
[ -x node_modules/.bin/node ] || npm ci >&2
[ $# -gt 0 ] || set -- 'test/unit/**/*.test.ts'
exec node_modules/.bin/node --disable-warning=ExperimentalWarning --test --test-concurrency=2 "$@"
