#!/usr/bin/env bash
# One subscriber never reads: it is disconnected after 5 seconds. Twenty healthy
# subscribers beside it get every message.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

start_server broadcast
payload=$(printf '%1024s' '' | tr ' ' x)
probe --protocol push --send 'SUBSCRIBE news\r\n' --publish "PUBLISH news $payload\\r\\n" --publish-rate 1MiB \
    --stalled 1 --fast 20
expect_disconnected 1 'write timeout'
line=$(grep -o 'write timeout, disconnecting: slow for [0-9.]* s' "$log")
pass "one stalled subscriber was disconnected (${line##*: }), twenty healthy ones went on"
