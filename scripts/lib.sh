# Shared by the slow-client scenarios: starts a server on a free port with a
# log file, drives the prober's clients at it, and prints one line at the end.
# shellcheck shell=bash
#
# SERVER_ARGS adds options to every server, so that a scenario can be shown to
# fail: SERVER_ARGS="--grace 1h" switches the defence off. KEEP_LOGS=DIR keeps
# the logs of the servers in that directory.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
highwater=${HIGHWATER:-$root/target/release/highwater}
scenario=$(basename "$0" .sh)
work=$(mktemp -d "${TMPDIR:-/tmp}/highwater-$scenario.XXXXXX")
log=$work/server.log
server_pid=

if [[ ! -x $highwater ]]; then
    echo "$highwater is missing: build it with 'cargo build --release'" >&2
    exit 1
fi

cleanup() {
    if [[ -n $server_pid ]] && kill -0 "$server_pid" 2>/dev/null; then
        kill -KILL "$server_pid" 2>/dev/null || true
        wait "$server_pid" 2>/dev/null || true
    fi
    if [[ -n ${KEEP_LOGS:-} ]]; then
        mkdir -p "$KEEP_LOGS"
        cp "$log" "$KEEP_LOGS/$scenario.log" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap cleanup EXIT

fail() {
    echo "FAIL  $scenario: $*"
    echo "      the last lines of the server's log:"
    tail -n 8 "$log" 2>/dev/null | sed 's/^/      /' || true
    exit 1
}

# pass WORDS...: prints the outcome, and the line of the log that was judged.
pass() {
    local judged
    judged=$(grep -- 'disconnecting' "$log" || true)
    [[ -n $judged ]] || fail "no line with 'disconnecting' in the log"
    echo "ok    $scenario: $*"
    head -n 1 <<<"$judged" | sed 's/^/      /'
    local more=$(($(wc -l <<<"$judged") - 1))
    ((more == 0)) || echo "      and $more more such lines"
}

# start_server ARGS...: sets server_pid and port.
start_server() {
    # shellcheck disable=SC2086  # SERVER_ARGS is a list of words.
    "$highwater" "$@" --port 0 --log-file "$log" --log-rate 0 ${SERVER_ARGS:-} >"$work/terminal" 2>&1 &
    server_pid=$!
    wait_for_log 'listening on' 5
    port=$(sed -n 's/.*listening on .*:\([0-9]*\)$/\1/p' "$log" | head -n 1)
}

# wait_for_log PATTERN SECONDS: waits until a line of the log matches.
wait_for_log() {
    local tenths=$(($2 * 10))
    until grep -q -- "$1" "$log" 2>/dev/null; do
        if ((tenths-- <= 0)); then
            fail "no line with '$1' in the log within $2 s"
        fi
        sleep 0.1
    done
}

# wait_for_exit SECONDS: waits until the server has ended; sets exit_code.
wait_for_exit() {
    local tenths=$(($1 * 10))
    while kill -0 "$server_pid" 2>/dev/null; do
        if ((tenths-- <= 0)); then
            fail "the server was still running $1 s after SIGTERM"
        fi
        sleep 0.1
    done
    exit_code=0
    wait "$server_pid" || exit_code=$?
    server_pid=
    export exit_code
}

# probe ARGS...: drives clients at the server. The scenario fails unless the
# prober's verdict is pass. Only clients named in ARGS take part.
probe() {
    local report=$work/probe
    if ! "$highwater" probe --port "$port" --fast 0 --stalled 0 --quiet 0 --talkers 0 --paused 0 --steady 0 \
        "$@" >"$report" 2>&1; then
        grep -E '^  (FAIL|unknown)' "$report" | sed 's/^ */      /' || tail -n 5 "$report" | sed 's/^/      /'
        fail "the prober's verdict is not pass"
    fi
}

# disconnected REASON: prints the number of clients that the log says were
# disconnected for this reason.
disconnected() {
    grep -c -- "$1, disconnecting" "$log" || true
}

# expect_disconnected N REASON: fails the scenario unless that number is N.
expect_disconnected() {
    local count
    count=$(disconnected "$2")
    [[ $count -eq $1 ]] || fail "expected $1 clients disconnected by '$2', the log has $count"
}
