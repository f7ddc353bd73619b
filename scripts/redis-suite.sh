#!/usr/bin/env bash
# Runs Redis's own tests of publish and subscribe against `highwater broadcast`.
# The tests come from Debian's source package and are not part of this project.
#
#   scripts/redis-suite.sh [PROGRAM]
#
# PROGRAM is target/release/highwater unless given. REDIS_SOURCE=FOLDER takes a
# source tree that is there already. Exits with 0 if all pass, or with 0 and a
# line that says why where the tests cannot be run.
set -euo pipefail
cd "$(dirname "$0")/.."
program=$(realpath -m "${1:-target/release/highwater}")

# What is left out, and why. docs/broadcast.md has the same list.
#   Keyspace notifications        there are no keys
#   replication, cluster          there is one server
#   replies of the class normal   a client that does not read its replies is not
#                                 read either, so no limit on them is needed
left_out="/^Keyspace notifications"
output_limits=(
    "CONFIG SET client-output-buffer-limit"
    "Client output buffer hard limit is enforced"
    "Client output buffer soft limit is not enforced too early and is enforced when no traffic"
    "Client output buffer soft limit is enforced if time is overreached"
)

skip() {
    echo "redis-suite: SKIPPED: $1"
    exit 0
}

[ -x "$program" ] || skip "$program is not built"
command -v tclsh >/dev/null || skip "tclsh is not installed: apt-get install tcl"
work=$(mktemp -d "${TMPDIR:-/tmp}/highwater-redis-suite.XXXXXX")
server=
finish() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

if [ -n "${REDIS_SOURCE:-}" ]; then
    cp -r "$REDIS_SOURCE" "$work/redis"
else
    command -v apt-get >/dev/null || skip "there is no apt-get; set REDIS_SOURCE to a source tree of Redis 7.0"
    (cd "$work" && apt-get source -qq --download-only redis >apt.log 2>&1) ||
        skip "apt-get source redis failed ($(tail -1 "$work/apt.log")): enable deb-src, or set REDIS_SOURCE"
    mkdir "$work/redis"
    tar -xf "$work"/redis_*.orig.tar.* -C "$work/redis" --strip-components 1
fi
tree=$work/redis
[ -x "$tree/runtest" ] || skip "$tree has no runtest"

# Against a server that is running already, the suite leaves out whatever has
# the mark external:skip. Most of that needs no server of the suite's own.
sed -i 's/ external:skip//' "$tree"/tests/unit/{pubsub,pubsubshard,obuf-limits}.tcl
# What comes behind it in this file starts a replica.
awk '/^start_server/ && ++count > 1 { exit } { print }' "$tree/tests/unit/pubsubshard.tcl" >"$work/part"
mv "$work/part" "$tree/tests/unit/pubsubshard.tcl"

"$program" broadcast --port 0 >"$work/server.log" 2>&1 &
server=$!
port=
for _ in $(seq 100); do
    port=$(sed -n 's/.*listening on .*:\([0-9]*\).*/\1/p' "$work/server.log" | head -1)
    [ -n "$port" ] && break
    sleep 0.05
done
[ -n "$port" ] || { echo "redis-suite: the server did not start:"; cat "$work/server.log"; exit 1; }

run() {
    (cd "$tree" && timeout 300 ./runtest --host 127.0.0.1 --port "$port" --singledb --ignore-encoding "$@") \
        >"$work/output" 2>&1 || { cat "$work/output"; echo "redis-suite: FAILED"; exit 1; }
    sed 's/\x1b\[[0-9;]*m//g' "$work/output" | grep -E '^\[(ok|skip)\]' | sed 's/^/  /' | tee -a "$work/passed"
}

run --single unit/pubsub --single unit/pubsubshard --skiptest "$left_out"
only=()
for name in "${output_limits[@]}"; do
    only+=(--only "$name")
done
run --single unit/obuf-limits "${only[@]}"
passed=$(grep -c '\[ok\]' "$work/passed")
[ "$passed" -ge 24 ] || { echo "redis-suite: only $passed tests ran"; exit 1; }
echo "redis-suite: $passed tests of Redis passed"
