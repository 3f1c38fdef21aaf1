#!/usr/bin/env bash
# docs/security/controls.tsv: whole against the list of items, and every code and test it names is there. Prints the sums.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ "$(wc -l <docs/security/asvs-5.0-items.txt)" = 253 ] || { echo "asvs-5.0-items.txt has not its 253 items"; exit 1; }
LC_ALL=C awk -F'\t' '
function wrong(what) { print "controls.tsv:" FNR ": " $1 ": " what; failed = 1 }

# The lines of a file, read once; how many there are, or -1 when there is no such file.
function load(path,   line, n) {
  if (path in lines) return lines[path]
  n = 0
  while ((got = (getline line < path)) > 0) text[path, ++n] = line
  close(path)
  return lines[path] = (n || got == 0) ? n : -1
}

# The first line from `from` on that holds the word.
function find(path, word, from,   n, i, at, rest, before, after) {
  n = load(path)
  for (i = from; i <= n; i++) {
    rest = text[path, i]
    before = ""
    while ((at = index(rest, word)) > 0) {
      if (at > 1) before = substr(rest, at - 1, 1)
      after = substr(rest, at + length(word), 1)
      if (before !~ /[A-Za-z0-9_]/ && after !~ /[A-Za-z0-9_]/) return i
      before = substr(rest, at + length(word) - 1, 1)
      rest = substr(rest, at + length(word))
    }
  }
  return 0
}

# A Rust function with a test attribute, which is not ignored.
function is_rust_test(path, name,   i, j, is) {
  for (i = find(path, name, 1); i; i = find(path, name, i + 1)) {
    if (text[path, i] !~ ("fn " name "[(<]")) continue
    is = 0
    for (j = i - 1; j > 0 && text[path, j] ~ /^ *(#\[|\/\/)/; j--) {
      if (text[path, j] ~ /^ *#\[([a-z]+::)?test[](]/) is++
      if (text[path, j] ~ /^ *#\[ignore/) is = -9
    }
    if (is > 0) return 1
  }
  return 0
}

# A test of node or vitest whose title begins with these words, and is not skipped.
function is_script_test(path, title,   n, i) {
  n = load(path)
  for (i = 1; i <= n; i++)
    if ((index(text[path, i], "test(\"" title) || index(text[path, i], "it(\047" title)) && text[path, i] !~ /(skip|todo):/) return 1
  return 0
}

function check_code(  i, n, all, path, symbol, at) {
  n = split($4, all, " ")
  for (i = 1; i <= n; i++) {
    at = index(all[i], "::")
    path = at ? substr(all[i], 1, at - 1) : all[i]
    symbol = at ? substr(all[i], at + 2) : ""
    if (load(path) < 0) wrong("there is no file " path)
    else if (at && !find(path, symbol, 1)) wrong(path " has no " symbol)
  }
}

function check_tests(  rest, path, name, at) {
  rest = $5
  while (rest != "") {
    at = index(rest, "::")
    if (!at) { wrong("not a test: " rest); return }
    path = substr(rest, 1, at - 1)
    rest = substr(rest, at + 2)
    if (substr(rest, 1, 1) == "\"") {
      rest = substr(rest, 2)
      at = index(rest, "\"")
      name = substr(rest, 1, at - 1)
      rest = substr(rest, at + 1)
      if (name == "" || !is_script_test(path, name)) wrong(path " has no test \"" name "\"")
    } else {
      name = rest
      sub(/ .*/, "", name)
      rest = substr(rest, length(name) + 1)
      if (!is_rust_test(path, name)) wrong(path " has no test " name)
    }
    sub(/^ /, "", rest)
  }
}

BEGIN {
  statuses = "met partly open outside none"
  split(statuses, order, " ")
  split("(a)(1) (a)(2)(i) (a)(2)(ii) (a)(2)(iii) (a)(2)(iv) (b) (c)(1) (c)(2) (d) (e)(1) (e)(2)(i) (e)(2)(ii)", hipaa, " ")
  for (i in hipaa) wanted["HIPAA 164.312" hipaa[i]] = 1
  split("encoding|rules of business|page|web services|files|sign-in|sessions|access|signed tokens|OAuth, OpenID|cryptography|connections|configuration|data|coding|logs, errors|WebRTC", names, "|")
}

FILENAME ~ /items/ {
  split($0, item, " ")
  if ($0 !~ /^[0-9]+\.[0-9]+\.[0-9]+ [12]$/ || ("ASVS " item[1]) in wanted) { print "asvs-5.0-items.txt:" FNR ": " $0; failed = 1 }
  wanted["ASVS " item[1]] = 1
  level[item[2]]++
  next
}

FNR == 1 {
  if ($0 != "control\tsays\tstatus\tcode\ttest\tnote") wrong("the head of the table is another one")
  if (level[1] != 70 || level[2] != 183) wrong("the list has " level[1] " items of level 1 and " level[2] " of level 2, not 70 and 183")
  next
}

{
  if (NF != 6) wrong(NF " columns, not 6")
  if (seen[$1]++) wrong("stands twice")
  if (!($1 in wanted)) wrong("is no control of the list")
  if ($2 == "" || length($2) > 120) wrong("its words are " length($2) " characters, not 1 to 120")
  if (index(" " statuses " ", " " $3 " ") == 0 || $3 == "") { wrong("the status is \"" $3 "\""); next }
  if (($3 == "met" || $3 == "partly") && ($4 == "" || $5 == "")) wrong($3 " without code or test")
  if (($3 == "open" || $3 == "outside" || $3 == "none") && $5 != "") wrong($3 ", and yet a test")
  if ($3 != "met" && $6 == "") wrong($3 " without a note that says why")
  check_code()
  check_tests()
  chapter = 0
  if ($1 ~ /^ASVS /) { chapter = substr($1, 6); sub(/\..*/, "", chapter); chapter += 0 }
  sum[chapter, $3]++
  total[$3]++
}

END {
  for (control in wanted) if (!(control in seen)) { print "controls.tsv: no row for " control; failed = 1 }
  printf "%-24s", ""
  for (i = 1; i <= 5; i++) printf "%9s", order[i]
  print ""
  for (chapter = 0; chapter <= 17; chapter++) {
    printf "%-24s", chapter ? "V" chapter " " names[chapter] : "HIPAA 164.312"
    for (i = 1; i <= 5; i++) printf "%9d", sum[chapter, order[i]]
    print ""
  }
  printf "%-24s", "all"
  for (i = 1; i <= 5; i++) printf "%9d", total[order[i]]
  print ""
  exit failed
}' docs/security/asvs-5.0-items.txt docs/security/controls.tsv
