#!/usr/bin/env bash
# Counts instructions: `perf/callgrind.sh ARGUMENT…` runs `zvm ARGUMENT…` under valgrind. BINARY names another binary of
# target/dist. Writes perf/out/callgrind.out and prints the functions that execute most instructions.
set -euo pipefail
cd "$(dirname "$0")/.."
if (($# == 0)); then
    sed -n '2,3s/^# //p' "perf/$(basename "$0")" >&2
    exit 2
fi
command -v valgrind >/dev/null || { echo "missing: valgrind" >&2; exit 1; }
mkdir -p perf/out
scripts/dist
valgrind --tool=callgrind --callgrind-out-file=perf/out/callgrind.out --dump-instr=no --collect-jumps=no \
    "target/dist/${BINARY:-zvm}" "$@"
callgrind_annotate --auto=no --threshold=90 perf/out/callgrind.out
