#!/usr/bin/env bash
# One client of a tunnel never reads: it is disconnected after 5 seconds,
# together with its upstream. Twenty healthy clients of the same tunnel keep
# their rate and lose no byte. The server behind the tunnel has no defence.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

upstream_log=$work/upstream.log
"$highwater" echo --grace 1h --port 0 --log-file "$upstream_log" --log-level debug \
    >"$work/upstream" 2>&1 &
upstream_pid=$!
trap 'kill -KILL "$upstream_pid" 2>/dev/null || true; wait "$upstream_pid" 2>/dev/null || true; cleanup' EXIT
for _ in {1..50}; do
    grep -q 'listening on' "$upstream_log" 2>/dev/null && break
    sleep 0.1
done
upstream=$(sed -n 's/.*listening on \(.*\)$/\1/p' "$upstream_log" | head -n 1)
[[ -n $upstream ]] || fail "the server behind the tunnel does not listen"

start_server tunnel --to "$upstream"
probe --stalled 1 --fast 20
expect_disconnected 1 'write timeout'
line=$(grep -o 'client [0-9]* write timeout, disconnecting: slow for [0-9.]* s' "$log")
for _ in {1..20}; do
    grep -q 'closed: .* reset' "$upstream_log" && break
    sleep 0.1
done
grep -q 'reset' "$upstream_log" || fail "the server behind the tunnel still has the stalled client's connection"
pass "one stalled client was disconnected with its upstream (${line##*: }), twenty fast ones went on"
