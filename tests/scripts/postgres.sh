#!/usr/bin/env bash
# A private PostgreSQL on a free loopback port for the time of one command: postgres.sh COMMAND ARGS...
# The command finds the owner's address in MEDTECH_TEST_PG.
set -euo pipefail
bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
dir=$(mktemp -d)
run=()
if [ "$(id -u)" = 0 ]; then
  chown postgres "$dir"
  run=(setpriv --reuid=postgres --regid=postgres --init-groups)
fi
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cd "$dir"
"${run[@]}" "$bin/initdb" -D "$dir/data" -U postgres -A trust --locale=C -E UTF8 >/dev/null
# The data is thrown away: waiting for the disk would only slow the tests.
"${run[@]}" "$bin/pg_ctl" -D "$dir/data" -w -l "$dir/log" \
  -o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories=$dir -c fsync=off -c max_connections=300" start >/dev/null
stop() { "${run[@]}" "$bin/pg_ctl" -D "$dir/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$dir"; }
trap stop EXIT
cd "$OLDPWD"
MEDTECH_TEST_PG="postgres://postgres@127.0.0.1:$port/postgres" "$@"
