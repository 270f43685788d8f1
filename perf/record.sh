#!/usr/bin/env bash
# Samples where time goes: `perf/record.sh ARGUMENT…` runs `zvm ARGUMENT…` under perf,
# `perf/record.sh --pid PID SECONDS` samples a running node. BINARY names another binary of target/dist, such as zvm-bench.
# Writes perf/out/perf.data and prints the hottest functions.
set -euo pipefail
cd "$(dirname "$0")/.."
if (($# == 0)); then
    sed -n '2,4s/^# //p' "perf/$(basename "$0")" >&2
    exit 2
fi
command -v perf >/dev/null || { echo "missing: perf (Debian: linux-perf)" >&2; exit 1; }
mkdir -p perf/out

# A virtual machine without hardware counters has the clock.
event=cycles
perf stat -e cycles true 2>&1 | grep -q 'not supported' && event=cpu-clock
record=(perf record --event "$event" --freq 997 --call-graph fp --output perf/out/perf.data)

if [[ $1 == --pid ]]; then
    "${record[@]}" --pid "${2:?pid}" -- sleep "${3:?seconds}"
else
    scripts/dist
    "${record[@]}" -- "target/dist/${BINARY:-zvm}" "$@"
fi
perf report --input perf/out/perf.data --stdio --no-children --call-graph none --percent-limit 0.5 2>/dev/null
