#!/usr/bin/env bash
# Judges `highwater broadcast` by the tests and clients of others: Redis's own
# suite, redis-py, ioredis, redis-benchmark, and `highwater probe`.
#
#   scripts/broker-tests.sh [PROGRAM]
#
# PROGRAM is target/release/highwater unless given. What is not installed here is
# left out with a line that begins with SKIPPED. Clients are installed into
# target/broker-clients; HIGHWATER_CLIENTS=FOLDER takes another folder.
set -uo pipefail
cd "$(dirname "$0")/.."
program=$(realpath -m "${1:-target/release/highwater}")
clients=$(realpath -m "${HIGHWATER_CLIENTS:-target/broker-clients}")
[ -x "$program" ] || { echo "broker-tests: $program is not built: run make build"; exit 1; }

work=$(mktemp -d "${TMPDIR:-/tmp}/highwater-broker-tests.XXXXXX")
server=
finish() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT
failed=0
check() {
    local name=$1
    shift
    if timeout 200 "$@" >"$work/output" 2>&1; then
        cat "$work/output"
    else
        cat "$work/output"
        echo "  $name: FAILED"
        failed=$((failed + 1))
    fi
}
skip() {
    echo "  SKIPPED: $1"
}

stop() {
    kill "$server"
    wait "$server" 2>/dev/null
    server=
}

start() {
    "$program" broadcast --port 0 "$@" >"$work/server.log" 2>&1 &
    server=$!
    port=
    for _ in $(seq 100); do
        port=$(sed -n 's/.*listening on .*:\([0-9]*\).*/\1/p' "$work/server.log" | head -1)
        [ -n "$port" ] && return
        sleep 0.05
    done
    echo "broker-tests: the server did not start:"
    cat "$work/server.log"
    exit 1
}

start --grace 1s
for version in 5 6 8; do
    folder=$clients/redis-py-$version
    if ! command -v python3 >/dev/null; then
        skip "redis-py $version: python3 is not installed"
        continue
    fi
    [ -d "$folder" ] || python3 -m pip install -q --disable-pip-version-check --root-user-action=ignore \
        --target "$folder" "redis>=$version,<$((version + 1))" >"$work/install.log" 2>&1 || rm -rf "$folder"
    if [ ! -d "$folder" ]; then
        skip "redis-py $version cannot be installed: $(tail -1 "$work/install.log")"
        continue
    fi
    for protocol in 2 3; do
        check "redis-py $version" env PYTHONPATH="$folder" python3 scripts/clients/redis_py.py "$port" $protocol
    done
done
for version in 5 6; do
    folder=$clients/ioredis-$version
    if ! command -v npm >/dev/null; then
        skip "ioredis $version: npm is not installed"
        continue
    fi
    [ -d "$folder" ] || npm install --silent --prefix "$folder" "ioredis@$version" >"$work/install.log" 2>&1 || rm -rf "$folder"
    if [ ! -d "$folder" ]; then
        skip "ioredis $version cannot be installed: $(tail -1 "$work/install.log")"
        continue
    fi
    for protocol in 2 3; do
        check "ioredis $version" env NODE_PATH="$folder/node_modules" node scripts/clients/ioredis.cjs "$port" $protocol
    done
done
if command -v redis-benchmark >/dev/null; then
    check redis-benchmark sh -c "redis-benchmark -p $port -q -P 16 -n 100000 publish news hello | tr '\r' '\n' | grep -o 'publish .*p50=.*' | tail -1 | sed 's/^/  redis-benchmark: /'"
else
    skip "redis-benchmark is not installed: apt-get install redis-tools"
fi
stop

start
payload=$(printf '%4082s' '' | tr ' ' x)
check probe sh -c "'$program' probe --port $port --protocol push --send 'SUBSCRIBE channel\\r\\n' \
    --publish 'PUBLISH channel {seq}$payload\\r\\n' >'$work/probe' 2>&1
    status=\$?; tail -3 '$work/probe' | sed 's/^/  probe: /'; exit \$status"
stop

check "Redis's own tests" scripts/redis-suite.sh "$program"
echo
if [ $failed -gt 0 ]; then
    echo "broker-tests: $failed failed"
    exit 1
fi
echo "broker-tests: all passed"
