#!/usr/bin/env bash
# Draws where contract code spends its time: `perf/flame.sh ARGUMENT…` runs `zvm ARGUMENT… --profile perfmap` under perf and
# writes perf/out/flame.svg and the table of native, interpreted and host time. THROUGH names a function that counted stacks
# go through (by default all), TITLE the graph. ZVM is the binary, by default that of `scripts/dist`, which it builds.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
if (($# == 0)); then
    sed -n '2,4s/^# //p' "$here/perf/flame.sh" >&2
    exit 2
fi
for tool in perf python3; do
    command -v "$tool" >/dev/null || { echo "missing: $tool" >&2; exit 1; }
done
out=$here/perf/out
mkdir -p "$out"
if [[ -z ${ZVM:-} ]]; then
    "$here/scripts/dist"
    ZVM=$here/target/dist/zvm
fi
event=cycles
perf stat -e cycles true 2>&1 | grep -q 'not supported' && event=cpu-clock
perf record --event "$event" --freq 1999 --call-graph fp --output "$out/flame.data" -- "$ZVM" "$@" --profile perfmap
# Names are looked up in /tmp/perf-PID.map, which stays behind.
perf script --input "$out/flame.data" -F comm,ip,sym,dso 2>/dev/null |
    python3 "$here/perf/flame.py" --through "${THROUGH:-}" --title "${TITLE:-zvm $*}" >"$out/flame.svg"
echo "$out/flame.svg"
