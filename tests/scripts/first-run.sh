#!/usr/bin/env bash
# Measures `make run` as a newcomer meets it: from a fresh clone with nothing built, then a second time.
# Crates and packages already fetched stay in cargo's and npm's own caches; everything is compiled anew.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
dir=$(mktemp -d)
pid=
stop() { [ -n "$pid" ] && kill -- "-$pid" 2>/dev/null; rm -rf "$dir"; }
trap stop EXIT
git clone --quiet "$root" "$dir/clone"
cd "$dir/clone"
unset CARGO_TARGET_DIR
export MEDTECH_HTTP_BIND=127.0.0.1:0 MEDTECH_MQTT_BIND=127.0.0.1:0 MEDTECH_MEDIA_BIND=127.0.0.1 MEDTECH_MEDIA_UDP_PORT=0
for turn in "from nothing" "the second time"; do
  began=$SECONDS
  setsid make run >"$dir/log" 2>&1 &
  pid=$!
  until grep -q 'ready at' "$dir/log"; do
    kill -0 "$pid" 2>/dev/null || { cat "$dir/log"; exit 1; }
    sleep 0.2
  done
  echo "make run, $turn: $((SECONDS - began)) s until ready"
  kill -- "-$pid"
  wait "$pid" || true
  pid=
done
