#!/usr/bin/env bash
# progress.sh WORDS COMMAND...: runs a long command that prints a line for each package (go build -v) and shows that it
# goes on: a line in place on a terminal, else one a minute.
set -euo pipefail
words=$1; shift
log=$(mktemp)
trap 'rm -f "$log"' EXIT
start=$SECONDS
"$@" >"$log" 2>&1 &
pid=$!
shown=-1
while kill -0 "$pid" 2>/dev/null; do
  seconds=$((SECONDS - start)) packages=$(wc -l <"$log")
  if [ -t 1 ]; then
    printf '\r%s: %d:%02d, %d packages compiled ' "$words" $((seconds / 60)) $((seconds % 60)) "$packages"
  elif [ $((seconds / 60)) -gt "$shown" ]; then
    shown=$((seconds / 60))
    printf '%s: %d:%02d, %d packages compiled\n' "$words" $((seconds / 60)) $((seconds % 60)) "$packages"
  fi
  sleep 1
done
[ -t 1 ] && echo
wait "$pid" || { grep -Ev '^([^ :]*|go: downloading .*)$' "$log" >&2 || tail -20 "$log" >&2; exit 1; }
