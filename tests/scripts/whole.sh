#!/usr/bin/env bash
# No test stands where nothing runs it: a crate's files in tests/ are modules of its one binary (tests/all.rs), which is
# linked once, and examples in comments are not run at all, so none claims to be code.
set -euo pipefail
cd "$(dirname "$0")/../.."
failed=0
say() { echo "$1"; failed=1; }
while read -r all; do
  dir=$(dirname "$all")
  for file in "$dir"/*.rs; do
    name=$(basename "$file" .rs)
    [ "$name" = all ] || grep -qx "mod $name;" "$all" || say "$file: not in $all"
  done
done < <(git ls-files '*tests/all.rs')
# Fences open and close in turn; one that opens without `text` would be a test for rustdoc.
git ls-files '*.rs' | while read -r file; do
  awk -v file="$file" '/^ *\/\/[\/!] *```/ { if (!open && $0 !~ /```(text|json|http)/) { print file ":" FNR ": an example that nothing runs"; bad = 1 } open = !open } END { exit bad }' "$file" || exit 1
done || failed=1
exit "$failed"
