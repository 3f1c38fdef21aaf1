#!/usr/bin/env bash
# What only the tests need, from Debian's packages; does nothing when it is all there.
set -euo pipefail
want=()
command -v chromium >/dev/null || want+=(chromium)
command -v openssl >/dev/null || want+=(openssl)
command -v curl >/dev/null || want+=(curl)
[ -n "$(ls -d /usr/lib/postgresql/*/bin/initdb 2>/dev/null)" ] || want+=(postgresql)
command -v mosquitto_pub >/dev/null || want+=(mosquitto-clients)
command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ] || want+=(mosquitto)
[ -n "$(ls /usr/lib/*/faketime/libfaketime.so.1 2>/dev/null)" ] || want+=(libfaketime)
command -v pebble >/dev/null || [ -x "${PEERS_DIR:-}/pebble" ] || want+=(pebble)
command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || want+=(nginx-light)
[ ${#want[@]} = 0 ] && exit 0
echo "installing for the tests: ${want[*]}"
as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo)
"${as_root[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${want[@]}" >/dev/null
