#!/bin/bash
# Fails if the library without features builds more crates than a user of an
# event loop would expect.
set -euo pipefail
cd "$(dirname "$0")/.."
most=10
crates=$(cargo tree --no-default-features -e normal --prefix none | sed 's/ .*//' | sort -u)
count=$(wc -l <<<"$crates")
if [ "$count" -gt $most ]; then
    echo "the library without features builds $count crates, more than $most:" $crates >&2
    exit 1
fi
echo "the library without features builds $count crates: at most $most"
