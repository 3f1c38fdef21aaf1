#!/usr/bin/env bash
# The dependency arrows of ARCHITECTURE.md: reads `cargo tree` and fails on one that points where it must not.
set -euo pipefail
cd "$(dirname "$0")/../.."
failed=0
# allow CRATE INNER...: the only crates of ours that CRATE may lean on, directly or not.
allow() {
  local crate=$1; shift
  local found
  found=$(cargo tree --offline -p "$crate" -e normal,build --prefix none 2>/dev/null | awk '{print $1}' | grep -E '^medtech(-|$)' | sort -u | grep -vx "$crate" || true)
  for inner in $found; do
    case " $* " in *" $inner "*) ;; *) echo "forbidden arrow: $crate -> $inner"; failed=1 ;; esac
  done
}
allow medtech-pages
allow medtech-kernel medtech-pages
allow medtech-media-sfu
allow medtech-web-client
allow medtech-messaging medtech-kernel medtech-pages
allow medtech-notifications medtech-kernel medtech-pages
allow medtech-signaling medtech-kernel medtech-pages medtech-media-sfu
allow medtech-fhir medtech-kernel medtech-pages
for module in identity tenants records appointments; do
  allow "medtech-$module" medtech-kernel medtech-pages medtech-fhir
done
# Every crate of the workspace is named above, or is one of those that may see everything.
for crate in $(cargo metadata --offline --no-deps --format-version 1 | grep -o '"name":"medtech[a-z-]*","version"' | cut -d'"' -f4 | sort -u); do
  case "$crate" in
    medtech | medtech-tests) ;;
    *) grep -qE "allow (\"?)$crate\b|for module in.*\b${crate#medtech-}\b" "$0" || { echo "no arrow rule for $crate"; failed=1; } ;;
  esac
done
[ "$failed" = 0 ] && echo "dependency arrows: as drawn"
exit "$failed"
