#!/usr/bin/env bash
# A stalled client does not keep the server from stopping: SIGTERM gives it
# the stop timeout, then it is reset, and the server exits with 0.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

start_server echo
"$highwater" probe --port "$port" --fast 0 --stalled 1 --quiet 0 --talkers 0 --paused 0 --steady 0 \
    >"$work/probe" 2>&1 &
client_pid=$!
wait_for_log 'write blocked' 10
kill -TERM "$server_pid"
wait_for_exit 7
wait "$client_pid" || true
[[ $exit_code -eq 0 ]] || fail "the server exited with $exit_code"
grep -q 'disconnecting' "$log" || fail "no line with 'disconnecting' in the log"
grep -q 'stopped: .* clients served' "$log" || fail "no summary in the log"
pass "with a stalled client, SIGTERM ended the server within the stop timeout"
