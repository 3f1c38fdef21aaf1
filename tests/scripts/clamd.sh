#!/usr/bin/env bash
# A private clamd with one hand-written signature (the standard test file of scanners), on a free loopback port for the time
# of one command: clamd.sh COMMAND ARGS... The command finds its address in MEDTECH_TEST_CLAMD. The Debian packages are
# unpacked into target/, not installed: nothing is started with the machine and no signatures are fetched.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
clamd=$(command -v clamd || true)
lib=
if [ -z "$clamd" ]; then
  at="${CARGO_TARGET_DIR:-$root/target}/clamav"
  if [ ! -x "$at/usr/sbin/clamd" ]; then
    mkdir -p "$at/packages"
    # Without it the tests have the small one of their own.
    (cd "$at/packages" && apt-get download -qq clamav-daemon libclamav12 libmspack0 >/dev/null 2>&1) \
      || { echo "no clamd: the tests use their own" >&2; exec "$@"; }
    for package in "$at"/packages/*.deb; do dpkg -x "$package" "$at"; done
  fi
  clamd="$at/usr/sbin/clamd"
  lib=$(dirname "$(ls "$at"/usr/lib/*/libclamav.so.* | head -n 1)")
fi
dir=$(mktemp -d)
mkdir "$dir/db"
# 68 bytes, as hexadecimal.
printf 'Eicar-Test-Signature:0:*:%s%s\n' 58354f2150254041505b345c505a58353428505e2937434329377d2445494341522d5354414e44415244 \
  2d414e544956495255532d544553542d46494c452124482b482a >"$dir/db/test.ndb"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$dir/clamd.conf" <<CONF
Foreground yes
TCPAddr 127.0.0.1
TCPSocket $port
DatabaseDirectory $dir/db
TemporaryDirectory $dir
StreamMaxLength 100M
AlertExceedsMax yes
CONF
[ "$(id -u)" != 0 ] || echo "User root" >>"$dir/clamd.conf"
LD_LIBRARY_PATH=$lib "$clamd" --config-file="$dir/clamd.conf" >"$dir/log" 2>&1 &
pid=$!
stop() { kill "$pid" 2>/dev/null || true; rm -rf "$dir"; }
trap stop EXIT
for _ in $(seq 300); do
  (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
  kill -0 "$pid" 2>/dev/null || { cat "$dir/log"; exit 1; }
  sleep 0.1
done
MEDTECH_TEST_CLAMD="tcp://127.0.0.1:$port" "$@"
